"""Reader of pickles as data: calls are recorded, and nothing is called.

The standard library's `pickletools` decodes the opcodes, which runs nothing. This module implements the pickle machine
without looking up names. A call becomes an `Inert`, unless the caller of `read` provides a substitute.
"""

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

_MOST_OPCODES = 20_000_000  # checkpoints have thousands; each hostile byte may take a hundred in memory
_PLAIN_KEYS = (str, int, float, bool, bytes, type(None))  # whose hashes are cheap

# Calls that no checkpoint needs. They would not run here either, but whoever ships such a file must know.
_ATTACKS = {
    "subprocess", "runpy", "pty", "ctypes", "webbrowser", "commands", "code", "pdb", "bdb", "timeit", "socket", "pip",
}  # fmt: skip
_SYSTEM = {"os", "posix", "nt"}
_SYSTEM_ATTACKS = ("system", "popen", "exec", "spawn", "posix_spawn", "remove", "unlink", "rmdir", "fork", "kill")
_OTHER_ATTACKS = {
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in
      ("eval", "exec", "execfile", "compile", "__import__", "open", "breakpoint", "input")),
    "importlib.import_module", "importlib.__import__", "shutil.rmtree", "shutil.move", "sys.exit",
}  # fmt: skip


class BrokenPickleError(Exception):
    """The bytes are not a complete pickle, or contain something that checkpoints do not."""


class AttackError(Exception):
    """The pickle would run code when loaded in the usual way."""


@dataclass(frozen=True)
class Named:
    """A class or function that the pickle names; it is not looked up."""

    name: str


@dataclass(eq=False, kw_only=True)
class Inert:
    """An object that the pickle would create by a call: the call, and the object's state."""

    name: str  # of the callable
    args: tuple[Any, ...] = ()
    state: object = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


Known = Mapping[str, Callable[..., object]]  # substitutes for calls, by the name of the callable
Persistent = Callable[[object], object]


def read(file: IO[bytes], known: Known, persistent: Persistent | None = None) -> Any:  # noqa: ANN401  any content
    """Read one pickle from the current position of `file`, and leave the position after it.

    `known` maps names to substitutes for calls, which may raise `BrokenPickleError` for their arguments. Their results
    may have a method `build`, which receives the object's state. `persistent` resolves persistent ids. Raises
    `BrokenPickleError`, `AttackError`.
    """
    try:
        return _Machine(known, persistent).run(file)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, struct.error) as error:
        msg = f"it is not a complete pickle ({error})"
        raise BrokenPickleError(msg) from error


_MARK = object()
_SAME = {  # opcodes that push their argument
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_MAKE: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Inert(name="builtins.set"),
    "MARK": lambda: _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_GETS, _PUTS = ("GET", "BINGET", "LONG_BINGET"), ("PUT", "BINPUT", "LONG_BINPUT")
_NOTHING = ("PROTO", "FRAME", "READONLY_BUFFER")


class _Machine:
    def __init__(self, known: Known, persistent: Persistent | None) -> None:
        self._known, self._persistent = known, persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, file: IO[bytes]) -> Any:  # noqa: ANN401  any content
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count > _MOST_OPCODES:
                msg = f"it has more than {_MOST_OPCODES} opcodes"
                raise BrokenPickleError(msg)
            self._step(opcode.name, argument)
        return self._stack.pop()

    def _step(self, name: str, argument: Any) -> None:  # noqa: ANN401  as `pickletools` types it
        stack = self._stack
        if name in _SAME:
            stack.append(argument)
        elif name in _MAKE:
            stack.append(_MAKE[name]())
        elif name in _GETS:
            stack.append(self._memo[argument])
        elif name in _PUTS:
            self._memo[argument] = stack[-1]
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name in _NOTHING:
            pass
        else:
            getattr(self, f"_{name.lower()}", self._unknown)(argument)

    def _unknown(self, _argument: object) -> None:
        msg = "it has an opcode that checkpoints never use"
        raise BrokenPickleError(msg)

    def _stop(self, _argument: object) -> None:
        """Ignore what follows, which is not part of the pickle."""

    def _pop_mark(self, _argument: object = None) -> list[Any]:
        """Pop everything above the last mark, and the mark itself."""
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                msg = "it has no mark"
                raise BrokenPickleError(msg)
        above = self._stack[at + 1 :]
        del self._stack[at:]
        return above

    def _memoize(self, _argument: object) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _pop(self, _argument: object) -> None:
        self._stack.pop()

    def _dup(self, _argument: object) -> None:
        self._stack.append(self._stack[-1])

    def _tuple(self, _argument: object) -> None:
        self._stack.append(tuple(self._pop_mark()))

    def _list(self, _argument: object) -> None:
        self._stack.append(self._pop_mark())

    def _dict(self, _argument: object) -> None:
        pairs = self._pop_mark()
        self._stack.append({})
        self._set(pairs)

    def _frozenset(self, _argument: object) -> None:
        self._stack.append(Inert(name="builtins.frozenset", elements=self._pop_mark()))

    def _append(self, _argument: object) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, _argument: object) -> None:
        self._extend(self._pop_mark())

    _additems = _appends

    def _extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Inert):
            target.elements.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            self._unknown(None)

    def _setitem(self, _argument: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def _setitems(self, _argument: object) -> None:
        self._set(self._pop_mark())

    def _set(self, pairs: list[Any]) -> None:
        target = self._stack[-1].items if isinstance(self._stack[-1], Inert) else self._stack[-1]
        if not isinstance(target, dict):
            self._unknown(None)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[key if isinstance(key, _PLAIN_KEYS) else f"<{type(key).__name__} {len(target)}>"] = value

    def _global(self, argument: str) -> None:
        self._stack.append(Named(argument.replace(" ", ".", 1)))

    def _stack_global(self, _argument: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            self._unknown(None)
        self._stack.append(Named(f"{module}.{name}"))

    def _reduce(self, _argument: object) -> None:
        args, called = self._stack.pop(), self._stack.pop()
        self._call(called, args)

    _newobj = _reduce

    def _newobj_ex(self, _argument: object) -> None:
        self._stack.pop()  # keyword arguments
        self._reduce(None)

    def _inst(self, argument: str) -> None:
        self._call(Named(argument.replace(" ", ".", 1)), tuple(self._pop_mark()))

    def _obj(self, _argument: object) -> None:
        called, *args = self._pop_mark()
        self._call(called, tuple(args))

    def _call(self, called: object, args: object) -> None:
        name = called.name if isinstance(called, Named | Inert) else type(called).__name__
        arguments = args if isinstance(args, tuple) else (args,)
        if isinstance(called, Named):
            _check_no_attack(name)
        if isinstance(called, Named) and name in self._known:
            self._stack.append(self._known[name](*arguments))
        else:
            self._stack.append(Inert(name=name, args=arguments))

    def _build(self, _argument: object) -> None:
        state = self._stack.pop()
        if isinstance(self._stack[-1], Inert):
            self._stack[-1].state = state
        elif hasattr(self._stack[-1], "build"):
            self._stack[-1].build(state)

    def _persid(self, argument: object) -> None:
        if self._persistent is None:
            self._unknown(None)
        else:
            self._stack.append(self._persistent(argument))

    def _binpersid(self, _argument: object) -> None:
        self._persid(self._stack.pop())


def _check_no_attack(name: str) -> None:
    module, _, function = name.partition(".")
    system = module in _SYSTEM and function.startswith(_SYSTEM_ATTACKS)
    if system or module in _ATTACKS or name in _OTHER_ATTACKS:
        raise AttackError(name)
