"""The main program of a worker process: load one predictor, then answer jobs until the gateway is gone.

Three threads overlap: one receives and prepares images, the main thread infers, one encodes and sends. The gateway
bounds their queues: a worker gets one batch beyond the one being inferred.

The fork server (`forks.py`) forks it after the imports.
"""

import contextlib
import importlib
import os
import queue
import socket
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from vedette_server.contract.answer import Answer
from vedette_server.contract.contract import InputContract
from vedette_server.contract.image import SentImage
from vedette_server.contract.loading import Check, LoadRefusedError
from vedette_server.contract.options import Options
from vedette_server.contract.refusal import Refused
from vedette_server.pool import device, oom, slots
from vedette_server.pool.channel import ChannelClosedError, WorkerEnd
from vedette_server.pool.messages import Alive, Batch, Done, Failed, FromWorker, Job, LoadFailed, Ready, Refusal, Start

BEAT_SECONDS = 1.0  # between signs of life from an idle inference loop

Prepared = TypeVar("Prepared")
Inferred = TypeVar("Inferred")
Result = TypeVar("Result")


class StagedPredictor(Protocol[Prepared, Inferred]):
    """A model as a worker uses it: an answer in three stages, each on its own thread."""

    max_batch: int  # largest batch that pays off; 1: single images only

    def prepare(self, image: SentImage, options: Options) -> Prepared:
        """Decode and resize one image, whose bytes are invalid after that. Raises `Refused`."""

    def infer(self, images: Sequence[Prepared]) -> Sequence[Inferred]:
        """Run the model on a batch, always in the thread that loaded it."""

    def encode(self, inferred: Inferred) -> Answer:
        """Encode the answer for one image."""


class Factory(Protocol):
    """A callable that makes a predictor."""

    def __call__(self, folder: Path, contract: InputContract, device: str, threads: int) -> StagedPredictor[Any, Any]:
        """Load the predictor."""


def _load(start: Start) -> StagedPredictor[Any, Any]:
    module, _, name = start.factory.partition(":")
    factory: Factory = getattr(importlib.import_module(module), name)
    return factory(folder=Path(start.folder), contract=start.contract, device=start.device, threads=start.threads)


class _Pipeline(Generic[Prepared, Inferred]):
    """The three stages and the queues between them."""

    def __init__(self, channel: WorkerEnd, predictor: StagedPredictor[Prepared, Inferred]) -> None:
        self._channel = channel
        self._predictor = predictor
        self._slots: dict[int, memoryview] = {}
        self._to_infer: queue.SimpleQueue[Sequence[tuple[Job, Prepared]]] = queue.SimpleQueue()
        self._to_encode: queue.SimpleQueue[tuple[Job, Inferred]] = queue.SimpleQueue()

    def run(self) -> None:
        """Infer prepared images, and prove that this loop is alive. It never returns: see `until_closed`."""
        for stage in (self._prepare, self._encode):
            threading.Thread(target=until_closed, args=(stage,), daemon=True).start()
        while True:
            try:
                batch = self._to_infer.get(timeout=BEAT_SECONDS)
            except queue.Empty:
                self._channel.send(Alive())
                continue
            inferred = self._infer(batch)
            self._channel.send(Alive(tuple(job.job_id for job, _ in batch)))
            for pair in inferred:
                self._to_encode.put(pair)

    def _infer(self, batch: Sequence[tuple[Job, Prepared]]) -> Sequence[tuple[Job, Inferred]]:
        """Run the model; if it fails on a batch, retry each image alone."""
        if len(batch) == 1:
            ((job, image),) = batch
            inferred = self._guarded(job, lambda: self._predictor.infer([image])[0])
            return [] if inferred is None else [(job, inferred)]
        # A failure is reported when an image fails alone. Retry after the exception is gone, and with it the batch's
        # memory.
        with contextlib.suppress(Exception):
            return list(
                zip((job for job, _ in batch), self._predictor.infer([image for _, image in batch]), strict=True)
            )
        return [pair for one in batch for pair in self._infer([one])]

    def _prepare(self) -> None:
        while True:
            message, descriptors = self._channel.receive()
            assert isinstance(message, Batch)  # noqa: S101  the protocol's only other message
            for job in message.jobs:
                if job.fresh:
                    self._slots[job.slot] = slots.view(descriptors.pop(0))
            images = [(job, self._prepare_one(job)) for job in message.jobs]
            if ready := [(job, image) for job, image in images if image is not None]:
                self._to_infer.put(ready)

    def _prepare_one(self, job: Job) -> Prepared | None:
        image = SentImage(job.spec, self._slots[job.slot][: job.size])
        return self._guarded(job, lambda: self._predictor.prepare(image, job.options))

    def _encode(self) -> None:
        while True:
            job, inferred = self._to_encode.get()
            self._guarded(job, lambda: self._answer(job, inferred))  # noqa: B023  called before the next iteration

    def _answer(self, job: Job, inferred: Inferred) -> None:
        self._channel.send(Done(job.job_id, self._predictor.encode(inferred)))

    def _guarded(self, job: Job, call: Callable[[], Result]) -> Result | None:
        """Run one stage; a failure is reported as that job's, and the worker continues."""
        reply: FromWorker
        try:
            return call()
        except Refused as refusal:
            reply = Refusal(job.job_id, refusal.reason, refusal.facts)
        except ConnectionError:  # the gateway is gone
            raise
        except Exception as error:  # models may raise anything
            # Other threads may lack memory too, and on a failed GPU nothing succeeds any more. The process ends, and
            # the job is retried in another.
            if oom.lacked(error) or device.failed(error):
                raise
            reply = Failed(job.job_id, traceback.format_exc())
        self._channel.send(reply)
        return None


def until_closed(run: Callable[[], object]) -> None:
    """Run a thread, or the whole process; exit at once if the gateway is gone or this has a bug."""
    try:
        run()
    except (ChannelClosedError, BrokenPipeError, ConnectionResetError):
        os._exit(0)
    except BaseException as error:  # noqa: BLE001  a worker without one of its threads would hang
        traceback.print_exc()
        os._exit(_status(error))


def _status(error: BaseException) -> int:
    """Return the exit status that encodes the error."""
    if oom.lacked(error):
        return oom.EXIT_STATUS
    return device.EXIT_STATUS if device.failed(error) else 1


def serve(sock: socket.socket) -> None:
    """Load the predictor named in the first message, then answer jobs until the channel closes."""
    channel = WorkerEnd(sock)
    start, _ = channel.receive()
    assert isinstance(start, Start)  # noqa: S101  the protocol's first message
    try:
        predictor = _load(start)
    except LoadRefusedError as error:
        refusal = LoadRefusedError(Check.OUT_OF_MEMORY, error.seen) if oom.lacked(error) else error
        channel.send(LoadFailed(str(refusal), refusal.check))
        return
    except Exception as error:  # noqa: BLE001  loading may raise anything, for the operator's log
        check = Check.OUT_OF_MEMORY if oom.lacked(error) else None
        channel.send(LoadFailed(traceback.format_exc(), check))
        return
    channel.send(Ready(predictor.max_batch))
    _Pipeline(channel, predictor).run()
