"""A model's answers to its golden images, judged alike wherever the model runs."""

from vedette_server.baseline import stored
from vedette_server.contract.answer import Answer
from vedette_server.explain.explain import usual
from vedette_server.explain.findings import Code
from vedette_server.explain.usual import Usual
from vedette_server.repository.golden import Golden, difference, tolerance
from vedette_server.repository.repository import ModelVersion


class GoldenAnswers:
    """The answers of one round."""

    def __init__(self, model: ModelVersion) -> None:
        self._model = model
        self._allowed = tolerance(model.contract.precision)
        self._answers: list[Answer] = []
        self.failing = ""  # the first difference; empty: there is none
        self.cause: Code | None = None  # of that difference, as far as the answer tells

    def see(self, golden: Golden, answer: Answer) -> str | None:
        """Describe the difference between an answer and the expected one, or return None."""
        self._answers.append(answer)
        if wrong := difference(golden, answer, self._allowed):
            self.fail(wrong, _cause(answer))
        return wrong

    def fail(self, wrong: str, cause: Code = Code.GOLDEN_FAILING) -> None:
        """Take note of a difference."""
        self.failing = self.failing or wrong
        self.cause = self.cause or cause

    def usual(self) -> Usual:
        """The version's normal range, by these answers and its baseline."""
        limits = stored.limits(self._model)
        return usual(self._answers, self._model.contract, sees=not self.failing, limits=limits)


def _cause(answer: Answer) -> Code:
    """Return why a golden image was not reproduced, as far as its answer tells."""
    broken = answer.evidence.not_finite or answer.evidence.dropped
    return Code.NON_FINITE_VALUES if broken else Code.GOLDEN_FAILING
