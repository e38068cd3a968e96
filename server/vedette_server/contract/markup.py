"""Read YAML within bounds: how deep it is, and how much it holds once its anchors are written out.

Both are counted over the events of the parser, which keeps nothing, before anything is made of them.
"""

from typing import Any

import yaml

_DEEPEST = 100  # collections within each other; a written LazyConfig has about 15
MOST = 100_000  # values, once anchors are written out
_EVENTS: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where PyYAML has it, is ten times as fast


class BoundsError(ValueError):
    """YAML is deeper or larger than what is read, or holds itself; the message says which, as a predicate."""


def check(text: str) -> None:
    """Hold a text to the bounds. Raises `BoundsError`; `yaml.YAMLError` for what is no YAML."""
    sizes: dict[str, int] = {}  # what an anchor stands for; 0: it is being counted
    counts = [0]  # of what is open, the innermost last
    anchors: list[str | None] = []
    for event in yaml.parse(text, _EVENTS):
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(str(event.anchor), 1)  # of an anchor that is not there the composer tells
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
        msg = f"has more than {MOST} values, those that anchors stand for counted"
        raise BoundsError(msg)


def plain(data: bytes) -> Any:  # noqa: ANN401  whatever it holds
    """What YAML of plain data holds. Raises `BoundsError`, `ValueError`; `yaml.YAMLError` for what is no such YAML."""
    text = data.decode()
    check(text)
    try:
        return yaml.safe_load(text)
    except (ArithmeticError, AttributeError, LookupError) as error:  # of a scalar that is not what its tag says
        msg = f"has a value that is not of its kind ({error})"
        raise ValueError(msg) from error
