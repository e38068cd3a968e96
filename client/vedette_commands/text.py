"""Text from elsewhere (names of files, classes and models, a server's words) as a terminal can show it."""

import os
import sys
import unicodedata
from pathlib import PurePath

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")  # control characters, bytes that are no text, separators of lines
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they exchange left and right
_HARDLY_ANY = 240  # columns, where what is wider is somebody's text


def plain(text: str) -> str:
    """The text with whatever would move the cursor, colour the screen or turn the line written as an escape."""
    if text.isprintable():
        return text
    return "".join(_escaped(letter) if _unshown(letter) else letter for letter in text)


def _unshown(letter: str) -> bool:
    return letter in _TURNING or unicodedata.category(letter) in _UNSHOWN


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # how Python writes a byte of a file's name that is no text
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode() if letter.isascii() else f"\\u{ord(letter):04x}"


def name(path: PurePath | str) -> str:
    """A file's name as text that every reader of JSON takes: bytes that are no text are escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def line(text: object) -> str:
    """Everything in one line that can be shown."""
    return plain(" ".join(str(text).split()))


def padded(text: str, width: int) -> str:
    """Filled up with spaces, as wide as a terminal shows it."""
    return text + " " * (width - cell_len(text))


def table(*headers: str) -> Table:
    """A table that cuts nothing off."""
    made = Table()
    for header in headers:
        made.add_column(header, overflow="fold")
    return made


def row(to: Table, *cells: str) -> None:
    """Add a row of text, in which nothing is markup."""
    to.add_row(*(Text(plain(cell)) for cell in cells))


def show(made: Table) -> None:
    """Print a table; on no terminal, as wide as it needs to be."""
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        least = Measurement.get(console, console.options.update(max_width=10_000), made).maximum
        console = Console(markup=False, emoji=False, highlight=False, width=max(least, _HARDLY_ANY))
    console.print(made)
    sys.stdout.flush()
