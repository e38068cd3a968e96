"""How requests come in: how long one may take to arrive, and how much of all may lie here that is not whole.

gRPC keeps what has come of a message until its rest is there, and tells nobody how much that is. So the process's own
memory is looked at: what is in use beyond the images that were admitted. Above the ceiling no further message is begun.
Given up are answers that nobody takes, else the messages that have been awaited longest, else calls that wait to begin.
No more single messages are begun at once than can be measured before they fill the memory: connections take turns.
"""

import asyncio
import contextlib
import gc
import math
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
import structlog

from vedette_server.contract.refusal import Reason, Refused
from vedette_server.pool import memory
from vedette_server.rpc import errors
from vedette_server.rpc.turns import TurnedAwayError, Turns
from vedette_server.rpc.unread import Unread

log = structlog.get_logger()

CEILING = 320 * 2**20  # bytes of this process, beside its own and admitted images
ARRIVE_SECONDS = 60  # for a single request to arrive whole
_LOOK_SECONDS = 0.05  # between two looks at the memory
_COLLECT_SECONDS = 2.0  # between two searches for cycles
_GRACE_SECONDS = 0.1  # that a message may take whatever the memory
_NEW_SECONDS, _MOST_NEW = 0.15, 6  # single messages begun in that time: what they will hold is not yet measured

M = TypeVar("M")
Context = grpc.aio.ServicerContext[Any, Any]


class Intake(grpc.aio.ServerInterceptor):
    """Reads the messages of every call, of all services."""

    def __init__(
        self, admitted: Callable[[], int], refused: Callable[[Reason], None], arrive_seconds: float = ARRIVE_SECONDS
    ) -> None:
        """`admitted` gives the bytes of the images that wait or run; `refused` hears what is refused here."""
        self._admitted = admitted
        self._refused = refused
        self._arrive_seconds = arrive_seconds
        self._awaited: dict[asyncio.Task[Any], tuple[bool, float]] = {}  # whether of a stream, and since when
        self._unread = Unread()
        self._turns = Turns(_MOST_NEW, _NEW_SECONDS)  # of single messages
        self._own = 0  # bytes that this process had when it began to listen
        self._collected = -math.inf  # monotonic
        self._full = False
        self._looked = asyncio.Condition()

    async def watch(self) -> None:
        """Keep below the ceiling, and give back what a burst has left, until cancelled."""
        self._own = memory.used()
        most = 0  # bytes that were in use since memory was last given back
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
        """Free what ended calls hold by their tracebacks. It takes a while: returns whether it is time for it again."""
        now = time.monotonic()
        if now < self._collected + _COLLECT_SECONDS:
            return False
        self._collected = now
        gc.collect()
        return True

    def _give_up(self) -> None:
        """Give up half of the answers that nobody takes, or of the messages that are awaited, or of the longest line.

        Of messages, those go first that have been awaited longest, and single ones, since a stream may rest.
        """
        if unread := self._unread.give_up():
            for _ in range(unread):
                self._refused(Reason.INTAKE_FULL)
            return
        late = time.monotonic() - _GRACE_SECONDS
        old = [task for task, (_, since) in self._awaited.items() if since < late and not task.done()]
        for task in sorted(old, key=self._awaited.__getitem__)[: -(-len(old) // 2)]:
            task.cancel()
        if not old:
            self._turns.turn_away()

    async def _next(self, messages: AsyncIterator[M | Refused], seconds: float | None = None) -> M | None:
        """The next message, None after the last. Raises `Refused`: REQUEST_STALLED, INTAKE_FULL, REQUEST_UNREADABLE."""
        task = asyncio.ensure_future(_anext(messages))
        self._awaited[task] = (seconds is None, time.monotonic())
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
        """What to raise, once it is told of."""
        self._refused(reason)
        return Refused(reason, **facts)

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]]",
        details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Have the call's messages read here.

        One message and a stream of them look alike on the wire: taken as a stream, a message that does not come can be
        given up.
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
        """A method that is given what this reads."""

        async def take(messages: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401  any service's messages
            try:
                given = self._all(messages) if streamed else await self._single(messages, context)
                return await self._answer(method(given, context), context)
            except Refused as refusal:
                request_id = uuid.uuid4().hex
                log.info("refused", request_id=request_id, reason=refusal.reason, facts=refusal.facts)
                await errors.refuse(context, refusal, request_id)

        return take

    async def _answer(self, answering: Any, context: Context) -> Any:  # noqa: ANN401  a coroutine, or responses one by one
        if not isinstance(answering, AsyncGenerator):
            answer = await answering
            self._unread.until_done(context)
            return answer
        async with contextlib.aclosing(answering):
            async for response in answering:
                with self._unread.writing(context):
                    await context.write(response)
        return None

    async def _single(self, messages: AsyncIterator[M | Refused], context: Context) -> M:
        try:
            async with self._turns.turn(context.peer()):
                message = await self._next(messages, self._arrive_seconds)
        except TurnedAwayError:
            raise self._refusal(Reason.INTAKE_FULL) from None
        if message is None:
            raise self._refusal(Reason.REQUEST_UNREADABLE, bytes=0)
        return message

    async def _all(self, messages: AsyncIterator[M | Refused]) -> AsyncIterator[M]:
        while True:
            async with self._looked:
                await self._looked.wait_for(lambda: not self._full)
            if (message := await self._next(messages)) is None:
                return
            yield message


def _read(deserialise: Callable[[bytes], M]) -> Callable[[bytes], M | Refused]:
    """A deserialiser that never raises: gRPC would answer with Python's own text, and write a page into the log."""

    def read(received: bytes) -> M | Refused:
        try:
            return deserialise(received)
        except Exception:  # noqa: BLE001  whatever protobuf raises
            return Refused(Reason.REQUEST_UNREADABLE, bytes=len(received))

    return read


async def _anext(messages: AsyncIterator[M | Refused]) -> M | Refused | None:
    return await anext(aiter(messages), None)
