"""Types of options: finite numbers, and text that can be sent."""

import math
from collections.abc import Sequence
from typing import Any

import click

MOST = 2**31 - 1  # the largest integer in a message


class Number(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click
    """A finite number; `above` is an exclusive lower limit."""

    name = "number"

    def __init__(self, *, above: float | None = None, most: float | None = None) -> None:
        self._above = above
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401  click's own signature
        """Convert text to a number."""
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number.", param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        if self._above is not None and number <= self._above:
            self.fail(f"{value!r} is not above {self._above:g}.", param, ctx)
        if self._most is not None and number > self._most:
            self.fail(f"{value!r} is above {self._most:g}.", param, ctx)
        return number


class Words(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click
    """Text that can be sent: valid UTF-8."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401  click's own signature
        """Return the text itself."""
        given = str(value)
        try:
            given.encode()
        except UnicodeEncodeError:
            self.fail(f"{given!r} is not UTF-8.", param, ctx)
        return given


class Module(Words):
    """The name of a Python module."""

    name = "module"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401  click's own signature
        """Return the name itself."""
        given = super().convert(value, param, ctx)
        if not all(part.isidentifier() for part in given.split(".")):
            self.fail(f"{given!r} is not the name of a module, such as project.heads.", param, ctx)
        return given


class Listed(Words):
    """Several items, separated by commas."""

    def __init__(self, among: Sequence[str] = ()) -> None:
        self._among = among

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401  click's own signature
        """Split the items, without surrounding spaces."""
        if isinstance(value, tuple):
            return value
        found = tuple(word.strip() for word in super().convert(value, param, ctx).split(","))
        if not all(found):
            self.fail(f"{value!r} contains an empty name.", param, ctx)
        if strangers := [word for word in found if self._among and word not in self._among]:
            self.fail(f"{', '.join(map(repr, strangers))}: not among {', '.join(self._among)}.", param, ctx)
        return found
