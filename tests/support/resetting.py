"""A server that breaks its streams off as a proxy does whose own server has gone: with RST_STREAM, without a status."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
from vedette.v1 import detection_service_pb2 as pb

from tests.support.raw_http2 import message

_PREFIX = 5  # bytes before a message of gRPC


@dataclass
class Resetting:
    """Answers so many frames of each stream and resets it; the last stream is whole."""

    code: int  # HTTP/2's
    after: int
    times: int
    streams: int = 0  # that have begun
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, near: socket.socket) -> None:
        """Serve one connection until it is closed."""
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        http.initiate_connection()
        calls: dict[int, _Call] = {}
        with contextlib.suppress(OSError):
            near.sendall(http.data_to_send())
            while received := near.recv(1 << 16):
                for event in http.receive_data(received):
                    self._handle(http, calls, event)
                near.sendall(http.data_to_send())

    def _handle(self, http: h2.connection.H2Connection, calls: "dict[int, _Call]", event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(number)):
                with self._lock:
                    self.streams += 1
                    calls[number] = _Call(self.after if self.streams <= self.times else None)
                http.send_headers(number, [(":status", "200"), ("content-type", "application/grpc")])
            case h2.events.DataReceived(stream_id=int(number), data=data, flow_controlled_length=int(length)):
                http.acknowledge_received_data(length, number)
                for answer in calls[number].answers(data or b"") if number in calls else ():
                    http.send_data(number, answer)
                if number in calls and calls[number].left == 0:
                    del calls[number]
                    http.reset_stream(number, self.code)
            case h2.events.StreamEnded(stream_id=int(number)) if number in calls:
                http.send_headers(number, [("grpc-status", "0")], end_stream=True)


@dataclass
class _Call:
    left: int | None  # frames that it still answers; None: all
    _received: bytes = b""

    def answers(self, data: bytes) -> Iterator[bytes]:
        self._received += data
        while len(self._received) >= _PREFIX and self.left != 0:
            end = _PREFIX + int.from_bytes(self._received[1:_PREFIX])
            if len(self._received) < end:
                return
            request = pb.StreamDetectRequest.FromString(self._received[_PREFIX:end])
            self._received = self._received[end:]
            if request.HasField("frame"):
                self.left = None if self.left is None else self.left - 1
                answer = pb.FrameAnswer(frame_id=request.frame.frame_id)
                yield message(pb.StreamDetectResponse(answer=answer).SerializeToString())


@contextlib.contextmanager
def resetting(code: int, *, after: int, times: int) -> Iterator[tuple[Resetting, str]]:
    """Serve so, at the address."""
    server = Resetting(code, after, times)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    threading.Thread(target=server.take, args=(near,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server, f"127.0.0.1:{listener.getsockname()[1]}"
