"""The watcher, which sees every answer and explains empty ones: all that the engine knows of it."""

from typing import Protocol

from vedette_server.contract.answer import Answer
from vedette_server.contract.options import AskedImage
from vedette_server.engine.query import Query
from vedette_server.engine.served import ServedVersion
from vedette_server.explain.diagnosis import Diagnosis
from vedette_server.explain.findings import Finding
from vedette_server.repository.repository import ModelVersion


class Watcher(Protocol):
    """Explains what is empty."""

    def see(self, served: ServedVersion, source: str, asked: AskedImage, answer: Answer) -> tuple[Finding, ...]:
        """Explain an answer: the primary reason first, if it is empty. It is called for each, and must be quick."""

    async def diagnose(self, served: ServedVersion, query: Query, *, sampled: bool) -> Diagnosis:
        """Find out why a query's image gives nothing; or, where it is to be `sampled`, the source's last empty frame.

        Raises `Refused`, also FEATURE_NOT_SERVED where diagnoses are switched off, OUTPUT_NOT_PRODUCED where the model
        finds no objects, and SAMPLE_MISSING.
        """

    def unloaded(self, model: ModelVersion) -> None:
        """A version is served no more."""

    async def stop(self) -> None:
        """Give up what is under way."""
