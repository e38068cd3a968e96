"""Tensors in regions of shared memory, as the parameters of a request refer to them."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vedette_server.contract.image import Buffer
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.rpc import input_tensors, wire
from vedette_server.rpc.regions import Place
from vedette_server.rpc.wire import Gathered

REGION, SIZE, OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"
_LENGTH = 4  # bytes before an element of BYTES


@dataclass(frozen=True)
class NamedPlace:
    """The place of a tensor, as its parameters name it; sizes in bytes."""

    region: str
    byte_size: int
    offset: int


def take(fields: Any) -> NamedPlace | None:  # noqa: ANN401  generated code without types
    """Take the place of a tensor out of its parameters; None: it is in none. Raises `Refused`: PARAMETER_INVALID."""
    given = {name: fields[name] for name in (REGION, SIZE, OFFSET) if name in fields}
    if not given:
        return None
    values = {name: getattr(one, one.WhichOneof("parameter_choice") or "", None) for name, one in given.items()}
    for name in given:
        del fields[name]
    if not isinstance(region := values.get(REGION), str):
        raise refusal(REGION, _seen(region), f"the name of a region, beside {SIZE}")
    return NamedPlace(region, _whole(SIZE, values.get(SIZE)), _whole(OFFSET, values.get(OFFSET, 0)))


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise refusal(name, _seen(value), f"a whole number from 0 on, beside {REGION}")
    return value


def _seen(value: object) -> str:
    return "missing" if value is None else repr(value)


def refusal(parameter: str, seen: str, expected: str) -> Refused:
    """Return the refusal of a parameter of shared memory."""
    return Refused(Reason.PARAMETER_INVALID, parameter=parameter, seen=seen, expected=expected)


def check_apart(places: Iterable[Place]) -> None:
    """Refuse outputs that would overwrite each other. Raises `Refused`: PARAMETER_INVALID."""
    ordered = sorted(places, key=lambda one: (one.region.file.device, one.region.file.inode, one.start))
    for one, other in itertools.pairwise(ordered):
        if one.overlaps(other):
            seen = f"{other.offset} in {other.region.name!r}, where another output is written too"
            raise refusal(OFFSET, seen, "a place for each output, apart from all others")


def check_sizes(inputs: Iterable[Any], places: Iterable[Place | None], max_bytes: int) -> int:
    """Return the bytes that inputs have in regions. Raises `Refused`: IMAGE_TOO_MANY_BYTES, REQUEST_TOO_LARGE."""
    images = beside = 0
    for tensor, place in zip(inputs, places, strict=True):
        if place and tensor.name in input_tensors.IMAGES:
            images += place.byte_size
        elif place:
            beside += place.byte_size
    if images > max_bytes + _LENGTH:
        raise Refused(Reason.IMAGE_TOO_MANY_BYTES, bytes=images, max_bytes=max_bytes)
    if beside > wire.MOST_BESIDE_IMAGE:
        raise wire.too_large(beside)
    return images + beside


def inline(received: Gathered[Any], places: Sequence[Place | None]) -> list[Buffer]:
    """Return the contents of the inputs that a request has in itself, in order. Raises `Refused`."""
    inputs = received.message.inputs
    for tensor, place in zip(inputs, places, strict=True):
        if place and tensor.HasField("contents"):
            seen = f"{tensor.name} has contents, and the region {place.region.name!r} beside them"
            raise Refused(Reason.INPUT_TENSOR_INVALID, seen=seen, expected="each input in one of the two ways")
    own = [tensor for tensor, place in zip(inputs, places, strict=True) if place is None]
    if not received.contents:
        found = [input_tensors.typed(tensor) for tensor in own]
        for tensor in own:
            tensor.ClearField("contents")
        return list(found)
    if len(received.contents) != len(own):
        seen = f"there are {len(own)} inputs outside shared memory and {len(received.contents)} raw_input_contents"
        raise Refused(Reason.INPUT_TENSOR_INVALID, seen=seen, expected="the contents of each of them, in order")
    return list(received.contents)
