"""Public keys from a URL: fetched in the background, and kept while it is unreachable."""

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

import aiohttp
import structlog

from vedette_server.access.files import AccessError, Told
from vedette_server.access.jwts import Issuer

log = structlog.get_logger()

KIND = "jwks"  # name in log and metrics, shared with key files
LARGEST = 256 * 1024  # bytes of a response
FETCH_SECONDS = 10.0  # for a complete response
EVERY_SECONDS = 300.0  # between fetches
LEAST_SECONDS = 10.0  # minimum between fetches after a failure or an unknown key, so that callers cannot cause more


def check(url: str) -> None:
    """Raise `ValueError` for a URL from which keys must not be fetched."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        msg = f"jwks {url!r} is neither a file nor an address such as https://issuer.example/keys"
    elif parts.username is not None or parts.password is not None or parts.fragment:
        msg = "the address of jwks contains a name, a password or a fragment: it must be public"
    elif parts.scheme == "http" and not _is_loopback(parts.hostname):
        msg = f"jwks {url!r} is without TLS: anyone on the network path could insert a key. Use https://"
    else:
        return
    raise ValueError(msg)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Fetched:
    """A URL's content, the counterpart of `Kept` for files. Until the first response, there are no keys."""

    def __init__(self, url: str, nobody: Issuer, read: Callable[[str], Issuer], told: Told) -> None:
        """`nobody` has no keys; `read` parses a response into an issuer, and raises `AccessError`."""
        self._url = url
        self._value = nobody
        self._read = read
        self._told = told
        self._text = ""  # of the last accepted response
        self._failure = ""  # last logged failure
        self._wanted = asyncio.Event()
        self._trusted = ssl.create_default_context()
        self.edition = 0  # increases whenever the content changes
        self.stale = True  # the last fetch failed, or there was none yet

    def get(self) -> Issuer:
        """Return the current issuer, or the last one while the URL is unreachable."""
        return self._value

    def reload(self) -> None:
        """Fetch soon."""
        self._wanted.set()

    async def follow(self) -> None:
        """Fetch periodically, until cancelled."""
        while True:
            await asyncio.sleep(LEAST_SECONDS)
            if not self.stale:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wanted.wait(), EVERY_SECONDS - LEAST_SECONDS)
            self._wanted.clear()
            await self.fetch()

    async def fetch(self) -> None:
        """Fetch once. A failure is logged, and the previous keys remain."""
        try:
            text = await self._answer()
            if text != self._text:
                self._value = await asyncio.to_thread(self._read, text)
        except (aiohttp.ClientError, AccessError, OSError, ValueError) as error:
            self._failed(str(error) or type(error).__name__)
            return
        if self.stale or text != self._text:
            log.info("reloaded", file=KIND)
            self._told(KIND, True)  # noqa: FBT003  the same as for files
        self.edition += text != self._text
        self._text, self._failure, self.stale = text, "", False

    def _failed(self, why: str) -> None:
        if why != self._failure:  # logged once
            log.error("reload_refused", file=KIND, error=why)
        self._failure, self.stale = why, True
        self._told(KIND, False)  # noqa: FBT003  the same as for files

    async def _answer(self) -> str:
        """Return the body of the response.

        Raises `AccessError`, `aiohttp.ClientError`, `OSError`, `UnicodeDecodeError`.
        """
        data = bytearray()
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(FETCH_SECONDS), auto_decompress=False) as session,
            # The operator did not name a redirect's target.
            session.get(self._url, ssl=self._trusted, allow_redirects=False) as response,
        ):
            if response.status != 200:
                msg = f"{self._url} responded with status {response.status}"
                raise AccessError(msg)
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > LARGEST:
                    msg = f"{self._url} responded with more than {LARGEST} bytes"
                    raise AccessError(msg)
        return data.decode()
