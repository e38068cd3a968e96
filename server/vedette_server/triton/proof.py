"""The golden images of an exported model, answered as requests of the backend's own tensors before it serves."""

from typing import Any

import structlog

from vedette_server.contract.contract import InputContract
from vedette_server.contract.files import declare
from vedette_server.contract.image import RawImage
from vedette_server.contract.loading import Check, refuse
from vedette_server.contract.options import AskedImage, resolve
from vedette_server.engine.golden_answers import GoldenAnswers
from vedette_server.engine.query import Outcome
from vedette_server.explain.explain import Context, explain
from vedette_server.repository.golden import Golden
from vedette_server.rpc import inference, output_tensors
from vedette_server.rpc.inference import ImageRequest
from vedette_server.rpc.input_tensors import packed
from vedette_server.triton.tensors import Tensors, TensorsGarbledError
from vedette_server.triton.version import ExportedVersion

log = structlog.get_logger()


def prove(version: ExportedVersion, backend: Any, tensors: Tensors) -> GoldenAnswers:  # noqa: ANN401  a module without types
    """Have a version answer the golden images.

    Raises `LoadRefusedError`, GOLDEN_CHANGED, unless that is waived; `Refused`; `TensorsGarbledError`.
    """
    model = version.model
    answers = GoldenAnswers(model)
    if not model.golden:
        log.warning("no_golden_images", model=model.name, version=model.version)
    for golden in model.golden:
        request = _request(golden, model.contract, backend, tensors)
        wanted = inference.read(tensors.read(request), model.contract)
        answer = version.infer(AskedImage(wanted.image, resolve(wanted.asked, model.contract)))
        if wrong := answers.see(golden, answer):
            refuse(Check.GOLDEN_CHANGED, wrong, model.contract.waivers)
            log.warning("golden_changed_and_waived", model=model.name, version=model.version, seen=wrong)
        findings = explain(answer, model.contract, Context())
        outcome = Outcome(answer=answer, model=model, queue_seconds=0.0, total_seconds=0.0, findings=findings)
        _check_returned(outcome, wanted, tensors)
    version.prove(answers)
    return answers


def _request(golden: Golden, contract: InputContract, backend: Any, tensors: Tensors) -> Any:  # noqa: ANN401  the same
    """Return a golden image as a caller would send it."""
    image = declare(golden.data, contract)
    data, parameters = bytes(image.data), {}
    if isinstance(image.spec, RawImage):
        shape = (image.spec.height, image.spec.width, contract.channels)
        sent = tensors.tensor("IMAGE", "UINT8", shape, data)
        parameters["pixel_format"] = str(image.spec.pixel_format)
    elif tensors.takes_texts("ENCODED"):
        sent = tensors.tensor("ENCODED", "BYTES", [1], packed([data]))
    else:
        sent = tensors.tensor("ENCODED", "UINT8", [len(data)], data)
    return backend.InferenceRequest(
        model_name="golden",
        requested_output_names=output_tensors.produced(contract),
        inputs=[sent],
        parameters=parameters,
    )


def _check_returned(outcome: Outcome, wanted: ImageRequest, tensors: Tensors) -> None:
    """Raise `TensorsGarbledError` if the outputs are not what they were made of."""
    response = output_tensors.response(outcome, wanted.outputs, "")
    for tensor, raw in zip(tensors.write(response), response.raw_output_contents, strict=True):
        if bytes(tensors.content(tensor)) != raw:
            msg = f"this Python backend garbles the output {tensor.name()}"
            raise TensorsGarbledError(msg)
