"""Still pictures of every codec: right to the last bit by another reader, or refused by name; broken ones as broken."""

import contextlib
import io
import itertools
import struct
import subprocess
import tracemalloc
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import tifffile
from detectron2.data.detection_utils import read_image
from numpy.typing import NDArray
from PIL import Image, ImageCms
from vedette_server.contract import avif, convert, encoded
from vedette_server.contract.contract import ImageLimits, possible
from vedette_server.contract.image import ChannelOrder, EncodedImage, Orientation, SentImage
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.contract.types import UInt8Array
from vedette_server.demo import scenes

from tests.support.contracts import contract

LIMITS = ImageLimits(max_pixels=1_000_000)
TERMS = contract(inputs=possible(ChannelOrder.BGR), limits=LIMITS)
RGB = scenes.draw(scenes.describe(3_000_001)).pixels[240:301, 120:203].copy()  # where there is something to see
HEIGHT, WIDTH = RGB.shape[:2]
GREY = RGB[:, :, 1].copy()
EXIF_ORIENTATION = 0x0112


def saved(codec: str, image: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image or Image.fromarray(RGB)).save(buffer, codec, **options)
    return buffer.getvalue()


def written(values: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, metadata=None, **options)
    return buffer.getvalue()


def read(data: bytes, orientation: Orientation = Orientation.APPLY, *, drop_alpha: bool = False) -> UInt8Array:
    """As red, green, blue."""
    spec = EncodedImage(orientation, drop_alpha)
    convert.check(SentImage(spec, data), TERMS)
    return convert.decode(SentImage(spec, data))[:, :, ::-1]


def refused(data: bytes, orientation: Orientation = Orientation.APPLY) -> Refused:
    with pytest.raises(Refused) as caught:
        read(data, orientation)
    return caught.value


def by_detectron2(data: bytes, tmp_path: Path) -> NDArray[Any]:
    (tmp_path / "picture").write_bytes(data)
    pixels: NDArray[Any] = read_image(str(tmp_path / "picture"), "RGB")
    return pixels


def by_ffmpeg(data: bytes, tmp_path: Path, suffix: str) -> UInt8Array:
    (tmp_path / f"picture.{suffix}").write_bytes(data)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(tmp_path / f"picture.{suffix}")]
    out = subprocess.run(
        [*command, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], check=True, capture_output=True
    )
    return np.frombuffer(out.stdout, np.uint8).reshape(HEIGHT, WIDTH, 3)


# --- TIFF

KINDS: dict[str, tuple[bytes, NDArray[Any]]] = {
    "little endian": (written(RGB, photometric="rgb"), RGB),
    "big endian": (written(RGB, photometric="rgb", byteorder=">"), RGB),
    "BigTIFF": (written(RGB, photometric="rgb", bigtiff=True), RGB),
    "planes": (written(RGB.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate"), RGB),
    "strips": (written(RGB, photometric="rgb", rowsperstrip=7), RGB),
    "tiles": (written(RGB, photometric="rgb", tile=(16, 32)), RGB),
    "tiles in planes": (
        written(RGB.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate", tile=(16, 32)),
        RGB,
    ),
    "Deflate": (written(RGB, photometric="rgb", compression="zlib"), RGB),
    "Deflate with a predictor": (written(RGB, photometric="rgb", compression="zlib", predictor=2), RGB),
    "Deflate in tiles": (written(RGB, photometric="rgb", compression="zlib", tile=(32, 16)), RGB),
    "Deflate in planes": (
        written(RGB.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate", compression="zlib"),
        RGB,
    ),
    "grey": (written(GREY), np.dstack([GREY] * 3)),
    "white is zero": (written(255 - GREY, photometric="miniswhite"), np.dstack([GREY] * 3)),
    "white is zero, Deflate": (
        written(255 - GREY, photometric="miniswhite", compression="zlib"),
        np.dstack([GREY] * 3),
    ),
    "overviews": (b"", RGB),  # below
}


def overviews() -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(RGB, metadata=None, photometric="rgb")
        file.write(RGB[::2, ::2].copy(), subfiletype=1, metadata=None, photometric="rgb")
        file.write(RGB[::4, ::4].copy(), subfiletype=1, metadata=None, photometric="rgb")
    return buffer.getvalue()


KINDS["overviews"] = (overviews(), RGB)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tiff_comes_out_as_it_went_in(kind: str) -> None:
    data, wanted = KINDS[kind]
    np.testing.assert_array_equal(read(data), wanted)


LOSSLESS = itertools.product(["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate"], ["RGB", "L", "P", "CMYK", "1"])


@pytest.mark.parametrize(("compression", "mode"), [*LOSSLESS, ("jpeg", "RGB"), ("jpeg", "L")])
def test_a_tiff_is_read_as_detectron2_and_ffmpeg_do(compression: str, mode: str, tmp_path: Path) -> None:
    data = saved("TIFF", Image.fromarray(RGB).convert(mode), compression=compression)
    seen = read(data)
    np.testing.assert_array_equal(seen, by_detectron2(data, tmp_path))
    if mode != "CMYK" and compression != "jpeg":  # which ffmpeg converts by another rule, or does not read
        np.testing.assert_array_equal(seen, by_ffmpeg(data, tmp_path, "tiff"))


@pytest.mark.parametrize(("bits", "levels"), [(1, 2), (2, 4), (4, 16)])
def test_fewer_bits_are_spread_over_the_range(bits: int, levels: int) -> None:
    grey = GREY // (256 // levels)
    padded = np.zeros((HEIGHT, -(-WIDTH * bits // 8) * (8 // bits)), np.uint8)
    padded[:, :WIDTH] = grey
    shifts = np.arange(8 - bits, -1, -bits)
    rows = (padded.reshape(HEIGHT, -1, 8 // bits) << shifts).sum(axis=2).astype(np.uint8)
    data = tagged({256: WIDTH, 257: HEIGHT, 258: bits, 259: 1, 262: 1, 277: 1, 278: HEIGHT}, rows.tobytes())
    np.testing.assert_array_equal(read(data)[:, :, 0], grey * (255 // (levels - 1)))


def tagged(tags: dict[int, int | tuple[int, ...]], strip: bytes, following: int = 0) -> bytes:
    """A TIFF of one strip with just these tags, those of where the strip lies added."""
    given = {**tags, 273: 8, 279: len(strip)} if 322 not in tags else {**tags, 324: 8, 325: len(strip)}
    return bare(given, strip, following)


def bare(given: Mapping[int, int | tuple[int, ...]], strip: bytes, following: int = 0) -> bytes:
    """A TIFF with just these tags."""
    at = 8 + len(strip) + len(strip) % 2
    body, more = b"", b""
    after = at + 2 + 12 * len(given) + 4
    for tag, value in sorted(given.items()):
        if isinstance(value, tuple) and len(value) > 2:
            body += struct.pack("<HHII", tag, 3, len(value), after + len(more))
            more += struct.pack(f"<{len(value)}H", *value)
        elif isinstance(value, tuple):
            body += struct.pack("<HHI2H", tag, 3, 2, *value)
        else:
            body += struct.pack("<HHII", tag, 4, 1, value)
    head = b"II*\0" + struct.pack("<I", at) + strip + bytes(len(strip) % 2)
    return head + struct.pack("<H", len(given)) + body + struct.pack("<I", following) + more


PLAIN: dict[int, int | tuple[int, ...]] = {
    256: WIDTH, 257: HEIGHT, 258: (8, 8, 8), 259: 1, 262: 2, 277: 3, 278: HEIGHT, 284: 1,
}  # fmt: skip


def other(**tags: Any) -> bytes:
    changes = {int(name[1:]): value for name, value in tags.items()}
    return tagged({**PLAIN, **changes}, RGB.tobytes())


def test_tags_written_by_hand_are_a_picture() -> None:
    np.testing.assert_array_equal(read(other()), RGB)


def again(data: bytes, tag: int, kind: int, value: int) -> bytes:
    """The same with a tag once more, behind all others."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    entries = data[at + 2 : at + 2 + 12 * count]
    tags = struct.pack("<H", count + 1) + entries + struct.pack("<HHIII", tag, kind, 1, value, 0)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + tags


def of_another_kind(data: bytes, tag: int, kind: int) -> bytes:
    """The same with a tag's value said to be of another kind."""
    (at,) = struct.unpack_from("<I", data, 4)
    for entry in range(at + 2, len(data), 12):
        if struct.unpack_from("<H", data, entry) == (tag,):
            return data[: entry + 2] + struct.pack("<H", kind) + data[entry + 4 :]
    raise AssertionError(tag)


SIGNED, REAL = 9, 11  # kinds of values
OTHERS = {
    "a width of its own for whoever looks": (again(other(), 256, 4, 1), "its tag 256 twice"),
    "a second width that is signed": (again(other(), 256, SIGNED, 60_000), "its tag 256 twice"),
    "a width that is signed": (of_another_kind(other(), 256, SIGNED), "not as integers"),
    "a compression that is no number": (of_another_kind(other(), 259, REAL), "not as integers"),
    "L*a*b*": (other(t262=8), "CIE L\\*a\\*b\\*"),
    "YCbCr": (other(t262=6), "YCbCr"),
    "a mask": (other(t262=4), "mask"),
    "fax": (saved("TIFF", Image.fromarray(RGB).convert("1"), compression="group4"), "CCITT"),
    "JPEG 2000": (other(t259=34712), "JPEG 2000"),
    "old JPEG": (other(t259=6), "old-style JPEG"),
    "WebP": (other(t259=50001), "WebP"),
    "unheard of": (other(t259=12345), "12345"),
    "signed": (other(t339=(2, 2, 2)), "unsigned"),
    "reversed bits": (other(t266=2), "reverse"),
    "two samples": (other(t277=2, t258=(8, 8)), "2 samples"),
    "five samples": (other(t277=5, t258=(8,) * 5, t338=(0, 0)), "5 samples"),
    "grey of four bits and alpha": (other(t262=1, t277=2, t258=(4, 4), t338=0), "2 samples a pixel, of 4 bits each"),
    "unequal bits": (other(t258=(5, 6, 5)), "5 bits"),
    "bits of two samples of three": (other(t258=(8, 8)), "3 samples a pixel, of 8 bits each"),
    "four bits of colour": (other(t258=(4, 4, 4)), "4 bits"),
    "a camera's": (other(t50706=1), "DNG"),
    "a palette of 8 bits": (other(t262=3, t277=1, t258=8, t320=(7,) * 768), "colour map"),
    "strips that are missing": (other(t278=7), "1 parts, but the picture needs 9"),
    "huge tiles": (other(t322=60_000, t323=60_000), "60000 x 60000"),
    "tiles without a width": (bare({**PLAIN, 323: 16, 324: 8, 325: 9}, RGB.tobytes()), "0 x 16"),
    "tiles without a height": (bare({**PLAIN, 322: 16, 324: 8, 325: 9}, RGB.tobytes()), "16 x 0"),
    "a pixel that lies nowhere": (bare({**PLAIN, 256: 1, 257: 1}, RGB.tobytes()), "0 parts, but the picture needs 1"),
    "tiles of nothing": (other(t322=0, t323=16), "0 x 16"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_tiff_is_refused_by_what_it_is(kind: str) -> None:
    data, seen = OTHERS[kind]
    told = refused(data)
    assert told.reason is Reason.IMAGE_UNREADABLE
    assert told.facts["seen"].startswith("it is a TIFF ")
    assert seen.replace("\\", "") in told.facts["seen"]
    assert told.facts["remedy"] in TIFF_REMEDIES


TIFF_REMEDIES = (
    "save it as a plain RGB TIFF of 8 bits, or as PNG",
    "save it with LZW, Deflate or no compression, or as PNG",
    "develop it to PNG, TIFF of 8 bits or JPEG",
)
LENGTHS = (90 * WIDTH, 90 * WIDTH, 3 * WIDTH)  # of the strips of 61 rows
PARTS: dict[int, int | tuple[int, ...]] = {278: 30, 273: (8, 8 + 90 * WIDTH, 8 + 180 * WIDTH), 279: LENGTHS}


def test_every_strip_holds_its_rows_and_lies_within_the_file() -> None:
    np.testing.assert_array_equal(read(bare({**PLAIN, **PARTS}, RGB.tobytes())), RGB)
    for number in range(3):
        short = tuple(length - (place == number) for place, length in enumerate(LENGTHS))
        assert refused(bare({**PLAIN, **PARTS, 279: short}, RGB.tobytes())).reason is Reason.IMAGE_TRUNCATED
    with pytest.raises(Refused) as caught:
        encoded.size(bare({**PLAIN, 273: 10_000, 279: 3 * WIDTH * HEIGHT}, RGB.tobytes()))
    assert caught.value.reason is Reason.IMAGE_TRUNCATED
    assert caught.value.facts["codec"] == "TIFF"


@pytest.mark.parametrize(
    ("without", "reason", "fact"),
    [
        ((273,), Reason.IMAGE_UNREADABLE, "it is a TIFF of 0 parts, but the picture needs 1"),
        ((279,), Reason.IMAGE_UNREADABLE, "it is a TIFF of 1 parts, but the picture needs 1"),
        ((257,), Reason.SIZE_INVALID, "0"),
        ((256,), Reason.SIZE_INVALID, "0"),
    ],
)
def test_a_tag_that_is_missing_is_told(without: tuple[int, ...], reason: Reason, fact: str) -> None:
    tags = {tag: value for tag, value in {**PLAIN, 273: 8, 279: 3 * WIDTH * HEIGHT}.items() if tag not in without}
    told = refused(bare(tags, RGB.tobytes()))
    assert told.reason is reason
    assert fact in told.facts.values()


def test_tags_may_be_left_out_that_have_defaults() -> None:
    """Of one bit, or of one sample whose highest value is black."""
    ink = np.packbits(GREY > 128, axis=1)
    seen = read(bare({256: WIDTH, 257: HEIGHT, 262: 1, 273: 8, 279: ink.size}, ink.tobytes()))
    np.testing.assert_array_equal(seen[:, :, 0], (GREY > 128) * np.uint8(255))
    seen = read(bare({256: WIDTH, 257: HEIGHT, 258: 8, 273: 8, 279: GREY.size}, GREY.tobytes()))
    np.testing.assert_array_equal(seen[:, :, 0], 255 - GREY)
    tags = {tag: value for tag, value in PLAIN.items() if tag not in (259, 278, 284)}
    np.testing.assert_array_equal(read(tagged(tags, RGB.tobytes())), RGB)


def test_real_numbers_are_deep_however_few_their_bits() -> None:
    assert refused(other(t339=(3, 3, 3))).reason is Reason.IMAGE_TOO_DEEP


@pytest.mark.parametrize("data", [
    written(RGB.astype(np.uint16) * 257, photometric="rgb"),
    written(GREY.astype(np.uint16)),
    written(GREY.astype(np.float32)),
    written(GREY.astype(np.int32)),
    written(RGB.astype(np.uint32), photometric="rgb"),
    saved("TIFF", Image.fromarray(GREY.astype(np.uint16))),
])  # fmt: skip
def test_a_deep_tiff_is_refused(data: bytes) -> None:
    told = refused(data)
    assert (told.reason, told.facts) == (Reason.IMAGE_TOO_DEEP, {"codec": "TIFF"})


def test_pages_are_counted_and_a_chain_without_end_is_not_followed_for_ever() -> None:
    pages = [Image.fromarray(np.roll(RGB, shift, axis=1)) for shift in range(5)]
    told = refused(saved("TIFF", pages[0], save_all=True, append_images=pages[1:]))
    assert (told.reason, told.facts["frames"]) == (Reason.IMAGE_ANIMATED, "5")
    at = 8 + len(RGB.tobytes()) + len(RGB.tobytes()) % 2
    told = refused(tagged(PLAIN, RGB.tobytes(), following=at))
    assert (told.reason, told.facts["frames"]) == (Reason.IMAGE_ANIMATED, "10000 or more")


@pytest.mark.parametrize("codec", ["TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_ignored_or_refused(orientation: int, codec: str) -> None:
    turned = {
        1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.transpose(1, 0, 2),
        6: RGB[::-1].transpose(1, 0, 2), 7: RGB[::-1, ::-1].transpose(1, 0, 2), 8: RGB[:, ::-1].transpose(1, 0, 2),
    }[orientation]  # fmt: skip
    if codec == "TIFF":
        data = other(t274=orientation)
    else:
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        data = saved("AVIF", quality=100, subsampling="4:4:4", exif=exif)
    apart = 0 if codec == "TIFF" else 6
    assert read(data).shape == turned.shape
    assert np.abs(read(data).astype(int) - turned).max() <= apart
    assert np.abs(read(data, Orientation.IGNORE).astype(int) - RGB).max() <= apart
    if orientation == 1:
        assert read(data, Orientation.REFUSE).shape == RGB.shape
    else:
        assert refused(data, Orientation.REFUSE).reason is Reason.IMAGE_NOT_UPRIGHT


ALPHA = np.dstack([RGB, np.full_like(GREY, 200)])


@pytest.mark.parametrize(("codec", "values"), [("TIFF", ALPHA), ("AVIF", ALPHA), ("TIFF", np.dstack([GREY, GREY]))])
def test_alpha_is_dropped_if_it_is_opaque_or_the_request_says_so(codec: str, values: UInt8Array) -> None:
    options = {"quality": 100, "subsampling": "4:4:4"} if codec == "AVIF" else {}
    assert refused(saved(codec, Image.fromarray(values), **options)).reason is Reason.ALPHA_NOT_DROPPED
    opaque = values.copy()
    opaque[:, :, -1] = 255
    wanted = values[:, :, :3] if values.shape[2] == 4 else np.dstack([values[:, :, 0]] * 3)
    apart = 6 if codec == "AVIF" else 0
    for seen in (
        read(saved(codec, Image.fromarray(opaque), **options)),
        read(saved(codec, Image.fromarray(values), **options), drop_alpha=True),
    ):
        assert np.abs(seen.astype(int) - wanted).max() <= apart


def test_associated_alpha_is_undone_before_it_is_dropped() -> None:
    half = tagged({**PLAIN, 258: (8,) * 4, 277: 4, 338: 1}, np.dstack([RGB // 2, np.full_like(GREY, 127)]).tobytes())
    assert np.abs(read(half, drop_alpha=True).astype(int) - RGB).max() <= 3
    spare = tagged({**PLAIN, 258: (8,) * 4, 277: 4, 338: 0}, np.dstack([RGB, GREY]).tobytes())
    np.testing.assert_array_equal(read(spare), RGB)


# --- GIF


@pytest.mark.parametrize("interlace", [0, 1])
def test_a_gif_is_read_as_detectron2_and_ffmpeg_do(interlace: int, tmp_path: Path) -> None:
    data = saved("GIF", Image.fromarray(RGB).quantize(200), interlace=interlace)
    seen = read(data)
    np.testing.assert_array_equal(seen, by_detectron2(data, tmp_path))
    np.testing.assert_array_equal(seen, by_ffmpeg(data, tmp_path, "gif"))


def test_a_transparent_gif_needs_leave() -> None:
    image = Image.fromarray(RGB).quantize(200)
    data = saved("GIF", image, transparency=image.getpixel((0, 0)))
    assert refused(data).reason is Reason.ALPHA_NOT_DROPPED
    np.testing.assert_array_equal(read(data, drop_alpha=True), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(("codec", "options", "frames"), [
    ("GIF", {}, "several"),
    ("PNG", {}, "3"),
    ("PNG", {"default_image": True}, "3"),
    ("WEBP", {}, "3"),
    ("AVIF", {}, "several"),
])  # fmt: skip
def test_an_animation_is_refused(codec: str, options: dict[str, Any], frames: str) -> None:
    pictures = [Image.fromarray(np.roll(RGB, 9 * shift, axis=1)) for shift in range(3)]
    told = refused(saved(codec, pictures[0], save_all=True, append_images=pictures[1:], **options))
    assert (told.reason, told.facts["frames"]) == (Reason.IMAGE_ANIMATED, frames)


@pytest.mark.parametrize("codec", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_an_animation_of_one_frame_is_a_picture(codec: str) -> None:
    assert read(saved(codec, save_all=True)).shape == RGB.shape


# --- AVIF, and the others


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4", "4:0:0"])
def test_an_avif_is_read_as_detectron2_does_and_about_as_ffmpeg(subsampling: str, tmp_path: Path) -> None:
    data = saved("AVIF", quality=90, subsampling=subsampling)
    seen = read(data)
    np.testing.assert_array_equal(seen, by_detectron2(data, tmp_path))
    assert np.abs(seen.astype(int) - by_ffmpeg(data, tmp_path, "avif")).mean() < 4, "another way to enlarge chroma"


def avif_by_ffmpeg(tmp_path: Path, pixel_format: str) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{WIDTH}x{HEIGHT}", "-i", "-", "-frames:v", "1", "-still-picture", "1", "-pix_fmt", pixel_format]
    out = str(tmp_path / "picture.avif")
    subprocess.run([*command, "-c:v", "libaom-av1", "-cpu-used", "8", out], check=True, input=RGB.tobytes())
    return Path(out).read_bytes()


def test_another_encoders_avif_is_taken_and_ten_bits_are_not(tmp_path: Path) -> None:
    assert np.abs(read(avif_by_ffmpeg(tmp_path, "yuv444p")).astype(int) - RGB).mean() < 20
    assert refused(avif_by_ffmpeg(tmp_path, "yuv420p10le")).reason is Reason.IMAGE_TOO_DEEP


def test_an_avifs_frames_are_no_larger_than_its_header_says() -> None:
    large, small = saved("AVIF", Image.new("RGB", (2000, 1600))), saved("AVIF", Image.new("RGB", (20, 16)))
    pair = [[*avif._items(memoryview(data), boxes(data))] for data in (large, small)]
    assert [[*avif._frames(items[0])] for items in pair] == [[(2000, 1600)], [(20, 16)]]
    assert encoded.size(large) == (1600, 2000)
    sizes = (2000).to_bytes(4, "big") + (1600).to_bytes(4, "big")
    forged = large.replace(sizes, (20).to_bytes(4, "big") + (16).to_bytes(4, "big"))
    assert forged != large
    told = refused(forged)
    assert told.reason is Reason.IMAGE_UNREADABLE
    assert "2000 x 1600" in told.facts["seen"]


def boxes(data: bytes) -> dict[bytes, Any]:
    view = memoryview(data)
    meta = next(box for box in avif._boxes(view, 0, len(view)) if box.kind == b"meta")
    return {box.kind: box for box in avif._boxes(view, meta.start + 4, meta.end)}


def of_scans(scans: int, size: tuple[int, int]) -> bytes:
    """The header of a JPEG that says to have another size, and so many scans."""
    data = saved("JPEG")
    real, said = (struct.pack(">HH", *one) for one in ((HEIGHT, WIDTH), size))
    assert data.count(real) == data.count(b"\xff\xda") == 1
    return data.replace(real, said) + b"\xff\xda" * (scans - 1)


@pytest.mark.parametrize(("size", "most"), [((61, 83), 100), ((6_000, 5_000), 26), ((8_000, 8_000), 20)])
def test_a_jpeg_of_scans_without_end_is_refused(size: tuple[int, int], most: int) -> None:
    """The larger the picture, the fewer."""
    assert encoded.size(of_scans(most, size)) == size
    with pytest.raises(Refused) as caught:
        encoded.size(of_scans(most + 1, size))
    facts = {"scans": str(most + 1), "width": str(size[1]), "height": str(size[0]), "most": str(most)}
    assert (caught.value.reason, caught.value.facts) == (Reason.IMAGE_TOO_COSTLY, facts)


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_grey_model_sees_what_pillow_calls_grey(mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    seen = convert.decode(SentImage(EncodedImage(), saved("PNG", image)), 1)
    np.testing.assert_array_equal(seen, np.asarray(image.convert("L"))[:, :, None])


def test_of_a_jpeg_with_further_pictures_the_first_is_taken(tmp_path: Path) -> None:
    """As phones write them: a second view, or a map of how bright HDR is."""
    data = saved("MPO", save_all=True, append_images=[Image.fromarray(GREY)])
    np.testing.assert_array_equal(read(data), by_detectron2(data, tmp_path))
    np.testing.assert_array_equal(read(data), read(saved("JPEG")))


CODECS = {
    "JPEG": saved("JPEG"),
    "progressive JPEG": saved("JPEG", progressive=True),
    "PNG": saved("PNG"),
    "WEBP": saved("WEBP"),
    "lossless WEBP": saved("WEBP", lossless=True),
    "BMP": saved("BMP"),
    "GIF": saved("GIF", Image.fromarray(RGB).quantize(64)),
    "interlaced GIF": saved("GIF", Image.fromarray(RGB).quantize(64), interlace=1),
    "AVIF": saved("AVIF"),
    **{
        f"TIFF, {compression}": saved("TIFF", compression=compression)
        for compression in ("raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg")
    },
    "TIFF, tiles": written(RGB, photometric="rgb", tile=(16, 16), compression="zlib"),
    "BigTIFF": written(RGB, photometric="rgb", bigtiff=True),
}


@pytest.mark.parametrize("kind", CODECS)
def test_a_file_cut_anywhere_is_refused_as_cut(kind: str) -> None:
    data = CODECS[kind]
    end = len(data) - 20  # beyond it nothing but a trailer is missing
    for length in (*range(16, min(end, 400), 3), *range(min(end, 400), end, end // 50)):
        told = refused(data[:length])
        assert told.reason is Reason.IMAGE_TRUNCATED, length
        assert told.facts == {"bytes": str(length), "codec": kind.partition(",")[0].split()[-1].replace("Big", "")}
    assert read(data).shape == RGB.shape


@pytest.mark.parametrize("kind", CODECS)
def test_a_file_damaged_anywhere_is_a_picture_or_refused_with_a_reason(kind: str) -> None:
    """Nothing else is raised, no warning becomes an error, and nothing is allocated beyond what the limits allow."""
    data, rng = CODECS[kind], np.random.default_rng(7)
    tracemalloc.start()
    for number in range(300):
        damaged = bytearray(data)
        spots = rng.integers(0, min(len(data), 700 if number % 2 else len(data)), 1 + number % 4)
        for spot in spots:
            damaged[spot] = rng.integers(0, 256)
        with contextlib.suppress(Refused):
            pixels = read(bytes(damaged))
            assert pixels.shape[0] * pixels.shape[1] <= LIMITS.max_pixels
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 40_000_000, "of what Python itself allocates"


def test_a_gif_that_says_it_is_at_its_end_too_early_is_refused() -> None:
    data = saved("GIF", Image.fromarray(np.zeros((200, 200), np.uint8)).convert("P"))
    at = data.index(b"\x2c") + 10 + 0
    while data[at] not in (2, 3, 4, 5, 6, 7, 8):
        at += 1
    code_size = data[at]
    clear, end = 1 << code_size, (1 << code_size) + 1
    codes = clear | 0 << code_size + 1 | end << 2 * (code_size + 1)
    block = codes.to_bytes(-(-3 * (code_size + 1) // 8), "little")
    short = data[: at + 1] + bytes([len(block)]) + block + b"\0;"
    assert refused(short).reason is Reason.IMAGE_TRUNCATED


@pytest.mark.parametrize(
    ("codec", "size"),
    [*itertools.product(["GIF", "TIFF"], [(60_000, 60_000), (2_000, 501)]), ("AVIF", (2_000, 501))],
)
def test_a_bomb_is_refused_by_its_header(codec: str, size: tuple[int, int]) -> None:
    width, height = size
    if codec == "GIF":
        whole = saved("GIF", Image.new("L", (9, 9)))
        data = whole[:6] + struct.pack("<HH", width, height) + whole[10:]
    elif codec == "TIFF":
        strip = zlib.compress(bytes(2_000_000), 9)
        data = tagged({**PLAIN, 256: width, 257: height, 278: height, 259: 8}, strip)
    else:
        data = saved("AVIF", Image.new("RGB", size))
    assert refused(data).reason is Reason.IMAGE_TOO_LARGE


def lab() -> bytes:
    srgb, target = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(srgb, target, "RGB", "LAB")
    converted = ImageCms.applyTransform(Image.fromarray(RGB), transform)
    assert converted is not None
    return saved("TIFF", converted)


BOX = b"\x00\x00\x00\x18"
STRANGERS = {
    "HEIC": BOX + b"ftypheic\0\0\0\0mif1heic" + bytes(40),
    "HEIC by its container": BOX + b"ftypmif1\0\0\0\0mif1heic" + bytes(40),
    "MP4": BOX + b"ftypisom\0\0\2\0isomiso2" + bytes(40),
    "QuickTime": BOX + b"ftypqt  \0\0\2\0qt      " + bytes(40),
    "CR3": BOX + b"ftypcrx \0\0\0\1crx isom" + bytes(40),
    "JPEG 2000": saved("JPEG2000"),
    "JPEG XL": b"\xff\x0a" + bytes(40),
    "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "SVG": b'<?xml version="1.0" encoding="UTF-8"?>\n<!-- a -->\n<svg xmlns="http://www.w3.org/2000/svg">',
    "HTML": b"\n<!DOCTYPE html>\n<html><head><title>404 Not Found</title>",
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea423c2713d436b5ee50593a9640e00",
    "Matroska": b"\x1aE\xdf\xa3" + bytes(40),
    "AVI": b"RIFF\x00\x10\x00\x00AVI LIST" + bytes(40),
    "Photoshop": b"8BPS\0\1" + bytes(40),
    "DICOM": bytes(128) + b"DICM" + bytes(40),
    "PPM": saved("PPM"),
    "icon": saved("ICO", sizes=[(16, 16)]),
    "NumPy": b"\x93NUMPY\1\0v\0{'descr': '|u1'",
    "base64": b"/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAUDBAQEAwUEBAQFBQUGBwwIBwcHBw8LCwkMEQ8SEhEP",
    "JSON": b'{"error": "not found"}',
    "XML": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "a compressed file": b"\x1f\x8b\x08\0" + bytes(40),
    "high dynamic range": b"\x76\x2f\x31\x01" + bytes(40),
    "text": b"this is not a picture, but a text about one",
    "L*a*b*": lab(),
    "the bytes 00 01 02 03": bytes(range(200)),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_what_is_not_taken_is_called_by_its_name(kind: str) -> None:
    told = refused(STRANGERS[kind])
    assert told.reason is Reason.IMAGE_UNREADABLE
    assert kind.partition(" by its")[0] in told.facts["seen"]
    assert told.facts["remedy"] != "None"
    if "HEIC" in kind:
        assert told.facts == {"seen": "it is HEIC", "remedy": "convert it to PNG, or to JPEG"}
    if kind == "the bytes 00 01 02 03":
        assert told.facts["seen"] == "it begins with the bytes 00 01 02 03 04 05 06 07"


def test_every_two_beginnings_are_told_apart_in_no_time() -> None:
    for start in itertools.product(range(256), repeat=2):
        assert refused(bytes(start) + b" " * 3_000).reason in (Reason.IMAGE_UNREADABLE, Reason.IMAGE_TRUNCATED)
