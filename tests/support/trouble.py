"""A server under gentle traffic, and what can go wrong with it, for tests of what tells of it."""

import contextlib
import datetime as dt
import itertools
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import msgspec
import numpy as np
from safetensors.numpy import load_file
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1 import image_pb2
from vedette_client import Client, ImageLike, VedetteError
from vedette_server.baseline.stored import FORMAT, Baseline, ClassProfile, Limits, Profile
from vedette_server.repository import repository

from tests.sim import faults
from tests.sim.alarm_feed import streets
from tests.support import memory, running
from tests.support.authority import Authority

MODEL, STREAM = "roadsigns", "gate"
CLASSIFIER = "roi_heads.box_predictor.cls_score.weight"
PASSED = f'vedette_golden_checks_total{{model="{MODEL}",result="passed",version="1"}}'
EDGES = [
    "0.05",
    "0.1",
    "0.2",
    "0.3",
    "0.4",
    "0.5",
    "0.6",
    "0.7",
    "0.8",
    "0.9",
    "0.95",
    "0.98",
    "0.99",
    "0.995",
    "1.0",
    "+Inf",
]


def baseline(root: Path, *, scale: float = 1.0, age: float = 10 * 86400.0) -> None:
    """Write a baseline beside the version, of limits that are round numbers times `scale`."""
    version = repository.find(root, MODEL, 1)
    limits = {
        "brightness": (60, 160),
        "contrast": (20, 80),
        "sharpness": (10, 40),
        "redness": (0.3, 0.7),
        "upper": (0.4, 0.6),
    }
    shares = {"empty": (0, 0.4), "score_distance": (0, 0.5), "class_distance": (0, 0.5)}

    def profile(stream: str) -> Profile:
        ranges = limits | (shares if not stream else {"empty": (0, 0.3)})
        statistics = {
            name: Limits(low * scale, (low + high) / 2 * scale, high * scale) for name, (low, high) in ranges.items()
        }
        statistics["empty"] = Limits(0.05 * scale, 0.2 * scale, statistics["empty"].high)
        rising = [min(1.0, scale * index / (len(EDGES) - 1)) for index in range(1, len(EDGES))] + [1.0]
        classes = {
            name: ClassProfile(scale / len(version.contract.class_names), 0.1 * scale, 0.9 * scale)
            for name in version.contract.class_names
        }
        return Profile(
            stream, None, 24, 1000, statistics, rising, rising if not stream else [], classes if not stream else {}
        )

    made = Baseline(
        FORMAT,
        MODEL,
        1,
        version.contract.fingerprint,
        time.time() - age,
        "drawn up by a test",
        10.0,
        EDGES,
        [profile(""), profile(STREAM)],
    )
    aside = version.folder / "baseline.tmp"
    aside.write_bytes(msgspec.json.encode(made))
    aside.rename(version.folder / repository.BASELINE)


def called(server: running.Server) -> Client:
    """A client that the server lets in."""
    return Client(server.address, tls=server.tls, token=server.token)


class Traffic:
    """A stream and single images, at a gentle pace, until told otherwise."""

    def __init__(self, server: running.Server) -> None:
        self.pictures = [street.bgr for street in streets(24)]
        self._client = called(server)
        self.send: Callable[[Any, int], ImageLike] = faults.raw
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._single, self._stream)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._stopped.set()
        self._client.close()  # a frame that waits for a worker would wait for ever
        for thread in self._threads:
            thread.join()

    def frames(self, pause: float) -> Iterator[ImageLike]:
        for index in itertools.count():
            if self._stopped.wait(pause):
                return
            yield self.send(self.pictures[index % len(self.pictures)], index)

    def _single(self) -> None:
        for image in self.frames(1.8):
            with contextlib.suppress(VedetteError, ValueError):  # no server, no worker, or a client that is closed
                self._client.detect(image)

    def _stream(self) -> None:
        while not self._stopped.wait(0.2):
            with contextlib.suppress(VedetteError, ValueError):
                for _ in self._client.stream(self.frames(0.7), policy="LOSSLESS", stream_id=STREAM, max_in_flight=1):
                    pass


@dataclass
class Scene:
    """The victims of trouble."""

    server: running.Server
    traffic: Traffic
    root: Path  # the repository
    authority: Authority  # of its certificate, which is called "server"
    policy: Path


Trouble: TypeAlias = Callable[[Scene], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def sending(at: Scene, send: Callable[[Any, int], ImageLike]) -> Iterator[None]:
    at.traffic.send = send
    try:
        yield
    finally:
        at.traffic.send = faults.raw


def black(at: Scene) -> contextlib.AbstractContextManager[None]:
    """Every camera is covered."""
    return sending(at, faults.FAULTS["black camera"].send)


def tinted(at: Scene) -> contextlib.AbstractContextManager[None]:
    """A white balance has gone wrong, and a leaf hangs before the upper half of the lens."""

    def send(bgr: Any, _index: int) -> ImageLike:
        seen = bgr * (0.3, 1.0, 1.0)
        seen[: len(seen) // 2] *= 0.3
        return faults.raw(seen.astype(np.uint8))

    return sending(at, send)


def swapped(at: Scene) -> contextlib.AbstractContextManager[None]:
    """Red and blue are exchanged."""
    return sending(at, faults.FAULTS["channels swapped"].send)


@contextlib.contextmanager
def asking(at: Scene, callers: int, ask: Callable[[Client, int], object]) -> Iterator[None]:
    """So many callers at once, each as fast as it is answered."""
    over = threading.Event()

    def call(number: int) -> None:
        with called(at.server) as client:
            while not over.is_set():
                with contextlib.suppress(VedetteError):
                    ask(client, number)
                over.wait(0.05)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def burst(at: Scene) -> contextlib.AbstractContextManager[None]:
    """More is asked than one worker can answer; streams have their turn all the same."""
    picture = faults.raw(at.traffic.pictures[0])
    return asking(at, 48, lambda client, _number: client.detect(picture))


def broken(at: Scene) -> contextlib.AbstractContextManager[None]:
    """A caller declares other sizes than it sends."""
    raw = image_pb2.RawImage(data=b"too short", pixel_format=image_pb2.PIXEL_FORMAT_BGR8, height=480, width=640)
    request = pb.DetectRequest(image=image_pb2.Image(raw=raw))
    return asking(at, 2, lambda _client, _number: running.detect_unchecked(at.server, request))


def crowd(at: Scene) -> contextlib.AbstractContextManager[None]:
    """Cameras send more frames than can be looked at: live ones drop theirs, those of others grow old."""

    def frames(number: int) -> Iterator[ImageLike]:
        for _ in range(20):
            time.sleep(0.02)
            yield faults.raw(at.traffic.pictures[number])

    def stream(client: Client, number: int) -> None:
        policy: Literal["LATEST", "LOSSLESS"] = "LOSSLESS" if number % 2 else "LATEST"
        for _ in client.stream(frames(number), policy=policy, stream_id=f"crowd-{number}"):
            pass

    return asking(at, 12, stream)


@contextlib.contextmanager
def corrupted(at: Scene) -> Iterator[None]:
    """The classifier's weights become NaN in the worker's memory, just after it has proved that it sees.

    So do those of each that follows: it is replaced sooner than Prometheus looks.
    """
    passed = running.sample(at.server, PASSED)
    running.wait_for(lambda: running.sample(at.server, PASSED) > passed, "a check of the golden images")
    weights = load_file(at.root / MODEL / "1" / "model.safetensors")[CLASSIFIER].astype(np.float32)

    def corrupt(pid: int) -> int:
        addresses = memory.find(pid, weights.tobytes())
        memory.write(pid, addresses, np.full_like(weights, np.nan).tobytes())
        return len(addresses)

    (pid,) = at.server.worker_pids()
    assert corrupt(pid)
    with _each_worker(at, corrupt):
        yield


@contextlib.contextmanager
def killed(at: Scene) -> Iterator[None]:
    """Each worker is killed as soon as it is there: it is replaced sooner than Prometheus looks."""
    with _each_worker(at, lambda pid: os.kill(pid, signal.SIGKILL)):
        yield


@contextlib.contextmanager
def _each_worker(at: Scene, act: Callable[[int], object]) -> Iterator[None]:
    """Do something to every worker again and again, as long as the block runs."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.2):
            for pid in at.server.worker_pids():
                with contextlib.suppress(OSError):  # it has gone meanwhile
                    act(pid)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def recaptured(at: Scene) -> Iterator[None]:
    """Another baseline takes the place of the first."""
    baseline(at.root, scale=0.4, age=0.0)
    yield


@contextlib.contextmanager
def released(at: Scene) -> Iterator[None]:
    """Another version is put beside the first."""
    aside = at.root.parent / "2"
    shutil.copytree(at.root / MODEL / "1", aside)
    aside.rename(at.root / MODEL / "2")
    yield


@contextlib.contextmanager
def stilled(at: Scene) -> Iterator[None]:
    """The worker stands still."""
    pids = at.server.worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def refused(at: Scene) -> Iterator[None]:
    """A version that was cut short is put beside the others."""
    aside, there = at.root.parent / "9", at.root / MODEL / "9"
    shutil.copytree(at.root / MODEL / "1", aside)
    os.truncate(aside / "model.safetensors", 1000)
    aside.rename(there)
    try:
        yield
    finally:
        shutil.rmtree(there)


def intruded(at: Scene) -> contextlib.AbstractContextManager[None]:
    """Somebody tries tokens."""

    def knock(_client: Client, number: int) -> None:
        with Client(at.server.address, tls=at.server.tls, token=f"guess-{number}") as intruder:
            intruder.models()

    return asking(at, 2, knock)


@contextlib.contextmanager
def stalled(at: Scene) -> Iterator[None]:
    """A caller begins a request, and sends nothing of it."""
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait()
        yield from ()

    with running.channel(at.server) as channel:
        detect = channel.stream_unary("/vedette.v1.DetectionService/Detect", bytes, bytes)
        call = detect.future(nothing(), metadata=running.shown(at.server))
        try:
            yield
        finally:
            over.set()
            call.cancel()


@contextlib.contextmanager
def outdated(at: Scene) -> Iterator[None]:
    """The certificate is about to end."""
    at.authority.server(ends=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    try:
        yield
    finally:
        at.authority.server()


@contextlib.contextmanager
def garbled(at: Scene) -> Iterator[None]:
    """The policy is replaced by something that is none."""
    before = at.policy.read_text()
    at.policy.write_text("[[rules")
    try:
        yield
    finally:
        at.policy.write_text(before)


@contextlib.contextmanager
def stopped(at: Scene) -> Iterator[None]:
    """The server ends."""
    at.server.stop()
    yield
