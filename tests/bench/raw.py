"""Generated HTTP/2 against a real server: calls and frames, right, wrong and cut off, beside an honest caller.

    python -m tests.bench.raw --count 100000 --seed 1

Every call that was sent whole ends with a status or a reset, or its connection does. The server lives, has no bug to
tell of, keeps below its ceiling of memory, and answers the honest caller.
"""

import argparse
import collections
import random
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.bench import attacks, load
from tests.support import raw_frames, running, wire_requests
from tests.support.raw_frames import Connection, Header, frame

PATIENCE = 60.0  # seconds in which a call must have ended, on a machine that is busy with others
_CALLERS = 8
_PAUSE = 0.3  # seconds between two calls of the honest caller: the work is for the others
_CALLS = 24  # of a connection, at most
_SERVICE = b"/vedette.v1.DetectionService/"
_PATHS = (
    *(_SERVICE + method.encode() for method in wire_requests.MESSAGES),
    b"/grpc.health.v1.Health/Check",
    b"/grpc.health.v1.Health/Watch",
    b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
_NO_PATHS = (
    b"", b"/", b"//", b"*", b"/x", b"/a/b/c/d", _SERVICE, _SERVICE + b"Nothing", b"vedette.v1.DetectionService/Detect",
    b"/" + b"x" * 3_000, b"/\xff\xfe/\x00", b"/%2e%2e/%2e%2e", b"http://elsewhere/" + _SERVICE,
)  # fmt: skip
# Headers that are wrong, or not what a server expects, each kind as often as the others.
_HEADERS: tuple[tuple[Header, ...], ...] = (
    *(
        tuple((name, value) for value in values)
        for name, values in {
            b"content-type": (
                b"application/grpc+proto", b"application/grpc+json", b"application/grpc-web", b"text/html", b"",
            ),
            b":method": (b"GET", b"PUT", b"HEAD", b"", b"POST POST", b"\xff"),
            b":scheme": (b"https", b"", b"ftp", b"\0"),
            b":authority": (b"", b"elsewhere", b"a b", b"\xff", b"x" * 5_000),
            b"te": (b"", b"gzip", b"trailers, x", b"\xff"),
            b"grpc-timeout": (
                b"1S", b"100m", b"1n", b"0S", b"99999999H", b"999999999S", b"-1S", b"1", b"S", b"", b"1x", b"\xff",
            ),
            b"grpc-encoding": (b"gzip", b"deflate", b"identity", b"br", b"", b"\xff"),
            b"grpc-accept-encoding": (b"gzip", b"nothing", b"", b"\xff" * 300),
            b"x-bin": (b"!!!", b"AA", b"\xff" * 9, b"", b"=" * 50),
            b"x-long": tuple(b"y" * length for length in (1_000, 7_000, 9_000, 15_000)),
            b"authorization": (b"Bearer " + b"\xff" * 40, b"Bearer a.b.c", b"Basic eA==", b""),
            b"user-agent": (b"\xff", b"a\nb", b"x" * 4_000),
        }.items()
    ),
    (
        (b"Upper", b"case"), (b"connection", b"close"), (b"", b"x"), (b":strange", b"x"), (b"a b", b"c\r\nd"),
        (b"grpc-status", b"0"), (b"content-length", b"-1"), (b"grpc-previous-rpc-attempts", b"-1"), (b"\xff", b"x"),
    ),
)  # fmt: skip
_SHOWN = 20


@dataclass
class Tally:
    """Outcomes of the calls."""

    sent: int = 0
    connections: int = 0
    ended: collections.Counter[str] = field(default_factory=collections.Counter)  # by how, in gRPC's numbers
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds that the last calls of a connection took to end
    lock: threading.Lock = field(default_factory=threading.Lock)


def message(rng: random.Random, payload: bytes) -> bytes:
    """A payload as gRPC frames it, or not quite."""
    length = len(payload)
    match rng.randrange(12):
        case 0:
            length = rng.choice([0, 1, max(length - 3, 0), length + 1, length + 5, 70_000_000, 2**31, 2**32 - 1])
        case 1:
            return bytes([rng.choice([1, 1, 2, 128, 255])]) + struct.pack(">I", length) + payload
        case 2:
            return (b"\0" + struct.pack(">I", length) + payload) * rng.choice([2, 3, 20])
        case 3:
            return b"\0" + struct.pack(">I", length) + payload + rng.randbytes(rng.randrange(1, 20))
        case 4:
            return (b"\0" + struct.pack(">I", length) + payload)[: rng.randrange(length + 5)]
        case 5:
            return rng.choice([b"", b"\0", bytes(4), rng.randbytes(30)])
    return b"\0" + struct.pack(">I", length) + payload


def payload(rng: random.Random, path: bytes) -> bytes:
    """Draw the payload for a method: seldom a picture that would be inferred, which is not under test here."""
    method = path.rpartition(b"/")[2].decode("latin-1")
    if method not in wire_requests.MESSAGES:
        return rng.choice([b"", b"\x0a\x03abc", rng.randbytes(20)])
    if method in ("Detect", "StreamDetect", "Diagnose") and rng.random() < 0.98:
        writer = wire_requests.Writer(rng)
        return writer.fields(wire_requests.MESSAGES[method].DESCRIPTOR, 3)[:12_000]
    if method == "StreamDetect":
        return wire_requests.configuration(rng)
    return wire_requests.generated(rng, method)[:12_000]


def fields(rng: random.Random, path: bytes) -> list[Header]:
    """The headers of a call, most of them right."""
    made = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    if rng.random() < 0.6:
        return [*made.items()]
    name, value = rng.choice(rng.choice(_HEADERS))
    if name in made and rng.random() < 0.3:
        del made[name]
    elif rng.random() < 0.9:
        made[name] = value
    else:
        made |= {b"x-%d" % number: b"z" * 20 for number in range(rng.choice([20, 90]))}
    pairs = [*made.items()]
    if rng.random() < 0.1:
        rng.shuffle(pairs)
    if rng.random() < 0.1:
        pairs.append((name, value))  # once more, perhaps
    return pairs


def cut(rng: random.Random, data: bytes, call: int, *, end: bool) -> Iterator[bytes]:
    """A call's bytes as its frames."""
    if not data and end:
        yield frame(raw_frames.DATA, call=call, flags=raw_frames.END_STREAM)
        return
    size = rng.choice([1, 7, 1_000, 16_384]) if len(data) < 100 else rng.choice([1_000, 16_384])
    for at in range(0, len(data), size):
        last = end and at + size >= len(data)
        if rng.random() < 0.02:
            yield frame(raw_frames.DATA, call=call)  # which is empty
        yield frame(raw_frames.DATA, data[at : at + size], call=call, flags=raw_frames.END_STREAM if last else 0)


def interlude(rng: random.Random, call: int) -> bytes:
    """A frame that belongs to no call, and that a connection survives."""
    window, priority = raw_frames.WINDOW, raw_frames.PRIORITY
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: frame(raw_frames.PING, rng.randbytes(8), flags=raw_frames.ACK),
        lambda: raw_frames.settings((rng.choice([1, 3, 6, 0x77]), rng.choice([0, 1, 4_096, 70_000]))),
        lambda: raw_frames.settings((4, rng.choice([0, 1, 65_535, 2**31 - 1])), (4, 65_535)),
        lambda: frame(window, struct.pack(">I", rng.choice([1, 65_535]))),
        lambda: frame(window, struct.pack(">I", 1), call=call),
        lambda: frame(priority, struct.pack(">IB", rng.choice([0, 1, 3, 2**31 + 1]), 7), call=call + 2),
        lambda: frame(priority, struct.pack(">IB", call, 0), call=call),  # which depends on itself
        lambda: frame(
            rng.choice([11, 77, 255]), rng.randbytes(20), call=rng.choice([0, call]), flags=rng.randrange(256)
        ),
    )
    return rng.choice(ways)()


def breach(rng: random.Random, call: int) -> bytes:
    """Bytes that break the protocol, after which a connection may end."""
    wrong: tuple[Callable[[], bytes], ...] = (
        lambda: rng.randbytes(rng.randrange(1, 200)),
        lambda: frame(raw_frames.DATA, b"abc"),
        lambda: frame(raw_frames.DATA, b"abc", call=call + 100),
        lambda: frame(raw_frames.HEADERS, b"\xff\xff\xff\xff\xff\xff", call=call + 2, flags=4),
        lambda: frame(raw_frames.HEADERS, rng.randbytes(40), call=call + 2, flags=5),
        lambda: frame(raw_frames.HEADERS, b"\x82", call=call + 2) + frame(raw_frames.PING, bytes(8)),
        lambda: frame(raw_frames.HEADERS, b"\x82", call=2, flags=5),
        lambda: frame(raw_frames.CONTINUATION, b"\x82", call=call + 2, flags=4),
        lambda: frame(raw_frames.HEADERS, b"", call=call + 2) + frame(raw_frames.CONTINUATION, call=call + 2) * 2_000,
        lambda: frame(raw_frames.PUSH, bytes(8), call=call + 2),
        lambda: frame(raw_frames.SETTINGS, b"abc"),
        lambda: frame(raw_frames.SETTINGS, bytes(6), flags=1),
        lambda: raw_frames.settings((2, 7), (4, 2**31), (5, 1)),
        lambda: raw_frames.settings((4, 2**31 - 1)) + frame(raw_frames.WINDOW, struct.pack(">I", 2**31 - 1), call=call),
        lambda: frame(raw_frames.WINDOW, struct.pack(">I", 0)),
        lambda: frame(raw_frames.WINDOW, struct.pack(">I", 2**31 - 1)) * 3,
        lambda: frame(raw_frames.WINDOW, b"ab"),
        lambda: frame(raw_frames.PING, b"ab"),
        lambda: frame(raw_frames.PING, bytes(8)) * 300,
        lambda: raw_frames.settings() * 300,
        lambda: frame(raw_frames.RESET, b"ab", call=call),
        lambda: frame(raw_frames.RESET, bytes(4)),
        lambda: frame(raw_frames.RESET, bytes(4), call=call + 100),
        lambda: frame(raw_frames.PRIORITY, b"ab", call=call),
        lambda: frame(raw_frames.GOAWAY, rng.randbytes(rng.choice([3, 8, 50]))),
        lambda: frame(raw_frames.DATA, bytes(20), call=call, length=2**24 - 1),
        lambda: frame(raw_frames.DATA, b"\xff" + bytes(20), call=call, flags=raw_frames.PADDED),
        lambda: frame(raw_frames.HEADERS, b"\xff", call=call + 2, flags=raw_frames.PADDED | 4),
        lambda: frame(raw_frames.HEADERS, b"ab", call=call + 2, flags=raw_frames.PRIORITISED | 4),
    )
    return rng.choice(wrong)()


def greeting(rng: random.Random) -> tuple[bytes, bool]:
    """Draw the first bytes of a connection; the flag says if calls may follow."""
    if rng.random() < 0.97:
        window = rng.choice([65_535, 65_535, 65_535, 2**20, 1_000])
        return raw_frames.PREFACE + raw_frames.settings((4, window)), True
    strange = (
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300), b"",
        raw_frames.PREFACE[: rng.randrange(24)], raw_frames.PREFACE + frame(raw_frames.PING, bytes(8)),
        rng.randbytes(100), raw_frames.PREFACE * 2, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"SSH-2.0-x\r\n",
    )  # fmt: skip
    return rng.choice(strange), False


def one(rng: random.Random, connection: Connection, awaited: list[int]) -> bytes:
    """The frames of one call; `awaited` is told of it if it is whole, so that the server must end it."""
    call = connection.call()
    path = rng.choice(_PATHS) if rng.random() < 0.9 else rng.choice(_NO_PATHS)
    alone = rng.random() < 0.05  # a call of headers and nothing else
    flags = raw_frames.END_HEADERS | (raw_frames.END_STREAM if alone else 0)
    out = connection.headers(call, fields(rng, path), flags)
    whole = rng.random() < 0.85
    data = b"" if alone else message(rng, payload(rng, path))
    frames = [] if alone else [*cut(rng, data, call, end=whole)]
    reset = frame(raw_frames.RESET, struct.pack(">I", rng.choice([0, 7, 8, 11, 99])), call=call)
    if not (whole or alone):
        del frames[rng.randrange(len(frames) + 1) :]
        frames.append(reset)
    elif rng.random() < 0.05:
        frames.append(reset)
    elif not path.endswith((b"Watch", b"Diagnose")):  # which wait: for what changes, and for workers without traffic
        awaited.append(call)
    if rng.random() < 0.15:
        frames.insert(rng.randrange(len(frames) + 1), interlude(rng, call))
    return out + b"".join(frames)


def converse(server: running.Server, seed: int, number: int, tally: Tally) -> int:
    """One connection with its calls; returns how many these were."""
    rng = random.Random(seed << 32 | number)  # noqa: S311  not secrets
    try:
        connection = Connection(server.address)
    except OSError as error:
        with tally.lock:
            tally.wrong.append(f"{number}: no connection: {error}")
        return 1
    try:
        return _converse(rng, connection, number, tally)
    finally:
        connection.close()


def _converse(rng: random.Random, connection: Connection, number: int, tally: Tally) -> int:
    begun, speaks = greeting(rng)
    connection.send(begun)
    awaited: list[int] = []
    calls = rng.randrange(1, _CALLS) if speaks else 0
    started = time.monotonic()
    for _ in range(calls):
        connection.send(one(rng, connection, awaited))
    breaks = not speaks
    if speaks and rng.random() < 0.15:
        breaks = True
        connection.send(breach(rng, max(connection.call() - 2, 1)))
    if breaks:
        connection.finish()
        awaited = []  # with what the connection has become, so have its calls
    ended = connection.listen(lambda: not breaks and all(call in connection.ended for call in awaited), PATIENCE)
    with tally.lock:
        tally.sent += max(calls, 1)
        tally.connections += 1
        tally.slowest = max(tally.slowest, time.monotonic() - started)
        tally.ended.update(connection.ended.values())
        tally.ended["with the connection"] += calls - len(connection.ended)
        if not ended:
            left = [call for call in awaited if call not in connection.ended]
            tally.wrong.append(f"{number}: calls {left} have not ended" if left else f"{number}: it was not closed")
    return max(calls, 1)


def run(server: running.Server, count: int, seed: int) -> Tally:
    """Make so many calls, by several callers at once."""
    tally, numbers, lock = Tally(), iter(range(10**9)), threading.Lock()

    def call() -> None:
        while tally.sent < count:
            with lock:
                number = next(numbers)
            converse(server, seed, number, tally)

    threads = [threading.Thread(target=call) for _ in range(_CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.wrong += [f"a bug: {str(event.get('exception', event))[-300:]}" for event in server.events("bug")]
    tally.wrong += [f"a worker was lost: {event}" for event in server.events("worker_lost")]
    if server.process.poll() is not None or running.http(server, "/readyz")[0] != 200:
        tally.wrong.append("the server does not answer any more")
    return tally


def main() -> None:
    """Make many calls and print what became of them; the exit status says whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    started = time.monotonic()
    with load.server() as server:
        with attacks.honest(server, pause=_PAUSE) as seen:
            tally = run(server, chosen.count, chosen.seed)
        wrong = tally.wrong + [f"the honest caller was told {failure}" for failure in seen.failed]
        if seen.peak > attacks.CEILING:
            wrong.append(f"the gateway had {seen.peak} bytes")
    for how, count in tally.ended.most_common():
        print(f"{count:8} {how}")
    print(*wrong[:_SHOWN], sep="\n")
    print(
        f"{tally.sent} calls on {tally.connections} connections in {time.monotonic() - started:.0f} s, {len(wrong)} "
        f"wrong; a connection's calls took {tally.slowest:.1f} s at most; the gateway had {seen.peak / 2**20:.0f} MiB "
        f"at most; honest calls: {len(seen.seconds)}, {seen.failed.total()} failed, p95 {seen.p95:.2f} s"
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
