"""Models of one channel and of many: served by what can carry their channels, equal to Detectron2's bare model."""

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from detectron2.data.detection_utils import read_image
from PIL import Image
from vedette_client import Client, InvalidRequest, Raw, Tensor
from vedette_client.cli import main as vedette
from vedette_server.cli import main as vedette_server
from vedette_server.demo import scenes

from tests.support import channels, running
from tests.support.reference import assert_equal

ALL = tuple(channels.COUNTS)
MANY = ("two", "four", "seven")
GREY = ("one", "grey", channels.GREY_OF_THREE)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The reference sums in the order in which the workers do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return channels.write(tmp_path_factory.mktemp("channels"))


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Server]:
    config = tmp_path_factory.mktemp("config") / "vedette.toml"
    config.write_text("diagnose_share = 1.0\n")
    with running.server("--repository", str(repository), "--threads", "1", "--config", str(config)) as started:
        yield started


@pytest.fixture
def client(server: running.Server) -> Iterator[Client]:
    with Client(server.address, timeout=120) as client:
        yield client


def raw(pixels: Any) -> Raw:
    height, width, count = pixels.shape
    return Raw(pixels.tobytes(), pixel_format="GRAY8" if count == 1 else "8UCN", height=height, width=width)


def tensor(pixels: Any, layout: Any = "CHW") -> Tensor:
    values = pixels.astype(np.float32)
    order: Any = "GRAY" if pixels.shape[2] == 1 else "MODEL"
    return Tensor(values.transpose(2, 0, 1) if layout == "CHW" else values, order, layout, "0-255")


@pytest.mark.parametrize("name", ALL)
def test_raw_samples_and_tensors_are_answered_as_by_the_bare_model(name: str, client: Client, repository: Path) -> None:
    for seed in (11, 13):
        pixels = channels.pixels(channels.COUNTS[name], seed)
        wanted = channels.bare(repository / name / "1", pixels)
        assert len(wanted) > 5, "a comparison of nothing with nothing proves nothing"
        for sent in (raw(pixels), tensor(pixels), tensor(pixels, "HWC")):
            assert_equal(client.detect(sent, model=name), wanted)


@pytest.mark.parametrize("name", ALL)
def test_an_enlarged_and_a_padded_image_too(name: str, client: Client, repository: Path) -> None:
    pixels = np.ascontiguousarray(channels.pixels(channels.COUNTS[name])[100:203, 50:141])
    wanted = channels.bare(repository / name / "1", pixels)
    height, width, count = pixels.shape
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, 13)), constant_values=99)
    padded = Raw(
        rows.tobytes(),
        pixel_format="GRAY8" if count == 1 else "8UCN",
        height=height,
        width=width,
        row_stride=width * count + 13,
    )
    assert_equal(client.detect(padded, model=name), wanted)


@pytest.mark.parametrize("name", GREY)
@pytest.mark.parametrize(
    ("codec", "mode"), [("PNG", "RGB"), ("JPEG", "L"), ("JPEG", "RGB"), ("PNG", "P"), ("WEBP", "RGB")]
)
def test_a_grey_model_is_given_files_as_detectron2_reads_them(
    name: str, codec: str, mode: str, client: Client, repository: Path, tmp_path: Path
) -> None:
    path = tmp_path / "picture"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(scenes.draw(scenes.describe(14)).pixels).convert(mode).save(path, codec, exif=exif)
    wanted = channels.bare(repository / name / "1", read_image(str(path), "L"))
    assert len(wanted) > 5
    assert_equal(client.detect(path, model=name), wanted)


def test_a_grey_model_is_given_colours_as_detectron2_reads_them(
    client: Client, repository: Path, tmp_path: Path
) -> None:
    rgb = scenes.draw(scenes.describe(14)).pixels
    Image.fromarray(rgb).save(tmp_path / "picture.png")
    wanted = channels.bare(repository / "grey" / "1", read_image(str(tmp_path / "picture.png"), "L"))
    assert_equal(client.detect(rgb, pixel_format="RGB8", model="grey"), wanted)
    assert_equal(client.detect(np.ascontiguousarray(rgb[:, :, ::-1]), pixel_format="BGR8", model="grey"), wanted)
    assert_equal(client.detect(Image.fromarray(rgb), model="grey"), wanted)


def reason(client: Client, image: Any, model: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        client.detect(image, model=model)
    assert caught.value.reason is not None
    return caught.value.reason


def test_what_cannot_carry_the_channels_is_refused_with_its_reason(client: Client, tmp_path: Path) -> None:
    Image.new("RGBA", (40, 30), (1, 2, 3, 255)).save(tmp_path / "four.png")
    rgb = np.zeros((30, 40, 3), np.uint8)
    for name in MANY:
        assert reason(client, tmp_path / "four.png", name) == "INPUT_NOT_ALLOWED"
        assert reason(client, Raw(rgb.tobytes(), pixel_format="RGB8", height=30, width=40), name) == "INPUT_NOT_ALLOWED"
        assert reason(client, Raw(bytes(1200), pixel_format="GRAY8", height=30, width=40), name) == "INPUT_NOT_ALLOWED"
        assert reason(client, Raw(bytes(1201), pixel_format="8UCN", height=30, width=40), name) == "RAW_LENGTH_MISMATCH"
        assert reason(client, Tensor(rgb.astype(np.float32), "RGB", "HWC", "0-255"), name) == "CHANNELS_NOT_THE_MODELS"
        three = Tensor(rgb.astype(np.float32), "MODEL", "HWC", "0-255")
        assert reason(client, three, name) == "TENSOR_LENGTH_MISMATCH"
        shifted = tensor(channels.pixels(channels.COUNTS[name]) - 300.0)
        assert reason(client, shifted, name) == "VALUES_NORMALISED"
    for name in GREY:
        assert reason(client, Raw(bytes(1200), pixel_format="8UCN", height=30, width=40), name) == "INPUT_NOT_ALLOWED"
        assert reason(client, Tensor(rgb.astype(np.float32), "RGB", "HWC", "0-255"), name) == "CHANNELS_NOT_THE_MODELS"


@pytest.mark.parametrize("name", ALL)
def test_the_contract_says_what_may_be_sent(name: str, client: Client, server: running.Server) -> None:
    terms = client.model(name).contract
    grey, count = name in GREY, channels.COUNTS[name]
    assert terms.channels == count
    assert terms.channel_order == ("GRAY" if grey else "MODEL")
    colours = {"BGR8", "RGB8", "BGRA8", "RGBA8", "NV12", "I420"}
    assert set(terms.inputs) == ({"encoded", "GRAY8", "tensor", *colours} if grey else {"8UCN", "tensor"})
    assert terms.tensor_orders == (("GRAY",) if grey else ("MODEL",))
    told = CliRunner().invoke(vedette, ["contract", name, "--server", server.address, "--json"], catch_exceptions=False)
    assert json.loads(told.stdout)["channels"] == count


@pytest.mark.parametrize("name", ALL)
def test_a_diagnosis_tries_what_means_something(name: str, client: Client) -> None:
    count = channels.COUNTS[name]
    found = client.diagnose(raw(channels.pixels(count)), model=name)
    tried = {candidate.mistake for candidate in found.candidates}
    assert {"ROTATED_180", "MIRRORED", "INVERTED", "SIZE_SWAPPED", "TOO_DARK"} <= tried
    assert not tried & {"CHANNELS_SWAPPED", "COLOUR_FOR_GREY", "NORMALISED_IMAGENET"}
    assert ({"CHW_AS_HWC", "HWC_AS_CHW"} <= tried) == (count > 1)
    with Image.open(io.BytesIO(found.comparison_png)) as sheet:
        assert sheet.width == 4 * 320


@pytest.mark.parametrize("name", ALL)
def test_an_empty_answer_is_explained_and_never_by_colours(name: str, client: Client) -> None:
    count = channels.COUNTS[name]
    for pixels in (
        channels.pixels(count),
        np.zeros((60, 80, count), np.uint8),
        np.full((60, 80, count), 255, np.uint8),
    ):
        empty = client.detect(raw(pixels), model=name, threshold=1.0)
        assert empty.empty is not None
        reason = empty.empty.reason
        assert not {finding.code for finding in empty.findings} & {"GREY_FOR_COLOUR", "CHANNELS_SWAPPED"}
    assert reason == "IMAGE_SATURATED"


def test_a_source_that_goes_empty_is_looked_into(client: Client, server: running.Server) -> None:
    """The probe undoes mistakes in such frames too, to the end."""
    pixels, shifts = channels.pixels(4), itertools.count()

    def ended() -> list[dict[str, Any]]:
        answer = client.detect(raw(np.roll(pixels, next(shifts), axis=1)), model=channels.QUIET)
        assert answer.empty is not None
        assert answer.empty.reason == "QUIET_SCENE"
        return server.events("no_cause_found")

    running.wait_for(ended, "the probe to end")
    assert server.logged("looking_into")
    assert not server.events("bug")


@pytest.mark.parametrize("name", ["grey", "four", "seven"])
def test_golden_arrays_are_checked_and_drawn(name: str, repository: Path, tmp_path: Path) -> None:
    arguments = ["check", name, "--repository", str(repository), "--save", str(tmp_path), "--json"]
    told = CliRunner().invoke(vedette_server, arguments, catch_exceptions=False)
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout.splitlines()[0])["same"]
    with Image.open(tmp_path / "array.png") as sheet:
        assert sheet.width == 2 * channels.pixels(1).shape[1]


@pytest.mark.parametrize("name", ["one", "grey", "four"])
def test_compare_agrees_or_says_why_not(name: str, repository: Path, server: running.Server, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(scenes.draw(scenes.describe(14)).pixels).save(path)
    folder = repository / name / "1"
    arguments = ["compare", str(path), "--config", str(folder / "config.yaml"), "--model", name]
    arguments += ["--weights", str(folder / "model.safetensors"), "--server", server.address, "--json"]
    told = CliRunner().invoke(vedette, arguments, catch_exceptions=False)
    if name == "four":
        assert told.exit_code == 64 + 3
        assert "INPUT_NOT_ALLOWED" in told.stderr
    else:
        assert told.exit_code == 0, told.output
        record = json.loads(told.stdout)
        assert record["same"]
        assert record["both"]
        assert not any("INPUT.FORMAT" in hint for hint in record["hints"])
