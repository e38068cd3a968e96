"""Rules for names of models, classes and keypoints, shared by import and serving."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

from vedette_server.contract.contract import Names
from vedette_server.contract.loading import Check, LoadRefusedError

_LONGEST = 128  # characters of a model's name, which serves as a folder, a label and a part of addresses
_MODEL = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{_LONGEST - 1}}}")
RULE = f"letters, digits, '_', '-' and '.', at most {_LONGEST}, not starting with '-' or '.'"


def is_model_name(name: str) -> bool:
    """Return whether `name` is a valid model name."""
    return _MODEL.fullmatch(name) is not None


def clean(names: Sequence[str], of: str) -> tuple[str, ...]:
    """Strip blanks around names; `of` says what the names belong to.

    Raises `LoadRefusedError`, NAMES_UNUSABLE, if a name is empty, a duplicate, or not printable.
    """
    trimmed = tuple(name.strip() for name in names)
    if empty := [str(number) for number, name in enumerate(trimmed, start=1) if not name]:
        _refuse(of, f"number {', '.join(empty)} of {len(trimmed)} is empty")
    if twice := [name for name, count in Counter(trimmed).items() if count > 1]:
        _refuse(of, f"{', '.join(twice)} is given more than once")
    if odd := [name for name in trimmed if not name.isprintable()]:
        _refuse(of, f"{', '.join(map(ascii, odd))} cannot be printed")
    return trimmed


def check(names: Names) -> None:
    """Apply the same rule to a version's names. Raises `LoadRefusedError`: NAMES_UNUSABLE."""
    for given, of in ((names.classes, "classes"), (names.stuff, "classes of stuff"), (names.keypoints, "keypoints")):
        clean(given, of)


def _refuse(of: str, seen: str) -> NoReturn:
    raise LoadRefusedError(Check.NAMES_UNUSABLE, f"of the names of {of}, {seen}")
