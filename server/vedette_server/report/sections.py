"""The section of one model version: what it has answered, how that compares, what is wrong and what to do."""

import datetime as dt
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence

from vedette_server.alerts.limits import LEAST_DETECTIONS
from vedette_server.contract.refusal import Reason
from vedette_server.explain.findings import FINDINGS, Code
from vedette_server.report import charts, streams
from vedette_server.report.elements import Child, Element, el, table
from vedette_server.report.facts import Histogram, Version
from vedette_server.report.parts import beside, card, code, count, keys, lamp, seconds, source
from vedette_server.report.samples import Sample, Wanted
from vedette_server.report.verdict import Light, Verdict, meaning, percent
from vedette_server.rpc.errors import TABLE

_MOST_WHYS, _MOST_CLASSES = 6, 20
_BASELINES = {
    "missing": "No baseline has been captured, so that nothing says what is usual: vedette-server baseline does.",
    "refused": "The baseline is refused; the server's log says why.",
}


def anchor(version: Version) -> str:
    """The anchor of the section."""
    return f"{version.model}-{version.number}"


def article(version: Version, verdict: Verdict, samples: Mapping[Wanted, Sample] | None) -> Element:
    """All of it."""
    cards = [_golden(version), _refusals(version)]
    if version.whole.answers:
        answers = [_reasons(version), _classes(version), _scores(version), _best(version), streams.card_of(version)]
        cards = [*answers, _findings(version), _samples(version, samples), _latencies(version), *cards]
    return el(
        "article",
        _head(version, verdict),
        _tiles(version),
        el("div", cards, class_="cards"),
        class_=verdict.light.word,
        id=anchor(version),
    )


def _head(version: Version, verdict: Verdict) -> Element:
    first, *others = verdict.whys
    left_out = len(others) - _MOST_WHYS
    also = [el("li", why.sentence) for why in others[:_MOST_WHYS]]
    if left_out > 0:
        also.append(el("li", f"and {left_out} more."))
    return el(
        "header",
        el("div", el("h2", version.model, f" version {version.number}"), lamp(verdict.light), class_="title"),
        el("p", first.sentence, class_="why"),
        el("ul", also, class_="also") if also else None,
        el("p", *_about(version), class_="soft small"),
    )


def _about(version: Version) -> Iterator[Child]:
    yield f"Threshold {version.threshold:g}. "
    if precision := version.info["precision"]:
        yield f"Precision {precision}. "
    if fingerprint := version.info["fingerprint"]:
        yield from ("Contract ", code(fingerprint[:12]), ". ")
    if waivers := version.info["waivers"]:
        yield from ("Waived: ", code(waivers), ". ")
    usual = version.baseline
    if usual.state == "present":
        captured = dt.datetime.fromtimestamp(usual.captured, dt.UTC)
        yield f"Baseline of {captured:%Y-%m-%d %H:%M UTC}, of {count(usual.answers)} answers."
    else:
        yield _BASELINES.get(usual.state, "The page tells of no baseline.")


def _tiles(version: Version) -> Element:
    whole = version.whole
    high = whole.limits["empty"].high if "empty" in whole.limits else None
    refused = next(iter(version.refused), None)
    dropped = next(iter(whole.dropped), None)
    ready, wanted = version.ready
    tiles = (
        (count(whole.answers), "answers", f"{count(version.detections)} detections in them"),
        (
            percent(whole.share) if whole.answers else "none",
            "empty",
            "no baseline" if high is None else f"usual: {percent(high)} at most",
        ),
        (count(sum(version.refused.values())), "refused", f"most: {refused}" if refused else "nothing was"),
        (count(sum(whole.dropped.values())), "frames dropped", f"most: {dropped}" if dropped else "nothing was"),
        (
            seconds(version.duration.quantile(0.99)) if version.duration.count else "none",
            "99 % answered within",
            f"half within {seconds(version.duration.quantile(0.5))}" if version.duration.count else "",
        ),
        (f"{ready:.0f} of {wanted:.0f}", "workers ready", f"{count(version.restarts)} restarts"),
    )
    return el(
        "div",
        [el("div", el("b", value), name, el("small", more), class_="card tile") for value, name, more in tiles],
        class_="tiles",
    )


def _reasons(version: Version) -> Element:
    whole = version.whole
    if not whole.reasons:
        return card("Why answers were empty", el("p", "None was."))
    peak = next(iter(whole.reasons.values()))
    rows = []
    for reason, times in whole.reasons.items():
        colour = "quiet" if reason == Code.QUIET_SCENE else "out"
        bar = charts.bars(f"{reason}: {percent(times / whole.empty)} of empty answers", (times / peak, colour))
        rows.append((code(reason), count(times), percent(times / whole.empty), bar))
    caption = f"The primary reasons of {count(whole.empty)} empty answers; quiet is the honest one."
    told = table(caption, ("Reason", "Answers", "Share", ""), rows)
    return card("Why answers were empty", keys(quiet="quiet: nothing is there", out="something is wrong"), told)


def _classes(version: Version) -> Element:
    now, usual = version.classes, version.baseline.classes
    if not version.detections:
        return card("Class mix", el("p", "Nothing has been detected."))
    names = sorted({*now, *usual}, key=lambda name: (-now.get(name, 0.0), -usual.get(name, 0.0), name))
    shares = {name: now.get(name, 0.0) / version.detections for name in names}
    peak = max([*shares.values(), *usual.values()])
    rows: list[list[Child]] = []
    for name in names[:_MOST_CLASSES]:
        said = f"{name}: {percent(shares[name])} of detections"
        drawn = [(shares[name] / peak, "now")]
        if usual:
            said += f", {percent(usual.get(name, 0.0))} in the baseline"
            drawn.append((usual.get(name, 0.0) / peak, "usual"))
        cells: list[Child] = [count(now.get(name, 0.0)), percent(shares[name])]
        if usual:
            cells.append(percent(usual.get(name, 0.0)))
        rows.append([el("bdi", name), *cells, charts.bars(said, *drawn)])
    caption = _distance(version, "class_distance", version.distances.classes, "Total variation from the baseline")
    if len(names) > _MOST_CLASSES:
        caption += f" The {_MOST_CLASSES} most frequent of {len(names)} classes are shown."
    legend = keys(now="since the start", usual="baseline") if usual else None
    head = ("Class", "Detections", "Share", *(("Baseline",) if usual else ()), "")
    return card("Class mix", legend, table(caption, head, rows))


def _distance(version: Version, statistic: str, distance: float | None, name: str) -> str:
    if not version.baseline.scores and not version.baseline.classes:
        return "There is no baseline to compare with."
    if distance is None:
        return f"{name}: not judged below {LEAST_DETECTIONS} detections."
    limit = version.whole.limits.get(statistic)
    usual = f"; {limit.high:.3f} was usual at most" if limit and limit.high is not None else ""
    return f"{name}: {distance:.3f}{usual}."


def _scores(version: Version) -> Element:
    words = _distance(
        version, "score_distance", version.distances.scores, "Kolmogorov-Smirnov distance from the baseline"
    )
    return _distribution("Scores of detections", version.scores, version.baseline.scores, words, "detections")


def _best(version: Version) -> Element:
    words = "Before the threshold, so that what is suppressed by it differs from what is not there."
    return _distribution(
        "Best score of each answer", version.best, version.baseline.best, words, "answers", version.threshold
    )


def _distribution(
    title: str,
    now: Histogram,
    usual: Sequence[float] | None,
    words: str,
    what: str,
    threshold: float | None = None,
) -> Element:
    if not now.count:
        return card(title, el("p", f"There are no {what}."))
    if usual is not None and len(usual) != len(now.edges):
        usual = None
    edges, shares = now.edges[:-1], now.shares[:-1]  # no score is above 1
    gap, said = None, f"{title}: shares of {count(now.count)} {what} at or below each score"
    if usual and now.count >= LEAST_DETECTIONS:
        gap = max(range(len(edges)), key=lambda index: abs(shares[index] - usual[index]))
        said += f"; farthest from the baseline at {edges[gap]:g}, by {abs(shares[gap] - usual[gap]):.3f}"
    chart = charts.cumulative(said, edges, shares, usual[:-1] if usual else None, gap=gap, threshold=threshold)
    legend = keys(now="since the start", usual="baseline") if usual else None
    caption = f"Shares of {count(now.count)} {what} at or below each score; the edges stand apart alike. {words}"
    return card(title, legend, el("figure", chart, el("figcaption", caption)))


def _findings(version: Version) -> Element:
    if not version.whole.findings:
        return card("Findings", el("p", "There are none."), wide=True)
    rows = []
    for name, times in version.whole.findings.items():
        where = sum(name in one.findings for one in version.sources)
        remedy = FINDINGS[Code(name)].remedy if name in Code.__members__ else ""
        rows.append((code(name), count(times), str(where), meaning(name), remedy))
    caption = "Findings about answers, empty or not; an answer can have several."
    return card("Findings", table(caption, ("Finding", "Answers", "Sources", "Meaning", "What to do"), rows), wide=True)


def _samples(version: Version, samples: Mapping[Wanted, Sample] | None) -> Element:
    title = "Samples of empty frames"
    if samples is None:
        return card(
            title,
            el("p", "None: pictures come from a running server alone, and this page is of a saved one."),
            wide=True,
        )
    mine = [one for one in samples.values() if (one.wanted.model, one.wanted.number) == (version.model, version.number)]
    if not mine:
        words = "None was asked for: no source has a suspected cause or is empty beyond what is usual."
        return card(title, el("p", words), wide=True)
    return card(title, [_sample(one) for one in mine], wide=True)


def _sample(sample: Sample) -> Element:
    picture = None
    if sample.picture:
        data = f"data:image/webp;base64,{b64encode(sample.picture).decode()}"
        alt = f"The frame as it was sent, then with the likeliest mistakes undone. {sample.summary}"
        picture = el("img", src=data, alt=alt)
    return el(
        "div", el("p", el("strong", source(sample.wanted.source)), ": ", sample.summary), picture, class_="sample"
    )


def _latencies(version: Version) -> Element:
    timed = {"whole request": version.duration, **version.stages, "age of frames": version.age}
    rows: list[list[Child]] = []
    for name, times in timed.items():
        if times.count:
            half, most, nearly_all = (times.quantile(share) for share in (0.5, 0.9, 0.99))
            told = [beside(seconds(value)) for value in (times.total / times.count, half, most, nearly_all)]
            said = f"{name}: median {seconds(half)}, 99 % within {seconds(nearly_all)}"
            rows.append([name, *told, charts.spread(said, (half, most, nearly_all))])
    caption = (
        "Quantiles are estimated within buckets. Drawn from the median to 90 % and 99 %, 1 ms to 30 s, in decades."
    )
    return card("Latencies", table(caption, ("Stage", "Mean", "50 %", "90 %", "99 %", ""), rows))


def _golden(version: Version) -> Element:
    passed, failed = version.golden.get("passed", 0.0), version.golden.get("failed", 0.0)
    if not passed and not failed:
        return card(
            "Golden images", el("p", "None has been inferred, so that nothing proves that the model still sees.")
        )
    state = lamp(Light.SILENCED if version.golden_failing else Light.OK)
    words = "The last check failed." if version.golden_failing else "The last check passed."
    rows: list[tuple[Child, ...]] = [("passed", count(passed)), ("failed", count(failed))]
    rows += [(f"differ from version {name}", percent(share)) for name, share in version.disagreement.items()]
    return card("Golden images", el("p", state, " ", words), table("Checks by any worker.", ("Result", "Times"), rows))


def _refusals(version: Version) -> Element:
    if not version.refused and not version.whole.dropped:
        return card("Refused and dropped", el("p", "Nothing was."))
    rows = []
    for reason, times in version.refused.items():
        violated = "yes" if reason in version.violations else ""
        rows.append((code(reason), count(times), violated, _remedy(reason)))
    for reason, times in version.whole.dropped.items():
        rows.append((code(reason), count(times), "", "Frames that their stream's own policy dropped."))
    caption = (
        f"{count(sum(version.violations.values()))} requests contradicted their declaration or the model's contract."
    )
    return card(
        "Refused and dropped",
        table(caption, ("Reason", "Times", "Violates the contract", "What to do"), rows),
        wide=True,
    )


def _remedy(reason: str) -> str:
    if reason not in Reason.__members__:
        return ""
    return re.sub(r"{\w+(?:![rs])?}", "…", TABLE[Reason(reason)].remedy)
