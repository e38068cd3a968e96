"""Models of projects, and configs that are programs: nothing of them runs unless it is named; then they are served."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from detectron2.data.transforms import ResizeShortestEdge
from PIL import Image
from vedette_client import Client
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.importer import ModelSource, import_model
from vedette_server.predictor import lazy
from vedette_server.predictor.config import plain, resolve
from vedette_server.repository import repository
from vedette_server.repository.repository import RepositoryError

from tests.support import running
from tests.support.families import CLASSES, LAZY, PLUGINS, class_names, config, model
from tests.support.reference import assert_equal, bgr, default_predictor, one_thread

__all__ = ["one_thread"]  # a fixture for every test here

CITYSCAPES = 19


def png(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of a model of each project, and of a LazyConfig's."""
    root = tmp_path_factory.mktemp("projects")
    for family, plugin in PLUGINS.items():
        (root / f"{family}.yaml").write_text(yaml.safe_dump(plain(config(family))))
        torch.save({"model": model(family).state_dict()}, root / f"{family}.pth")
        classes = None if family == "panoptic_deeplab" else class_names(family)  # the dataset's
        source = ModelSource(
            config=str(root / f"{family}.yaml"), weights=root / f"{family}.pth", classes=classes, plugins=(plugin,)
        )
        import_model(root / "repository", family, source)
    built: Any = lazy.build(lazy.read(str(LAZY)), ())
    torch.manual_seed(2)
    torch.nn.init.normal_(built.roi_heads.box_predictor.cls_score.weight, std=0.3)
    torch.save(built.state_dict(), root / "lazy.pth")
    source = ModelSource(config=str(LAZY), weights=root / "lazy.pth", classes=CLASSES, run_config=True)
    import_model(root / "repository", "lazy", source)
    return root / "repository"


@pytest.fixture(scope="module")
def server(projects: Path) -> Iterator[running.Server]:
    allowed = [flag for plugin in PLUGINS.values() for flag in ("--plugin", plugin)]
    with running.server("--repository", str(projects), "--threads", "1", *allowed) as running_server:
        yield running_server


@pytest.mark.parametrize("family", ["point_rend", "project"])
def test_a_projects_model_answers_as_detectron2_does(family: str, projects: Path, server: running.Server) -> None:
    instances = default_predictor(projects / family / "1")(bgr())["instances"]
    assert len(instances) > 5
    with Client(server.address) as client:
        assert_equal(client.detect(bgr(), pixel_format="BGR8", model=family), instances)
        assert client.model(family).contract.plugins == (PLUGINS[family],)


def test_panoptic_deeplab_answers_as_detectron2_does(projects: Path, server: running.Server) -> None:
    output = default_predictor(projects / "panoptic_deeplab" / "1")(bgr())
    found, labels = output["instances"], output["panoptic_seg"][0].numpy()
    found = found[found.scores.argsort(descending=True, stable=True)]
    assert len(found) > 5
    middle = round(float(found.scores.median()), 6)
    with Client(server.address) as client:
        result = client.detect(bgr(), pixel_format="BGR8", model="panoptic_deeplab")
        above = client.detect(
            bgr(), pixel_format="BGR8", model="panoptic_deeplab", threshold=middle, outputs=["boxes", "masks"]
        )
        contract = client.model("panoptic_deeplab").contract
    assert len(contract.class_names) == len(contract.stuff_class_names) == CITYSCAPES
    assert_equal(result, found)
    assert_equal(above, found[found.scores > middle])
    assert result.panoptic is not None
    seen = png(result.panoptic.segment_map_png)
    assert ((seen == 0) == (labels == -1)).all()
    for segment in result.panoptic.segments:
        (label,) = np.unique(labels[seen == segment.id])
        assert segment.class_id == label // 1000
        assert segment.is_thing == (label % 1000 > 0)
        assert segment.area == (labels == label).sum()
    assert result.class_map_png is not None
    np.testing.assert_array_equal(png(result.class_map_png), output["sem_seg"].argmax(dim=0).numpy())


def test_a_lazy_configs_model_answers_as_detectron2_does(projects: Path, server: running.Server) -> None:
    """Against the model itself, given what `DefaultPredictor` would give it."""
    built = lazy.build(resolve(str(LAZY), run=True), ()).eval()
    built.load_state_dict(torch.load(projects.parent / "lazy.pth", weights_only=True))
    height, width = bgr().shape[:2]
    resized = ResizeShortestEdge([160, 160], 240).get_transform(bgr()).apply_image(bgr())
    tensor = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
    with torch.no_grad():
        instances = built([{"image": tensor, "height": height, "width": width}])[0]["instances"]
    assert len(instances) > 5
    with Client(server.address) as client:
        assert_equal(client.detect(bgr(), pixel_format="BGR8", model="lazy"), instances)


def test_a_plugin_that_the_operator_did_not_name_is_not_imported(projects: Path) -> None:
    with pytest.raises(RepositoryError, match=r"PLUGIN_NOT_ALLOWED: it needs .*--plugin"):
        repository.read(projects)


def test_a_plugin_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(LoadRefusedError) as caught:
        import_model(
            tmp_path,
            "x",
            ModelSource(config=str(tmp_path / "config.yaml"), weights=tmp_path, plugins=("no_such_project",)),
        )
    assert caught.value.check is Check.PLUGIN_MISSING


def test_without_its_plugin_a_config_is_refused_by_its_key(projects: Path) -> None:
    file = projects.parent / "project.yaml"
    with pytest.raises(LoadRefusedError, match=r"CONFIG_KEYS_UNKNOWN: .*MODEL.SCALED_HEAD;.*--plugin"):
        import_model(
            projects, "x", ModelSource(config=str(file), weights=projects.parent / "project.pth", classes=CLASSES)
        )


CALLS = {
    "a command": {"_target_": "os.system", "command": "touch {proof}"},
    "a program's path": {"_target_": "detectron2.config.LazyConfig.load", "filename": "{proof}.py"},
    "a command by way of a part": {"_target_": "detectron2.layers.wrappers.torch.load", "f": "{proof}"},
    "a command as a part": {"_target_": "vedette_server.predictor.lazy.part", "part": "os.system"},
    "a command as a part with arguments": {
        "_target_": "vedette_server.predictor.lazy.partially",
        "part": "os.system",
        "command": "touch {proof}",
    },
    "a command as an argument": {
        "_target_": "detectron2.layers.ShapeSpec",
        "channels": {"_target_": "os.system", "command": "touch {proof}"},
    },
}


@pytest.mark.parametrize("call", CALLS)
def test_a_version_whose_config_calls_anything_else_is_refused(call: str, tmp_path: Path) -> None:
    """config.yaml is read when a model is served: it may name parts of models, and nothing else is called."""
    proof = tmp_path / "it-ran"
    (tmp_path / "it-ran.py").write_text(f"open({str(proof)!r}, 'w')")
    hostile = yaml.safe_load(yaml.safe_dump(CALLS[call]).replace("{proof}", str(proof)))
    written = lazy.read(str(LAZY))
    written["model"]["backbone"] = hostile
    with pytest.raises(LoadRefusedError) as caught:
        lazy.build(written, ())
    assert caught.value.check is Check.CONFIG_IS_PROGRAM
    assert not proof.exists()
    assert not os.path.lexists(proof)
