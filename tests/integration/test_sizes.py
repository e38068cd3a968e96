"""A photo of twelve megapixels is taken as an array and a PIL image as it is as a file; what is too large says so."""

import io

import numpy as np
import pytest
from PIL import Image
from vedette_client import Answered, AsyncClient, Client, Frame, ImageLike, LocalError, PixelFormat
from vedette_server.demo import scenes

from tests.support import running

NOISE = np.random.default_rng(1).integers(0, 256, (3000, 4000, 3), np.uint8)


@pytest.fixture(scope="module")
def photo(scene: scenes.Picture) -> Image.Image:
    return Image.fromarray(scene.pixels).resize((4032, 3024))


@pytest.fixture(scope="module")
def taken(photo: Image.Image) -> dict[str, tuple[ImageLike, PixelFormat | None]]:
    rgb = np.asarray(photo)
    return {
        "a PIL image": (photo, None),
        "RGB8": (rgb, "RGB8"),
        "BGR8": (rgb[:, :, ::-1], "BGR8"),
        "RGBA8": (np.dstack([rgb, rgb[:, :, 0]]), "RGBA8"),
    }


@pytest.fixture(scope="module")
def file(photo: Image.Image) -> bytes:
    written = io.BytesIO()
    photo.save(written, "PNG", compress_level=1)
    return written.getvalue()


async def test_the_answer_is_the_file_s(
    bundled: running.Server, taken: dict[str, tuple[ImageLike, PixelFormat | None]], file: bytes
) -> None:
    async with AsyncClient(bundled.address, timeout=60) as awaited:
        with Client(bundled.address, timeout=60) as client:
            assert client.model().contract.max_bytes < 4032 * 3024 * 3
            wanted = client.detect(file)
            assert wanted.detections
            for name, (image, pixel_format) in taken.items():
                for found in (
                    client.detect(image, pixel_format=pixel_format, drop_alpha=True),
                    await awaited.detect(image, pixel_format=pixel_format, drop_alpha=True),
                ):
                    assert found.detections == wanted.detections, name
                    assert (found.width, found.height) == (4032, 3024)


async def test_a_large_frame_is_one_among_others(bundled: running.Server, photo: Image.Image) -> None:
    small = np.asarray(photo.resize((512, 384)))
    frames = [Frame(image, pixel_format="RGB8") for image in (small, small, np.asarray(photo), small)]
    with Client(bundled.address, timeout=60) as client:
        assert [type(event) for event in client.stream(frames, policy="LOSSLESS")] == [Answered] * 4
    async with AsyncClient(bundled.address, timeout=60) as awaited:
        assert [type(event) async for event in awaited.stream(frames, policy="LOSSLESS")] == [Answered] * 4


async def test_what_cannot_be_made_to_fit_is_refused_with_the_limit(bundled: running.Server) -> None:
    with (
        Client(bundled.address, timeout=60) as client,
        pytest.raises(LocalError, match="the limit is 33554432") as caught,
    ):
        client.detect(NOISE, pixel_format="RGB8")
    assert caught.value.reason == "IMAGE_TOO_MANY_BYTES"
    async with AsyncClient(bundled.address, timeout=60) as awaited:
        with pytest.raises(LocalError, match="at most 40000000 in all") as caught:
            await awaited.detect(Image.new("1", (9000, 6000)))
    assert caught.value.reason == "IMAGE_TOO_LARGE"
