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

PIXELS = PixelStatistics(
    mean=(90.0, 100.0, 110.0),
    spread=(10.0, 20.0, 30.0),
    lowest=0,
    highest=255,
    dark=0,
    saturated=0,
    middle=1,
    flat=0,
    coherence=0.9,
    colour=20,
    sharpness=99.0,
    hash=1,
    checksum=1,
    upper=0.55,
)
MODEL = ModelVersion(name="test", version=1, folder=Path(), description="", contract=contract(), golden=())
QUIET = Finding(Code.QUIET_SCENE, Confidence.LIKELY, "nothing", "nothing")


def outcome(*scores: float, model: ModelVersion = MODEL, **known: Any) -> Outcome:
    """An answer with detections of the first class with these scores; empty without."""
    found = Detections(
        boxes=np.zeros((len(scores), 4), np.float32),
        scores=np.array(scores, np.float32),
        class_ids=np.zeros(len(scores), np.int32),
    )
    best = np.array([max(scores, default=0.15), 0.0], np.float32)
    evidence = Evidence(best_scores=best, scored=9, overlapped=3, suppressed=2, dropped={"box_head": 4})
    answer = Answer(
        height=10,
        width=10,
        threshold=0.5,
        detections=found,
        evidence=evidence,
        times=StageTimes(0.1, 0.1, 0.1, 0.1),
        pixels=PIXELS,
    )
    known.setdefault("findings", () if scores else (QUIET,))
    return Outcome(answer=answer, model=model, queue_seconds=0.25, total_seconds=0.5, **known)


def page(metrics: Metrics) -> Page:
    return Page.parse(metrics.page("")[0].decode())
