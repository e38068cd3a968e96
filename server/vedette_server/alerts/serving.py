"""Alerts on the failures of servers, workers, versions and requests."""

from vedette_server.alerts import limits
from vedette_server.alerts.parts import (
    VERSION,
    Alert,
    Parameters,
    Record,
    Rule,
    count,
    duration,
    leading,
    look,
    of_leading,
    renamed,
)
from vedette_server.alerts.silence import SHARE, WHO


def outages(p: Parameters) -> list[Rule]:
    """Servers that are gone, models that nobody answers for, models that no longer see as they did."""
    up = f'up{{job="{p.job}"}}'
    waived = 'max by (model, version) (vedette_check_waived{check="GOLDEN_CHANGED"}) == 1'
    return [
        Alert(
            name="VedetteServerDown",
            severity="critical",
            role="outage",
            cause="SERVER_DOWN",
            summary="{{ with $labels.instance }}Server {{ . }} is down{{ else }}No server is up{{ end }}",
            description=f"""{{{{ with $labels.instance }}}}{{{{ . }}}} has not answered Prometheus for
            {duration(p.hold)}. {{{{ else }}}}No server of the job {p.job} answers Prometheus, or none is
            configured.{{{{ end }}}} Servers up: {look(f"count({up} == 1)", form="humanize")}. Suspected cause: the
            server has exited or hangs, or its machine or network is down.""",
            expr=f"""
label_replace({up} == 0, "scope", "instance", "", "")
or
label_replace(absent({up} == 1), "scope", "all", "", "")""",
            dashboard="vedette-serving",
        ),
        Alert(
            name="VedetteNoModelReady",
            severity="critical",
            role="outage",
            cause="NO_WORKER",
            summary="{{ $labels.model }} has no ready version",
            description=f"""No version of {{{{ $labels.model }}}} has been ready on any server for {duration(p.hold)}.
            Workers in rotation: {look("sum(vedette_workers_ready{model=%q})", "model", form="humanize")} of
            {look("sum(vedette_workers_wanted{model=%q})", "model", form="humanize")}. Suspected cause: workers do not
            start, or fail their golden images. The server's log says which.""",
            expr="max by (model) (vedette_model_ready) == 0",
            dashboard="vedette-serving",
            keep=1,
        ),
        Alert(
            name="VedetteStuck",
            severity="critical",
            role="service",
            cause="STUCK",
            summary=f"{WHO} answers nothing",
            description=f"""On {{{{ $labels.instance }}}}, nothing has been answered for
            {{{{ $value | humanizeDuration }}}}, although requests wait. Requests in the queue:
            {look("sum(vedette_queued_requests{model=%q, version=%q})", "model", "version", form="humanize")}, workers
            in rotation:
            {look("sum(vedette_workers_ready{model=%q, version=%q})", "model", "version", form="humanize")}. The server
            is not ready. Suspected cause: workers hang and are not replaced, or their replacements hang too.""",
            expr=f"max by (instance, {VERSION}) (vedette_unanswered_seconds) > {p.stuck:g}",
            dashboard="vedette-serving",
            keep=2,
        ),
        Alert(
            name="VedetteGoldenFailing",
            severity="critical",
            role="cause",
            cause=None,
            summary=f"{WHO} fails its golden images: {{{{ $labels.cause }}}}",
            description=f"""Failed golden checks in the last {p.w}: {{{{ $value | humanize }}}}; each worker counts at
            most once per check. A worker that fails is replaced. Suspected cause: {{{{ $labels.cause }}}}; changed
            files or memory, or another build of the libraries.""",
            expr=f"""
(
  {count("vedette_golden_failures_total", p.w, f"{VERSION}, cause")} > 0
  or
  max by ({VERSION}, cause) (vedette_golden_failing) == 1
)
unless on ({VERSION}) {waived}""",
            hold=0,
            keep=3,
        ),
        Alert(
            name="VedetteVersionDisagrees",
            severity="critical",
            role="cause",
            cause="WRONG_VERSION",
            summary=f"{WHO} contradicts version {{{{ $labels.predecessor }}}}",
            description=f"""On the golden images of version {{{{ $labels.predecessor }}}} it misses {SHARE} of the
            objects or gives them another class. Suspected cause: class names in another order, or the wrong
            checkpoint.""",
            expr=f"max by ({VERSION}, predecessor) (vedette_golden_disagreement_ratio) > {limits.DISAGREEMENT}",
            hold=0,
            keep=3,
        ),
    ]


def requests(p: Parameters) -> list[Rule]:
    """Requests that are refused, workers that come and go."""
    violations = "vedette:violations:window"
    busy = 'vedette_requests_total{outcome=~"OVERLOADED|DEADLINE_EXCEEDED"}'
    total = f"sum by ({VERSION}) ({violations})"
    counted = count("vedette_contract_violations_total", p.w, f"{VERSION}, reason")
    return [
        Record("vedette:requests:window", count("vedette_requests_total", p.w, VERSION)),
        Record(violations, f"sum by ({VERSION}, cause) ({renamed(counted, 'reason')}) > 0"),
        leading("vedette:leading_violation:window", violations, VERSION),
        Alert(
            name="VedetteContractViolations",
            severity="warning",
            role="service",
            cause=None,
            summary=f"{WHO} receives requests that contradict its contract: {{{{ $labels.cause }}}}",
            description=f"""{SHARE} of its requests of the last {p.w} were refused because they contradict their
            declaration or the contract:
            {look(f"sum({violations}{{model=%q, version=%q}})", "model", "version", form="humanize")} in all, most of
            them as {{{{ $labels.cause }}}}. Suspected cause: a caller changed, or never worked.""",
            expr=of_leading(
                "vedette:leading_violation:window",
                f"clamp_max({total} / vedette:requests:window, 1) > {limits.VIOLATIONS} and {total} >= {p.refusals}",
                VERSION,
            ),
            dashboard="vedette-serving",
            keep=1,
        ),
        Record("vedette:late:window", count(busy, p.w, VERSION)),
        Alert(
            name="VedetteOverload",
            severity="warning",
            role="service",
            cause="OVERLOADED",
            summary=f"{WHO} receives more requests than it can answer",
            description=f"""{SHARE} of its requests of the last {p.w} were refused as overload, or missed their
            deadline. Requests in the queue:
            {look("sum(vedette_queued_requests{model=%q, version=%q})", "model", "version", form="humanize")}.
            Suspected cause: too much traffic for the workers, or slower workers.""",
            expr=f"clamp_max(vedette:late:window / vedette:requests:window, 1) > {limits.OVERLOADED}"
            f" and vedette:late:window >= {p.refusals}",
            dashboard="vedette-serving",
        ),
        Alert(
            name="VedetteOutOfMemory",
            severity="warning",
            role="service",
            cause="OUT_OF_MEMORY",
            summary=f"Workers of {WHO} run out of memory",
            description=f"""Workers lost this way in the last {p.w}: {{{{ $value | humanize }}}}; in rotation:
            {look("sum(vedette_workers_ready{model=%q, version=%q})", "model", "version", form="humanize")}. Suspected
            cause: too many workers for the memory of the machine or its container, or too large images.""",
            expr=f"""{count('vedette_workers_lost_total{cause="out_of_memory"}', p.w, VERSION)} > 0""",
            dashboard="vedette-serving",
            hold=0,
            keep=1,
        ),
        Alert(
            name="VedetteWorkersFlapping",
            severity="warning",
            role="service",
            cause="WORKERS_FLAPPING",
            summary=f"Workers of {WHO} keep restarting or fail to start",
            description=f"""Restarts in the last {p.w}:
            {
                look(
                    f"sum(increase(vedette_worker_restarts_total{{model=%q, version=%q}}[{p.w}]))",
                    "model",
                    "version",
                    form="humanize",
                )
            }; in rotation:
            {look("sum(vedette_workers_ready{model=%q, version=%q})", "model", "version", form="humanize")} of
            {
                look("sum(vedette_workers_wanted{model=%q, version=%q})", "model", "version", form="humanize")
            }. Suspected cause:
            too little memory, failing golden images, or a crash. The server's log says which.""",
            expr=f"""
{count("vedette_worker_restarts_total", p.w, VERSION)} >= {limits.RESTARTS}
or
sum by ({VERSION}) (
  min_over_time(vedette_workers_wanted[{p.w}]) - max_over_time(vedette_workers_ready[{p.w}]) > 0
  and
  vedette_workers_wanted offset {p.w}
)""",
            dashboard="vedette-serving",
        ),
    ]


def latency(p: Parameters) -> list[Rule]:
    """The budget of slow requests, in several windows."""
    edge = f"{float(p.objective)}"
    slow = 1 - p.target

    def share(windows: int) -> str:
        return f"vedette:slow_requests:ratio{windows}"

    def burn(rate: float, long: int, short: int) -> str:
        return f"{share(long)} > {rate * slow:.4g} and {share(short)} > {rate * slow:.4g}"

    def alert(severity: str, burns: tuple[tuple[float, int, int], ...], hold: float) -> Alert:
        rates = ", ".join(f"{rate:g} times over {p.windows(long)}" for rate, long, _ in burns)
        return Alert(
            name="VedetteLatencyBurn",
            severity=severity,
            role="symptom",
            cause="LATENCY",
            summary=f"{WHO} answers too slowly",
            description=f"""{SHARE} of its requests took longer than {p.objective:g} s, where {
                slow:.0%} are allowed: the budget
            is spent faster than {rates}. In the last {p.w}, of {
                look("vedette:requests:window{model=%q, version=%q}", "model", "version", form="humanize")
            } requests
            {look("vedette:late:window{model=%q, version=%q}", "model", "version", form="humanize")} were refused as
            overload or late. Suspected cause: overload, restarting workers, or larger images.""",
            expr="\nor\n".join(burn(*one) for one in burns),
            dashboard="vedette-serving",
            hold=hold,
        )

    bucket = f'vedette_request_duration_seconds_bucket{{le="{edge}"}}'
    whole = "vedette_request_duration_seconds_count"
    return [
        *(
            Record(
                share(windows),
                f"1 - {count(bucket, p.windows(windows), VERSION)}\n"
                f"  / ({count(whole, p.windows(windows), VERSION)} >= {p.answers})",
            )
            for windows in limits.BURN_WINDOWS
        ),
        alert("critical", limits.FAST_BURNS, p.hold),
        alert("warning", limits.SLOW_BURNS, p.hold),
    ]


def baselines(p: Parameters) -> list[Rule]:
    """Return the alerts on missing baselines."""
    ready = f"max by ({VERSION}) (vedette_model_ready) == 1"

    def state(name: str) -> str:
        found = f'max by ({VERSION}) (vedette_baseline_state{{vedette_baseline_state="{name}"}}) == 1'
        return f'label_replace({found}, "cause", "BASELINE_{name.upper()}", "", "")'

    return [
        Alert(
            name="VedetteBaselineMissing",
            severity="info",
            role="none",
            cause=None,
            summary=f"{WHO} has no baseline: {{{{ $labels.cause }}}}",
            description="""Drift cannot be detected, because normal behaviour is unknown.
            {{ if eq $labels.cause "BASELINE_REFUSED" }}The
            baseline.json of the version was refused, usually because it was captured for another contract; the
            server's log says why.{{ else }}None was captured.{{ end }} `vedette-server baseline` captures one.""",
            expr=f"({state('missing')}\nor\n{state('refused')})\nand on ({VERSION}) {ready}",
        ),
        Alert(
            name="VedetteBaselineStale",
            severity="info",
            role="none",
            cause="BASELINE_STALE",
            summary=f"The baseline of {WHO} is {{{{ $value | humanizeDuration }}}} old",
            description=f"""It was captured {{{{ $value | humanizeDuration }}}} ago. After {p.stale_days:g} days, normal
            behaviour may have changed. `vedette-server baseline` captures another.""",
            expr=f"time() - min by ({VERSION}) (vedette_baseline_captured_timestamp_seconds) > "
            f"{p.stale_days * 86400:g}",
        ),
        Alert(
            name="VedetteWatchdog",
            severity="none",
            role="none",
            cause="WATCHDOG",
            summary="Alerts are evaluated and delivered",
            description="Always fires. Its receiver should alert somebody when it stops arriving.",
            expr="vector(1)",
            hold=0,
        ),
    ]
