"""Masks and maps of a server that is none of ours: what is not what it says is refused, and no library looks at it."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from vedette_client import InternalError, unpacked
from vedette_client.drawing import numbers
from vedette_client.results import Mask
from vedette_server.repository import runs

HEIGHT, WIDTH = 30, 40
NONE = {  # as bytes; the first three end the process, or its patience, where pycocotools is given them
    "more than there are": b"?A[\x02J\x14l\xf0",
    "of other letters": bytes(range(200, 230)),
    "one that is open": b"oooooooooooo",
    "one that is too long": b"ooooooo1",
    "less than there are": b"5",
    "below nothing": b"O`T1",
    "nothing": b"",
}


def masks() -> list[NDArray[np.uint8]]:
    """Of many kinds: noise, whose runs are short, and areas, whose runs are long."""
    rng = np.random.default_rng(1)
    noise = [(rng.random((HEIGHT, WIDTH)) < share).astype(np.uint8) for share in (0.0, 0.02, 0.5, 0.98, 1.0)]
    large = np.zeros((900, 1_400), np.uint8)
    large[100:700, 333:1_200] = 1
    return [*noise, np.eye(HEIGHT, WIDTH, dtype=np.uint8), large, 1 - large]


@pytest.mark.parametrize("number", range(len(masks())))
def test_runs_of_a_mask_are_taken_and_those_of_another_size_are_not(number: int) -> None:
    mask = masks()[number]
    counts = rle.encode(np.asfortranarray(mask))["counts"]
    assert (Mask(height=mask.shape[0], width=mask.shape[1], counts=counts).decode() == mask).all()
    assert runs.whole(counts, mask.size)
    for size in (mask.size - 1, mask.size + 1):
        assert not runs.whole(counts, size)
    with pytest.raises(InternalError, match="not a mask of"):
        Mask(height=mask.shape[0] + 1, width=mask.shape[1], counts=counts).coco()


@pytest.mark.parametrize("name", NONE)
def test_runs_that_are_none_are_refused(name: str) -> None:
    mask = Mask(height=HEIGHT, width=WIDTH, counts=NONE[name])
    for look in (mask.decode, mask.coco, mask.record):
        with pytest.raises(InternalError, match="the server is not a Vedette server"):
            look()
    assert not runs.whole(NONE[name], HEIGHT * WIDTH)


@pytest.mark.parametrize(
    "line",
    [
        (1, 1, 9, float("nan"), 5, 8),
        (1, 1, 9, float("inf"), 5, 8),
        (1, 1, 1e9, 1, 5, 8),
        (1, 1, 9, 1, 5, -3),
        (1, 1, 9, 1),
        (1, 1, 9, 1, 5),
        (),
    ],
)
def test_outlines_that_are_none_are_refused(line: tuple[float, ...]) -> None:
    with pytest.raises(InternalError, match="an outline"):
        Mask(height=HEIGHT, width=WIDTH, polygons=((1, 1, 9, 1, 5, 8), line)).decode()


def test_outlines_that_go_round_for_ever_are_refused() -> None:
    with pytest.raises(InternalError, match="length"):
        unpacked.check_outlines([(0, 0, 1_000, 1_000) * 10_000], 1_000, 1_000)


def test_outlines_at_the_edges_are_taken() -> None:
    assert Mask(height=HEIGHT, width=WIDTH, polygons=((0, 0, WIDTH, 0, WIDTH, HEIGHT, 0, HEIGHT),)).decode().all()


@pytest.mark.parametrize(("height", "width"), [(0, 4), (-1, 4), (4, 2**31 - 1), (2**20, 2**20)])
def test_masks_of_no_size_are_refused(height: int, width: int) -> None:
    for mask in (Mask(height=height, width=width, counts=b"0"), Mask(height=height, width=width, polygons=())):
        with pytest.raises(InternalError, match=f"{width} x {height}"):
            mask.decode()


def saved(image: Image.Image, codec: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, codec)
    return buffer.getvalue()


def test_a_mask_without_outlines_is_empty_and_takes_no_memory() -> None:
    assert not Mask(height=3, width=5, polygons=()).decode().any()
    assert Mask(height=3, width=5, polygons=()).coco() == rle.encode(np.zeros((3, 5), np.uint8, "F"))
    tracemalloc.start()
    Mask(height=2**10, width=2**20, polygons=()).coco()
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_maps_are_grey_pngs_and_nothing_else() -> None:
    grey = Image.new("L", (WIDTH, HEIGHT), 7)
    assert numbers(saved(grey)).shape == (HEIGHT, WIDTH)
    for data in (b"", saved(grey, "GIF"), saved(grey)[:60], saved(grey.convert("RGB"))):
        with pytest.raises(InternalError, match="PNG"):
            numbers(data)
    assert Mask(height=HEIGHT, width=WIDTH, png=saved(grey)).decode().all()
    with pytest.raises(InternalError, match=f"for a mask of {WIDTH} x {HEIGHT + 1}"):
        Mask(height=HEIGHT + 1, width=WIDTH, png=saved(grey)).decode()


def test_a_png_that_would_take_all_memory_is_refused() -> None:
    bomb = saved(Image.new("L", (8, 8)))
    huge = bomb.replace(struct.pack(">II", 8, 8), struct.pack(">II", 50_000, 50_000))
    with pytest.raises(InternalError, match="PNG"):
        numbers(huge)
