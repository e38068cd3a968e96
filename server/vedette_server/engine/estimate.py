"""Estimates of a worker's time for an image, learned while serving, by the size at which the model sees it."""

from collections import OrderedDict

from vedette_server.contract.answer import Answer
from vedette_server.contract.contract import ResizeRule
from vedette_server.contract.resize import output_shape

_WEIGHT = 0.1  # of the newest time in the moving average: about the last twenty count
_CELL = 32  # pixels; models pad to about that
_MOST_SIZES = 256
_MOST_GROWTH = 3.0  # times what was expected that one image may count: a few odd ones must not shut others out


def resized(size: tuple[int, int], rule: ResizeRule) -> tuple[int, int]:
    """Height and width after Detectron2's ResizeShortestEdge, rounded up to what models pad to."""
    height, width = output_shape(size, rule)
    return -(-height // _CELL) * _CELL, -(-width // _CELL) * _CELL


class Estimate:
    """Moving averages of service times. What has never been seen is estimated by its area."""

    def __init__(self, rule: ResizeRule) -> None:
        self._rule = rule
        self._seconds: OrderedDict[tuple[int, int], float] = OrderedDict()
        self._per_pixel: float | None = None

    def of(self, size: tuple[int, int]) -> float:
        """Seconds that an image of this height and width will probably take; 0 while nothing is known."""
        shape = resized(size, self._rule)
        return self._seconds.get(shape, (self._per_pixel or 0.0) * shape[0] * shape[1])

    def learn(self, size: tuple[int, int], seconds: float) -> None:
        """Take note of what an image took."""
        shape = resized(size, self._rule)
        if expected := self.of(size):
            seconds = min(seconds, _MOST_GROWTH * expected)
        self._seconds[shape] = _averaged(self._seconds.get(shape), seconds)
        self._per_pixel = _averaged(self._per_pixel, seconds / (shape[0] * shape[1]))
        self._seconds.move_to_end(shape)
        if len(self._seconds) > _MOST_SIZES:
            self._seconds.popitem(last=False)

    def learn_from(self, answer: Answer) -> None:
        """Take note of what the image took that has this answer."""
        self.learn((answer.height, answer.width), answer.times.total)


def _averaged(old: float | None, new: float) -> float:
    return new if old is None else old + _WEIGHT * (new - old)
