"""Lint the protos with Buf, offline: a descriptor set made by protoc stands in for what Buf would compile itself."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from generate import includes, sources
from grpc_tools import protoc

CONFIG = {
    "version": "v2",
    # Google's own files are in the image as imports, and are not ours to lint.
    "lint": {"use": ["STANDARD", "COMMENTS"], "ignore": ["google"]},
}


def main() -> int:
    """Lint every file; returns Buf's exit status."""
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "image.binpb"
        flags = ["--include_imports", "--include_source_info", f"--descriptor_set_out={image}"]
        if failed := int(protoc.main(["protoc", *includes(), *flags, *sources()])):
            return failed
        buf = Path(sys.executable).parent / "buf"
        command = [str(buf), "lint", str(image), "--config", json.dumps(CONFIG)]
        return subprocess.run(command, check=False).returncode  # noqa: S603  our own command


if __name__ == "__main__":
    sys.exit(main())
