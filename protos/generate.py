"""Generate Python from the .proto files, beside them: as hatchling's build hook, or `python protos/generate.py`."""

import shutil
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTOS = Path(__file__).parent


def _plugin(name: str) -> str:
    """The path of a protoc plugin: beside this interpreter, or on the path of an isolated build."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if not found:
        msg = f"{name} is not installed: python -m pip install mypy-protobuf"
        raise SystemExit(msg)
    return f"--plugin={name}={found}"


def includes() -> list[str]:
    """Where imports are looked up: our own files, and those of Google that packages carry."""
    import google.rpc  # a namespace package, found only after its distribution is installed

    googleapis = Path(next(iter(google.rpc.__path__))).parents[1]
    return [f"-I{PROTOS}", f"-I{files('grpc_tools') / '_proto'}", f"-I{googleapis}"]


def sources() -> list[str]:
    """Every .proto file of ours, relative to the include folder."""
    return sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))


def generate() -> None:
    """Write messages, services and their type stubs beside the .proto files."""
    outputs = [f"--{kind}_out={PROTOS}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    plugins = [_plugin("protoc-gen-mypy"), _plugin("protoc-gen-mypy_grpc")]
    status = protoc.main(["protoc", *includes(), *plugins, *outputs, *sources()])
    if status:
        msg = f"protoc failed with status {status}"
        raise SystemExit(msg)


class CustomBuildHook(BuildHookInterface[Any]):
    """Runs before every build, so that no wheel lacks the generated code."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate; hatchling picks the files up as artifacts."""
        del version, build_data
        generate()


if __name__ == "__main__":
    generate()
