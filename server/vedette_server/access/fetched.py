"""Public keys at an address: fetched beside the calls, and kept while the address cannot be reached."""

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

KIND = "jwks"  # what the log and the metrics call it, as they do a file of keys
LARGEST = 256 * 1024  # bytes of an answer
FETCH_SECONDS = 10.0  # for an answer to come whole
EVERY_SECONDS = 300.0  # between two fetches
LEAST_SECONDS = 10.0  # the same after one that failed, or when a key is missed: who calls cannot make it more


def check(url: str) -> None:
    """Raise `ValueError` for an address that keys are not fetched from."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        msg = f"jwks {url!r} is neither a file nor an address such as https://issuer.example/keys"
    elif parts.username is not None or parts.password is not None or parts.fragment:
        msg = "the address of jwks holds a name, a password or a fragment: it is to be public"
    elif parts.scheme == "http" and not _is_loopback(parts.hostname):
        msg = f"jwks {url!r} is without TLS: whoever is on the way could put in a key of its own. Give https://"
    else:
        return
    raise ValueError(msg)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Fetched:
    """What an address says, as `Kept` is what files say. There is a first answer, or nobody's keys, until then."""

    def __init__(self, url: str, nobody: Issuer, read: Callable[[str], Issuer], told: Told) -> None:
        """`nobody` has no keys; `read` makes an issuer of an answer, and raises `AccessError`."""
        self._url = url
        self._value = nobody
        self._read = read
        self._told = told
        self._text = ""  # of the last answer that was taken
        self._failure = ""  # that was told last
        self._wanted = asyncio.Event()
        self._trusted = ssl.create_default_context()
        self.edition = 0  # another number whenever it says something else
        self.stale = True  # the last fetch has failed, or there was none

    def get(self) -> Issuer:
        """What it says, or has said when it could last be reached."""
        return self._value

    def reload(self) -> None:
        """Fetch it soon."""
        self._wanted.set()

    async def follow(self) -> None:
        """Fetch it again and again, until cancelled."""
        while True:
            await asyncio.sleep(LEAST_SECONDS)
            if not self.stale:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wanted.wait(), EVERY_SECONDS - LEAST_SECONDS)
            self._wanted.clear()
            await self.fetch()

    async def fetch(self) -> None:
        """Fetch it once. What fails leaves what was there before, and is told."""
        try:
            text = await self._answer()
            if text != self._text:
                self._value = await asyncio.to_thread(self._read, text)
        except (aiohttp.ClientError, AccessError, OSError, ValueError) as error:
            self._failed(str(error) or type(error).__name__)
            return
        if self.stale or text != self._text:
            log.info("reloaded", file=KIND)
            self._told(KIND, True)  # noqa: FBT003  as files tell it
        self.edition += text != self._text
        self._text, self._failure, self.stale = text, "", False

    def _failed(self, why: str) -> None:
        if why != self._failure:  # said once
            log.error("reload_refused", file=KIND, error=why)
        self._failure, self.stale = why, True
        self._told(KIND, False)  # noqa: FBT003  as files tell it

    async def _answer(self) -> str:
        """The body of its answer. Raises `AccessError`, `aiohttp.ClientError`, `OSError`, `UnicodeDecodeError`."""
        data = bytearray()
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(FETCH_SECONDS), auto_decompress=False) as session,
            # Where it would lead to was not named by the operator.
            session.get(self._url, ssl=self._trusted, allow_redirects=False) as response,
        ):
            if response.status != 200:
                msg = f"{self._url} answers with status {response.status}"
                raise AccessError(msg)
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > LARGEST:
                    msg = f"{self._url} answers with more than {LARGEST} bytes"
                    raise AccessError(msg)
        return data.decode()
