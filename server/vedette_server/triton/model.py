"""The program of an exported model, which Triton's Python backend runs in a process for each instance."""

from typing import Any

import triton_python_backend_utils as backend  # exists only in that process

from vedette_server.triton.instance import Instance
from vedette_server.triton.loop_thread import LoopThread


class TritonPythonModel:
    """One instance, as the backend calls it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model; it serves only if it answers its golden images as expected."""
        self._thread = LoopThread()
        self._instance = self._thread.run(Instance.load(backend, args))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests, in their order."""
        return self._thread.run(self._instance.execute(requests))

    def finalize(self) -> None:
        """End the search for causes, and publish what was counted last."""
        self._thread.run(self._instance.close())
        self._thread.close()
