"""Run a stream over as many connections as it takes: once for callers that block, once for those that await.

What is waited for is waited for with an eye on the clock: a connection whose other end is gone without a word says
nothing, for ever.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import grpc.aio
from vedette.v1 import detection_service_pb2 as pb

from vedette_client.errors import NoConnection, ServerError
from vedette_client.pumps import AsyncPump, Pump
from vedette_client.streaming import METHOD, Event, Session

_LOOK_SECONDS = 0.1  # between two looks at the clock, and at what has failed without being sent
_AHEAD = 2  # responses that are read before they are asked for
_EARLY = "the stream was ended before all its frames were told of"

Metadata: TypeAlias = tuple[tuple[str, str], ...] | None  # what each call shows of who calls
Failure: TypeAlias = Callable[[Exception], Exception]  # ours for gRPC's


@dataclass(frozen=True)
class _Ended:
    error: Exception | None  # gRPC's; None: the server has told everything


class _Responses:
    """What a call brings, read in a thread so that one need not wait for ever."""

    def __init__(self, call: Any) -> None:  # noqa: ANN401  gRPC's own kind
        self._call = call
        self._next: queue.Queue[pb.StreamDetectResponse | _Ended] = queue.Queue(_AHEAD)
        self._left = threading.Event()
        threading.Thread(target=self._run, name="vedette-responses", daemon=True).start()

    def _run(self) -> None:
        error: Exception | None = None
        try:
            for response in self._call:
                if not self._put(response):
                    return
        except Exception as raised:  # noqa: BLE001  told where it is read
            error = raised
        self._put(_Ended(error))

    def _put(self, item: pb.StreamDetectResponse | _Ended) -> bool:
        while not self._left.is_set():
            with contextlib.suppress(queue.Full):
                self._next.put(item, timeout=_LOOK_SECONDS)
                return True
        return False

    def get(self) -> pb.StreamDetectResponse | _Ended | None:
        """The next; None: not yet."""
        try:
            return self._next.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            return None

    def leave(self) -> None:
        """Read no more."""
        self._left.set()
        self._call.cancel()


def _failure(ended: _Ended, session: Session, ours: Failure) -> Exception | None:
    """Why a connection's end is not the stream's; None: it is."""
    if ended.error is None:
        return None if session.over else NoConnection(_EARLY, grpc.StatusCode.UNAVAILABLE)
    failure = ours(ended.error)
    if session.over and isinstance(failure, ServerError) and not failure.reason:
        return None  # lost, with nothing left to say
    failure.__cause__ = ended.error
    return failure


def run(
    pump: Pump,
    session: Session,
    channel: grpc.Channel,
    alone: Callable[[], grpc.Channel],
    ours: Failure,
    metadata: Metadata = None,
) -> Iterator[Event]:
    """Every event of a stream. `alone` opens a channel that shares no connection, for when that of all is stuck."""
    own: grpc.Channel | None = None
    with pump:
        try:
            while True:
                responses = _Responses(_call(own or channel, pump, ours, metadata))
                try:
                    failure = yield from _events(responses, pump, session, ours)
                finally:
                    session.connect()
                    pump.told()
                    responses.leave()
                if failure is None:
                    pump.check()
                    return
                pause = session.resume(failure)
                yield from session.lost()
                if pause is None:
                    pump.check()
                    raise session.give_up(failure)
                if session.stuck:
                    if own:
                        own.close()
                    own = alone()
                time.sleep(pause)
        finally:
            if own:
                own.close()


def _call(channel: Any, pump: Pump | AsyncPump, ours: Failure, metadata: Metadata) -> Any:  # noqa: ANN401  of either kind
    try:
        call = channel.stream_stream(METHOD, None, pb.StreamDetectResponse.FromString)
        return call(pump.requests(), metadata=metadata)
    except (ValueError, grpc.aio.UsageError) as error:  # a closed channel
        raise ours(error) from error


def _events(
    responses: _Responses, pump: Pump, session: Session, ours: Failure
) -> Generator[Event, None, Exception | None]:
    """The events of one connection; returns why it was not the last, or None."""
    session.waiting()
    while True:
        got = responses.get()
        if isinstance(got, _Ended):
            yield from session.failed()
            return _failure(got, session, ours)
        told = session.failed() if got is None else session.read(got)
        if told:
            pump.told()
            yield from told
            session.waiting()
        elif stall := session.stall():
            return stall


async def run_async(
    pump: AsyncPump,
    session: Session,
    channel: grpc.aio.Channel,
    alone: Callable[[], grpc.aio.Channel],
    ours: Failure,
    metadata: Metadata = None,
) -> AsyncIterator[Event]:
    """The same, for those who await."""
    own: grpc.aio.Channel | None = None
    async with pump:
        try:
            while True:
                connection = _Connection(_call(own or channel, pump, ours, metadata), pump, session, ours)
                try:
                    async for event in connection.events():
                        yield event
                finally:
                    await connection.leave()
                if connection.failure is None:
                    pump.check()
                    return
                pause = session.resume(connection.failure)
                for event in session.lost():
                    yield event
                if pause is None:
                    pump.check()
                    raise session.give_up(connection.failure)
                if session.stuck:
                    if own:
                        await own.close()
                    own = alone()
                await asyncio.sleep(pause)
        finally:
            if own:
                await own.close()


class _Call:
    """What grpc.aio makes a call of, less its own status for a write that comes too late.

    That one takes the place of the server's, and what was not read yet is lost with it, though both are on their way:
    https://github.com/grpc/grpc/issues/36066. Should none come, it is a stall like any other.
    """

    def __init__(self, call: Any) -> None:  # noqa: ANN401  Cython's own
        self._call = call

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  the same
        return getattr(self._call, name)

    def set_internal_error(self, _said: str) -> None:
        """Wait for the server's status."""


class _Connection:
    """One call of a stream that is awaited."""

    def __init__(self, call: Any, pump: AsyncPump, session: Session, ours: Failure) -> None:  # noqa: ANN401  gRPC's own
        self._call = call
        if hasattr(inner := getattr(call, "_cython_call", None), "set_internal_error"):
            call._cython_call = _Call(inner)  # noqa: SLF001  where a later version has no such thing, nothing is done
        self._pump = pump
        self._session = session
        self._ours = ours
        self._reading: asyncio.Future[Any] | None = None
        self.failure: Exception | None = None  # why it was not the last

    async def events(self) -> AsyncIterator[Event]:
        """Its events; then `failure` says more."""
        session = self._session
        session.waiting()
        while True:
            self._reading = self._reading or asyncio.ensure_future(self._call.read())
            await asyncio.wait({self._reading}, timeout=_LOOK_SECONDS)
            got = self._got()
            if isinstance(got, _Ended):
                for event in session.failed():
                    yield event
                self.failure = _failure(got, session, self._ours)
                return
            told = session.failed() if got is None else session.read(got)
            if told:
                self._pump.told()
                for event in told:
                    yield event
                session.waiting()
            elif stall := session.stall():
                self.failure = stall
                return

    def _got(self) -> pb.StreamDetectResponse | _Ended | None:
        """What was read; None: nothing yet."""
        reading = self._reading
        if reading is None or not reading.done():
            return None
        self._reading = None
        if reading.cancelled():  # the client was closed
            return _Ended(NoConnection("the call was cancelled", grpc.StatusCode.CANCELLED))
        if isinstance(error := reading.exception(), Exception):
            return _Ended(error)
        got = reading.result()
        return _Ended(None) if got is grpc.aio.EOF else got

    async def leave(self) -> None:
        """Read no more."""
        self._session.connect()
        self._pump.told()
        self._call.cancel()
        if self._reading:
            self._reading.cancel()
            await asyncio.wait({self._reading})
            self._got()
