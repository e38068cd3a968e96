"""The dashboard of serving: speed, quality and refusals."""

from grafana_foundation_sdk.models import dashboard as d

from vedette_server.alerts import limits
from vedette_server.dashboards.board import UIDS, add, board, choice, finished
from vedette_server.dashboards.panels import (
    BAD_FROM_ONE,
    COUNT,
    CRITICAL,
    NOW,
    PER_SECOND,
    RATIO,
    SECONDS,
    USUAL,
    WARNING,
    WARNING_FROM_ONE,
    WELL,
    Ask,
    Panel,
    lines,
    number,
)

_V = 'model=~"$model", version=~"$version"'
_REFUSED = f'{_V}, outcome!="OK"'
_PURPLE = "purple"


def _rate(series: str, by: str = "", labels: str = _V) -> str:
    grouped = f" by ({by}) " if by else ""
    return f"sum{grouped}(rate({series}{{{labels}}}[$__rate_interval]))"


def _quantiles(series: str, *, exemplars: bool = False) -> list[Ask]:
    buckets = _rate(f"{series}_bucket", "le")
    return [
        Ask(f"histogram_quantile({share}, {buckets})", name, exemplars=exemplars and share == 0.99)
        for share, name in ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))
    ]


_QUANTILES = {"median": NOW, "95 %": _PURPLE, "99 %": WARNING}


def build() -> d.Dashboard:
    """The dashboard."""
    made = board(
        UIDS["serving"],
        "Vedette: serving",
        "Requests, their time and their fate; workers and queues. Says nothing of whether the answers are right: "
        "that is the fleet's page.",
    )
    made = made.with_variable(choice("model", "Model", "vedette_model_ready", everything=True, many=True))
    made = made.with_variable(
        choice("version", "Version", 'vedette_model_ready{model=~"$model"}', everything=True, many=True)
    )
    made = add(made, "Is it served?", _glance())
    made = add(made, "Requests", _requests())
    made = add(made, "Time", _times())
    made = add(made, "Workers and queues", _workers())
    made = add(made, "Streams", _streams())
    made = add(made, "The way in", _entry())
    made = add(made, "The watch itself", _watch())
    return finished(made)


def _glance() -> list[Panel]:
    within = f'sum(rate(vedette_request_duration_seconds_bucket{{{_V}, le="{limits.OBJECTIVE}"}}[$__rate_interval]))'
    return [
        number(
            "Requests",
            "Requests per second, answered or refused.",
            Ask(_rate("vedette_requests_total")),
            PER_SECOND,
            span=4,
        ),
        number(
            "Refused",
            "Share of requests that were refused, for whatever reason.",
            Ask(
                f"({_rate('vedette_requests_total', labels=_REFUSED)} or vector(0)) "
                f"/ ({_rate('vedette_requests_total')} > 0)"
            ),
            RATIO,
            decimals=1,
            colors=((None, WELL), (0.01, WARNING), (0.1, CRITICAL)),
            span=4,
        ),
        number(
            "Within a second",
            f"Share of answers within a second; the objective is {100 * limits.TARGET:g} %.",
            Ask(f"{within} / ({_rate('vedette_request_duration_seconds_count')} > 0)"),
            RATIO,
            decimals=1,
            colors=((None, CRITICAL), (limits.TARGET - 0.04, WARNING), (limits.TARGET, WELL)),
            span=4,
        ),
        number(
            "Workers missing",
            "Workers that are wanted and not in rotation: starting, or failing to start.",
            Ask(f"sum(vedette_workers_wanted{{{_V}}}) - sum(vedette_workers_ready{{{_V}}})"),
            COUNT,
            colors=WARNING_FROM_ONE,
            span=4,
        ),
        number(
            "Waiting",
            "Requests that wait for a worker now.",
            Ask(f"sum(vedette_queued_requests{{{_V}}})"),
            COUNT,
            span=4,
        ),
        number(
            "Versions not ready",
            "Versions without a worker that could answer.",
            Ask(f"count(max by (model, version) (vedette_model_ready{{{_V}}}) == 0) or vector(0)"),
            COUNT,
            colors=BAD_FROM_ONE,
            span=4,
        ),
    ]


def _requests() -> list[Panel]:
    return [
        lines(
            "Requests by outcome",
            "OK, or the reason of the refusal: deploy/docs/errors.md has what each means and what callers are told.",
            [Ask(f"{_rate('vedette_requests_total', 'outcome')} > 0", "{{outcome}}")],
            PER_SECOND,
            stacked=True,
            span=8,
            colors={"OK": WELL},
        ),
        lines(
            "Refusals",
            "The same without OK, so that few are seen beside many.",
            [Ask(f"{_rate('vedette_requests_total', 'outcome', _REFUSED)} > 0", "{{outcome}}")],
            PER_SECOND,
            stacked=True,
            span=8,
        ),
        lines(
            "Contract violations",
            "Refused because the image contradicts its own declaration or the model's input contract: a sender "
            "was changed.",
            [Ask(f"{_rate('vedette_contract_violations_total', 'reason')} > 0", "{{reason}}")],
            PER_SECOND,
            stacked=True,
            span=8,
        ),
    ]


def _times() -> list[Panel]:
    stage = "vedette_stage_duration_seconds"
    return [
        lines(
            "Time of a request",
            "From admission to answer. Dots are single requests: their request_id is in the server's log, too.",
            _quantiles("vedette_request_duration_seconds", exemplars=True),
            SECONDS,
            span=8,
            colors=_QUANTILES,
        ),
        lines(
            "Where the time goes",
            "Mean time of a request in each stage. Decode, preprocess and postprocess overlap with other requests' "
            "forward.",
            [
                Ask(
                    f"{_rate(f'{stage}_sum', 'stage')} / ({_rate(f'{stage}_count', 'stage')} > 0)",
                    "{{stage}}",
                )
            ],
            SECONDS,
            stacked=True,
            span=8,
        ),
        lines(
            "Slow stages",
            "The time within which 95 % of requests have left each stage.",
            [Ask(f"histogram_quantile(0.95, {_rate(f'{stage}_bucket', 'le, stage')})", "{{stage}}")],
            SECONDS,
            span=8,
        ),
    ]


def _workers() -> list[Panel]:
    batch = "vedette_batch_images"
    return [
        lines(
            "Workers",
            "Wanted and in rotation. A gap that stays is a version that cannot start: see the server's log.",
            [
                Ask(f"sum(vedette_workers_wanted{{{_V}}})", "wanted"),
                Ask(f"sum(vedette_workers_ready{{{_V}}})", "ready"),
            ],
            COUNT,
            span=6,
            colors={"wanted": USUAL, "ready": WELL},
        ),
        lines(
            "Restarts of workers",
            "Crashed, hung, or failed its golden images. Requests that a worker had are tried once more elsewhere.",
            [Ask(f"sum by (model, version) (increase(vedette_worker_restarts_total{{{_V}}}[$__rate_interval]))")],
            COUNT,
            span=6,
        ),
        lines(
            "Waiting and running",
            "The most requests that waited for a worker at once, and how many one had on average: as many as there are "
            "workers, or more, means that they are never idle.",
            [
                Ask(f"sum(max_over_time(vedette_queued_requests{{{_V}}}[$__rate_interval]))", "waiting"),
                Ask(f"sum(avg_over_time(vedette_running_requests{{{_V}}}[$__rate_interval]))", "running"),
            ],
            COUNT,
            span=6,
            colors={"waiting": WARNING, "running": NOW},
        ),
        lines(
            "Images in a batch",
            "Mean. On a CPU it is 1: batches do not pay there.",
            [Ask(f"{_rate(f'{batch}_sum')} / ({_rate(f'{batch}_count')} > 0)", "mean")],
            COUNT,
            span=6,
            colors={"mean": NOW},
        ),
        lines(
            "Without an answer",
            "Whole seconds without an answer while something waits; beyond max_request_seconds a version is not ready.",
            [Ask(f"floor(max by (instance, model, version) (vedette_unanswered_seconds{{{_V}}}))")],
            SECONDS,
            span=8,
        ),
        lines(
            "Workers lost",
            "By cause: out_of_memory, killed from outside, hung, dismissed since it no longer answered as it must, "
            "crashed, failed_to_start.",
            [Ask(f"sum by (cause) (increase(vedette_workers_lost_total{{{_V}}}[$__rate_interval]))", "{{cause}}")],
            COUNT,
            stacked=True,
            span=8,
            colors={"out_of_memory": CRITICAL},
        ),
        lines(
            "Versions refused",
            "Servers on which a version of the repository cannot be served, by the check that it does not pass.",
            [
                Ask(
                    f"count by (model, version, check) (vedette_version_refused{{{_V}}} == 1)",
                    "{{model}} {{version}}: {{check}}",
                )
            ],
            COUNT,
            span=8,
        ),
    ]


def _entry() -> list[Panel]:
    def refused(outcomes: str) -> list[Ask]:
        found = _rate("vedette_requests_total", "outcome", f'model="", outcome=~"{outcomes}"')
        return [Ask(f"{found} > 0", "{{outcome}}")]

    return [
        lines(
            "Refused at the door",
            "Calls of somebody who is not known, or may not do so, or not so much: deploy/docs/security.md.",
            refused("CREDENTIALS_.*|NOT_PERMITTED|RATE_EXCEEDED|STREAMS_EXCEEDED|TOO_MANY_STREAMS"),
            PER_SECOND,
            stacked=True,
            span=6,
        ),
        lines(
            "Given up on the way in",
            "Requests that had not come whole in time, or for which there was no memory: deploy/docs/limits.md.",
            refused("INTAKE_FULL|REQUEST_STALLED"),
            PER_SECOND,
            stacked=True,
            span=6,
            colors={"INTAKE_FULL": CRITICAL, "REQUEST_STALLED": WARNING},
        ),
        lines(
            "Certificates end",
            "Time until the first certificate ends of those that a server shows, or checks its callers' against.",
            [
                Ask(
                    "min by (instance, certificate) (vedette_certificate_expiry_timestamp_seconds) - time()",
                    "{{certificate}} of {{instance}}",
                )
            ],
            SECONDS,
            span=6,
        ),
        lines(
            "Files that cannot be read",
            "1 where what was there before decides who may call, since what is there now cannot be read.",
            [Ask("max by (instance, file) (vedette_access_stale)", "{{file}} of {{instance}}")],
            COUNT,
            span=6,
        ),
    ]


def _streams() -> list[Panel]:
    return [
        lines(
            "Open streams",
            "On all servers.",
            [Ask("sum(vedette_streams_open)", "open")],
            COUNT,
            span=8,
            colors={"open": NOW},
        ),
        lines(
            "Age of frames when answered",
            "How old what one sees is. LATEST streams keep it low by dropping frames, LOSSLESS ones do not.",
            _quantiles("vedette_frame_age_seconds"),
            SECONDS,
            span=8,
            colors=_QUANTILES,
        ),
        lines(
            "Frames dropped",
            "By the streams' own policy.",
            [Ask(_rate("vedette_frames_dropped_total", "reason"), "{{reason}}")],
            PER_SECOND,
            stacked=True,
            span=8,
            colors={"SUPERSEDED": USUAL, "EXPIRED": WARNING},
        ),
    ]


def _watch() -> list[Panel]:
    return [
        lines(
            "Golden images",
            "Checks of workers by pictures with known answers. Failed ones are never chance: that worker was replaced.",
            [Ask(f"sum by (result) (increase(vedette_golden_checks_total{{{_V}}}[$__rate_interval]))", "{{result}}")],
            COUNT,
            span=6,
            colors={"passed": WELL, "failed": CRITICAL},
        ),
        lines(
            "Scrapes",
            "How long Prometheus takes to read the servers' pages.",
            [Ask('max(scrape_duration_seconds{job="vedette"})', "slowest")],
            SECONDS,
            span=6,
            colors={"slowest": NOW},
        ),
        lines(
            "Labels folded",
            "Streams and classes beyond the cap, counted as _other: what is folded is watched as one.",
            [Ask("sum by (label) (increase(vedette_labels_folded_total[$__rate_interval]))", "{{label}}")],
            COUNT,
            span=6,
        ),
        lines(
            "Lines of the log that were lost",
            "Nobody reads the log, or it cannot be written. Requests are answered all the same.",
            [Ask("sum by (instance) (increase(vedette_log_lines_dropped_total[$__rate_interval]))")],
            COUNT,
            span=6,
        ),
    ]
