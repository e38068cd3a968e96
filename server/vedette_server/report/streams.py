"""The table of sources: each stream, and the images that come one by one, the worst first."""

from vedette_server.alerts.inputs import INPUTS
from vedette_server.report import charts
from vedette_server.report.elements import Element, el, table
from vedette_server.report.facts import Source, Version
from vedette_server.report.parts import beside, card, code, count, keys, lamp, source
from vedette_server.report.verdict import beyond, of_source, outside, percent

_MOST = 50  # rows
_DIGITS = {"levels": (0, ""), "decibels": (0, " dB"), "ratio": (2, "")}  # behind the point, and what follows them


def card_of(version: Version) -> Element:
    """The table, with what it shows of how many."""
    judged = sorted(
        ((one, of_source(one)) for one in version.sources),
        key=lambda pair: (-pair[1].light, -pair[0].empty, pair[0].name),
    )
    rows = []
    for one, verdict in judged[:_MOST]:
        rows.append(
            (
                source(one.name),
                lamp(verdict.light),
                count(one.answers),
                _empty(one),
                code(one.leading) if one.leading else "",
                [code(cause) for cause in one.suspected],
                *(_input(one, statistic) for statistic in INPUTS),
            )
        )
    bounded = any(one.limits for one in version.sources)
    caption = "Input statistics are means, in grey levels, decibels, and red over red and blue."
    if bounded:
        caption += " Below each is between what it lay when all was well."
    if len(judged) > _MOST:
        caption += f" The {_MOST} worst of {len(judged)} are shown."
    head = ("Source", "State", "Answers", "Empty", "Leading reason", "Suspected cause", *map(str.capitalize, INPUTS))
    legend = keys(now="share of empty answers", within="where it was when all was well") if bounded else None
    return card("Streams and single images", legend, table(caption, head, rows), wide=True)


def _empty(one: Source) -> list[Element]:
    if not one.answers:
        return []
    limit = one.limits.get("empty")
    low, high = (limit.low, limit.high) if limit else (None, None)
    said = f"{percent(one.share)} empty"
    if low is not None and high is not None:
        said += f", usual {percent(low)} to {percent(high)}"
    out = limit is not None and beyond(one)
    return [beside(percent(one.share)), el("br"), charts.band(said, one.share, low, high, out=out)]


def _input(one: Source, statistic: str) -> list[Element | str]:
    if statistic not in one.inputs:
        return []
    value, limit = one.inputs[statistic], one.limits.get(statistic)
    digits, unit = _DIGITS[INPUTS[statistic].unit]
    shown = f"{value:.{digits}f}{unit}"
    if limit is None or limit.low is None or limit.high is None:
        return [beside(shown)]
    side = outside(one, statistic)
    mark = el("span", shown, class_="outside", title=f"{side} what was usual") if side else shown
    usual = f"{limit.low:.{digits}f} to {limit.high:.{digits}f}"
    return [beside(mark), el("br"), el("span", usual, class_="beside soft small")]
