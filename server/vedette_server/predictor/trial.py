"""Trial answers to pictures, computed as in a worker, with refusals by name for any fault."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from vedette_server.contract.answer import Answer
from vedette_server.contract.contract import InputContract
from vedette_server.contract.convert import check
from vedette_server.contract.files import declare
from vedette_server.contract.image import ChannelOrder
from vedette_server.contract.loading import Check, LoadRefusedError, refuse
from vedette_server.contract.options import defaults
from vedette_server.contract.refusal import Refused
from vedette_server.predictor.predictor import Predictor
from vedette_server.predictor.prove import failure

_SIZES = ((240, 352), (352, 240), (9, 7))  # height and width: landscape, portrait, tiny
_PATCHES = 6, 9


def pictures(contract: InputContract) -> Iterator[tuple[str, bytes]]:
    """Yield pictures of soft patches in several sizes, as files for this contract, each with its size in words."""
    channels = contract.channels if contract.channel_order is ChannelOrder.MODEL else 3
    patches = np.random.default_rng(0).integers(0, 256, (*_PATCHES, channels), np.uint8)
    for height, width in _SIZES:
        planes = [Image.fromarray(patches[:, :, index]).resize((width, height)) for index in range(channels)]
        pixels = np.stack([np.asarray(plane) for plane in planes], axis=2)
        buffer = io.BytesIO()
        if contract.channel_order is ChannelOrder.MODEL:
            np.save(buffer, pixels)
        else:
            Image.fromarray(pixels).save(buffer, "PNG")
        try:
            check(declare(buffer.getvalue(), contract), contract)
        except Refused:  # outside the limits for callers
            continue
        yield f"{width} x {height} pixels", buffer.getvalue()


def answer(predictor: Predictor, data: bytes, contract: InputContract, name: str) -> Answer:
    """Answer a file at the model's default threshold.

    Raises `LoadRefusedError`: INFERENCE_FAILS, OUTPUT_NOT_FINITE; the first of each names the picture.
    """
    lenient = Check.VALUES_NOT_FINITE in contract.waivers
    try:
        given = predictor.predict(declare(data, contract), defaults(contract))
    except Refused as error:
        raise LoadRefusedError(Check.GOLDEN_UNREADABLE, f"{name}: {error.reason}") from error
    except Exception as error:  # a model may raise anything
        raise failure(error, name) from error
    evidence = given.evidence
    if (evidence.not_finite or evidence.dropped) and not lenient:
        where = evidence.not_finite or ", ".join(evidence.dropped)
        seen = f"of {name}, {where} produces non-finite values; {sum(evidence.dropped.values())} rows are dropped"
        refuse(Check.OUTPUT_NOT_FINITE, seen, contract.waivers)
    return given
