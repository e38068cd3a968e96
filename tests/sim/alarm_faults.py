"""The faults of the matrix of alarms: what each does to a healthy server, and the causes that name it rightly."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.numpy import load_file
from vedette_client import ImageLike
from vedette_client.asking import StreamAsk
from vedette_server.contract.contract import Names
from vedette_server.contract.types import Float32Array, UInt8Array
from vedette_server.demo.signs import CLASSES
from vedette_server.importer import write_version
from vedette_server.predictor.build import build
from vedette_server.predictor.predictor import read_config
from vedette_server.predictor.weights import read_weights

from tests.sim import faults
from tests.sim.alarm_feed import Feed, Street
from tests.support import memory, running

MODEL = "roadsigns"
_BLUR_PIXELS = 5.0  # standard deviation
_DARKENING_SECONDS, _DARKEST = 60.0, 0.05  # in which the gain falls from 1, and where it ends
_GONE = "stop"
_CLASSIFIER = "roi_heads.box_predictor.cls_score.weight"


@dataclass(frozen=True)
class Post:
    """The victims of a fault: a server, the camera that it watches, its repository."""

    server: running.Server
    feed: Feed
    repository: Path


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    causes: tuple[str, ...]  # that name it rightly
    begin: Callable[[Post], None]
    prepare: Callable[[Post], None] = lambda _post: None  # what takes its time, before the clock is started


def _sent(name: str) -> Callable[[Post], None]:
    """Every frame as a fault of the labelled set alters it."""
    fault = faults.FAULTS[name]

    def begin(post: Post) -> None:
        post.feed.send = lambda street: fault.send(street.bgr, street.seed)

    return begin


def _altered(change: Callable[[UInt8Array], UInt8Array]) -> Callable[[Post], None]:
    def begin(post: Post) -> None:
        post.feed.send = lambda street: faults.raw(change(street.bgr))

    return begin


def _defocused(bgr: UInt8Array) -> UInt8Array:
    return cv2.GaussianBlur(bgr, (0, 0), _BLUR_PIXELS).astype(np.uint8)


def _asked(ask: StreamAsk) -> Callable[[Post], None]:
    def begin(post: Post) -> None:
        post.feed.ask = ask

    return begin


def _freeze(post: Post) -> None:
    """At a picture with signs, so that the answers look as good as ever."""
    last = next(street for street in post.feed.pictures if street.classes)
    post.feed.send = lambda _street: faults.raw(last.bgr)


def _darken(post: Post) -> None:
    began = time.monotonic()

    def send(street: Street) -> ImageLike:
        gone = min((time.monotonic() - began) / _DARKENING_SECONDS, 1.0)
        return faults.raw((street.bgr * (1 - (1 - _DARKEST) * gone)).astype(np.uint8))

    post.feed.send = send


def _lose_a_class(post: Post) -> None:
    post.feed.pictures = [street for street in post.feed.pictures if _GONE not in street.classes]


def _write_version(post: Post) -> None:
    """A new version, imported rightly, of a checkpoint that was trained on the classes in another order."""
    folder = post.repository / MODEL
    aside = post.repository.parent / "next" / MODEL
    aside.mkdir(parents=True)
    shutil.copy(folder / "model.toml", aside)
    config = read_config(folder / "1")
    model = build(config, (), "cpu")
    state = read_weights(folder / "1" / "model.safetensors", model, None)
    model.load_state_dict({name: _reordered(name, tensor) for name, tensor in state.items()})
    pictures = {path.name: path.read_bytes() for path in sorted((folder / "1" / "golden").glob("*.jpg"))}
    write_version(aside, 2, config, model, names=Names(CLASSES), pictures=pictures)


def _publish_version(post: Post) -> None:
    (post.repository.parent / "next" / MODEL / "2").rename(post.repository / MODEL / "2")


def _reordered(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The last class first, in whatever holds something for each class; the background stays the last."""
    order = torch.roll(torch.arange(len(CLASSES)), 1)
    if "box_predictor.cls_score" in name:
        return torch.cat([tensor[:-1][order], tensor[-1:]])
    if "box_predictor.bbox_pred" in name:
        return tensor.reshape(len(CLASSES), 4, *tensor.shape[1:])[order].flatten(0, 1)
    return tensor[order] if "mask_head.predictor" in name else tensor


class _Overwritten:
    """The classifier's weights in the memory of every worker, as by a bad memory chip, just after they were proved."""

    def __init__(self, change: Callable[[Float32Array], Float32Array]) -> None:
        self._change = change
        self._there: list[tuple[int, int]] = []  # process and address
        self._by = b""

    def prepare(self, post: Post) -> None:
        weights = load_file(post.repository / MODEL / "1" / "model.safetensors")[_CLASSIFIER].astype(np.float32)
        self._by = self._change(weights).tobytes()
        workers = post.server.worker_pids()
        self._there = [(pid, address) for pid in workers for address in memory.find(pid, weights.tobytes())]
        assert self._there, "its weights are somewhere in its memory"
        proved = 'vedette_golden_checks_total{model="roadsigns",result="passed",version="1"}'
        before = running.sample(post.server, proved)
        running.wait_for(lambda: running.sample(post.server, proved) > before, "the golden images to be proved")

    def begin(self, _post: Post) -> None:
        for pid, address in self._there:
            memory.write(pid, [address], self._by)


_SCRAMBLED = _Overwritten(lambda weights: np.random.default_rng(0).permuted(weights.reshape(-1)))
_NAN = _Overwritten(lambda weights: np.full_like(weights, np.nan))


def _kill(post: Post) -> None:
    post.server.process.send_signal(signal.SIGKILL)


def _lose_the_workers(post: Post) -> None:
    """Kill workers whose files are gone, so that nothing can be loaded again."""
    weights = post.repository / MODEL / "1" / "model.safetensors"
    weights.rename(weights.with_suffix(".away"))
    for pid in post.server.worker_pids():
        os.kill(pid, signal.SIGKILL)


FAULTS: Mapping[str, Fault] = {
    "red/blue swap": Fault(("CHANNELS_SWAPPED",), _sent("channels swapped")),
    "[0, 1] values": Fault(("VALUES_IN_UNIT_RANGE",), _sent("unit range")),
    "pre-normalised values": Fault(("VALUES_NORMALISED",), _sent("normalised")),
    "threshold too high": Fault(("BELOW_THRESHOLD",), _asked({"threshold": 0.9999})),
    "black camera": Fault(("IMAGE_BLACK",), _sent("black camera")),
    "frozen feed": Fault(("FEED_FROZEN",), _freeze),
    "defocused lens": Fault(("IMAGE_BLURRED",), _altered(_defocused)),
    "upside-down camera": Fault(("IMAGE_ROTATED",), _sent("upside down")),
    "wrong model version": Fault(("WRONG_VERSION",), _publish_version, _write_version),
    "weights corrupted in memory": Fault(("GOLDEN_FAILING",), _SCRAMBLED.begin, _SCRAMBLED.prepare),
    "NaN weights": Fault(("NON_FINITE_VALUES",), _NAN.begin, _NAN.prepare),
    "one class gone": Fault(("CLASS_SILENT",), _lose_a_class),
    "slow darkening": Fault(("IMAGE_TOO_DARK",), _darken),
    "server killed": Fault(("SERVER_DOWN",), _kill),
    "no worker alive": Fault(("NO_WORKER",), _lose_the_workers),
}
