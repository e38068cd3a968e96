"""A page of metrics, read back: what a server has counted, and what it has counted since an earlier page."""

import http.client
import ipaddress
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Self

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

_Labels = tuple[tuple[str, str], ...]  # sorted by name
LARGEST_PAGE = 256 * 2**20  # bytes, of a server with a great many series
_PATIENCE_SECONDS = 10.0  # for a server to give its page: as long as Prometheus waits for it
_COUNTING = ("counter", "histogram", "summary")  # types of families
# An exported model's histograms are counters on Triton's page, to whose names the parser adds a suffix.
_OF_TRITON = ("_bucket_total", "_count_total", "_sum_total")


class Page:
    """The samples of one page, by name and labels."""

    def __init__(self, samples: Mapping[str, Mapping[_Labels, float]], gauges: Collection[str] = ()) -> None:
        """`gauges` are names of samples that do not count up, whatever they are called."""
        self._samples = samples
        self._gauges = frozenset(gauges)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a page in Prometheus' text format. Raises `ValueError` for what is no such page."""
        samples: dict[str, dict[_Labels, float]] = {}
        gauges: set[str] = set()
        for family in _families(text):
            for sample in family.samples:
                name = sample.name.removesuffix("_total") if sample.name.endswith(_OF_TRITON) else sample.name
                samples.setdefault(name, {})[tuple(sorted(sample.labels.items()))] = sample.value
                if family.type not in _COUNTING:
                    gauges.add(name)
        return cls(samples, gauges)

    def by(self, name: str, *labels: str, **match: str) -> dict[tuple[str, ...], float]:
        """Sums over the series of a name that match, by the values of `labels`."""
        sums: dict[tuple[str, ...], float] = {}
        for pairs, value in self._samples.get(name, {}).items():
            if _matches(pairs, match):
                given = dict(pairs)
                key = tuple(given.get(label, "") for label in labels)
                sums[key] = sums.get(key, 0.0) + value
        return sums

    def value(self, name: str, **match: str) -> float:
        """The sum over the series of a name that match; 0 for none."""
        return sum(self.by(name, **match).values())

    def since(self, earlier: "Page", **match: str) -> "Page":
        """Return the increase since an earlier page, of matching series on this one. Only for counters.

        Raises `ValueError` if something of it has become less: the server has been started again in between.
        """
        names = [name for name in self._samples if _counts(name) and name not in self._gauges]
        return Page({name: self._differences(name, earlier, match) for name in names})

    def _differences(self, name: str, earlier: "Page", match: Mapping[str, str]) -> dict[_Labels, float]:
        before = earlier._samples.get(name, {})  # noqa: SLF001  of its own kind
        differences = {
            labels: value - before.get(labels, 0.0)
            for labels, value in self._samples[name].items()
            if _matches(labels, match)
        }
        if any(value < 0 for value in differences.values()):
            msg = f"{name} has become less: the server was started again in between"
            raise ValueError(msg)
        return differences

    def __add__(self, other: "Page") -> "Page":
        """The sum of two replicas' pages."""
        names = {*self._samples, *other._samples}
        theirs = other._samples
        added = {name: _added(self._samples.get(name, {}), theirs.get(name, {})) for name in names}
        return Page(added, self._gauges | other._gauges)


def fetch(url: str, token: str | None = None, context: ssl.SSLContext | None = None) -> Page:
    """The page of a running server, by the address of its HTTP port or of the page itself.

    `token` says who reads it, and travels by TLS or on this machine alone. Raises `OSError` for a server that does not
    give it, `ValueError` for what is no address or no page.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        msg = f"{url!r} is no http:// address"
        raise ValueError(msg)
    address = url.rstrip("/").removesuffix("/metrics") + "/metrics"
    headers = {"Accept": "text/plain"}
    if token is not None:
        if not url.startswith("https:") and not is_here(urllib.parse.urlsplit(url).hostname or ""):
            msg = "the token is not sent without TLS, where others could read it: give an https:// address"
            raise ValueError(msg)
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(address, headers=headers)  # noqa: S310  checked above
    # A proxy that the environment names is for others' addresses: this machine's own are not reached through it.
    proxies: dict[str, str] | None = {} if is_here(urllib.parse.urlsplit(url).hostname or "") else None
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context), _Staying()
    )
    try:
        with opener.open(request, timeout=_PATIENCE_SECONDS) as response:
            data: bytes = response.read(LARGEST_PAGE + 1)
            left = response.length  # bytes that were announced; a read of so many does not miss them itself
        if left and len(data) <= LARGEST_PAGE:
            raise http.client.IncompleteRead(data, left)
        if len(data) > LARGEST_PAGE:
            msg = f"it is larger than {LARGEST_PAGE} bytes"
            raise ValueError(msg)
        return Page.parse(data.decode())
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise OSError(getattr(error.reason, "strerror", None) or str(error.reason)) from error
    except http.client.InvalidURL as error:
        raise ValueError(str(error)) from error
    except http.client.HTTPException as error:
        msg = f"the server broke off: {error!r}"
        raise OSError(msg) from error


class _Staying(urllib.request.HTTPRedirectHandler):
    """Follows nobody elsewhere: a token is for the server that was named."""

    def redirect_request(self, *_asked: Any) -> None:  # noqa: ANN401  of urllib's own kinds
        """Take the redirection for the answer, which is none."""


def is_here(host: str) -> bool:
    """Return whether a host is certainly this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _matches(labels: _Labels, match: Mapping[str, str]) -> bool:
    given = dict(labels)
    return all(given.get(label, "") == wanted for label, wanted in match.items())


def _counts(name: str) -> bool:
    """Return whether a sample is a counter, by the suffixes that the formats use."""
    return name.endswith(("_total", "_bucket", "_count", "_sum"))


def _added(one: Mapping[_Labels, float], other: Mapping[_Labels, float]) -> dict[_Labels, float]:
    return {labels: one.get(labels, 0.0) + other.get(labels, 0.0) for labels in {*one, *other}}


def _families(text: str) -> Iterator[Metric]:
    try:
        yield from text_string_to_metric_families(text)
    except ValueError:
        raise
    except Exception as error:  # whatever the parser stumbles over
        msg = f"not a page of metrics: {type(error).__name__}"
        raise ValueError(msg) from error
