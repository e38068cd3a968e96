"""Names by which callers tell models, classes and keypoints apart."""

import pytest
from vedette_server.contract import naming
from vedette_server.contract.contract import Names
from vedette_server.contract.loading import Check, LoadRefusedError


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "_", "9", "a" * 128])
def test_a_models_name_serves_as_a_folder_and_as_a_label(name: str) -> None:
    assert naming.is_model_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "-a", "a/b", "a b", "ä", "a\n", "a" * 129])
def test_what_would_not_is_no_name_of_a_model(name: str) -> None:
    assert not naming.is_model_name(name)


def test_blanks_around_a_name_are_removed() -> None:
    assert naming.clean([" traffic light", "cup\t", "Öl"], "classes") == ("traffic light", "cup", "Öl")


REFUSED = {
    "an empty one": (["a", " ", "b", ""], "number 2, 4 of 4 is empty"),
    "a duplicate": (["a", "b", "a ", "c", "b"], "a, b is given more than once"),
    "what cannot be printed": (["a\tb", "c", "\x1b[0m"], r"'a\\tb', '\\x1b\[0m' cannot be printed"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_names_that_tell_nothing_apart_are_refused(what: str) -> None:
    given, seen = REFUSED[what]
    with pytest.raises(LoadRefusedError, match=f"^NAMES_UNUSABLE: of the names of things, {seen};") as caught:
        naming.clean(given, "things")
    assert caught.value.check is Check.NAMES_UNUSABLE


@pytest.mark.parametrize(
    ("names", "of"),
    [
        (Names(("a", "a")), "classes"),
        (Names(("a",), ("b", "b")), "classes of stuff"),
        (Names(("a",), (), ("c", "c")), "keypoints"),
    ],
)
def test_the_names_of_a_version_are_held_to_the_same_rule(names: Names, of: str) -> None:
    naming.check(Names(("a",), ("a",), ("a",)))
    with pytest.raises(LoadRefusedError, match=f"of the names of {of}, . is given more than once"):
        naming.check(names)
