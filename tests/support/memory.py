"""A bad memory chip, imitated: overwrite a running process's private memory."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path


def find(pid: int, wanted: bytes) -> list[int]:
    """Where some bytes lie in the private memory of a process."""
    addresses: list[int] = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start, end in _writable(pid):
            with contextlib.suppress(OSError):  # unmapped meanwhile
                memory.seek(start)
                content = memory.read(end - start)
                addresses += [start + hit.start() for hit in re.finditer(re.escape(wanted), content)]
    return addresses


def write(pid: int, addresses: Iterable[int], content: bytes) -> None:
    with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
        for address in addresses:
            memory.seek(address)
            memory.write(content)


def _writable(pid: int) -> Iterator[tuple[int, int]]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, access = line.split()[:2]
        if access.startswith("rw") and "[v" not in line:
            start, _, end = span.partition("-")
            yield int(start, 16), int(end, 16)
