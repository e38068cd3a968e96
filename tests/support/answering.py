"""A server of streams without a model: what is tested is what comes before and after it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field

import grpc
import numpy as np
from google.rpc import status_pb2
from numpy.typing import NDArray
from vedette.v1 import answer_pb2, image_pb2
from vedette.v1 import detection_service_pb2 as pb
from vedette_client.streaming import METHOD


@dataclass
class Answering:
    """Answers each frame with one box around all of it."""

    address: str = ""
    pause: float = 0.0  # seconds that an answer takes
    fails: Callable[[int], bool] = lambda _number: False  # which frames fail
    seen: list[NDArray[np.uint8]] = field(default_factory=list)
    configs: list[pb.StreamConfig] = field(default_factory=list)

    def stream(
        self, requests: Iterator[pb.StreamDetectRequest], _context: grpc.ServicerContext
    ) -> Iterator[pb.StreamDetectResponse]:
        for request in requests:
            if request.HasField("config"):
                self.configs.append(request.config)
                continue
            time.sleep(self.pause)
            yield self._answer(request.frame)

    def _answer(self, frame: pb.Frame) -> pb.StreamDetectResponse:
        if self.fails(frame.frame_id):
            status = status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0], message="this one")
            return pb.StreamDetectResponse(error=pb.FrameError(frame_id=frame.frame_id, status=status))
        raw = frame.image.raw
        self.seen.append(np.frombuffer(raw.data, np.uint8).reshape(raw.height, raw.width, 3))
        box = answer_pb2.Box(x0=0, y0=0, x1=raw.width, y1=raw.height)
        answer = answer_pb2.Answer(
            detections=[answer_pb2.Detection(box=box, score=0.9, class_name="all")],
            image_size=image_pb2.ImageSize(height=raw.height, width=raw.width),
            threshold=0.5,
        )
        age = max(time.time() - frame.capture_time.ToNanoseconds() / 1e9, 0.0)
        told = pb.FrameAnswer(frame_id=frame.frame_id, capture_time=frame.capture_time, age_seconds=age, answer=answer)
        return pb.StreamDetectResponse(answer=told)


@contextlib.contextmanager
def server() -> Iterator[Answering]:
    answering = Answering()
    service, method = METHOD.strip("/").split("/")
    handler = grpc.stream_stream_rpc_method_handler(
        answering.stream, pb.StreamDetectRequest.FromString, pb.StreamDetectResponse.SerializeToString
    )
    running = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    answering.address = f"127.0.0.1:{running.add_insecure_port('127.0.0.1:0')}"
    running.start()
    try:
        yield answering
    finally:
        running.stop(1).wait()
