"""Usual pictures accuse nobody: golden images, baselines, and the rest of the trades' pictures."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from vedette_server.contract.types import UInt8Array
from vedette_server.explain.explain import Context, explain, find, usual, values
from vedette_server.explain.findings import Code, Confidence
from vedette_server.explain.usual import Usual
from vedette_server.predictor.look import look

from tests import honest
from tests.support.answers import CONTRACT, PICTURE, PIXELS, SOUND, answer

RNG = np.random.default_rng(4)
HEIGHT, WIDTH = 360, 480


def page(ink: float = 0.1) -> UInt8Array:
    """White, with dark words."""
    pixels = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    words = np.kron(RNG.random((HEIGHT // 8, WIDTH // 8)) < ink, np.ones((4, 8))).astype(bool)
    pixels[: len(words)][words] = 10
    return pixels


def said(pixels: UInt8Array, known: Usual | None = None, stream: str = "", **seen: Any) -> dict[str, Confidence]:
    one = answer(pixels, **seen)
    context = Context(values=values(one.pixels, None) if one.pixels else None, usual=known or Usual(), stream=stream)
    return {finding.code: finding.confidence for finding in explain(one, CONTRACT, context)}


def of_golden(*pictures: UInt8Array, scores: tuple[float, ...] = (), **context: Any) -> Usual:
    context = {"sees": True, "limits": {}, **context}
    return usual([answer(pixels, scores=scores) for pixels in pictures], CONTRACT, **context)


def as_png(pixels: UInt8Array) -> UInt8Array:
    return pixels


def as_jpeg(quality: int) -> Callable[[UInt8Array], UInt8Array]:
    def sent(pixels: UInt8Array) -> UInt8Array:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    return sent


def noise(mean: float, spread: float) -> UInt8Array:
    return np.clip(np.rint(RNG.normal(mean, spread, (HEIGHT, WIDTH, 3))), 0, 255).astype(np.uint8)


def defects(pixels: UInt8Array, level: int) -> UInt8Array:
    """The same from a sensor with a pixel that is always on, or off."""
    pixels[100, 200] = level
    return pixels


FAULTS = {
    "a lens cap": ("IMAGE_BLACK", noise(2, 1.5)),
    "a lens cap at night, with the gain up": ("IMAGE_BLACK", noise(4, 3)),
    "no signal": ("IMAGE_BLACK", np.zeros((HEIGHT, WIDTH, 3), np.uint8)),
    "a hot pixel": ("IMAGE_BLACK", defects(noise(2, 1), 255)),
    "a cap on an old sensor": ("IMAGE_BLACK", np.pad(noise(1, 1), ((0, 0), (0, 0), (0, 0)))),
    "into the sun": ("IMAGE_SATURATED", np.full((HEIGHT, WIDTH, 3), 255, np.uint8)),
    "into the sun, with a dead pixel": ("IMAGE_SATURATED", defects(np.full((HEIGHT, WIDTH, 3), 255, np.uint8), 0)),
    "a test colour": ("IMAGE_FLAT", np.full((HEIGHT, WIDTH, 3), (200, 40, 90), np.uint8)),
}


# A JPEG spreads a single pixel over its neighbours.
SENT = [
    (fault, sent)
    for fault in FAULTS
    for sent in ((as_png,) if "pixel" in fault else (as_png, as_jpeg(95), as_jpeg(60), as_jpeg(30)))
]


@pytest.mark.parametrize(("fault", "sent"), SENT)
def test_what_shows_nothing_is_certain(fault: str, sent: Callable[[UInt8Array], UInt8Array]) -> None:
    code, pixels = FAULTS[fault]
    assert said(sent(pixels))[code] is Confidence.CERTAIN


def spotted(pixels: UInt8Array, level: int, count: int) -> UInt8Array:
    rows, columns = RNG.integers(5, HEIGHT - 5, count), RNG.integers(5, WIDTH - 5, count)
    for row, column in zip(rows, columns, strict=True):
        pixels[row : row + 2, column : column + 2] = level
    return pixels


SUBJECTS = {
    "stars": ("IMAGE_BLACK", spotted(noise(2, 1), 180, 12)),
    "faint stars": ("IMAGE_BLACK", spotted(noise(2, 0.5), 14, 40)),
    "a glow": ("IMAGE_BLACK", np.kron(np.arange(12)[None, :, None], np.ones((HEIGHT, 40, 3))).astype(np.uint8)),
    "a page": ("IMAGE_SATURATED", page()),
    "a word on a page": ("IMAGE_SATURATED", spotted(np.full((HEIGHT, WIDTH, 3), 255, np.uint8), 0, 8)),
    "snow that is not cut off": ("IMAGE_SATURATED", noise(252, 0.8)),
    "a clear sky": ("IMAGE_FLAT", (noise(180, 0.6) + np.linspace(0, 5, HEIGHT)[:, None, None]).astype(np.uint8)),
    "an empty belt": ("IMAGE_FLAT", noise(70, 1.5)),
}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_shows_something_is_suspected_at_most(subject: str) -> None:
    code, pixels = SUBJECTS[subject]
    assert said(pixels)[code] is Confidence.SUSPECTED


def bilevel() -> UInt8Array:
    return np.where(page() > 128, 255, 0).astype(np.uint8)


CHECKERS = np.repeat(np.indices((HEIGHT, WIDTH)).sum(0)[:, :, None] % 2 * 255, 3, axis=2)


@pytest.mark.parametrize("sent", [as_png, as_jpeg(95), as_jpeg(60), as_jpeg(30)])
@pytest.mark.parametrize(
    "pixels", [bilevel(), 255 - bilevel(), np.indices((HEIGHT, WIDTH)).sum(0)[:, :, None] % 2 * np.full(3, 255)]
)
def test_black_and_white_is_not_normalised(pixels: UInt8Array, sent: Callable[[UInt8Array], UInt8Array]) -> None:
    seen = look(sent(pixels.astype(np.uint8)), PICTURE)
    assert values(seen, None) is None


def test_black_and_white_clears_no_feed_of_what_is_known() -> None:
    """A dark picture's normalised values have two levels, too."""
    seen = look(bilevel(), PICTURE)
    assert values(seen, Code.VALUES_NORMALISED) is Code.VALUES_NORMALISED


def test_a_dim_grey_picture_is_not_normalised_and_a_dim_spot_not_scaled() -> None:
    ramp = np.kron(np.arange(4)[None, :, None], np.ones((HEIGHT, 120, 3))).astype(np.uint8)
    assert values(look(ramp, PICTURE), None) is None
    spot = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    spot[100:160, 100:160] = 1
    assert values(look(spot, PICTURE), None) is None


def test_the_whole_image_is_looked_at() -> None:
    """Where the evenly spaced sample misses what stands out."""
    pixels = np.zeros((640, 640, 3), np.uint8)
    pixels[5::10, 5::10] = 200
    seen = look(pixels, PICTURE)
    assert (seen.dark, seen.highest, seen.featureless) == (1.0, 200, False)


def test_a_screen_may_well_stand_still() -> None:
    still = Context(identical=10)
    (camera,) = explain(answer(noise(120, 40)), CONTRACT, still)
    (screen,) = explain(answer(PICTURE.repeat(2, axis=0).repeat(2, axis=1)), CONTRACT, still)
    assert (camera.code, camera.confidence) == (Code.FEED_FROZEN, Confidence.LIKELY)
    assert (screen.code, screen.confidence) == (Code.FEED_FROZEN, Confidence.SUSPECTED)


XRAY = next(honest.feed("x-rays", 1)).rgb

GOLDEN = {
    "pages": (of_golden(page()), page(0.3), "IMAGE_SATURATED"),
    "faxes": (of_golden(bilevel()), bilevel(), "IMAGE_SATURATED"),
    "x-rays": (of_golden(XRAY), XRAY[::-1], "GREY_FOR_COLOUR"),
    "stars": (of_golden(SUBJECTS["stars"][1]), SUBJECTS["faint stars"][1], "IMAGE_BLACK"),
    "skies": (of_golden(SUBJECTS["a clear sky"][1]), SUBJECTS["a clear sky"][1][::-1].copy(), "IMAGE_FLAT"),
    "thumbnails": (of_golden(PICTURE[:80, :90]), PICTURE[:70, :80], "IMAGE_TOO_SMALL"),
}


@pytest.mark.parametrize("trade", GOLDEN)
def test_what_golden_images_look_like_is_said_of_nobody(trade: str) -> None:
    known, pixels, code = GOLDEN[trade]
    pixels = np.ascontiguousarray(pixels)
    assert code in said(pixels)
    assert code not in said(pixels, known)


def test_a_frame_in_which_nothing_is_left_is_found_all_the_same() -> None:
    white, black = np.full((HEIGHT, WIDTH, 3), 255, np.uint8), noise(2, 1.5)
    assert said(white, GOLDEN["pages"][0])["IMAGE_SATURATED"] is Confidence.CERTAIN
    assert said(black, GOLDEN["stars"][0])["IMAGE_BLACK"] is Confidence.CERTAIN
    assert "IMAGE_SATURATED" not in said(white, of_golden(white)), "unless a golden image is such"


def test_a_model_that_sees_has_no_random_head() -> None:
    flat: dict[str, Any] = {"certainty": SOUND.certainty / 4}
    assert Code.SCORES_FLAT in said(PICTURE, **flat)
    assert Code.SCORES_FLAT not in said(PICTURE, of_golden(PICTURE, scores=(0.9,)), **flat)
    assert Code.SCORES_FLAT in said(PICTURE, of_golden(PICTURE), **flat), "nothing was to be found in it"
    assert Code.SCORES_FLAT in said(PICTURE, of_golden(PICTURE, scores=(0.9,), sees=False), **flat)


def tempered(
    code: Code, pixels: UInt8Array, limits: dict[str, dict[str, tuple[float, float]]], stream: str = "gate"
) -> Any:
    known = Usual(limits=limits)
    finding = known.tempered(find(code, Confidence.CERTAIN, ""), look(pixels, pixels), stream)
    return finding and finding.confidence


def test_what_a_baseline_shows_is_never_certain() -> None:
    black = noise(2, 1.5)
    nights, days = {"": {"brightness": (0.0, 120.0)}}, {"": {"brightness": (60.0, 120.0)}}
    assert tempered(Code.IMAGE_BLACK, black, nights) is Confidence.SUSPECTED
    assert tempered(Code.IMAGE_BLACK, black, days) is Confidence.CERTAIN
    assert tempered(Code.IMAGE_BLACK, black, nights | {"gate": days[""]}) is Confidence.CERTAIN, (
        "the stream's own count"
    )
    assert tempered(Code.IMAGE_BLACK, black, days | {"gate": nights[""]}, "yard") is Confidence.CERTAIN
    assert tempered(Code.IMAGE_FLAT, black, {"": {"contrast": (0.0, 9.0)}}) is Confidence.SUSPECTED
    assert tempered(Code.FEED_FROZEN, black, nights) is Confidence.CERTAIN, "of which no statistic tells"


def test_a_statistic_that_is_usual_either_way_tells_nothing() -> None:
    red = np.full((HEIGHT, WIDTH, 3), (60, 90, 140), np.uint8)
    assert tempered(Code.CHANNELS_SWAPPED, red, {"": {"redness": (0.6, 0.8)}}) is Confidence.SUSPECTED
    assert tempered(Code.CHANNELS_SWAPPED, red, {"": {"redness": (0.2, 0.8)}}) is Confidence.CERTAIN


@pytest.mark.parametrize("code", ["VALUES_IN_UNIT_RANGE", "VALUES_NORMALISED"])
def test_values_are_still_told(code: str) -> None:
    assert said(PIXELS[code], GOLDEN["pages"][0])[code] is Confidence.LIKELY
