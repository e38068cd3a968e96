"""`make alarms`: for each fault, which alert a real Prometheus and a real Alertmanager raise first, and what it names.

Each fault has a server, a camera, a Prometheus and an Alertmanager of its own, watched in health for a while, then in
trouble. The rules and routes are those that are deployed, with times that are fifteen times shorter, but for the long
window; what the server itself takes, to find a cause by trying or to replace a worker, is no shorter.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table
from vedette_server.alerts import render
from vedette_server.alerts.parts import Parameters, duration, seconds
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.sim.alarm_faults import FAULTS, MODEL, Fault, Post
from tests.sim.alarm_feed import QUIET_EVERY, Feed, streets
from tests.support import running, watching

ROOT = Path(__file__).parents[2]
CONTROL = "no fault"
LEAST_RIGHT = 12  # causes, of fifteen
FIRING = ("critical", "warning")


@dataclass(frozen=True)
class Pace:
    """Durations of everything, in seconds."""

    window: int = 20
    long: int = 60
    hold: int = 8
    evaluation: int = 1
    objective: float = 10.0  # within which requests are to be answered: the machine is shared with what watches
    lead: float = 30.0  # in health, before the fault
    patience: float = 90.0  # with the fault, until an alert has been told of
    linger: float = 20.0  # after it, in which others are inhibited or are not
    control: float = 90.0  # more in health, where there is no fault
    baseline_window: int = 20
    baseline_windows: int = 8
    pictures: int = 320
    frames_a_second: float = 5.0  # that leave the worker time for the probe, and one of two cores for what watches
    answers: int = Parameters.answers  # in a window, at least

    def faster(self, usual: str) -> str:
        """A duration of the deployed configuration, shortened."""
        return duration(seconds(usual) * self.window / Parameters.window)


@dataclass
class Outcome:
    """The outcome of one fault."""

    name: str
    right: tuple[str, ...]
    before: list[str] = field(default_factory=list)  # alerts that fired in health
    fired: list[dict[str, str]] = field(default_factory=list)  # the labels of those that fired with it, in their order
    seconds: float = 0.0  # from the fault to the first notification
    inhibited: set[str] = field(default_factory=set)

    @property
    def first(self) -> dict[str, str] | None:
        return self.fired[0] if self.fired else None

    @property
    def detected(self) -> bool:
        """True if an alert fired because of the fault; for the control, if none did."""
        return (self.first is not None) is bool(self.right) and not self.before

    @property
    def named(self) -> bool:
        return self.detected and self.first is not None and self.first["cause"] in self.right

    @property
    def verdict(self) -> str:
        if self.before:
            return f"fired in health: {', '.join(self.before)}"
        if not self.right:
            return "silent, rightly" if self.detected else "false alarm"
        return ("right cause" if self.named else "wrong cause") if self.detected else "not detected"


def _name(labels: dict[str, str]) -> str:
    return f"{labels['alertname'].removeprefix('Vedette')} {labels.get('cause', '')}".strip()


class Range:
    """The setting that all faults share: pictures, a repository with a baseline, rules."""

    def __init__(self, folder: Path, pace: Pace) -> None:
        self.pace = pace
        self._folder = folder
        self.repository = folder / "repository"
        shutil.copytree(BUNDLED_REPOSITORY, self.repository)
        self.rules = [self._rendered()]
        self.pictures = streets(pace.pictures - pace.pictures % QUIET_EVERY)

    def _rendered(self) -> Path:
        pace = self.pace
        chosen = Parameters(
            window=pace.window,
            long=pace.long,
            hold=pace.hold,
            interval=pace.evaluation,
            objective=pace.objective,
            answers=pace.answers,
        )
        path = self._folder / render.FILE
        path.write_text(render.render(chosen))
        return path

    @contextlib.contextmanager
    def serving(self, repository: Path) -> Iterator[Post]:
        """A server and the camera that it watches."""
        config = repository.with_suffix(".toml")
        config.write_text("diagnose_share = 1.0\ngolden_seconds = 4\n")
        flags = ("--repository", str(repository), "--threads", "1", "--poll-seconds", "1", "--config", str(config))
        with running.server(*flags) as server, Feed(server.address, self.pictures, self.pace.frames_a_second) as feed:
            yield Post(server, feed, repository)

    def capture(self, kept: Path | None = None) -> None:
        """Capture a baseline from healthy traffic, by the command that operators use; or take the one that is kept."""
        pace, baseline = self.pace, self.repository / MODEL / "1" / "baseline.json"
        if kept and kept.exists():
            shutil.copy(kept, baseline)
            return
        with self.serving(self.repository) as post:
            running.wait_for(lambda: post.feed.became["Answered"], "the first answer")
            command = [str(running.BIN / "vedette-server"), "baseline", MODEL, "--repository", str(self.repository)]
            period = ["--window", f"{pace.baseline_window}s", "--windows", str(pace.baseline_windows)]
            subprocess.run([*command, "--from", post.server.http, *period], check=True)
        if kept:
            shutil.copy(baseline, kept)

    def capture_pictures(self) -> None:
        """Capture a baseline from the pictures themselves, each twice: sooner, and without times of day or streams."""
        folder = self._folder / "pictures"
        folder.mkdir()
        for number, street in enumerate(self.pictures):
            Image.fromarray(street.bgr[:, :, ::-1]).save(first := folder / f"{number:04}.png", compress_level=1)
            (folder / f"{number + len(self.pictures):04}.png").hardlink_to(first)
        command = [str(running.BIN / "vedette-server"), "baseline", MODEL, "--repository", str(self.repository)]
        alone = {**os.environ, "VEDETTE_THREADS": "1"}  # two threads wait for each other where others work, too
        subprocess.run([*command, "--images", str(folder)], env=alone, check=True)

    def run(self, name: str, fault: Fault | None) -> Outcome:
        """Watch a server in health, then with the fault; None leaves it in health."""
        outcome = Outcome(name, fault.causes if fault else ())
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            repository = Path(folder) / "repository"
            shutil.copytree(self.repository, repository)
            with (
                watching.webhook() as webhook,
                watching.alertmanager(_routes(webhook.url, self.pace)) as alertmanager,
                self.serving(repository) as post,
                watching.prometheus([post.server.http], self.rules, alertmanager) as prometheus,
            ):
                prometheus.wait_until_scraped(1)
                time.sleep(self.pace.lead)  # it is time itself that is wanted here, for windows to fill
                if fault:
                    fault.prepare(post)
                began = time.time()
                outcome.before = [_name(labels) for _, labels in webhook.alerts(*FIRING)]
                if fault:
                    fault.begin(post)
                self._watch(outcome, began, webhook, alertmanager)
        return outcome

    def _watch(
        self, outcome: Outcome, began: float, webhook: watching.Webhook, alertmanager: watching.Alertmanager
    ) -> None:
        """Note what fires from the fault on, and what is inhibited meanwhile."""
        until = began + (self.pace.patience if outcome.right else self.pace.control)
        while time.time() < until:
            fired = [(at, labels) for at, labels in webhook.alerts(*FIRING) if at >= began]
            if fired and not outcome.fired:
                outcome.seconds = fired[0][0] - began
                until = fired[0][0] + self.pace.linger
            outcome.fired = [labels for _, labels in fired]
            outcome.inhibited |= {
                _name(alert["labels"])
                for alert in alertmanager.alerts()
                if alert["status"]["inhibitedBy"] and alert["labels"].get("severity") in FIRING
            }
            time.sleep(0.25)


def _routes(url: str, pace: Pace) -> str:
    """Alertmanager's configuration as it is deployed, but for its webhooks' addresses, and as much faster as all is."""
    config = yaml.safe_load((ROOT / "deploy/alertmanager/alertmanager.yml").read_text())
    for receiver in config["receivers"]:
        for hook in receiver["webhook_configs"]:
            hook["url"] = f"{url}/{receiver['name']}"
    for route in (config["route"], *config["route"]["routes"]):
        route |= {key: pace.faster(route[key]) for key in ("group_wait", "group_interval") if key in route}
    return yaml.safe_dump(config)


def table(outcomes: Sequence[Outcome], pace: Pace) -> Table:
    shown = Table(
        "fault",
        "first alert",
        "cause",
        "right causes",
        "windows",
        "evaluations",
        "fired after it",
        "inhibited",
        "verdict",
        title=f"window {pace.window} s, long window {pace.long} s, hold {pace.hold} s, evaluated every second",
    )
    for one in outcomes:
        first = one.first or {}
        took = (f"{one.seconds / pace.window:.1f}", f"{one.seconds / pace.evaluation:.0f}") if one.first else ("", "")
        alert = f"{first['alertname']} ({first['severity']})" if one.first else "none"
        also, inhibited = (", ".join(names) for names in (map(_name, one.fired[1:]), sorted(one.inhibited)))
        shown.add_row(
            one.name, alert, first.get("cause", ""), ", ".join(one.right), *took, also, inhibited, one.verdict
        )
    return shown


@click.command()
@click.option("--only", multiple=True, type=click.Choice([*FAULTS, CONTROL]), help="Leave the others out.")
@click.option("--baseline", type=click.Path(path_type=Path), help="Keep it here, and take it from here the next time.")
def main(only: Sequence[str], baseline: Path | None) -> None:
    """Run the matrix and print it; exits with 1 unless all is detected and most causes are right."""
    pace, names = Pace(), only or (CONTROL, *FAULTS)
    with tempfile.TemporaryDirectory() as folder:
        everything = Range(Path(folder), pace)
        everything.capture(baseline)
        outcomes = []
        for name in names:
            outcomes.append(everything.run(name, FAULTS.get(name)))
            click.echo(f"{name}: {outcomes[-1]}", err=True)
    Console(width=200).print(table(outcomes, pace))
    faulty = [one for one in outcomes if one.right]
    detected, named = sum(one.detected for one in faulty), sum(one.named for one in faulty)
    click.echo(f"detected {detected} of {len(faulty)}, right cause named {named} of {len(faulty)}")
    enough = named >= LEAST_RIGHT - (len(FAULTS) - len(faulty))
    sys.exit(0 if enough and all(one.detected for one in outcomes) else 1)


if __name__ == "__main__":
    main()
