"""Engines of predictors that misbehave as an image's first byte tells them to: real processes, no model."""

import ctypes
import gc
import struct
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from vedette_server.contract.answer import Answer, Detections, Evidence, StageTimes
from vedette_server.contract.image import PixelFormat, RawImage, SentImage
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.contract.options import Asked, Options
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.engine import Engine
from vedette_server.engine.query import Monitor, Outcome, Query
from vedette_server.engine.settings import PoolSettings
from vedette_server.engine.standing import State
from vedette_server.explain.findings import Code
from vedette_server.repository.repository import ModelVersion
from vedette_server.repository.shelf import RefusedVersion
from vedette_server.watch.probe import Probe

from tests.support import invariants
from tests.support.contracts import contract

KILL, RAISE, REFUSE, SLEEP, HANG, HANG_EARLY, HANG_LATE, EXHAUST, FILLED, BREAK = 1, 2, 3, 4, 5, 6, 8, 9, 10, 11


class Scripted:
    """Does what the first byte of an image says; else it answers with nothing found and the sum of the bytes."""

    max_batch = 1

    def __init__(self) -> None:
        assert gc.isenabled(), "workers collect their garbage, though what they share was imported without"
        self.born = time.monotonic()

    def prepare(self, image: SentImage, options: Options) -> tuple[bytes, Options]:
        data = image.data
        if data[0] == REFUSE:
            raise Refused(Reason.IMAGE_TRUNCATED, bytes=len(data), codec="TEST")
        if data[0] == HANG_EARLY:
            threading.Event().wait()
        return bytes(data), options

    def infer(self, images: Sequence[tuple[bytes, Options]]) -> list[tuple[bytes, Options]]:
        for data, _options in images:
            match data[0]:
                case 1:  # KILL: as a bug in compiled code ends a process
                    ctypes.string_at(0)
                case 2:  # RAISE
                    raise ValueError("a secret of the model's")
                case 4:  # SLEEP
                    time.sleep(0.5)
                case 5:  # HANG
                    threading.Event().wait()
                case 9:  # EXHAUST
                    bytearray(2**60)
                case 10 if self.born < struct.unpack_from("d", data, 1)[0]:  # FILLED: all memory of older workers is
                    raise MemoryError
                case 11:  # BREAK
                    raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return list(images)

    def encode(self, inferred: tuple[bytes, Options]) -> Answer:
        data, options = inferred
        if data[0] == HANG_LATE:
            threading.Event().wait()
        nothing = Detections(
            boxes=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32), class_ids=np.zeros(0, np.int32)
        )
        evidence = Evidence(best_scores=np.frombuffer(data, np.uint8).sum(dtype=np.float64)[None], scored=1)
        return Answer(
            height=1,
            width=1,
            threshold=options.threshold,
            detections=nothing,
            evidence=evidence,
            times=StageTimes(0, 0, 0, 0),
        )


def scripted(**_start: object) -> Scripted:
    return Scripted()


class Batching(Scripted):
    """Answers each image with the size of its batch."""

    max_batch = 4

    def infer(self, images: Sequence[tuple[bytes, Options]]) -> list[tuple[bytes, Options]]:
        if len(images) > 1 and any(data[0] == RAISE for data, _ in images):
            raise ValueError("this device has too little memory")
        super().infer(images)
        return [(bytes([len(images)]), options) for _, options in images]


def batching(**_start: object) -> Batching:
    return Batching()


class Block:
    """Memory that a batch takes."""


class Hoarding(Batching):
    """Fails on a batch, and answers each image alone with whether the batch's memory is still there."""

    block: weakref.ref[Block] | None = None

    def infer(self, images: Sequence[tuple[bytes, Options]]) -> list[tuple[bytes, Options]]:
        if len(images) > 1:
            block = Block()
            self.block = weakref.ref(block)
            raise MemoryError
        Scripted.infer(self, images)
        kept = self.block is not None and self.block() is not None
        return [(bytes([kept]), options) for _, options in images]


def hoarding(**_start: object) -> Hoarding:
    return Hoarding()


def unloadable(**_start: object) -> Scripted:
    raise RuntimeError("a tensor is missing")


class Silent:
    def loaded(self, model: ModelVersion) -> None: ...
    def unloaded(self, model: ModelVersion) -> None: ...
    def answered(self, outcome: Outcome) -> None: ...
    def refused(self, model: str, version: str, reason: Reason) -> None: ...
    def dropped(self, model: str, version: str, source: str, reason: str) -> None: ...
    def state(
        self, model: ModelVersion, *, workers: int, wanted: int, queued: int, running: int, restarts: int
    ) -> None: ...
    def owes(self, model: ModelVersion, since: float | None) -> None: ...
    def streams(self, count: int) -> None: ...
    def suspected(self, model: ModelVersion, source: str, cause: str | None) -> None: ...
    def golden(self, model: ModelVersion, cause: Code | None) -> None: ...
    def lost(self, model: ModelVersion, causes: Mapping[str, int]) -> None: ...
    def set_aside(self, versions: Sequence[RefusedVersion]) -> None: ...
    def disagrees(self, model: ModelVersion, predecessor: ModelVersion, share: float) -> None: ...
    def batch(self, model: ModelVersion, size: int) -> None: ...


MODEL = ModelVersion(name="test", version=1, folder=Path(), description="", contract=contract(), golden=())
SETTINGS = PoolSettings(
    factory="tests.support.scripted:scripted",
    workers=2,
    threads=1,
    devices=("cpu",),
    max_queued=4,
    max_queued_bytes=10_000_000,
    violated=invariants.note,
)


def query(first: int, size: int = 300, seconds: float | None = None) -> Query:
    data = bytes([first]) + bytes([7]) * (size - 1)
    width = min(size // 3, 1000)
    image = SentImage(RawImage(PixelFormat.BGR8, size // 3 // width, width), data)
    return Query(model="", version="", image=image, asked=Asked(), seconds=seconds)


async def started(
    settings: PoolSettings,
    until: State = State.READY,
    monitor: Monitor | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Engine:
    monitor = monitor or Silent()
    engine = Engine(settings, monitor, Probe(monitor), max_seconds=60, clock=clock)
    engine.load(MODEL)
    while engine.served[0].standing.state is not until:
        engine.changed.clear()
        await engine.changed.wait()
    return engine


def starved(**_start: object) -> Scripted:
    raise LoadRefusedError(Check.INFERENCE_FAILS, "CUDA out of memory") from MemoryError()
