"""Flags over environment over file over defaults; what is unknown or wrong is an error."""

import os
from pathlib import Path

import pytest
from vedette_server import settings


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LISTEN", "HTTP", "WORKERS", "CONFIG"):
        monkeypatch.delenv(f"VEDETTE_{name}", raising=False)


def test_the_defaults_listen_on_loopback_alone() -> None:
    chosen = settings.load({})
    assert (chosen.listen, chosen.http) == ("127.0.0.1:8001", "127.0.0.1:8002")


def test_flags_over_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "vedette.toml"
    file.write_text('workers = 2\nthreads = 2\nlisten = "127.0.0.1:1"\n')
    monkeypatch.setenv("VEDETTE_CONFIG", str(file))
    monkeypatch.setenv("VEDETTE_WORKERS", "3")
    monkeypatch.setenv("VEDETTE_LISTEN", "127.0.0.1:2")
    chosen = settings.load({"listen": "127.0.0.1:3"})
    assert (chosen.listen, chosen.workers, chosen.threads) == ("127.0.0.1:3", 3, 2)


def test_an_unknown_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEDETTE_WROKERS", "3")
    with pytest.raises(ValueError, match="VEDETTE_WROKERS"):
        settings.load({})


def test_an_unknown_key_in_the_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vedette.toml").write_text("wrokers = 2\n")
    monkeypatch.setenv("VEDETTE_CONFIG", str(tmp_path / "vedette.toml"))
    with pytest.raises(ValueError, match="wrokers"):
        settings.load({})


@pytest.mark.parametrize(
    ("content", "said"), [(None, "no such file: "), (b"\x89PNG", "is not TOML: "), (b"workers: 2", "is not TOML: ")]
)
@pytest.mark.parametrize("by", ["flag", "variable"])
def test_a_file_that_cannot_be_read_is_an_error(
    by: str, content: bytes | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "vedette.toml"
    if content is not None:
        file.write_bytes(content)
    if by == "variable":
        monkeypatch.setenv("VEDETTE_CONFIG", str(file))
    with pytest.raises(ValueError, match=f"{said}") as caught:
        settings.load({}, file if by == "flag" else None)
    assert str(file) in str(caught.value)
    assert "VEDETTE_CONFIG" not in os.environ or by == "variable"


@pytest.mark.parametrize(
    "flags", [{"listen": "8001"}, {"http": "localhost:port"}, {"listen": "h:99999"}, {"workers": 0}]
)
def test_a_wrong_value_is_an_error(flags: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(flags))):
        settings.load(flags)


def test_cores_are_shared_out_and_never_oversubscribed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))
    assert settings.load({}).threads_per_worker(versions=1) == 8
    assert settings.load({"workers": 2}).threads_per_worker(versions=2) == 2
    assert settings.load({"workers": 9}).threads_per_worker(versions=1) == 1
    assert settings.load({"threads": 3}).threads_per_worker(versions=1) == 3


def test_the_log_level_is_one_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.load({}).log_level == "info"
    monkeypatch.setenv("VEDETTE_LOG_LEVEL", "warning")
    assert settings.load({}).log_level == "warning"
    assert settings.load({"log_level": "debug"}).log_level == "debug"
    monkeypatch.setenv("VEDETTE_LOG_LEVEL", "verbose")
    with pytest.raises(ValueError, match="log_level"):
        settings.load({})
