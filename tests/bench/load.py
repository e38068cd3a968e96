"""Load scenarios against a real server, each returning the figures that it saw.

`make load` runs them at full length and prints the figures; the tests run them shortened and hold the figures to what
must be true of any length. Every client here is without retries, so that what the server says is seen.
"""

import asyncio
import itertools
import os
import random
import shutil
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from google.protobuf import timestamp_pb2
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1 import image_pb2
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub
from vedette_client import Client
from vedette_server.demo import scenes
from vedette_server.demo.publish import jpeg
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.support import running

if TYPE_CHECKING:  # it is in the stubs alone
    from vedette.v1.detection_service_pb2_grpc import DetectionServiceAsyncStub

WORKERS = 2
RETRYABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)
OPTIONS = (("grpc.enable_retries", 0), ("grpc.max_receive_message_length", -1))


def picture(seed: int = 3_000_001) -> bytes:
    return jpeg(scenes.draw(scenes.describe(seed, quiet=False)).pixels)


def request(data: bytes, request_id: str = "") -> pb.DetectRequest:
    return pb.DetectRequest(image=image_pb2.Image(encoded=image_pb2.EncodedImage(data=data)), request_id=request_id)


@contextmanager
def server(*flags: str, workers: int = WORKERS, token: str | None = None) -> Iterator[running.Server]:
    with running.server("--workers", str(workers), "--threads", "1", *flags, token=token) as started:
        running.wait_for(lambda: len(started.worker_pids()) == workers and ready(started) == workers, "all workers")
        yield started


def ready(started: running.Server) -> float:
    return running.sample(started, "vedette_workers_ready")


def memory(started: running.Server) -> int:
    """Resident bytes of the server and its workers; what they share is shared out among them."""
    total = 0
    for pid in (started.process.pid, *started.worker_pids()):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


async def capacity(
    stub: "DetectionServiceAsyncStub", seconds: float, concurrency: int = 2 * WORKERS
) -> tuple[float, float]:
    """Answers a second at saturation, and the median seconds that one takes a worker."""
    data, times, until = picture(), [], time.monotonic() + seconds

    async def call() -> None:
        while time.monotonic() < until:
            spent = (await stub.Detect(request(data))).answer.timings
            times.append(
                spent.decode_seconds + spent.preprocess_seconds + spent.forward_seconds + spent.postprocess_seconds
            )

    started = time.monotonic()
    await asyncio.gather(*(call() for _ in range(concurrency)))
    return len(times) / (time.monotonic() - started), statistics.median(times)


@dataclass
class Killed:
    """Outcomes of requests while workers were killed."""

    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    ids: Counter[str] = field(default_factory=Counter)
    kills: int = 0


async def kill(started: running.Server, requests: int, kills: int, seed: int = 1) -> Killed:
    """Requests at saturation while workers are killed with -9 at random."""
    rng = random.Random(seed)  # noqa: S311  moments, not secrets
    moments = set(rng.sample(range(requests // 20, requests), kills))
    seen, numbers, data = Killed(), itertools.count(), picture()

    async def call(stub: "DetectionServiceAsyncStub") -> None:
        while (number := next(numbers)) < requests:
            if number in moments:
                while not (pids := started.worker_pids()):
                    await asyncio.sleep(0.05)
                os.kill(rng.choice(pids), signal.SIGKILL)
                seen.kills += 1
            try:
                response = await stub.Detect(request(data, f"request-{number}"), timeout=60)
                seen.answered += 1
                seen.ids[response.request_id] += 1
            except grpc.aio.AioRpcError as error:
                seen.failed[error.code().name] += 1
                seen.ids[f"request-{number}"] += 1
                await asyncio.sleep(0.1)  # as a caller does that tries again

    async with grpc.aio.insecure_channel(started.address, options=OPTIONS) as channel:
        await asyncio.gather(*(call(DetectionServiceStub(channel)) for _ in range(4 * WORKERS)))
    running.wait_for(lambda: ready(started) == WORKERS, "the pool to be whole again")
    return seen


@dataclass
class Live:
    """Figures of live streams."""

    service_seconds: float
    interval: float
    ages: list[float] = field(default_factory=list)
    sent: Counter[int] = field(default_factory=Counter)
    answered: Counter[int] = field(default_factory=Counter)
    dropped: Counter[int] = field(default_factory=Counter)
    failed: Counter[int] = field(default_factory=Counter)
    memory: list[int] = field(default_factory=list)  # bytes, once a second

    @property
    def age_p95(self) -> float:
        return statistics.quantiles(self.ages, n=20)[-1]

    @property
    def age_limit(self) -> float:
        return 3 * self.service_seconds + self.interval

    @property
    def shares(self) -> list[float]:
        """The part of its fair share that each stream got."""
        fair = sum(self.answered.values()) / len(self.sent)
        return [self.answered[stream] / fair for stream in sorted(self.sent)]


async def live(started: running.Server, streams: int, overload: float, seconds: float) -> Live:
    """LATEST streams that offer `overload` times what the pool can serve, each frame sent as it is captured."""
    data = picture()
    async with grpc.aio.insecure_channel(started.address, options=OPTIONS) as channel:
        stub = DetectionServiceStub(channel)
        rate, _ = await capacity(stub, min(seconds / 4, 8.0))
        seen = Live(0.0, streams / (overload * rate))
        times: list[float] = []
        until = time.monotonic() + seconds

        async def frames(number: int) -> AsyncIterator[pb.StreamDetectRequest]:
            config = pb.StreamConfig(drop_policy=pb.DROP_POLICY_LATEST, stream_id=f"camera-{number}")
            yield pb.StreamDetectRequest(config=config)
            due = time.monotonic() + seen.interval * number / streams
            while due < until:
                await asyncio.sleep(max(due - time.monotonic(), 0.0))
                due += seen.interval
                captured = timestamp_pb2.Timestamp()
                captured.FromNanoseconds(time.time_ns())
                seen.sent[number] += 1
                image = image_pb2.Image(encoded=image_pb2.EncodedImage(data=data))
                yield pb.StreamDetectRequest(
                    frame=pb.Frame(frame_id=seen.sent[number], capture_time=captured, image=image)
                )

        async def stream(number: int) -> None:
            async for response in stub.StreamDetect(frames(number)):
                match response.WhichOneof("message"):
                    case "answer":
                        seen.answered[number] += 1
                        seen.ages.append(response.answer.age_seconds)
                        spent = response.answer.answer.timings
                        times.append(
                            spent.decode_seconds
                            + spent.preprocess_seconds
                            + spent.forward_seconds
                            + spent.postprocess_seconds
                        )
                    case "dropped":
                        seen.dropped[number] += 1
                    case _:
                        seen.failed[number] += 1

        async def watch() -> None:
            while time.monotonic() < until:
                seen.memory.append(memory(started))
                await asyncio.sleep(1)

        await asyncio.gather(watch(), *(stream(number) for number in range(streams)))
        seen.service_seconds = statistics.median(times)
    return seen


@dataclass
class Overload:
    """Outcomes for callers with deadlines, at more than the pool can serve."""

    capacity: float
    seconds: float
    sent: int = 0
    in_time: int = 0
    late: int = 0  # answers that came after their deadline
    refused: list[float] = field(default_factory=list)  # seconds from sending to the refusal
    expired: int = 0
    other: Counter[str] = field(default_factory=Counter)

    @property
    def goodput(self) -> float:
        """Answers in time, as a share of the capacity."""
        return self.in_time / self.seconds / self.capacity

    @property
    def quickly_refused(self) -> float:
        """The share of refusals within 50 ms."""
        return sum(seconds < 0.05 for seconds in self.refused) / max(len(self.refused), 1)


async def overload(started: running.Server, factor: float, deadline: float, seconds: float) -> Overload:
    """Open loop: calls are sent at `factor` times the capacity, whatever became of those before."""
    data = picture()
    async with grpc.aio.insecure_channel(started.address, options=OPTIONS) as channel:
        stub = DetectionServiceStub(channel)
        window = min(seconds / 2, 8.0)
        rate, _ = await capacity(stub, window)
        seen = Overload(rate, seconds)

        async def call() -> None:
            sent = time.monotonic()
            try:
                await stub.Detect(request(data), timeout=deadline)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    seen.refused.append(time.monotonic() - sent)
                elif error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    seen.expired += 1
                else:
                    seen.other[error.code().name] += 1
            else:
                if time.monotonic() - sent <= deadline:
                    seen.in_time += 1
                else:
                    seen.late += 1

        calls, begun = [], time.monotonic()
        while (elapsed := time.monotonic() - begun) < seconds:
            while seen.sent < elapsed * factor * rate:
                seen.sent += 1
                calls.append(asyncio.create_task(call()))
            await asyncio.sleep(0.002)
        await asyncio.gather(*calls)
        after, _ = await capacity(stub, window)  # the machine may not be what it was
        seen.capacity = (rate + after) / 2
    return seen


@dataclass
class Swapped:
    """Outcomes for callers while versions were swapped."""

    answered: Counter[str] = field(default_factory=Counter)  # by version
    failed: Counter[str] = field(default_factory=Counter)
    streamed: Counter[str] = field(default_factory=Counter)  # by version
    memory: list[int] = field(default_factory=list)  # after each swap


async def swap(root: Path, swaps: int) -> Swapped:  # noqa: C901  one scenario, with the callers that it needs
    """Under load, write the next version of the model and remove the one before, again and again."""
    shutil.copytree(BUNDLED_REPOSITORY, root)
    model, seen, data = root / "roadsigns", Swapped(), picture()
    with server("--repository", str(root), "--poll-seconds", "0.2", workers=1) as started:
        done = asyncio.Event()

        async def call(stub: "DetectionServiceAsyncStub") -> None:
            while not done.is_set():
                try:
                    seen.answered[(await stub.Detect(request(data), timeout=60)).answer.model_version] += 1
                except grpc.aio.AioRpcError as error:
                    seen.failed[f"{error.code().name} {error.details()}"] += 1

        async def stream(stub: "DetectionServiceAsyncStub") -> None:
            async def frames() -> AsyncIterator[pb.StreamDetectRequest]:
                yield pb.StreamDetectRequest(config=pb.StreamConfig(drop_policy=pb.DROP_POLICY_LOSSLESS))
                for number in itertools.count():
                    if done.is_set():
                        return
                    image = image_pb2.Image(encoded=image_pb2.EncodedImage(data=data))
                    yield pb.StreamDetectRequest(frame=pb.Frame(frame_id=number, image=image))

            async for response in stub.StreamDetect(frames()):
                if response.WhichOneof("message") == "answer":
                    seen.streamed[response.answer.answer.model_version] += 1
                else:
                    seen.failed[str(response)] += 1

        async def versions(stub: "DetectionServiceAsyncStub") -> dict[str, int]:
            listed = await stub.ListModels(pb.ListModelsRequest())
            return {item.version: item.state for item in listed.models}

        async with grpc.aio.insecure_channel(started.address, options=OPTIONS) as channel:
            stub = DetectionServiceStub(channel)
            callers = [asyncio.create_task(call(stub)) for _ in range(2)]
            callers.append(asyncio.create_task(stream(stub)))
            for number in range(1, swaps + 1):
                shutil.copytree(model / str(number), model / f".next-{number}")
                (model / f".next-{number}").rename(model / str(number + 1))
                while (await versions(stub)).get(str(number + 1)) != 2:  # MODEL_STATE_READY
                    await asyncio.sleep(0.05)
                shutil.rmtree(model / str(number))
                while str(number) in await versions(stub) or len(started.worker_pids()) > 1:
                    await asyncio.sleep(0.05)
                seen.memory.append(memory(started))
            done.set()
            await asyncio.gather(*callers)
    return seen


@dataclass
class Cancelled:
    """Traces that disconnected callers left behind."""

    seconds_until_free: float
    queued: float
    running: float
    files: int  # of shared memory that the gateway holds, which it uses again


async def cancel(started: running.Server, clients: int, seed: int = 2) -> Cancelled:
    """Clients that each send a call and disconnect at a random moment."""
    rng, data = random.Random(seed), picture()  # noqa: S311  moments, not secrets

    async def client(moment: float) -> None:
        async with grpc.aio.insecure_channel(started.address, options=OPTIONS) as channel:
            call = DetectionServiceStub(channel).Detect(request(data), timeout=60)
            await asyncio.wait({asyncio.ensure_future(call.code())}, timeout=moment)

    await asyncio.gather(*(client(rng.uniform(0.0, 3.0)) for _ in range(clients)))
    gone = time.monotonic()
    await asyncio.to_thread(
        running.wait_for,
        lambda: (
            not running.sample(started, "vedette_queued_requests")
            and not running.sample(started, "vedette_running_requests")
        ),
        "the queue to be empty",
    )
    return Cancelled(
        time.monotonic() - gone,
        running.sample(started, "vedette_queued_requests"),
        running.sample(started, "vedette_running_requests"),
        running.shared_memories(started.process.pid),
    )


def lossless(started: running.Server, frames: int) -> tuple[int, bool, bool]:
    """A clip through one stream: how many answers, whether in order, whether each equals Detect's on that frame."""
    clip = [jpeg(shot.pixels) for shot in scenes.Clip(seed=3_000_001, frames=frames)]
    with Client(started.address) as client:
        events: list[Any] = list(client.stream(clip, policy="LOSSLESS"))
        equal = all(
            event.result.detections == client.detect(data).detections for event, data in zip(events, clip, strict=True)
        )
    return len(events), [event.frame_id for event in events] == list(range(frames)), equal


@dataclass
class Diagnosing:
    """Latencies of paced traffic, in windows without diagnoses and with as many as the server takes."""

    without: list[float]
    beside: list[float]
    tried: int  # images inferred for diagnoses

    @property
    def ratio(self) -> float:
        """Of the 95th percentiles."""
        return float(np.percentile(self.beside, 95) / np.percentile(self.without, 95))


async def diagnosing(started: running.Server, windows: int, seconds: float, load: float = 0.5) -> Diagnosing:
    """Traffic at a share of the capacity, at random moments; in every other window diagnoses run all the time."""
    data, rng = picture(), random.Random(4)  # noqa: S311  moments, not secrets
    seen = Diagnosing([], [], 0)
    async with grpc.aio.insecure_channel(started.address, options=OPTIONS) as channel:
        stub = DetectionServiceStub(channel)
        rate = load * (await capacity(stub, 8.0))[0]

        async def call(latencies: list[float]) -> None:
            begun = time.monotonic()
            await stub.Detect(request(data))
            latencies.append(time.monotonic() - begun)

        async def diagnose() -> None:
            while True:
                found = await stub.Diagnose(pb.DiagnoseRequest(image=request(data).image))
                seen.tried += 1 + len(found.candidates)

        async def window(latencies: list[float]) -> None:
            until, calls = time.monotonic() + seconds, []
            while time.monotonic() < until:
                calls.append(asyncio.create_task(call(latencies)))
                await asyncio.sleep(rng.expovariate(rate))
            await asyncio.gather(*calls)

        for _ in range(windows):
            await window(seen.without)
            others = [asyncio.create_task(diagnose()) for _ in range(2)]
            await window(seen.beside)
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
    return seen


def main() -> None:
    """Run every scenario at full length and print what was seen."""
    with tempfile.TemporaryDirectory() as folder:
        swapped = asyncio.run(swap(Path(folder) / "repository", swaps=20))
    first, last = swapped.memory[1], swapped.memory[-1]
    print(f"swap: 20 swaps, {swapped.answered.total()} answered, {swapped.streamed.total()} streamed,", flush=True)
    print(f"  failed {dict(swapped.failed)}; memory after the last / after the second {last / first:.3f}", flush=True)
    with server() as started:
        killed = asyncio.run(kill(started, requests=2_000, kills=20))
        print(f"kill: {killed.kills} kills, {killed.answered} answered, failed {dict(killed.failed)},", flush=True)
        print(f"  {len(killed.ids)} requests settled, each {set(killed.ids.values())} times; pool whole", flush=True)
    with server() as started:
        seen = asyncio.run(live(started, streams=8, overload=3.0, seconds=60.0))
        settled = seen.memory[10:]
        print(f"live: age p95 {seen.age_p95 * 1000:.0f} ms, limit {seen.age_limit * 1000:.0f} ms", flush=True)
        print(f"  (three times {seen.service_seconds * 1000:.0f} + {seen.interval * 1000:.0f}),", flush=True)
        print(f"  shares {min(seen.shares):.2f} to {max(seen.shares):.2f};", flush=True)
        told = seen.answered.total() + seen.dropped.total() + seen.failed.total()
        print(f"  sent {seen.sent.total()} = {told}: {seen.answered.total()} answered,", flush=True)
        print(f"  {seen.dropped.total()} dropped, {seen.failed.total()} failed;", flush=True)
        print(f"  memory within {max(settled) / min(settled) - 1:.1%} after 10 s", flush=True)
    with server() as started:
        frames, in_order, equal = lossless(started, 1_000)
        print(f"lossless: {frames} answers of 1000 frames, in order {in_order}, equal to Detect {equal}", flush=True)
    with server() as started:
        over = asyncio.run(overload(started, factor=2.0, deadline=2.0, seconds=30.0))
        print(f"overload: goodput {over.goodput:.3f} of a capacity of {over.capacity:.1f} a second;", flush=True)
        print(f"  of {over.sent} sent {over.in_time} in time, {over.late} late, {over.expired} expired,", flush=True)
        print(f"  {len(over.refused)} refused, {over.quickly_refused:.1%} of them within 50 ms", flush=True)
        beside = asyncio.run(diagnosing(started, windows=2, seconds=75.0))
        print(f"diagnosing: p95 {beside.ratio:.3f} times that without, of {len(beside.beside)} and", flush=True)
        print(f"  {len(beside.without)} answers, beside {beside.tried} inferences for diagnoses that ended", flush=True)
        gone = asyncio.run(cancel(started, clients=200))
        print(f"cancel: free after {gone.seconds_until_free:.2f} s; {gone}", flush=True)


if __name__ == "__main__":
    main()
