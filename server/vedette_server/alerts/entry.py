"""The way in, and the log: versions and files that a server refuses, certificates that end, lines that are lost."""

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
            description="""Servers that refuse it: {{ $value | humanize }}. It does not pass the check
            {{ $labels.cause }}; other versions are served on. Suspected cause: a copy that is not complete, a file
            that was changed, or a model that needs what the server lacks; its log says what was seen.""",
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
            summary=f"A certificate of {_ON} ends in {{{{ $value | humanizeDuration }}}}",
            description="""The first to end of {{ if eq $labels.certificate "client_ca" }}the authority's, by which
            callers show who they are{{ else }}those that it shows to callers{{ end }} ends in
            {{ $value | humanizeDuration }}; from then on nobody gets in by it. Suspected cause: its renewal has
            failed, or its files were not put where the server reads them.""",
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
            summary=f"{_ON} goes by an old file of {{{{ $labels.file }}}}",
            description=f"""What is there now cannot be read, so that who may call is decided by what was there before;
            tries that failed in the last {p.w}: {look(failed, "instance", "file", form="humanize")}. Suspected cause: a
            file that is half written or gone, a certificate that does not belong to its key, or an address that does
            not answer; the log says which.""",
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
            summary=f"{_ON} has no memory for what is sent to it",
            description=f"""Requests that it gave up before they had come whole, in the last {p.w}:
            {{{{ $value | humanize }}}}. Suspected cause: callers that begin large requests and do not finish them, or
            do not read their answers; an attack, or a network that stalls.""",
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
            answered all the same. Suspected cause: a disk that is full, or nobody who reads what the server writes to
            its standard error.""",
            expr=count("vedette_log_lines_dropped_total", p.w, "instance") + " > 0",
            dashboard="vedette-serving",
        ),
    ]
