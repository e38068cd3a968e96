"""Metrics of each version: its identity, its golden images, and the suspicions about its sources."""

from collections.abc import Mapping
from importlib.metadata import version as release

from vedette_server.contract.loading import Check
from vedette_server.explain.findings import Code
from vedette_server.monitor.families import SOURCE, VERSION, Families
from vedette_server.repository.repository import ModelVersion

_CAUSES = (Code.GOLDEN_FAILING, Code.NON_FINITE_VALUES)  # that golden images can fail for


class Versions:
    """Shows the versions that are served."""

    def __init__(self, families: Families) -> None:
        self._info = families.gauge(
            "vedette_model_info",
            "1 for each version, with its contract's fingerprint and the checks that are waived.",
            (*VERSION, "fingerprint", "precision", "waivers"),
        )
        self._threshold = families.gauge(
            "vedette_model_threshold_ratio",
            "The score that detections must exceed unless a request says another.",
            VERSION,
        )
        self._waived = families.gauge(
            "vedette_check_waived",
            "1 for each check that the operator has switched off in model.toml.",
            (*VERSION, "check"),
        )
        self._refused = families.gauge(
            "vedette_version_refused",
            "1 for each version that cannot be served, with the check that it does not pass.",
            (*VERSION, "check"),
        )
        self._checks = families.counter(
            "vedette_golden_checks", "Times that a worker answered the golden images, by result.", (*VERSION, "result")
        )
        self._failures = families.counter(
            "vedette_golden_failures", "Times that the golden images failed, by cause.", (*VERSION, "cause")
        )
        self._failing = families.gauge(
            "vedette_golden_failing",
            "1 if the golden images failed when they were last answered, for this cause.",
            (*VERSION, "cause"),
        )
        self._disagreement = families.gauge(
            "vedette_golden_disagreement_ratio",
            "Share of the objects on an earlier version's golden images that this one misses or classes otherwise.",
            (*VERSION, "predecessor"),
        )
        self._suspected = families.gauge(
            "vedette_suspected_cause",
            "1 for the cause that the emptiness of a stream, or of single images, is suspected to have.",
            (*SOURCE, "cause"),
        )
        self._suspicions: dict[tuple[str, str, str], tuple[str, str]] = {}  # label and cause, by version and name
        build = families.gauge("vedette_build_info", "1, with the release of Vedette.", ("release",))
        build.labels(release("vedette")).set(1)

    def loaded(self, model: ModelVersion) -> None:
        """Show a version."""
        labels, contract = (model.name, str(model.version)), model.contract
        self._info.labels(*labels, contract.fingerprint, contract.precision, ",".join(contract.waivers)).set(1)
        self._threshold.labels(*labels).set(contract.default_threshold)
        for check in contract.waivers:
            self._waived.labels(*labels, check).set(1)
        for result in ("passed", "failed"):
            self._checks.labels(*labels, result)
        for cause in _CAUSES:
            self._failures.labels(*labels, cause)
            self._failing.labels(*labels, cause).set(0)

    def set_aside(self, refused: Mapping[tuple[str, str], Check]) -> None:
        """Show the versions that cannot be served, by name and number, and no others."""
        self._refused.clear()
        for labels, check in refused.items():
            self._refused.labels(*labels, check).set(1)

    def unloaded(self, model: ModelVersion) -> None:
        """A version is served no more."""
        gone = (model.name, str(model.version))
        self._suspicions = {key: cause for key, cause in self._suspicions.items() if key[:2] != gone}

    def golden(self, model: ModelVersion, cause: Code | None) -> None:
        """Count an inference of the golden images; `cause` is why they failed."""
        labels = (model.name, str(model.version))
        self._checks.labels(*labels, "failed" if cause else "passed").inc()
        for one in _CAUSES:
            self._failing.labels(*labels, one).set(one == cause)
        if cause:
            self._failures.labels(*labels, cause).inc()

    def disagrees(self, model: ModelVersion, predecessor: ModelVersion, share: float) -> None:
        """Show how a version answers the golden images of an earlier one."""
        self._disagreement.labels(model.name, str(model.version), str(predecessor.version)).set(share)

    def suspected(self, model: ModelVersion, stream: str, name: str, cause: str | None) -> None:
        """Show the cause that a source's emptiness is suspected to have; `stream` is its label."""
        version = (model.name, str(model.version))
        before = self._suspicions.pop((*version, name), None)
        if cause is not None:
            self._suspicions[*version, name] = (stream, cause)
            self._suspected.labels(*version, stream, cause).set(1)
        left = {held for key, held in self._suspicions.items() if key[:2] == version}
        if before is not None and before not in left:  # under the label that it had then
            self._suspected.remove(*version, *before)
