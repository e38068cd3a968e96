"""Every integration test ends with the invariants intact of all engines that it has run in its own process.

Servers that run as users start them check their own, and `running.server` reads what they have logged.
"""

from collections.abc import Iterator

import pytest

from tests.support import invariants


@pytest.fixture(autouse=True)
def invariants_hold() -> Iterator[None]:
    invariants.broken.clear()
    yield
    assert not invariants.broken
