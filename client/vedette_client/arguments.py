"""Validation of callers' arguments before use: each function has one rule, and its error names the argument.

An unknown name is a `TypeError`, as usual in Python. An invalid value is a `LocalError`: it may come from a camera, a
file or a form, and a single bad frame does not end a stream. Numbers may be Python's or NumPy's. Booleans and strings
are not numbers, and 1.0 is not an integer.
"""

import contextlib
import difflib
import functools
import inspect
import numbers
import reprlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, ParamSpec, TypeVar, cast, get_args

import numpy as np

from vedette_client.errors import LocalError

LARGEST_INT32 = 2**31 - 1
LARGEST_INT64 = 2**63 - 1
_SHOWN = 60  # characters of a value shown in messages

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", bound=type)

_ELSEWHERE = {
    "timeout": "it belongs to the client: Client(address, timeout=seconds)",
    "request_id": "the server generates one; only detect accepts yours",
}


def shown(value: object) -> str:
    """Return a short representation of a value for messages."""
    try:
        text = reprlib.repr(value[:_SHOWN] if isinstance(value, str | bytes | bytearray) else value)
    except Exception:  # noqa: BLE001  the value's own code, or Python's limit on the digits of integers
        text = "a value"
    text = " ".join(text.split())
    return f"{text[: _SHOWN - 1]}…" if len(text) > _SHOWN else text


def wrong(name: str, value: object, wanted: str, reason: str = "") -> LocalError:
    """Return the error for an invalid value; `reason` is the server's reason for it, if it has one."""
    kind = type(value).__name__
    seen = "None" if value is None else f"{shown(value)} ({kind})"
    return LocalError(f"{name} is {seen}: it must be {wanted}", reason)


def text(value: object, name: str) -> str:
    """Validate a string that can be sent."""
    if not isinstance(value, str):
        raise wrong(name, value, "a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise wrong(name, value, "valid text, without surrogates") from error
    return str(value)


def whole(
    value: object, name: str, least: int = -LARGEST_INT32 - 1, most: int = LARGEST_INT32, reason: str = ""
) -> int:
    """Validate an integer."""
    wanted = f"an integer from {least} to {most}"
    if not isinstance(value, int | np.integer) or isinstance(value, bool | np.timedelta64):
        raise wrong(name, value, wanted)
    if not least <= (given := int(value)) <= most:
        raise wrong(name, value, wanted, reason)
    return given


def number(value: object, name: str, least: float, most: float, reason: str = "") -> float:
    """Validate a finite number."""
    wanted = f"a number from {least:.15g} to {most:.15g}"
    if isinstance(value, bool | np.timedelta64) or not isinstance(value, numbers.Real):
        raise wrong(name, value, wanted)
    with contextlib.suppress(OverflowError):  # too large for a float
        if least <= (given := float(value)) <= most:  # false for NaN
            return given
    raise wrong(name, value, wanted, reason)


def flag(value: object, name: str) -> bool:
    """Validate True or False."""
    if not isinstance(value, bool | np.bool_):
        raise wrong(name, value, "True or False")
    return bool(value)


def one_of(value: object, name: str, allowed: Collection[str]) -> str:
    """Validate one of a few names."""
    if isinstance(value, str) and value in allowed:
        return str(value)
    listed = ", ".join(map(repr, allowed))
    near = nearest(value, allowed) if isinstance(value, str) else None
    raise wrong(name, value, f"one of {listed}" + (f"; did you mean {near!r}?" if near else ""))


def optional(value: object, name: str, allowed: Collection[str]) -> str | None:
    """Validate one of a few names, or None."""
    return None if value is None else one_of(value, name, allowed)


def several(value: object, name: str, example: str) -> tuple[object, ...]:
    """Return the items of a list, a tuple, a set or an array; a string does not count as a list of letters."""
    single = isinstance(value, str | bytes | bytearray | memoryview | Mapping) or not isinstance(value, Collection)
    if single or (isinstance(value, np.ndarray) and value.ndim != 1):
        raise wrong(name, value, f"a list, such as {example}")
    return tuple(cast("Collection[object]", value))


def nearest(given: str, names: Collection[str]) -> str | None:
    """Return the most similar name, ignoring case; None if none is similar."""
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(given.casefold(), folded, 1)
    return folded[near[0]] if near else None


def unknown(given: str, names: Collection[str], of: str) -> TypeError:
    """Return the error for an unknown name."""
    msg = f"{of} got an unexpected keyword argument {given!r}"
    if given in _ELSEWHERE:
        return TypeError(f"{msg}: {_ELSEWHERE[given]}")
    near = nearest(given, names)
    return TypeError(
        f"{msg}: did you mean {near!r}?" if near else f"{msg}: it takes {', '.join(sorted(names)) or 'none'}"
    )


def named(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function suggest the nearest keyword for an unknown one, including those from `Unpack`."""
    parameters = inspect.signature(function).parameters
    names = {name for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD and name != "self"}
    for one in parameters.values():
        if one.kind is one.VAR_KEYWORD:
            names |= set(get_args(one.annotation)[0].__annotations__)

    def check(given: Mapping[str, object]) -> None:
        for name in given:
            if name not in names:
                raise unknown(name, names, f"{function.__qualname__}()")

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401  the function's own result
            check(kwargs)
            return await function(*args, **kwargs)

        return cast("Callable[P, T]", awaited)

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        check(kwargs)
        return function(*args, **kwargs)

    return called


def named_fields(kind: C) -> C:
    """Make a dataclass suggest the nearest field for an unknown one."""
    setattr(kind, "__init__", named(getattr(kind, "__init__")))  # noqa: B009, B010  as dataclasses do themselves
    return kind
