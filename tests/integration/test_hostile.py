"""20,000 generated requests, valid, borderline and hostile: nothing but declared refusals, no memory beyond the limits,
and whatever the check accepts the predictor runs."""

import dataclasses
import io
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from vedette_server.contract import convert
from vedette_server.contract.contract import ImageLimits, Input
from vedette_server.contract.image import (
    ChannelOrder,
    EncodedImage,
    ImageSpec,
    Orientation,
    PixelFormat,
    RawImage,
    SentImage,
    TensorImage,
    TensorLayout,
    ValueRange,
    YuvMatrix,
    YuvRange,
)
from vedette_server.contract.options import Asked, MaskFormat, resolve
from vedette_server.contract.refusal import Refused
from vedette_server.predictor.predictor import Predictor, load
from vedette_server.repository import repository
from vedette_server.settings import BUNDLED_REPOSITORY

EXAMPLES = 20_000
LIMITS = ImageLimits(max_bytes=20_000, max_pixels=4_000, max_edge=120)
MEMORY = 3_000_000  # bytes: some dozens of times the largest image within the limits

SIZES = st.one_of(st.integers(1, 70), st.sampled_from([-1, 0, 1, 2, 120, 121, 2**31 - 1]))
FLOATS = st.one_of(st.floats(width=32), st.sampled_from([0.0, 0.5, 1.0, 1.5, 127.0, 255.0, 256.0, -1.0]))


def filled(length: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(max(0, min(length, 30_000)))  # noqa: S311  not secrets


@st.composite
def raw(draw: st.DrawFn) -> tuple[ImageSpec, bytes]:
    spec = RawImage(
        draw(st.sampled_from(PixelFormat)),
        draw(SIZES),
        draw(SIZES),
        draw(st.one_of(st.none(), st.integers(-5, 400))),
        draw(st.one_of(st.none(), st.sampled_from(YuvMatrix))),
        draw(st.one_of(st.none(), st.sampled_from(YuvRange))),
        draw(st.booleans()),
    )
    stride = spec.row_stride if spec.row_stride is not None else spec.width * draw(st.sampled_from([1, 3, 4]))
    length = stride * spec.height + draw(st.sampled_from([0, 0, 0, 1, -1, stride * -(-spec.height // 2)]))
    return spec, filled(length, draw(st.integers(0, 9)))


@st.composite
def tensor(draw: st.DrawFn) -> tuple[ImageSpec, bytes]:
    height, width = draw(SIZES), draw(SIZES)
    kinds = (st.sampled_from(kind) for kind in (ChannelOrder, TensorLayout, ValueRange))
    order, layout, value_range = (draw(kind) for kind in kinds)
    spec = TensorImage(order, layout, value_range, height, width)
    count = max(0, min(height * width * 3, 5_000)) + draw(st.sampled_from([0, 0, 0, 1]))
    values = np.random.default_rng(draw(st.integers(0, 9))).random(count, np.float32) * draw(FLOATS)
    return spec, values.astype("<f4").tobytes()


@st.composite
def encoded(draw: st.DrawFn) -> tuple[ImageSpec, bytes]:
    spec = EncodedImage(draw(st.sampled_from(Orientation)), draw(st.booleans()))
    if draw(st.integers(0, 5)) == 0:
        return spec, draw(st.binary(max_size=200))
    size = draw(st.integers(1, 130)), draw(st.integers(1, 130))
    codec = draw(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"]))
    mode = draw(
        st.sampled_from({"JPEG": ["RGB", "L", "CMYK"], "WEBP": ["RGB", "RGBA"]}.get(codec, ["RGB", "L", "1", "P"]))
    )
    exif = Image.Exif()
    exif[0x0112] = draw(st.integers(0, 9))
    buffer = io.BytesIO()
    Image.new(mode, size, draw(st.integers(0, 1))).save(
        buffer, codec, **({} if codec in ("BMP", "GIF") else {"exif": exif})
    )
    data = bytearray(buffer.getvalue())
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return spec, bytes(data[: draw(st.sampled_from([len(data), len(data), len(data) // 2, 9]))])


ASKED = st.builds(
    Asked,
    threshold=st.one_of(st.none(), st.floats()),
    mask_format=st.sampled_from(MaskFormat),
    class_names=st.sampled_from([(), ("stop",), ("stop", "yield"), ("",), ("stpo",)]),
    class_ids=st.lists(st.integers(-2, 8), max_size=3).map(tuple),
    max_detections=st.one_of(st.none(), st.integers(-1, 101)),
    panoptic_threshold=st.one_of(st.none(), st.floats()),
    contract_fingerprint=st.sampled_from(["", "", "0" * 64]),
)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    (version,) = repository.read(BUNDLED_REPOSITORY)
    return load(version.folder, version.contract, "cpu", threads=2)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # on broken EXIF data, which Pillow then leaves out
def test_the_check_holds_against_anything(predictor: Predictor) -> None:
    (version,) = repository.read(BUNDLED_REPOSITORY)
    contract = dataclasses.replace(version.contract, limits=LIMITS, inputs=tuple(Input))
    seen = {"all": 0, "accepted": 0, "run": 0}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(raw(), tensor(), encoded()), ASKED)
    def check(image: tuple[ImageSpec, bytes], asked: Asked) -> None:
        spec, data = image
        seen["all"] += 1
        traced = seen["all"] % 10 == 0  # tracing makes everything several times slower
        if traced:
            tracemalloc.start()
        try:
            options = resolve(asked if seen["all"] % 2 else Asked(), contract)
            convert.check(SentImage(spec, data), contract)
            pixels = convert.decode(SentImage(spec, data))
        except Refused:
            return
        finally:
            if traced:
                _size, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                assert peak < MEMORY
        seen["accepted"] += 1
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.size <= LIMITS.max_pixels * 3
        if seen["accepted"] % 20 == 0:  # the model takes a hundred times as long as the check
            seen["run"] += 1
            predictor.predict(SentImage(spec, data), options)

    check()
    assert seen["all"] >= EXAMPLES
    assert seen["accepted"] > EXAMPLES / 50, seen
    assert seen["run"] > 15, seen
