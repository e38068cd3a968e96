"""Charts as inline SVG. Their colours come from the page's style, by class, so that they follow light and dark."""

import math
from collections.abc import Sequence

from vedette_server.report.elements import Element, el

_CHART = (460, 210, 34, 12, 26)  # width, height, and what is left of the plot, above and below it
_BAND = (120, 16)
_BAR = (120, 12)
_FASTEST, _SLOWEST = 0.001, 30.0  # seconds


def _svg(said: str, width: float, height: float, *drawn: Element | list[Element], class_: str = "chart") -> Element:
    title = el("title", said)
    box = f"0 0 {width:g} {height:g}"
    return el("svg", title, *drawn, viewBox=box, width=width, height=height, role="img", aria_label=said, class_=class_)


def bars(said: str, *shares: tuple[float, str]) -> Element:
    """Bars of these shares of the width, each with its class, one below the other."""
    width, height = _BAR[0], _BAR[1] / len(shares)
    drawn = [
        el(
            "rect",
            x=0,
            y=index * height,
            width=max(width * share, 0.75 if share else 0),
            height=height - 1,
            class_=colour,
        )
        for index, (share, colour) in enumerate(shares)
    ]
    return _svg(said, *_BAR, drawn, class_="bar")


def band(said: str, value: float, low: float | None, high: float | None, *, out: bool) -> Element:
    """Draw a share beside its band in the healthy period."""
    width, height = _BAND
    drawn = [el("rect", x=0, y=6, width=width, height=4, class_="track")]
    if low is not None and high is not None:
        drawn.append(el("rect", x=width * low, y=3, width=max(width * (high - low), 1), height=10, class_="within"))
    at = min(max(width * value, 2), width - 2)
    drawn.append(el("rect", x=at - 2, y=0, width=4, height=height, class_="out" if out else "now"))
    return _svg(said, width, height, drawn, class_="bar")


def cumulative(
    said: str,
    edges: Sequence[float],
    now: Sequence[float],
    usual: Sequence[float] | None = None,
    *,
    gap: int | None = None,
    threshold: float | None = None,
) -> Element:
    """Shares at or below each edge, now and when all was well; `gap` is the index of the edge where they differ most.

    Edges are evenly spaced; the lines between them are interpolated.
    """
    width, height, left, top, below = _CHART
    across, down = (width - left - 8) / len(edges), height - top - below

    def y(share: float) -> float:
        return top + down * (1 - share)

    def line(shares: Sequence[float], colour: str) -> Element:
        points = [f"L{left + across * (index + 1):.1f} {y(share):.1f}" for index, share in enumerate(shares)]
        return el("path", d=f"M{left} {y(0):.1f}" + "".join(points), class_=f"line {colour}")

    drawn = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        drawn.append(el("path", d=f"M{left} {y(share):.1f}H{width - 8}", class_="grid"))
        drawn.append(el("text", f"{100 * share:.0f} %", x=left - 4, y=y(share) + 3, class_="end"))
    for index, edge in enumerate(edges):
        drawn.append(
            el("text", f"{edge:g}".removeprefix("0"), x=left + across * (index + 1), y=height - 10, class_="middle")
        )
    if threshold:
        x = left + across * _place(threshold, edges)
        drawn.append(el("path", d=f"M{x:.1f} {top}V{height - below}", class_="line threshold"))
        drawn.append(el("text", "threshold", x=x - 4, y=top + 9, class_="end"))
    if usual is not None:
        drawn.append(line(usual, "usual"))
    drawn.append(line(now, "now"))
    if gap is not None and usual is not None:
        x = left + across * (gap + 1)
        drawn.append(el("path", d=f"M{x:.1f} {y(now[gap]):.1f}V{y(usual[gap]):.1f}", class_="line gap"))
    return _svg(said, width, height, drawn)


def _place(value: float, edges: Sequence[float]) -> float:
    """Return the position of a value among evenly spaced edges, the first of them at 1."""
    low = 0.0
    for index, edge in enumerate(edges):
        if value <= edge:
            return index + (value - low) / (edge - low)
        low = edge
    return float(len(edges))


def spread(said: str, quantiles: tuple[float, float, float]) -> Element:
    """Seconds, in decades: the median, and how far 90 % and 99 % reach."""
    width, height = _BAND

    def x(seconds: float) -> float:
        share = math.log(max(seconds, _FASTEST) / _FASTEST) / math.log(_SLOWEST / _FASTEST)
        return 2 + (width - 4) * min(share, 1.0)

    middle, most, nearly_all = map(x, quantiles)
    drawn = [
        el("rect", x=0, y=6, width=width, height=4, class_="track"),
        el("rect", x=middle, y=6, width=max(nearly_all - middle, 1), height=4, class_="usual"),
        el("rect", x=middle, y=3, width=max(most - middle, 1), height=10, class_="now"),
    ]
    return _svg(said, width, height, drawn, class_="bar")
