"""What the gateway and a worker say to each other. Pixels are never in a message: they travel beside it."""

from typing import TypeAlias

import msgspec

from vedette_server.contract.answer import Answer
from vedette_server.contract.contract import InputContract
from vedette_server.contract.image import ImageSpec
from vedette_server.contract.options import Options
from vedette_server.contract.refusal import Reason


class Start(msgspec.Struct, frozen=True, tag=True):
    """Gateway to worker, once: load this predictor."""

    factory: str  # "package.module:function", called with the four values below
    folder: str
    contract: InputContract
    device: str
    threads: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Worker to gateway, once: the predictor is loaded."""


class LoadFailed(msgspec.Struct, frozen=True, tag=True):
    """Worker to gateway, once, before it ends: the predictor could not be loaded."""

    error: str  # for the operator, not for callers


class Job(msgspec.Struct, frozen=True, tag=True):
    """Gateway to worker: answer the image whose shared memory comes with this message."""

    job_id: int
    image: ImageSpec
    options: Options


class Done(msgspec.Struct, frozen=True, tag=True):
    """Worker to gateway: the answer."""

    job_id: int
    answer: Answer


class Refusal(msgspec.Struct, frozen=True, tag=True):
    """Worker to gateway: the image was refused."""

    job_id: int
    reason: Reason
    facts: dict[str, str]


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Worker to gateway: a bug showed on this image; the worker lives on."""

    job_id: int
    error: str  # for the operator, not for callers


ToWorker: TypeAlias = Start | Job
FromWorker: TypeAlias = Ready | LoadFailed | Done | Refusal | Failed
