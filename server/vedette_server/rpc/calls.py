"""The parts that the services share: turns, the model that a caller may use, and refusals turned into statuses."""

import collections
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias, TypeVar

import grpc
import structlog

from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.engine import Engine
from vedette_server.engine.query import Outcome
from vedette_server.engine.queue import Flow
from vedette_server.rpc import convert, errors, guard

log = structlog.get_logger()

_MOST_FLOWS = 2_000  # most flows remembered
Response = TypeVar("Response")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Calls:
    """The flows of all connections, whichever service they call, and the models that their callers may use."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._flows: collections.OrderedDict[str, Flow] = collections.OrderedDict()

    def flow(self, peer: str) -> Flow:
        """Return the flow of a connection, owned by its caller's flow: that of its address if it is anonymous."""
        caller = guard.current().caller.key
        owner = self._remembered(caller, Flow())
        return self._remembered(f"{caller} {peer}", Flow(owner=owner))

    def _remembered(self, name: str, new: Flow) -> Flow:
        """Return the flow of this name, or `new` if it was forgotten."""
        flow = self._flows.setdefault(name, new)
        self._flows.move_to_end(name)
        if len(self._flows) > _MOST_FLOWS:
            self._flows.popitem(last=False)
        return flow

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count a refusal of a call whose model is not known yet."""
        try:
            yield
        except Refused as refusal:
            self._engine.monitor.refused("", "", refusal.reason)
            raise

    def named(self, name: str) -> str:
        """Return the model that a caller means and may use, and count a refusal. Raises `Refused`."""
        with self.counted():
            return self.choose(name)

    def choose(self, name: str) -> str:
        """Return the model that a caller means and may use. Raises `Refused`."""
        served = sorted({one.model.name for one in self._engine.served})
        return guard.current().choose(name, served, [one.name for one in self._engine.refused])

    async def guarded_stream(
        self, context: Context, request_id: str, responses: AsyncGenerator[Response, None]
    ) -> AsyncGenerator[Response, None]:
        """Yield a stream's responses; count a refusal that ends it, and turn it or a bug into a status as `guarded`."""
        try:
            with self.counted():
                async with contextlib.aclosing(responses):
                    async for response in responses:
                        yield response
        except Refused as refusal:
            log.info("stream_refused", request_id=request_id, reason=refusal.reason, facts=refusal.facts)
            await errors.refuse(context, refusal, request_id)
        except Exception:
            log.exception("bug", request_id=request_id)
            await errors.refuse(context, Refused(Reason.INTERNAL), request_id)


def loggable(request_id: str) -> str:
    """Return the caller's request id if it is safe to log as it is; otherwise a new one."""
    usable = 0 < len(request_id) <= convert.LONGEST_ID and request_id.isprintable()
    return request_id if usable else uuid.uuid4().hex


def check_id(request_id: str) -> None:
    """Raise `Refused` (REQUEST_ID_INVALID) for a request id that is not safe to log."""
    if request_id not in ("", loggable(request_id)):
        raise Refused(Reason.REQUEST_ID_INVALID, length=len(request_id), most=convert.LONGEST_ID)


def log_answer(request_id: str, outcome: Outcome) -> None:
    """Log the one line of an answered call."""
    log.info(
        "detect",
        request_id=request_id,
        model=outcome.model.name,
        version=str(outcome.model.version),
        detections=len(outcome.answer.detections),
        seconds=round(outcome.total_seconds, 4),
    )


async def guarded(context: Context, request_id: str, call: Callable[[], Awaitable[Response]]) -> Response:
    """Run a call; turn a refusal into its status, and a bug into INTERNAL with nothing but an opaque id."""
    started = time.monotonic()
    try:
        return await call()
    except Refused as refusal:
        log.info(
            "refused",
            request_id=request_id,
            reason=refusal.reason,
            facts=refusal.facts,
            seconds=round(time.monotonic() - started, 4),
        )
        await errors.refuse(context, refusal, request_id)
    except Exception:
        log.exception("bug", request_id=request_id)
        await errors.refuse(context, Refused(Reason.INTERNAL), request_id)
