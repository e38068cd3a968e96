"""Series, and what each alert must make of them: the table that the tests of the rules run.

Counters grow by so much in each step of ten seconds; there are six steps in a window and 24 in a long one.
"""

from collections.abc import Iterator

from vedette_server.alerts.inputs import INPUTS

from tests.rules.timeline import Case, Labels, Phases, Series

V = 'model="m", version="1"'
ALWAYS = "VedetteWatchdog"  # fires, whatever happens
M: Labels = {"model": "m", "version": "1"}


def of(stream: str) -> str:
    """The labels of a source; single images have an empty stream."""
    return f'{V}, stream="{stream}", instance="a"'


def answers(rate: Phases = (10,), stream: str = "north", **empty: Phases) -> dict[str, Phases]:
    """Answers of a source, and the empty ones by reason."""
    found: dict[str, Phases] = {f"vedette_answers_total{{{of(stream)}}}": rate}
    return found | {f'vedette_empty_answers_total{{{of(stream)}, reason="{why}"}}': many for why, many in empty.items()}


def findings(stream: str = "north", /, **rates: Phases) -> dict[str, Phases]:
    return {f'vedette_findings_total{{{of(stream)}, finding="{name}"}}': rate for name, rate in rates.items()}


def bounds(statistic: str, low: float, mean: float, high: float, stream: str = "") -> dict[str, Phases]:
    """Limits of a baseline."""
    named = {"low": low, "mean": mean, "high": high}
    return {
        f'vedette_baseline_limit{{{of(stream)}, statistic="{statistic}", bound="{bound}"}}': (value,)
        for bound, value in named.items()
    }


EMPTY = bounds("empty", 0.0, 0.3, 0.6)


def cause(name: str, stream: str | None = "north", **more: str) -> Labels:
    return {**M, "cause": name, **({"stream": stream} if stream else {}), **more}


def _outages() -> Iterator[Case]:
    up, other = ('up{job="vedette", instance="%s"}' % name for name in "ab")  # noqa: UP031  readable
    one = {"cause": "SERVER_DOWN", "scope": "instance", "job": "vedette", "instance": "a"}
    yield Case("VedetteServerDown", {up: (1, 0, 1), other: (1,)}, (one,))
    every = {"cause": "SERVER_DOWN", "scope": "all"}
    yield Case("VedetteServerDown", {up: (1, 0, 1)}, (one, every), note="the only one")
    yield Case("VedetteServerDown", {up: (1, None, 1)}, (every,), note="no target is left")
    yield Case("VedetteServerDown", {up: (1, 0, 1), other: (1,)}, steps=(12, 2, 5), note="it restarts")

    ready = 'vedette_model_ready{model="m", version="%s", instance="%s"}'
    yield Case("VedetteNoModelReady", {ready % (1, "a"): (1, 0, 1)}, ({"model": "m", "cause": "NO_WORKER"},))
    yield Case("VedetteNoModelReady", {ready % (1, "a"): (1, 0, 1), ready % (2, "a"): (1,)}, note="another version is")
    yield Case("VedetteNoModelReady", {ready % (1, "a"): (1, 0, 1), ready % (1, "b"): (1,)}, note="another server is")

    unanswered = f'vedette_unanswered_seconds{{{V}, instance="%s"}}'
    stuck = cause("STUCK", None, instance="a")
    yield Case("VedetteStuck", {unanswered % "a": (0, 45, 0), unanswered % "b": (0.2,)}, (stuck,))
    yield Case("VedetteStuck", {unanswered % "a": (0, 25, 0)}, note="a slow image")
    yield Case("VedetteStuck", {unanswered % "a": (0, 45, 0)}, steps=(12, 2, 5), note="its worker was replaced")

    failures = f'vedette_golden_failures_total{{{V}, cause="%s"}}'
    failed = failures % "GOLDEN_FAILING"
    failing = f'vedette_golden_failing{{{V}, cause="GOLDEN_FAILING"}}'
    passed = {f'vedette_golden_checks_total{{{V}, result="passed"}}': (1.0,)}
    waived = {f'vedette_check_waived{{{V}, check="GOLDEN_CHANGED"}}': (1.0,)}
    golden = cause("GOLDEN_FAILING", None)
    broken = cause("NON_FINITE_VALUES", None)
    yield Case("VedetteGoldenFailing", {**passed, failed: (0, 1, 0)}, (golden,))
    yield Case("VedetteGoldenFailing", {**passed, failures % "NON_FINITE_VALUES": (0, 1, 0)}, (broken,))
    yield Case("VedetteGoldenFailing", {**passed, failing: (0, 1, 0)}, (golden,))
    both: Series = {**passed, failed: (0, 1, 0), failing: (0, 1, 0)}
    yield Case("VedetteGoldenFailing", both, (golden,), note="counted and shown is one alert")
    yield Case("VedetteGoldenFailing", {**passed, **waived, failed: (0, 1, 0)}, note="the operator waived it")
    yield Case("VedetteGoldenFailing", {**passed, failed: (0,)})

    ratio = f'vedette_golden_disagreement_ratio{{{V}, predecessor="0"}}'
    wrong = cause("WRONG_VERSION", None, predecessor="0")
    yield Case("VedetteVersionDisagrees", {ratio: (None, 0.9, None)}, (wrong,))
    yield Case("VedetteVersionDisagrees", {ratio: (0.45,)})


def _requests() -> Iterator[Case]:
    requests = f'vedette_requests_total{{{V}, outcome="%s"}}'
    violations = f'vedette_contract_violations_total{{{V}, reason="%s"}}'
    ok = {requests % "OK": (50.0,)}

    def refused(**rates: Phases) -> Series:
        return {
            **{requests % why: rate for why, rate in rates.items()},
            **{violations % why: r for why, r in rates.items()},
        }

    contract = "VedetteContractViolations"
    normalised = (cause("VALUES_NORMALISED", None),)
    both: Series = {**ok, **refused(VALUES_NORMALISED=(0, 20, 0), IMAGE_UNREADABLE=(0, 3, 0))}
    yield Case(contract, both, normalised)
    yield Case(contract, {**ok, **refused(IMAGE_UNREADABLE=(2,))}, note="4 %")
    yield Case(contract, {requests % "OK": (1.0,), **refused(IMAGE_UNREADABLE=(1,))}, note="half, but a handful")

    overload = (cause("OVERLOADED", None),)
    expired = f'vedette_frames_dropped_total{{{of("north")}, reason="%s"}}'
    yield Case("VedetteOverload", {**ok, requests % "OVERLOADED": (0, 10, 0)}, overload)
    yield Case("VedetteOverload", {**ok, requests % "DEADLINE_EXCEEDED": (0, 10, 0)}, overload)
    late = {requests % "DEADLINE_EXCEEDED": (0, 10, 0), expired % "EXPIRED": (0, 10, 0)}
    yield Case("VedetteOverload", {**ok, **late}, overload, note="frames of a stream are counted as both")
    half = {requests % "DEADLINE_EXCEEDED": (2,), expired % "EXPIRED": (2,)}
    yield Case("VedetteOverload", {**ok, **half}, note="4 %, once")
    yield Case("VedetteOverload", {**ok, requests % "OVERLOADED": (2,)}, note="4 %")
    yield Case("VedetteOverload", {**ok, expired % "SUPERSEDED": (50,)}, note="as LATEST has it")

    lost = f'vedette_workers_lost_total{{{V}, cause="%s"}}'
    memory = (cause("OUT_OF_MEMORY", None),)
    yield Case("VedetteOutOfMemory", {lost % "out_of_memory": (0, 0.1, 0)}, memory)
    yield Case("VedetteOutOfMemory", {lost % "out_of_memory": (0,), lost % "killed": (0, 1, 0)}, note="by somebody")

    restarts, wanted, ready = (
        f'vedette_worker{name}{{{V}, instance="a"}}' for name in ("_restarts_total", "s_wanted", "s_ready")
    )
    flapping = (cause("WORKERS_FLAPPING", None),)
    calm: Series = {wanted: (2,), ready: (2,)}
    yield Case("VedetteWorkersFlapping", {**calm, restarts: (0, 1, 0)}, flapping)
    yield Case(
        "VedetteWorkersFlapping", {restarts: (0,), wanted: (2,), ready: (2, 1, 2)}, flapping, note="one is missing"
    )
    yield Case("VedetteWorkersFlapping", {**calm, restarts: (0, 1, 0)}, steps=(12, 2, 3), note="two restarts")
    yield Case(
        "VedetteWorkersFlapping",
        {restarts: (0,), wanted: (None, 2), ready: (None, 0)},
        steps=(12, 5, 0),
        note="starting",
    )


def _entry() -> Iterator[Case]:
    refused, unread = 'vedette_version_refused{%s, check="%s", instance="%s"}', "VERSION_UNREADABLE"
    alert = "VedetteVersionRefused"
    yield Case(alert, {refused % (V, unread, one): (None, 1, None) for one in "ab"}, (cause(unread, None),))
    yield Case(alert, {refused % (V, unread, "a"): (None, 1, None)}, steps=(12, 2, 5), note="a copy that grows")

    alert, day = "VedetteCertificateExpires", 86400.0
    ends = 'vedette_certificate_expiry_timestamp_seconds{certificate="%s", instance="a"}'
    for name in ("server", "client_ca"):
        told = {"cause": "CERTIFICATE_EXPIRES", "certificate": name, "instance": "a"}
        warning, critical = ({**told, "severity": severity} for severity in ("warning", "critical"))
        for left in (13.9, 2.1):
            yield Case(alert, {ends % name: (90 * day, left * day, 90 * day)}, (warning,))
        yield Case(alert, {ends % name: (90 * day, 1.9 * day, 90 * day)}, (warning, critical))
        yield Case(alert, {ends % name: (90 * day, -day, 90 * day)}, (warning, critical), note="it has ended")
        yield Case(alert, {ends % name: (14.1 * day,)})

    alert, stale = "VedetteAccessStale", 'vedette_access_stale{file="%s", instance="a"}'
    policy = {"cause": "ACCESS_STALE", "file": "policy", "instance": "a"}
    yield Case(alert, {stale % "policy": (0, 1, 0), stale % "tls": (0,)}, (policy,))
    yield Case(alert, {stale % "tls": (0, 1, 0)}, steps=(12, 2, 5), note="a key before its certificate")

    full = 'vedette_requests_total{model="", version="", outcome="%s", instance="a"}'
    intake = {"cause": "INTAKE_FULL", "instance": "a"}
    yield Case("VedetteIntakeFull", {full % "INTAKE_FULL": (0, 5, 0)}, (intake,))
    yield Case("VedetteIntakeFull", {full % "INTAKE_FULL": (0, 1, 0)}, note="a few")
    yield Case("VedetteIntakeFull", {full % "REQUEST_STALLED": (0, 5, 0)}, note="a slow network")

    lines = 'vedette_log_lines_dropped_total{instance="a"}'
    yield Case("VedetteLogDropped", {lines: (0, 5, 0)}, ({"cause": "LOG_DROPPED", "instance": "a"},))
    yield Case("VedetteLogDropped", {lines: (0,)})


def _latency() -> Iterator[Case]:
    fast = f'vedette_request_duration_seconds_bucket{{{V}, le="1.0"}}'
    whole = f"vedette_request_duration_seconds_count{{{V}}}"
    burn = cause("LATENCY", None)
    critical, warning = ({**burn, "severity": name} for name in ("critical", "warning"))
    yield Case("VedetteLatencyBurn", {whole: (100,), fast: (100, 50, 100)}, (critical, warning), steps=(12, 16, 445))
    yield Case("VedetteLatencyBurn", {whole: (100,), fast: (100, 87, 100)}, (warning,), steps=(12, 50, 445))
    yield Case("VedetteLatencyBurn", {whole: (100,), fast: (99.5,)}, note="half of what is allowed")
    yield Case("VedetteLatencyBurn", {whole: (1,), fast: (1, 0.9, 1)}, steps=(10, 5, 5), note="too few to say")


def _baselines() -> Iterator[Case]:
    ready: Series = {f"vedette_model_ready{{{V}}}": (1,)}

    def states(**which: Phases) -> Series:
        return {
            f'vedette_baseline_state{{{V}, vedette_baseline_state="{name}"}}': is_so for name, is_so in which.items()
        }

    missing = states(missing=(0, 1, 0), refused=(0,), present=(1, 0, 1))
    refused = states(missing=(0,), refused=(0, 1, 0), present=(1, 0, 1))
    yield Case("VedetteBaselineMissing", {**ready, **missing}, (cause("BASELINE_MISSING", None),))
    yield Case("VedetteBaselineMissing", {**ready, **refused}, (cause("BASELINE_REFUSED", None),))
    yield Case("VedetteBaselineMissing", {f"vedette_model_ready{{{V}}}": (0,), **missing}, note="no version to miss it")
    captured = f"vedette_baseline_captured_timestamp_seconds{{{V}}}"
    # Time is that of the test, which begins at 0; a baseline is stale after an hour here.
    yield Case("VedetteBaselineStale", {captured: (0, -3600, 100)}, (cause("BASELINE_STALE", None),))
    yield Case("VedetteBaselineStale", {captured: (-1800,)}, note="half as old")
    yield Case(ALWAYS, {}, ({"cause": "WATCHDOG"},))


def _silenced() -> Iterator[Case]:
    model, stream = "VedetteModelSilenced", "VedetteStreamSilenced"
    quiet: Phases = (2, 0, 2)
    swapped = answers(CHANNELS_SWAPPED=(0, 9, 0), QUIET_SCENE=quiet)
    yield Case(model, {**EMPTY, **swapped}, (cause("CHANNELS_SWAPPED", None),))
    yield Case(stream, {**EMPTY, **swapped}, (cause("CHANNELS_SWAPPED"),))
    single = answers(stream="", CHANNELS_SWAPPED=(0, 9, 0), QUIET_SCENE=quiet)
    yield Case(stream, {**EMPTY, **single}, (cause("CHANNELS_SWAPPED", None),), note="single images")
    yield Case(model, swapped, (cause("CHANNELS_SWAPPED", None),), note="without a baseline")
    yield Case(stream, swapped, (cause("CHANNELS_SWAPPED"),), note="without a baseline")
    tie = answers(CHANNELS_SWAPPED=(0, 4, 0), IMAGE_ROTATED=(0, 4, 0), NO_PROPOSALS=(0, 1, 0))
    yield Case(model, {**EMPTY, **tie}, ({**M},), note="a tie is one alert")
    yield Case(stream, {**EMPTY, **tie}, ({**M, "stream": "north"},), note="a tie is one alert")
    always = {**bounds("empty", 0.0, 0.9, 1.0), **answers(QUIET_SCENE=(10, 2, 10), IMAGE_BLACK=(0, 8, 0))}
    yield Case(model, always, (cause("IMAGE_BLACK", None),), note="nothing lies beyond the limit")
    yield Case(stream, always, (cause("IMAGE_BLACK"),), note="nothing lies beyond the limit")
    usual = bounds("empty", 0.0, 0.05, 0.1)
    own = {**EMPTY, **bounds("empty", 0.8, 0.9, 0.95, "north")}
    both = {**answers(BELOW_THRESHOLD=(0, 3, 0)), **answers(stream="south")}
    yield Case(stream, {**usual, **both}, (cause("BELOW_THRESHOLD"),), note="one of two")
    for alert in (model, stream):
        yield Case(alert, {**EMPTY, **answers(QUIET_SCENE=(2, 10, 2))}, note="a closed road")
        yield Case(alert, {**EMPTY, **answers(QUIET_SCENE=(2, 6, 2), IMAGE_BLACK=(0, 4, 0))}, note="mostly quiet")
        yield Case(alert, {**EMPTY, **answers((0.5,), IMAGE_BLACK=(0, 0.5, 0))}, note="too few to say")
        yield Case(alert, {**EMPTY, **answers(IMAGE_BLACK=(0, 5, 0))}, note="below the limit")
        yield Case(alert, answers(CLASS_FILTER=(10,)), note="asked for, as far as is known")
        yield Case(alert, answers(IMAGE_BLACK=(0, 7, 0)), note="without a baseline, and not enough")
    yield Case(model, {**usual, **both}, note="one of two is not the model")
    yield Case(stream, {**own, **answers(IMAGE_BLACK=(0, 9, 0))}, note="below its own limit, above the model's")


def _sources() -> Iterator[Case]:
    busy = answers()
    for alert, code, share in (
        ("VedetteCameraDark", "IMAGE_BLACK", 9.5),
        ("VedetteFeedFrozen", "FEED_FROZEN", 6),
    ):
        yield Case(alert, {**busy, **findings(**{code: (0, share, 0)})}, (cause(code),))
        single = {**answers(stream=""), **findings("", **{code: (0, share, 0)})}
        yield Case(alert, single, (cause(code, None),), note="single images")
        yield Case(alert, {**busy, **findings(**{code: (0.2, share - 2, 0.2)})}, note="not enough of them")
        yield Case(alert, {**answers((0.5,)), **findings(**{code: (0, 0.5, 0)})}, note="too few to say")
    black = findings(IMAGE_BLACK=(0, 10, 0), FEED_FROZEN=(0, 10, 0))
    unit = findings(IMAGE_BLACK=(0, 10, 0), VALUES_IN_UNIT_RANGE=(0, 10, 0))
    yield Case("VedetteCameraDark", {**busy, **unit}, note="values in [0, 1] are dark, too")
    yield Case("VedetteFeedFrozen", {**busy, **black}, note="black frames are alike")

    low, threshold = "VedetteSuppressedByThreshold", cause("BELOW_THRESHOLD")
    yield Case(low, answers(BELOW_THRESHOLD=(0, 4, 0)), (threshold,))
    yield Case(low, answers(stream="", BELOW_THRESHOLD=(0, 4, 0)), (cause("BELOW_THRESHOLD", None),))
    yield Case(low, answers(BELOW_THRESHOLD=(1, 2, 1), QUIET_SCENE=(4,)))

    nonfinite = cause("NON_FINITE_VALUES", None)
    yield Case("VedetteNonFinite", {**busy, **findings(NON_FINITE_VALUES=(0, 0.5, 0))}, (nonfinite,))
    yield Case("VedetteNonFinite", {**busy, **findings(NON_FINITE_VALUES=(0, 0.05, 0))})

    suspected = f'vedette_suspected_cause{{{of("north")}, cause="%s"}}'
    rotated = suspected % "IMAGE_ROTATED"
    yield Case("VedetteSuspectedCause", {rotated: (None, 1, None)}, (cause("IMAGE_ROTATED"),))
    yield Case("VedetteSuspectedCause", {rotated: (None, 1, 0)}, (cause("IMAGE_ROTATED"),))
    yield Case("VedetteSuspectedCause", {rotated: (0,)})
    replica = rotated.replace('"a"', '"b"')
    yield Case("VedetteSuspectedCause", {rotated: (None, 1, None), replica: (None, 1, None)}, (cause("IMAGE_ROTATED"),))


def _quiet() -> Iterator[Case]:
    alert, unknown, steps = "VedetteModelQuiet", (cause("UNKNOWN", None),), (30, 30, 40)

    def streets(count: int, quiet: Phases = (3, 10, 3), **more: Phases) -> Series:
        found: dict[str, Phases] = {}
        for number in range(count):
            found |= answers(stream=f"s{number}", QUIET_SCENE=quiet, **more)
        return {**EMPTY, **found}

    yield Case(alert, streets(3), unknown, steps)
    yield Case(alert, streets(1), unknown, (30, 90, 40), note="for longer than a road is closed")
    hours = {name: (0.95, 0.55, 0.55) if 'bound="high"' in name else rates for name, rates in streets(3).items()}
    quieter = {name: (9, 4, 4) if "empty_answers" in name else rates for name, rates in hours.items()}
    yield Case(alert, quieter, steps=(30, 8, 40), note="an hour whose own limit is lower begins")
    yield Case(alert, streets(2), steps=(30, 40, 40), note="two roads are closed")
    yield Case(alert, {**streets(3), **answers((30,), stream="busy")}, steps=steps, note="two of four")
    yield Case(alert, streets(3, (3, 0, 3), IMAGE_BLACK=(0, 10, 0)), steps=steps, note="explained, and told by others")
    yield Case(
        alert, {k: v for k, v in streets(3).items() if "limit" not in k}, steps=steps, note="nobody knows what is usual"
    )


SCORES = ("0.5", "0.8", "0.9", "0.95", "+Inf")


def scores(rates: dict[str, Phases], label: str = "stop") -> Series:
    """A cumulative histogram of scores."""
    name = f'vedette_detection_score_%s{{{V}, class="{label}"%s}}'
    found = {name % ("bucket", f', le="{edge}"'): rate for edge, rate in rates.items()}
    return {**found, name % ("count", ""): rates["+Inf"]}


def usual_scores(**_: float) -> Series:
    shares = dict(zip(SCORES, (0.1, 0.3, 0.5, 0.7, 1.0), strict=True))
    name = f"vedette_baseline_score_cumulative_ratio{{{V}, edge="
    return {f'{name}"{edge}"}}': (share,) for edge, share in shares.items()}


def classes(**rates: Phases) -> Series:
    return {f'vedette_detections_total{{{V}, class="{name}"}}': rate for name, rate in rates.items()}


def usual_classes(presence: float = 1.0, **shares: float) -> Series:
    found: dict[str, Phases] = {}
    for name, share in shares.items():
        found[f'vedette_baseline_class_share_ratio{{{V}, class="{name}"}}'] = (share,)
        found[f'vedette_baseline_class_presence_ratio{{{V}, class="{name}"}}'] = (presence,)
    return found


def _distributions() -> Iterator[Case]:
    steps = (30, 40, 60)
    known: Series = {**usual_scores(), **bounds("score_distance", 0.0, 0.05, 0.1)}
    lower = scores({"0.5": (2, 8, 2), "0.8": (6, 14, 6), "0.9": (10, 16, 10), "0.95": (14, 18, 14), "+Inf": (20,)})
    as_ever = scores({"0.5": (2.2,), "0.8": (6.4,), "0.9": (11,), "0.95": (15,), "+Inf": (20,)})
    few = {name: tuple(rate and rate / 20 for rate in rates) for name, rates in lower.items()}
    yield Case("VedetteScoreDrift", {**known, **lower}, (cause("SCORES_DRIFTED", None),), steps)
    yield Case("VedetteScoreDrift", {**known, **as_ever}, steps=steps, note="a distance of 0.05")
    yield Case("VedetteScoreDrift", {**known, **few}, steps=steps, note="too few to say")

    mix: Series = {**usual_classes(stop=0.5, give=0.3, park=0.2), **bounds("class_distance", 0.0, 0.05, 0.15)}
    other = classes(stop=(10, 4, 10), give=(6, 12, 6), park=(4,))
    yield Case("VedetteClassMixDrift", {**mix, **other}, (cause("CLASS_MIX_DRIFTED", None),), steps)
    unknown = classes(stop=(10, 5, 10), give=(6,), park=(4,), bus=(0, 5, 0))
    yield Case(
        "VedetteClassMixDrift", {**mix, **unknown}, (cause("CLASS_MIX_DRIFTED", None),), steps, note="a new class"
    )
    yield Case("VedetteClassMixDrift", {**mix, **classes(stop=(10, 8, 10), give=(6, 8, 6), park=(4,))}, steps=steps)
    yield Case(
        "VedetteClassMixDrift", {**mix, **classes(stop=(0, 1, 0), give=(0,))}, steps=steps, note="too few to say"
    )

    silent = (cause("CLASS_SILENT", None, **{"class": "park"}),)
    gone = classes(stop=(10,), give=(6,), park=(4, 0, 4))
    yield Case("VedetteClassSilent", {**mix, **gone}, silent, steps)
    yield Case("VedetteClassSilent", {**mix, **classes(stop=(10,), give=(6,), park=(4, 1, 4))}, steps=steps)
    none = classes(stop=(10, 0, 10), give=(6, 0, 6), park=(4, 0, 4))
    yield Case("VedetteClassSilent", {**mix, **none}, steps=steps, note="a closed road has no class at all")
    rare = {**usual_classes(0.5, stop=0.5, give=0.3, park=0.2), **gone}
    seldom = {**usual_classes(stop=0.95, bus=0.05), **classes(stop=(20,), bus=(1, 0, 1))}
    yield Case("VedetteClassSilent", seldom, steps=steps, note="two dozen were to be expected")
    yield Case("VedetteClassSilent", rare, steps=steps, note="a class that comes and goes")


USUAL = {
    "brightness": (90, 110, 130),
    "contrast": (40, 45, 50),
    "sharpness": (24, 26, 28),
    "redness": (0.5, 0.53, 0.56),
    "upper": (0.52, 0.54, 0.56),
}


def images(stream: str = "north", baseline: str = "north", /, **means: tuple[float, float, float]) -> Series:
    """Ten images a step whose statistics are those of the baseline, but for `means`."""
    found: dict[str, Phases] = {**answers(stream=stream)}
    for name, one in INPUTS.items():
        usual = USUAL[name][1]
        series = f"{one.metric}_%s{{{of(stream)}}}"
        found[series % "count"] = (10,)
        found[series % "sum"] = tuple(10 * mean for mean in means.get(name, (usual, usual, usual)))
        found |= bounds(name, *USUAL[name], baseline)
    return found


def _inputs() -> Iterator[Case]:
    alert = "VedetteInputDrift"
    dark = {"brightness": (110, 30, 110), "contrast": (45, 12, 45), "sharpness": (26, 15, 26)}
    blurred = {"sharpness": (26, 14, 26), "contrast": (45, 38, 45)}
    for name, change, statistic in (
        ("IMAGE_TOO_DARK", dark, "brightness"),
        ("IMAGE_TOO_BRIGHT", {"brightness": (110, 180, 110)}, "brightness"),
        ("IMAGE_FLAT", {"contrast": (45, 10, 45), "sharpness": (26, 14, 26)}, "contrast"),
        ("IMAGE_BLURRED", blurred, "sharpness"),
        ("COLOUR_CAST", {"redness": (0.53, 0.45, 0.53)}, "redness"),
        ("IMAGE_ROTATED", {"upper": (0.54, 0.46, 0.54)}, "upper"),
        ("COLOUR_CAST", {"redness": (0.53, 0.65, 0.53)}, "redness"),
    ):
        yield Case(alert, images(**change), (cause(name, statistic=statistic),), note="one cause alone")
    whole = cause("IMAGE_TOO_DARK", None, statistic="brightness")
    yield Case(alert, images("north", "", **dark), (whole,), note="no baseline of its own: the whole model's")
    yield Case(alert, images("", "", **dark), (whole,), note="single images")
    yield Case(alert, images(brightness=(110, 75, 110)), note="within the margin")
    yield Case(alert, images(upper=(0.54, 0.7, 0.54)), note="more light from above is upright still")
    dusk = {"brightness": (110, 75, 110), "sharpness": (26, 21, 26)}
    yield Case(alert, images(**dusk), note="less sharp, as darkness makes it")
    yield Case(alert, images(sharpness=(26, 21, 26)), (cause("IMAGE_BLURRED", statistic="sharpness"),), note="and not")
    yield Case(alert, {**images(**dark), **findings(IMAGE_BLACK=(0, 10, 0))}, note="black, and told as that")
    yield Case(alert, images("south", "north", **dark), note="another stream's baseline")


CASES: tuple[Case, ...] = tuple(
    case
    for cases in (
        _outages,
        _requests,
        _entry,
        _latency,
        _baselines,
        _silenced,
        _sources,
        _quiet,
        _distributions,
        _inputs,
    )
    for case in cases()
)
