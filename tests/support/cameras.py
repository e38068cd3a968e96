"""Cameras that are none: what goes on whether it is read or not, for tests."""

import contextlib
import functools
import http.server
import io
import itertools
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support import videos

RATE = 20  # frames a second


@contextlib.contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[int]:
    server.daemon_threads = True  # type: ignore[attr-defined]  # of ThreadingMixIn
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Jpegs:
    """A camera that sends JPEGs over HTTP; the first frame's grey is 0, the next one's 1, and so on."""

    url: str = ""
    frames: int = 1_000_000  # of one connection, after which it drops
    silent: float = 0.0  # seconds that it holds the line before it drops
    gone: bool = False  # refuses connections
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def send(self, request: http.server.BaseHTTPRequestHandler) -> None:
        if self.gone:
            request.send_error(503)
            return
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        for _ in range(self.frames):
            jpeg = io.BytesIO()
            Image.new("RGB", (64, 48), (next(self.numbers) % 250,) * 3).save(jpeg, "JPEG", quality=95)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {jpeg.tell()}\r\n\r\n"
            request.wfile.write(head.encode() + jpeg.getvalue() + b"\r\n")
            time.sleep(1 / RATE)
        time.sleep(self.silent)


@contextlib.contextmanager
def jpegs(**how: Any) -> Iterator[Jpegs]:
    camera = Jpegs(**how)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):  # whoever was watching has gone
                camera.send(self)

        def log_message(self, *_: object) -> None:
            pass

    with _serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        camera.url = f"http://127.0.0.1:{port}/video.mjpg"
        yield camera


@contextlib.contextmanager
def folder(path: Path) -> Iterator[str]:
    """A folder's files over HTTP."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(path))
    with _serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as port:
        yield f"http://127.0.0.1:{port}"


def transport_stream(path: Path, seconds: str = "10") -> bytes:
    """A broadcast, key frames twice a second."""
    source = ("-f", "lavfi", "-i", f"testsrc2=size=96x64:rate={RATE}:duration={seconds}")
    encoder = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-tune", "zerolatency", "-g", str(RATE // 2))
    videos.ffmpeg(*source, *encoder, path)
    return path.read_bytes()


_DESCRIPTION = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"


class _Rtsp(socketserver.StreamRequestHandler):
    """Just enough of RTSP: one MPEG transport stream, within the connection."""

    stream: bytes
    seconds: float

    def handle(self) -> None:
        while (line := self.rfile.readline().decode()).strip():
            method = line.split()[0]
            headers = dict(iter(lambda: self.rfile.readline().decode().strip().partition(": ")[::2], ("", "")))
            body = _DESCRIPTION if method == "DESCRIBE" else ""
            answer = ["RTSP/1.0 200 OK", f"CSeq: {headers['CSeq']}", "Session: 1", f"Content-Length: {len(body)}"]
            answer.append("Content-Type: application/sdp" if body else "Public: DESCRIBE, SETUP, PLAY")
            answer.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1" if method == "SETUP" else "Server: test")
            self.wfile.write("\r\n".join([*answer, "", body]).encode())
            if method == "PLAY":
                with contextlib.suppress(OSError):
                    self._play()
                return

    def _play(self) -> None:
        size = 7 * 188
        begun, pieces = time.monotonic(), range(0, len(self.stream), size)
        for number, start in enumerate(pieces):
            due = self.seconds * number / len(pieces)
            time.sleep(max(begun + due - time.monotonic(), 0))
            packet = struct.pack(">BBHII", 0x80, 33, number, int(due * 90_000), 1) + self.stream[start : start + size]
            self.wfile.write(struct.pack(">cBH", b"$", 0, len(packet)) + packet)


@contextlib.contextmanager
def rtsp(path: Path, seconds: float) -> Iterator[str]:
    """A camera that drops after some seconds, and can be called again."""
    stream = transport_stream(path, f"{seconds:g}")
    handler = type("Handler", (_Rtsp,), {"stream": stream, "seconds": seconds})

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True

    with _serving(Server(("127.0.0.1", 0), handler)) as port:
        yield f"rtsp://someone:secret@127.0.0.1:{port}/live"


@contextlib.contextmanager
def pushing(target: str, form: str = "mpegts", seconds: str = "30") -> Iterator[subprocess.Popen[bytes]]:
    """An ffmpeg that sends to an address, a FIFO or its output as fast as it is filmed."""
    source = ("-re", "-f", "lavfi", "-i", f"testsrc2=size=96x64:rate={RATE}:duration={seconds}")
    encoder = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-tune", "zerolatency", "-g", str(RATE // 2))
    command = [videos.FFMPEG, "-nostdin", "-loglevel", "quiet", *source, *encoder, "-y", "-f", form, target]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()
