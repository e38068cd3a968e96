"""`make bench`: what serving costs, as ratios to the bare predictor within one run; machines here are shared and noisy.

Each picture is answered in turn by the bare predictor in this process and by a server with one worker, both with the
same number of threads, so that both see the same noise.
"""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from vedette_client import Client
from vedette_server.contract.image import EncodedImage, PixelFormat, RawImage
from vedette_server.demo import scenes
from vedette_server.demo.publish import jpeg
from vedette_server.predictor.predictor import Predictor, load
from vedette_server.repository import repository
from vedette_server.settings import BUNDLED_REPOSITORY

from tests import running

ROUNDS, WARM_UP = 40, 5


def clock(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def compare(bare: Callable[[], object], served: Callable[[], object]) -> tuple[float, float, float]:
    """Median seconds of each, and the median of their ratios pair by pair."""
    pairs = [(clock(bare), clock(served)) for _ in range(WARM_UP + ROUNDS)][WARM_UP:]
    ratios = [second / first for first, second in pairs]
    return (
        statistics.median(first for first, _ in pairs),
        statistics.median(second for _, second in pairs),
        statistics.median(ratios),
    )


def bare_predictor(threads: int) -> Predictor:
    (version,) = repository.read(BUNDLED_REPOSITORY)
    return load(version.folder, version.contract, "cpu", threads)


def main() -> None:
    threads = len(os.sched_getaffinity(0))
    predictor = bare_predictor(threads)
    pixels = scenes.draw(scenes.describe(3_000_001, quiet=False)).pixels
    data = jpeg(pixels)
    large = np.ascontiguousarray(np.asarray(Image.fromarray(pixels).resize((1920, 1080)))[:, :, ::-1])
    table = Table("Detect against the bare predictor", "bare, ms", "served, ms", "ratio (median of pairs)")
    with running.server("--threads", str(threads)) as server, Client(server.address) as client:
        rows = {
            "JPEG, 512 x 384": (
                lambda: predictor.predict(EncodedImage(), data, 0.5),
                lambda: client.detect(data),
            ),
            "raw BGR, 1920 x 1080": (
                lambda: predictor.predict(RawImage(PixelFormat.BGR8, 1080, 1920), large.data.cast("B"), 0.5),
                lambda: client.detect(large, pixel_format="BGR8"),
            ),
        }
        for name, (bare, served) in rows.items():
            first, second, ratio = compare(bare, served)
            table.add_row(name, f"{first * 1000:.1f}", f"{second * 1000:.1f}", f"{ratio:.3f}")
    Console(width=100).print(table)
    weights = Path(BUNDLED_REPOSITORY / "roadsigns/1/model.safetensors").stat().st_size
    print(f"{ROUNDS} pairs each, {threads} threads; weights {weights / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
