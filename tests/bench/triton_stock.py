"""A model in Triton as one writes it by hand, around Detectron2's own predictor, for `make bench-triton`."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as backend  # exists only in that process
from PIL import Image
from pycocotools import mask as rle
from vedette_server.predictor.reference import default_predictor


class TritonPythonModel:
    """One instance, as the backend calls it."""

    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        torch.set_num_threads(int(parameters["threads"]["string_value"]))
        changes = {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": float(parameters["threshold"]["string_value"])}
        self._predictor = default_predictor(Path(parameters["version"]["string_value"]), changes)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        data = backend.get_input_tensor_by_name(request, "ENCODED").as_numpy()
        with Image.open(io.BytesIO(data.tobytes())) as picture:
            bgr = np.ascontiguousarray(np.asarray(picture.convert("RGB"))[:, :, ::-1])
        found = self._predictor(bgr)["instances"].to("cpu")
        masks = [rle.encode(np.asfortranarray(one)) for one in found.pred_masks.numpy().astype(np.uint8)]
        texts = [json.dumps({"size": one["size"], "counts": one["counts"].decode()}).encode() for one in masks]
        tensors = {
            "BOXES": found.pred_boxes.tensor.numpy(),
            "SCORES": found.scores.numpy(),
            "CLASSES": found.pred_classes.numpy(),
            "MASKS_RLE": np.array(texts, np.object_),
        }
        return backend.InferenceResponse([backend.Tensor(name, array) for name, array in tensors.items()])
