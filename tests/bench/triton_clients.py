"""Triton's own clients against a real server: equal answers by every way, and callers without an error.

`python -m tests.bench.triton_clients --pictures 100 --seconds 60` compares the answers to those of our own client,
then has eight callers infer for a while and holds the server's statistics against what they sent.
"""

import argparse
import asyncio
import contextlib
import json
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import tritonclient.grpc as by_grpc
import tritonclient.grpc.aio as by_grpc_aio
import tritonclient.http as by_http
import tritonclient.http.aio as by_http_aio
from tritonclient.utils import shared_memory
from vedette_client import Client, Result
from vedette_server.demo import scenes

from tests.support import running
from tests.support.open_inference import BLACK, MODEL, as_text, file, texts

CALLERS = 8
_QUIET_EVERY = 5  # pictures, of which one shows no sign
_REGION = 4 * 2**20  # bytes of each shared region
Seen: TypeAlias = tuple[Any, ...]
Way: TypeAlias = Callable[[running.Server, list[bytes]], Iterable[Seen]]


def pictures(count: int) -> list[bytes]:
    """Drawn scenes as files; some are quiet, and the last is black."""
    drawn = (scenes.draw(scenes.describe(7_000_000 + at, quiet=at % _QUIET_EVERY == 0)) for at in range(count - 1))
    return [*(file(one.pixels) for one in drawn), file(BLACK)]


def ours(result: Result) -> Seen:
    """An answer of our client, in plain values."""
    return (
        result.boxes.tolist(),
        np.float32(result.scores).tolist(),
        result.class_ids.tolist(),
        [as_text(one.mask.coco()["counts"]) for one in result if one.mask],
        result.empty.reason if result.empty else "",
        [one.code for one in result.findings],
    )


def theirs(result: Any, boxes: Any = None) -> Seen:
    """An answer of one of Triton's clients, in the same values."""
    found = result.as_numpy("BOXES") if boxes is None else boxes
    return (
        found.tolist(),
        result.as_numpy("SCORES").tolist(),
        result.as_numpy("CLASSES").tolist(),
        [json.loads(one)["counts"] for one in texts(result, "MASKS_RLE")],
        texts(result, "EMPTY_REASON")[0],
        [one["code"] for one in json.loads(texts(result, "FINDINGS")[0])],
    )


def _encoded(client: Any, data: bytes) -> list[Any]:
    tensor = client.InferInput("ENCODED", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([data], np.object_))
    return [tensor]


def grpc_sync(server: running.Server, files: list[bytes]) -> Iterator[Seen]:
    with by_grpc.InferenceServerClient(server.address) as client:
        for data in files:
            yield theirs(client.infer(MODEL, _encoded(by_grpc, data)))


def grpc_asyncio(server: running.Server, files: list[bytes]) -> list[Seen]:
    async def call() -> list[Seen]:
        async with by_grpc_aio.InferenceServerClient(server.address) as client:
            return [theirs(await client.infer(MODEL, _encoded(by_grpc, data))) for data in files]

    return asyncio.run(call())


def grpc_stream(server: running.Server, files: list[bytes]) -> Iterator[Seen]:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with by_grpc.InferenceServerClient(server.address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for data in files:
            client.async_stream_infer(MODEL, _encoded(by_grpc, data))
        for _ in files:
            result, error = answers.get(timeout=running.PATIENCE)
            assert error is None, error
            yield theirs(result)


def http_sync(server: running.Server, files: list[bytes]) -> Iterator[Seen]:
    with by_http.InferenceServerClient(server.http.removeprefix("http://")) as client:
        for data in files:
            yield theirs(client.infer(MODEL, _encoded(by_http, data)))


def http_asyncio(server: running.Server, files: list[bytes]) -> list[Seen]:
    async def call() -> list[Seen]:
        async with by_http_aio.InferenceServerClient(server.http.removeprefix("http://")) as client:
            return [theirs(await client.infer(MODEL, _encoded(by_http, data))) for data in files]

    return asyncio.run(call())


def shared(server: running.Server, files: list[bytes]) -> Iterator[Seen]:
    """Files read from one region, boxes written to another."""
    with by_grpc.InferenceServerClient(server.address) as client, contextlib.ExitStack() as stack:
        regions = {}
        for name in ("bench_in", "bench_out"):
            regions[name] = shared_memory.create_shared_memory_region(name, f"/vedette_{name}", _REGION)
            stack.callback(shared_memory.destroy_shared_memory_region, regions[name])
            client.register_system_shared_memory(name, f"/vedette_{name}", _REGION)
            stack.callback(client.unregister_system_shared_memory, name)
        for data in files:
            shared_memory.set_shared_memory_region(regions["bench_in"], [np.frombuffer(data, np.uint8)])
            tensor = by_grpc.InferInput("ENCODED", [len(data)], "UINT8")
            tensor.set_shared_memory("bench_in", len(data))
            outputs = [
                by_grpc.InferRequestedOutput(name)
                for name in ("SCORES", "CLASSES", "MASKS_RLE", "EMPTY_REASON", "FINDINGS", "BOXES")
            ]
            outputs[-1].set_shared_memory("bench_out", _REGION)
            result = client.infer(MODEL, [tensor], outputs=outputs)
            shape = result.get_output("BOXES").shape
            yield theirs(result, shared_memory.get_contents_as_numpy(regions["bench_out"], np.float32, shape))


WAYS: dict[str, Way] = {
    "gRPC": grpc_sync,
    "gRPC, asyncio": grpc_asyncio,
    "gRPC, streaming": grpc_stream,
    "gRPC, shared memory": shared,
    "HTTP": http_sync,
    "HTTP, asyncio": http_asyncio,
}


def compare(server: running.Server, count: int) -> int:
    """Print how many answers of each way differ from our client's; returns how many in all."""
    files = pictures(count)
    with Client(server.address) as client:
        expected = [ours(client.detect(data)) for data in files]
    empty, wrong = sum(not one[0] for one in expected), 0
    for name, way in WAYS.items():
        differ = sum(seen != wanted for seen, wanted in zip(way(server, files), expected, strict=True))
        print(f"{name}: {count - differ} of {count} equal, {empty} of them empty", flush=True)
        wrong += differ
    return wrong


def hold(server: running.Server, seconds: float) -> int:
    """Let callers infer, and print what came of it; returns how many calls failed or were counted wrongly."""
    files, sent, failed = pictures(8), Counter[int](), Counter[str]()
    until = time.monotonic() + seconds

    def call(number: int) -> None:
        with by_grpc.InferenceServerClient(server.address) as client:
            while time.monotonic() < until:
                try:
                    client.infer(MODEL, _encoded(by_grpc, files[sent[number] % len(files)]))
                except by_grpc.InferenceServerException as error:
                    failed[str(error)] += 1
                else:
                    sent[number] += 1

    with by_grpc.InferenceServerClient(server.address) as client:
        before = client.get_inference_statistics(MODEL).model_stats[0]
        callers = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        after = client.get_inference_statistics(MODEL).model_stats[0]
    grown = {
        "successes": after.inference_stats.success.count - before.inference_stats.success.count,
        "failures": after.inference_stats.fail.count - before.inference_stats.fail.count,
        "inferences": after.inference_count - before.inference_count,
    }
    print(
        f"{CALLERS} callers for {seconds:.0f} s: {sent.total()} answered, {failed.total()} failed {dict(failed) or ''}"
    )
    print(f"the statistics grew by {grown}")
    wanted = {"successes": sent.total(), "failures": failed.total(), "inferences": sent.total()}
    return failed.total() + (grown != wanted)


def main() -> None:
    """Run both; the exit status says whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0)
    chosen = parser.parse_args()
    with running.server("--workers", "2", "--threads", "1") as server:
        wrong = compare(server, chosen.pictures) + hold(server, chosen.seconds)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
