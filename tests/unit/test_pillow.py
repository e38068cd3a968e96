"""A Pillow image is worth what its file is: the same pixels, or the same reason, for every mode and kind of file."""

import io
import itertools
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from vedette.v1 import image_pb2
from vedette_client import LocalError
from vedette_client.images import Beside, message
from vedette_server.contract import convert
from vedette_server.contract.contract import ImageLimits, Input, ResizeRule
from vedette_server.contract.image import EncodedImage, Orientation, PixelFormat, RawImage, SentImage
from vedette_server.contract.refusal import Refused

HEIGHT, WIDTH = 24, 40
TAKEN = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")  # by the server
EXIF_ORIENTATION = 0x0112
DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
ORIENTATIONS: tuple[str | None, ...] = (None, "APPLY", "REFUSE", "IGNORE")

Seen = tuple[str, tuple[int, ...], bytes] | str


class Contract:
    """As much of a contract as `convert.check` asks for."""

    inputs = tuple(Input)
    limits = ImageLimits()
    resize = ResizeRule(0, 0)


def picture(seed: int = 0) -> Image.Image:
    """Smooth colours, each pixel with one of its own."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    planes = [rows * 10 + seed, columns * 6, 255 - rows * 5 - columns * 3]
    return Image.fromarray(np.clip(np.dstack(planes), 0, 255).astype(np.uint8))


def of_mode(mode: str, alpha: int = 255) -> Image.Image:
    """The picture in any mode; `alpha` is that of its upper half, where there is one."""
    base = picture()
    if mode in WITH_ALPHA:
        levels = np.full((HEIGHT, WIDTH), 255, np.uint8)
        levels[: HEIGHT // 2] = alpha
        colours = base.convert("P") if mode == "PA" else base.convert("L" if mode in ("LA", "La") else "RGB")
        if mode == "PA":
            made = colours.convert("PA")
            made.putalpha(Image.fromarray(levels))
            return made
        straight = Image.merge({"L": "LA", "RGB": "RGBA"}[colours.mode], (*colours.split(), Image.fromarray(levels)))
        return straight.convert(mode)
    if mode in DEEP:
        values = np.asarray(base.convert("L"))
        kind = {"I": "<i4", "F": "<f4", "I;16B": ">u2"}.get(mode, "<u2")
        return Image.frombytes(mode, (WIDTH, HEIGHT), values.astype(kind).tobytes())
    return base.convert(mode)


def as_file(image: Image.Image, kind: str, **options: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def oriented(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = value
    return exif


def as_bytes(data: bytes, orientation: str | None, *, drop_alpha: bool) -> Seen:
    """The server's reading of a file."""
    image = SentImage(EncodedImage(Orientation(orientation or "APPLY"), drop_alpha), data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about palettes with transparency
            convert.check(image, Contract())  # type: ignore[arg-type]
            pixels = convert.decode(image)
    except Refused as refusal:
        return str(refusal.reason)
    return "pixels", pixels.shape, pixels[:, :, ::-1].tobytes()


def as_image(image: Image.Image, orientation: str | None, *, drop_alpha: bool) -> Seen:
    """The client's message for an image; every warning is an error here."""
    try:
        sent, data = message(image, Beside(orientation=orientation, drop_alpha=drop_alpha))
    except LocalError as error:
        return error.reason or f"no reason: {error}"
    if sent.WhichOneof("content") == "encoded":
        turned = image_pb2.Orientation.Name(sent.encoded.orientation).removeprefix("ORIENTATION_")
        return as_bytes(bytes(data), turned, drop_alpha=sent.encoded.drop_alpha)
    return "pixels", (sent.raw.height, sent.raw.width, 3), bytes(data)


def deep_png(channels: int) -> bytes:
    """A PNG of 16 bits a sample, which Pillow cannot write."""
    levels = np.arange(HEIGHT * WIDTH * channels, dtype=">u2").reshape(HEIGHT, WIDTH * channels) * 17
    rows = b"".join(b"\0" + row.tobytes() for row in levels)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def files() -> Iterator[tuple[str, bytes]]:
    """Every mode that a kind of file holds, and what else files can be."""
    for mode, kind, alpha in itertools.product(Image.MODES, TAKEN, (255, 100)):
        if alpha == 255 or mode in WITH_ALPHA:
            try:
                yield f"{mode} {kind} alpha {alpha}", as_file(of_mode(mode, alpha), kind)
            except (OSError, KeyError, ValueError):  # a kind that holds no such mode
                continue
    for value, kind in itertools.product(range(10), ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")):
        yield f"orientation {value} {kind}", as_file(picture(), kind, exif=oriented(value))
    yield "orientation 6 RGBA", as_file(of_mode("RGBA", 9), "PNG", exif=oriented(6))
    yield "orientation 6 P", as_file(of_mode("P"), "PNG", exif=oriented(6))
    yield "EXIF that is none", as_file(picture(), "JPEG", exif=b"Exif\0\0nonsense")
    yield "EXIF that ends at once", as_file(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\0\0\0")
    for channels in (1, 2, 3, 4):
        yield f"16 bits, {channels} channels", deep_png(channels)
    yield "transparent colour", as_file(picture(), "PNG", transparency=picture().getpixel((3, 3)))
    yield "transparent colour that is nowhere", as_file(picture(), "PNG", transparency=(1, 2, 3))
    yield (
        "transparent grey",
        as_file(picture().convert("L"), "PNG", transparency=picture().convert("L").getpixel((3, 3))),
    )
    yield "transparent entry", as_file(of_mode("P"), "PNG", transparency=of_mode("P").getpixel((3, 3)))
    yield "transparent entries", as_file(of_mode("P"), "PNG", transparency=bytes(range(100, 256)) + bytes(100))
    yield "opaque entries", as_file(of_mode("P"), "PNG", transparency=bytes([255] * 256))
    yield "transparent bit", as_file(of_mode("1"), "PNG", transparency=0)
    yield "progressive", as_file(picture(), "JPEG", progressive=True)
    yield "two pictures", as_file(picture(), "MPO", save_all=True, append_images=[picture(9)])
    for kind in ("PNG", "WEBP", "TIFF", "GIF", "AVIF"):
        yield f"animated {kind}", as_file(picture(), kind, save_all=True, append_images=[picture(90)])
        yield f"one frame {kind}", as_file(picture(), kind, save_all=True)
    yield "bilevel BMP", as_file(of_mode("1"), "BMP")
    for kind in TAKEN:
        whole = as_file(picture(), kind)
        yield f"{kind} cut short", whole[: len(whole) * 3 // 4]
        yield f"{kind} damaged", whole[: len(whole) // 2] + bytes(40) + whole[len(whole) // 2 + 40 :]


FILES = dict(files())


# What nobody can tell of an image that Pillow has loaded: that its colours had 16 bits, that a TIFF was turned, or that
# it was stored in a way that the server does not read, and Pillow does.
LOST = re.compile(r"16 bits, [234] channels|orientation [2-8] TIFF|YCbCr TIFF|.*AVIF damaged")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("loaded", [False, True], ids=["opened", "loaded"])
@pytest.mark.parametrize("name", FILES)
def test_an_image_is_worth_what_its_file_is(name: str, *, loaded: bool) -> None:
    if loaded and LOST.match(name):
        return
    for orientation, drop_alpha in itertools.product(ORIENTATIONS, (False, True)):
        wanted = as_bytes(FILES[name], orientation, drop_alpha=drop_alpha)
        try:
            opened = Image.open(io.BytesIO(FILES[name]))
            if loaded:
                opened.load()
        except (OSError, SyntaxError):
            assert wanted in ("IMAGE_UNREADABLE", "IMAGE_TRUNCATED")
            continue
        assert as_image(opened, orientation, drop_alpha=drop_alpha) == wanted


def test_an_image_that_still_is_its_file_is_sent_as_that() -> None:
    for kind in TAKEN:
        data = as_file(picture(), kind)
        opened = Image.open(io.BytesIO(data))
        opened.getexif() if kind != "PNG" else None  # which loads a PNG
        sent, octets = message(opened, Beside(drop_alpha=True))
        assert (sent.WhichOneof("content"), bytes(octets), sent.encoded.drop_alpha) == ("encoded", data, True)
        assert message(opened, Beside())[0].WhichOneof("content") == "raw", "it is loaded now"


CHANGES: dict[str, Callable[[Image.Image], object]] = {
    "a pixel": lambda image: image.putpixel((0, 0), (9, 9, 9)),
    "its size": lambda image: image.thumbnail((20, 20)),
    "its draft": lambda image: image.draft("L", (WIDTH, HEIGHT)),
    "its orientation": lambda image: image.getexif().__setitem__(EXIF_ORIENTATION, 3),
    "its palette": lambda image: image.info.update(transparency=(1, 2, 3)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_image_that_was_changed_is_sent_as_it_is_now(change: str) -> None:
    opened = Image.open(io.BytesIO(as_file(picture(), "JPEG")))
    CHANGES[change](opened)
    sent, data = message(opened, Beside())
    assert sent.WhichOneof("content") == "raw"
    wanted = ImageOps.exif_transpose(opened).convert("RGB")
    assert ((sent.raw.width, sent.raw.height), bytes(data)) == (wanted.size, np.asarray(wanted).tobytes())


@pytest.mark.filterwarnings("ignore:(Corrupt EXIF data|Palette images)")
@pytest.mark.parametrize("name", FILES)
def test_a_model_of_one_channel_sees_the_same_grey(name: str) -> None:
    try:
        opened = Image.open(io.BytesIO(FILES[name]))
        opened.load()
        seen = as_image(opened, None, drop_alpha=True)
        file = convert.decode(SentImage(EncodedImage(Orientation.APPLY, drop_alpha=True), FILES[name]), 1)
    except (OSError, SyntaxError, Refused):
        return  # as the test above has it
    if isinstance(seen, tuple) and not LOST.match(name):
        spec = RawImage(PixelFormat.RGB8, seen[1][0], seen[1][1])
        assert np.array_equal(convert.decode(SentImage(spec, seen[2]), 1), file)


def test_what_there_is_to_refuse_is_refused() -> None:
    seen = {as_bytes(data, "REFUSE", drop_alpha=False) for data in FILES.values()}
    reasons = {one for one in seen if isinstance(one, str)}
    assert {"IMAGE_NOT_UPRIGHT", "ALPHA_NOT_DROPPED", "IMAGE_TOO_DEEP", "IMAGE_ANIMATED", "IMAGE_TRUNCATED"} <= reasons


@pytest.mark.parametrize("mode", Image.MODES)
def test_every_mode_is_right_or_refused(mode: str) -> None:
    made = of_mode(mode)
    assert made.mode == mode
    seen = as_image(made, None, drop_alpha=False)
    if mode in (*DEEP, "LAB"):
        assert seen == ("IMAGE_UNREADABLE" if mode == "LAB" else "IMAGE_TOO_DEEP")
        return
    assert seen[:2] == ("pixels", (HEIGHT, WIDTH, 3))
    pixels = np.frombuffer(seen[2], np.uint8).reshape(HEIGHT, WIDTH, 3).astype(int)  # type: ignore[arg-type]
    wanted = np.asarray(picture().convert("L").convert("RGB") if mode in ("1", "L", "LA", "La") else picture())
    error = np.abs(pixels - wanted)
    worst = {"1": 255, "P": 60, "PA": 60, "HSV": 8, "YCbCr": 4}.get(mode, 0)  # what the mode itself loses
    assert error.max() <= worst
    if mode == "1":
        assert set(np.unique(pixels)) == {0, 255}
    else:
        assert error.mean() <= worst / 3
    if mode in WITH_ALPHA:
        assert as_image(of_mode(mode, 128), None, drop_alpha=False) == "ALPHA_NOT_DROPPED"
        dropped = as_image(of_mode(mode, 128), None, drop_alpha=True)
        colours = np.frombuffer(dropped[2], np.uint8).reshape(HEIGHT, WIDTH, 3).astype(int)  # type: ignore[arg-type]
        assert np.abs(colours - wanted).max() <= worst + (2 if mode in ("La", "RGBa") else 0)


UNREADABLE = ("BUFR", "EPS", "GRIB", "HDF5", "PALM", "WMF")  # by Pillow alone, or at all
OTHERS = sorted(set(Image.registered_extensions().values()) & set(Image.SAVE) - {*TAKEN, "PDF", "MPO"})


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
@pytest.mark.parametrize("kind", OTHERS)
def test_a_kind_of_file_that_the_server_does_not_take_is_sent_as_what_pillow_reads(kind: str) -> None:
    sent = 0
    for mode in Image.MODES:
        try:
            data = as_file(of_mode(mode, 100), kind)
            plain = Image.open(io.BytesIO(data))
            plain.load()
            whole = plain.convert("RGBA" if plain.has_transparency_data else "RGB")
        except (OSError, KeyError, ValueError, SystemError, NotImplementedError, AssertionError):
            continue
        seen = as_image(Image.open(io.BytesIO(data)), None, drop_alpha=False)
        if plain.mode in DEEP or plain.mode.startswith("I"):
            assert seen == "IMAGE_TOO_DEEP"
        else:
            assert seen == as_bytes(as_file(whole, "PNG"), None, drop_alpha=False)
            sent += isinstance(seen, tuple)
    assert sent or kind in UNREADABLE


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_an_animation_is_refused_and_each_of_its_frames_is_taken(kind: str) -> None:
    data = as_file(picture(), kind, save_all=True, append_images=[picture(90), picture(120)])
    with Image.open(io.BytesIO(data)) as opened:
        assert as_image(opened, None, drop_alpha=False) == "IMAGE_ANIMATED"
        opened.seek(1)
        frame = opened.copy()
        wanted = np.asarray(opened.convert("RGB")).tobytes()
    assert as_image(frame, None, drop_alpha=False) == ("pixels", (HEIGHT, WIDTH, 3), wanted)


def test_a_tiff_is_turned_once() -> None:
    data = as_file(picture(), "TIFF", exif=oriented(6))
    seen = as_image(Image.open(io.BytesIO(data)), None, drop_alpha=False)
    assert seen == ("pixels", (WIDTH, HEIGHT, 3), np.asarray(picture().transpose(Image.Transpose.ROTATE_270)).tobytes())


DEEP_FILES = {
    "PPM": b"P6 4 3 1023\n" + bytes(72),
    "plain PPM": b"P3 1 1 65535\n9 9 9\n",
    "SGI": as_file(picture(), "SGI", bpc=2),
    "TIFF": cv2.imencode(".tiff", np.full((4, 3, 3), 9000, np.uint16))[1].tobytes(),
    "PNG": cv2.imencode(".png", np.full((4, 3, 3), 9000, np.uint16))[1].tobytes(),
}


@pytest.mark.parametrize("kind", DEEP_FILES)
def test_deep_colours_are_refused_though_pillow_reduces_them(kind: str) -> None:
    opened = Image.open(io.BytesIO(DEEP_FILES[kind]))
    assert opened.mode == "RGB"
    assert as_image(opened, None, drop_alpha=False) == "IMAGE_TOO_DEEP"


def test_a_file_of_few_colours_is_not_deep() -> None:
    for data in (b"P6 4 3 255\n" + bytes(36), cv2.imencode(".bmp", np.zeros((4, 3, 3), np.uint8))[1].tobytes()):
        assert as_image(Image.open(io.BytesIO(data)), None, drop_alpha=False)[0] == "pixels"


def test_an_image_that_is_turned_by_hand_says_so() -> None:
    opened = Image.open(io.BytesIO(as_file(picture(), "JPEG", exif=oriented(6), quality=95)))
    by_hand = opened.transpose(Image.Transpose.ROTATE_270)  # which leaves the EXIF data as they are
    upright = ImageOps.exif_transpose(opened)
    wanted = as_image(upright, None, drop_alpha=False)
    assert as_image(by_hand, "IGNORE", drop_alpha=False) == wanted
    assert as_image(opened, None, drop_alpha=False) == wanted


def test_the_caller_s_image_is_left_as_it_is() -> None:
    opened = Image.open(io.BytesIO(as_file(picture(), "JPEG", exif=oriented(6))))
    as_image(opened, None, drop_alpha=False)
    assert opened.size == (WIDTH, HEIGHT)
    assert opened.getexif()[EXIF_ORIENTATION] == 6


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_an_image_without_pixels_is_refused(size: tuple[int, int]) -> None:
    assert as_image(Image.new("RGB", size), None, drop_alpha=False) == "SIZE_INVALID"


def test_a_file_that_is_gone_is_told() -> None:
    source = io.BytesIO(as_file(picture(), "PNG"))
    opened = Image.open(source)
    source.close()
    with pytest.raises(LocalError, match="closed file") as caught:
        message(opened, Beside())
    assert caught.value.reason == "IMAGE_TRUNCATED"
    shut = picture()
    shut.close()
    with pytest.raises(LocalError, match="closed image"):
        message(shut, Beside())
