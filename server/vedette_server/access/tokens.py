"""Bearer tokens: the server keeps their hashes alone, one `NAME sha256:HASH` a line.

A token has 256 bits of chance, so that its plain SHA-256 tells nothing of it: no salt, nothing slow is needed.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from vedette_server.access.files import AccessError, text

_PREFIX = "vedette_"  # by which scanners of repositories and logs know one
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINE = re.compile(rf"({_NAME.pattern})\s+sha256:([0-9a-f]{{64}})")
RULE = "up to 64 letters, digits, '.', '_' and '-', of which the first is a letter or a digit"


def is_name(name: str) -> bool:
    """Whether the holder of a token may be called so."""
    return _NAME.fullmatch(name) is not None


def make(name: str) -> tuple[str, str]:
    """A new token: the line for the file, and the token itself."""
    token = _PREFIX + secrets.token_urlsafe(32)
    return f"{name} sha256:{digest(token)}", token


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()  # HTTP has headers that are no UTF-8


def read(path: Path) -> Mapping[str, str]:
    """The holders' names by the hashes of their tokens. Raises `AccessError`.

    A name may stand in several lines: so a token is replaced without a moment in which neither is taken.
    """
    holders: dict[str, str] = {}
    for number, line in enumerate(text(path).splitlines(), start=1):
        if not (line := line.strip()) or line.startswith("#"):
            continue
        if (match := _LINE.fullmatch(line)) is None:  # the line may hold a token: it is not shown
            msg = f"{path}, line {number} is not NAME sha256:HASH; vedette-server token NAME makes one"
            raise AccessError(msg)
        name, known = match[1], match[2]
        if holders.setdefault(known, name) != name:
            msg = f"{path}, line {number}: the token of {name} is that of {holders[known]} as well; make one for each"
            raise AccessError(msg)
    return holders
