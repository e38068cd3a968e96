"""Alerts on the way in and the log: refused versions and files, expiring certificates, lost lines."""

from vedette_server.alerts import limits
from vedette_server.alerts.parts import VERSION, Alert, Parameters, Rule, count, look, renamed
from vedette_server.alerts.silence import WHO

_DAY = 86400
_ON = "{{ $labels.instance }}"


def versions(_: Parameters) -> list[Rule]:
    """Versions that are in the repository and cannot be served."""
    return [
        Alert(
            name="VedetteVersionRefused",
            severity="warning",
            role="service",
            cause=None,
            summary=f"{WHO} cannot be served: {{{{ $labels.cause }}}}",
            description="""Servers that refuse it: {{ $value | humanize }}. It fails the check {{ $labels.cause }};
            other versions are still served. Suspected cause: an incomplete copy, a changed file, or a model that needs
            something the server lacks. The server's log says what was seen.""",
            expr=renamed(f"count by ({VERSION}, check) (vedette_version_refused == 1)", "check"),
            dashboard="vedette-serving",
        ),
    ]


def files(p: Parameters) -> list[Rule]:
    """Return the alerts on access: certificates that end, files that cannot be read."""
    left = "min by (instance, certificate) (vedette_certificate_expiry_timestamp_seconds) - time()"
    failed = 'sum(increase(vedette_access_reloads_total{instance=%q, file=%q, outcome="refused"}[' + p.w + "]))"

    def ends(severity: str, days: float) -> Alert:
        return Alert(
            name="VedetteCertificateExpires",
            severity=severity,
            role="service",
            cause="CERTIFICATE_EXPIRES",
            summary=f"A certificate of {_ON} expires in {{{{ $value | humanizeDuration }}}}",
            description="""The first to expire of {{ if eq $labels.certificate "client_ca" }}the authority's
            certificates, which authenticate callers,{{ else }}those presented to callers{{ end }} expires in
            {{ $value | humanizeDuration }}. From then on, new connections that depend on it fail. Suspected cause: its
            renewal has failed, or the renewed files are not where the server reads them.""",
            expr=f"{left} < {days * _DAY:g}",
            dashboard="vedette-serving",
        )

    return [
        ends("critical", p.expiry_days / limits.EXPIRY_PAGES),
        ends("warning", p.expiry_days),
        Alert(
            name="VedetteAccessStale",
            severity="warning",
            role="service",
            cause="ACCESS_STALE",
            summary=f"{_ON} uses old content of {{{{ $labels.file }}}}",
            description=f"""The present content cannot be read, so the previous content still decides who may call.
            Failed attempts in the last {p.w}: {look(failed, "instance", "file", form="humanize")}. Suspected cause: a
            half-written or missing file, a certificate that does not match its key, or an address that does not
            respond. The log says which.""",
            expr="max by (instance, file) (vedette_access_stale) == 1",
            dashboard="vedette-serving",
        ),
    ]


def strain(p: Parameters) -> list[Rule]:
    """Return the alerts on strain: requests that cannot be taken in, lines that cannot be written."""
    return [
        Alert(
            name="VedetteIntakeFull",
            severity="warning",
            role="service",
            cause="INTAKE_FULL",
            summary=f"{_ON} runs out of memory for incoming requests",
            description=f"""Incomplete requests that it dropped in the last {p.w}: {{{{ $value | humanize }}}}.
            Suspected cause: callers that do not finish large requests, or do not read their answers; an attack, or a
            stalled network.""",
            expr=count('vedette_requests_total{outcome="INTAKE_FULL"}', p.w, "instance") + f" >= {p.refusals}",
            dashboard="vedette-serving",
            hold=0,
        ),
        Alert(
            name="VedetteLogDropped",
            severity="warning",
            role="service",
            cause="LOG_DROPPED",
            summary=f"Lines of the log of {_ON} are lost",
            description=f"""Lines that could not be written in the last {p.w}: {{{{ $value | humanize }}}}. Requests are
            still answered. Suspected cause: a full disk, or nobody reads the server's standard error.""",
            expr=count("vedette_log_lines_dropped_total", p.w, "instance") + " > 0",
            dashboard="vedette-serving",
        ),
    ]
