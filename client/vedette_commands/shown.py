"""The credentials of a command, and those it expects of a server: files and variables, which `ps` does not show."""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from vedette_commands.program import fail

_LARGEST = 8_192  # bytes of a token file
_LARGEST_PEM = 4 * 2**20  # bytes; OpenSSL would read a device to its end
_OPTIONS = {
    "--token-file": ("VEDETTE_TOKEN_FILE", "File with the caller's token.  [default: VEDETTE_TOKEN]"),
    "--tls-ca": ("VEDETTE_TLS_CA", "Authority for the server, PEM; enables TLS."),
    "--tls-cert": ("VEDETTE_TLS_CLIENT_CERT", "Client certificate, PEM."),
    "--tls-key": ("VEDETTE_TLS_CLIENT_KEY", "Its key, PEM."),
}


@dataclass(frozen=True)
class Shown:
    """The credentials from options and environment."""

    token: str | None = field(default=None, repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext | None:
        """Return a context for Python's own clients; None without TLS options. Invalid files end the command."""
        if not (self.ca or self.cert):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert:
                context.load_cert_chain(self.cert, self.key, password=lambda: "")
        except (ssl.SSLError, OSError, ValueError) as error:
            fail(f"the files of --tls-ca, --tls-cert and --tls-key cannot be used: {_why(error)}")
        return context


NOTHING = Shown()


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command; `current` reads them."""

    def keep(context: click.Context, option: click.Parameter, value: Path | None) -> None:
        context.meta[option.opts[0]] = value

    for name, (variable, told) in reversed(_OPTIONS.items()):
        path = click.Path(path_type=Path)
        command = click.option(name, type=path, envvar=variable, help=told, expose_value=False, callback=keep)(command)
    return command


def current() -> Shown:
    """Return the credentials of the current command."""
    file, ca, cert, key = (click.get_current_context().meta[name] for name in _OPTIONS)
    for path in (ca, cert, key):
        if path and path.exists() and not (path.is_file() and path.stat().st_size <= _LARGEST_PEM):
            fail(f"{path} is not a PEM file")
    return Shown(_read(file) if file else os.environ.get("VEDETTE_TOKEN") or None, ca, cert, key)


def _read(path: Path) -> str:
    """Read the token in a file."""
    try:
        with path.open("rb") as file:
            token = file.read(_LARGEST + 1).decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or len(token) > _LARGEST:
        fail(f"{path} contains no token")
    return token


def _why(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
