"""The protocol of a model version as vigilance needs it, wherever it is inferred."""

from typing import Protocol

from vedette_server.contract.answer import Answer
from vedette_server.contract.options import AskedImage
from vedette_server.explain.usual import Usual
from vedette_server.repository.repository import ModelVersion
from vedette_server.watch.budget import Spent


class Watched(Spent, Protocol):
    """A version whose answers are explained, and whose silence is looked into."""

    @property
    def model(self) -> ModelVersion:
        """The version."""

    @property
    def golden_failing(self) -> str:
        """Waived failures of the golden images when they were last answered; empty if there are none."""

    @property
    def usual(self) -> Usual:
        """The normal range, by its golden images and its baseline."""

    async def infer_aside(self, asked: AskedImage) -> Answer:
        """Infer an image after all traffic. Raises `Refused`, also MODEL_NOT_READY."""
