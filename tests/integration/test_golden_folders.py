"""Folders of golden images and names as they are found: what cannot be used is told by name, and nothing is written."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.contract.naming import clean, is_model_name
from vedette_server.demo import scenes
from vedette_server.demo.publish import jpeg
from vedette_server.importer import ModelSource, import_model
from vedette_server.repository import repository
from vedette_server.repository.repository import RepositoryError
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.support.families import CLASSES, model
from tests.support.importing import run_import, write_config

BUNDLED = BUNDLED_REPOSITORY / "roadsigns" / "1"
SIGNS = ("stop", "yield", "warning", "parking", "mandatory", "speed_limit")


def bring_in(folder: Path, golden: Path | None, **told: Any) -> Path:
    source = ModelSource(config=str(BUNDLED / "config.yaml"), weights=BUNDLED / "model.safetensors", classes=SIGNS)
    return import_model(folder / "repository", "signs", source, golden, **told)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "a.jpg").write_bytes(jpeg(scenes.draw(scenes.describe(3_000_001, quiet=False)).pixels))
    return tmp_path / "golden"


def test_what_systems_leave_in_folders_is_left_out_and_said(tmp_path: Path, golden: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", ".hidden.png", "desktop.ini", "expected.json"):
        (golden / name).write_bytes(b"x")
    (golden / "__MACOSX").mkdir()
    told: list[str] = []
    folder = bring_in(tmp_path, golden, tell=told.append)
    assert [item.name for item in (folder / "golden").iterdir() if item.suffix == ".jpg"] == ["a.jpg"]
    assert any("Thumbs.db" in note and ".DS_Store" in note for note in told)


def test_all_that_cannot_be_golden_images_are_told_at_once(tmp_path: Path, golden: Path) -> None:
    (golden / "notes.txt").write_text("what these are")
    (golden / "empty.png").touch()
    (golden / "cut.jpg").write_bytes((golden / "a.jpg").read_bytes()[:2000])
    Image.new("RGBA", (40, 40), (9, 9, 9, 100)).save(golden / "clear.png")
    (golden / "more").mkdir()
    with pytest.raises(LoadRefusedError) as caught:
        bring_in(tmp_path, golden)
    assert caught.value.check is Check.GOLDEN_UNREADABLE
    line = str(caught.value)
    for name in (
        "notes.txt: IMAGE_",
        "empty.png: ",
        "cut.jpg: IMAGE_",
        "clear.png: ALPHA_NOT_DROPPED",
        "more: is a folder",
    ):
        assert name in line
    assert "a.jpg" not in line
    assert "\n" not in line
    assert not (tmp_path / "repository").exists(), "something was left behind"


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / ".DS_Store").touch()
    with pytest.raises(LoadRefusedError, match=r"GOLDEN_UNREADABLE: .*golden holds no picture"):
        bring_in(tmp_path, tmp_path / "golden")


def test_what_fails_on_a_picture_is_refused_without_golden_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vedette_server.predictor.predictor import Predictor

    inner = Predictor.predict

    def predict(self: Predictor, image: Any, options: Any) -> Any:
        answer = inner(self, image, options)
        if answer.height > answer.width > 100:
            raise RuntimeError("the size of tensor a (7) must match\nand more")
        return answer

    monkeypatch.setattr(Predictor, "predict", predict)
    told = r"INFERENCE_FAILS: of a picture of 240 x 352 pixels, RuntimeError: the size of tensor a \(7\) must match;"
    with pytest.raises(LoadRefusedError, match=told):
        bring_in(tmp_path, None)
    assert not (tmp_path / "repository").exists()


def test_names_are_trimmed_and_each_is_one(tmp_path: Path) -> None:
    assert clean(["a", " b", "c d "], "classes") == ("a", "b", "c d")
    for names, told in (
        (["a", " a"], "a is given more than once"),
        (["", "b", " "], "number 1, 3 of 3"),
        (["a\x1b"], "x1b"),
    ):
        with pytest.raises(LoadRefusedError, match=f"NAMES_UNUSABLE: of the names of classes, .*{told}"):
            clean(names, "classes")
    torch.save(model("mask_rcnn").state_dict(), tmp_path / "m.pth")
    ran = run_import(tmp_path, tmp_path / "m.pth", classes=", ".join(CLASSES))
    assert ran.returncode == 0, ran.stderr
    (version,) = repository.read(tmp_path / "repository")
    assert version.contract.class_names == CLASSES


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "-x", ".x", "é", "x" * 129, "a\n"])
def test_a_models_name_is_one_part_of_a_path(name: str, tmp_path: Path) -> None:
    assert not is_model_name(name)
    with pytest.raises(RepositoryError, match="a model cannot be called"):
        import_model(
            tmp_path / "repository", name, ModelSource(config=str(write_config(tmp_path)), weights=tmp_path / "m.pth")
        )
    assert not (tmp_path / "repository").exists()


def test_folders_with_other_names_are_not_served(tmp_path: Path) -> None:
    for name in ("good", "my model", ".git", "lost+found"):
        (tmp_path / name / "1").mkdir(parents=True)
    (tmp_path / "good" / "01").mkdir()
    assert repository.folders(tmp_path) == [tmp_path / "good" / "1"]
    assert repository.misnamed(tmp_path) == ["lost+found", "my model"]
