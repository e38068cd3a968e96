"""Vedette's client: detections from a Vedette server, in plain Python.

>>> from vedette_client import Client
>>> with Client("127.0.0.1:8001") as client:  # doctest: +SKIP
...     for found in client.detect("street.jpg"):
...         print(found.class_name, found.score, found.box)
"""

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
from vedette_client.images import ImageLike, PixelFormat
from vedette_client.results import Detection, Empty, Keypoint, Mask, Model, Panoptic, Result, Segment, Timings

__all__ = [
    "AsyncClient",
    "Client",
    "DeadlineExceeded",
    "Detection",
    "Empty",
    "FieldViolation",
    "ImageLike",
    "InternalError",
    "InvalidRequest",
    "Keypoint",
    "LocalError",
    "Mask",
    "Model",
    "NotFound",
    "NotServed",
    "Overloaded",
    "Panoptic",
    "PixelFormat",
    "Result",
    "Segment",
    "ServerError",
    "Timings",
    "Unavailable",
    "VedetteError",
]
