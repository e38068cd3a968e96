"""Limits on incoming requests: their arrival time, and the memory of all that are still incomplete.

gRPC buffers a message until it is complete, and does not report the size of its buffers. So we measure the process's
memory in use beyond admitted images. Above the ceiling, no further message is started. Then answers that nobody reads
are abandoned, or else the messages that have been awaited longest, or else calls that wait to start. The number of
single messages started at once is limited, so that they can be measured before they fill the memory: connections take
turns.
"""

import asyncio
import contextlib
import gc
import math
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import grpc
import structlog

from vedette_server.contract.refusal import Reason, Refused
from vedette_server.pool import memory
from vedette_server.rpc import errors
from vedette_server.rpc.turns import TurnedAwayError, Turns
from vedette_server.rpc.unread import Unread

log = structlog.get_logger()

CEILING = 320 * 2**20  # bytes of this process, besides its baseline and admitted images
ARRIVE_SECONDS = 60  # for a single request to arrive completely
_LOOK_SECONDS = 0.05  # between memory measurements
_COLLECT_SECONDS = 2.0  # between garbage collections
_GRACE_SECONDS = 0.1  # granted to every message, whatever the memory
_NEW_SECONDS, _MOST_NEW = 0.15, 6  # single messages started in that time, whose memory is not measurable yet

M = TypeVar("M")
Context = grpc.aio.ServicerContext[Any, Any]


class Intake(grpc.aio.ServerInterceptor):
    """Interceptor that reads the messages of every call, of all services; the HTTP port reads its bodies by it too."""

    def __init__(
        self,
        admitted: Callable[[], int],
        refused: Callable[[Reason], None],
        arrive_seconds: float = ARRIVE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`admitted` returns the bytes of images waiting or in flight; `refused` is called for each refusal."""
        self._admitted = admitted
        self._refused = refused
        self._arrive_seconds = arrive_seconds
        self._clock = clock
        self._awaited: dict[asyncio.Task[Any], tuple[bool, float]] = {}  # whether streamed, and since when
        self._unread = Unread(clock)
        self._turns = Turns(_MOST_NEW, _NEW_SECONDS, clock)  # of single messages
        self._own = 0  # bytes in use when this process began to listen
        self._collected = -math.inf  # monotonic
        self._full = False
        self._looked = asyncio.Condition()

    async def watch(self) -> None:
        """Keep memory below the ceiling, and release the memory of past bursts, until cancelled."""
        self._own = memory.used()
        most = 0  # peak bytes in use since memory was last released
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            used, admitted = memory.used() - self._own, self._admitted()
            most = max(most, used)
            self._full = used - admitted > CEILING
            if self._full:
                self._collect()
                self._give_up()
            elif most > CEILING and admitted < CEILING // 4 and self._collect():
                await asyncio.to_thread(memory.give_back)
                most = memory.used() - self._own
            self._turns.shut = self._full
            self._turns.go_on()
            async with self._looked:
                self._looked.notify_all()

    def _collect(self) -> bool:
        """Collect cycles held by tracebacks of ended calls, unless that was recent; return whether it ran."""
        now = self._clock()
        if now < self._collected + _COLLECT_SECONDS:
            return False
        self._collected = now
        gc.collect()
        return True

    def _give_up(self) -> None:
        """Abandon half of the unread answers, or of the awaited messages, or of the longest line of waiting calls.

        Of the awaited messages, single ones go before streams, which may rest, and the longest awaited go first.
        """
        if unread := self._unread.give_up():
            for _ in range(unread):
                self._refused(Reason.INTAKE_FULL)
            return
        late = self._clock() - _GRACE_SECONDS
        old = [task for task, (_, since) in self._awaited.items() if since < late and not task.done()]
        for task in sorted(old, key=self._awaited.__getitem__)[: -(-len(old) // 2)]:
            task.cancel()
        if not old:
            self._turns.turn_away()

    async def _next(self, coming: Coroutine[Any, Any, M | Refused | None], seconds: float | None = None) -> M | None:
        """Return the message that is coming, or None after the last.

        Raises `Refused`: REQUEST_STALLED, INTAKE_FULL, REQUEST_UNREADABLE.
        """
        task = asyncio.ensure_future(coming)
        self._awaited[task] = (seconds is None, self._clock())
        try:
            await asyncio.wait({task}, timeout=seconds)
            if not task.done():
                raise self._refusal(Reason.REQUEST_STALLED, seconds=seconds)
            if task.cancelled():
                raise self._refusal(Reason.INTAKE_FULL)
            message = task.result()
            if isinstance(message, Refused):
                raise self._refusal(message.reason, **message.facts)
            return message
        finally:
            del self._awaited[task]
            task.cancel()

    def _refusal(self, reason: Reason, **facts: object) -> Refused:
        """Report a refusal, and return it to be raised."""
        self._refused(reason)
        return Refused(reason, **facts)

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]]",
        details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Route the call's messages through this interceptor.

        A single message and a stream look alike on the wire. Every method is registered as streaming, so that an
        overdue message can be abandoned.
        """
        handler: Any = await continuation(details)
        if handler is None:
            return None
        method = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        taken = self._taken(method, streamed=handler.request_streaming)
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        read = handler.request_deserializer and _read(handler.request_deserializer)
        return make(taken, read, handler.response_serializer)

    def _taken(self, method: Callable[[Any, Context], Any], *, streamed: bool) -> Callable[..., Awaitable[Any]]:
        """Return a method whose messages this interceptor reads."""

        async def take(messages: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401  any service's messages
            try:
                given = self._all(messages) if streamed else await self._single(messages, context)
                return await self._answer(method(given, context), context)
            except Refused as refusal:
                request_id = uuid.uuid4().hex
                log.info("refused", request_id=request_id, reason=refusal.reason, facts=refusal.facts)
                await errors.refuse(context, refusal, request_id)

        return take

    async def _answer(self, answering: Any, context: Context) -> Any:  # noqa: ANN401  a coroutine or an async generator
        if not isinstance(answering, AsyncGenerator):
            answer = await answering
            self._unread.until_done(context)
            return answer
        async with contextlib.aclosing(answering):
            async for response in answering:
                with self.writing(context.peer()):
                    await context.write(response)
        return None

    async def _single(self, messages: AsyncIterator[M | Refused], context: Context) -> M:
        message = await self.single(lambda: _anext(messages), context.peer())
        if message is None:
            raise self._refusal(Reason.REQUEST_UNREADABLE, bytes=0)
        return message

    async def single(self, read: Callable[[], Coroutine[Any, Any, M | Refused | None]], peer: str) -> M | None:
        """Return the single message of a call, which `read` reads once it is its turn.

        Raises `Refused`: REQUEST_STALLED, INTAKE_FULL, and what `read` returns.
        """
        try:
            async with self._turns.turn(peer):
                return await self._next(read(), self._arrive_seconds)
        except TurnedAwayError:
            raise self._refusal(Reason.INTAKE_FULL) from None

    async def room(self) -> None:
        """Wait while memory is above the ceiling. A body over HTTP comes in pieces, and asks before each."""
        self._full = self._full or memory.used() - self._own - self._admitted() > CEILING
        async with self._looked:
            await self._looked.wait_for(lambda: not self._full)

    def writing(self, peer: str) -> contextlib.AbstractContextManager[None]:
        """Track an answer to `peer` while the block writes it: unread ones are abandoned when memory runs short."""
        return self._unread.writing(peer)

    async def _all(self, messages: AsyncIterator[M | Refused]) -> AsyncIterator[M]:
        while True:
            async with self._looked:
                await self._looked.wait_for(lambda: not self._full)
            if (message := await self._next(_anext(messages))) is None:
                return
            yield message


def _read(deserialise: Callable[[bytes], M]) -> Callable[[bytes], M | Refused]:
    """Wrap a deserialiser so that it never raises: gRPC would answer with Python's text, and log a page of it."""

    def read(received: bytes) -> M | Refused:
        try:
            return deserialise(received)
        except Exception:  # noqa: BLE001  protobuf may raise anything
            return Refused(Reason.REQUEST_UNREADABLE, bytes=len(received))

    return read


async def _anext(messages: AsyncIterator[M | Refused]) -> M | Refused | None:
    return await anext(aiter(messages), None)
