"""A policy holds for the Open Inference Protocol over gRPC and over HTTP, with TLS and without."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import tritonclient.grpc as triton
from vedette_server.access.access import AccessSources
from vedette_server.contract.refusal import Reason
from vedette_server.rpc.errors import TABLE

from tests.support import rest
from tests.support.authority import Authority
from tests.support.guarded import Guarded, Models, Tokens, reason_of
from tests.support.open_inference import sent

PIXELS = np.zeros((10, 10, 3), np.uint8)
DECLARED = {"pixel_format": "BGR8"}
POLICY = """
[[rules]]
who = ["token:viewer"]
may = ["describe"]
models = ["cars"]
[[rules]]
who = ["token:gate"]
may = ["detect"]
rate = 3
"""


class OverGrpc:
    """Triton's client; each call returns OK, or the reason of the refusal."""

    describing = ("get_model_metadata", "get_model_config", "is_model_ready", "get_inference_statistics")

    def __init__(self, at: Guarded, shown: Mapping[str, str], authority: Authority | None) -> None:
        self._shown = {name: {"authorization": f"Bearer {token}"} for name, token in shown.items()}
        address, trusted = at.address.removeprefix("grpcs://"), str(authority.path) if authority else None
        self._client = triton.InferenceServerClient(address, ssl=authority is not None, root_certificates=trusted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._client.close()

    def infer(self, who: str) -> str:
        return self._outcome(who, "infer", "cars", [sent("IMAGE", PIXELS, "UINT8")], parameters=DECLARED)

    def infer_shared(self, who: str) -> str:
        shared = triton.InferInput("IMAGE", list(PIXELS.shape), "UINT8").set_shared_memory("region", PIXELS.nbytes)
        return self._outcome(who, "infer", "cars", [shared], parameters=DECLARED)

    def describe(self, who: str, what: str, model: str) -> str:
        return self._outcome(who, what, model)

    def server(self, who: str) -> str:
        return self._outcome(who, "get_server_metadata")

    def ready(self, who: str) -> str:
        return self._outcome(who, "is_server_ready")

    def index(self, who: str) -> list[str]:
        return [one.name for one in self._client.get_model_repository_index(headers=self._shown[who]).models]

    def counted(self, who: str) -> dict[str, int]:
        told = self._client.get_inference_statistics(headers=self._shown[who])
        return {one.name: one.inference_count for one in told.model_stats}

    def _outcome(self, who: str, call: str, *arguments: Any, **named: Any) -> str:
        try:
            getattr(self._client, call)(*arguments, headers=self._shown.get(who), **named)
        except triton.InferenceServerException as error:
            refused = error
        else:
            return "OK"
        reason = reason_of(refused.__context__)  # gRPC's own error, with its details
        assert refused.status() == str(TABLE[Reason(reason)].code)
        return reason


class OverHttp:
    """The same by paths."""

    describing = ("", "/config", "/ready", "/stats")

    def __init__(self, at: Guarded, shown: Mapping[str, str], authority: Authority | None) -> None:
        self._http = at.http
        self._shown = {name: {"Authorization": f"Bearer {token}"} for name, token in shown.items()}
        self._context = authority.context() if authority else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        pass

    def infer(self, who: str) -> str:
        pixels = rest.listed("IMAGE", "UINT8", list(PIXELS.shape), PIXELS.ravel().tolist(), **DECLARED)
        return self._outcome(who, "/v2/models/cars/infer", rest.asked(pixels))

    def infer_shared(self, who: str) -> str:
        region = {"shared_memory_region": "region", "shared_memory_byte_size": PIXELS.nbytes}
        shared = {"name": "IMAGE", "datatype": "UINT8", "shape": PIXELS.shape, "parameters": {**DECLARED, **region}}
        return self._outcome(who, "/v2/models/cars/infer", rest.asked(shared))

    def describe(self, who: str, what: str, model: str) -> str:
        return self._outcome(who, f"/v2/models/{model}{what}")

    def server(self, who: str) -> str:
        return self._outcome(who, "/v2")

    def ready(self, who: str) -> str:
        return self._outcome(who, "/v2/health/ready")

    def index(self, who: str) -> list[str]:
        return [one["name"] for one in self._call(who, "/v2/repository/index", b"").json]

    def counted(self, who: str) -> dict[str, int]:
        told = self._call(who, "/v2/models/stats").json["model_stats"]
        return {one["name"]: one["inference_stats"]["success"]["count"] for one in told}

    def _outcome(self, who: str, path: str, body: bytes | None = None) -> str:
        reply = self._call(who, path, body)
        if reply.status == 401:
            assert reply.headers["WWW-Authenticate"] == "Bearer"
        if reply.status != 200:
            rest.assert_refused(reply, reply.reason)
        return reply.reason or "OK"

    def _call(self, who: str, path: str, body: bytes | None = None) -> rest.Reply:
        return rest.call(self._http, path, body, self._shown.get(who), self._context)


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    started = Models()
    yield started
    started.stop()


@pytest.mark.parametrize("security", ["plain", "TLS"])
@pytest.mark.parametrize("caller", [OverGrpc, OverHttp])
def test_a_caller_may_do_what_the_policy_says(
    caller: Callable[..., OverGrpc | OverHttp], security: str, models: Models, tmp_path: Path
) -> None:
    """Without `detect` it is refused, and it sees only its models."""
    tokens, authority = Tokens(tmp_path / "tokens"), Authority(tmp_path / "ours") if security == "TLS" else None
    shown = {name: tokens.add(name) for name in ("viewer", "gate")}
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    pair = authority.server() if authority else None
    sources = AccessSources(
        tokens=tokens.path, policy=policy, tls_cert=pair.cert if pair else None, tls_key=pair.key if pair else None
    )
    with models.behind(sources) as at, caller(at, shown, authority) as calls:
        before = calls.counted("viewer")
        assert list(before) == calls.index("viewer") == ["cars"]
        assert calls.infer("gate") == "OK"
        assert calls.infer("viewer") == "NOT_PERMITTED"
        assert calls.infer("nobody") == "CREDENTIALS_MISSING"
        assert calls.infer_shared("gate") == "NOT_PERMITTED"
        for what in calls.describing:
            assert calls.describe("viewer", what, "cars") == "OK"
            assert calls.describe("viewer", what, "faces") == "NOT_PERMITTED"
            assert calls.describe("gate", what, "cars") == "NOT_PERMITTED"
        assert calls.server("gate") == "NOT_PERMITTED"
        assert calls.ready("nobody") == "OK"
        assert calls.counted("viewer") == {"cars": before["cars"] + 1}
        assert "RATE_EXCEEDED" in [calls.infer("gate") for _ in range(10)]
