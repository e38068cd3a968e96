"""The cost of counting: the share of a request, and a page with as many series as there may be."""

import asyncio
import dataclasses
import gc
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from vedette_server.app import PREDICTOR
from vedette_server.contract.image import EncodedImage, SentImage
from vedette_server.contract.options import Asked
from vedette_server.engine.engine import Engine
from vedette_server.engine.query import Query
from vedette_server.engine.settings import PoolSettings
from vedette_server.engine.standing import State
from vedette_server.monitor import streams
from vedette_server.monitor.metrics import Metrics
from vedette_server.repository.repository import ModelVersion
from vedette_server.watch.probe import Probe

from tests.support.contracts import contract
from tests.support.outcomes import outcome

REQUESTS, WARM_UP = 60, 10
MODELS, CLASSES, STREAMS = 10, 80, 200
SCRAPE_SECONDS = 15  # between two, as Prometheus' example has it
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


class Timed:
    """A monitor whose every call is timed."""

    def __init__(self, monitor: Metrics) -> None:
        self._monitor = monitor
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Callable[..., None]:
        call = getattr(self._monitor, name)

        def timed(*given: Any, **named: Any) -> None:
            started = time.perf_counter()
            call(*given, **named)
            self.seconds += time.perf_counter() - started

        return timed


async def _shares(version: ModelVersion, threads: int, data: bytes) -> list[float]:
    """The share that counting has in each of some requests, one after the other, as a stream's frames."""
    metrics = Timed(Metrics())
    settings = PoolSettings(
        factory=PREDICTOR,
        workers=1,
        threads=threads,
        devices=("cpu",),
        max_queued=64,
        max_queued_bytes=2**30,
        golden_seconds=0,
    )
    engine = Engine(settings, metrics, Probe(metrics), max_seconds=30)
    served = engine.load(version)
    while served.standing.state is not State.READY:
        engine.changed.clear()
        await engine.changed.wait()
    shares = []
    for _ in range(WARM_UP + REQUESTS):
        before, started = metrics.seconds, time.perf_counter()
        query = Query(
            model="",
            version="",
            image=SentImage(EncodedImage(), data),
            asked=Asked(),
            seconds=None,
            source="gate",
            request_id="bench",
            captured=0,
        )
        await engine.detect(query)
        shares.append((metrics.seconds - before) / (time.perf_counter() - started))
    await engine.stop()
    return shares[WARM_UP:]


def cost(version: ModelVersion, threads: int, data: bytes) -> Table:
    """The share of a request of the bundled model that is spent on its metrics."""
    shares = asyncio.run(_shares(version, threads, data))
    metrics = Metrics()
    metrics.loaded(version)
    times = []
    for _ in range(REQUESTS):
        started = time.perf_counter()
        metrics.page(OPEN_METRICS)
        times.append(time.perf_counter() - started)
    table = Table("Metrics", "share (median)")
    table.add_row("of a request, counting it", f"{statistics.median(shares):.2%}")
    table.add_row(f"of the time, a scrape every {SCRAPE_SECONDS} s", f"{statistics.median(times) / SCRAPE_SECONDS:.2%}")
    return table


def cardinality() -> Table:
    """As many series as many models, classes and streams may make; in a process of its own, for its memory."""
    ran = subprocess.run([sys.executable, "-m", "tests.bench.vigilance"], capture_output=True, text=True, check=True)
    table = Table(
        "Cardinality", "seen", title=f"{MODELS} models x {CLASSES} classes x {STREAMS} streams offered to each"
    )
    for line in ran.stdout.splitlines():
        table.add_row(*line.split("\t"))
    return table


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _measure_cardinality() -> None:
    names = tuple(f"class {number}" for number in range(CLASSES))
    models = [
        ModelVersion(
            name=f"model {number}",
            version=1,
            folder=Path(),
            description="",
            contract=dataclasses.replace(contract(), class_names=names),
            golden=(),
        )
        for number in range(MODELS)
    ]
    gc.collect()
    before = _resident()
    metrics = Metrics()
    for model in models:
        metrics.loaded(model)
        for number in range(STREAMS):
            given = outcome(*[0.9] * CLASSES, model=model, source=f"camera {number}")
            given.answer.detections.class_ids[:] = np.arange(CLASSES)
            metrics.answered(given)
            metrics.answered(outcome(model=model, source=f"camera {number}"))
    gc.collect()
    grown = _resident() - before
    times = []
    for _ in range(5):
        started = time.process_time()
        page, _ = metrics.page(OPEN_METRICS)
        times.append(time.process_time() - started)
    lines = [line for line in page.decode().splitlines() if not line.startswith("#")]
    with_stream = [line for line in lines if 'stream="camera' in line]
    folded = next(line.rpartition(" ")[2] for line in lines if 'labels_folded_total{label="stream"}' in line)
    print(f"series on the page\t{len(lines)}")
    print(f"of these with a stream's name (at most {streams.MOST} streams)\t{len(with_stream)}")
    print(f"answers folded into _other\t{float(folded):.0f} of {2 * MODELS * STREAMS}")
    print(f"memory, MB\t{grown / 1e6:.0f}")
    print(f"page, MB\t{len(page) / 1e6:.1f}")
    print(f"rendering the page, seconds of a core\t{statistics.median(times):.2f}")


if __name__ == "__main__":
    _measure_cardinality()
