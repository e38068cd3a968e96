"""Tensors in shared memory, by Triton's own client: the answers of those in the request, and every lie refused."""

import contextlib
import dataclasses
import io
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.http as triton_http
import tritonclient.utils.shared_memory as shm
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException, serialize_byte_tensor, triton_to_np_dtype
from vedette_server.access.access import Access, AccessSources
from vedette_server.addresses import Tcp, Unix
from vedette_server.demo import scenes
from vedette_server.engine.engine import Engine
from vedette_server.rpc import regions
from vedette_server.rpc.server import RpcServer
from vedette_server.watch.probe import Probe

from tests.support import running
from tests.support.guarded import Tokens
from tests.support.scripted import SETTINGS, Silent
from tests.support.shared import FOLDER, PREFIX, Memory, memory, new_name, region

PICTURES = [scenes.draw(scenes.describe(seed, quiet=False)).pixels for seed in (3_000_001, 3_000_022)]
BLACK = np.zeros((48, 64, 3), np.uint8)
MODEL = "roadsigns"
RGB = {"pixel_format": "RGB8"}
OUTPUTS = ("BOXES", "SCORES", "CLASSES", "CLASS_NAMES", "MASKS_RLE", "EMPTY_REASON", "FINDINGS")
ROOM = 64 * 1024  # bytes for each of them
RACES = 60
MOST_AT_ONCE = 12


def file(pixels: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@dataclasses.dataclass(frozen=True)
class Way:
    """An input as a request declares it, and its bytes."""

    name: str
    datatype: str
    shape: list[int]
    data: bytes
    parameters: dict[str, str]


def as_bytes(pixels: NDArray[Any]) -> Way:
    data: bytes = serialize_byte_tensor(np.array([file(pixels)], np.object_)).item()
    return Way("ENCODED", "BYTES", [1], data, {})


def as_file(pixels: NDArray[Any]) -> Way:
    return Way("ENCODED", "UINT8", [len(file(pixels))], file(pixels), {})


def as_pixels(pixels: NDArray[Any]) -> Way:
    return Way("IMAGE", "UINT8", list(pixels.shape), pixels.tobytes(), RGB)


def as_floats(pixels: NDArray[Any]) -> Way:
    declared = {"channel_order": "RGB", "layout": "HWC", "value_range": "0-255"}
    return Way("IMAGE", "FP32", list(pixels.shape), pixels.astype("<f4").tobytes(), declared)


WAYS = {"a file in BYTES": as_bytes, "a file in UINT8": as_file, "pixels": as_pixels, "floats": as_floats}


def inline(way: Way) -> Any:
    tensor = triton.InferInput(way.name, way.shape, way.datatype)
    array = np.frombuffer(way.data, triton_to_np_dtype(way.datatype)) if way.datatype != "BYTES" else None
    tensor.set_data_from_numpy(np.array([way.data[4:]], np.object_) if array is None else array.reshape(way.shape))
    return tensor


def placed(way: Way, where: Memory | str, size: int | None = None, offset: int = 0) -> Any:
    tensor = triton.InferInput(way.name, way.shape, way.datatype)
    name = where if isinstance(where, str) else where.name
    tensor.set_shared_memory(name, len(way.data) if size is None else size, offset)
    return tensor


def output(name: str, where: Memory | str, size: int = ROOM, offset: int = 0) -> Any:
    tensor = triton.InferRequestedOutput(name)
    tensor.set_shared_memory(where if isinstance(where, str) else where.name, size, offset)
    return tensor


@pytest.fixture(autouse=True)
def nothing_is_left(bundled: running.Server) -> Iterator[None]:
    """The server survives each test, holds no file of shared memory, and nothing stays in the folder."""
    before = set(FOLDER.glob(f"{PREFIX}*"))  # others use the folder meanwhile
    yield
    assert set(FOLDER.glob(f"{PREFIX}*")) == before
    assert bundled.process.poll() is None
    assert not [one for one in opened(bundled) if one.startswith(str(FOLDER))]


def opened(server: running.Server) -> list[str]:
    """The files that a server's gateway has open."""
    found = []
    for link in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(str(link.readlink()))
    return found


def refusal(call: Callable[[], object]) -> str:
    """The reason and message of a refusal."""
    with pytest.raises(InferenceServerException) as caught:
        call()
    assert "?" not in caught.value.message()
    return f"{caught.value.status()}: {caught.value.message()}".removeprefix("StatusCode.")


def contents(result: Any, where: Memory, offset: int, name: str) -> list[Any]:
    """An output as a client finds it in its memory."""
    told = result.get_output(name)
    kind = triton_to_np_dtype(told.datatype)
    if 0 in told.shape:
        return []
    found: list[Any] = shm.get_contents_as_numpy(where.handle, kind, list(told.shape), offset).tolist()
    return found


@pytest.mark.parametrize("way", WAYS)
def test_answers_are_those_to_tensors_in_the_request(way: str, theirs: Any) -> None:
    for pixels in (*PICTURES, BLACK):
        given = WAYS[way](pixels)
        expected = theirs.infer(MODEL, [inline(given)], parameters=given.parameters)
        with region(theirs, len(given.data) + 10) as source, region(theirs, len(OUTPUTS) * ROOM) as target:
            source.put(given.data, 10)
            offsets = {name: at * ROOM for at, name in enumerate(OUTPUTS)}
            result = theirs.infer(
                MODEL,
                [placed(given, source, offset=10)],
                outputs=[output(name, target, offset=at) for name, at in offsets.items()],
                parameters=given.parameters,
            )
            for name, at in offsets.items():
                assert contents(result, target, at, name) == expected.as_numpy(name).tolist()
        assert len(expected.as_numpy("BOXES")) or pixels is BLACK


def test_tensors_may_be_in_memory_and_in_the_request_at_once(theirs: Any) -> None:
    """An output's position tells its contents, as in Triton, so that those in memory leave an empty entry."""
    given = as_pixels(PICTURES[0])
    expected = theirs.infer(MODEL, [inline(given)], parameters=RGB)
    threshold = triton.InferInput("SCORE_THRESHOLD", [1], "FP32")
    threshold.set_data_from_numpy(np.array([0.3], np.float32))
    names = triton.InferInput("CLASSES_FILTER", [2], "INT64")
    with region(theirs, len(given.data)) as source, region(theirs, ROOM) as target:
        source.put(given.data)
        target.put(np.array([0, 1], "<i8").tobytes(), 100)
        names.set_shared_memory(target.name, 16, 100)
        outputs = [
            triton.InferRequestedOutput("SCORES"),
            output("BOXES", target, 1000, 200),
            triton.InferRequestedOutput("CLASSES"),
        ]
        result = theirs.infer(MODEL, [threshold, placed(given, source), names], outputs=outputs, parameters=RGB)
        (entry,) = [one for one in result.get_response().outputs if one.name == "BOXES"]
        told = {name: getattr(one, one.WhichOneof("parameter_choice")) for name, one in entry.parameters.items()}
        size = 16 * len(result.as_numpy("SCORES"))
        assert told == {
            "shared_memory_region": target.name,
            "shared_memory_byte_size": size,
            "shared_memory_offset": 200,
        }
        assert [len(one) for one in result.get_response().raw_output_contents] == [size // 4, 0, size // 2]
        assert result.get_response().parameters["threshold"].double_param == pytest.approx(0.3)
        wanted = expected.as_numpy("CLASSES") < 2
        boxes = contents(result, target, 200, "BOXES")
        assert [one for one in expected.as_numpy("BOXES")[wanted].tolist() if one not in boxes] == []
        assert set(result.as_numpy("CLASSES").tolist()) <= {0, 1}


def test_regions_are_listed_and_forgotten(theirs: Any) -> None:
    with memory(500) as one, memory(600) as two:
        theirs.register_system_shared_memory(one.name, one.name, 400, offset=100)
        theirs.register_system_shared_memory(two.name, f"//{two.name}", 600)
        listed = theirs.get_system_shared_memory_status().regions
        assert {name: (told.name, told.key, told.offset, told.byte_size) for name, told in listed.items()} == {
            one.name: (one.name, one.name, 100, 400),
            two.name: (two.name, f"//{two.name}", 0, 600),
        }
        again = refusal(lambda: theirs.register_system_shared_memory(one.name, two.name, 600))
        assert again.startswith("ALREADY_EXISTS")
        assert repr(one.name) in again
        theirs.unregister_system_shared_memory(one.name)
        theirs.unregister_system_shared_memory(one.name)  # as Triton: it is not there, as was asked
        assert refusal(lambda: theirs.get_system_shared_memory_status(one.name)).startswith("NOT_FOUND")
        assert list(theirs.get_system_shared_memory_status(two.name).regions) == [two.name]
        theirs.unregister_system_shared_memory()
        assert not theirs.get_system_shared_memory_status().regions


def fifo(path: Path) -> None:
    os.mkfifo(path)


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def linked(path: Path) -> None:
    path.symlink_to("/etc/passwd")


# What a key can name beside a file of shared memory.
NO_MEMORY: dict[str, tuple[Callable[[Path], None], str]] = {
    "nothing": (lambda _path: None, "there is no file"),
    "a directory": (Path.mkdir, "is a directory"),
    "a pipe": (fifo, "is a pipe"),
    "a socket": (bound, "is a socket"),
    "a link": (linked, "is a symbolic link"),
    "an empty file": (Path.touch, "of a file of 0 bytes"),
}


@pytest.mark.parametrize("kind", NO_MEMORY)
def test_only_files_can_be_registered(kind: str, theirs: Any) -> None:
    make, seen = NO_MEMORY[kind]
    path = FOLDER / new_name()
    try:
        make(path)
        told = refusal(lambda: theirs.register_system_shared_memory("x", path.name, 10))
    finally:
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
    assert told.startswith("INVALID_ARGUMENT")
    assert seen in told


@pytest.mark.parametrize("key", ["", "/", ".", "..", "../etc/passwd", "a/b", "a\0b", "ä", "a b", "a\n", 256 * "a"])
def test_a_key_leads_nowhere_else(key: str, theirs: Any) -> None:
    told = refusal(lambda: theirs.register_system_shared_memory("x", key, 10))
    assert told.startswith("INVALID_ARGUMENT")
    assert "its key is" in told


@pytest.mark.parametrize(
    ("size", "offset"), [(0, 0), (501, 0), (1, 500), (400, 101), (2**64 - 1, 0), (10, 2**64 - 5), (2**63, 2**63)]
)
def test_a_region_lies_within_its_file(size: int, offset: int, theirs: Any) -> None:
    with memory(500) as made:
        told = refusal(lambda: theirs.register_system_shared_memory("x", made.name, size, offset))
    assert f"{size} bytes from the offset {offset} of a file of 500 bytes" in told


@pytest.mark.parametrize("name", ["", "a\nb", 129 * "a"])
def test_a_region_has_a_name_that_can_be_logged(name: str, theirs: Any) -> None:
    with memory(10) as made:
        assert "its name has" in refusal(lambda: theirs.register_system_shared_memory(name, made.name, 10))


def shrink(made: Memory) -> None:
    os.truncate(made.path, 100)


def replace(made: Memory) -> None:
    made.path.unlink()
    made.path.write_bytes(bytes(made.size))


def give_away(made: Memory) -> None:
    made.path.unlink()
    made.path.symlink_to("/etc/passwd")


# What can become of memory after it was registered.
CHANGES: dict[str, tuple[Callable[[Memory], None], str]] = {
    "shrunk": (shrink, "has 100 bytes, and"),
    "unlinked": (lambda made: made.path.unlink(), "there is no file"),
    "replaced": (replace, "another file has taken the place"),
    "replaced by a link": (give_away, "is a symbolic link"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("use", ["input", "output"])
def test_memory_must_stay_as_it_was_registered(change: str, use: str, theirs: Any) -> None:
    act, seen = CHANGES[change]
    given = as_pixels(BLACK)
    with region(theirs, len(given.data)) as made, region(theirs, ROOM) as other:
        made.put(given.data)
        act(made)
        if use == "input":
            told = refusal(lambda: theirs.infer(MODEL, [placed(given, made)], parameters=RGB))
        else:
            outputs = [output("FINDINGS", other), output("EMPTY_REASON", made, 100, 5000)]
            told = refusal(lambda: theirs.infer(MODEL, [inline(given)], outputs=outputs, parameters=RGB))
            assert other.bytes() == bytes(ROOM), "all outputs are written, or none"
        made.path.unlink(missing_ok=True)
    assert told.startswith("FAILED_PRECONDITION")
    assert seen in told


def raw(value: object, kind: str = "int64_param") -> Callable[[Any], None]:
    """A change of the size of an input that Triton's client does not make."""

    def change(tensor: Any) -> None:
        tensor._get_tensor().parameters["shared_memory_byte_size"].ClearField("parameter_choice")
        setattr(tensor._get_tensor().parameters["shared_memory_byte_size"], kind, value)

    return change


def without(name: str) -> Callable[[Any], None]:
    return lambda tensor: tensor._get_tensor().parameters.pop(name)


SIZE = len(BLACK.tobytes())
# Inputs that do not fit their region, or whose region does not fit their shape; the region has 100 bytes more.
MISFITS: dict[str, tuple[dict[str, int], Callable[[Any], None], str]] = {
    "beyond the region": ({"size": SIZE + 101}, lambda _: None, f"is {SIZE + 101} at the offset 0; "),
    "an offset beyond the region": ({"offset": 101}, lambda _: None, f"is {SIZE} at the offset 101; "),
    "a huge offset": ({"offset": 2**63 - 1}, lambda _: None, f"at the offset {2**63 - 1}; "),
    "a negative offset": ({"offset": -1}, lambda _: None, "The parameter shared_memory_offset is -1."),
    "a negative size": ({"size": -1}, lambda _: None, "The parameter shared_memory_byte_size is -1."),
    "a huge size": ({}, raw(2**64 - 1, "uint64_param"), f"shared_memory_byte_size is {2**64 - 1} at the offset 0; "),
    "a size in words": ({}, raw("all", "string_param"), "The parameter shared_memory_byte_size is 'all'."),
    "a size of yes": ({}, raw(1, "bool_param"), "The parameter shared_memory_byte_size is True."),
    "no size": ({}, without("shared_memory_byte_size"), "The parameter shared_memory_byte_size is missing."),
    "no region": ({}, without("shared_memory_region"), "The parameter shared_memory_region is missing."),
    "more bytes than the shape": ({"size": SIZE + 1}, lambda _: None, f"IMAGE has {SIZE + 1} bytes; UINT8 of the"),
    "fewer bytes than the shape": ({"size": SIZE - 1}, lambda _: None, f"IMAGE has {SIZE - 1} bytes; UINT8 of the"),
    "no bytes": ({"size": 0}, lambda _: None, "IMAGE has 0 bytes; UINT8 of the"),
    "contents beside the region": (
        {},
        lambda tensor: tensor._get_tensor().contents.uint_contents.append(1),
        "IMAGE has contents, and the region",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_an_input_must_fit_its_region(case: str, theirs: Any) -> None:
    where, change, seen = MISFITS[case]
    with region(theirs, SIZE + 100) as made:
        tensor = placed(as_pixels(BLACK), made, **where)
        change(tensor)
        told = refusal(lambda: theirs.infer(MODEL, [tensor], parameters=RGB))
    assert told.startswith("INVALID_ARGUMENT")
    assert seen in told


def test_a_region_that_nobody_registered_is_not_found(theirs: Any) -> None:
    given = as_pixels(BLACK)
    told = refusal(lambda: theirs.infer(MODEL, [placed(given, "nowhere")], parameters=RGB))
    assert told.startswith("NOT_FOUND")
    assert "'nowhere'" in told
    told = refusal(lambda: theirs.infer(MODEL, [inline(given)], outputs=[output("BOXES", "nowhere")], parameters=RGB))
    assert told.startswith("NOT_FOUND")


def test_an_image_beyond_the_limit_is_refused_unread(theirs: Any) -> None:
    size = 32 * 2**20 + 5
    with region(theirs, size) as made:
        given = Way("ENCODED", "BYTES", [1], b"", {})
        told = refusal(lambda: theirs.infer(MODEL, [placed(given, made, size)]))
        assert "has 33554437 bytes; this model takes at most 33554432" in told
        names = Way("CLASSES_FILTER", "BYTES", [1], b"", {})
        told = refusal(lambda: theirs.infer(MODEL, [placed(names, made, 300_000)]))
        assert "besides its image" in told


def test_an_output_that_is_too_large_leaves_all_memory_as_it_was(theirs: Any) -> None:
    given = as_pixels(PICTURES[0])
    needed = theirs.infer(MODEL, [inline(given)], parameters=RGB).as_numpy("BOXES").nbytes
    with region(theirs, ROOM) as target:
        target.put(ROOM * b"x")
        outputs = [output("SCORES", target, 1000), output("BOXES", target, needed - 1, 1000)]
        told = refusal(lambda: theirs.infer(MODEL, [inline(given)], outputs=outputs, parameters=RGB))
        assert told.startswith("INVALID_ARGUMENT")
        assert f"BOXES has {needed} bytes" in told
        assert f"has {needed - 1}." in told
        assert target.bytes() == ROOM * b"x"


def test_outputs_do_not_overwrite_each_other(theirs: Any) -> None:
    with region(theirs, ROOM) as target:
        outputs = [output("BOXES", target, 1000), output("SCORES", target, 1000, 999)]
        told = refusal(lambda: theirs.infer(MODEL, [inline(as_pixels(BLACK))], outputs=outputs, parameters=RGB))
        theirs.register_system_shared_memory("alias", target.name, ROOM - 500, 500)
        outputs = [output("BOXES", target, 1000), output("SCORES", "alias", 1000)]
        aliased = refusal(lambda: theirs.infer(MODEL, [inline(as_pixels(BLACK))], outputs=outputs, parameters=RGB))
        theirs.unregister_system_shared_memory("alias")
    assert "another output is written too" in told
    assert "another output is written too" in aliased


def test_memory_that_shrinks_meanwhile_kills_nobody(bundled: running.Server, theirs: Any) -> None:
    """Each request is answered, or refused for what its memory has become; a mapping would be a deadly signal."""
    given, ended = as_pixels(PICTURES[0]), threading.Event()
    outcomes = set()
    with region(theirs, len(given.data)) as source, region(theirs, ROOM) as target:

        def shrink_and_grow() -> None:
            while not ended.is_set():
                for path, size in ((source.path, len(given.data)), (target.path, ROOM)):
                    os.truncate(path, 0)
                    os.truncate(path, size)

        shrinker = threading.Thread(target=shrink_and_grow)
        shrinker.start()
        try:
            for _ in range(RACES):
                try:
                    theirs.infer(MODEL, [placed(given, source)], outputs=[output("FINDINGS", target)], parameters=RGB)
                    outcomes.add("OK")
                except InferenceServerException as error:
                    outcomes.add(str(error.status()))
        finally:
            ended.set()
            shrinker.join()
        assert outcomes <= {"OK", "StatusCode.FAILED_PRECONDITION"}
        assert "StatusCode.FAILED_PRECONDITION" in outcomes
        source.put(given.data)
        result = theirs.infer(MODEL, [placed(given, source)], outputs=[output("FINDINGS", target)], parameters=RGB)
        assert contents(result, target, 0, "FINDINGS")
    assert bundled.process.poll() is None


def test_nothing_is_written_once_a_region_is_unregistered(theirs: Any) -> None:
    """Not even by requests in flight: their client may use the memory for something else by now."""
    given, ended = as_pixels(PICTURES[0]), threading.Semaphore(0)
    outcomes: list[str] = []

    def done(result: Any, error: Any) -> None:  # noqa: ARG001  by these names
        outcomes.append("OK" if error is None else str(error.status()))
        ended.release()

    with memory(ROOM) as target:
        theirs.register_system_shared_memory(target.name, target.name, ROOM)
        for _ in range(MOST_AT_ONCE):
            outputs = [output("FINDINGS", target)]
            theirs.async_infer(MODEL, [inline(given)], done, outputs=outputs, parameters=RGB)
        assert ended.acquire(timeout=running.PATIENCE)
        theirs.unregister_system_shared_memory(target.name)
        theirs.register_system_shared_memory(target.name, target.name, ROOM)  # not what the others were promised
        target.put(ROOM * b"x")
        for _ in range(MOST_AT_ONCE - 1):
            assert ended.acquire(timeout=running.PATIENCE)
        assert target.bytes() == ROOM * b"x"
        theirs.unregister_system_shared_memory(target.name)
    assert set(outcomes) == {"OK", "StatusCode.NOT_FOUND"}


def test_nothing_stays_open(bundled: running.Server, theirs: Any) -> None:
    given = as_pixels(BLACK)
    with region(theirs, len(given.data)) as source:
        source.put(given.data)
        theirs.infer(MODEL, [placed(given, source)], parameters=RGB)
        before = len(opened(bundled))
        for _ in range(20):
            theirs.infer(MODEL, [placed(given, source)], parameters=RGB)
            refusal(lambda: theirs.infer(MODEL, [placed(given, source, offset=1)], parameters=RGB))
            refusal(lambda: theirs.register_system_shared_memory("x", new_name(), 10))
        running.wait_for(lambda: len(opened(bundled)) <= before, "no more files to be open than before")


def test_http_has_the_same_regions(bundled: running.Server, theirs: Any) -> None:
    """Registered by either protocol, they are of one caller; outputs in memory have no data in the response."""
    given = as_pixels(PICTURES[0])
    expected = theirs.infer(MODEL, [inline(given)], parameters=RGB)
    with triton_http.InferenceServerClient(urlsplit(bundled.http).netloc) as other, region(theirs, ROOM) as target:
        with region(other, len(given.data)) as source:
            source.put(given.data)
            listed = {one["name"]: one for one in other.get_system_shared_memory_status()}
            assert set(listed) == set(theirs.get_system_shared_memory_status().regions) == {source.name, target.name}
            assert listed[source.name] == {
                "name": source.name,
                "key": f"/{source.name}",
                "offset": 0,
                "byte_size": source.size,
            }
            assert refused_by_http(lambda: other.register_system_shared_memory(source.name, target.name, 10)) == "409"
            pixels = triton_http.InferInput(given.name, given.shape, given.datatype)
            threshold = triton_http.InferInput("SCORE_THRESHOLD", [1], "FP32")
            threshold.set_data_from_numpy(np.array([0.6], np.float32))
            boxes = triton_http.InferRequestedOutput("BOXES")
            boxes.set_shared_memory(target.name, 1000, 24)
            outputs = [triton_http.InferRequestedOutput("SCORES"), boxes, triton_http.InferRequestedOutput("CLASSES")]
            pixels.set_shared_memory(source.name, len(given.data))
            result = other.infer(MODEL, [pixels, threshold], outputs=outputs, parameters=RGB)
            told = result.get_output("BOXES")
            assert told["parameters"] == {
                "shared_memory_region": target.name,
                "shared_memory_byte_size": 16 * told["shape"][0],
                "shared_memory_offset": 24,
            }
            assert "data" not in told
            found = shm.get_contents_as_numpy(target.handle, np.float32, told["shape"], 24)
            kept = expected.as_numpy("SCORES") >= 0.6
            assert kept.any()
            assert found.tolist() == expected.as_numpy("BOXES")[kept].tolist()
            assert result.as_numpy("CLASSES").tolist() == expected.as_numpy("CLASSES")[kept].tolist()
            os.truncate(source.path, 10)
            assert refused_by_http(lambda: other.infer(MODEL, [pixels], parameters=RGB)) == "400"
        assert refused_by_http(lambda: other.get_system_shared_memory_status(source.name)) == "404"
        other.unregister_system_shared_memory()
        assert not theirs.get_system_shared_memory_status().regions


def refused_by_http(call: Callable[[], object]) -> str:
    """The status of a refusal over HTTP."""
    with pytest.raises(InferenceServerException) as caught:
        call()
    return str(caught.value.status())


# Who may. These servers have no models, as none is needed to register a region.


@contextlib.asynccontextmanager
async def serving(address: Tcp | Unix, sources: AccessSources | None = None) -> AsyncIterator[str]:
    engine = Engine(SETTINGS, Silent(), Probe(Silent()), max_seconds=60)
    server = RpcServer(engine, 1_000_000, 1, Access(sources) if sources else None)
    try:
        yield await server.start(address)
    finally:
        await server.stop(0)
        await engine.stop()


async def outcome(call: Any) -> str:
    try:
        await call
    except InferenceServerException as error:
        return str(error.status()).removeprefix("StatusCode.")
    return "OK"


async def test_callers_have_regions_of_their_own_and_a_policy_says_who_may(tmp_path: Path) -> None:
    tokens, policy = Tokens(tmp_path / "tokens"), tmp_path / "policy.toml"
    gate, yard, viewer = ({"authorization": f"Bearer {tokens.add(name)}"} for name in ("gate", "yard", "viewer"))
    policy.write_text(
        '[[rules]]\nwho = ["token:gate", "token:yard"]\nmay = ["share"]\n'
        '[[rules]]\nwho = ["token:viewer"]\nmay = ["detect", "describe"]\n'
    )
    sources = AccessSources(tokens=tokens.path, policy=policy)
    with memory(100) as made:
        async with (
            serving(Tcp("127.0.0.1", 0), sources) as address,
            triton_aio.InferenceServerClient(address) as theirs,
        ):
            register, status = theirs.register_system_shared_memory, theirs.get_system_shared_memory_status
            assert await outcome(register("frame", made.name, 100, headers=gate)) == "OK"
            assert await outcome(register("frame", made.name, 100, headers=gate)) == "ALREADY_EXISTS"
            assert await outcome(status("frame", headers=yard)) == "NOT_FOUND"
            assert await outcome(register("frame", made.name, 50, headers=yard)) == "OK"
            await theirs.unregister_system_shared_memory(headers=yard)
            assert (await status("frame", headers=gate)).regions["frame"].byte_size == 100
            assert await outcome(register("frame", made.name, 100, headers=viewer)) == "PERMISSION_DENIED"
            assert await outcome(register("frame", made.name, 100)) == "UNAUTHENTICATED"


async def test_regions_are_limited_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "MOST_REGIONS", 2)
    with memory(100) as made:
        async with serving(Tcp("127.0.0.1", 0)) as address, triton_aio.InferenceServerClient(address) as theirs:
            outcomes = [
                await outcome(theirs.register_system_shared_memory(name, made.name, 100)) for name in ("a", "b", "c")
            ]
            await theirs.unregister_system_shared_memory("a")
            outcomes.append(await outcome(theirs.register_system_shared_memory("c", made.name, 100)))
    assert outcomes == ["OK", "OK", "RESOURCE_EXHAUSTED", "OK"]


async def test_a_unix_socket_is_this_machine(tmp_path: Path) -> None:
    with memory(100) as made:
        async with (
            serving(Unix(str(tmp_path / "socket"))) as address,
            triton_aio.InferenceServerClient(address) as theirs,
        ):
            assert await outcome(theirs.register_system_shared_memory("frame", made.name, 100)) == "OK"


def own_address() -> str | None:
    """An address of this machine that is not the loopback; to find it sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return str(sock.getsockname()[0])


@pytest.mark.skipif(own_address() is None, reason="this machine has no network")
async def test_callers_elsewhere_cannot_name_memory() -> None:
    """A connection to another address of this machine looks like one from another machine."""
    with memory(100) as made:
        async with (
            serving(Tcp(own_address() or "", 0)) as address,
            triton_aio.InferenceServerClient(address) as theirs,
        ):
            assert await outcome(theirs.register_system_shared_memory("frame", made.name, 100)) == "PERMISSION_DENIED"
            assert await outcome(theirs.get_system_shared_memory_status()) == "PERMISSION_DENIED"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_memory_of_another_user_is_not_the_caller_s(theirs: Any) -> None:
    with memory(100) as made:
        os.chown(made.path, 12345, -1)
        told = refusal(lambda: theirs.register_system_shared_memory("frame", made.name, 100))
    assert "belongs to the user 12345, and the caller is the user 0" in told
