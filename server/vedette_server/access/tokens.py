"""Bearer tokens, of which the server keeps only hashes, one `NAME sha256:HASH` per line.

A token has 256 random bits, so its plain SHA-256 reveals nothing: neither a salt nor a slow hash is needed.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from vedette_server.access.files import AccessError, text

_PREFIX = "vedette_"  # recognised by scanners of repositories and logs
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINE = re.compile(rf"({_NAME.pattern})\s+sha256:([0-9a-f]{{64}})")
RULE = "up to 64 letters, digits, '.', '_' and '-', starting with a letter or a digit"


def is_name(name: str) -> bool:
    """Return whether `name` is valid for the holder of a token."""
    return _NAME.fullmatch(name) is not None


def make(name: str) -> tuple[str, str]:
    """Make a token; return the line for the file, and the token itself."""
    token = _PREFIX + secrets.token_urlsafe(32)
    return f"{name} sha256:{digest(token)}", token


def digest(token: str) -> str:
    """Return the hash that is kept of a token."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()  # HTTP headers may be invalid UTF-8


def read(path: Path) -> Mapping[str, str]:
    """Return the holders' names by the hashes of their tokens. Raises `AccessError`.

    A name may appear on several lines, so that a token can be replaced without a gap.
    """
    holders: dict[str, str] = {}
    for number, line in enumerate(text(path).splitlines(), start=1):
        if not (line := line.strip()) or line.startswith("#"):
            continue
        if (match := _LINE.fullmatch(line)) is None:  # do not show the line: it may hold a token
            msg = f"{path}, line {number} is not NAME sha256:HASH; `vedette-server token NAME` makes one"
            raise AccessError(msg)
        name, known = match[1], match[2]
        if holders.setdefault(known, name) != name:
            msg = f"{path}, line {number}: {name} has the same token as {holders[known]}; make one for each"
            raise AccessError(msg)
    return holders
