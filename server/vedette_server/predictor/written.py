"""Reader of a config's YAML as data: it calls nothing and looks up no names.

Dumps of configs contain Python tags for tuples, nodes, shapes, NumPy numbers and paths. Those are read as data. Any
other tag becomes an `Expression`, which the caller refuses with its location.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from vedette_server.contract import disk, markup
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.predictor.pickled import BrokenPickleError
from vedette_server.predictor.stored import Array, DType

_STANDARD = "tag:yaml.org,2002:"
_PYTHON = f"{_STANDARD}python/"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_CALLS = ("object/apply:", "object/new:", "object:")
_SCALARS = {f"{_STANDARD}{name}" for name in ("null", "bool", "int", "float", "str", "binary")}
_PLAIN_PYTHON = {
    "none": "null",
    "bool": "bool",
    "str": "str",
    "unicode": "str",
    "int": "int",
    "long": "int",
    "float": "float",
}
_DICTIONARIES = ("OrderedDict", "defaultdict", "EasyDict", "CfgNode", "ConfigDict")
_PATHS = ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath", "Path", "PurePath")
_SHAPE = ("channels", "height", "width", "stride")
# The only expression in Detectron2's own configs, which many projects have copied, and its value.
_OWN = {
    "[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] for x in [32, 64, 128, 256, 512 ]]": [
        [edge, edge * 2 ** (1.0 / 3), edge * 2 ** (2.0 / 3)] for edge in (32, 64, 128, 256, 512)
    ]
}


@dataclass(frozen=True)
class Expression:
    """A call or lookup that a Python tag requests."""

    name: str
    called: bool = True  # False: only named


def read(path: Path) -> Any:  # noqa: ANN401  any content
    """Read a YAML file, whose content may include `Expression`s. Raises `LoadRefusedError`: CONFIG_UNREADABLE."""
    try:
        text = _text(path)
        markup.check(text)
        node = yaml.compose(text, yaml.SafeLoader)
        if node is None:
            _refuse(path, "is empty")
        return _Reader(path).data(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        _refuse(path, f"is not YAML ({where}{error.problem or error.context})")
    except yaml.YAMLError as error:
        _refuse(path, f"is not YAML ({' '.join(str(error).split())})")
    except markup.BoundsError as error:
        _refuse(path, str(error))


def _refuse(path: Path, why: str, remedy: str | None = None) -> NoReturn:
    raise LoadRefusedError(Check.CONFIG_UNREADABLE, f"{path} {why}", remedy)


def _text(path: Path) -> str:
    if path.is_dir():
        _refuse(path, "is a folder")
    try:
        data = disk.contents(path, disk.LARGEST["config.yaml"])
    except LoadRefusedError as error:
        remedy = "give the config, and the weights as --weights"
        raise LoadRefusedError(Check.CONFIG_UNREADABLE, f"{error.seen}, and is not a config", remedy) from error
    except OSError as error:
        _refuse(path, f"cannot be read: {error.strerror}")
    try:
        return data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        _refuse(path, f"is not UTF-8 text: the byte {data[error.start]:#04x} in line {line}", "save it as UTF-8")


def expressions(data: object, within: str = "") -> Iterator[tuple[str, Expression]]:
    """Yield every expression in the data, with its key."""
    if isinstance(data, Expression | DType):
        yield within, data if isinstance(data, Expression) else Expression("numpy.dtype")
    items = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from expressions(value, f"{within}.{key}" if within else str(key))


class _Reader:
    """Converter of YAML nodes to data; anchors make them a graph of bounded size."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scalars = yaml.constructor.SafeConstructor()

    def data(self, node: yaml.Node) -> Any:  # noqa: ANN401  any content
        """Return a node's data; an anchor's is created anew each time, so that no two places share a dictionary."""
        tag = str(node.tag)
        if tag.startswith(_PYTHON):
            return self._python(node, tag.removeprefix(_PYTHON))
        if isinstance(node, yaml.ScalarNode):
            if tag in _SCALARS:
                return self._scalar(node, tag)
            return node.value if tag.startswith(_STANDARD) else Expression(tag)  # dates and the like are kept as text
        if tag not in {f"{_STANDARD}{name}" for name in ("map", "seq", "set", "omap", "pairs")}:
            return Expression(tag)
        return self._mapping(node) if isinstance(node, yaml.MappingNode) else [*map(self.data, node.value)]

    def _scalar(self, node: yaml.ScalarNode, tag: str) -> Any:  # noqa: ANN401  any content
        try:
            return self._scalars.construct_object(yaml.ScalarNode(tag, node.value, node.start_mark))
        except (ValueError, KeyError, OverflowError, IndexError) as error:
            reason = f"is not YAML (line {node.start_mark.line + 1}: {node.value[:40]!r} as {tag.rpartition(':')[2]})"
            raise LoadRefusedError(Check.CONFIG_UNREADABLE, f"{self._path} {reason}") from error

    def _mapping(self, node: yaml.MappingNode) -> dict[Any, Any]:
        """Return a mapping including what `<<` merges into it; each key may occur once."""
        own: dict[Any, Any] = {}
        merged: dict[Any, Any] = {}
        lines: dict[Any, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == f"{_STANDARD}merge":
                given = self.data(value_node)
                for one in reversed(given) if isinstance(given, list) else (given,):
                    merged |= one if isinstance(one, dict) else {}
                continue
            key = self.data(key_node)
            if isinstance(key, list | dict | Expression):
                _refuse(self._path, f"has a key in line {line} that is not text")
            if key in lines:
                _refuse(
                    self._path, f"has the key {key!r} twice, in lines {lines[key]} and {line}", "remove one of them"
                )
            own[key], lines[key] = self.data(value_node), line
        return {**merged, **own}

    def _python(self, node: yaml.Node, kind: str) -> Any:  # noqa: ANN401  any content
        if kind in _PLAIN_PYTHON and isinstance(node, yaml.ScalarNode):
            return self._scalar(node, f"{_STANDARD}{_PLAIN_PYTHON[kind]}")
        if kind in ("tuple", "list") and isinstance(node, yaml.SequenceNode):
            return [*map(self.data, node.value)]
        if kind == "dict" and isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        for call in _CALLS:
            if kind.startswith(call):
                return self._called(node, kind.removeprefix(call))
        return Expression(kind.removeprefix("name:"), called=not kind.startswith("name:"))

    def _called(self, node: yaml.Node, name: str) -> Any:  # noqa: ANN401  any content
        """Return the value of a call that is fully determined by its data; the parts are laid out as by PyYAML."""
        given = self._mapping(node) if isinstance(node, yaml.MappingNode) else {}
        parts = {"args", "kwds", "state", "dictitems", "listitems"}
        args = [*map(self.data, node.value)] if isinstance(node, yaml.SequenceNode) else given.get("args", [])
        own = {} if parts & {*given} else given
        try:
            value = _known(name, args if isinstance(args, list) else [args], own, given)
        except _NOT_AS_WRITTEN:
            value = _UNKNOWN
        return Expression(name) if value is _UNKNOWN else value


_UNKNOWN = object()
# Exceptions for calls in a form that no writer produces; these are not data.
_NOT_AS_WRITTEN = (BrokenPickleError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def _known(name: str, args: list[Any], own: dict[Any, Any], given: dict[Any, Any]) -> Any:  # noqa: ANN401  any content
    """Return the value of a call by name, as data; `own` are an object's attributes, `given` is the whole node."""
    last = name.rpartition(".")[2]
    if last in _DICTIONARIES:
        pairs = args[0] if args and isinstance(args[0], list) else []
        first = {pair[0]: pair[1] for pair in pairs if isinstance(pair, list) and len(pair) == 2}
        return {**first, **own, **(given.get("dictitems") or {})}
    if name.startswith("detectron2.layers.") and last == "ShapeSpec":
        fields = own or given.get("state") or dict(zip(_SHAPE, args, strict=False))
        return {"_target_": "detectron2.layers.ShapeSpec", **{field: fields.get(field) for field in _SHAPE}}
    if name.startswith("pathlib.") and last in _PATHS:
        return str(Path(*map(str, args)))
    if name == "torch.device":
        return ":".join(map(str, args))
    if last == "eval" and len(args) == 1 and args[0] in _OWN:
        return _OWN[args[0]]
    return _numbers(name, args, given.get("state")) if name.startswith("numpy.") else _UNKNOWN


def _numbers(name: str, args: list[Any], state: object) -> Any:  # noqa: ANN401  any content
    """Convert NumPy's numbers and arrays to numbers and lists."""
    last = name.rpartition(".")[2]
    told = state if isinstance(state, list) else []
    if last == "dtype":
        dtype = DType(*args)
        dtype.build(tuple(told))
        return dtype
    if last == "scalar" and len(args) == 2 and isinstance(args[0], DType) and isinstance(args[1], bytes):
        return args[0].numbers(args[1]).tolist()[0] if args[0].size == len(args[1]) else _UNKNOWN
    if last == "_reconstruct":
        array = Array()
        array.build((told[0], tuple(told[1]), *told[2:]) if len(told) == 5 and isinstance(told[1], list) else None)
        return array.tensor().tolist() if array.numeric else _UNKNOWN
    return _UNKNOWN
