"""A real Envoy, configured by the file that users are given."""

import contextlib
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import running

CONFIG = Path(__file__).parents[2] / "deploy/envoy/envoy.yaml"
_LISTENER, _SERVERS, _ADMIN = 8000, (8001, 8011), 9901  # ports of the file


@dataclass(frozen=True)
class Envoy:
    """A running Envoy."""

    address: str
    admin: str

    def healthy(self) -> int:
        """The number of servers that it takes for healthy; 0 as long as it does not answer itself."""
        try:
            with urllib.request.urlopen(f"http://{self.admin}/clusters") as answer:
                text: str = answer.read().decode()
        except OSError:
            return 0
        return text.count("::health_flags::healthy")


@contextlib.contextmanager
def envoy(ports: Sequence[int], folder: Path) -> Iterator[Envoy]:
    """Start an Envoy before servers at two ports; nothing of its file is changed but ports."""
    listener, admin = running.free_port(), running.free_port()
    text = CONFIG.read_text()
    for given, own in zip((_LISTENER, *_SERVERS, _ADMIN), (listener, *ports, admin), strict=True):
        before, port, after = text.partition(f"port_value: {given}}}")
        assert port, given
        text = f"{before}port_value: {own}}}{after}"
    (folder / "envoy.yaml").write_text(text)
    command = [str(running.BIN / "envoy"), "--config-path", str(folder / "envoy.yaml"), "--disable-hot-restart"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Envoy(f"127.0.0.1:{listener}", f"127.0.0.1:{admin}")
        finally:
            process.terminate()
