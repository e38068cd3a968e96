"""The numbers of a config lie within bounds, in either dialect; its YAML is as deep and large as what is read."""

import math
from pathlib import Path
from typing import Any

import pytest
from vedette_server.contract import bounds, markup
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.predictor import written


def nested(levels: int) -> dict[str, Any]:
    """A value that lies so many levels deep."""
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return {"MODEL": value}


BEYOND: dict[str, Any] = {
    "too large": {"INPUT": {"MIN_SIZE_TEST": 20_000}},
    "as a text": {"INPUT": {"MIN_SIZE_TEST": "20000"}},
    "negative": {"MODEL": {"RESNETS": {"RES2_OUT_CHANNELS": -1}}},
    "behind a text": {"INPUT": {"MIN_SIZE_TEST": 20_000, "FORMAT": "BGR"}},  # the last is looked at first
    "no number": {"MODEL": {"PIXEL_MEAN": [1.0, math.nan, 1.0]}},
    "without end": {"MODEL": {"PIXEL_STD": [math.inf]}},
    "no number, of a key that nobody knows": {"MODEL": {"OWN": {"WEIGHT": math.nan}}},
    "of a key that nobody knows": {"MODEL": {"OWN": {"SIZE": 2**64}}},
    "of thousands of bits": {"MODEL": {"ROI_HEADS": {"NUM_CLASSES": 10**1200}}},
    "in a LazyConfig": {"model": {"roi_heads": {"num_classes": 10**9}}},
    "of the data that is served": {"dataloader": {"test": {"mapper": {"augmentations": [{"max_size": -1}]}}}},
    "in a list within a list": {"MODEL": {"ANCHOR_GENERATOR": {"SIZES": [[32], [10**9]]}}},
    "a level too deep": nested(101),
    "a list without end": {"MODEL": {"ROI_BOX_HEAD": {"CONV_DIMS": [1] * 10_000}}},
    "a tree without end": {"MODEL": {str(index): {str(key): 1 for key in range(400)} for index in range(400)}},
}


@pytest.mark.parametrize("what", BEYOND)
def test_numbers_beyond_their_bounds_are_refused(what: str) -> None:
    with pytest.raises(LoadRefusedError) as caught:
        bounds.check(BEYOND[what])
    assert caught.value.check is Check.CONFIG_OUT_OF_BOUNDS
    assert len(str(caught.value)) < 600


def test_the_refusal_says_which_number_its_bounds_and_why() -> None:
    with pytest.raises(LoadRefusedError, match=r"INPUT.MIN_SIZE_TEST is 20000; it must be 0 to 4096: larger shortest"):
        bounds.check(BEYOND["too large"])


def test_numbers_may_reach_their_bounds() -> None:
    bounds.check({"INPUT": {"MIN_SIZE_TEST": 4_096}, "MODEL": {"STRIDE": 1, "CONV_DIMS": [-1] * 200}})
    bounds.check({"MODEL": {"STRIDE": "auto", "LOWEST": -math.inf, "HIGHEST": math.inf}, "0": 1})
    bounds.check(nested(99))


@pytest.mark.parametrize(
    ("number", "told"), [(2**128 - 1, f"is {2**128 - 1}; it must be"), (2**128, "is a number of 129 bits; it must be")]
)
def test_a_number_is_told_as_long_as_it_can_be_read(number: int, told: str) -> None:
    with pytest.raises(LoadRefusedError, match=told):
        bounds.check({"MODEL": {"SIZE": number}})


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("a level too deep", r"MODEL\.a\.0\.a.*… is more than 100 levels deep"),
        ("a list without end", "CONV_DIMS has 10000 entries; a list has at most 200"),
        ("a tree without end", "it holds more than 100000 values"),
    ],
)
def test_the_refusal_says_what_there_is_too_much_of(what: str, told: str) -> None:
    with pytest.raises(LoadRefusedError, match=told):
        bounds.check(BEYOND[what])


def test_what_training_took_is_its_own_affair() -> None:
    bounds.check({"SOLVER": {"MAX_ITER": 10**30}, "DATASETS": {"X": [1] * 10_000}, "TEST": {"SCORE": math.inf}})


def test_yaml_is_counted_before_it_is_made() -> None:
    assert markup.plain(b"a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}
    rounds = [f"b{n}: &b{n} [{', '.join(10 * [f'*b{n - 1}'])}]" for n in range(1, 9)]
    bomb = "\n".join(["b0: &b0 [1, 1]", *rounds])
    for text, told in (
        (bomb, "more than 100000 values"),
        ("[" * 101 + "]" * 101, "nested too deeply"),
        ("a: &x [*x]", r"an anchor that holds itself \(\*x\)"),
    ):
        with pytest.raises(markup.BoundsError, match=told):
            markup.check(text)
    markup.check("[" * 100 + "]" * 100)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1", 1),
        ("[1, 2]", 3),
        ("{a: 1}", 3),
        ("[[1, 2], [3]]", 6),
        ("[&x 1, *x]", 3),
        ("{a: &x [1, 2], b: *x}", 9),
        ("[*undefined]", 2),
    ],
)
def test_every_value_counts_wherever_it_lies(monkeypatch: pytest.MonkeyPatch, text: str, values: int) -> None:
    monkeypatch.setattr(markup, "MOST", values)
    markup.check(text)
    monkeypatch.setattr(markup, "MOST", values - 1)
    with pytest.raises(markup.BoundsError, match=f"^has more than {values - 1} values, with its anchors expanded$"):
        markup.check(text)


def test_a_value_of_the_wrong_type_is_told() -> None:
    with pytest.raises(ValueError, match=r"^has a value of the wrong type \('nay'\)$"):
        markup.plain(b"a: !!bool nay")


@pytest.mark.parametrize("value", ["!!bool nay", "!!timestamp then", "!!int ''", "!!float ''", "!!int '0x'"])
def test_values_that_are_not_of_their_kind_are_refused(value: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  PyYAML's words for some
        markup.plain(f"a: {value}\n".encode())


NOT_AS_WRITTEN = [
    "object/apply:numpy._core.multiarray._reconstruct {state: [1, [4], !!python/object/apply:numpy.dtype [f8], 0, a]}",
    "object/apply:numpy.core.multiarray.scalar [!!python/object/apply:numpy.dtype [f1], !!binary YQ==]",
    "object/apply:collections.OrderedDict [[[[1], 2]]]",
    "object:yacs.config.CfgNode {dictitems: [1]}",
    "object:detectron2.layers.ShapeSpec {state: [1]}",
    "object/apply:eval [[1]]",
]


@pytest.mark.parametrize("call", NOT_AS_WRITTEN)
def test_a_call_that_nobody_writes_so_is_told_as_one(tmp_path: Path, call: str) -> None:
    """It is for the importer to refuse, with its place."""
    path = tmp_path / "config.yaml"
    path.write_text(f"a: !!python/{call}\n")
    ((key, found),) = written.expressions(written.read(path))
    assert (key, found.called) == ("a", True)
