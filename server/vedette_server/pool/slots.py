"""Shared memory between the gateway and one worker: slots that hold one image at a time and are used again.

A slot is an anonymous memory file: it has no name, so no crash, not even `kill -9` of everything, can leave it behind.
It is mapped once on either side and grows to the largest image that it has held, so that its pages are paid for once.
"""

import mmap
import os

from vedette_server.contract.image import Buffer


class Slot:
    """The gateway's side of a slot."""

    def __init__(self) -> None:
        self.fd: int | None = None  # of new memory, until the worker has it
        self._map: mmap.mmap | None = None

    def write(self, data: Buffer) -> bool:
        """Put an image in; returns whether the memory is new, so that the worker must be given its descriptor."""
        if fresh := self._map is None or len(self._map) < len(data):
            self.close()
            self.fd = os.memfd_create("vedette-image")
            os.ftruncate(self.fd, len(data))
            self._map = mmap.mmap(self.fd, len(data))  # holds a descriptor of its own
        assert self._map is not None  # noqa: S101  it was just made
        self._map[: len(data)] = data
        return fresh

    def given(self) -> None:
        """The worker has been sent the descriptor."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def close(self) -> None:
        """Give this side's share of the memory up."""
        self.given()
        if self._map is not None:
            self._map.close()
            self._map = None


def view(fd: int) -> memoryview:
    """The worker's side: map a slot's memory, read-only, and close its descriptor."""
    try:
        return memoryview(mmap.mmap(fd, 0, prot=mmap.PROT_READ))
    finally:
        os.close(fd)
