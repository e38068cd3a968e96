"""Each caller's use of its limits: open streams, and requests in the last second."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from vedette_server.access.policy import Rule
from vedette_server.contract.refusal import Reason, Refused

_MOST_IDLE = 10_000  # accounts, beyond which unused ones are dropped


@dataclass
class _Account:
    """One caller's use under one rule."""

    left: float  # requests that it may send at once
    since: float  # time for which `left` holds
    streams: int = 0


class Quotas:
    """Counters by caller and rule."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[tuple[str, Rule], _Account] = {}
        self._swept = clock()

    def request(self, who: str, key: str, rule: Rule) -> None:
        """Count a request. Raises `Refused`: RATE_EXCEEDED."""
        if rule.rate is None:
            return
        account, now, most = self._account(key, rule), self._clock(), max(rule.rate, 1.0)
        account.left = min(most, account.left + (now - account.since) * rule.rate)
        account.since = now
        if account.left < 1.0:
            wait = (1.0 - account.left) / rule.rate
            raise Refused(Reason.RATE_EXCEEDED, who=who, rate=f"{rule.rate:g}", retry_seconds=round(wait, 3))
        account.left -= 1.0

    def open(self, who: str, key: str, rule: Rule) -> None:
        """Count a stream as open until `close`. Raises `Refused`: STREAMS_EXCEEDED."""
        account = self._account(key, rule)
        if rule.max_streams is not None and account.streams >= rule.max_streams:
            raise Refused(Reason.STREAMS_EXCEEDED, who=who, most=rule.max_streams)
        account.streams += 1

    def close(self, key: str, rule: Rule) -> None:
        """Count a stream as closed."""
        self._account(key, rule).streams -= 1

    def _account(self, key: str, rule: Rule) -> _Account:
        now = self._clock()
        if len(self._accounts) > _MOST_IDLE and now > self._swept + 1.0:
            self._swept = now
            self._accounts = {
                of: one for of, one in self._accounts.items() if one.streams or not _full(one, of[1], now)
            }
        return self._accounts.setdefault((key, rule), _Account(max(rule.rate or 1.0, 1.0), now))


def _full(account: _Account, rule: Rule, now: float) -> bool:
    """Return whether an account equals a new one."""
    rate = rule.rate or 1.0
    return account.left + (now - account.since) * rate >= max(rate, 1.0)
