"""Vedette's client: detections from a Vedette server, in plain Python.

>>> from vedette_client import Client
>>> with Client("127.0.0.1:8001") as client:  # doctest: +SKIP
...     for found in client.detect("street.jpg"):
...         print(found.class_name, found.score, found.box)
"""

from vedette_client.asking import Ask, MaskFormat, OutputKind
from vedette_client.client import AsyncClient, Client
from vedette_client.errors import (
    DeadlineExceeded,
    FieldViolation,
    InternalError,
    InvalidRequest,
    LocalError,
    NotFound,
    NotServed,
    Overloaded,
    ServerError,
    Unavailable,
    VedetteError,
)
from vedette_client.images import File, ImageLike, PixelFormat, Raw, Tensor
from vedette_client.results import (
    Contract,
    Detection,
    Empty,
    Finding,
    Keypoint,
    Mask,
    Model,
    Panoptic,
    Result,
    Segment,
    Timings,
)

__all__ = [
    "Ask",
    "AsyncClient",
    "Client",
    "Contract",
    "DeadlineExceeded",
    "Detection",
    "Empty",
    "FieldViolation",
    "File",
    "Finding",
    "ImageLike",
    "InternalError",
    "InvalidRequest",
    "Keypoint",
    "LocalError",
    "Mask",
    "MaskFormat",
    "Model",
    "NotFound",
    "NotServed",
    "OutputKind",
    "Overloaded",
    "Panoptic",
    "PixelFormat",
    "Raw",
    "Result",
    "Segment",
    "ServerError",
    "Tensor",
    "Timings",
    "Unavailable",
    "VedetteError",
]
