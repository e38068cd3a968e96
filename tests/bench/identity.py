"""A server whose predictor does nothing, to measure what the gateway itself costs: `python -m tests.bench.identity`.

Prints its port, then serves until its input ends.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from vedette_server import logs
from vedette_server.addresses import Tcp
from vedette_server.contract.answer import Answer, Detections, Evidence, StageTimes
from vedette_server.contract.contract import ImageLimits
from vedette_server.contract.image import SentImage
from vedette_server.contract.options import Options
from vedette_server.engine.engine import Engine
from vedette_server.engine.settings import PoolSettings
from vedette_server.engine.standing import State
from vedette_server.monitor.metrics import Metrics
from vedette_server.pool import memory
from vedette_server.repository.repository import ModelVersion
from vedette_server.rpc.server import RpcServer
from vedette_server.watch.probe import Probe

from tests.support.contracts import contract


class Identity:
    """Answers at once, with nothing found."""

    max_batch = 1

    def prepare(self, image: SentImage, options: Options) -> Options:
        del image
        return options

    def infer(self, images: Sequence[Options]) -> Sequence[Options]:
        return images

    def encode(self, inferred: Options) -> Answer:
        nothing = Detections(
            boxes=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32), class_ids=np.zeros(0, np.int32)
        )
        return Answer(
            height=1,
            width=1,
            threshold=inferred.threshold,
            detections=nothing,
            evidence=Evidence(best_scores=np.zeros(0, np.float32)),
            times=StageTimes(0, 0, 0, 0),
        )


def identity(**_start: object) -> Identity:
    return Identity()


async def main() -> None:
    logs.configure("json")  # to standard error
    root = str(Path(__file__).parents[2])  # workers import only what is installed, or named here
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.getenv("PYTHONPATH")])])
    memory.keep_freed()
    model = ModelVersion(
        name="identity", version=1, folder=Path(), description="", contract=contract(limits=ImageLimits()), golden=()
    )
    settings = PoolSettings(
        factory="tests.bench.identity:identity",
        workers=1,
        threads=1,
        devices=("cpu",),
        max_queued=64,
        max_queued_bytes=2**30,
    )
    metrics = Metrics()
    engine = Engine(settings, metrics, Probe(metrics), max_seconds=30)
    server = RpcServer(engine, ImageLimits().max_bytes, 1)
    address = await server.start(Tcp("127.0.0.1", 0))
    served = engine.load(model)
    while served.standing.state is not State.READY:
        engine.changed.clear()
        await engine.changed.wait()
    print(address.rpartition(":")[2], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)
    await engine.stop()


if __name__ == "__main__":
    asyncio.run(main())
