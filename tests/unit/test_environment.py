"""Variables of the environment: settings, Kubernetes' own, and mistakes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vedette_server import environment, settings
from vedette_server.settings import Settings


def link_variables(name: str, address: str, ports: list[tuple[str, int, str]]) -> dict[str, str]:
    """Variables that Kubernetes adds for a Service, as pkg/kubelet/envvars/envvars.go writes them.

    `ports` are (name, number, protocol); the first is the Service's own.
    """
    prefix = name.upper().replace("-", "_")
    host = f"[{address}]" if ":" in address else address
    made = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0][1])}
    for label, number, _protocol in ports:
        if label:
            made[f"{prefix}_SERVICE_PORT_{label.upper().replace('-', '_')}"] = str(number)
    for position, (_label, number, protocol) in enumerate(ports):
        url = f"{protocol.lower()}://{host}:{number}"
        if position == 0:
            made[f"{prefix}_PORT"] = url
        port = f"{prefix}_PORT_{number}_{protocol}"
        made |= {port: url, f"{port}_PROTO": protocol.lower(), f"{port}_PORT": str(number), f"{port}_ADDR": address}
    return made


def test_what_clients_are_told_is_no_mistake_of_a_server() -> None:
    client = ("SERVER", "TOKEN", "TOKEN_FILE", "TLS_CA", "TLS_CLIENT_CERT", "TLS_CLIENT_KEY")
    assert not environment.unknown(Settings.model_fields, {f"VEDETTE_{name}": "x" for name in (*client, "TLS_CERT")})


labels = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
services = st.one_of(
    st.just("vedette"),
    labels.map(lambda rest: f"vedette-{rest}"),
    st.sampled_from(
        [f"vedette-{name.replace('_', '-')}" for name in (*Settings.model_fields, "config", "server", "traceback")]
    ),
    labels,
)
ports = st.lists(
    st.tuples(st.one_of(st.just(""), labels), st.integers(1, 65535), st.sampled_from(["TCP", "UDP", "SCTP"])),
    min_size=1,
    max_size=4,
)
hosts = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)


@given(services, hosts, ports)
def test_whatever_a_service_is_called_the_server_starts(
    name: str, address: str, ports: list[tuple[str, int, str]]
) -> None:
    made = link_variables(name, address, ports)
    assert environment.unknown(Settings.model_fields, made) == []
    assert environment.links(made) == sorted(one for one in made if one.startswith("VEDETTE_"))


def test_the_documented_case() -> None:
    made = link_variables("vedette", "10.0.0.1", [("grpc", 8001, "TCP"), ("http", 8002, "TCP")])
    assert {"VEDETTE_PORT", "VEDETTE_SERVICE_HOST", "VEDETTE_SERVICE_PORT_GRPC", "VEDETTE_PORT_8001_TCP_ADDR"} <= set(
        made
    )
    assert environment.unknown(Settings.model_fields, made) == []


@pytest.mark.parametrize(("name", "value"), [
    ("VEDETTE_PORT", "9000"),  # somebody means a setting
    ("VEDETTE_PORT", "tcp://host:8001"),
    ("VEDETTE_PORT", "tcp://10.0.0.1:99999"),
    ("VEDETTE_SERVICE_HOST", "vedette.example"),
    ("VEDETTE_SERVICE_PORT", "http"),
    ("VEDETTE_PORT_8001_TCP_PROTO", "http"),
    ("VEDETTE_PORT_8001_HTTP", "tcp://10.0.0.1:8001"),
    ("VEDETTE_WROKERS", "3"),
    ("VEDETTE_", ""),
    ("VEDETTE_HOST", "10.0.0.1"),
])  # fmt: skip
def test_what_only_looks_like_it_is_still_an_error(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=re.escape(name)):
        settings.load({})


def test_what_the_commands_read_is_no_mistake() -> None:
    others = {f"VEDETTE_{name}": "x" for name in ("SERVER", "CONFIG", "TRACEBACK")}
    assert environment.unknown(Settings.model_fields, others | {"OTHER_PORT": "1"}) == []


def test_no_setting_could_be_taken_for_a_link() -> None:
    for name in (*Settings.model_fields, "config", "server", "traceback"):
        for value in ("8001", "10.0.0.1", "tcp://10.0.0.1:8001", "tcp"):
            assert environment.links({f"VEDETTE_{name.upper()}": value}) == []
