"""Reader of checkpoint files that ignores their names and never runs their content.

safetensors files hold only numbers. Files written by torch or pickle are read as inert data (`predictor.pickled`).
Calls that represent tensors, arrays and plain containers are recognised by name, and become `Stored` tensors and the
like.
"""

import io
import json
import mmap
import zipfile
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors import safe_open

from vedette_server.contract import disk
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.predictor import kinds
from vedette_server.predictor.pickled import AttackError, BrokenPickleError, Inert, Known, Named, Persistent, read
from vedette_server.predictor.stored import Array, DType, Storage, Stored, Strided, Whole, is_size

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MOST_RECORDS = 200_000  # of an archive: one per tensor, and a few more
_LONGEST_REASON = 200  # characters of another library's message
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
}


def load(path: Path) -> Any:  # noqa: ANN401  any content
    """Read a file: plain data, `Stored` tensors and `Inert` objects, with their nesting.

    Raises `LoadRefusedError`: WEIGHTS_UNREADABLE, WEIGHTS_UNSAFE.
    """
    try:
        if path.is_file():  # other kinds of file are reported by kind
            disk.opened(path, disk.LARGEST_CHECKPOINT).close()
        return _loader(path)(path)
    except LoadRefusedError:
        raise
    except MemoryError as error:
        raise LoadRefusedError(Check.OUT_OF_MEMORY, f"{path} does not fit") from error
    except AttackError as error:
        msg = f"{path} is a pickle that would call {error} when loaded; it was not called here"
        raise LoadRefusedError(Check.WEIGHTS_UNSAFE, msg) from error
    except BrokenPickleError as error:
        raise LoadRefusedError(Check.WEIGHTS_UNREADABLE, f"{path} cannot be read: {error}") from error
    except Exception as error:  # zipfile, json and safetensors may raise anything for a damaged file
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        msg = f"{path} cannot be read ({type(error).__name__}: {reason})"
        raise LoadRefusedError(Check.WEIGHTS_UNREADABLE, msg) from error


def _loader(path: Path) -> Callable[[Path], Any]:
    kind = kinds.kind(path)
    if isinstance(kind, kinds.Foreign):
        raise LoadRefusedError(Check.WEIGHTS_UNREADABLE, f"{path} is {kind.what}", kind.remedy)
    return _LOADERS[kind]


def _safetensors(path: Path) -> dict[str, Stored]:
    file: Any = safe_open(path, "pt")  # it has no type stubs
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  it has no iterator
    return {name: Whole(shape, partial(file.get_tensor, name)) for name, shape in shapes.items()}


def _shards(path: Path) -> dict[str, Any]:
    """Read the parts listed in an index, which are files beside it."""
    index = json.loads(path.read_text(encoding="utf-8"))
    parts = index.get("weight_map") if isinstance(index, Mapping) else None
    if not isinstance(parts, Mapping) or not parts:
        raise LoadRefusedError(
            Check.WEIGHTS_UNREADABLE, f"{path} is JSON, but not an index of parts", "give the checkpoint"
        )
    joined: dict[str, Any] = {}
    for name in sorted(set(map(str, parts.values()))):
        part = path.parent / name
        if Path(name).name != name or not part.is_file() or kinds.kind(part) == kinds.SHARDS:
            seen = f"{path} names the part {name!r}, which is not in the same folder"
            raise LoadRefusedError(Check.WEIGHTS_UNREADABLE, seen, "put all parts into one folder with their index")
        content = load(part)
        joined |= content if isinstance(content, Mapping) else {}
    return joined


def _mapped(path: Path) -> IO[bytes]:
    """Return a file object that never reads beyond the end, however much is requested."""
    with path.open("rb") as file:
        return cast("IO[bytes]", mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _pickle(path: Path) -> Any:  # noqa: ANN401  any content
    return read(_mapped(path), _CALLS)


def _legacy(path: Path) -> Any:  # noqa: ANN401  any content
    return _old_torch(_mapped(path), _CALLS)


def _old_torch(file: IO[bytes], known: Known) -> Any:  # noqa: ANN401  any content
    """Read the format of torch before 1.6: consecutive pickles, then the storages in the order of their keys."""
    magic, _protocol, machine = (read(file, known) for _ in range(3))
    if magic != _LEGACY_MAGIC or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        msg = "it does not begin like a torch file, or was written on a big-endian machine"
        raise BrokenPickleError(msg)
    sizes: dict[str, int] = {}  # bytes per number, by storage
    places: dict[str, tuple[int, int]] = {}  # start and length in bytes

    @cache
    def piece(key: str) -> bytearray:
        place, length = places[key]
        file.seek(place)
        return bytearray(file.read(length))

    def storage(dtype: torch.dtype, key: str, count: int, part: tuple[int, int]) -> Storage:
        sizes[key] = dtype.itemsize
        start, count = part if part != (0, 0) else (0, count)
        return Storage(dtype, count, partial(piece, key), start)

    content = read(file, known, _persistent(storage))
    here, end = file.tell(), file.seek(0, io.SEEK_END) or file.tell()
    file.seek(here)
    for key in map(str, read(file, known)):
        length = int.from_bytes(file.read(8), "little") * sizes.get(key, 1)
        places[key] = place, _ = file.tell(), length
        if place + length > end:
            msg = f"it is truncated: at least {place + length - end} bytes are missing at its end"
            raise BrokenPickleError(msg)
        file.seek(place + length)
    return content


def _torch(path: Path) -> Any:  # noqa: ANN401  any content
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        msg = f"it begins like a torch file, but its end is missing: it has {path.stat().st_size} bytes"
        raise BrokenPickleError(msg) from error
    _check_torch(path, archive)
    return _new_torch(archive, _CALLS)


def _check_torch(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse other kinds of zip archives, and say what they are."""
    names = archive.namelist()
    within = {name.partition("/")[2] or name for name in names}
    if "constants.pkl" in within or any(name.startswith("code/") for name in within):
        seen = "a TorchScript archive, which is a program"
        remedy = "give the original checkpoint, or save torch.jit.load(...).state_dict()"
    elif "data.pkl" in within:
        return
    elif names and all(name.endswith(".npy") for name in names):
        seen, remedy = (
            "an archive of NumPy arrays (.npz)",
            "save them as one dictionary, as safetensors or with torch.save",
        )
    elif any(name.endswith(".weights.h5") for name in names):
        seen, remedy = "a Keras model", "give a checkpoint written by Detectron2 or torch"
    else:
        shown = ", ".join(names[:5]) or "nothing"
        seen, remedy = f"a zip archive not written by torch, with {shown}", "unpack it, and give the checkpoint"
    raise LoadRefusedError(Check.WEIGHTS_UNREADABLE, f"{path} is {seen}", remedy)


def _new_torch(archive: zipfile.ZipFile, known: Known) -> Any:  # noqa: ANN401  any content
    """Read the format of torch since 1.6: a pickle, and a record of bytes for each storage."""
    names = archive.namelist()
    _check_records(archive)
    found, *others = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    folder = found.removesuffix("data.pkl")
    if others:
        msg = "it holds several checkpoints"
        raise BrokenPickleError(msg)
    if f"{folder}byteorder" in names and _record(archive, f"{folder}byteorder") != b"little":
        msg = "it was written on a big-endian machine"
        raise BrokenPickleError(msg)

    @cache
    def piece(key: str) -> bytearray:
        return _record(archive, f"{folder}data/{key}")

    def storage(dtype: torch.dtype, key: str, count: int, _part: object) -> Storage:
        return Storage(dtype, count, partial(piece, key))

    return read(io.BytesIO(_record(archive, found)), known, _persistent(storage))


def _check_records(archive: zipfile.ZipFile) -> None:
    """Refuse overlapping records, of which a small file could hold any number."""
    records, file = archive.infolist(), cast("IO[bytes]", archive.fp)
    size = file.seek(0, io.SEEK_END)
    if len(records) > _MOST_RECORDS or sum(record.file_size for record in records) > size:
        msg = f"its {len(records)} records hold more than its {size} bytes"
        raise BrokenPickleError(msg)


def _record(archive: zipfile.ZipFile, name: str) -> bytearray:
    """Return the bytes of an archive's member, verified by checksum. It has at most as many as the archive."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        msg = "it was repacked by another program, so torch cannot read it either"
        raise BrokenPickleError(msg)
    with archive.open(info) as file:
        return bytearray(file.read())


def _persistent(storage: Callable[[torch.dtype, str, int, tuple[int, int]], Storage]) -> Persistent:
    """Return a resolver of torch's references to storages; for a view, `part` is its start and length."""

    def refer(saved: object) -> object:
        match saved:
            case ("storage", Named(name), key, _, int(count)) if is_size(count):
                part = 0, 0
            case ("storage", Named(name), key, _, int(count), None) if is_size(count):
                part = 0, 0
            case ("storage", Named(name), key, _, int(count), (_, int(start), int(length))) if is_size(start + length):
                part = max(start, 0), max(length, 0)
            case _:
                msg = "it refers to something that is not a storage"
                raise BrokenPickleError(msg)
        module, _, kind = name.rpartition(".")
        if module not in ("torch", "torch.storage", "torch.cuda") or kind not in _STORAGES:
            return Inert(name=name)
        return storage(_STORAGES[kind], str(key), count, part)

    return refer


def _first(*args: object) -> object:
    return args[0] if args else None


def _pairs(*given: object) -> dict[str, object]:
    """Return an ordered dictionary: empty, to be filled, or made from a list of pairs, as in old pickles."""
    pairs = given[0] if given and isinstance(given[0], list) else []
    return {
        pair[0]: pair[1] for pair in pairs if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)
    }


def _bytes(data: object = b"", *_: object) -> bytes | bytearray:
    """Return bytes, which older protocols write as text with one character per byte."""
    if isinstance(data, str):
        return data.encode("latin-1")
    return data if isinstance(data, bytes | bytearray) else b""


def _from_buffer(data: object, dtype: object, shape: object, order: object = "C") -> Array:
    array = Array()
    if isinstance(data, bytes | bytearray) and isinstance(dtype, DType) and isinstance(shape, tuple):
        array.fill(data, dtype, shape, "F" if order == "F" else "C")
    return array


def _rebuilt(storage: object, offset: object, shape: object, strides: object, *_: object) -> object:
    return _strided(storage, storage.dtype if isinstance(storage, Storage) else None, offset, shape, strides)


def _rebuilt_untyped(storage: object, offset: object, shape: object, strides: object, *more: object) -> object:
    """Return a tensor of a dtype without its own storage class, such as an 8-bit float; `more` has its name third."""
    name = more[2].name.removeprefix("torch.") if len(more) > 2 and isinstance(more[2], Named) else ""
    return _strided(storage, getattr(torch, name, None), offset, shape, strides)


def _strided(storage: object, dtype: object, offset: object, shape: object, strides: object) -> object:
    match storage, dtype, offset, shape, strides:
        case Storage(), torch.dtype(), int(), tuple(), tuple():
            return Strided(storage=storage, dtype=dtype, offset=offset, shape=shape, strides=strides)
    return Inert(name="torch.Tensor")


def _of_a_subclass(rebuild: object, kind: object, args: object, *_: object) -> object:
    """Return a tensor that was written with its class, such as a parameter or a buffer."""
    known = _CALLS.get(rebuild.name) if isinstance(rebuild, Named) else None
    name = kind.name if isinstance(kind, Named) else ""
    if known is None or not isinstance(args, tuple) or not name.startswith(("torch.Tensor", "torch.nn.")):
        return Inert(name=name or "torch.Tensor")
    return known(*args)


def _nested_storage(data: object, *_: object) -> object:
    """Return a storage as written by plain pickle: a complete torch file, in which nothing may be nested again."""
    file = io.BytesIO(_bytes(data))
    if file.getvalue().startswith(b"PK"):
        return _new_torch(zipfile.ZipFile(file), {})
    return _old_torch(file, {})


_CALLS: Known = {
    "collections.OrderedDict": _pairs,
    "collections.defaultdict": lambda *_: {},
    "torch.Size": _first,
    "_codecs.encode": _bytes,
    **{f"{module}.{name}": _bytes for module in ("builtins", "__builtin__") for name in ("bytes", "bytearray")},
    "numpy.dtype": DType,
    **{f"numpy.{core}.multiarray._reconstruct": Array for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    "torch._utils._rebuild_tensor": _rebuilt,
    "torch._utils._rebuild_tensor_v2": _rebuilt,
    "torch._utils._rebuild_tensor_v3": _rebuilt_untyped,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": _first,
    "torch._tensor._rebuild_from_type_v2": _of_a_subclass,
    "torch.storage._load_from_bytes": _nested_storage,
}
_LOADERS: dict[str, Callable[[Path], Any]] = {
    kinds.SAFETENSORS: _safetensors,
    kinds.SHARDS: _shards,
    kinds.PICKLE: _pickle,
    kinds.TORCH_LEGACY: _legacy,
    kinds.TORCH_ZIP: _torch,
}
