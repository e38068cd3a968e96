"""One instance of an exported model: a predictor with its golden images, its explanations and its metrics.

A request takes the same way as in a worker, by the same code: converted, checked, predicted, explained, converted back.
Between requests the golden images are answered again, and silence is looked into. All of it happens on one event loop.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import structlog

from vedette_server import logs
from vedette_server.contract.options import AskedImage, resolve
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.query import Outcome
from vedette_server.monitor.metrics import Metrics
from vedette_server.predictor.predictor import load
from vedette_server.repository import repository
from vedette_server.rpc import calls, errors, inference, inference_stream, output_tensors
from vedette_server.triton.export import DIAGNOSE_SHARE, GOLDEN_SECONDS, PLUGINS, REPOSITORY, THREADS
from vedette_server.triton.proof import prove
from vedette_server.triton.published import Published
from vedette_server.triton.tensors import Tensors
from vedette_server.triton.version import ExportedVersion
from vedette_server.watch.probe import Probe

log = structlog.get_logger()

# Triton's names of codes that differ from gRPC's; those of other codes are the same.
_CODES = {
    "INVALID_ARGUMENT": "INVALID_ARG",
    "FAILED_PRECONDITION": "INVALID_ARG",
    "OUT_OF_RANGE": "INVALID_ARG",
    "RESOURCE_EXHAUSTED": "UNAVAILABLE",
    "UNIMPLEMENTED": "UNSUPPORTED",
}


class Instance:
    """Answers requests of Triton's Python backend, one by one, and watches what it answers."""

    def __init__(self, backend: Any, args: Mapping[str, str]) -> None:  # noqa: ANN401  a module without types
        """Load the model of these arguments.

        Raises `LoadRefusedError`, also GOLDEN_CHANGED; `RepositoryError`; `TensorsGarbledError`.
        """
        logs.configure("console", "info")
        config = json.loads(args["model_config"])
        given = {name: one["string_value"] for name, one in config["parameters"].items()}
        self._backend = backend
        self._tensors = Tensors(backend, config)
        self._tensors.check()
        root = Path(args["model_repository"], args["model_version"], REPOSITORY)
        (self._model,) = repository.read(root, given[PLUGINS].split())
        device = f"cuda:{args['model_instance_device_id']}" if args["model_instance_kind"] == "GPU" else "cpu"
        predictor = load(self._model.folder, self._model.contract, device, int(given[THREADS]))
        self._metrics = Metrics()
        self._metrics.loaded(self._model)
        self._version = ExportedVersion(self._model, predictor.predict, self._metrics)
        golden = prove(self._version, backend, self._tensors)
        self._metrics.golden(self._model, golden.cause)
        self._probe = Probe(self._metrics, float(given[DIAGNOSE_SHARE]))
        self._vigil = asyncio.create_task(self._version.vigil(float(given[GOLDEN_SECONDS])))
        instances = sum(one["count"] * max(1, len(one["gpus"])) for one in config["instance_group"])
        self._metrics.state(self._model, workers=instances, wanted=instances, queued=0, running=0, restarts=0)
        self._published = Published(backend, self._metrics)
        log.info("instance_ready", instance=args["model_instance_name"], golden=len(self._model.golden))

    @classmethod
    async def load(cls, backend: Any, args: Mapping[str, str]) -> Self:  # noqa: ANN401  the same
        """Load the model, on the loop that everything happens on, as `__init__` does."""
        return cls(backend, args)

    async def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests, in their order."""
        responses = [self._respond(one) for one in requests]
        self._published.note()
        return responses

    async def close(self) -> None:
        """End what happens between requests, and publish what was counted last."""
        self._vigil.cancel()
        await self._probe.stop()
        self._published.close()

    def _respond(self, request: Any) -> Any:  # noqa: ANN401  the same
        if request.is_cancelled():
            return self._failed("The caller has cancelled this request.", "CANCELLED")
        request_id = calls.loggable(request.request_id())
        try:
            return self._backend.InferenceResponse(self._answered(request, request_id))
        except Refused as error:
            log.info("refused", request_id=request_id, reason=error.reason, facts=error.facts)
            refusal = error
        except Exception:
            log.exception("bug", request_id=request_id)
            refusal = Refused(Reason.INTERNAL)
        self._metrics.refused(self._model.name, str(self._model.version), refusal.reason)
        code = errors.TABLE[refusal.reason].code.name
        return self._failed(f"{refusal.reason}: {errors.status(refusal, request_id).message}", _CODES.get(code, code))

    def _failed(self, message: str, code: str) -> Any:  # noqa: ANN401  the same
        error = self._backend.TritonError(
            message, getattr(self._backend.TritonError, code, self._backend.TritonError.INTERNAL)
        )
        return self._backend.InferenceResponse([], error=error)

    def _answered(self, request: Any, request_id: str) -> list[Any]:  # noqa: ANN401  the same
        """Return the outputs for a request. Raises `Refused`."""
        started = time.monotonic()
        received = self._tensors.read(request)
        calls.check_id(received.message.id)
        wanted = inference.read(received, self._model.contract)
        source = inference_stream.sequence(wanted.of_request)
        asked = AskedImage(wanted.image, resolve(wanted.asked, self._model.contract))
        answer = self._version.infer(asked)
        self._metrics.batch(self._model, 1)
        outcome = Outcome(
            answer=answer,
            model=self._model,
            queue_seconds=0.0,  # Triton has its own metric of that
            total_seconds=time.monotonic() - started,
            findings=self._probe.see(self._version, source, asked, answer),
            source=source,
            request_id=request_id,
        )
        outputs = self._tensors.write(output_tensors.response(outcome, wanted.outputs, received.message.id))
        self._metrics.answered(outcome)
        return outputs
