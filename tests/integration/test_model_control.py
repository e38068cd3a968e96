"""Models loaded and unloaded by Triton's client, with their reasons, their rights, and under traffic."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from vedette_client import Client
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.support import rest, running
from tests.support.guarded import Tokens
from tests.support.open_inference import BLACK, PICTURES, as_bytes, assert_equal, file, sent

KEPT, OTHER = "roadsigns", "signs"
POLICY = f"""
[[rules]]
who = ["token:ops"]
may = ["load", "detect", "describe", "metrics"]
[[rules]]
who = ["token:gate"]
may = ["load", "detect"]
models = ["{OTHER}"]
[[rules]]
who = ["token:viewer"]
may = ["detect", "describe"]
"""


@dataclass(frozen=True)
class Served:
    """A server with two models whose callers may control them, and the callers' credentials."""

    server: running.Server
    root: Path
    shown: dict[str, dict[str, str]]
    tokens: dict[str, str]

    def add(self, model: str, version: int) -> Path:
        """Put another version of a model into the repository."""
        folder = self.root / model / f"{version}"
        shutil.copytree(self.root / model / "1", folder)
        return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("control")
    root, tokens = folder / "models", Tokens(folder / "tokens")
    for name in (KEPT, OTHER):
        shutil.copytree(BUNDLED_REPOSITORY / "roadsigns", root / name)
    (folder / "policy.toml").write_text(POLICY)
    made = {name: tokens.add(name) for name in ("ops", "gate", "viewer")}
    shown = {name: {"authorization": f"Bearer {token}"} for name, token in made.items()}
    flags = ("--repository", str(root), "--tokens", str(tokens.path), "--policy", str(folder / "policy.toml"))
    with running.server("--threads", "1", "--model-control", *flags, token=made["ops"]) as server:
        yield Served(server, root, shown, made)


@pytest.fixture
def theirs(served: Served) -> Iterator["Caller"]:
    with triton.InferenceServerClient(served.server.address) as client:
        yield Caller(client, served)


class Caller:
    """Triton's client, as one of the callers."""

    def __init__(self, client: Any, served: Served) -> None:
        self._client = client
        self._served = served

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, who: str = "ops", **named: Any) -> Any:
            return getattr(self._client, name)(*arguments, headers=self._served.shown[who], **named)

        return call

    def refused(self, name: str, *arguments: Any, **named: Any) -> str:
        """Return the code and the message of a call that is refused."""
        with pytest.raises(triton.InferenceServerException) as caught:
            getattr(self, name)(*arguments, **named)
        return f"{str(caught.value.status()).removeprefix('StatusCode.')}: {caught.value.message()}"

    def index(self, model: str) -> list[tuple[str, str, str]]:
        given = self.get_model_repository_index().models
        return [(one.version, one.state, one.reason) for one in given if one.name == model]


def picture(pixels: Any = BLACK) -> Any:
    return sent(*as_bytes(file(pixels)))


def test_a_model_is_unloaded_and_loaded_again(served: Served, theirs: Caller) -> None:
    assert "model_repository" in theirs.get_server_metadata().extensions
    before = set(served.server.worker_pids())
    theirs.unload_model(OTHER)
    assert len(set(served.server.worker_pids()) & before) == len(before) - 1, "its worker has ended"
    assert theirs.index(OTHER) == [("1", "UNAVAILABLE", "unloaded")]
    assert not theirs.is_model_ready(OTHER)
    assert theirs.refused("infer", OTHER, [picture()]).startswith(f"NOT_FOUND: There is no model '{OTHER}'")
    theirs.unload_model(OTHER, unload_dependents=True)
    theirs.load_model(OTHER)
    assert theirs.index(OTHER) == [("1", "READY", "")]
    with Client(served.server.address, token=served.tokens["ops"]) as ours:
        expected = ours.detect(file(PICTURES[0]), model=KEPT)
    result = theirs.infer(OTHER, [picture(PICTURES[0])])
    assert result.as_numpy("BOXES").tolist() == expected.boxes.tolist()
    assert_equal(theirs.infer(KEPT, [picture(PICTURES[0])]), expected)


def test_a_new_version_is_loaded_and_waited_for(served: Served, theirs: Caller) -> None:
    folder, of_another = served.add(OTHER, 2), served.add(KEPT, 2)
    theirs.load_model(OTHER)
    assert theirs.infer(OTHER, [picture()]).get_response().model_version == "2"
    assert theirs.index(KEPT) == [("1", "READY", "")], "nobody has asked for that"
    for path in (folder, of_another):
        shutil.rmtree(path)
    theirs.load_model(OTHER)
    running.wait_for(lambda: theirs.index(OTHER) == [("1", "READY", "")], "the removed version to go")
    assert theirs.infer(OTHER, [picture()]).get_response().model_version == "1"


def test_a_version_that_fails_a_check_is_refused_with_it(served: Served, theirs: Caller) -> None:
    folder = served.add(OTHER, 3)
    (folder / "model.safetensors").write_bytes(b"no weights")
    try:
        told = theirs.refused("load_model", OTHER)
    finally:
        shutil.rmtree(folder)
    assert told.startswith(f"FAILED_PRECONDITION: Model '{OTHER}' is not loaded; its newest version is 3: WEIGHTS_")
    assert str(served.root) not in told
    assert theirs.infer(OTHER, [picture()]).get_response().model_version == "1"
    theirs.load_model(OTHER)
    assert theirs.index(OTHER) == [("1", "READY", "")]


def test_who_does_not_wait_does_not_stop_the_load(theirs: Caller) -> None:
    theirs.unload_model(OTHER)
    assert theirs.refused("load_model", OTHER, client_timeout=0.2).startswith("DEADLINE_EXCEEDED: ")
    running.wait_for(lambda: theirs.is_model_ready(OTHER), "the load to go on")


def test_a_model_that_is_still_leaving_is_loaded_once_it_has_left(served: Served, theirs: Caller) -> None:
    """Its worker is stopped meanwhile, so that its requests keep it."""
    waiting = f'vedette_queued_requests{{model="{OTHER}",version="1"}}'
    workers = served.server.worker_pids()
    with ThreadPoolExecutor(9) as threads:
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            answers = [threads.submit(theirs.infer, OTHER, [picture()]) for _ in range(8)]
            running.wait_for(lambda: running.sample(served.server, waiting), "a request that waits")
            assert theirs.refused("unload_model", OTHER, client_timeout=0.2).startswith("DEADLINE_EXCEEDED: ")
            loading = threads.submit(theirs.load_model, OTHER)
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        loading.result()
        assert theirs.is_model_ready(OTHER)
        assert len([one.result() for one in answers]) == 8


def test_what_was_unloaded_stays_so_when_the_repository_is_read_again(served: Served, theirs: Caller) -> None:
    theirs.unload_model(OTHER)
    folder = served.add(KEPT, 2)
    served.server.process.send_signal(signal.SIGHUP)
    running.wait_for(lambda: ("2", "READY", "") in theirs.index(KEPT), "the new version of the other model")
    assert theirs.index(OTHER) == [("1", "UNAVAILABLE", "unloaded")]
    shutil.rmtree(folder)
    theirs.load_model(KEPT)
    theirs.load_model(OTHER)
    assert theirs.index(OTHER) == [("1", "READY", "")]


@pytest.mark.parametrize(
    ("call", "arguments", "told"),
    [
        ("load_model", {"config": "{}"}, "INVALID_ARGUMENT: The parameter config is set"),
        (
            "load_model",
            {"config": "{}", "files": {"file:1/model.py": b"import os"}},
            "INVALID_ARGUMENT: The parameter ",
        ),
        ("load_model", {"model_name": "none"}, "NOT_FOUND: There is no model 'none'. Name one of: roadsigns, signs."),
        ("unload_model", {"model_name": "../x"}, "NOT_FOUND: There is no model '../x'."),
        ("load_model", {"who": "viewer"}, "PERMISSION_DENIED: token:viewer may not load here"),
        ("unload_model", {"who": "viewer"}, "PERMISSION_DENIED: token:viewer may not load here"),
        (
            "load_model",
            {"who": "gate", "model_name": KEPT},
            f"PERMISSION_DENIED: token:gate may not load with '{KEPT}'",
        ),
        (
            "unload_model",
            {"who": "gate", "model_name": KEPT},
            f"PERMISSION_DENIED: token:gate may not load with '{KEPT}'",
        ),
        ("load_model", {"who": "gate", "model_name": "none"}, "PERMISSION_DENIED: token:gate may not load with 'none'"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused(call: str, arguments: dict[str, Any], told: str, theirs: Caller) -> None:
    given = {"model_name": OTHER, **arguments}
    assert theirs.refused(call, **given).startswith(told)
    assert theirs.is_model_ready(OTHER)
    assert theirs.is_model_ready(KEPT)


def test_traffic_loses_nothing_while_models_come_and_go(served: Served, theirs: Caller) -> None:
    """One model is unloaded and loaded, the other gets another version: what was admitted is answered."""
    over = threading.Event()

    def traffic(model: str) -> list[str]:
        outcomes = []
        with triton.InferenceServerClient(served.server.address) as client:
            while not over.is_set():
                try:
                    client.infer(model, [picture()], headers=served.shown["ops"])
                    outcomes.append("OK")
                except triton.InferenceServerException as error:
                    outcomes.append(f"{error.status()}: {error.message()}")
        return outcomes

    with ThreadPoolExecutor(4) as threads:
        kept, other = ([threads.submit(traffic, model) for _ in range(2)] for model in (KEPT, OTHER))
        try:
            for _ in range(2):
                theirs.unload_model(OTHER)
                theirs.load_model(OTHER)
            folder = served.add(KEPT, 2)
            theirs.load_model(KEPT)
            shutil.rmtree(folder)
            theirs.load_model(KEPT)
        finally:
            over.set()
        outcomes = [{*one.result()} for one in kept]
        others = {outcome.partition(" There ")[0].partition(" Model ")[0] for one in other for outcome in one.result()}
    assert outcomes == [{"OK"}, {"OK"}]
    assert others == {"OK", "StatusCode.NOT_FOUND:"} | (others & {"StatusCode.UNAVAILABLE:"}), "unloaded, or loading"
    assert not served.server.events("bug")


def test_models_are_controlled_over_http_too(served: Served) -> None:
    with triton_http.InferenceServerClient(urlsplit(served.server.http).netloc) as client:
        ops = served.shown["ops"]
        client.unload_model(OTHER, headers=ops, unload_dependents=True)
        (unloaded,) = [one for one in client.get_model_repository_index(headers=ops) if one["name"] == OTHER]
        assert (unloaded["state"], unloaded["reason"]) == ("UNAVAILABLE", "unloaded")
        client.load_model(OTHER, headers=ops)
        assert client.is_model_ready(OTHER, headers=ops)
        for parameters, who, reason in (
            ({}, "viewer", "NOT_PERMITTED"),
            ({"config": "{}"}, "ops", "PARAMETER_INVALID"),
            ([3], "ops", "BODY_INVALID"),
            ("yes", "ops", "BODY_INVALID"),
            ({"unload_dependents": []}, "ops", "BODY_INVALID"),
            ({"unload_dependents": 2**64}, "ops", "BODY_INVALID"),
        ):
            body = json.dumps({"parameters": parameters}).encode()
            path = f"/v2/repository/models/{OTHER}/unload"
            rest.assert_refused(rest.call(served.server.http, path, body, served.shown[who]), reason)
        assert client.is_model_ready(OTHER, headers=ops)


def test_by_default_nobody_controls_models(bundled: running.Server) -> None:
    with triton.InferenceServerClient(bundled.address) as client:
        assert "model_repository" not in client.get_server_metadata().extensions
        for call in (client.load_model, client.unload_model):
            with pytest.raises(triton.InferenceServerException) as caught:
                call("roadsigns")
            assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
            assert "Start the server with model_control switched on" in caught.value.message()
        assert client.is_model_ready("roadsigns")
