"""Real Prometheus, Alertmanager and webhook for tests: on free ports of the loopback, their data in folders that go."""

import contextlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.running import wait_for

PROMETHEUS, PROMTOOL, ALERTMANAGER, AMTOOL = "prometheus", "promtool", "prometheus-alertmanager", "amtool"
_TRIES = 3  # of a port, which another process may take between its choice and its use


def needs(*tools: str) -> pytest.MarkDecorator:
    """Skip where a tool is not installed, but never in CI."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing) and not os.environ.get("CI"), reason=f"not installed: {missing}")


@dataclass(frozen=True)
class Sample:
    """One series of an instant query's result."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Range:
    """One series of a range query's result: seconds since the epoch and values."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


def _get(url: str, **parameters: str) -> Any:
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    with urllib.request.urlopen(url + query, timeout=30) as response:  # noqa: S310  our own processes
        return json.load(response)


@dataclass(frozen=True)
class _Process:
    """One that answers HTTP."""

    address: str  # HOST:PORT
    pid: int
    log_path: Path

    @property
    def url(self) -> str:
        return f"http://{self.address}"


class Prometheus(_Process):
    """A running Prometheus."""

    def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """An instant query's vector; a scalar comes as one sample without labels."""
        when = {} if at is None else {"time": f"{at:.3f}"}
        data = _get(f"{self.url}/api/v1/query", query=expression, **when)["data"]
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(one["metric"], float(one["value"][1])) for one in data["result"]]

    def value(self, expression: str) -> float | None:
        """The only sample of an instant query; None where it has none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0].value if found else None

    def query_range(self, expression: str, start: float, end: float, step: float = 1.0) -> list[Range]:
        data = _get(
            f"{self.url}/api/v1/query_range", query=expression, start=f"{start:.3f}", end=f"{end:.3f}", step=f"{step}"
        )["data"]
        return [
            Range(one["metric"], tuple((at, float(value)) for at, value in one["values"])) for one in data["result"]
        ]

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts that are pending or firing."""
        found: list[dict[str, Any]] = _get(f"{self.url}/api/v1/alerts")["data"]["alerts"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Every rule, with its health and its last error."""
        groups = _get(f"{self.url}/api/v1/rules")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def alertmanagers(self) -> list[dict[str, str]]:
        """Those that alerts are sent to."""
        found: list[dict[str, str]] = _get(f"{self.url}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
        return found

    def wait_until_scraped(self, targets: int) -> None:
        wait_for(lambda: self.value("sum(up)") == targets, f"{targets} targets to be scraped")


class Alertmanager(_Process):
    """A running Alertmanager."""

    def alerts(self) -> list[dict[str, Any]]:
        """Active alerts and inhibited ones: `status.inhibitedBy` has the fingerprints of what silences them."""
        found: list[dict[str, Any]] = _get(f"{self.url}/api/v2/alerts", inhibited="true", active="true")
        return found


@dataclass(frozen=True)
class Notification:
    """One call of the webhook."""

    at: float  # seconds since the epoch
    path: str  # of the webhook's URL, by which receivers are told apart
    body: dict[str, Any]  # as Alertmanager sends it

    @property
    def alerts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.body["alerts"]
        return found


@dataclass
class Webhook:
    """A listener to an Alertmanager."""

    url: str
    notifications: list[Notification] = field(default_factory=list)

    def alerts(self, *severities: str, since: float = 0.0) -> list[tuple[float, dict[str, str]]]:
        """When each alert was first told of as firing and its labels, in that order; of all severities by default."""
        first: dict[frozenset[tuple[str, str]], tuple[float, dict[str, str]]] = {}
        for notification in list(self.notifications):
            for alert in sorted(notification.alerts, key=lambda one: str(one["startsAt"])):
                labels: dict[str, str] = alert["labels"]
                wanted = not severities or labels.get("severity") in severities
                if alert["status"] == "firing" and wanted and notification.at >= since:
                    first.setdefault(frozenset(labels.items()), (notification.at, labels))
        return list(first.values())


@contextlib.contextmanager
def webhook() -> Iterator[Webhook]:
    """Listen on a free port and record every notification."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            at, body = time.time(), self.rfile.read(int(self.headers["Content-Length"]))
            heard.notifications.append(Notification(at, self.path, json.loads(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        heard = Webhook(f"http://127.0.0.1:{listener.server_address[1]}")
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            listener.shutdown()
            thread.join()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _ready(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
        return True
    return False


def _start(program: str, folder: Path, flags: Sequence[str]) -> tuple[subprocess.Popen[bytes], str]:
    """Start a program on a free port; returns it once it is ready."""
    log = folder / "log"
    for _ in range(_TRIES):
        address = f"127.0.0.1:{_free_port()}"
        with log.open("wb") as out:
            process = subprocess.Popen([program, f"--web.listen-address={address}", *flags], stdout=out, stderr=out)
        try:
            wait_for(lambda: process.poll() is not None or _ready(address), f"{program} to be ready")  # noqa: B023  called at once
        except BaseException:
            _end(process)
            raise
        if process.poll() is None:
            return process, address
        if "address already in use" not in log.read_text():
            break
    raise AssertionError(f"{program} ended:\n{log.read_text()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def prometheus(
    targets: Sequence[str],
    rules: Sequence[Path] = (),
    alertmanager: Alertmanager | None = None,
    *,
    interval: str = "1s",
    ca: Path | None = None,
    token: str | None = None,
) -> Iterator[Prometheus]:
    """Scrape `targets` (HOST:PORT or a URL) and evaluate `rules`, every `interval`, under the job that rules expect.

    With `ca`, over TLS with certificates of that authority; with `token`, showing it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config: dict[str, Any] = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [str(path.resolve()) for path in rules],
            "scrape_configs": [
                {
                    "job_name": "vedette",
                    "static_configs": [{"targets": [one.rpartition("/")[2] for one in targets]}],
                    **({"scheme": "https", "tls_config": {"ca_file": str(ca)}} if ca else {}),
                    **({"authorization": {"credentials": token}} if token else {}),
                }
            ],
        }
        if alertmanager:
            config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager.address]}]}]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        flags = (
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--enable-feature=exemplar-storage",
            "--rules.alert.resend-delay=1s",  # so that what was told to no one, as at the start, is told again soon
        )
        process, address = _start(PROMETHEUS, folder, flags)
        try:
            started = Prometheus(address, process.pid, folder / "log")
            if alertmanager:
                wait_for(started.alertmanagers, "Prometheus to know the Alertmanager")
            yield started
        finally:
            _end(process)


@contextlib.contextmanager
def alertmanager(config: str) -> Iterator[Alertmanager]:
    """Run an Alertmanager, alone, with the text of its configuration."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "alertmanager.yml").write_text(config)
        flags = (
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'data'}",
            "--cluster.listen-address=",
        )
        process, address = _start(ALERTMANAGER, folder, flags)
        try:
            yield Alertmanager(address, process.pid, folder / "log")
        finally:
            _end(process)
