"""Recognition of files given as checkpoints, by their first bytes, because names can mislead."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_LOOKED_AT = 1024  # bytes
TORCH_ZIP, TORCH_LEGACY, PICKLE, SAFETENSORS, SHARDS = "zip", "legacy", "pickle", "safetensors", "shards"
_LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")  # torch's magic number, pickled
_PICKLE_PROTOCOLS = (b"\x01", b"\x02", b"\x03", b"\x04", b"\x05")
_OLD_NAMES, _OLD_PICKLES = (
    (".pkl", ".pickle", ".p"),
    (b"(", b"}", b"]", b"c"),
)  # of protocols 0 and 1, without magic
_ONNX_FIELDS = (b"\x12", b"\x1a", b"\x22", b"\x3a")  # after the version: text, or the graph
_SHOWN = 60  # characters of text

_DOWNLOAD = "download it again, with the link to the file itself"
_EXPORT = "give the checkpoint from which it was exported, or save model.state_dict()"
_UNPACK = "unpack it, and give the checkpoint that is inside"


@dataclass(frozen=True)
class Foreign:
    """A file that is not a supported checkpoint: its kind, and a remedy."""

    what: str
    remedy: str


_GIT_LFS = Foreign("a Git LFS pointer, not the file itself", "run `git lfs pull` in the clone")
_WEB_PAGE = Foreign("a web page, not the file", _DOWNLOAD)
_JSON = Foreign("JSON, not weights", "give the checkpoint")
_XML = Foreign("XML, such as a storage server's refusal of a download", _DOWNLOAD)
_ZEROS = Foreign("zeros at its beginning, as after an interrupted download", _DOWNLOAD)
_ONNX = Foreign("an ONNX model", _EXPORT)
_SAVED_MODEL = Foreign("a TensorFlow SavedModel", "give a checkpoint written by Detectron2 or torch")
_KERAS = Foreign("an HDF5 file, as written by Keras", "give a checkpoint written by Detectron2 or torch")
_TAR = Foreign("a tar archive", "unpack it; if it was written by torch before 0.1.10, load it there and save it again")

_MAGIC = (  # offset, bytes, kind
    (0, b"version https://git-lfs", _GIT_LFS),
    (0, b"\x89HDF\r\n\x1a\n", _KERAS),
    (4, b"TFL3", Foreign("a TensorFlow Lite model", _EXPORT)),
    (0, b"\x08\x01\x12", _SAVED_MODEL),
    (0, b"GGUF", Foreign("a GGUF file", _EXPORT)),
    (0, b"\x93NUMPY", Foreign("one NumPy array", "save the complete model.state_dict()")),
    (257, b"ustar", _TAR),
    (0, b"\x1f\x8b", Foreign("compressed by gzip", _UNPACK)),
    (0, b"BZh", Foreign("compressed by bzip2", _UNPACK)),
    (0, b"\xfd7zXZ\x00", Foreign("compressed by xz", _UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", Foreign("compressed by zstd", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", Foreign("a 7z archive", _UNPACK)),
    (0, b"Rar!", Foreign("a rar archive", _UNPACK)),
    (0, b"%PDF", Foreign("a PDF", "give the checkpoint")),
    (0, b"\x7fELF", Foreign("a program or library", "give the checkpoint")),
    (0, b"\xff\xd8\xff", Foreign("a JPEG picture", "give the checkpoint")),
    (0, b"\x89PNG", Foreign("a PNG picture", "give the checkpoint")),
)


@dataclass(frozen=True)
class _File:
    path: Path
    size: int  # bytes
    head: bytes  # first bytes

    @property
    def text(self) -> str:
        return self.head.decode("utf-8-sig", errors="replace").lstrip()

    def begins(self, *texts: str) -> bool:
        return self.text.lower().startswith(texts)


_TESTS: tuple[tuple[Callable[[_File], bool], str | Foreign], ...] = (
    (lambda file: not file.size, Foreign("empty: it has no bytes", _DOWNLOAD)),
    *((lambda file, at=at, magic=magic: file.head[at:].startswith(magic), what) for at, magic, what in _MAGIC),
    (lambda file: file.head.startswith(_LEGACY), TORCH_LEGACY),
    (lambda file: file.head.startswith(b"PK\x03\x04"), TORCH_ZIP),
    (lambda file: file.head[:1] == b"\x80" and file.head[1:2] in _PICKLE_PROTOCOLS, PICKLE),
    (lambda file: file.head[8:9] == b"{" and 2 <= int.from_bytes(file.head[:8], "little") <= file.size, SAFETENSORS),
    (lambda file: file.head[:1] == b"\x08" and file.head[2:3] in _ONNX_FIELDS, _ONNX),
    (lambda file: file.begins("<!doctype html", "<html"), _WEB_PAGE),
    (lambda file: file.begins("<?xml"), _XML),
    (lambda file: file.begins("{") and file.path.name.endswith(".index.json"), SHARDS),
    (lambda file: not file.head.strip(b"\0"), _ZEROS),
    (lambda file: file.path.suffix.lower() in _OLD_NAMES and file.head[:1] in _OLD_PICKLES, PICKLE),
    (lambda file: file.begins("{", "["), _JSON),
)


def kind(path: Path) -> str | Foreign:
    """Return the file's supported kind, or a description of another. Raises `OSError`."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        return Foreign("not a file" if path.exists() else "missing", "give the trained checkpoint")
    with path.open("rb") as opened:
        file = _File(path, path.stat().st_size, opened.read(_LOOKED_AT))
    return next((what for test, what in _TESTS if test(file)), None) or _unknown(file)


def _unknown(file: _File) -> Foreign:
    if "\ufffd" in file.text or "\0" in file.text:
        return Foreign(
            f"not a checkpoint: it begins with the bytes {file.head[:8].hex(' ')}", "give the trained checkpoint"
        )
    line = file.text.partition("\n")[0][:_SHOWN]
    return Foreign(f"text that begins with {line!r}", _DOWNLOAD)


def _folder(path: Path) -> Foreign:
    if (path / ".metadata").exists() or [*path.glob("*.distcp")]:
        convert = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} model.pth"
        return Foreign("a folder of parts from torch.distributed.checkpoint", f"join them: {convert}")
    if (path / "saved_model.pb").exists():
        return _SAVED_MODEL
    files = sorted(item.name for item in path.iterdir() if item.suffix in (".pth", ".pkl", ".pt", ".safetensors"))
    inside = f" with {', '.join(files[:5])}" if files else ""
    return Foreign(f"a folder{inside}", "give the file")
