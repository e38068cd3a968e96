"""The invariants of what engines have admitted: every engine of a test collects what breaks them here."""

from collections.abc import Sequence

broken: list[str] = []


def note(found: Sequence[str]) -> None:
    """Take note of what an engine has found broken: its `PoolSettings.violated`."""
    broken.extend(found)
