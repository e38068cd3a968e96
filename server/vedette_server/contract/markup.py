"""Bounded reading of YAML: limits on depth, and on size after its anchors are expanded.

Both are counted over parser events, which keep nothing in memory, before any object is built.
"""

from typing import Any

import yaml

_DEEPEST = 100  # nested collections; a resolved LazyConfig has about 15
MOST = 100_000  # values, with anchors expanded
_EVENTS: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser, if PyYAML has it, is ten times as fast


class BoundsError(ValueError):
    """YAML is too deep, too large or contains itself; the message says which, as a predicate."""


def check(text: str) -> None:
    """Check a text against the bounds. Raises `BoundsError`; `yaml.YAMLError` for invalid YAML."""
    sizes: dict[str, int] = {}  # values behind each anchor; 0: still being counted
    counts = [0]  # of open collections, innermost last
    anchors: list[str | None] = []
    for event in yaml.parse(text, _EVENTS):
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(str(event.anchor), 1)  # the composer reports undefined anchors
            if not size:
                msg = f"has an anchor that holds itself (*{event.anchor})"
                raise BoundsError(msg)
            counts[-1] += size
        elif isinstance(event, yaml.CollectionStartEvent):
            counts.append(1)
            anchors.append(event.anchor)
            if event.anchor:
                sizes[event.anchor] = 0
        elif isinstance(event, yaml.CollectionEndEvent):
            count, anchor = counts.pop(), anchors.pop()
            counts[-1] += count
            if anchor:
                sizes[anchor] = count
        elif isinstance(event, yaml.ScalarEvent):
            counts[-1] += 1
            if event.anchor:
                sizes[event.anchor] = 1
        _hold(counts, len(anchors))


def _hold(counts: list[int], depth: int) -> None:
    if depth > _DEEPEST:
        msg = f"is nested too deeply: more than {_DEEPEST} levels"
        raise BoundsError(msg)
    if counts[-1] > MOST:
        msg = f"has more than {MOST} values, with its anchors expanded"
        raise BoundsError(msg)


def plain(data: bytes) -> Any:  # noqa: ANN401  any YAML value
    """Load YAML of plain data.

    Raises `BoundsError`, `ValueError`; `yaml.YAMLError` for anything other than YAML of plain data.
    """
    text = data.decode()
    check(text)
    try:
        return yaml.safe_load(text)
    except (ArithmeticError, AttributeError, LookupError) as error:  # for a scalar that contradicts its tag
        msg = f"has a value of the wrong type ({error})"
        raise ValueError(msg) from error
