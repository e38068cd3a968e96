"""The page: its head, the versions at a glance, a section for each, and what its figures are."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vedette_server.report import sections
from vedette_server.report.elements import Child, Element, document, el, table
from vedette_server.report.facts import Counts, Version
from vedette_server.report.parts import beside, code, count, lamp
from vedette_server.report.samples import Sample, Wanted
from vedette_server.report.verdict import Verdict, of_version, percent

_STYLE = Path(__file__).with_name("style.css")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_TOTALS = (
    "A page of metrics holds totals: everything below is counted since the server's start, of streams since they were "
    "last forgotten for idleness. What has lately changed can hide in totals of days; what is suspected, ready and "
    "failing is as of this moment. So is what was usual: of a baseline by the hour, this hour's "
    "share of empty answers."
)


@dataclass(frozen=True)
class Scrape:
    """The origin and time of the figures."""

    origin: str
    taken: dt.datetime
    release: str
    running: bool  # else saved


def compose(
    scrape: Scrape, versions: Sequence[Version], elsewhere: Counts, samples: Mapping[Wanted, Sample] | None
) -> str:
    """The page as HTML; `samples` is None where no server was asked for any."""
    judged = [(version, of_version(version)) for version in versions]
    models = ", ".join(sorted({version.model for version in versions})) or "no model"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="generator", content=f"vedette-server {scrape.release}"),
        el("title", f"Vedette: {models}, {_when(scrape.taken)}"),
        el("style", _STYLE.read_text("utf-8")),
    )
    body = el(
        "main",
        _header(scrape),
        _glance(judged) if judged else el("p", "This server serves no model.", class_="why"),
        _elsewhere(elsewhere) if elsewhere else None,
        [sections.article(version, verdict, samples) for version, verdict in judged],
    )
    return document(el("html", head, el("body", body), lang="en"))


def _header(scrape: Scrape) -> Element:
    facts: dict[str, Child] = {
        "Taken": _when(scrape.taken),
        "From": code(scrape.origin),
        "Release": scrape.release or "unknown",
        "Source": "a running server" if scrape.running else "a saved page of metrics",
    }
    listed = [el("div", el("dt", name), el("dd", value)) for name, value in facts.items()]
    return el("header", el("h1", "What the models see"), el("dl", listed), el("p", _TOTALS, class_="soft small"))


def _when(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _glance(judged: Sequence[tuple[Version, Verdict]]) -> Element:
    rows = [
        (
            el("a", version.model, " ", beside(f"version {version.number}"), href=f"#{sections.anchor(version)}"),
            lamp(verdict.light),
            verdict.whys[0].sentence,
            count(version.whole.answers),
            percent(version.whole.share) if version.whole.answers else "",
        )
        for version, verdict in judged
    ]
    glance = table(None, ("Model", "State", "Why", "Answers", "Empty"), rows)
    return el("section", glance, class_="card")


def _elsewhere(counts: Counts) -> Element:
    rows = [(code(reason), count(times)) for reason, times in counts.items()]
    told = table("Requests that named no version that is served.", ("Refused for", "Requests"), rows)
    return el("section", told, class_="card", style="margin-top: 14px")
