"""`make bench`: what serving costs, as ratios to the bare predictor within one run; machines here are shared and noisy.

Each picture is answered in turn by the bare predictor in this process and by a server with one worker, both with the
same number of threads, so that both see the same noise.
"""

import asyncio
import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import grpc
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub
from vedette_client import Client, ImageLike, Raw
from vedette_server.contract import convert
from vedette_server.contract.image import EncodedImage, PixelFormat, RawImage, SentImage
from vedette_server.contract.options import defaults
from vedette_server.demo import scenes
from vedette_server.demo.publish import jpeg
from vedette_server.predictor.predictor import Predictor, load
from vedette_server.repository import repository
from vedette_server.repository.repository import ModelVersion
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.bench import load as load_test
from tests.bench import vigilance
from tests.support import running

ROUNDS, WARM_UP = 40, 5
FINE_ROUNDS = 200  # where a difference of a hundredth counts
PAUSE = 0.05  # seconds before each call, in which the threads of the one before have gone to sleep


def clock(call: Callable[[], object], pause: float = PAUSE) -> float:
    time.sleep(pause)
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def compare(
    bare: Callable[[], object], served: Callable[[], object], rounds: int = ROUNDS, pause: float = PAUSE
) -> tuple[float, float, float]:
    """Median seconds of each, and the median of their ratios pair by pair; which goes first alternates."""
    pairs = []
    for number in range(WARM_UP + rounds):
        if number % 2:
            second, first = clock(served, pause), clock(bare, pause)
        else:
            first, second = clock(bare, pause), clock(served, pause)
        pairs.append((first, second))
    del pairs[:WARM_UP]
    ratios = [second / first for first, second in pairs]
    return (
        statistics.median(first for first, _ in pairs),
        statistics.median(second for _, second in pairs),
        statistics.median(ratios),
    )


def contract_share(predictor: Predictor, version: ModelVersion, image: SentImage) -> tuple[float, float]:
    """Median shares of checking, and of decoding and converting, in what an image costs in all."""
    options = defaults(version.contract)
    checks, decodes = [], []
    for _ in range(ROUNDS):
        checked = clock(lambda: convert.check(image, version.contract))
        whole = clock(lambda: predictor.predict(image, options))
        converted = clock(lambda: convert.decode(image))
        checks.append(checked / (checked + whole))
        decodes.append(converted / (checked + whole))
    return statistics.median(checks), statistics.median(decodes)


def observation(version: ModelVersion, threads: int) -> Table:
    """The cost of observing the model: the bare predictor with and without it, picture by picture."""
    table = Table("Observation", "without, ms", "with, ms", "ratio (median of pairs)")
    options = defaults(version.contract)
    blind = load(version.folder, version.contract, "cpu", threads, observe=False)
    seeing = load(version.folder, version.contract, "cpu", threads)
    for name, seed, quiet in (("signs", 3_000_001, False), ("no sign", 3_000_002, True)):
        image = SentImage(EncodedImage(), jpeg(scenes.draw(scenes.describe(seed, quiet=quiet)).pixels))
        without, watched, ratio = compare(
            functools.partial(blind.predict, image, options),
            functools.partial(seeing.predict, image, options),
            FINE_ROUNDS,
            pause=0,  # both run in this process, on the same threads
        )
        table.add_row(name, f"{without * 1000:.1f}", f"{watched * 1000:.1f}", f"{ratio:.3f}")
    return table


def gateway_cost() -> Table:
    """The cost of a request with a predictor that does nothing: client, transport, gateway, worker's channel."""
    table = Table("The gateway's own cost", "median, ms")
    command = [sys.executable, "-m", "tests.bench.identity"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        with Client(f"127.0.0.1:{process.stdout.readline().strip()}") as client:
            for name, height, width in (("200 B", 7, 9), ("200 KB", 230, 290), ("6 MB", 1080, 1920)):
                image = Raw(bytes(height * width * 3), pixel_format="BGR8", height=height, width=width)
                times = [clock(functools.partial(client.detect, image)) for _ in range(WARM_UP + ROUNDS)][WARM_UP:]
                table.add_row(name, f"{statistics.median(times) * 1000:.2f}")
        process.communicate()
    return table


def efficiency(rounds: int = 5, seconds: float = 8.0) -> Table:
    """Saturated throughput of two workers against two bare predictors, in turn, on the same cores."""
    command = [sys.executable, "-m", "tests.bench.bare", "1"]
    bare = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(load_test.WORKERS)
    ]

    def bare_rate() -> float:
        for process in bare:
            assert process.stdin is not None
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        return sum(int(process.stdout.readline()) for process in bare if process.stdout) / seconds

    async def served_rate(address: str) -> float:
        async with grpc.aio.insecure_channel(address, options=load_test.OPTIONS) as channel:
            return (await load_test.capacity(DetectionServiceStub(channel), seconds))[0]

    with load_test.server() as server:
        for process in bare:
            assert process.stdout is not None
            process.stdout.readline()
        rates = [(bare_rate(), asyncio.run(served_rate(server.address))) for _ in range(rounds)]
    for process in bare:
        process.communicate()
    table = Table("Saturated throughput", "bare, a second", "served, a second", "ratio (median of pairs)")
    first, second = (statistics.median(column) for column in zip(*rates, strict=True))
    ratio = statistics.median(served / alone for alone, served in rates)
    table.add_row(f"{load_test.WORKERS} processes, {rounds} rounds", f"{first:.1f}", f"{second:.1f}", f"{ratio:.3f}")
    return table


def main() -> None:
    """Measure and print."""
    threads = len(os.sched_getaffinity(0))
    (version,) = repository.read(BUNDLED_REPOSITORY)
    predictor = load(version.folder, version.contract, "cpu", threads)
    options = defaults(version.contract)
    pixels = scenes.draw(scenes.describe(3_000_001, quiet=False)).pixels
    large = np.asarray(Image.fromarray(pixels).resize((1920, 1080)))
    raw = RawImage(PixelFormat.BGR8, 1080, 1920)
    pictures: dict[str, tuple[SentImage, ImageLike]] = {
        "JPEG, 512 x 384": (SentImage(EncodedImage(), jpeg(pixels)), jpeg(pixels)),
        "JPEG, 1920 x 1080": (SentImage(EncodedImage(), jpeg(large)), jpeg(large)),
        "raw BGR, 1920 x 1080": (
            SentImage(raw, large[:, :, ::-1].tobytes()),
            Raw(large[:, :, ::-1].tobytes(), pixel_format="BGR8", height=1080, width=1920),
        ),
    }
    served = Table("Detect against the bare predictor", "bare, ms", "served, ms", "ratio (median of pairs)")
    shares = Table("Contract", "check, share of the whole", "decode and convert, share of the whole")
    with running.server("--threads", str(threads)) as server, Client(server.address) as client:
        for name, (sent, image) in pictures.items():
            bare, through, ratio = compare(
                functools.partial(predictor.predict, sent, options), functools.partial(client.detect, image)
            )
            served.add_row(name, f"{bare * 1000:.1f}", f"{through * 1000:.1f}", f"{ratio:.3f}")
    for name, (sent, _image) in pictures.items():
        check, converted = contract_share(predictor, version, sent)
        shares.add_row(name, f"{check:.2%}", f"{converted:.1%}")
    counting = vigilance.cost(version, threads, jpeg(pixels)), vigilance.cardinality()
    for table in (served, shares, observation(version, threads), *counting, gateway_cost(), efficiency()):
        Console(width=110).print(table)
    print(f"{ROUNDS} pairs each, {threads} threads")


if __name__ == "__main__":
    main()
