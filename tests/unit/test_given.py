"""Callers' images as the bytes that are sent: arrays, buffers and tensors of every make."""

import array
import ctypes
import dataclasses
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from vedette.v1 import detection_service_pb2 as pb
from vedette_client import File, LocalError, Raw, Tensor, arguments, limits, results
from vedette_client.images import Beside, message
from vedette_client.wire import Outgoing, serialize
from vedette_server.contract import convert
from vedette_server.contract.image import EncodedImage, Orientation, SentImage
from vedette_server.rpc import wire

HEIGHT, WIDTH = 6, 8
RGB = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
GREY = np.ascontiguousarray(RGB[:, :, 0])


class Interface:
    """An object that describes its content by NumPy's protocol."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self._values = values
        self.__array_interface__ = values.__array_interface__


class Exchanged:
    """An object that describes it by DLPack alone."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self._values = values

    def __dlpack__(self, **given: Any) -> Any:
        return self._values.__dlpack__(**given)

    def __dlpack_device__(self) -> Any:
        return self._values.__dlpack_device__()


class Subclass(np.ndarray):
    """As many libraries have one."""


def frozen(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    values = values.copy()
    values.flags.writeable = False
    return values


ARRAYS: dict[str, tuple[Any, str, np.ndarray[Any, Any]]] = {
    "plain": (RGB, "RGB8", RGB),
    "reversed channels": (RGB[:, :, ::-1], "BGR8", RGB[:, :, ::-1]),
    "upside down": (RGB[::-1], "RGB8", RGB[::-1]),
    "every other": (RGB[::2, 1::2], "RGB8", RGB[::2, 1::2]),
    "columns first": (np.asfortranarray(RGB), "RGB8", RGB),
    "transposed": (RGB.transpose(1, 0, 2), "RGB8", RGB.transpose(1, 0, 2)),
    "broadcast": (np.broadcast_to(RGB[:1], RGB.shape), "RGB8", np.repeat(RGB[:1], HEIGHT, axis=0)),
    "read-only": (frozen(RGB), "RGB8", RGB),
    "a subclass": (RGB.view(Subclass), "RGB8", RGB),
    "grey": (GREY, "GRAY8", GREY),
    "grey with an axis": (GREY[:, :, None], "GRAY8", GREY),
    "torch's": (torch.from_numpy(RGB), "RGB8", RGB),
    "torch's, transposed": (torch.from_numpy(RGB.transpose(2, 0, 1).copy()).permute(1, 2, 0), "RGB8", RGB),
    "by the interface": (Interface(RGB), "RGB8", RGB),
    "by DLPack": (Exchanged(RGB), "RGB8", RGB),
    "one pixel": (RGB[:1, :1], "RGB8", RGB[:1, :1]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_is_sent_row_by_row_whatever_it_is(name: str) -> None:
    given, pixel_format, wanted = ARRAYS[name]
    sent, data = message(given, Beside(pixel_format))
    assert (sent.raw.height, sent.raw.width) == wanted.shape[:2]
    assert bytes(data) == wanted.tobytes()


def test_alpha_is_sent_if_it_is_to_be_dropped() -> None:
    rgba = np.dstack([RGB, GREY])
    for pixel_format in ("RGBA8", "BGRA8"):
        sent, data = message(rgba, Beside(pixel_format, drop_alpha=True))
        assert (sent.raw.drop_alpha, bytes(data)) == (True, rgba.tobytes())
        with pytest.raises(LocalError, match="drop_alpha") as caught:
            message(rgba, Beside(pixel_format))
        assert caught.value.reason == "ALPHA_NOT_DROPPED"
    assert not message(RGB, Beside("RGB8", drop_alpha=True))[0].raw.drop_alpha


REFUSED: dict[str, tuple[Any, str, str]] = {
    "truth": (RGB > 9, "RGB8", r"dtype bool.*\* np.uint8\(255\)"),
    "floats": (RGB / 255, "RGB8", "float64.*Tensor"),
    "half floats": (RGB.astype(np.float16), "RGB8", "float16.*Tensor"),
    "64 bits": (RGB.astype(np.int64), "RGB8", "int64.*8 bits"),
    "16 bits": (RGB.astype(np.uint16), "RGB8", "uint16.*8 bits"),
    "16 bits, big-endian": (RGB.astype(">u2"), "RGB8", ">u2.*8 bits"),
    "signed": (RGB.astype(np.int8), "RGB8", "int8.*8 bits"),
    "objects": (RGB.astype(object), "RGB8", "dtype object"),
    "strings": (np.array([["a"]]), "GRAY8", "<U1"),
    "planes": (np.ascontiguousarray(RGB.transpose(2, 0, 1)), "RGB8", r"transpose\(1, 2, 0\)"),
    "a batch": (RGB[None], "RGB8", "one image at a time"),
    "grey as colour": (GREY, "RGB8", "'GRAY8'"),
    "colour as grey": (RGB, "GRAY8", r"of shape \(height, width\)"),
    "four channels": (np.dstack([RGB, GREY]), "RGB8", "'RGBA8', with drop_alpha"),
    "two channels": (RGB[:, :, :2], "RGB8", r"\(6, 8, 2\)"),
    "no pixels": (RGB[:0], "RGB8", "height is 0"),
    "no columns": (RGB[:, :0], "RGB8", "width is 0"),
    "no channels": (RGB[:, :, :0], "RGB8", r"\(6, 8, 0\)"),
    "a file's bytes": (np.frombuffer(b"abc", np.uint8), "RGB8", r"tobytes\(\)"),
    "no axes": (np.array(7, np.uint8), "GRAY8", r"shape \(\)"),
    "masked": (np.ma.masked_array(RGB), "RGB8", r"filled\(0\)"),
    "torch's planes": (torch.zeros(3, 6, 8, dtype=torch.uint8), "RGB8", r"transpose\(1, 2, 0\)"),
    "torch's floats": (torch.zeros(6, 8, 3), "RGB8", "float32.*Tensor"),
    "torch's with a gradient": (torch.zeros(6, 8, 3, requires_grad=True), "RGB8", r"detach\(\)"),
    "torch's half floats": (torch.zeros(6, 8, 3, dtype=torch.bfloat16), "RGB8", "NumPy cannot read"),
    "torch's elsewhere": (torch.zeros(6, 8, 3, device="meta"), "RGB8", "NumPy cannot read"),
    "no format": (RGB, "", "pixel_format=''"),
    "another format": (RGB, "bgr24", "did you mean 'BGR8'"),
    "planes of luma": (GREY, "NV12", "Raw"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_array_that_is_not_right_is_refused_with_what_it_may_be(name: str) -> None:
    given, pixel_format, said = REFUSED[name]
    with pytest.raises(LocalError, match=said):
        message(given, Beside(pixel_format))


def test_what_has_no_meaning_beside_an_image_is_refused() -> None:
    for given, beside, said in (
        (b"x", Beside("RGB8"), "pixel_format='RGB8' was given with a bytes"),
        (RGB, Beside("RGB8", orientation="APPLY"), "orientation='APPLY' was given with an array"),
        (File(b"x"), Beside(drop_alpha=True), "drop_alpha=True was given with a File"),
        (File(b"x"), Beside(orientation="IGNORE"), "orientation"),
        (Raw(RGB, pixel_format="RGB8", height=HEIGHT, width=WIDTH), Beside("RGB8"), "pixel_format"),
        (b"x", Beside(orientation="apply"), "did you mean 'APPLY'"),
        (b"x", Beside(drop_alpha=1), "drop_alpha is 1"),
    ):
        with pytest.raises(LocalError, match=said):
            message(given, beside)


BUFFERS: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "a view": memoryview,
    "a view of pairs": lambda data: memoryview(data).cast("H"),
    "a view with a shape": lambda data: memoryview(data).cast("B", (HEIGHT, WIDTH, 3)),
    "NumPy's own view": lambda data: np.frombuffer(data, np.uint8).reshape(HEIGHT, WIDTH, 3).data,
    "an array": lambda data: np.frombuffer(data, np.uint8).reshape(HEIGHT, WIDTH, 3),
    "an array of floats": lambda data: np.frombuffer(data, "<f4"),
    "an array of big-endian floats": lambda data: np.frombuffer(data, ">f4"),
    "an array of pixels": lambda data: np.frombuffer(data, [("r", "u1"), ("g", "u1"), ("b", "u1")]),
    "columns first": lambda data: np.asfortranarray(np.frombuffer(data, np.uint8).reshape(HEIGHT, WIDTH, 3)),
    "turned twice": lambda data: np.frombuffer(data, np.uint8)[::-1].copy()[::-1],
    "turned twice, as a view": lambda data: np.frombuffer(data, np.uint8)[::-1].copy()[::-1].data,
    "every other": lambda data: np.repeat(np.frombuffer(data, np.uint8), 2)[::2].data,
    "an array.array": lambda data: array.array("I", data),
    "of ctypes": lambda data: (ctypes.c_char * len(data)).from_buffer_copy(data),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_any_buffer_is_its_bytes_and_a_reader_reads_them(name: str) -> None:
    data = RGB.tobytes()
    sent, octets = message(Raw(BUFFERS[name](data), pixel_format="RGB8", height=HEIGHT, width=WIDTH), Beside())
    assert bytes(octets) == data
    for outgoing, kind in (
        (Outgoing(pb.DetectRequest(image=sent), octets), pb.DetectRequest),
        (Outgoing(pb.StreamDetectRequest(frame=pb.Frame(image=sent)), octets), pb.StreamDetectRequest),
    ):
        read = kind.FromString(serialize(outgoing))
        assert (read.image if isinstance(read, pb.DetectRequest) else read.frame.image).raw.data == data


def test_an_mmap_is_its_bytes_and_can_be_closed_after(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(RGB.tobytes())
    with (tmp_path / "raw").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        given: Any = mapped
        assert bytes(message(Raw(given, pixel_format="RGB8", height=HEIGHT, width=WIDTH), Beside())[1]) == RGB.tobytes()
    with pytest.raises(LocalError, match="data"):
        message(Raw(given, pixel_format="RGB8", height=HEIGHT, width=WIDTH), Beside())


def test_a_view_of_many_items_is_as_long_as_its_bytes_in_a_message() -> None:
    """The message counts bytes, whatever a view counts: another's reader would else read what follows as fields."""
    large = np.zeros((300, 400, 3), np.uint8)
    declared, _ = message(large, Beside("RGB8"))
    sent = serialize(Outgoing(pb.DetectRequest(image=declared), large.data))
    received = wire.detect_request(sent)
    assert received.data is not None
    assert len(received.data) == large.nbytes


RAW: dict[str, tuple[Raw, str, str]] = {
    "one byte less": (
        Raw(RGB.tobytes()[:-1], pixel_format="RGB8", height=HEIGHT, width=WIDTH),
        "RAW_LENGTH_MISMATCH",
        "143 bytes.*need 144",
    ),
    "another format": (
        Raw(RGB, pixel_format="RGBA8", height=HEIGHT, width=WIDTH, drop_alpha=True),
        "RAW_LENGTH_MISMATCH",
        "192",
    ),
    "64 bits": (
        Raw(RGB.astype(np.int64), pixel_format="RGB8", height=HEIGHT, width=WIDTH),
        "RAW_LENGTH_MISMATCH",
        "8-bit",
    ),
    "nothing": (Raw(b"", pixel_format="RGB8", height=HEIGHT, width=WIDTH), "RAW_LENGTH_MISMATCH", "0 bytes"),
    "no rows": (Raw(b"", pixel_format="RGB8", height=0, width=WIDTH), "SIZE_INVALID", "height is 0"),
    "less than no columns": (
        Raw(b"", pixel_format="RGB8", height=HEIGHT, width=-1),
        "SIZE_INVALID",
        "width is -1",
    ),
    "rows too near": (
        Raw(RGB, pixel_format="RGB8", height=HEIGHT, width=WIDTH, row_stride=23),
        "ROW_STRIDE_INVALID",
        "at least 24",
    ),
    "alpha": (
        Raw(bytes(192), pixel_format="BGRA8", height=HEIGHT, width=WIDTH),
        "ALPHA_NOT_DROPPED",
        "drop_alpha",
    ),
    "no matrix": (
        Raw(bytes(72), pixel_format="NV12", height=HEIGHT, width=WIDTH, yuv_range="FULL"),
        "YUV_UNDECLARED",
        "yuv_matrix",
    ),
    "no range": (
        Raw(bytes(72), pixel_format="I420", height=HEIGHT, width=WIDTH, yuv_matrix="BT601"),
        "YUV_UNDECLARED",
        "yuv_range",
    ),
    "a matrix too many": (
        Raw(RGB, pixel_format="RGB8", height=HEIGHT, width=WIDTH, yuv_matrix="BT601"),
        "YUV_UNDECLARED",
        "only NV12 and I420",
    ),
    "a range too many": (
        Raw(RGB, pixel_format="RGB8", height=HEIGHT, width=WIDTH, yuv_range="FULL"),
        "YUV_UNDECLARED",
        "only NV12 and I420",
    ),
    "objects": (Raw(np.array([None] * 18), pixel_format="RGB8", height=HEIGHT, width=WIDTH), "", "not of objects"),
    "dates": (Raw(np.zeros(18, "M8[s]"), pixel_format="RGB8", height=HEIGHT, width=WIDTH), "", "data is"),
    "torch's": (Raw(torch.from_numpy(RGB), pixel_format="RGB8", height=HEIGHT, width=WIDTH), "", r"numpy\(\)"),  # type: ignore[arg-type]
    "text": (Raw("x" * 144, pixel_format="RGB8", height=HEIGHT, width=WIDTH), "", "data is"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", RAW)
def test_raw_samples_that_contradict_their_declaration_are_refused(name: str) -> None:
    given, reason, said = RAW[name]
    with pytest.raises(LocalError, match=said) as caught:
        message(given, Beside())
    assert caught.value.reason == reason


@pytest.mark.parametrize(("pixel_format", "length"), [("NV12", 5 * 7 + 3 * 8), ("I420", 5 * 7 + 2 * 3 * 4)])
def test_odd_sizes_of_video_are_counted_as_the_server_counts_them(pixel_format: Any, length: int) -> None:
    given = Raw(bytes(length), pixel_format=pixel_format, height=5, width=7, yuv_matrix="BT709", yuv_range="LIMITED")
    assert len(message(given, Beside())[1]) == length


def test_the_padding_after_the_last_row_may_be_left_out() -> None:
    for length in (30 * HEIGHT, 30 * HEIGHT - 6):
        assert (
            len(
                message(Raw(bytes(length), pixel_format="RGB8", height=HEIGHT, width=WIDTH, row_stride=30), Beside())[1]
            )
            == length
        )


LEVELS = RGB.astype(np.float32)
TENSORS: dict[str, Tensor] = {
    "32 bits": Tensor(LEVELS, "RGB", "HWC", "0-255"),
    "64 bits": Tensor(LEVELS.astype(np.float64), "RGB", "HWC", "0-255"),
    "16 bits": Tensor(LEVELS.astype(np.float16), "RGB", "HWC", "0-255"),
    "big-endian": Tensor(LEVELS.astype(">f8"), "RGB", "HWC", "0-255"),
    "columns first": Tensor(np.asfortranarray(LEVELS), "RGB", "HWC", "0-255"),
    "whole numbers": Tensor(RGB.astype(np.int64), "RGB", "HWC", "0-255"),
    "8 bits": Tensor(RGB, "RGB", "HWC", "0-255"),
    "a list": Tensor(RGB.tolist(), "RGB", "HWC", "0-255"),
    "a list of floats": Tensor(LEVELS.tolist(), "RGB", "HWC", "0-255"),
    "torch's": Tensor(torch.from_numpy(LEVELS), "RGB", "HWC", "0-255"),
    "a subclass": Tensor(LEVELS.view(Subclass), "RGB", "HWC", "0-255"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_is_sent_with_32_bits(name: str) -> None:
    sent, data = message(TENSORS[name], Beside())
    assert (sent.tensor.height, sent.tensor.width) == (HEIGHT, WIDTH)
    assert bytes(data) == LEVELS.astype("<f4").tobytes()


def test_a_tensor_beyond_32_bits_is_sent_as_infinite_and_not_warned_of() -> None:
    sent = message(Tensor(np.full((2, 2, 3), 1e300), "RGB", "HWC", "0-255"), Beside())[1]
    assert np.isinf(np.frombuffer(sent, "<f4")).all()


NO_TENSORS: dict[str, tuple[Any, str, str]] = {
    "whole numbers as fractions": (RGB, "0-1", "'0-255'"),
    "truth": (RGB > 9, "0-255", "dtype bool"),
    "complex numbers": (LEVELS * 1j, "0-255", "complex64"),
    "objects": (LEVELS.astype(object), "0-255", "dtype object"),
    "a ragged list": ([[[0.0]], [[0.0, 1.0]]], "0-255", "values is a list that NumPy cannot read"),
    "a batch": (LEVELS[None], "0-255", "one image at a time"),
    "two axes": (LEVELS[0], "0-255", r"shape \(8, 3\)"),
    "planes": (LEVELS.transpose(2, 0, 1), "0-255", "given as RGB HWC"),
    "no rows": (LEVELS[:0], "0-255", "height is 0"),
    "masked": (np.ma.masked_array(LEVELS), "0-255", r"filled\(0\)"),
    "a number": (1.5, "0-255", "values is 1.5"),
    "bytes": (b"x", "0-255", "values is"),
    "torch's with a gradient": (torch.zeros(6, 8, 3, requires_grad=True), "0-255", r"detach\(\)"),
    "torch's half floats": (torch.zeros(6, 8, 3, dtype=torch.bfloat16), "0-255", "NumPy cannot read"),
}


@pytest.mark.parametrize("name", NO_TENSORS)
def test_what_is_no_tensor_is_refused(name: str) -> None:
    values, value_range, said = NO_TENSORS[name]
    with pytest.raises(LocalError, match=said):
        message(Tensor(values, "RGB", "HWC", value_range), Beside())  # type: ignore[arg-type]


class Named:
    """A path of another library's."""

    def __init__(self, path: str | bytes) -> None:
        self._path = path

    def __fspath__(self) -> str | bytes:
        return self._path


def test_a_file_is_read_whatever_says_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "ü\udcff").write_bytes(b"x")
    path = str(tmp_path / "ü\udcff")
    for given in (path, Path(path), Named(path), Named(path.encode(errors="surrogateescape"))):
        assert message(given, Beside())[1] == b"x"
    for octets in (b"x", bytearray(b"x"), memoryview(b"x"), memoryview(b"xyz")[::3]):
        assert bytes(message(File(octets), Beside())[1]) == b"x"
    wrong: tuple[tuple[Any, str], ...] = (
        (tmp_path, "Is a directory"),
        (f"{path}\udcfe", "No such file"),
        ("a\0b", "null"),
        ("", "a non-empty path"),
        (RGB.data, "use Raw for pixels"),
    )
    for given, said in wrong:
        with pytest.raises(LocalError, match=said) as caught:
            message(given, Beside())
        str(caught.value).encode()


def contract(**changed: Any) -> results.Contract:
    terms: dict[str, Any] = dict.fromkeys((one.name for one in dataclasses.fields(results.Contract)), ())
    return results.Contract(
        **{**terms, "inputs": ("encoded",), "max_bytes": 2**21, "max_pixels": 10**7, "max_edge": 8000, **changed}
    )


def test_limits_are_asked_for_once_a_minute_and_about_what_is_large_alone() -> None:
    asked: list[str] = []

    def fetch() -> results.Contract:
        asked.append("")
        return contract()

    now = 1000.0
    remembered = limits.Remembered(lambda: now)
    for size, expected in ((900, 0), (1200, 1), (1200, 1)):
        message(np.zeros((size, 300, 3), np.uint8), Beside("RGB8"), lambda: remembered.get({}, fetch))
        assert len(asked) == expected
    message(np.zeros((1200, 300, 3), np.uint8), Beside("RGB8"), lambda: remembered.get({"model": "x"}, fetch))
    assert len(asked) == 2
    now += 61
    remembered.get({}, fetch)
    assert len(asked) == 3


RNG = np.random.default_rng(1)
SMOOTH = np.repeat(np.repeat(RNG.integers(0, 256, (12, 16, 4), np.uint8), 90, axis=0), 90, axis=1)  # 1080 x 1440
NOISE = RNG.integers(0, 256, (1080, 1440, 3), np.uint8)
STRIDED = np.zeros((1080, 1440 * 3 + 7), np.uint8)
STRIDED[:, : 1440 * 3] = SMOOTH[:, :, :3].reshape(1080, -1)
COLOURS = SMOOTH[:, :, :3]

LARGE: dict[str, tuple[Any, Beside, np.ndarray[Any, Any]]] = {
    "RGB8": (np.ascontiguousarray(COLOURS), Beside("RGB8"), COLOURS),
    "BGR8": (np.ascontiguousarray(COLOURS), Beside("BGR8"), COLOURS[:, :, ::-1]),
    "GRAY8": (COLOURS[:, :, 0], Beside("GRAY8"), np.repeat(COLOURS[:, :, :1], 3, axis=2)),
    "RGBA8": (SMOOTH, Beside("RGBA8", drop_alpha=True), COLOURS),
    "BGRA8": (SMOOTH, Beside("BGRA8", drop_alpha=True), COLOURS[:, :, ::-1]),
    "a PIL image": (Image.fromarray(np.ascontiguousarray(COLOURS)), Beside(), COLOURS),
    "rows with padding": (
        Raw(STRIDED, pixel_format="RGB8", height=1080, width=1440, row_stride=1440 * 3 + 7),
        Beside(),
        COLOURS,
    ),
    "rows with padding but the last": (
        Raw(STRIDED.tobytes()[:-7], pixel_format="BGR8", height=1080, width=1440, row_stride=1440 * 3 + 7),
        Beside(),
        COLOURS[:, :, ::-1],
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_pixels_beyond_the_limit_are_sent_as_a_file_of_the_same(name: str) -> None:
    given, beside, wanted = LARGE[name]
    sent, data = message(given, beside, lambda: contract(max_bytes=2**20))
    assert sent.WhichOneof("content") == "encoded"
    decoded = convert.decode(SentImage(EncodedImage(Orientation.IGNORE), data))
    assert np.array_equal(decoded[:, :, ::-1], wanted)
    sent, data = message(given, beside, lambda: contract(max_bytes=2**24))
    assert sent.WhichOneof("content") == "raw"


BEYOND: dict[str, tuple[Any, Beside, dict[str, Any], str, str]] = {
    "noise": (
        NOISE,
        Beside("BGR8"),
        {},
        "IMAGE_TOO_MANY_BYTES",
        f"{NOISE.size} bytes, and .* as a PNG; the limit is 2097152",
    ),
    "a file": (NOISE.tobytes(), Beside(), {}, "IMAGE_TOO_MANY_BYTES", f"{NOISE.size} bytes; the limit is 2097152"),
    "video": (
        Raw(
            bytes(1080 * 1440 * 3 // 2),
            pixel_format="NV12",
            height=1080,
            width=1440,
            yuv_matrix="BT709",
            yuv_range="FULL",
        ),
        Beside(),
        {},
        "IMAGE_TOO_MANY_BYTES",
        "2332800 bytes; the limit is 2097152",
    ),
    "floats": (Tensor(COLOURS / 255, "RGB", "HWC", "0-1"), Beside(), {}, "IMAGE_TOO_MANY_BYTES", "18662400 bytes"),
    "no files": (COLOURS, Beside("RGB8"), {"inputs": ("RGB8",)}, "IMAGE_TOO_MANY_BYTES", "4665600 bytes; the limit"),
    "too many pixels": (COLOURS, Beside("RGB8"), {"max_pixels": 10**6}, "IMAGE_TOO_LARGE", "1440 x 1080.*1000000 in"),
    "too long an edge": (COLOURS, Beside("RGB8"), {"max_edge": 1400}, "IMAGE_TOO_LARGE", "1400 per edge"),
    "too many pixels of Pillow's": (Image.new("1", (9000, 4000)), Beside(), {}, "IMAGE_TOO_LARGE", "9000 x 4000"),
    "too many that are one": (
        np.broadcast_to(RGB[:1, :1], (9**6, 9**6, 3)),
        Beside("RGB8"),
        {},
        "IMAGE_TOO_LARGE",
        "x",
    ),
}


@pytest.mark.parametrize("name", BEYOND)
def test_what_does_not_fit_is_refused_with_the_limit(name: str) -> None:
    given, beside, terms, reason, said = BEYOND[name]
    with pytest.raises(LocalError, match=said) as caught:
        message(given, beside, lambda: contract(**terms))
    assert caught.value.reason == reason


def test_limits_that_cannot_be_had_keep_nothing_from_being_sent() -> None:
    assert len(message(NOISE, Beside("BGR8"), limits.none)[1]) == NOISE.size


def test_numbers_are_numbers() -> None:
    given: Any
    for given in (1, np.int8(1), np.uint64(1)):
        assert type(arguments.whole(given, "x")) is int
    for given in (1.0, np.float32(1), True, np.True_, "1", None, np.array(1), np.timedelta64(1), 1j):
        with pytest.raises(LocalError, match=r"^x is"):
            arguments.whole(given, "x")
    for given in (1, 0.5, np.float16(0.5), np.int8(1)):
        assert type(arguments.number(given, "x", 0, 1)) is float
    for given in (float("nan"), float("inf"), -1, 2, 10**400, "1", None, True, np.True_, np.timedelta64(1), 1j):
        with pytest.raises(LocalError, match=r"^x is"):
            arguments.number(given, "x", 0, 1)
