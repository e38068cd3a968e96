"""Shared memory between the gateway and one worker: reusable slots for one image each.

A slot is an anonymous memory file. It has no name, so no crash, not even `kill -9` of everything, leaves it behind. It
is mapped once on each side and grows to its largest image, so that its pages are paid for once.
"""

import mmap
import os

from vedette_server.contract.image import Buffer


class Slot:
    """The gateway's side of a slot."""

    def __init__(self) -> None:
        self.fd: int | None = None  # of new memory, until the worker has received it
        self._map: mmap.mmap | None = None

    def write(self, data: Buffer) -> bool:
        """Copy an image in; return whether the memory is new and its descriptor must be sent."""
        if fresh := self._map is None or len(self._map) < len(data):
            self.close()
            self.fd = os.memfd_create("vedette-image")
            os.ftruncate(self.fd, len(data))
            self._map = mmap.mmap(self.fd, len(data))  # holds a descriptor of its own
        assert self._map is not None  # noqa: S101  created just above
        self._map[: len(data)] = data
        return fresh

    def given(self) -> None:
        """Note that the descriptor was sent to the worker."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def close(self) -> None:
        """Release this side's mapping."""
        self.given()
        if self._map is not None:
            self._map.close()
            self._map = None


def view(fd: int) -> memoryview:
    """Map a slot's memory read-only, on the worker's side, and close its descriptor."""
    try:
        return memoryview(mmap.mmap(fd, 0, prot=mmap.PROT_READ))
    finally:
        os.close(fd)
