"""Regions of shared memory for tests, made and registered with Triton's client, and removed afterwards."""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tritonclient.utils.shared_memory as shm

FOLDER = Path("/dev/shm")  # noqa: S108  that of shm_open
PREFIX = "vedette-test-"


def new_name() -> str:
    return f"{PREFIX}{uuid.uuid4().hex}"


@dataclass(frozen=True)
class Memory:
    """Shared memory of a client, and the name of the region that it is registered as."""

    name: str
    handle: Any
    size: int

    @property
    def path(self) -> Path:
        return FOLDER / self.name

    def put(self, data: bytes, offset: int = 0) -> None:
        self.handle._mpsm_handle.buf[offset : offset + len(data)] = data

    def bytes(self) -> bytes:
        return bytes(self.handle._mpsm_handle.buf[: self.size])


@contextlib.contextmanager
def memory(size: int) -> Iterator[Memory]:
    """Shared memory that nobody has registered yet."""
    name = new_name()
    handle = shm.create_shared_memory_region(name, f"/{name}", size, create_only=True)
    try:
        yield Memory(name, handle, size)
    finally:
        with contextlib.suppress(FileNotFoundError):  # a test may have removed it
            shm.destroy_shared_memory_region(handle)


@contextlib.contextmanager
def region(client: Any, size: int) -> Iterator[Memory]:
    """Shared memory that is registered as a whole."""
    with memory(size) as made:
        client.register_system_shared_memory(made.name, f"/{made.name}", size)
        try:
            yield made
        finally:
            client.unregister_system_shared_memory(made.name)
