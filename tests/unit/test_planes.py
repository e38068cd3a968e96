"""Interleaved and planar samples, told apart by their neighbours."""

import numpy as np
import pytest
from numpy.typing import NDArray
from vedette_server.contract import convert, planes
from vedette_server.contract.image import (
    ChannelOrder,
    ImageSpec,
    PixelFormat,
    RawImage,
    SentImage,
    TensorImage,
    TensorLayout,
    ValueRange,
)
from vedette_server.contract.refusal import Reason, Refused


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """A smooth one, whose channels differ."""
    y, x = np.mgrid[:height, :width]
    return np.dstack([x + y, x + y + 60, x + y + 120]).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 50)])
def test_neighbours_tell_the_layouts_apart(height: int, width: int) -> None:
    interleaved = picture(height, width)
    planar = np.ascontiguousarray(interleaved.transpose(2, 0, 1))
    for samples, is_planar in ((interleaved.ravel(), False), (planar.ravel(), True)):
        assert planes.look_planar(samples, height, width) == is_planar
        assert planes.look_interleaved(samples, height, width) == (not is_planar)


@pytest.mark.parametrize(("height", "width"), [(15, 40), (40, 15)])
def test_small_pictures_are_trusted(height: int, width: int) -> None:
    interleaved = picture(height, width)
    assert not planes.look_planar(interleaved.transpose(2, 0, 1).ravel(), height, width)
    assert not planes.look_interleaved(interleaved.ravel(), height, width)


def test_grey_is_interleaved_and_planar_as_declared() -> None:
    grey = picture(40, 50)[:, :, :1].repeat(3, axis=2)
    assert not planes.look_planar(grey.ravel(), 40, 50)
    assert not planes.look_interleaved(grey.transpose(2, 0, 1).ravel(), 40, 50)
    y, x = np.mgrid[:42, :48]
    dithered = ((x + y) % 3 * 100).astype(np.uint8)  # alike three samples and three rows apart
    assert not planes.look_interleaved(np.tile(dithered.ravel(), 3), 42, 48)


def test_rows_must_agree_with_columns() -> None:
    """A picture whose rows have nothing in common is trusted, as noise is, and one of fine stripes."""
    offsets = np.random.default_rng(7).integers(0, 100, (200, 1, 1))
    torn = (picture(200, 51) // 2 + offsets).astype(np.uint8)
    assert not planes.look_planar(torn.transpose(2, 0, 1).ravel(), 200, 51)
    assert not planes.look_interleaved(torn.ravel(), 200, 51)
    stripes = (picture(40, 50) // 2 + np.arange(50)[:, None] % 2 * 100).astype(np.uint8)
    assert not planes.look_planar(stripes.transpose(2, 0, 1).ravel(), 40, 50)


@pytest.mark.parametrize("interleaved", [True, False])
def test_a_contradicted_layout_is_refused_as_what_it_looks_like(*, interleaved: bool) -> None:
    pixels = picture(40, 50)
    sent = pixels.transpose(2, 0, 1) if interleaved else pixels
    layouts = (TensorLayout.HWC, TensorLayout.CHW) if interleaved else (TensorLayout.CHW, TensorLayout.HWC)
    facts = {"declared": str(layouts[0]), "seen": str(layouts[1])}
    specs: dict[str, ImageSpec] = {
        "image.tensor.layout": TensorImage(ChannelOrder.BGR, layouts[0], ValueRange.TO_255, 40, 50),
        **({"image.raw.data": RawImage(PixelFormat.BGR8, 40, 50)} if interleaved else {}),
    }
    for field, spec in specs.items():
        data = sent.astype(np.uint8 if isinstance(spec, RawImage) else "<f4").tobytes()
        with pytest.raises(Refused) as caught:
            convert.decode(SentImage(spec, data))
        assert (caught.value.reason, caught.value.facts) == (Reason.LAYOUT_CONTRADICTED, {"field": field, **facts})
