"""`make bench-triton`: this server, Triton with stock Detectron2, and Triton with an exported model, side by side.

All have the bundled model in two instances of one thread; all get the same pictures from the same client, and give
boxes, scores, classes and masks. Stock Detectron2 runs with NumPy 1, for which Triton's Python backend was built.
"""

import argparse
import contextlib
import itertools
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from rich.console import Console
from rich.table import Table
from vedette_server.demo import scenes
from vedette_server.demo.publish import jpeg
from vedette_server.repository import repository
from vedette_server.repository.repository import ModelVersion
from vedette_server.settings import BUNDLED_REPOSITORY, Settings
from vedette_server.triton.export import Placement, export

from tests.support import running, tritons

DEFAULTS = Settings()
INSTANCES, CALLERS = 2, (1, 4, 8)
OUTPUTS = ("BOXES", "SCORES", "CLASSES", "MASKS_RLE")
OURS, STOCK, EXPORTED = "this server", "Triton, stock Detectron2", "Triton, exported model"
_CONFIG = """
name: "stock" backend: "python" max_batch_size: 0
input [{{ name: "ENCODED" data_type: TYPE_UINT8 dims: [-1] }}]
output [
  {{ name: "BOXES" data_type: TYPE_FP32 dims: [-1, 4] }}, {{ name: "SCORES" data_type: TYPE_FP32 dims: [-1] }},
  {{ name: "CLASSES" data_type: TYPE_INT64 dims: [-1] }}, {{ name: "MASKS_RLE" data_type: TYPE_STRING dims: [-1] }}
]
instance_group [{{ kind: KIND_CPU count: {instances} }}]
parameters {{ key: "EXECUTION_ENV_PATH" value {{ string_value: "{environment}" }} }}
parameters {{ key: "threads" value {{ string_value: "1" }} }}
parameters {{ key: "threshold" value {{ string_value: "{threshold}" }} }}
parameters {{ key: "version" value {{ string_value: "{version}" }} }}
"""


@dataclass(frozen=True)
class Served:
    """A model that answers at an address."""

    address: str
    model: str


@dataclass(frozen=True)
class Figures:
    """The figures of one measurement."""

    throughput: float  # answers a second
    p99: float  # seconds


@contextlib.contextmanager
def systems() -> Iterator[Mapping[str, Served]]:
    """Run all three at once; only one is measured at a time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = repository.find(BUNDLED_REPOSITORY, "roadsigns")
        environment = tritons.environment(folder / "new")
        placement = Placement(
            environment=environment,
            devices=("cpu",),
            instances=INSTANCES,
            threads=1,
            golden_seconds=DEFAULTS.golden_seconds,
            diagnose_share=DEFAULTS.diagnose_share,
        )
        export(model, folder / "models", placement)
        _write_stock(folder, model)
        flags = ("--threads", "1", "--workers", str(INSTANCES))
        with running.server(*flags) as ours, tritons.server(folder / "models") as theirs:
            yield {
                OURS: Served(ours.address, "roadsigns"),
                STOCK: Served(theirs.address, "stock"),
                EXPORTED: Served(theirs.address, "roadsigns"),
            }


def _write_stock(folder: Path, model: ModelVersion) -> None:
    environment = tritons.environment(folder / "old", tritons.INSTALLED)
    target = folder / "models" / "stock" / "1"
    target.mkdir(parents=True)
    (target / "model.py").write_bytes(Path(__file__).with_name("triton_stock.py").read_bytes())
    config = _CONFIG.format(
        instances=INSTANCES,
        environment=environment,
        threshold=model.contract.default_threshold,
        version=model.folder,
    )
    target.with_name("config.pbtxt").write_text(config)


def measure(served: Served, files: list[bytes], callers: int, seconds: float) -> Figures:
    """Ask with so many callers at once."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    def call(first: int) -> None:
        with triton.InferenceServerClient(served.address) as client:
            for number in itertools.count(first):
                began = time.perf_counter()
                if began >= end:
                    return
                ask(client, served.model, files[number % len(files)])
                times.append(time.perf_counter() - began)

    began = time.perf_counter()
    threads = [threading.Thread(target=call, args=(7 * number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Figures(len(times) / (time.perf_counter() - began), float(np.percentile(times, 99)))


def ask(client: Any, model: str, data: bytes) -> Any:
    """Send one picture."""
    image = triton.InferInput("ENCODED", [len(data)], "UINT8")
    image.set_data_from_numpy(np.frombuffer(data, np.uint8))
    return client.infer(model, [image], outputs=[triton.InferRequestedOutput(name) for name in OUTPUTS])


def check(served: Mapping[str, Served], data: bytes) -> None:
    """Make sure that all find the same."""
    found = []
    for one in served.values():
        with triton.InferenceServerClient(one.address) as client:
            found.append(ask(client, one.model, data).as_numpy("BOXES"))
    assert all(len(one) == len(found[0]) and np.allclose(one, found[0], atol=0.01) for one in found)


def main() -> None:
    """Measure in rounds, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    given = parser.parse_args()
    files = [jpeg(scenes.draw(scenes.describe(3_200_000 + number, quiet=False)).pixels) for number in range(40)]
    figures: dict[tuple[str, int], list[Figures]] = defaultdict(list)
    with systems() as served:
        check(served, files[0])
        for one in served.values():
            measure(one, files, max(CALLERS), 2.0)
        for turn, callers in itertools.product(range(given.rounds), CALLERS):
            names = [*served]
            for name in names[turn % 3 :] + names[: turn % 3]:
                figures[name, callers].append(measure(served[name], files, callers, given.seconds))
    Console(width=110).print(table(figures))


def table(figures: Mapping[tuple[str, int], list[Figures]]) -> Table:
    """The medians, and their ratios to those of stock Detectron2 in Triton."""
    shown = Table("callers", "system", "answers a second", "of stock", "p99, ms", "of stock")
    for callers, name in itertools.product(CALLERS, (OURS, STOCK, EXPORTED)):
        (rate, slow), (base_rate, base_slow) = (
            (statistics.median(one.throughput for one in rounds), statistics.median(one.p99 for one in rounds))
            for rounds in (figures[name, callers], figures[STOCK, callers])
        )
        ratios = f"{rate / base_rate:.2f}", f"{slow / base_slow:.2f}"
        shown.add_row(str(callers), name, f"{rate:.1f}", ratios[0], f"{slow * 1e3:.0f}", ratios[1])
    return shown


if __name__ == "__main__":
    main()
