"""`vedette detect`: pictures to a server, several at a time, and a row or a line for each as soon as it is its turn."""

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

_AT_ONCE = 4  # pictures under way: enough to keep a worker or two at work
_SHARE = 0.25  # of the time-out, that those under way may need together
_NAME, _CLASS, _BOX = 48, 16, 24  # columns; what is wider stands out


@dataclass(frozen=True)
class Sending:
    """How each picture is sent, and what is asked about it."""

    ask: Mapping[str, Any]
    orientation: Literal["APPLY", "REFUSE", "IGNORE"]
    drop_alpha: bool
    timeout: float  # seconds

    def file(self, data: bytes) -> File:
        """A picture, as it is sent."""
        return File(data, orientation=self.orientation, drop_alpha=self.drop_alpha)

    def drawn(self, data: bytes, result: Result) -> bytes:
        """A PNG of the picture with what was found. Raises `LocalError`."""
        upright = self.orientation != "IGNORE"
        return drawing.png(drawing.annotate(drawing.opened(data), result, upright=upright))


@dataclass(frozen=True)
class Outcome:
    """What became of one picture."""

    picture: Picture | Missing
    data: bytes = b""
    result: Result | None = None
    error: VedetteError | None = None


def outcomes(client: Client, pictures: Sequence[Picture | Missing], sending: Sending) -> Generator[Outcome, None, None]:
    """What becomes of each, in their order. The first goes alone: it tells whether there is a server, and how fast."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    under_way: collections.deque[Future[Outcome]] = collections.deque()
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
        pool.shutdown(wait=False, cancel_futures=True)  # what is under way ends with the client


def _at_once(ended: Outcome, timeout: float) -> int:
    """How many may be under way, so that none waits for the others until it is too late."""
    if ended.result is None:
        return _AT_ONCE if isinstance(ended.error, LocalError) else 1
    alone = ended.result.timings.total - ended.result.timings.queue
    return max(1, min(_AT_ONCE, int(_SHARE * timeout / max(alone, 1e-3))))


def _started(pool: ThreadPoolExecutor, client: Client, picture: Picture | Missing, sending: Sending) -> Future[Outcome]:
    """Read a picture here, where a signal can end it, and have it sent."""
    done: Future[Outcome] = Future()
    if isinstance(picture, Missing):
        done.set_result(Outcome(picture, error=picture.error))
        return done
    try:
        data = picture.read()
    except LocalError as error:
        done.set_result(Outcome(picture, error=error))
        return done

    def ask() -> Outcome:
        try:
            return Outcome(picture, data, client.detect(sending.file(data), **sending.ask))
        except VedetteError as error:
            return Outcome(picture, error=error)

    return pool.submit(ask)


def hopeless(error: VedetteError, answered: int) -> bool:
    """Whether every other picture would fail of it too: it is about the server, or about what is asked."""
    match error:
        case Unavailable() | NotFound() | NotServed():
            return True
        case DeadlineExceeded():
            return not answered and not error.reason  # no server has said so
        case InvalidRequest():
            return bool(error.violations) and not any(one.field.startswith("image") for one in error.violations)
        case ServerError():
            return error.code.name in ("UNAUTHENTICATED", "PERMISSION_DENIED", "FAILED_PRECONDITION")
        case _:
            return is_full(error.__cause__)


class Printer(Protocol):
    """Shows what a picture gave."""

    def show(self, picture: Picture, result: Result, saved: Path | None) -> None:
        """At once."""


def run(
    client: Client,
    pictures: Sequence[Picture | Missing],
    sending: Sending,
    printer: Printer,
    folder: Folder | None,
    say: Callable[[object], None],
    tell: Callable[[str], None],
) -> list[VedetteError]:
    """Show what every picture gives; returns what has failed. What would fail for each alike ends the run.

    `say` is given what has failed, `tell` what has gone well. Ctrl-C ends it with what is there so far: raises `Ended`,
    which says how much that is. Raises `LocalError` for what cannot be asked at all.
    """
    asking.options(sending.ask)  # else each picture would be refused for it
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
                    say(f"{error} (the other {left} of {len(pictures)} pictures are left out)")
                    break
                say(f"{outcome.picture.name}: {error}")
    except KeyboardInterrupt as ended:
        raise Ended.by(ended, f"{told} of {len(pictures)} pictures are done") from ended
    return failures


def _shown(
    outcome: Outcome, sending: Sending, printer: Printer, folder: Folder | None, tell: Callable[[str], None]
) -> VedetteError | None:
    """Save and show an answer; returns what kept it from being saved: the answer is shown all the same."""
    picture, result = outcome.picture, outcome.result
    assert isinstance(picture, Picture)  # noqa: S101  what is missing has no answer
    assert result is not None  # noqa: S101  nor an error
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
    """One JSON object a line."""

    def show(self, picture: Picture, result: Result, saved: Path | None) -> None:
        """One picture's."""
        line = {"image": picture.name, **records.answer(result)}
        if saved:
            line["saved"] = text.name(saved)
        click.echo(json.dumps(line))


class Rows:
    """A row for each object."""

    def __init__(self, client: Client, pictures: Sequence[Picture | Missing]) -> None:
        bare = collections.Counter(Path(one.name).name for one in pictures)
        self._whole = any(count > 1 for count in bare.values())  # the bare names do not tell them apart
        shown = (text.plain(self._name(one)) for one in pictures)
        self._width = min(_NAME, max((cell_len(one) for one in shown), default=0))
        self._client = client
        self._begun = False

    def _name(self, picture: Picture | Missing) -> str:
        return picture.name if self._whole else Path(picture.name).name

    def show(self, picture: Picture, result: Result, saved: Path | None) -> None:  # noqa: ARG002  which is said
        """One picture's."""
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
    """Stuff of a panoptic answer, or else the classes of a semantic one, with what they cover."""
    if result.panoptic:
        for segment in result.panoptic.segments:
            if not segment.is_thing:
                yield segment.class_name, "", "stuff", f"{segment.area} px"
    elif result.class_map_png is not None:
        names = client.model(result.model, result.version).contract.stuff_class_names
        numbers, counts = np.unique(drawing.numbers(result.class_map_png), return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            yield names[number] if number < len(names) else f"class {number}", "", "stuff", f"{count} px"
