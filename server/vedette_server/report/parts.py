"""Small parts of the page that several sections are made of."""

from vedette_server.report.elements import Child, Element, el
from vedette_server.report.verdict import UNNAMED_SOURCES, Light

_LAMPS = {  # told apart by shape too
    Light.OK: el("circle", cx=7, cy=7, r=6),
    Light.IDLE: el("rect", x=1, y=6, width=12, height=3),
    Light.ATTENTION: el("path", d="M7 1 13.5 13H.5Z"),
    Light.SILENCED: el("path", d="M4.2 0h5.6L14 4.2v5.6L9.8 14H4.2L0 9.8V4.2Z"),
}


def lamp(light: Light) -> Element:
    """The traffic light."""
    shape = el("svg", _LAMPS[light], viewBox="0 0 14 14", aria_hidden="true")
    return el("span", shape, light.word, class_=f"light {light.word}")


def card(title: str, *content: Child, wide: bool = False) -> Element:
    """A titled box."""
    return el("section", el("h3", title), *content, class_="card wide" if wide else "card")


def code(name: str) -> Element:
    """A constant, or what someone has named, which may not turn the text around it."""
    return el("bdi", name, class_="code")


def source(name: str) -> Element:
    """A source of images by its name, or by what it stands for."""
    return el("em", UNNAMED_SOURCES[name]) if name in UNNAMED_SOURCES else el("bdi", name, class_="code name")


def beside(*content: Child) -> Element:
    """Elements that stay on one line."""
    return el("span", *content, class_="beside")


def count(times: float) -> str:
    """A count, its thousands apart."""
    return f"{times:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def seconds(duration: float) -> str:
    """A duration as people say it."""
    shown = f"{duration:.2f} s" if duration >= 1 else f"{duration * 1000:.3g} ms"
    return shown.replace(" ", "\N{NO-BREAK SPACE}")


def keys(**names: str) -> Element:
    """The legend of the colours."""
    shown = [
        el("span", el("svg", el("rect", width=18, height=10, class_=colour), class_="key", aria_hidden="true"), words)
        for colour, words in names.items()
    ]
    return el("div", shown, class_="keys")
