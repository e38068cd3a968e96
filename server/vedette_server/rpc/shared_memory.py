"""Triton's extension `system_shared_memory`: tensors in the memory of callers on this machine.

A request that refers to regions becomes one that has its tensors in itself, so that nothing else knows of regions. Its
outputs are moved into regions after the answer is complete. A caller can name only memory of its own user: otherwise it
could have the server read or change what the server's user may, and the caller may not.
"""

import asyncio
import functools
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
import structlog
from tritonclient.grpc import service_pb2 as pb

from vedette_server.access import peers
from vedette_server.access.policy import Verb
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.engine import Engine
from vedette_server.engine.query import CALLERS_LIMIT, SERVERS_LIMIT
from vedette_server.rpc import calls, guard, input_tensors, shared_files, shared_tensors, wire
from vedette_server.rpc.calls import Context
from vedette_server.rpc.regions import Place, Region, Regions
from vedette_server.rpc.shared_files import Piece, SharedFile, UnfitFileError
from vedette_server.rpc.shared_tensors import NamedPlace
from vedette_server.rpc.turns import Turns
from vedette_server.rpc.wire import Gathered, Sent

_AT_ONCE = 4  # files that are looked at or read; together they hold as many images
_LONGEST_NAME = 128  # characters

log = structlog.get_logger()

T = TypeVar("T")


class SharedMemory:
    """The regions of all callers, and the way of tensors out of them and into them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._regions = Regions()
        self._turns = Turns(_AT_ONCE, math.inf)
        self._threads = ThreadPoolExecutor(_AT_ONCE, "shared-memory")

    def handler(self) -> "grpc.RpcMethodHandler[Any, Any]":
        """Return the method that registers regions as generated code would register it."""

        async def answer(request: Sent[Any], context: Context) -> pb.SystemSharedMemoryRegisterResponse:
            async def call() -> pb.SystemSharedMemoryRegisterResponse:
                return await self.register(request.read(), context.peer())

            return await calls.guarded(context, uuid.uuid4().hex, call)

        return grpc.unary_unary_rpc_method_handler(
            answer,
            wire.sent(wire.without_image(pb.SystemSharedMemoryRegisterRequest)),
            pb.SystemSharedMemoryRegisterResponse.SerializeToString,
        )

    async def register(
        self, request: pb.SystemSharedMemoryRegisterRequest, peer: str
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Register a region of a file that belongs to the user of the peer, as gRPC names it. Raises `Refused`."""
        caller = _admitted()
        if not (0 < len(request.name) <= _LONGEST_NAME and request.name.isprintable()):
            expected = f"a name of 1 to {_LONGEST_NAME} printable characters"
            raise _invalid(request, f"its name has {len(request.name)} characters", expected)
        key = request.key.lstrip("/")  # as shm_open does
        if not shared_files.is_key(key):
            expected = "the key of one file, of up to 255 letters, digits and '_.+-', with or without a slash before it"
            raise _invalid(request, f"its key is {request.key!r}", expected)
        try:
            file, size = await self._off_loop(functools.partial(_looked_up, peer, key), 0, None)
        except UnfitFileError as error:
            raise _invalid(request, str(error), "a file of shared memory that the caller's own user has made") from None
        if not 0 < request.byte_size <= size - request.offset:
            seen = f"it has {request.byte_size} bytes from the offset {request.offset} of a file of {size} bytes"
            raise _invalid(request, seen, "a part of the file, of at least one byte")
        region = Region(
            name=request.name, key=request.key, offset=request.offset, byte_size=request.byte_size, file=file
        )
        self._regions.add(caller, region)
        log.info("region_registered", region=region.name, key=key, bytes=region.byte_size, user=file.owner)
        return pb.SystemSharedMemoryRegisterResponse()

    def unregister(self, request: pb.SystemSharedMemoryUnregisterRequest) -> pb.SystemSharedMemoryUnregisterResponse:
        """Forget one region, or all of the caller's; from then on nothing is written into it."""
        self._regions.remove(_admitted(), request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    def status(self, request: pb.SystemSharedMemoryStatusRequest) -> pb.SystemSharedMemoryStatusResponse:
        """List one region, or all of the caller's."""
        caller = _admitted()
        found = [self._regions.find(caller, request.name)] if request.name else self._regions.of(caller)
        given = pb.SystemSharedMemoryStatusResponse()
        for region in found:
            told = given.regions[region.name]
            told.name, told.key = region.name, region.key
            told.offset, told.byte_size = region.offset, region.byte_size
        return given

    async def fetched(
        self, received: Gathered[Any], max_bytes: int, remaining: float | None
    ) -> tuple[Gathered[Any], Mapping[str, Place]]:
        """Return a request with all of its inputs in itself, and the places of its outputs that are in regions.

        `max_bytes` is the model's limit of an image; `remaining` is the caller's deadline in seconds. Raises `Refused`.
        """
        message = received.message
        inputs = [shared_tensors.take(one.parameters) for one in message.inputs]
        outputs = {one.name: named for one in message.outputs if (named := shared_tensors.take(one.parameters))}
        if not any(inputs) and not outputs:
            return received, {}
        guard.current().also(Verb.SHARE)
        caller = _local()
        input_tensors.check(message.inputs)
        places = {name: self._place(caller, named) for name, named in outputs.items()}
        shared_tensors.check_apart(places.values())
        sources = [self._place(caller, named) if named else None for named in inputs]
        size = shared_tensors.check_sizes(message.inputs, sources, max_bytes)
        sent = iter(shared_tensors.inline(received, sources))
        reading = functools.partial(_read, [one for one in sources if one])
        try:
            read = iter(await self._off_loop(reading, size, remaining))
        except UnfitFileError as error:
            raise Refused(Reason.REGION_CHANGED, seen=str(error)) from None
        return Gathered(message, [next(read if place else sent) for place in sources]), places

    def _place(self, caller: str, named: NamedPlace) -> Place:
        """Return the place that parameters name. Raises `Refused`: REGION_NOT_FOUND, PARAMETER_INVALID."""
        region = self._regions.find(caller, named.region)
        if named.offset + named.byte_size > region.byte_size:
            seen = f"{named.byte_size} at the offset {named.offset}; {region.name!r} has {region.byte_size} bytes"
            raise shared_tensors.refusal(shared_tensors.SIZE, seen, "a part of the region")
        return Place(region, named.offset, named.byte_size)

    def put(self, response: pb.ModelInferResponse, places: Mapping[str, Place]) -> pb.ModelInferResponse:
        """Move outputs into their places: all of them, or none if one does not fit. Raises `Refused`.

        Their raw contents stay, empty, as clients find an output's contents by its position. It is done on the event
        loop, so that none is written once its region is unregistered; outputs are small.
        """
        moved: list[Piece] = []
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
            if (place := places.get(output.name)) is None:
                continue
            if len(raw) > place.byte_size:
                facts = {"output": output.name, "region": place.region.name, "given": place.byte_size}
                raise Refused(Reason.REGION_TOO_SMALL, needed=len(raw), **facts)
            if self._regions.find(guard.current().caller.name, place.region.name) is not place.region:
                raise Refused(Reason.REGION_NOT_FOUND, region=place.region.name)
            moved.append(Piece(place.region.file, place.start, raw))
        try:
            shared_files.write(moved)
        except UnfitFileError as error:
            raise Refused(Reason.REGION_CHANGED, seen=str(error)) from None
        for at, output in enumerate(response.outputs):
            if place := places.get(output.name):
                output.parameters[shared_tensors.REGION].string_param = place.region.name
                output.parameters[shared_tensors.SIZE].int64_param = len(response.raw_output_contents[at])
                if place.offset:
                    output.parameters[shared_tensors.OFFSET].int64_param = place.offset
                response.raw_output_contents[at] = b""
        return response

    async def _off_loop(self, work: Callable[[], T], size: int, remaining: float | None) -> T:
        """Run `work`, which reads `size` bytes, in a thread when its caller's turn has come.

        Raises `Refused`: DEADLINE_EXCEEDED, and what `work` raises.
        """
        most = self._engine.max_seconds
        seconds, limit = (most, SERVERS_LIMIT) if remaining is None or remaining > most else (remaining, CALLERS_LIMIT)
        try:
            async with asyncio.timeout(seconds), self._turns.turn(guard.current().caller.key):
                with self._engine.holding(size):  # no sooner: what only waits takes no memory
                    return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError:
            raise Refused(Reason.DEADLINE_EXCEEDED, seconds=f"{seconds:.3f}", limit=limit) from None


def _invalid(request: pb.SystemSharedMemoryRegisterRequest, seen: str, expected: str) -> Refused:
    return Refused(Reason.REGION_INVALID, region=request.name, seen=seen, expected=expected)


def _admitted() -> str:
    """Admit the call of a caller on this machine, and return its name. Raises `Refused`."""
    guard.current().admit()
    return _local()


def _local() -> str:
    """Return the name of the caller, who must be on this machine. Raises `Refused`: REGION_NOT_LOCAL."""
    caller = guard.current().caller
    if not peers.is_here(caller.host):
        raise Refused(Reason.REGION_NOT_LOCAL, host=caller.host)
    return caller.name


def _looked_up(peer: str, key: str) -> tuple[SharedFile, int]:
    """Return the file with this key, if it belongs to the peer's user, and its size. Raises `UnfitFileError`."""
    user = peers.user(peer)
    if user is None:
        msg = "the kernel does not tell which user the connection belongs to"
        raise UnfitFileError(msg)
    return shared_files.find(key, user)


def _read(places: Sequence[Place]) -> list[bytes]:
    return [shared_files.read(one.region.file, one.start, one.byte_size) for one in places]
