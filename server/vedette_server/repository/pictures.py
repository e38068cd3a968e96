"""The pictures in a folder from which golden images are made, and the reasons against those that are unusable."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vedette_server.contract.contract import InputContract
from vedette_server.contract.convert import check, decode
from vedette_server.contract.files import declare
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.contract.refusal import Reason, Refused

# Files that systems leave in folders, and others in a version's own golden folder.
_NOT_MEANT = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "expected.json"}


@dataclass(frozen=True)
class Found:
    """The content of a folder."""

    folder: Path
    files: tuple[Path, ...]  # presumed pictures
    left_out: tuple[str, ...]  # names of files that systems leave there


def gather(folder: Path) -> Found:
    """List a folder without reading its files. Raises `LoadRefusedError`: GOLDEN_UNREADABLE, if it is empty."""
    every = sorted(folder.iterdir())
    meant = tuple(path for path in every if not path.name.startswith(".") and path.name.lower() not in _NOT_MEANT)
    if not meant:
        raise LoadRefusedError(Check.GOLDEN_UNREADABLE, f"{folder} holds no pictures")
    return Found(folder, meant, tuple(path.name for path in every if path not in meant))


def read(found: Found, contract: InputContract, tell: Callable[[str], object]) -> dict[str, bytes]:
    """Read the pictures of a folder, by name, as input for a model with this contract.

    Raises `LoadRefusedError`, GOLDEN_UNREADABLE, which lists every unusable file.
    """
    if found.left_out:
        tell(f"ignored in {found.folder}: {', '.join(found.left_out)}")
    given: dict[str, bytes] = {}
    wrong: dict[str, str] = {}
    for path in found.files:
        try:
            given[path.name] = _read(path, contract)
        except Refused as error:
            wrong[path.name] = told(error)
        except OSError as error:
            wrong[path.name] = error.strerror or str(error)
    if wrong:
        raise LoadRefusedError(Check.GOLDEN_UNREADABLE, f"in {found.folder}, {_listed(wrong)}")
    return given


def _listed(wrong: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in wrong.items())


def _read(path: Path, contract: InputContract) -> bytes:
    """Read one picture, and decode it once to refuse here what the worker would refuse."""
    if path.is_dir():
        raise OSError(0, "is a folder, and subfolders are not searched")
    if not path.is_file():
        raise OSError(0, "is not a file")
    try:
        path.name.encode()
    except UnicodeEncodeError as error:
        raise OSError(0, "has a name that is not UTF-8") from error
    if path.stat().st_size > contract.limits.max_bytes:
        raise Refused(Reason.IMAGE_TOO_MANY_BYTES, bytes=path.stat().st_size, max_bytes=contract.limits.max_bytes)
    data = path.read_bytes()
    image = declare(data, contract)
    check(image, contract)
    decode(image)
    return data


def told(error: Refused) -> str:
    """Describe a refusal in one line, for whoever has the file."""
    seen = {name: value for name, value in error.facts.items() if name != "field" and value}
    facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in seen.items())
    return f"{error.reason}{f' ({facts})' if facts else ''}"
