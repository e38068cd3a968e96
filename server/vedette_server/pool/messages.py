"""Messages between the gateway and a worker. Pixels are never part of a message: they travel in shared memory."""

from typing import TypeAlias

import msgspec

from vedette_server.contract.answer import Answer
from vedette_server.contract.contract import InputContract
from vedette_server.contract.image import ImageSpec
from vedette_server.contract.loading import Check
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

    max_batch: int  # largest batch that pays off on this device; 1: single images only


class LoadFailed(msgspec.Struct, frozen=True, tag=True):
    """Worker to gateway, once, before it ends: the predictor could not be loaded."""

    error: str  # for the operator, not for callers
    check: Check | None = None  # the failed check


class Job(msgspec.Struct, frozen=True):
    """One image in a slot of shared memory."""

    job_id: int
    slot: int
    size: int  # bytes of the image in the slot
    fresh: bool  # the slot's memory is new, and its descriptor comes with the message
    spec: ImageSpec
    options: Options


class Batch(msgspec.Struct, frozen=True, tag=True):
    """Gateway to worker: infer these images together."""

    jobs: tuple[Job, ...]


class Alive(msgspec.Struct, frozen=True, tag=True):
    """Worker to gateway: the inference loop is alive, and has finished with these jobs' images."""

    through: tuple[int, ...] = ()


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
    """Worker to gateway: a bug occurred on this image; the worker continues."""

    job_id: int
    error: str  # for the operator, not for callers


ToWorker: TypeAlias = Start | Batch
FromWorker: TypeAlias = Ready | LoadFailed | Alive | Done | Refusal | Failed
