"""Outcomes of requests as the monitor hears of them, and the page that it makes of them."""

from pathlib import Path
from typing import Any

import numpy as np
from vedette_server.baseline.scrape import Page
from vedette_server.contract.answer import Answer, Detections, Evidence, PixelStatistics, StageTimes
from vedette_server.engine.query import Outcome
from vedette_server.explain.findings import Code, Confidence, Finding
from vedette_server.monitor.metrics import Metrics
from vedette_server.repository.repository import ModelVersion

from tests.support.contracts import contract

PIXELS = PixelStatistics((90.0, 100.0, 110.0), (10.0, 20.0, 30.0), 0, 255, 0, 0, 1, 0, 0.9, 20, 99.0, 1, 1, 0.55)
MODEL = ModelVersion("test", 1, Path(), "", contract(), ())
QUIET = Finding(Code.QUIET_SCENE, Confidence.LIKELY, "nothing", "nothing")


def outcome(*scores: float, model: ModelVersion = MODEL, **known: Any) -> Outcome:
    """An answer with detections of the first class with these scores; empty without."""
    found = Detections(
        np.zeros((len(scores), 4), np.float32), np.array(scores, np.float32), np.zeros(len(scores), np.int32)
    )
    best = np.array([max(scores, default=0.15), 0.0], np.float32)
    evidence = Evidence(best, scored=9, overlapped=3, suppressed=2, dropped={"box_head": 4})
    answer = Answer(10, 10, 0.5, found, evidence, StageTimes(0.1, 0.1, 0.1, 0.1), pixels=PIXELS)
    known.setdefault("findings", () if scores else (QUIET,))
    return Outcome(answer, model, 0.25, 0.5, **known)


def page(metrics: Metrics) -> Page:
    return Page.parse(metrics.page("")[0].decode())
