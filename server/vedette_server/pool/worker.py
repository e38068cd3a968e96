"""The inside of a worker process: load one predictor, then answer one job after another until the gateway is gone.

Started as `python -m vedette_server.pool.worker DESCRIPTOR`, the descriptor of its end of the channel.
"""

import importlib
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Protocol

from vedette_server.contract.answer import Answer
from vedette_server.contract.contract import InputContract
from vedette_server.contract.image import Buffer, ImageSpec
from vedette_server.contract.options import Options
from vedette_server.contract.refusal import Refused
from vedette_server.pool.channel import ChannelClosedError, WorkerEnd
from vedette_server.pool.messages import Done, Failed, FromWorker, Job, LoadFailed, Ready, Refusal, Start


class Predictor(Protocol):
    """What a worker needs of a model."""

    def predict(self, image: ImageSpec, data: Buffer, options: Options) -> Answer:
        """Answer one image. Raises `Refused`."""


class Factory(Protocol):
    """What makes a predictor."""

    def __call__(self, folder: Path, contract: InputContract, device: str, threads: int) -> Predictor:
        """Load it."""


def _load(start: Start) -> Predictor:
    module, _, name = start.factory.partition(":")
    factory: Factory = getattr(importlib.import_module(module), name)
    return factory(folder=Path(start.folder), contract=start.contract, device=start.device, threads=start.threads)


def _answer(predictor: Predictor, job: Job, data: memoryview) -> FromWorker:
    try:
        return Done(job.job_id, predictor.predict(job.image, data, job.options))
    except Refused as refusal:
        return Refusal(job.job_id, refusal.reason, refusal.facts)
    except Exception:  # noqa: BLE001  whatever a model raises is that job's failure, reported and survived
        return Failed(job.job_id, traceback.format_exc())


def serve(channel: WorkerEnd) -> None:
    """Load what the first message names, then answer jobs until the channel closes."""
    start, _ = channel.receive()
    assert isinstance(start, Start)  # noqa: S101  the protocol's first message
    try:
        predictor = _load(start)
    except Exception:  # noqa: BLE001  whatever loading raises goes to the operator's log
        channel.send(LoadFailed(traceback.format_exc()))
        return
    channel.send(Ready())
    while True:
        job, data = channel.receive()
        assert isinstance(job, Job)  # noqa: S101  the protocol's only other message
        channel.send(_answer(predictor, job, data))
        del data  # unmaps the image before the next one is waited for


def main() -> None:
    """Run until the gateway is gone; the terminal's Ctrl-C is the gateway's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        try:
            serve(WorkerEnd(sock))
        except (ChannelClosedError, BrokenPipeError, ConnectionResetError):
            return


if __name__ == "__main__":
    main()
