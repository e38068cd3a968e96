"""Vedette's client: detections from a Vedette server, in plain Python.

>>> from vedette_client import Client
>>> with Client("127.0.0.1:8001") as client:  # doctest: +SKIP
...     for found in client.detect("street.jpg"):
...         print(found.class_name, found.score, found.box)
"""

from vedette_client.asking import Ask, MaskFormat, Options, OutputKind
from vedette_client.channel import LoadBalancing
from vedette_client.client import AsyncClient, Client
from vedette_client.errors import (
    DeadlineExceeded,
    FieldViolation,
    InternalError,
    InvalidRequest,
    LocalError,
    NoConnection,
    NotFound,
    NotPermitted,
    NotServed,
    Overloaded,
    ServerError,
    Unauthenticated,
    Unavailable,
    VedetteError,
)
from vedette_client.images import File, ImageLike, Orientation, PixelFormat, Raw, Tensor
from vedette_client.results import (
    Candidate,
    Contract,
    Detection,
    Diagnosis,
    Empty,
    Finding,
    Keypoint,
    Mask,
    Model,
    Panoptic,
    Result,
    RotatedBox,
    Segment,
    StageCounts,
    Timings,
)
from vedette_client.security import Tls
from vedette_client.streaming import Answered, Dropped, Event, Failed, Frame, Policy, Reconfigure, Sendable

__all__ = [
    "Answered",
    "Ask",
    "AsyncClient",
    "Candidate",
    "Client",
    "Contract",
    "DeadlineExceeded",
    "Detection",
    "Diagnosis",
    "Dropped",
    "Empty",
    "Event",
    "Failed",
    "FieldViolation",
    "File",
    "Finding",
    "Frame",
    "ImageLike",
    "InternalError",
    "InvalidRequest",
    "Keypoint",
    "LoadBalancing",
    "LocalError",
    "Mask",
    "MaskFormat",
    "Model",
    "NoConnection",
    "NotFound",
    "NotPermitted",
    "NotServed",
    "Options",
    "Orientation",
    "OutputKind",
    "Overloaded",
    "Panoptic",
    "PixelFormat",
    "Policy",
    "Raw",
    "Reconfigure",
    "Result",
    "RotatedBox",
    "Segment",
    "Sendable",
    "ServerError",
    "StageCounts",
    "Tensor",
    "Timings",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "VedetteError",
]
