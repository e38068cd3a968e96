"""`make shapes`: images of all shapes and kinds through a real server; each is answered, or refused for what is wrong.

Nothing may be INTERNAL, nothing may miss its deadline, no worker may be lost, and no image may be refused for a reason
that it gives no cause for, or answered in spite of one. Exits with 1 where that does not hold.
"""

import argparse
import collections
import itertools
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from rich.console import Console
from rich.table import Table
from vedette.v1 import answer_pb2
from vedette.v1 import detection_service_pb2 as pb
from vedette.v1.detection_service_pb2_grpc import DetectionServiceStub
from vedette_client import Client
from vedette_server import importer
from vedette_server.contract.contract import ImageLimits, Names, ResizeRule
from vedette_server.predictor.config import plain
from vedette_server.rpc.errors import TABLE
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.support import channels, families, running
from tests.support.generated_images import Generated, Target, generate

ANSWERED = "answered"
_CALLERS = 5  # and one that streams
_FRAMES = 40  # of a stream
_DEADLINE = 120.0  # seconds
_NEVER = ("INTERNAL", "DEADLINE_EXCEEDED", "IMAGE_POISONOUS", "WORKERS_LOST", "OVERLOADED")
_SHARES = {"faster_rcnn": 12, "grey": 4, "four": 3, "roadsigns": 1}  # models: the small ones are quick
_SHOWN = 20  # violations


@dataclass
class Tally:
    """Outcomes of the images."""

    outcomes: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)  # by kind
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds, of a single call
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, number: int, image: Generated, outcome: str, seconds: float = 0.0) -> None:
        expected = outcome in image.faults if image.faults else outcome == ANSWERED
        with self.lock:
            self.outcomes[image.kind, outcome] += 1
            self.slowest = max(self.slowest, seconds)
            if outcome in _NEVER or outcome not in (ANSWERED, *TABLE) or not expected:
                wanted = " or ".join(sorted(image.faults)) or ANSWERED
                self.wrong.append(f"{number}: {image.kind}, {image.size[1]} x {image.size[0]}: {outcome}, not {wanted}")

    def of(self, outcome: str) -> int:
        return sum(count for (_, seen), count in self.outcomes.items() if seen == outcome)


def write(root: Path) -> Path:
    """A repository of small random models, of colours, of grey and of four channels, and the bundled one."""
    (root / "faster_rcnn").mkdir(parents=True)
    cfg = families.config("faster_rcnn")
    importer.write_version(
        root / "faster_rcnn",
        1,
        plain(cfg),
        families.model("faster_rcnn"),
        names=Names(families.class_names("faster_rcnn")),
        pictures={},
    )
    channels.write(root, ("grey", "four"))
    shutil.copytree(BUNDLED_REPOSITORY / "roadsigns", root / "roadsigns")
    return root


def targets(server: running.Server) -> list[Target]:
    """The models, each as often as its share says."""
    found = []
    with Client(server.address) as client:
        for name, share in _SHARES.items():
            terms = client.model(name).contract
            rule = ResizeRule(terms.shortest_edge, terms.longest_edge)
            limits = ImageLimits(terms.max_bytes, terms.max_pixels, terms.max_edge)
            found += share * [Target(name, terms.channels, rule, limits)]
    return found


class _Sender:
    """Sends images from several threads, each image once."""

    def __init__(self, server: running.Server, count: int, seed: int) -> None:
        self.tally = Tally()
        self._server, self._seed, self._models = server, seed, targets(server)
        self._singles, self._framed = iter(range(count - count // 4)), iter(range(count - count // 4, count))
        self._lock = threading.Lock()

    def _taken(self, numbers: Iterator[int], most: int) -> list[int]:
        with self._lock:
            return list(itertools.islice(numbers, most))

    def _model(self, number: int) -> Target:
        return self._models[number % len(self._models)]

    def call(self) -> None:
        """Send images one by one."""
        with _stub(self._server) as stub:
            while numbers := self._taken(self._singles, 1):
                (number,) = numbers
                image = generate(self._seed, number, self._model(number))
                started = time.monotonic()
                outcome = _detect(stub, self._model(number), image)
                self.tally.count(number, image, outcome, time.monotonic() - started)
                if number % 1000 == 0:
                    print(f"number {number} sent", file=sys.stderr, flush=True)

    def stream(self) -> None:
        """Send images as the frames of one lossless stream after the other."""
        with _stub(self._server) as stub:
            while numbers := self._taken(self._framed, _FRAMES):
                target = self._model(numbers[0] // _FRAMES)
                images = {number: generate(self._seed, number, target) for number in numbers}
                for number, outcome in _streamed(stub, target, images):
                    self.tally.count(number, images[number], outcome)


def run(server: running.Server, count: int, seed: int) -> Tally:
    """Send as many images by several callers at once, a quarter of them as frames of streams."""
    sender = _Sender(server, count, seed)
    with ThreadPoolExecutor(_CALLERS + 1) as pool:
        for future in [pool.submit(work) for work in (*[sender.call] * _CALLERS, sender.stream)]:
            future.result()
    tally = sender.tally
    if sum(tally.outcomes.values()) != count:
        tally.wrong.append(f"{count} were sent, and {sum(tally.outcomes.values())} came back")
    tally.wrong += [f"a worker was lost: {event}" for event in server.events("worker_lost")]
    tally.wrong += [f"a bug: {str(event.get('exception', event))[-300:]}" for event in server.events("bug")]
    return tally


class _stub:  # noqa: N801  a context manager
    """A connection of one's own."""

    def __init__(self, server: running.Server) -> None:
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(server.address, options=options)

    def __enter__(self) -> DetectionServiceStub:
        return DetectionServiceStub(self._channel)

    def __exit__(self, *_: object) -> None:
        self._channel.close()


def _options() -> pb.DetectOptions:
    return pb.DetectOptions(max_detections=3, mask_format=answer_pb2.MASK_FORMAT_NONE)


def _detect(stub: DetectionServiceStub, target: Target, image: Generated) -> str:
    request = pb.DetectRequest(model_name=target.name, image=image.message, options=_options())
    try:
        answer = stub.Detect(request, timeout=_DEADLINE).answer
    except grpc.RpcError as error:
        return _reason(rpc_status.from_call(error)) or str(error.code())
    return _checked(answer.image_size.height, answer.image_size.width, image)


def _checked(height: int, width: int, image: Generated) -> str:
    """An answer is of the size that was sent, or of that turned."""
    return ANSWERED if (height, width) in (image.size, image.size[::-1]) else f"answered as {width} x {height}"


def _streamed(stub: DetectionServiceStub, target: Target, images: dict[int, Generated]) -> Iterator[tuple[int, str]]:
    def sent() -> Iterator[pb.StreamDetectRequest]:
        config = pb.StreamConfig(
            model_name=target.name, drop_policy=pb.DROP_POLICY_LOSSLESS, options=_options(), stream_id="shapes"
        )
        yield pb.StreamDetectRequest(config=config)
        for number, image in images.items():
            yield pb.StreamDetectRequest(frame=pb.Frame(frame_id=number, image=image.message))

    try:
        for response in stub.StreamDetect(sent(), timeout=_DEADLINE + 2 * len(images)):
            match response.WhichOneof("message"):
                case "answer":
                    size = response.answer.answer.image_size
                    yield response.answer.frame_id, _checked(size.height, size.width, images[response.answer.frame_id])
                case "error":
                    yield response.error.frame_id, _reason(response.error.status) or str(response.error.status.code)
                case "dropped":
                    yield response.dropped.frame_id, "dropped by a lossless stream"
    except grpc.RpcError as error:
        yield next(iter(images)), f"the stream ended: {_reason(rpc_status.from_call(error)) or error.code()}"


def _reason(status: status_pb2.Status | None) -> str:
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""


def show(tally: Tally, seconds: float) -> None:
    """Print a table of outcomes, and what was wrong."""
    by_reason = Table("outcome", "images")
    for outcome in sorted({seen for _, seen in tally.outcomes}, key=tally.of, reverse=True):
        by_reason.add_row(outcome, str(tally.of(outcome)))
    for outcome in ("INTERNAL", "DEADLINE_EXCEEDED"):
        if not tally.of(outcome):
            by_reason.add_row(outcome, "0")
    by_kind = Table("kind", "answered", "refused")
    for kind in sorted({kind.partition(",")[0] for kind, _ in tally.outcomes}):
        mine = [(seen, n) for (name, seen), n in tally.outcomes.items() if name.partition(",")[0] == kind]
        answered = sum(n for seen, n in mine if seen == ANSWERED)
        by_kind.add_row(kind, str(answered), str(sum(n for _, n in mine) - answered))
    console = Console(width=100)
    console.print(by_kind)
    console.print(by_reason)
    total = sum(tally.outcomes.values())
    console.print(f"{total} images in {seconds:.0f} s; the slowest single call took {tally.slowest:.1f} s")
    for line in tally.wrong[:_SHOWN]:
        console.print(f"WRONG {line}", markup=False)
    if len(tally.wrong) > _SHOWN:
        console.print(f"and {len(tally.wrong) - _SHOWN} more")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.shapes", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "models")
        with running.server("--repository", f"{folder}/models", "--threads", "1") as server:
            started = time.monotonic()
            tally = run(server, asked.count, asked.seed)
            show(tally, time.monotonic() - started)
    sys.exit(bool(tally.wrong))


if __name__ == "__main__":
    main()
