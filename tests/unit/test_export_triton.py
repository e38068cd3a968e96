"""The export of a model for Triton: its configuration, and what is refused before anything is written."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as config_pb
from vedette_server.repository import repository
from vedette_server.repository.repository import ModelVersion, RepositoryError
from vedette_server.settings import BUNDLED_REPOSITORY
from vedette_server.triton.export import Placement, export

HERE = Placement(
    environment=Path(sys.prefix), devices=("cpu",), instances=3, threads=2, golden_seconds=9, diagnose_share=0.5
)


@pytest.fixture(scope="module")
def model() -> ModelVersion:
    return repository.find(BUNDLED_REPOSITORY, "roadsigns")


def config(folder: Path) -> config_pb.ModelConfig:
    return text_format.Parse((folder / "config.pbtxt").read_text(), config_pb.ModelConfig())


def test_the_configuration_leaves_nothing_to_auto_completion(model: ModelVersion, tmp_path: Path) -> None:
    written = config(export(model, tmp_path, HERE))
    assert (written.backend, written.max_batch_size) == ("python", 0)
    group = written.instance_group[0]
    assert (group.kind, group.count) == (config_pb.ModelInstanceGroup.KIND_CPU, 3)
    assert written.parameters["EXECUTION_ENV_PATH"].string_value == sys.prefix
    given = {name: float(written.parameters[name].string_value) for name in ("golden_seconds", "diagnose_share")}
    assert given == {"golden_seconds": 9, "diagnose_share": 0.5}
    assert written.parameters["threads"].string_value == "2"
    assert written.parameters["contract_fingerprint"].string_value == model.contract.fingerprint
    assert all(one.optional for one in written.input)
    kinds = {one.name: (one.data_type, [*one.dims]) for one in (*written.input, *written.output)}
    assert kinds["ENCODED"] == (config_pb.TYPE_UINT8, [-1])  # texts are numbers with NumPy 2
    assert kinds["CLASSES_FILTER"] == (config_pb.TYPE_INT64, [-1])
    assert kinds["FINDINGS"] == kinds["CLASS_NAMES"] == (config_pb.TYPE_UINT8, [-1])
    assert kinds["BOXES"] == (config_pb.TYPE_FP32, [-1, 4])


def test_the_export_holds_the_version_as_it_is(model: ModelVersion, tmp_path: Path) -> None:
    kept = repository.find(export(model, tmp_path, HERE) / "1" / "repository", "roadsigns")
    assert kept.contract == model.contract
    assert kept.golden == model.golden
    assert [path.name for path in tmp_path.iterdir()] == ["roadsigns"]


def test_gpus_are_numbered(model: ModelVersion, tmp_path: Path) -> None:
    group = config(export(model, tmp_path, dataclasses.replace(HERE, devices=("cuda:0", "cuda:2")))).instance_group[0]
    assert (group.kind, [*group.gpus]) == (config_pb.ModelInstanceGroup.KIND_GPU, [0, 2])


def test_what_cannot_run_is_refused_before_anything_is_written(model: ModelVersion, tmp_path: Path) -> None:
    out, bare = tmp_path / "out", tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    for changed, why in (
        ({"environment": tmp_path / "none"}, "is no virtual environment"),
        ({"environment": bare}, "it has no vedette_server, tritonclient, detectron2, torchvision, numpy"),
        ({"devices": ("mps",)}, "not on 'mps'"),
        ({"devices": ("cpu", "cuda:0")}, "not on 'cpu,cuda:0'"),
    ):
        with pytest.raises(RepositoryError, match=why):
            export(model, out, dataclasses.replace(HERE, **changed))
    assert not out.exists()
    export(model, out, HERE)
    with pytest.raises(RepositoryError, match="exists: remove it"):
        export(model, out, HERE)
