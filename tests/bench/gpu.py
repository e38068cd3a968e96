"""`make gpu`: what serving on a GPU costs and gives, beside Detectron2's own predictor on the same card.

The zoo's R50-FPN models at COCO's size have random weights, spread as trained ones', and give 15 objects an image.
"""

import asyncio
import contextlib
import functools
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode
from PIL import Image
from rich.console import Console
from rich.table import Table
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1 import image_pb2
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub
from vedette_server import importer
from vedette_server.contract.contract import Names
from vedette_server.contract.image import EncodedImage, SentImage
from vedette_server.contract.options import Asked, resolve
from vedette_server.contract.types import UInt8Array
from vedette_server.demo import scenes
from vedette_server.demo.publish import jpeg
from vedette_server.predictor.config import plain
from vedette_server.predictor.predictor import Predictor, load
from vedette_server.predictor.reference import default_predictor
from vedette_server.repository import repository
from vedette_server.repository.repository import ModelVersion
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.support import running
from tests.support.families import ZOO, model

if TYPE_CHECKING:  # it is in the stubs alone
    from vedette.v1.detection_service_pb2_grpc import DetectionServiceAsyncStub

HEIGHT, WIDTH, OBJECTS = 1080, 1920, 15
CALLERS = 32  # at once, where a server is to be saturated
ROUNDS, WARM_UP = 30, 5
SECONDS = 2.5  # that a server is saturated
STAGES = ("decode", "preprocess", "forward", "postprocess")
BATCHES = (1, 2, 4, 8, 16)


def coco(family: str) -> CfgNode:
    """A config of the zoo as it is, but for statistics that random weights can be given."""
    cfg = model_zoo.get_config(ZOO[family])
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.BACKBONE.FREEZE_AT = "BN", 0
    cfg.MODEL.PIXEL_STD = [58.0, 58.0, 58.0]
    return cfg


def write(root: Path) -> None:
    """A repository of the bundled model and of two of the zoo."""
    (root / "roadsigns").symlink_to(BUNDLED_REPOSITORY / "roadsigns")
    for family in ("faster_rcnn", "mask_rcnn"):
        (root / family).mkdir()
        cfg = coco(family)
        names = Names(tuple(f"class {number}" for number in range(cfg.MODEL.ROI_HEADS.NUM_CLASSES)))
        importer.write_version(root / family, 1, plain(cfg), model(family, cfg), names=names, pictures={})


def picture() -> UInt8Array:
    """A scene at full HD, BGR."""
    scene = Image.fromarray(scenes.draw(scenes.describe(3_000_001, quiet=False)).pixels)
    return np.ascontiguousarray(np.asarray(scene.resize((WIDTH, HEIGHT)))[:, :, ::-1])


def median(call: Callable[[], object]) -> float:
    """Median milliseconds of a call, the GPU's work included."""
    times = []
    for _ in range(WARM_UP + ROUNDS):
        started = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[WARM_UP:]) * 1000


def bare(versions: list[ModelVersion], device: str) -> Table:
    """Detectron2's own predictor on pixels, in 32 bits and in TF32, and ours on a JPEG, stage by stage."""
    table = Table(
        "One image, ms", "Detectron2", "in TF32", "ours, JPEG", *STAGES, "batch that pays", "ms an image of it"
    )
    pixels = picture()
    file = jpeg(np.ascontiguousarray(pixels[:, :, ::-1]))
    for version in versions:
        alone = default_predictor(version.folder, {"TEST.DETECTIONS_PER_IMAGE": OBJECTS}, device)
        exact = median(functools.partial(alone, pixels))
        torch.backends.cudnn.allow_tf32 = True
        fast = median(functools.partial(alone, pixels))
        ours = load(version.folder, version.contract, device, 4)
        options = resolve(Asked(max_detections=OBJECTS), version.contract)
        sent = SentImage(EncodedImage(), file)
        whole = median(functools.partial(ours.predict, sent, options))
        answers = [ours.predict(sent, options).times for _ in range(ROUNDS)]
        stages = [statistics.median(getattr(times, stage) for times in answers) * 1000 for stage in STAGES]
        each = ours._seconds_each(ours.max_batch) * 1000
        row = (exact, fast, whole, *stages)
        table.add_row(version.name, *(f"{value:.1f}" for value in row), str(ours.max_batch), f"{each:.1f}")
        del alone, ours
        torch.cuda.empty_cache()
    return table


def batches(versions: list[ModelVersion], device: str) -> Table:
    """The cost of each image in a batch."""
    table = Table("Batch of, ms an image", *map(str, BATCHES))
    for version in versions:
        ours = load(version.folder, version.contract, device, 4)
        table.add_row(version.name, *(f"{ours._seconds_each(count) * 1000:.1f}" for count in BATCHES))
    return table


def precision(versions: list[ModelVersion], device: str) -> Table:
    """The distance of the device's answers from the CPU's, in 32 bits and in TF32."""
    table = Table("Farthest from the CPU", "objects", "score", "box, px", "in TF32: objects", "score", "box, px")
    for version in versions:
        options = resolve(Asked(max_detections=OBJECTS), version.contract)
        seen: list[Any] = []
        for where, tf32 in (("cpu", False), (device, False), (device, True)):
            ours = load(version.folder, version.contract, where, 16)
            torch.backends.cudnn.allow_tf32 = tf32
            seen.append([ours.predict(SentImage(EncodedImage(), file), options).detections for file in files()])
        torch.backends.cudnn.allow_tf32 = False
        table.add_row(version.name, *far(seen[0], seen[1]), *far(seen[0], seen[2]))
    return table


def files() -> list[bytes]:
    return [jpeg(scenes.draw(scenes.describe(seed)).pixels) for seed in range(3_000_000, 3_000_020)]


def far(wanted: list[Any], given: list[Any]) -> tuple[str, str, str]:
    """The number of pictures with the same objects, and the largest distances between these."""
    same = [
        (one, other)
        for one, other in zip(wanted, given, strict=True)
        if one.class_ids.tolist() == other.class_ids.tolist()
    ]
    score = max((float(abs(one.scores - other.scores).max(initial=0)) for one, other in same), default=0.0)
    box = max((float(abs(one.boxes - other.boxes).max(initial=0)) for one, other in same), default=0.0)
    return f"{len(same)} of {len(wanted)}", f"{score:.1e}", f"{box:.1e}"


def requests(name: str) -> dict[str, pb.DetectRequest]:
    """A picture as a JPEG and as raw pixels, to a model."""
    pixels = picture()
    file = jpeg(np.ascontiguousarray(pixels[:, :, ::-1]))
    raw = image_pb2.RawImage(
        data=pixels.tobytes(), height=HEIGHT, width=WIDTH, pixel_format=image_pb2.PIXEL_FORMAT_BGR8
    )
    encoded = image_pb2.EncodedImage(data=file)
    images = {"JPEG": image_pb2.Image(encoded=encoded), "raw": image_pb2.Image(raw=raw)}
    options = pb.DetectOptions(max_detections=OBJECTS)
    return {form: pb.DetectRequest(model_name=name, options=options, image=image) for form, image in images.items()}


async def measured(address: str, asked: pb.DetectRequest) -> tuple[float, float, float]:
    """Median milliseconds of calls one by one, and images a second and median milliseconds of many at once."""
    options = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

    async def calls(count: int, until: float) -> list[float]:
        times = []
        async with contextlib.AsyncExitStack() as stack:
            channels = [
                await stack.enter_async_context(
                    grpc.aio.insecure_channel(address, options=(*options, ("grpc.use_local_subchannel_pool", 1)))
                )
                for _ in range(min(count, 4))
            ]
            stubs = itertools.cycle([DetectionServiceStub(channel) for channel in channels])

            async def call(stub: "DetectionServiceAsyncStub") -> None:
                while (started := time.monotonic()) < until:
                    await stub.Detect(asked)
                    times.append(time.monotonic() - started)

            await asyncio.gather(*(call(next(stubs)) for _ in range(count)))
        return times

    alone = await calls(1, time.monotonic() + SECONDS / 2)
    started = time.monotonic()
    many = await calls(CALLERS, started + SECONDS)
    rate = len(many) / (time.monotonic() - started)
    return statistics.median(alone) * 1000, rate, statistics.median(many) * 1000


def served(root: Path, device: str, workers: int) -> Iterator[Table]:
    """Latency and throughput of a server, stage by stage, and the memory of its processes."""
    table = Table(f"{workers} workers", "one by one, ms", "images a second", "median ms", "images a batch", *STAGES)
    flags = ("--repository", str(root), "--device", device, "--workers", str(workers), "--threads", "4")
    with running.server(*flags) as server:
        wanted = workers * len([*root.iterdir()])
        running.wait_for(lambda: running.sample(server, "vedette_workers_ready") == wanted, "all workers")
        for name in sorted(path.name for path in root.iterdir()):
            for form, asked in requests(name).items():
                before = [sampled(server, name, series) for series in counted()]
                alone, rate, many = asyncio.run(measured(server.address, asked))
                images, count, *spent = (
                    sampled(server, name, series) - old for series, old in zip(counted(), before, strict=True)
                )
                stages = (1000 * value / images for value in spent)
                row = (f"{alone:.1f}", f"{rate:.0f}", f"{many:.1f}", f"{images / count:.1f}")
                table.add_row(f"{name}, {form}", *row, *(f"{value:.1f}" for value in stages))
        yield table
        yield memory(server)


def counted() -> list[str]:
    stages = [f'vedette_stage_duration_seconds_sum{{model="%s",stage="{stage}",version="1"}}' for stage in STAGES]
    return [f'vedette_batch_images_{name}{{model="%s",version="1"}}' for name in ("sum", "count")] + stages


def sampled(server: running.Server, name: str, series: str) -> float:
    return running.sample(server, series % name)


def memory(server: running.Server) -> Table:
    """The memory of the card that each process of a server takes, according to NVIDIA's driver."""
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    taken = {int(pid): mib.strip() for pid, mib in (line.split(",") for line in said.splitlines() if "," in line)}
    ready = {event["pid"]: event["model"] for event in server.events("worker_ready")}
    table = Table("Process", "memory of the card, MiB")
    for pid in server.children():
        table.add_row(ready.get(pid, "the fork server"), taken.get(pid, "none"))
    return table


def profile(version: ModelVersion, device: str) -> str:
    """The breakdown of a picture's time on the GPU and in calls to it, by torch's own profiler."""
    ours: Predictor = load(version.folder, version.contract, device, 4)
    options = resolve(Asked(max_detections=OBJECTS), version.contract)
    file = jpeg(np.ascontiguousarray(picture()[:, :, ::-1]))
    image = ours.prepare(SentImage(EncodedImage(), file), options)
    for _ in range(WARM_UP):
        ours.infer([image])
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profiled:
        for _ in range(WARM_UP):
            ours.infer([image])
    averages = profiled.key_averages()
    by = ("self_device_time_total", "self_cpu_time_total")
    return "\n".join(averages.table(sort_by=key, row_limit=14, max_name_column_width=50) for key in by)


def main() -> None:
    """Measure and print."""
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        for table in tables(Path(folder), device):
            Console(width=150).print(table)


def tables(root: Path, device: str) -> Iterator[Table | str]:
    """Everything that is measured, as it comes."""
    versions = sorted(repository.read(root), key=lambda version: version.name)
    yield bare(versions, device)
    for workers in (1, 2):
        yield from served(root, device, workers)
    yield profile(versions[1], device)
    yield batches(versions, device)
    yield precision(versions, device)


if __name__ == "__main__":
    main()
