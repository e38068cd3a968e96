"""Queries of the dashboard of a model and its streams: for the current choice and its baseline."""

from vedette_server.dashboards.panels import Ask

V = 'model=~"$model", version=~"$version"'
VS = f'{V}, stream=~"$stream"'
WHOLE = f'{V}, stream=""'  # of a baseline: the whole model
OWN = f'{V}, stream="${{stream:text}}"'
ALERTS = 'alertname=~"Vedette.+", alertname!="VedetteWatchdog", alertstate="firing"'


def usual(series: str, labels: str = "", by: str = "") -> str:
    """Of the baseline: the stream's own, or else that of its model, which is also what All has."""
    grouped = f"max by ({by}) " if by else "max"
    return f"{grouped}({series}{{{labels}{OWN}}}) or {grouped}({series}{{{labels}{WHOLE}}})"


def bound(statistic: str, side: str) -> str:
    """A limit of a statistic."""
    return usual("vedette_baseline_limit", f'statistic="{statistic}", bound="{side}", ')


def band(now: str, statistic: str) -> list[Ask]:
    """The current value between its limits."""
    return [Ask(now, "now"), Ask(bound(statistic, "low"), "low"), Ask(bound(statistic, "high"), "high")]


def share(window: str) -> str:
    """Share of answers that are empty."""
    return (
        f"sum(increase(vedette_empty_answers_total{{{VS}}}[{window}])) "
        f"/ (sum(increase(vedette_answers_total{{{VS}}}[{window}])) > 0)"
    )


def mean(summary: str, labels: str = VS) -> str:
    """Mean over the window of what a summary or histogram has observed."""
    return f"sum(rate({summary}_sum{{{labels}}}[$window])) / (sum(rate({summary}_count{{{labels}}}[$window])) > 0)"


def rate(series: str, by: str, labels: str = VS) -> str:
    """Events per second, by a label."""
    return f"sum by ({by}) (rate({series}{{{labels}}}[$__rate_interval]))"
