"""Every way to send an image: the pixels that reach the predictor against a reference made with NumPy and Pillow alone,
and what the values themselves contradict."""

import io
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from numpy.typing import NDArray
from PIL import Image
from vedette_server.contract import convert
from vedette_server.contract.contract import InputContract, possible
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
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.demo import scenes

from tests.support.contracts import contract

ALL = contract(inputs=possible(ChannelOrder.BGR))
RGB = scenes.draw(scenes.describe(3_000_001)).pixels[:123, :157].copy()  # odd sizes, for the chroma planes
HEIGHT, WIDTH = RGB.shape[:2]
BGR = RGB[:, :, ::-1]
GREY = RGB[:, :, 1]
ALPHA = np.full((HEIGHT, WIDTH, 1), 77, np.uint8)


def decoded(spec: ImageSpec, data: bytes, under: InputContract = ALL) -> NDArray[np.uint8]:
    convert.check(SentImage(spec, data), under)
    return convert.decode(SentImage(spec, data))


def refused(spec: ImageSpec, data: bytes, under: InputContract = ALL) -> Reason:
    with pytest.raises(Refused) as caught:
        decoded(spec, data, under)
    return caught.value.reason


def padded(pixels: NDArray[np.uint8], stride: int) -> bytes:
    rows = np.full((HEIGHT, stride), 99, np.uint8)
    flat = pixels.reshape(HEIGHT, -1)
    rows[:, : flat.shape[1]] = flat
    return rows.tobytes()


INTERLEAVED = {
    PixelFormat.BGR8: (BGR, BGR),
    PixelFormat.RGB8: (RGB, BGR),
    PixelFormat.GRAY8: (GREY, np.dstack([GREY] * 3)),
    PixelFormat.BGRA8: (np.concatenate([BGR, ALPHA], axis=2), BGR),
    PixelFormat.RGBA8: (np.concatenate([RGB, ALPHA], axis=2), BGR),
}


@pytest.mark.parametrize("stride", [None, 700])
@pytest.mark.parametrize("pixel_format", INTERLEAVED)
def test_raw_samples_come_out_to_the_last_bit(pixel_format: PixelFormat, stride: int | None) -> None:
    sent, wanted = INTERLEAVED[pixel_format]
    spec = RawImage(pixel_format, HEIGHT, WIDTH, stride, drop_alpha=True)
    np.testing.assert_array_equal(decoded(spec, padded(sent, stride) if stride else sent.tobytes()), wanted)


# The published equations with their decimal coefficients (ITU-R BT.601 and BT.709), red, green and blue from Y, Cb, Cr.
EQUATIONS = {
    YuvMatrix.BT601: ((1, 0, 1.402), (1, -0.344136, -0.714136), (1, 1.772, 0)),
    YuvMatrix.BT709: ((1, 0, 1.5748), (1, -0.187324, -0.468124), (1, 1.8556, 0)),
}


@pytest.mark.parametrize("stride", [None, 200, 201])
@pytest.mark.parametrize("yuv_range", YuvRange)
@pytest.mark.parametrize("matrix", YuvMatrix)
@pytest.mark.parametrize("pixel_format", [PixelFormat.NV12, PixelFormat.I420])
def test_yuv_is_converted_by_the_published_equations(
    pixel_format: PixelFormat, matrix: YuvMatrix, yuv_range: YuvRange, stride: int | None
) -> None:
    rng = np.random.default_rng(9)
    rows, columns = -(-HEIGHT // 2), -(-WIDTH // 2)
    luma = rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    chroma = rng.integers(0, 256, (2, rows, columns), np.uint8)
    data = padded(luma, stride or WIDTH)
    if pixel_format is PixelFormat.NV12:
        plane = np.zeros((rows, (stride or WIDTH) + (stride or WIDTH) % 2), np.uint8)
        plane[:, : 2 * columns] = chroma.transpose(1, 2, 0).reshape(rows, -1)
        data += plane.tobytes()
    else:
        planes = np.zeros((2, rows, -(-(stride or WIDTH) // 2)), np.uint8)
        planes[:, :, :columns] = chroma
        data += planes.tobytes()
    y, cb, cr = luma.astype(float), *chroma.repeat(2, axis=1).repeat(2, axis=2)[:, :HEIGHT, :WIDTH].astype(float)
    if yuv_range is YuvRange.LIMITED:
        y, cb, cr = (y - 16) * 255 / 219, (cb - 128) * 255 / 224, (cr - 128) * 255 / 224
    else:
        cb, cr = cb - 128, cr - 128
    red, green, blue = (sum(k * part for k, part in zip(row, (y, cb, cr), strict=True)) for row in EQUATIONS[matrix])
    wanted = np.clip(np.round(np.dstack([blue, green, red])), 0, 255)
    seen = decoded(RawImage(pixel_format, HEIGHT, WIDTH, stride, matrix, yuv_range), data)
    assert np.abs(seen - wanted).max() <= 1
    assert (seen != wanted).mean() < 0.01, "the coefficients are published with six digits: rounding may differ, rarely"


@pytest.mark.parametrize("value_range", ValueRange)
@pytest.mark.parametrize("layout", TensorLayout)
@pytest.mark.parametrize("order", [ChannelOrder.BGR, ChannelOrder.RGB])
def test_a_tensor_comes_out_to_the_last_bit(order: ChannelOrder, layout: TensorLayout, value_range: ValueRange) -> None:
    pixels = (BGR if order is ChannelOrder.BGR else RGB).astype(np.float32)
    if value_range is ValueRange.TO_1:
        pixels = pixels / np.float32(255)
    if layout is TensorLayout.CHW:
        pixels = pixels.transpose(2, 0, 1)
    spec = TensorImage(order, layout, value_range, HEIGHT, WIDTH)
    np.testing.assert_array_equal(decoded(spec, np.ascontiguousarray(pixels, "<f4").tobytes()), BGR)


@pytest.mark.parametrize("codec", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_file_comes_out_as_detectron2_reads_it(codec: str, tmp_path: Any) -> None:
    path = tmp_path / "picture"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(path, codec, exif=exif)
    np.testing.assert_array_equal(decoded(EncodedImage(), path.read_bytes()), read_image(str(path), format="BGR"))


def saved(image: Image.Image, codec: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, codec, **options)
    return buffer.getvalue()


def test_orientation_is_applied_ignored_or_refused() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    data = saved(Image.fromarray(RGB), exif=exif)
    np.testing.assert_array_equal(decoded(EncodedImage(Orientation.APPLY), data), BGR[::-1, ::-1])
    np.testing.assert_array_equal(decoded(EncodedImage(Orientation.IGNORE), data), BGR)
    assert refused(EncodedImage(Orientation.REFUSE), data) is Reason.IMAGE_NOT_UPRIGHT
    with pytest.raises(Refused) as caught:
        decoded(EncodedImage(Orientation.REFUSE), data)
    assert caught.value.facts == {"orientation": "3"}
    np.testing.assert_array_equal(decoded(EncodedImage(Orientation.REFUSE), saved(Image.fromarray(RGB))), BGR)


def test_alpha_that_shows_something_through_must_be_dropped_by_name() -> None:
    see_through = Image.fromarray(np.concatenate([RGB, ALPHA], axis=2))
    assert refused(EncodedImage(), saved(see_through)) is Reason.ALPHA_NOT_DROPPED
    with pytest.raises(Refused) as caught:
        convert.decode(SentImage(EncodedImage(), saved(see_through)))
    assert caught.value.facts == {"field": "image.encoded.drop_alpha", "format": "PNG"}
    np.testing.assert_array_equal(decoded(EncodedImage(drop_alpha=True), saved(see_through)), BGR)
    opaque = Image.fromarray(np.concatenate([RGB, ALPHA * 0 + 255], axis=2))
    np.testing.assert_array_equal(decoded(EncodedImage(), saved(opaque)), BGR)
    raw = RawImage(PixelFormat.RGBA8, HEIGHT, WIDTH)
    assert refused(raw, bytes(HEIGHT * WIDTH * 4)) is Reason.ALPHA_NOT_DROPPED


def png_of_16_bits_a_sample() -> bytes:
    """Pillow cannot write one in colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = (8).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    rows = zlib.compress(b"".join(b"\0" + bytes(8 * 6) for _ in range(8)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("data", [saved(Image.new("I;16", (8, 8))), png_of_16_bits_a_sample()])
def test_more_than_8_bits_a_sample_are_refused(data: bytes) -> None:
    with pytest.raises(Refused) as caught:
        decoded(EncodedImage(), data)
    assert (caught.value.reason, caught.value.facts) == (Reason.IMAGE_TOO_DEEP, {"codec": "PNG"})


def test_grey_samples_need_the_operators_leave() -> None:
    assert refused(RawImage(PixelFormat.GRAY8, HEIGHT, WIDTH), GREY.tobytes(), contract()) is Reason.INPUT_NOT_ALLOWED


@pytest.mark.parametrize(
    ("pixel_format", "matrix", "span"),
    [
        (PixelFormat.NV12, None, None),
        (PixelFormat.I420, YuvMatrix.BT709, None),
        (PixelFormat.NV12, None, YuvRange.FULL),
        (PixelFormat.BGR8, YuvMatrix.BT709, YuvRange.FULL),
    ],
)
def test_yuv_states_its_matrix_and_range_and_nothing_else_does(
    pixel_format: PixelFormat, matrix: YuvMatrix | None, span: YuvRange | None
) -> None:
    data = bytes(48 * 48 * 3 if pixel_format is PixelFormat.BGR8 else 48 * 72)
    spec = RawImage(pixel_format, 48, 48, None, matrix, span)
    assert refused(spec, data) is Reason.YUV_UNDECLARED


def verdict(spec: ImageSpec, data: bytes) -> Reason | None:
    try:
        decoded(spec, data)
    except Refused as refusal:
        return refusal.reason
    return None


def tensor(values: NDArray[Any], value_range: ValueRange, layout: TensorLayout = TensorLayout.HWC) -> Reason | None:
    height, width = values.shape[:2] if values.shape[2] == 3 else values.shape[1:]
    spec = TensorImage(ChannelOrder.RGB, layout, value_range, height, width)
    return verdict(spec, np.ascontiguousarray(values, "<f4").tobytes())


def test_values_that_contradict_what_is_declared_are_refused() -> None:
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    to_255, to_1 = ValueRange.TO_255, ValueRange.TO_1
    assert tensor(RGB / 255, to_255) is Reason.VALUES_IN_UNIT_RANGE
    assert tensor(RGB - mean, to_255) is Reason.VALUES_NORMALISED
    assert tensor((RGB - mean) / std, to_255) is Reason.VALUES_NORMALISED
    assert tensor((RGB / 255 - mean / 255) / (std / 255), to_1) is Reason.VALUES_NORMALISED
    assert tensor(RGB.astype(float), to_1) is Reason.VALUES_OUT_OF_RANGE
    assert tensor(RGB * 2.0 + 200, to_255) is Reason.VALUES_OUT_OF_RANGE
    for poison in (np.nan, np.inf, -np.inf):
        values = RGB.astype(float)
        values[5, 5, 1] = poison
        assert tensor(values, to_255) is Reason.VALUES_NOT_FINITE


def test_a_layout_that_the_neighbours_contradict_is_refused() -> None:
    found = 0
    for seed in range(40):
        interleaved = scenes.draw(scenes.describe(seed)).pixels
        planar = interleaved.transpose(2, 0, 1)
        verdicts = [
            tensor(planar, ValueRange.TO_255, TensorLayout.HWC),
            tensor(interleaved, ValueRange.TO_255, TensorLayout.CHW),
            verdict(RawImage(PixelFormat.RGB8, *interleaved.shape[:2]), np.ascontiguousarray(planar).tobytes()),
        ]
        found += sum(reason is Reason.LAYOUT_CONTRADICTED for reason in verdicts)
    assert found >= 0.8 * 120, "noise hides it in some of these scenes"


@pytest.mark.parametrize("seed", range(60))
def test_no_honest_picture_is_taken_for_another_layout(seed: int) -> None:
    """Scenes in colour and in grey, noise, stripes, gradients, a flat colour, of several sizes."""
    rng = np.random.default_rng(seed)
    height, width = int(rng.integers(16, 300)), int(rng.integers(16, 300))
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    scene = scenes.draw(scenes.describe(seed)).pixels[:height, :width]
    height, width = scene.shape[:2]
    pictures = [
        scene,
        np.dstack([scene.mean(axis=2)] * 3),
        rng.integers(0, 256, scene.shape),
        np.dstack([rng.integers(0, 256, scene.shape[:2])] * 3),
        np.dstack([(x[:height, :width] // 3 % 2) * 200] * 3),
        np.dstack([(y[:height, :width] // 3 % 2) * 200] * 3),
        np.dstack([x[:height, :width] % 256, y[:height, :width] % 256, x[:height, :width] * 0 + 90]),
        np.full(scene.shape, seed),
    ]
    for picture in pictures:
        sent = np.ascontiguousarray(picture, np.uint8)
        wanted = RawImage(PixelFormat.BGR8, *sent.shape[:2])
        np.testing.assert_array_equal(decoded(wanted, sent.tobytes()), sent)


def test_a_bomb_costs_neither_memory_nor_time() -> None:
    """10 gigapixels in a file of 50 KB: refused by its header."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = (100_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    rows = zlib.compress(bytes(50_000_000), 9)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    assert len(bomb) < 60_000
    tracemalloc.start()
    assert refused(EncodedImage(), bomb) is Reason.IMAGE_TOO_LARGE
    _size, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000
