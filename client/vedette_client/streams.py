"""Execution of a stream over as many connections as necessary, blocking or asynchronous.

All waits have a timeout, because a connection whose peer vanished stays silent forever.
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

_LOOK_SECONDS = 0.1  # between checks of the clock, and for unsent failures
_AHEAD = 2  # responses read ahead
_EARLY = "the stream ended before all its frames were reported"

Metadata: TypeAlias = tuple[tuple[str, str], ...] | None  # credentials sent with each call
Failure: TypeAlias = Callable[[Exception], Exception]  # converts gRPC's errors to ours


@dataclass(frozen=True)
class _Ended:
    error: Exception | None  # gRPC's; None: the server has reported everything


class _Responses:
    """The responses of a call, read in a thread so that waiting can time out."""

    def __init__(self, call: Any) -> None:  # noqa: ANN401  gRPC's own type
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
        except Exception as raised:  # noqa: BLE001  reported to the reader
            error = raised
        self._put(_Ended(error))

    def _put(self, item: pb.StreamDetectResponse | _Ended) -> bool:
        while not self._left.is_set():
            with contextlib.suppress(queue.Full):
                self._next.put(item, timeout=_LOOK_SECONDS)
                return True
        return False

    def get(self) -> pb.StreamDetectResponse | _Ended | None:
        """Return the next response, or None if there is none yet."""
        try:
            return self._next.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            return None

    def leave(self) -> None:
        """Stop reading."""
        self._left.set()
        self._call.cancel()


def _failure(ended: _Ended, session: Session, ours: Failure) -> Exception | None:
    """Return the reason to reconnect after a connection ended; None if the stream is complete."""
    if ended.error is None:
        return None if session.over else NoConnection(_EARLY, grpc.StatusCode.UNAVAILABLE)
    failure = ours(ended.error)
    if session.over and isinstance(failure, ServerError) and not failure.reason:
        return None  # lost, but nothing was left to report
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
    """Yield every event of a stream. `alone` opens an unshared channel, for when the common one is stuck."""
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


def _call(channel: Any, pump: Pump | AsyncPump, ours: Failure, metadata: Metadata) -> Any:  # noqa: ANN401  either kind
    try:
        call = channel.stream_stream(METHOD, None, pb.StreamDetectResponse.FromString)
        return call(pump.requests(), metadata=metadata)
    except (ValueError, grpc.aio.UsageError) as error:  # a closed channel
        raise ours(error) from error


def _events(
    responses: _Responses, pump: Pump, session: Session, ours: Failure
) -> Generator[Event, None, Exception | None]:
    """Yield the events of one connection; return the reason to reconnect, or None."""
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
    """Yield every event of a stream, asynchronously."""
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
    """A wrapper of grpc.aio's call that ignores its own status for a late write.

    That status would replace the server's, and discard unread responses, although both are on their way:
    https://github.com/grpc/grpc/issues/36066. If the server's status never comes, that is an ordinary stall.
    """

    def __init__(self, call: Any) -> None:  # noqa: ANN401  Cython's own
        self._call = call

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  the same
        return getattr(self._call, name)

    def set_internal_error(self, _said: str) -> None:
        """Ignore it, and wait for the server's status."""


class _Connection:
    """One call of an asynchronous stream."""

    def __init__(self, call: Any, pump: AsyncPump, session: Session, ours: Failure) -> None:  # noqa: ANN401  gRPC's own
        self._call = call
        if hasattr(inner := getattr(call, "_cython_call", None), "set_internal_error"):
            call._cython_call = _Call(inner)  # noqa: SLF001  skipped if a later version lacks it
        self._pump = pump
        self._session = session
        self._ours = ours
        self._reading: asyncio.Future[Any] | None = None
        self.failure: Exception | None = None  # reason to reconnect, if any

    async def events(self) -> AsyncIterator[Event]:
        """Yield the events of the connection; afterwards `failure` holds the reason for its end."""
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
        """Return what was read, or None if there is nothing yet."""
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
        """Stop reading."""
        self._session.connect()
        self._pump.told()
        self._call.cancel()
        if self._reading:
            self._reading.cancel()
            await asyncio.wait({self._reading})
            self._got()
