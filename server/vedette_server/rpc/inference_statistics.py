"""Statistics of inferences by version, counted as Triton counts them."""

import collections
import time

from tritonclient.grpc import service_pb2 as pb

from vedette_server.engine.query import Outcome
from vedette_server.repository.repository import ModelVersion


class Statistics:
    """Counts and durations of what came through the Open Inference Protocol since the server started."""

    def __init__(self) -> None:
        self._stats: collections.defaultdict[tuple[str, int], pb.ModelStatistics] = collections.defaultdict(
            pb.ModelStatistics
        )

    def answered(self, outcome: Outcome, seconds: float) -> None:
        """Count an inference that took so long in all.

        It counts as one execution, although a GPU may have run it together with others.
        """
        stats, times = self._of(outcome.model), outcome.answer.times
        stats.inference_count += 1
        stats.execution_count += 1
        stats.last_inference = time.time_ns() // 1_000_000
        of = stats.inference_stats
        if not stats.batch_stats:
            stats.batch_stats.add(batch_size=1)
        batch = stats.batch_stats[0]
        for duration, spent in (
            (of.success, seconds),
            (of.queue, outcome.queue_seconds),
            (of.compute_input, times.decode + times.preprocess),
            (of.compute_infer, times.forward),
            (of.compute_output, times.postprocess),
            (batch.compute_input, times.decode + times.preprocess),
            (batch.compute_infer, times.forward),
            (batch.compute_output, times.postprocess),
        ):
            _count(duration, spent)

    def failed(self, model: ModelVersion, seconds: float) -> None:
        """Count an inference that was refused, failed or cancelled after that time."""
        _count(self._of(model).inference_stats.fail, seconds)

    def read(self, model: ModelVersion) -> pb.ModelStatistics:
        """Return the statistics of a version, which are zero before its first inference."""
        given = pb.ModelStatistics(name=model.name, version=str(model.version))
        given.MergeFrom(self._of(model))
        return given

    def _of(self, model: ModelVersion) -> pb.ModelStatistics:
        return self._stats[model.name, model.version]


def _count(duration: pb.StatisticDuration, seconds: float) -> None:
    duration.count += 1
    duration.ns += round(seconds * 1e9)
