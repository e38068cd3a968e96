"""The memory of sources, and its bounds."""

import dataclasses

import numpy as np
from vedette_server.contract.image import EncodedImage, SentImage
from vedette_server.contract.options import AskedImage, defaults
from vedette_server.contract.types import UInt8Array
from vedette_server.explain.findings import Code, Confidence, Finding
from vedette_server.watch.sources import Key, SourceRecord, Sources

from tests.support.answers import CONTRACT, PICTURE, PIXELS, answer


def key(name: str) -> Key:
    return Key("model", 1, name)


def sample(size: int) -> AskedImage:
    return AskedImage(SentImage(EncodedImage(), bytes(size)), defaults(CONTRACT))


def test_a_new_source_that_gives_nothing_is_restless_and_a_usual_one_is_not() -> None:
    source = SourceRecord(key("camera"))
    for _ in range(2):
        source.see(answer())
        assert not source.restless
    source.see(answer())
    assert source.restless
    assert source.due
    for _ in range(30):
        source.see(answer())
    source.accept()
    for _ in range(50):
        source.see(answer())
    assert (source.restless, source.calm) == (False, True), "it is empty as usual"


def test_what_was_usual_once_is_accepted_again() -> None:
    source = SourceRecord(key("camera"))
    for _ in range(100):
        source.see(answer())
    source.accept()
    for _ in range(30):
        source.see(answer(scores=(0.9,)))
    source.accept()
    for _ in range(30):
        source.see(answer())
    assert not source.restless


def test_what_is_suspected_does_not_become_usual() -> None:
    source = SourceRecord(key("camera"))
    source.suspicion = Finding(Code.CHANNELS_SWAPPED, Confidence.SUSPECTED, "", "")
    for _ in range(2_000):
        source.see(answer())
    source.suspicion = None
    assert source.restless


def test_one_empty_frame_among_many_is_nothing() -> None:
    source = SourceRecord(key("camera"))
    for number in range(200):
        source.see(answer(scores=(0.9,) if number % 10 else ()))
        assert not source.restless


def test_the_same_pixels_again_are_counted_on_feeds_alone() -> None:
    other: UInt8Array = np.ascontiguousarray(PICTURE[::-1])
    camera, single = SourceRecord(key("camera")), SourceRecord(key(""))
    counts = []
    for pixels in (PICTURE, PICTURE, PICTURE, other, PICTURE):
        for source in (camera, single):
            source.see(answer(pixels))
        counts.append((camera.identical, single.identical))
    assert counts == [(1, 1), (2, 1), (3, 1), (1, 1), (1, 1)]


def test_an_answer_that_was_not_observed_is_no_repetition() -> None:
    source = SourceRecord(key("camera"))
    for _ in range(3):
        source.see(dataclasses.replace(answer(), pixels=None))
        assert source.identical == 1


def test_what_values_are_made_of_is_remembered() -> None:
    source = SourceRecord(key(""))
    for name, wanted in (("VALUES_IN_UNIT_RANGE", Code.VALUES_IN_UNIT_RANGE), ("GREY_FOR_COLOUR", None)):
        source.see(answer(PIXELS[name]))
        assert source.values is wanted


def test_sources_are_forgotten_the_longest_unseen_first() -> None:
    sources = Sources()
    first = sources.of(key("0"))
    for number in range(999):
        sources.of(key(str(number)))
    assert sources.of(key("0")) is first
    sources.of(key("1000"))
    sources.of(key("1001"))
    assert sources.of(key("0")) is first
    assert len(sources._sources) == 1_000


def test_few_samples_are_kept_and_few_bytes() -> None:
    sources = Sources()
    for number in range(10):
        sources.keep(key(str(number)), sample(10))
    assert [number for number in range(10) if sources.sample(key(str(number)))] == list(range(2, 10))
    large = sample(2**26)
    sources.keep(key("large"), large)
    assert sources.sample(key("large")) is large
    assert sources.sample(key("9")) is None
