"""Selection of a model's tensors from a checkpoint, by name and shape.

A checkpoint may nest them in dictionaries ("state_dict"), prefix their names ("module.", "modelTeacher."), or hold
several sets (student and teacher, a model and its average). A set is chosen only if no other fits, or if Detectron2
itself would choose it. Otherwise the error lists the sets and the flags that choose one.
"""

import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.predictor.pickled import Inert
from vedette_server.predictor.stored import Array, Stored

_MOST, _DEEPEST = 1_000_000, 40  # objects that are examined, and depth of containers
_MOST_SETS = 50  # that are compared
_SHOWN = 6
_DETECTRON2 = "model"  # the entry that Detectron2 uses
_NOTHING = "an empty dictionary"
_WRAPPINGS = ("module.", "_orig_mod.")  # name prefixes added by training: DistributedDataParallel, torch.compile

Shape = tuple[int, ...]


@dataclass(frozen=True)
class CheckpointTensor:
    """A tensor of a checkpoint, and its location."""

    within: str  # path of the enclosing containers, with dots
    name: str  # within the innermost container
    stored: Stored

    @property
    def path(self) -> str:
        """The complete path."""
        return f"{self.within}.{self.name}" if self.within else self.name


@dataclass(frozen=True)
class Content:
    """All tensors of a checkpoint, and its other objects."""

    entries: tuple[CheckpointTensor, ...]
    others: Mapping[str, str] = field(default_factory=dict)  # types of objects other than tensors, by path


@dataclass(frozen=True, kw_only=True)
class TensorSet:
    """A set of tensors that may be the model's: those whose paths begin with `prefix`."""

    prefix: str
    within: str | None  # their common container; None: several
    given: Mapping[str, CheckpointTensor]  # by the model's names
    fit: int  # tensors that the model has with the same shape
    known: int  # tensors that the model has with any shape
    missing: int
    unexpected: int

    @property
    def complete(self) -> bool:
        """True if the set equals the model's tensors."""
        return not self.missing and not self.unexpected and self.fit == self.known

    @property
    def usual(self) -> bool:
        """True if Detectron2 would take them: at the top level or in "model", except for prefixes added by training."""
        rest = self.prefix
        for start in (f"{_DETECTRON2}.", *_WRAPPINGS * 3):
            rest = rest.removeprefix(start)
        return not rest

    @property
    def flags(self) -> tuple[str, ...]:
        """The command line flags that choose the set."""
        if self.within is None or self.prefix in ("", f"{self.within}."):
            key, strip = self.prefix.removesuffix("."), ""
        else:
            key, strip = self.within, self.prefix.removeprefix(f"{self.within}." if self.within else "")
        return (*(("--weights-key", key) if key else ()), *(("--strip-prefix", strip) if strip else ()))


@dataclass(frozen=True)
class Chosen:
    """The chosen tensors, with a note on the choice."""

    stored: Mapping[str, Stored]  # by the model's names
    note: str  # describes the choice; empty: there was no alternative
    alternatives: tuple[tuple[str, ...], ...] = ()  # flags that choose other sets


def leaves(content: object, path: Path) -> Content:
    """Collect all tensors in a file's content. Raises `LoadRefusedError`: WEIGHTS_UNREADABLE."""
    entries, others = [], {}
    for keys, leaf in _walk(content, path):
        if isinstance(leaf, Inert):
            others[".".join(keys)] = leaf.name
        else:
            entries.append(CheckpointTensor(".".join(keys[:-1]), keys[-1] if keys else "", leaf))
    return Content(tuple(entries), others)


def _walk(content: object, path: Path) -> Iterator[tuple[tuple[str, ...], Stored | Inert]]:
    waiting: list[tuple[tuple[str, ...], object]] = [((), content)]
    seen: set[int] = set()  # objects may be cyclic; a dictionary may appear in several places
    for _ in range(_MOST):
        if not waiting:
            return
        keys, node = waiting.pop()
        if isinstance(node, Array) and not node.numeric:
            yield keys, Inert(name="numpy.ndarray of objects")
        elif isinstance(node, Stored):
            yield keys, node
        elif id(node) in seen:
            continue
        elif len(keys) < _DEEPEST and (inside := _inside(node)):
            if isinstance(node, Inert):
                seen.add(id(node))
            waiting.extend(((*keys, str(key)), child) for key, child in reversed(inside.items()))
        elif isinstance(node, Inert):
            yield keys, node
        elif node == {}:
            yield keys, Inert(name=_NOTHING)
    msg = f"{path} holds more than {_MOST} nested objects"
    raise LoadRefusedError(Check.WEIGHTS_UNREADABLE, msg)


def _inside(node: object) -> dict[object, object]:
    """Return the content of a container, an object, or a whole model, by name."""
    match node:
        case dict():
            return node
        case list() | tuple():
            return dict(enumerate(node))
        case Inert():
            state = node.state[0] if isinstance(node.state, tuple) and node.state else node.state
            own = state if isinstance(state, dict) else {}
            if isinstance(own.get("_parameters"), dict):
                return _parts(own)
            if node.name.startswith("torch."):
                return {}  # a type of tensor that is not supported, or unrelated to the model
            return {**dict(enumerate((*node.args, *node.elements))), **own, **node.items}
    return {}


def _parts(module: dict[object, object]) -> dict[object, object]:
    """Return what the `state_dict` of a module that was pickled whole would hold."""
    volatile = module.get("_non_persistent_buffers_set")
    left_out = [*volatile.args, *volatile.elements] if isinstance(volatile, Inert) else []
    names = {name for one in left_out for name in (one if isinstance(one, list) else [one]) if isinstance(name, str)}
    parts: dict[object, object] = {}
    for key in ("_parameters", "_buffers", "_modules"):
        given = module.get(key)
        parts |= {name: part for name, part in given.items() if name not in names} if isinstance(given, dict) else {}
    return parts


def choose(
    content: Content,
    wanted: Mapping[str, Shape],
    path: Path,
    *,
    key: str | None = None,
    prefixes: Sequence[str] = (),
    derived: Callable[[str], bool] = lambda _name: False,
) -> Chosen:
    """Choose a model's tensors; `wanted` are their names and shapes, except those that are `derived`.

    `key` and `prefixes` are the operator's choice: the path of the containers, and prefixes of names. Raises
    `LoadRefusedError`: WEIGHTS_EMPTY, WEIGHTS_AMBIGUOUS, TENSORS_MISSING, WEIGHTS_UNREADABLE.
    """
    try:
        entries = _asked(content, key, prefixes, path)
    except LoadRefusedError as error:
        there = _candidates(content.entries, wanted, derived)
        flags = [one.flags for one in there if one.complete and one.flags]
        raise LoadRefusedError(error.check, error.seen, error.remedy, flags=flags) from None
    every = _candidates(entries, wanted, derived)
    shown = [one for one in every if one.known == max(other.known for other in every)]
    if not every:
        _check_held(content, wanted, path)
        if key is None and content.others.get(_DETECTRON2) == _NOTHING:
            raise LoadRefusedError(Check.WEIGHTS_EMPTY, f"the entry {_DETECTRON2!r} of {path} is empty")
        raise LoadRefusedError(Check.TENSORS_MISSING, _strangers(entries, wanted, path), _GIVE_THIS)
    whole = [one for one in every if one.complete]
    best = whole or shown
    taken = next((one for one in best if one.usual or (key is not None and not one.prefix)), best[0])
    if len(best) > 1 and not taken.usual and not (key is not None and not taken.prefix):
        flags = [_with(one.flags, key, prefixes) for one in best]
        raise LoadRefusedError(Check.WEIGHTS_AMBIGUOUS, f"{path} holds {_listed(best, wanted)}", flags=flags)
    if taken.missing:
        _check_held(content, wanted, path)
    others = [one for one in best if one is not taken]
    return Chosen(
        {name: entry.stored for name, entry in taken.given.items()},
        _note(taken, others, wanted, explicit=key is not None or bool(prefixes)),
        tuple(_with(one.flags, key, prefixes) for one in others),
    )


_GIVE_THIS = "give the checkpoint trained with this config"


def _asked(content: Content, key: str | None, prefixes: Sequence[str], path: Path) -> list[CheckpointTensor]:
    """Return the tensors that the operator chose, as if there were no others."""
    entries = list(content.entries)
    if not entries:
        kinds = ", ".join(f"{name} ({count})" for name, count in Counter(content.others.values()).most_common(_SHOWN))
        raise LoadRefusedError(Check.WEIGHTS_EMPTY, f"{path} holds no tensors" + (f", only {kinds}" if kinds else ""))
    if key is not None:
        entries = [_under(entry, f"{key}.") for entry in entries if entry.path.startswith(f"{key}.")]
    if prefixes:
        entries = [short for entry in entries if (short := _stripped(entry, prefixes)) is not None]
    if not entries:
        asked = shlex.join([*(("--weights-key", key) if key is not None else ()), *_repeated(prefixes)])
        raise LoadRefusedError(
            Check.WEIGHTS_EMPTY, f"{path} has no tensors for {asked}; it holds {_inventory(content)}"
        )
    return entries


def _repeated(prefixes: Sequence[str]) -> list[str]:
    return [part for prefix in prefixes for part in ("--strip-prefix", prefix)]


def _with(flags: tuple[str, ...], key: str | None, prefixes: Sequence[str]) -> tuple[str, ...]:
    """Return the flags for a set within those that the operator chose."""
    if key is None and not prefixes:
        return flags
    inner = dict(zip(flags[::2], flags[1::2], strict=True))
    whole = ".".join(part for part in (key, inner.get("--weights-key")) if part)
    strip = [*prefixes, *([inner["--strip-prefix"]] if "--strip-prefix" in inner else [])]
    return (*(("--weights-key", whole) if whole else ()), *_repeated(strip))


def _under(entry: CheckpointTensor, start: str) -> CheckpointTensor:
    """Return the entry relative to the container `start`."""
    rest = entry.path.removeprefix(start)
    within = entry.within.removeprefix(start) if entry.within.startswith(start) else ""
    return CheckpointTensor(within, rest.removeprefix(f"{within}.") if within else rest, entry.stored)


def _stripped(entry: CheckpointTensor, prefixes: Sequence[str]) -> CheckpointTensor | None:
    """Return the entry without any of the prefixes, even repeated ones; None if it has none."""
    name = entry.name
    while start := next((prefix for prefix in prefixes if prefix and name.startswith(prefix)), ""):
        name = name.removeprefix(start)
    return CheckpointTensor(entry.within, name, entry.stored) if name and name != entry.name else None


def _candidates(
    entries: Sequence[CheckpointTensor], wanted: Mapping[str, Shape], derived: Callable[[str], bool]
) -> list[TensorSet]:
    """Return the candidates for every path prefix under which the model's names occur, in file order."""
    found: dict[str, dict[str, CheckpointTensor]] = defaultdict(dict)
    for entry in entries:
        path = entry.path
        for start in _starts(path):
            if path[start:] in wanted:
                found[path[:start]].setdefault(path[start:], entry)
    most = max(map(len, found.values()), default=0)
    # One or two coincidental matches do not make a model.
    likely = [prefix for prefix, names in found.items() if 2 * len(names) >= most][:_MOST_SETS]
    return [_candidate(prefix, found[prefix], entries, wanted, derived) for prefix in likely]


def _starts(path: str) -> Iterator[int]:
    """Yield the positions in a path at which a name may start."""
    yield 0
    at = path.find(".")
    while at >= 0:
        yield at + 1
        at = path.find(".", at + 1)


def _candidate(
    prefix: str,
    found: Mapping[str, CheckpointTensor],
    entries: Sequence[CheckpointTensor],
    wanted: Mapping[str, Shape],
    derived: Callable[[str], bool],
) -> TensorSet:
    containers = {entry.within for entry in found.values()}
    within = containers.pop() if len(containers) == 1 else None
    parts = {name.partition(".")[0] for name in found}
    given = {
        name: entry
        for entry in entries
        if entry.path.startswith(prefix) and within in (None, entry.within)
        for name in (entry.path.removeprefix(prefix),)
        if prefix or within is not None or name.partition(".")[0] in parts  # beside a model in parts there may be more
    }
    extra = [name for name in given if name not in wanted and not derived(name)]
    fit = sum(tuple(found[name].stored.shape) == shape for name, shape in wanted.items() if name in found)
    return TensorSet(
        prefix=prefix,
        within=within,
        given=given,
        fit=fit,
        known=len(found),
        missing=len(wanted) - len(found),
        unexpected=len(extra),
    )


def _check_held(content: Content, wanted: Mapping[str, Shape], path: Path) -> None:
    """Refuse tensors that exist under the model's names, but in an unsupported form."""
    held = {name: kind for name, kind in content.others.items() if any(name[at:] in wanted for at in _starts(name))}
    if held:
        (first, kind), *_ = held.items()
        seen = f"{path} keeps {len(held)} of the model's tensors, such as {first}, as {kind}"
        raise LoadRefusedError(Check.WEIGHTS_UNREADABLE, seen, "save them as complete, dense tensors of floats")


def _strangers(entries: Sequence[CheckpointTensor], wanted: Mapping[str, Shape], path: Path) -> str:
    names = ", ".join(entry.path for entry in entries[:3])
    return (
        f"none of the {len(wanted)} tensors of the model is in {path}; its {len(entries)} tensors are named {names} "
        f"and so on, but the model's are named {', '.join([*wanted][:3])} and so on"
    )


def _listed(sets: Sequence[TensorSet], wanted: Mapping[str, Shape]) -> str:
    """List the sets with their prefixes and the number of matching tensors."""
    told = [f"{len(one.given)} tensors under {one.prefix!r} ({one.fit} of {len(wanted)} fit)" for one in sets[:_SHOWN]]
    more = f" and {len(sets) - _SHOWN} more sets" if len(sets) > _SHOWN else ""
    return " and ".join(told) + more


def _note(taken: TensorSet, others: Sequence[TensorSet], wanted: Mapping[str, Shape], *, explicit: bool) -> str:
    plain = taken.usual and not taken.prefix.removeprefix(f"{_DETECTRON2}.")
    if plain and not others:
        return ""
    under = f"under {taken.prefix!r}" if taken.prefix else "at the top"
    which = "as asked" if explicit else ("as Detectron2 would" if taken.usual else "the only ones that fit")
    if not taken.complete and not taken.usual:
        which = f"the best match, {taken.fit} of {len(wanted)}"
    left = f"; left out: {_listed(others, wanted)}" if others else ""
    return f"took the {len(taken.given)} tensors {under}, {which}{left}"


def _inventory(content: Content) -> str:
    """List a file's top-level entries, each with its number of tensors."""
    counts = Counter(entry.path.partition(".")[0] for entry in content.entries)
    flat = any(not entry.within for entry in content.entries)
    told = [f"{name} ({count} tensors)" for name, count in counts.most_common(_SHOWN)]
    more = f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else ""
    return f"{'names that begin with ' if flat else ''}{', '.join(told)}{more}"
