"""One fuzzer in a process of its own: atheris leads it by the lines that the product's code reaches.

    python -m tests.fuzz.child READER FOLDER [options of libFuzzer]

What a reader may not raise is kept in the folder once for each place that it is raised at, and the fuzzer goes on; what
ends the process, takes too long or too much memory libFuzzer itself keeps there.
"""

import hashlib
import sys
import traceback
from pathlib import Path
from typing import Any

import atheris

# Whose lines lead the fuzzer: ours, and what takes bytes apart for us in Python.
_LED_BY = [
    "vedette_server",
    "vedette_client",
    "yaml",
    "tomllib",
    "pickletools",
    "zipfile",
    "prometheus_client",
    "jwt",
    "PIL",
]


def main() -> None:
    """Run until libFuzzer ends the process."""
    name, folder, *options = sys.argv[1:]
    with atheris.instrument_imports(include=_LED_BY):
        from tests.fuzz.readers import READERS
    reader, places = READERS[name], set[tuple[str, str]]()

    def test(data: bytes) -> None:
        if (error := reader.fails(data)) is None:
            return
        *_, last = traceback.extract_tb(error.__traceback__)
        place = type(error).__name__, f"{last.filename}:{last.lineno}"
        if place not in places:
            places.add(place)
            kept = Path(folder) / f"raised-{hashlib.sha256(data).hexdigest()[:12]}"
            kept.write_bytes(data)
            print(f"FOUND {kept.name} {place[0]} {place[1]}: {str(error)[:200]!r}", flush=True)

    given: Any = [sys.argv[0], *options]
    atheris.Setup(given, test)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
