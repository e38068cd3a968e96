"""A page of metrics as facts: read by version, by source, by bucket."""

from collections.abc import Mapping, Sequence

from vedette_server.alerts.inputs import INPUTS
from vedette_server.baseline.scrape import Page
from vedette_server.monitor.serving import STAGES
from vedette_server.report.facts import BaselineFacts, Counts, Histogram, Limit, Source, Version


def read(page: Page) -> list[Version]:
    """Every version that a page tells of, by model and number."""
    known = {*page.by("vedette_model_info", "model", "version"), *page.by("vedette_model_ready", "model", "version")}
    return [_version(page, model, number) for model, number in sorted(known, key=_order)]


def elsewhere(page: Page, versions: Sequence[Version]) -> Counts:
    """Requests that were refused before a version was found for them, by reason."""
    known = {(one.model, one.number) for one in versions}
    counts: dict[str, float] = {}
    for (model, number, outcome), count in page.by("vedette_requests_total", "model", "version", "outcome").items():
        if (model, number) not in known and outcome != "OK":
            counts[outcome] = counts.get(outcome, 0.0) + count
    return _most_first(counts)


def _order(key: tuple[str, ...]) -> tuple[str, int, str]:
    return key[0], int(key[1]) if key[1].isdecimal() else 0, key[1]


def _version(page: Page, model: str, number: str) -> Version:
    of = {"model": model, "version": number}

    def counts(name: str, label: str) -> Counts:
        return _most_first({value: count for (value,), count in page.by(name, label, **of).items()})

    def number_of(name: str) -> float:
        return page.value(name, **of)

    sources = _sources(page, of)
    outcomes = counts("vedette_requests_total", "outcome")
    best = _histogram(page, "vedette_best_score", of)
    info = next(iter(page.by("vedette_model_info", "fingerprint", "precision", "waivers", **of)), ("", "", ""))
    return Version(
        model=model,
        number=number,
        info=dict(zip(("fingerprint", "precision", "waivers"), info, strict=True)),
        threshold=number_of("vedette_model_threshold_ratio"),
        ready=(number_of("vedette_workers_ready"), number_of("vedette_workers_wanted")),
        restarts=number_of("vedette_worker_restarts_total"),
        golden=counts("vedette_golden_checks_total", "result"),
        golden_failing=number_of("vedette_golden_failing") > 0,
        disagreement=counts("vedette_golden_disagreement_ratio", "predecessor"),
        nonfinite=counts("vedette_nonfinite_rows_total", "stage"),
        refused={outcome: count for outcome, count in outcomes.items() if outcome != "OK"},
        violations=counts("vedette_contract_violations_total", "reason"),
        whole=_whole(sources, page, of),
        sources=sources,
        scores=_histogram(page, "vedette_detection_score", of),
        best=best,
        classes={name: count for (name,), count in page.by("vedette_detections_total", "class", **of).items()},
        duration=_histogram(page, "vedette_request_duration_seconds", of),
        age=_histogram(page, "vedette_frame_age_seconds", of),
        stages={stage: _histogram(page, "vedette_stage_duration_seconds", {**of, "stage": stage}) for stage in STAGES},
        baseline=_baseline(page, of),
    )


def _sources(page: Page, of: dict[str, str]) -> tuple[Source, ...]:
    """Each source that has had an answer, a drop or a suspicion."""

    def by_stream(name: str, label: str) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for (stream, value), count in page.by(name, "stream", label, **of).items():
            found.setdefault(stream, {})[value] = count
        return found

    answers = {stream: count for (stream,), count in page.by("vedette_answers_total", "stream", **of).items()}
    reasons, findings = (
        by_stream("vedette_empty_answers_total", "reason"),
        by_stream("vedette_findings_total", "finding"),
    )
    dropped = by_stream("vedette_frames_dropped_total", "reason")
    suspected = by_stream("vedette_suspected_cause", "cause")
    inputs, limits = _inputs(page, of), _limits(page, of)
    made = [
        Source(
            name=name,
            answers=answers.get(name, 0.0),
            reasons=_most_first(reasons.get(name, {})),
            findings=_most_first(findings.get(name, {})),
            dropped=_most_first(dropped.get(name, {})),
            suspected=tuple(sorted(cause for cause, held in suspected.get(name, {}).items() if held)),
            inputs=inputs.get(name, {}),
            limits=limits.get(name, {}) if name else {},  # those without a stream are the whole version's
        )
        for name in sorted({*answers, *dropped, *suspected})
    ]
    return tuple(one for one in made if one.answers or one.dropped or one.suspected)


def _whole(sources: Sequence[Source], page: Page, of: dict[str, str]) -> Source:
    def summed(kind: str) -> Counts:
        total: dict[str, float] = {}
        for source in sources:
            for name, count in getattr(source, kind).items():
                total[name] = total.get(name, 0.0) + count
        return _most_first(total)

    inputs = {}
    for statistic, one in INPUTS.items():
        if count := page.value(f"{one.metric}_count", **of):
            inputs[statistic] = page.value(f"{one.metric}_sum", **of) / count
    return Source(
        name="",
        answers=sum(source.answers for source in sources),
        reasons=summed("reasons"),
        findings=summed("findings"),
        dropped=summed("dropped"),
        suspected=tuple(sorted({cause for source in sources for cause in source.suspected})),
        inputs=inputs,
        limits=_limits(page, of).get("", {}),
    )


def _inputs(page: Page, of: dict[str, str]) -> dict[str, dict[str, float]]:
    means: dict[str, dict[str, float]] = {}
    for statistic, one in INPUTS.items():
        sums = page.by(f"{one.metric}_sum", "stream", **of)
        for (stream,), count in page.by(f"{one.metric}_count", "stream", **of).items():
            if count:
                means.setdefault(stream, {})[statistic] = sums[stream,] / count
    return means


def _limits(page: Page, of: dict[str, str]) -> dict[str, dict[str, Limit]]:
    bounds: dict[tuple[str, str], dict[str, float]] = {}
    for (stream, statistic, bound), value in page.by(
        "vedette_baseline_limit", "stream", "statistic", "bound", **of
    ).items():
        bounds.setdefault((stream, statistic), {})[bound] = value
    limits: dict[str, dict[str, Limit]] = {}
    for (stream, statistic), found in bounds.items():
        limits.setdefault(stream, {})[statistic] = Limit(found.get("low"), found.get("mean"), found.get("high"))
    return limits


def _baseline(page: Page, of: dict[str, str]) -> BaselineFacts:
    states = page.by("vedette_baseline_state", "vedette_baseline_state", **of)
    whole = {**of, "stream": ""}
    return BaselineFacts(
        state=next((state for (state,), held in states.items() if held), ""),
        captured=page.value("vedette_baseline_captured_timestamp_seconds", **of),
        answers=page.value("vedette_baseline_answers", **whole),
        scores=_by_edge(page.by("vedette_baseline_score_cumulative_ratio", "edge", **of))[1] or None,
        best=_by_edge(page.by("vedette_baseline_best_score_cumulative_ratio", "edge", **whole))[1] or None,
        classes={
            name: share for (name,), share in page.by("vedette_baseline_class_share_ratio", "class", **of).items()
        },
        per_answer={
            name: rate
            for (name,), rate in page.by("vedette_baseline_class_detections_per_answer", "class", **of).items()
        },
    )


def _histogram(page: Page, name: str, of: dict[str, str]) -> Histogram:
    return Histogram(*_by_edge(page.by(f"{name}_bucket", "le", **of)), page.value(f"{name}_sum", **of))


def _by_edge(buckets: Mapping[tuple[str, ...], float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    pairs = sorted((float(edge), count) for (edge,), count in buckets.items())
    return tuple(edge for edge, _ in pairs), tuple(count for _, count in pairs)


def _most_first(counts: Mapping[str, float]) -> Counts:
    """Without those that never happened."""
    return dict(sorted(((name, count) for name, count in counts.items() if count), key=lambda one: (-one[1], one[0])))
