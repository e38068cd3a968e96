"""The options of a request: resolved against a contract, or refused with what was asked and what is allowed."""

import dataclasses
import math
from typing import Any

import msgspec
import pytest
from vedette_server.contract.contract import Names, Output
from vedette_server.contract.derive import derive
from vedette_server.contract.options import SWITCHES, Asked, MaskFormat, Options, defaults, resolve
from vedette_server.contract.refusal import Reason, Refused

from tests.support.contracts import config

CONTRACT = derive(config(META_ARCHITECTURE="PanopticFPN"), Names("ab", "cd"), threshold=0.4, source_digest="1")
PLAIN = Options(0.4, CONTRACT.outputs, MaskFormat.COCO_RLE, None, 100, 0.5)

RESOLVED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "the contract that is served": ({"contract_fingerprint": CONTRACT.fingerprint}, {}),
    "the floor itself": ({"threshold": 0.05}, {"threshold": 0.05}),
    "the highest threshold": ({"threshold": 1.0}, {"threshold": 1.0}),
    "an output twice": ({"outputs": (Output.MASKS, Output.BOXES) * 2}, {"outputs": (Output.MASKS, Output.BOXES)}),
    "a mask format": ({"mask_format": MaskFormat.PNG}, {"mask_format": MaskFormat.PNG}),
    "classes by name": ({"class_names": ("b", "a")}, {"class_ids": (0, 1)}),
    "a class by its number": ({"class_ids": (1,)}, {"class_ids": (1,)}),
    "the first class": ({"class_ids": (0,)}, {"class_ids": (0,)}),
    "classes by both": ({"class_names": ("b",), "class_ids": (0,)}, {"class_ids": (0, 1)}),
    "one detection": ({"max_detections": 1}, {"max_detections": 1}),
    "as many as the model gives": ({"max_detections": 100}, {"max_detections": 100}),
    "any panoptic threshold": ({"panoptic_threshold": 0.0}, {"panoptic_threshold": 0.0}),
}


@pytest.mark.parametrize("asked", RESOLVED)
def test_what_is_asked_for_replaces_the_models_own(asked: str) -> None:
    given, changes = RESOLVED[asked]
    assert resolve(Asked(**given), CONTRACT) == msgspec.structs.replace(PLAIN, **changes)


RANGE, UNKNOWN, MOST = Reason.THRESHOLD_OUT_OF_RANGE, Reason.CLASS_UNKNOWN, Reason.MAX_DETECTIONS_INVALID
SCORE, PANOPTIC = "options.threshold", "options.panoptic_threshold"

REFUSED: list[tuple[dict[str, Any], Reason, dict[str, str]]] = [
    ({"contract_fingerprint": "x"}, Reason.CONTRACT_CHANGED, {"asked": "x", "served": CONTRACT.fingerprint}),
    ({"threshold": 0.04}, Reason.THRESHOLD_BELOW_FLOOR, {"threshold": "0.04", "floor": "0.05"}),
    ({"threshold": -0.1}, RANGE, {"threshold": "-0.1", "field": SCORE}),
    ({"threshold": 1.1}, RANGE, {"threshold": "1.1", "field": SCORE}),
    ({"threshold": math.nan}, RANGE, {"threshold": "nan", "field": SCORE}),
    ({"panoptic_threshold": 1.1}, RANGE, {"threshold": "1.1", "field": PANOPTIC}),
    ({"class_names": ("c",)}, UNKNOWN, {"asked": "c", "classes": "a, b"}),
    ({"class_ids": (2,)}, UNKNOWN, {"asked": "2", "classes": "0 to 1"}),
    ({"class_ids": (-1,)}, UNKNOWN, {"asked": "-1", "classes": "0 to 1"}),
    ({"max_detections": 0}, MOST, {"asked": "0", "most": "100"}),
    ({"max_detections": 101}, MOST, {"asked": "101", "most": "100"}),
]


@pytest.mark.parametrize(("given", "reason", "facts"), REFUSED, ids=str)
def test_what_cannot_be_had_is_refused_with_what_can(
    given: dict[str, Any], reason: Reason, facts: dict[str, str]
) -> None:
    with pytest.raises(Refused) as caught:
        resolve(Asked(**given), CONTRACT)
    assert (caught.value.reason, caught.value.facts) == (reason, facts)


@pytest.mark.parametrize("asked", [{"outputs": (Output.PANOPTIC,)}, {"panoptic_threshold": 0.5}], ids=str)
def test_an_output_that_the_model_lacks_is_refused_with_the_switch_for_it(asked: dict[str, Any]) -> None:
    terms = derive(config(), Names("ab"), source_digest="1")
    with pytest.raises(Refused) as caught:
        resolve(Asked(**asked), terms)
    assert caught.value.reason is Reason.OUTPUT_NOT_PRODUCED
    assert caught.value.facts == {
        "output": "panoptic",
        "produced": "boxes, masks",
        "key": "MODEL.META_ARCHITECTURE and MODEL.PANOPTIC_FPN.COMBINE.ENABLED",
    }
    assert set(SWITCHES) == set(Output)


def test_a_model_without_a_limit_gives_any_number() -> None:
    terms = dataclasses.replace(CONTRACT, max_detections=None)
    assert defaults(terms).max_detections is None
    assert resolve(Asked(max_detections=10**9), terms).max_detections == 10**9
    with pytest.raises(Refused) as caught:
        resolve(Asked(max_detections=0), terms)
    assert caught.value.facts["most"] == "any number"


def test_of_two_classes_of_one_name_the_first_is_meant() -> None:
    terms = dataclasses.replace(CONTRACT, class_names=("a", "b", "a"))
    assert resolve(Asked(class_names=("a",)), terms).class_ids == (0,)
