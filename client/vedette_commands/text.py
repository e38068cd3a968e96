"""Text from elsewhere (names of files, classes and models, a server's messages) made safe for a terminal."""

import os
import sys
import unicodedata
from pathlib import PurePath

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")  # control characters, undecodable bytes, line separators
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they change the writing direction
_HARDLY_ANY = 240  # columns; wider content is somebody's text


def plain(text: str) -> str:
    """Escape everything that would move the cursor, colour the screen or change the writing direction."""
    if text.isprintable():
        return text
    return "".join(_escaped(letter) if _unshown(letter) else letter for letter in text)


def _unshown(letter: str) -> bool:
    return letter in _TURNING or unicodedata.category(letter) in _UNSHOWN


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # Python's form of an undecodable byte in a file name
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode() if letter.isascii() else f"\\u{ord(letter):04x}"


def name(path: PurePath | str) -> str:
    """Return a file name as text for any JSON reader, with undecodable bytes escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def line(text: object) -> str:
    """Return an object's text as a single printable line."""
    return plain(" ".join(str(text).split()))


def padded(text: str, width: int) -> str:
    """Pad text with spaces to a width in terminal columns."""
    return text + " " * (width - cell_len(text))


def table(*headers: str) -> Table:
    """Return a table that never truncates."""
    made = Table()
    for header in headers:
        made.add_column(header, overflow="fold")
    return made


def row(to: Table, *cells: str) -> None:
    """Add a row of plain text without markup."""
    to.add_row(*(Text(plain(cell)) for cell in cells))


def show(made: Table) -> None:
    """Print a table; without a terminal, as wide as necessary."""
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        least = Measurement.get(console, console.options.update(max_width=10_000), made).maximum
        console = Console(markup=False, emoji=False, highlight=False, width=max(least, _HARDLY_ANY))
    console.print(made)
    sys.stdout.flush()
