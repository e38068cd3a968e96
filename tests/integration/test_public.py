"""Whatever a caller gives to whatever is public: it works, or what is wrong is named.

What is public is found by looking, so that nothing new is forgotten; all of it is called against a real server.
"""

import asyncio
import dataclasses
import datetime as dt
import decimal
import fractions
import inspect
import io
import math
import traceback
import types
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import vedette_client
from PIL import Image
from vedette_client import AsyncClient, Client, Failed, Frame, LocalError, Reconfigure, ServerError, VedetteError

from tests.support import running

PUBLIC = """
    Answered Ask AsyncClient Candidate ChannelOrder Client Contract DeadlineExceeded Detection Diagnosis Dropped
    Empty Event Failed FieldViolation File Finding Frame ImageLike InternalError InvalidRequest Keypoint
    LoadBalancing LocalError Mask MaskFormat Model NoConnection NotFound NotPermitted NotServed Options
    Orientation OutputKind Overloaded Panoptic PixelFormat Policy Priority Raw Reconfigure Result RotatedBox
    Segment Sendable ServerError StageCounts StreamAsk Tensor TensorLayout Timings Tls Unauthenticated
    Unavailable ValueRange VedetteError YuvMatrix YuvRange
"""
WRONG: dict[str, Any] = {
    "None": None,
    "an object": object(),
    "a class": int,
    "a function": len,
    "1": 1,
    "0": 0,
    "-1": -1,
    "2**31": 2**31,
    "2**63": 2**63,
    "10**5000": 10**5000,
    "1.5": 1.5,
    "1.0": 1.0,
    "NaN": math.nan,
    "inf": math.inf,
    "True": True,
    "a decimal": decimal.Decimal("0.5"),
    "a fraction": fractions.Fraction(1, 2),
    "a complex number": 1j,
    "an empty string": "",
    "a string": "x",
    "a string of digits": "1",
    "a string with NUL": "a\0b",
    "half a character": "\udc80",
    "no bytes": b"",
    "bytes with NUL": b"\0\0",
    "a buffer": bytearray(b"\1\2"),
    "a view of numbers": np.zeros((2, 2)).data,
    "an empty list": [],
    "a list": ["x", 1.0],
    "a nested list": [[[0.0]]],
    "a dictionary": {},
    "a set": {1.5},
    "an iterator": iter(()),
    "a path": Path("no/where"),
    "a date": dt.date(2020, 1, 1),
    "NumPy's 0.5": np.float16(0.5),
    "NumPy's 1": np.int8(1),
    "NumPy's True": np.bool_(True),  # noqa: FBT003  the value is the point
    "NumPy's NaT": np.datetime64("NaT"),
    "NumPy's duration": np.timedelta64(1, "s"),
    "an array of nothing": np.zeros(0),
    "an array of one": np.array(1),
    "an array of floats": np.zeros((2, 2)),
    "an array of complex numbers": np.zeros((2, 2, 3), complex),
    "an array of strings": np.array(["x"]),
    "an array of objects": np.array([None]),
    "an array of truth": np.array([True, False]),
    "a structured array": np.zeros(2, [("r", "u1"), ("x", "f8")]),
    "an image without pixels": Image.new("RGB", (0, 0)),
    "an open file": io.BytesIO(b"x"),
    "an error": ValueError("x"),
}
PNG = cv2.imencode(".png", np.full((16, 20, 3), 120, np.uint8))[1].tobytes()
FRAMES = [PNG, Frame(PNG), Reconfigure({"threshold": 0.5}), PNG]

# How what is public is called; what has required parameters and is not here fails the test.
CALLS: dict[str, dict[str, Any]] = {
    "Client": {},
    "AsyncClient": {},
    "detect": {"image": PNG},
    "stream": {"frames": FRAMES, "policy": "LOSSLESS"},
    "diagnose": {"stream_id": "nobody"},
    "to_coco": {"image_id": 1},
    "File": {"source": PNG},
    "Raw": {"data": bytes(16 * 20 * 3), "pixel_format": "RGB8", "height": 16, "width": 20},
    "Tensor": {
        "values": np.full((16, 20, 3), 9.0),
        "channel_order": "RGB",
        "layout": "HWC",
        "value_range": "0-255",
    },
    "Frame": {"image": PNG},
    "Reconfigure": {"ask": {"threshold": 0.5}},
}
GIVEN = ("File", "Raw", "Tensor", "Frame", "Reconfigure")  # what callers make, and is sent; the rest is answered with


def public() -> dict[str, Any]:
    return {name: getattr(vedette_client, name) for name in vedette_client.__all__}


def classes() -> dict[str, type]:
    return {name: one for name, one in public().items() if isinstance(one, type) and not typing.is_typeddict(one)}


def methods(kind: type) -> dict[str, Callable[..., Any]]:
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: one for name, one in found if not name.startswith("_")}


def parameters(function: Callable[..., Any]) -> list[str]:
    """Their names, those of the options too."""
    names: list[str] = []
    for name, one in inspect.signature(function).parameters.items():
        if one.kind is one.VAR_KEYWORD:
            names += typing.get_args(one.annotation)[0].__annotations__
        elif name != "self":
            names.append(name)
    return names


def test_the_public_names_are_these() -> None:
    """A name that goes, and one that comes, is seen here."""
    assert vedette_client.__all__ == sorted(PUBLIC.split())
    found = {name for name, one in vars(vedette_client).items() if not isinstance(one, types.ModuleType)}
    assert {name for name in found if not name.startswith("_")} == set(PUBLIC.split())


def test_what_is_public_is_documented() -> None:
    for kind in classes().values():
        assert kind.__doc__
        assert all(one.__doc__ for one in methods(kind).values())


def check(error: BaseException, name: str) -> None:
    """Only our own errors, and those of Python's that we raise; each with the name of what is wrong."""
    if isinstance(error, ServerError):
        assert error.reason, f"{error!r} tells nothing of {name}"
        return
    assert isinstance(error, LocalError | TypeError | ValueError), f"{error!r} about {name}"
    for where in traceback.extract_tb(error.__traceback__)[-1:]:
        assert "vedette_client" in where.filename or where.filename == __file__, f"{error!r} comes from {where}"
    told = str(error)
    assert name in told or (name == "frames" and "image" in told), f"{told!r} does not name {name}"
    assert len(told) < 1000


class Sync:
    """Calls as those do who wait."""

    def __init__(self, address: str) -> None:
        self._client = Client(address, timeout=60)

    def __call__(self, method: str, **given: Any) -> list[BaseException]:
        """The errors."""
        try:
            answered = getattr(self._client, method)(**given)
            events = list(answered) if method == "stream" else []
        except Exception as error:  # noqa: BLE001  looked at
            return [error]
        return [event.error for event in events if isinstance(event, Failed)]

    def close(self) -> None:
        self._client.close()


class Async:
    """The same of those who await."""

    def __init__(self, address: str) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(address, timeout=60)

    def __call__(self, method: str, **given: Any) -> list[BaseException]:
        return self._runner.run(self._call(method, given))

    async def _call(self, method: str, given: dict[str, Any]) -> list[BaseException]:
        try:
            if method != "stream":
                await getattr(self._client, method)(**given)
                return []
            return [event.error async for event in self._client.stream(**given) if isinstance(event, Failed)]
        except Exception as error:  # noqa: BLE001  looked at
            if "Internal error from Core" in str(error):  # gRPC's for a call that ended while it was written to
                return await self._call(method, given)
            return [error]

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(scope="module", params=[Sync, Async])
def call(request: pytest.FixtureRequest, bundled: running.Server) -> Iterator[Sync | Async]:
    caller = request.param(bundled.address)
    yield caller
    caller.close()


def called(method: str, function: Callable[..., Any]) -> dict[str, Any]:
    """The correct arguments of a method."""
    required = {
        name
        for name, one in inspect.signature(function).parameters.items()
        if one.default is one.empty and one.kind is not one.VAR_KEYWORD and name != "self"
    }
    given = CALLS.get(method, {})
    assert required <= set(given), f"say in CALLS how {method} is called"
    return given


ASKED = [
    pytest.param(method, name, id=f"{method}({name})")
    for method, function in methods(Client).items()
    for name in parameters(function)
]


def test_both_clients_are_called_alike() -> None:
    sync, awaited = methods(Client), methods(AsyncClient)
    assert list(sync) == list(awaited)
    assert [parameters(one) for one in sync.values()] == [parameters(one) for one in awaited.values()]


@pytest.mark.parametrize(("method", "name"), ASKED)
def test_a_wrong_argument_is_named(call: Sync | Async, method: str, name: str) -> None:
    given = called(method, getattr(Client, method))
    for value in WRONG.values():
        for error in call(method, **{**given, name: value}):
            check(error, name)


@pytest.mark.parametrize("method", [name for name in methods(Client) if name != "close"])
def test_what_is_right_works(call: Sync | Async, method: str) -> None:
    errors = call(method, **called(method, getattr(Client, method)))
    assert [getattr(error, "reason", error) for error in errors] == (["SAMPLE_MISSING"] if method == "diagnose" else [])


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_wrong_argument_of_a_client_is_named(kind: type) -> None:
    for name in parameters(kind):
        for value in WRONG.values():
            try:
                kind(**{name: value})
            except (LocalError, TypeError, ValueError) as error:
                check(error, name)


SENT = [pytest.param(kind, name, id=f"{kind}({name})") for kind in GIVEN for name in parameters(classes()[kind])]


@pytest.mark.parametrize(("kind", "name"), SENT)
def test_a_wrong_field_is_named(call: Sync | Async, kind: str, name: str) -> None:
    make = getattr(vedette_client, kind)
    for value in WRONG.values():
        try:
            made = make(**{**CALLS[kind], name: value})
        except (LocalError, TypeError, ValueError) as error:
            check(error, name)
            continue
        if kind in ("Frame", "Reconfigure"):
            errors = call("stream", frames=[made, PNG] if kind == "Reconfigure" else [made], policy="LOSSLESS")
        else:
            errors = call("detect", image=made)
        for told in errors:
            check(told, name)


@pytest.mark.parametrize("name", vedette_client.Options.__annotations__)
def test_what_is_asked_anew_is_named(call: Sync | Async, name: str) -> None:
    for value in WRONG.values():
        try:
            made = Reconfigure({name: value})  # type: ignore[misc]
        except (LocalError, TypeError, ValueError) as error:
            check(error, name)
        else:
            for told in call("stream", frames=[made, PNG], policy="LOSSLESS"):
                check(told, name)


@pytest.mark.parametrize("kind", classes())
def test_every_class_is_sent_or_answered_with(kind: str) -> None:
    """And what is answered with is made of anything: nobody but this package makes it."""
    one = classes()[kind]
    if kind in (*GIVEN, "Tls") or issubclass(one, Client | AsyncClient | VedetteError):
        return
    assert dataclasses.is_dataclass(one) or issubclass(one, tuple), f"say how {kind} is tested"
    for value in WRONG.values():
        one(**dict.fromkeys(parameters(one), value))
    for method, function in methods(one).items():
        assert not parameters(function) or method == "to_coco", f"say how {kind}.{method} is tested"


@pytest.mark.parametrize("name", parameters(vedette_client.Tls))
def test_a_wrong_file_of_a_connection_is_named(name: str) -> None:
    for value in WRONG.values():
        beside = {"cert": {"key": None}, "key": {"cert": None}}.get(name, {})
        for others in (beside, dict.fromkeys(beside, __file__)):
            try:
                Client("grpcs://vedette.test", tls=vedette_client.Tls(**{**others, name: value}))
            except (LocalError, TypeError, ValueError) as error:
                check(error, name)
            else:
                assert value is None


def test_a_wrong_image_id_is_named(bundled: running.Server) -> None:
    with Client(bundled.address) as client:
        result = client.detect(PNG)
    for value in WRONG.values():
        try:
            result.to_coco(value)
        except (LocalError, TypeError, ValueError) as error:
            check(error, "image_id")


def misspelt(name: str) -> str:
    return name[:-2] + name[:-3:-1] if name[-1:] != name[-2:-1] and len(name) > 1 else name + name[-1]


def test_a_misspelt_name_is_an_error_that_names_the_right_one(call: Sync | Async) -> None:
    for method, function in methods(Client).items():
        names = parameters(function)
        for name in names:
            given = {**called(method, function), misspelt(name): 1}
            (error,) = call(method, **given)
            assert isinstance(error, TypeError)
            assert repr(misspelt(name)) in str(error)
            assert repr(name) in str(error)
        if not names:
            (error,) = call(method, treshold=1)
            assert isinstance(error, TypeError)
            assert "'treshold'" in str(error)


@pytest.mark.parametrize("kind", [name for name, one in classes().items() if one is not VedetteError])
def test_a_misspelt_field_is_an_error(kind: str) -> None:
    one = classes()[kind]
    for name in parameters(one):
        given = {**CALLS.get(kind, {}), misspelt(name): 1}
        with pytest.raises(TypeError, match=f"'{misspelt(name)}'") as caught:
            one(**given)
        if kind in (*GIVEN, "Client", "AsyncClient"):
            assert repr(name) in str(caught.value)


@pytest.mark.parametrize("wrong", ["score_threshold", "treshold", "Threshold", "class_names", "timeout", "n" * 99, "é"])
def test_an_unknown_option_is_an_error_wherever_it_is_given(call: Sync | Async, wrong: str) -> None:
    for method in ("detect", "stream", "diagnose"):
        (error,) = call(method, **CALLS[method], **{wrong: 0.5})
        assert isinstance(error, TypeError)
        assert wrong in str(error)
    with pytest.raises(TypeError, match=wrong):
        Reconfigure({wrong: 0.5})  # type: ignore[misc]


@pytest.mark.parametrize("name", ["model", "version", "priority"])
def test_what_cannot_change_within_a_stream_is_not_taken_for_changed(name: str) -> None:
    with pytest.raises(LocalError, match=f"{name} cannot change"):
        Reconfigure({name: "HIGH"})  # type: ignore[misc]


async def test_a_client_that_was_closed_says_so(bundled: running.Server) -> None:
    client, awaited = Client(bundled.address), AsyncClient(bundled.address)
    assert client.healthy()
    assert await awaited.healthy()
    unused = AsyncClient(bundled.address)
    for _ in range(2):
        client.close()
        await awaited.close()
        await unused.close()
    for method, function in methods(Client).items():
        if method in ("close", "stream"):
            continue
        with pytest.raises(LocalError, match="closed"):
            getattr(client, method)(**called(method, function))
        for other in (awaited, unused):
            with pytest.raises(LocalError, match="closed"):
                await getattr(other, method)(**called(method, function))
    closed: tuple[Any, ...] = (client, awaited, unused)
    for one in closed:
        with pytest.raises(LocalError, match="closed"):
            one.stream(FRAMES, policy="LOSSLESS")


async def test_a_client_that_is_closed_during_a_stream_says_so(bundled: running.Server) -> None:
    def frames() -> Iterator[bytes]:
        while True:
            yield PNG

    client = Client(bundled.address)
    events = client.stream(frames(), policy="LOSSLESS")
    next(events)
    client.close()
    with pytest.raises(LocalError, match="closed"):
        list(events)

    async def awaited_frames() -> AsyncIterator[bytes]:
        while True:
            yield PNG

    awaited = AsyncClient(bundled.address)
    told = awaited.stream(awaited_frames(), policy="LOSSLESS")
    await anext(told)
    await awaited.close()
    with pytest.raises(LocalError, match="closed"):
        async for _ in told:
            pass


def test_an_asynchronous_client_belongs_to_one_loop(bundled: running.Server) -> None:
    client = AsyncClient(bundled.address)
    asyncio.run(client.healthy())
    with pytest.raises(LocalError, match="event loop"):
        asyncio.run(client.healthy())
