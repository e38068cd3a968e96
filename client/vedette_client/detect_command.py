"""`vedette detect`: pictures sent to a server, several in flight, with a row or a line for each, in order."""

import collections
import contextlib
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import click
import numpy as np
from rich.cells import cell_len
from vedette_commands import text
from vedette_commands.program import Ended, is_full

from vedette_client import asking, drawing, records
from vedette_client.client import Client
from vedette_client.errors import (
    DeadlineExceeded,
    InvalidRequest,
    LocalError,
    NotFound,
    NotServed,
    ServerError,
    Unavailable,
    VedetteError,
)
from vedette_client.folder import Folder
from vedette_client.images import File
from vedette_client.pictures import Missing, Picture
from vedette_client.results import Detection, Result

_AT_ONCE = 4  # pictures in flight: enough to keep a worker or two busy
_SHARE = 0.25  # of the timeout, which the pictures in flight may need together
_NAME, _CLASS, _BOX = 48, 16, 24  # column widths; wider values overflow


@dataclass(frozen=True)
class Sending:
    """Options for sending each picture."""

    ask: Mapping[str, Any]
    orientation: Literal["APPLY", "REFUSE", "IGNORE"]
    drop_alpha: bool
    timeout: float  # seconds

    def file(self, data: bytes) -> File:
        """Wrap a picture's bytes for sending."""
        return File(data, orientation=self.orientation, drop_alpha=self.drop_alpha)

    def drawn(self, data: bytes, result: Result) -> bytes:
        """Draw the result into the picture, as PNG. Raises `LocalError`."""
        upright = self.orientation != "IGNORE"
        return drawing.png(drawing.annotate(drawing.opened(data), result, upright=upright))


@dataclass(frozen=True)
class PictureOutcome:
    """The outcome of one picture."""

    picture: Picture | Missing
    data: bytes = b""
    result: Result | None = None
    error: VedetteError | None = None


def outcomes(
    client: Client, pictures: Sequence[Picture | Missing], sending: Sending
) -> Generator[PictureOutcome, None, None]:
    """Yield the outcome of each picture, in order.

    The first goes alone, to find out whether and how fast a server answers.
    """
    pool = ThreadPoolExecutor(_AT_ONCE)
    under_way: collections.deque[Future[PictureOutcome]] = collections.deque()
    most = 1
    try:
        for picture in pictures:
            while len(under_way) >= most:
                yield (ended := under_way.popleft().result())
                most = _at_once(ended, sending.timeout)
            under_way.append(_started(pool, client, picture, sending))
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # calls in flight end with the client


def _at_once(ended: PictureOutcome, timeout: float) -> int:
    """Return how many may be in flight, so that none times out while waiting for others."""
    if ended.result is None:
        return _AT_ONCE if isinstance(ended.error, LocalError) else 1
    alone = ended.result.timings.total - ended.result.timings.queue
    return max(1, min(_AT_ONCE, int(_SHARE * timeout / max(alone, 1e-3))))


def _started(
    pool: ThreadPoolExecutor, client: Client, picture: Picture | Missing, sending: Sending
) -> Future[PictureOutcome]:
    """Read a picture here, where a signal can interrupt it, and send it in a thread."""
    done: Future[PictureOutcome] = Future()
    if isinstance(picture, Missing):
        done.set_result(PictureOutcome(picture, error=picture.error))
        return done
    try:
        data = picture.read()
    except LocalError as error:
        done.set_result(PictureOutcome(picture, error=error))
        return done

    def ask() -> PictureOutcome:
        try:
            return PictureOutcome(picture, data, client.detect(sending.file(data), **sending.ask))
        except VedetteError as error:
            return PictureOutcome(picture, error=error)

    return pool.submit(ask)


def hopeless(error: VedetteError, answered: int) -> bool:
    """Return whether every other picture would fail too, because of the server or the options."""
    match error:
        case Unavailable() | NotFound() | NotServed():
            return True
        case DeadlineExceeded():
            return not answered and not error.reason  # a local timeout, not a server's answer
        case InvalidRequest():
            return bool(error.violations) and not any(one.field.startswith("image") for one in error.violations)
        case ServerError():
            return error.code.name in ("UNAUTHENTICATED", "PERMISSION_DENIED", "FAILED_PRECONDITION")
        case _:
            return is_full(error.__cause__)


class Printer(Protocol):
    """Writer of pictures' results."""

    def show(self, picture: Picture, result: Result, saved: Path | None) -> None:
        """Print a result immediately."""


def run(
    client: Client,
    pictures: Sequence[Picture | Missing],
    sending: Sending,
    printer: Printer,
    folder: Folder | None,
    say: Callable[[object], None],
    tell: Callable[[str], None],
) -> list[VedetteError]:
    """Print the result of every picture, and return the failures. A failure that affects all pictures ends the run.

    `say` receives failures, `tell` successes. Ctrl-C ends the run with the results so far: raises `Ended`, which says
    how many there are. Raises `LocalError` for invalid options.
    """
    asking.options(sending.ask)  # otherwise every picture would be refused for it
    failures: list[VedetteError] = []
    told = 0
    try:
        with contextlib.closing(outcomes(client, pictures, sending)) as found:
            for outcome in found:
                error = outcome.error or _shown(outcome, sending, printer, folder, tell)
                told += 1
                if error is None:
                    continue
                failures.append(error)
                left = len(pictures) - told
                if left and hopeless(error, told - len(failures)):
                    say(f"{error} (the other {left} of {len(pictures)} pictures are skipped)")
                    break
                say(f"{outcome.picture.name}: {error}")
    except KeyboardInterrupt as ended:
        raise Ended.by(ended, f"{told} of {len(pictures)} pictures are done") from ended
    return failures


def _shown(
    outcome: PictureOutcome, sending: Sending, printer: Printer, folder: Folder | None, tell: Callable[[str], None]
) -> VedetteError | None:
    """Save and print an answer; return the error if saving failed: the answer is printed anyway."""
    picture, result = outcome.picture, outcome.result
    assert isinstance(picture, Picture)  # noqa: S101  a missing picture has no answer
    assert result is not None  # noqa: S101  without an error there is a result
    saved, failed = None, None
    if folder:
        try:
            saved = folder.write(picture, sending.drawn(outcome.data, result))
        except VedetteError as error:
            failed = error
    printer.show(picture, result, saved)
    if saved:
        tell(f"saved {text.name(saved)}")
    return failed


class Lines:
    """Printer of one JSON object per line."""

    def show(self, picture: Picture, result: Result, saved: Path | None) -> None:
        """Print one picture's result."""
        line = {"image": picture.name, **records.answer(result)}
        if saved:
            line["saved"] = text.name(saved)
        click.echo(json.dumps(line))


class Rows:
    """Printer of a row per object."""

    def __init__(self, client: Client, pictures: Sequence[Picture | Missing]) -> None:
        bare = collections.Counter(Path(one.name).name for one in pictures)
        self._whole = any(count > 1 for count in bare.values())  # base names are ambiguous
        shown = (text.plain(self._name(one)) for one in pictures)
        self._width = min(_NAME, max((cell_len(one) for one in shown), default=0))
        self._client = client
        self._begun = False

    def _name(self, picture: Picture | Missing) -> str:
        return picture.name if self._whole else Path(picture.name).name

    def show(self, picture: Picture, result: Result, saved: Path | None) -> None:  # noqa: ARG002  reported separately
        """Print one picture's result."""
        if not self._begun:
            self._row("image", "class", "score", "box (x0, y0, x1, y1)", "mask")
        self._begun = True
        name = self._name(picture)
        for item in result:
            self._row(name, item.class_name, f"{item.score:.2f}", _box(item), _parts(item))
        for cells in _areas(self._client, result):
            self._row(name, *cells)
        if result.empty:
            because = result.findings[0].evidence if result.findings else "no evidence"
            self._row(name, f"nothing: {result.empty.reason.lower().replace('_', ' ')}; {because}")

    def _row(self, name: str, kind: str, *cells: str) -> None:
        widths = (self._width, _CLASS, 5, _BOX)
        shown = [
            text.padded(text.plain(cell), width) for cell, width in zip((name, kind, *cells), widths, strict=False)
        ]
        click.echo("  ".join([*shown, *map(text.plain, cells[2:])]).rstrip())


def _box(item: Detection) -> str:
    if item.rotated_box:
        x, y, width, height, angle = item.rotated_box
        return f"{x:.0f}, {y:.0f}: {width:.0f} x {height:.0f}, {angle:.0f}°"
    return ", ".join(f"{edge:.0f}" for edge in item.box)


def _parts(item: Detection) -> str:
    mask = [f"{item.mask.decode().sum()} px"] if item.mask else []
    return ", ".join([*mask, *([f"{len(item.keypoints)} points"] if item.keypoints else [])])


def _areas(client: Client, result: Result) -> Iterator[tuple[str, ...]]:
    """Yield the stuff of a panoptic answer, or the classes of a semantic one, with their areas."""
    if result.panoptic:
        for segment in result.panoptic.segments:
            if not segment.is_thing:
                yield segment.class_name, "", "stuff", f"{segment.area} px"
    elif result.class_map_png is not None:
        names = client.model(result.model, result.version).contract.stuff_class_names
        numbers, counts = np.unique(drawing.numbers(result.class_map_png), return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            yield names[number] if number < len(names) else f"class {number}", "", "stuff", f"{count} px"
