"""A stream of frames: what becomes of each, told in the order of the frames.

Two policies. LATEST is for live video: at most one frame of a stream waits, and a newer one takes its place, so that
what is looked at is the newest there is, whatever the overload. LOSSLESS is for files: every frame is answered, and the
sender is slowed.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self, TypeAlias, TypeVar

import structlog

from vedette_server.contract.image import NO_IMAGE, SentImage
from vedette_server.contract.options import Asked
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.engine import Engine
from vedette_server.engine.query import Outcome, Query
from vedette_server.engine.queue import Flow, Item, Priority
from vedette_server.engine.served import ServedVersion
from vedette_server.engine.standing import State

log = structlog.get_logger()

MOST_IN_FLIGHT = 64  # frames of one stream that may be under way at once
_MOST_UNTOLD = 1_000  # frames whose fate a slow reader has not been told; then its own frames wait
_unnamed = itertools.count(1)  # streams that their callers gave no name
_READY_SECONDS = 0.05  # between two looks whether a version is ready again
_TURN_SECONDS = 0.05  # for a frame to come once it is its stream's turn; a stream that rests loses it


T = TypeVar("T")


class DropPolicy(StrEnum):
    """Treatment of a frame that arrives while others wait."""

    LATEST = "LATEST"
    LOSSLESS = "LOSSLESS"


class DropReason(StrEnum):
    """Reason why a frame was dropped."""

    SUPERSEDED = "SUPERSEDED"  # a newer frame took its place
    EXPIRED = "EXPIRED"  # it could not have been answered in time


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """Settings of a stream's frames."""

    model: str
    version: str
    policy: DropPolicy
    priority: Priority
    name: str  # the caller's name for it, such as a camera's
    max_in_flight: int | None  # None: as many as the version has workers, twice that for LOSSLESS
    request_id: str = ""  # in the log
    seconds: float | None = None  # until the caller gives up on a frame; None: as the policy says


@dataclass(frozen=True)
class Frame:
    """One image of a stream."""

    frame_id: int
    captured: int  # nanoseconds since the epoch; its age counts from then
    image: SentImage


Fate: TypeAlias = Outcome | Refused | DropReason


@dataclass(frozen=True)
class Told:
    """The fate of a frame."""

    frame_id: int
    captured: int  # as in `Frame`
    fate: Fate


@dataclass(eq=False, kw_only=True)
class _FrameUnderway:
    """A frame on its way through a stream."""

    frame: Frame
    settings: StreamSettings
    asked: Asked
    arrived: float
    fate: asyncio.Future[Fate]
    item: Item | None = None
    served: ServedVersion | None = None
    task: asyncio.Task[None] | None = None

    def settle(self, fate: Fate) -> None:
        """Say what became of it; its image is needed no more, though its fate may wait long to be read."""
        if not self.fate.done():
            self.fate.set_result(fate)
        self.frame = dataclasses.replace(self.frame, image=NO_IMAGE)
        self.item = None


class Stream:
    """One stream. `put` takes its frames, `told` gives what became of them; each in a task of its own.

    A context manager: on leaving it, everything that is still under way is given up at once. It is long because both
    policies share the frames that are under way: to take one, to drop one and to end one are steps of the same course.
    """

    def __init__(self, engine: Engine, settings: StreamSettings, asked: Asked, owner: Flow | None = None) -> None:
        """`owner` is who shares turns among its streams; None: the stream has turns of its own."""
        self._engine = engine
        self._policy = settings.policy
        self.settings = settings  # of the frames from now on, but for the policy
        self.asked = asked  # the same
        self._flow = Flow(owner=owner)
        self._unnamed = f"#{next(_unnamed)}"
        self._told: asyncio.Queue[_FrameUnderway | None] = asyncio.Queue(_MOST_UNTOLD)
        self._underway: set[_FrameUnderway] = set()  # given to the engine, not settled
        self._newest: _FrameUnderway | None = None  # LATEST: what has not been given to a worker
        self._room = asyncio.Event()
        self._lossless = self._policy is DropPolicy.LOSSLESS
        self._moved = engine.clock()  # when it last had a frame, or told of one
        self._size = 0  # bytes of the last frame: the next one is likely to have as many

    def __enter__(self) -> Self:
        """Opened by the servicer."""
        self._engine.holders.add(self._held)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up what is under way."""
        self._engine.holders.discard(self._held)
        for entry in self._underway | ({self._newest} if self._newest else set()):
            entry.fate.cancel()
            if entry.item:
                entry.item.answer.cancel()

    def _held(self) -> int:
        """The bytes of the frame that has not been given to the engine."""
        newest = self._newest
        return len(newest.frame.image.data) if newest and newest not in self._underway else 0

    async def put(self, frame: Frame) -> None:
        """Take a frame. LOSSLESS waits until there is room for it, LATEST never.

        What is wrong with a frame is its own fate. Raises `Refused` when no frame is taken any more: SHUTTING_DOWN.
        """
        if self._engine.draining:
            raise Refused(Reason.SHUTTING_DOWN)
        self._moved = self._engine.clock()
        entry = self._entry(frame)
        if self._lossless:
            self._size = len(frame.image.data)
            with self._engine.holding(self._size):
                await self._until_room(self._size)
        await self._told.put(entry)
        with self._guarded(entry):
            (self._start if self._lossless else self._supersede)(entry)

    def _entry(self, frame: Frame) -> _FrameUnderway:
        fate: asyncio.Future[Fate] = asyncio.get_running_loop().create_future()
        return _FrameUnderway(
            frame=frame, settings=self.settings, asked=self.asked, arrived=self._engine.clock(), fate=fate
        )

    @contextlib.contextmanager
    def _guarded(self, entry: _FrameUnderway) -> Iterator[None]:
        """Settle a frame as INTERNAL if the block raises, and log why under the stream's request id."""
        try:
            yield
        except Exception:
            log.exception("bug", request_ids=[entry.settings.request_id], frame_id=entry.frame.frame_id)
            entry.settle(Refused(Reason.INTERNAL))

    async def refuse(self, frame_id: int, refusal: Refused, *, known: bool = True) -> None:
        """Take a frame that is no image at all, so that its fate is told in its turn; `known`: its model is."""
        if known:
            self._engine.count(refusal, self.settings.model, self.settings.version)
        else:
            self._engine.monitor.refused("", "", refusal.reason)
        frame = Frame(frame_id, time.time_ns(), NO_IMAGE)
        entry = self._entry(frame)
        # Without the frames of its traceback: they hold the image.
        entry.settle(Refused(refusal.reason, **refusal.facts))
        await self._told.put(entry)

    async def paced(self, messages: AsyncIterator[T]) -> AsyncIterator[T]:
        """The messages of a stream. LOSSLESS reads the next one when there will be room for it, none ahead.

        While much waits, streams read one after the other: each frame that comes may take what room there is.
        """
        while True:
            async with self._turn() as crowded:
                if self._lossless:
                    await self._until_room(self._size)
                reading = asyncio.ensure_future(_next(messages))
                if crowded:
                    await asyncio.wait({reading}, timeout=_TURN_SECONDS)
            try:
                message = await reading
            finally:
                reading.cancel()
            if message is None:
                return
            yield message

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[bool]:
        """Wait for this stream's turn to read, where streams take turns; gives whether they do."""
        if self._lossless:
            await self._until_few()
            with contextlib.suppress(Refused):
                served = self._find()
                if served.scheduler.crowded or self._engine.held:
                    async with served.scheduler.turn:
                        yield True
                        return
        yield False

    async def _until_few(self) -> None:
        """Wait until fewer of its frames are under way than may be."""
        while len(self._underway) >= self._most:
            self._room.clear()
            await self._room.wait()

    async def _until_room(self, size: int) -> None:
        """Wait for room, and for workers that are being replaced: no frame is lost to that."""
        await self._until_few()
        patience = self._engine.clock() + self._engine.max_seconds
        while self._engine.clock() < patience and not self._engine.draining:
            try:
                served = self._find()
                if served.standing.state is State.READY and served.scheduler.takes(size, streamed=True):
                    return
            except Refused:
                return  # it is this frame's fate
            self._moved = self._engine.clock()  # it is held up, and does not rest
            await asyncio.sleep(_READY_SECONDS)

    @property
    def rested_seconds(self) -> float:
        """Seconds since it last had a frame or told of one; 0 while the engine has one."""
        return 0.0 if self._underway else self._engine.clock() - self._moved

    def _find(self) -> ServedVersion:
        return self._engine.find(self.settings.model, self.settings.version)

    @property
    def _most(self) -> int:
        if self.settings.max_in_flight is not None:
            return self.settings.max_in_flight
        try:
            workers = self._find().scheduler.workers
        except Refused:
            workers = 1
        return 2 * workers if self._lossless else workers

    def _supersede(self, entry: _FrameUnderway) -> None:
        """Put a frame into the place of the one that waits, if one does."""
        old = self._newest
        if old is not None and (old.item is None or old.item.started is None) and not old.fate.done():
            if old.item:
                old.item.answer.cancel()
            self._drop(old, DropReason.SUPERSEDED)
        self._newest = entry
        if len(self._underway) < self._most:
            self._start(entry)

    def _drop(self, entry: _FrameUnderway, reason: DropReason) -> None:
        self._underway.discard(entry)
        try:
            model = (entry.served or self._find()).model
            self._engine.monitor.dropped(model.name, str(model.version), self._source(entry), reason)
        except Refused:  # there is no such model, or no more
            self._engine.monitor.dropped("", "", self._source(entry), reason)
        entry.settle(reason)

    def _source(self, entry: _FrameUnderway) -> str:
        return entry.settings.name or self._unnamed

    def _start(self, entry: _FrameUnderway) -> None:
        """Give a frame to the engine."""
        self._underway.add(entry)
        entry.task = asyncio.create_task(self._answer(entry))
        entry.task.add_done_callback(lambda task: self._ended(entry, task))

    async def _answer(self, entry: _FrameUnderway) -> None:
        if entry.fate.done():  # superseded before it began
            return
        frame, settings = entry.frame, entry.settings
        query = Query(
            model=settings.model,
            version=settings.version,
            image=frame.image,
            asked=entry.asked,
            seconds=settings.seconds,
            flow=self._flow,
            priority=settings.priority,
            source=self._source(entry),
            request_id=settings.request_id,
            captured=frame.captured,
        )
        limit = math.inf if self._lossless else self._engine.max_seconds
        deadline = entry.arrived + (limit if settings.seconds is None else min(settings.seconds, limit))
        try:
            with self._engine.underway(settings.model, settings.version):
                entry.served, entry.item = self._engine.item(query, deadline)
                if self._lossless:
                    await self._until_taken(entry, entry.served)
                    while entry.served not in self._engine.served:  # it was unloaded meanwhile
                        entry.served, entry.item = self._engine.item(query, deadline)
                        await self._until_taken(entry, entry.served)
                entry.served.scheduler.put(entry.item)
                entry.settle(await self._engine.outcome(entry.served, entry.item, entry.arrived))
        except Refused as refusal:
            if refusal.reason is Reason.DEADLINE_EXCEEDED and not self._lossless:
                self._drop(entry, DropReason.EXPIRED)
            else:
                entry.settle(refusal)
        except asyncio.CancelledError:  # of the item's answer; what was superseded or given up is settled by then
            entry.settle(Refused(Reason.INTERNAL))

    async def _until_taken(self, entry: _FrameUnderway, served: ServedVersion) -> None:
        """Wait for the room that other streams' frames have taken since this one was read."""
        size = len(entry.frame.image.data)
        with self._engine.holding(size):
            while not served.scheduler.takes(size, streamed=True) and not entry.fate.done():  # noqa: ASYNC110  room has no event
                await asyncio.sleep(_READY_SECONDS)

    def _ended(self, entry: _FrameUnderway, task: asyncio.Task[None]) -> None:
        with self._guarded(entry):
            if not task.cancelled():
                task.result()
        self._underway.discard(entry)
        self._room.set()
        held = self._newest
        waits = held and held.item is None and held not in self._underway and not held.fate.done()
        if held and waits and len(self._underway) < self._most:
            self._start(held)

    async def finish(self) -> None:
        """Take no more frames: `told` ends after the last one's fate."""
        await self._told.put(None)

    async def told(self) -> AsyncIterator[Told]:
        """Yield the fate of each frame, in order."""
        while (entry := await self._told.get()) is not None:
            yield Told(entry.frame.frame_id, entry.frame.captured, await entry.fate)
            self._moved = self._engine.clock()


async def _next(messages: AsyncIterator[T]) -> T | None:
    return await anext(messages, None)
