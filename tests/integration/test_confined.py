"""Servers in small rooms: too little memory is named, and nowhere to write keeps no server from serving."""

import subprocess
from pathlib import Path

from vedette_client import Client
from vedette_server.demo.publish import jpeg
from vedette_server.demo.scenes import Picture

from tests.support import running
from tests.support.running import sample

LOST = 'vedette_workers_lost_total{cause="out_of_memory",model="roadsigns",version="1"}'


def assert_named(server: running.Server) -> None:
    running.wait_for(lambda: sample(server, LOST) > 1, "two workers to fail")
    with Client(server.address) as client:
        model = client.model()
    assert model.state == "UNAVAILABLE"
    assert model.state_reason.startswith("OUT_OF_MEMORY: ")
    assert {event["check"] for event in server.logged("worker_failed_to_start")} == {"OUT_OF_MEMORY"}


def test_a_limit_of_workers_memory_that_is_too_small_is_named(tmp_path: Path) -> None:
    (tmp_path / "vedette.toml").write_text(f"worker_memory_bytes = {2**28}\n")
    with running.server("--config", str(tmp_path / "vedette.toml"), serving=False) as server:
        assert_named(server)


def test_a_limit_of_the_address_space_is_named() -> None:
    limit = ("sh", "-c", f'ulimit -v {3_000_000}; exec "$@"', "sh")  # in KiB
    with running.server(serving=False, inside=limit) as server:
        assert_named(server)


# A hardened container: nothing can be written anywhere, and the user has no home, no name and no environment.
_READ_ONLY = """
for folder in /tmp /var/tmp /usr/tmp /dev/shm; do mount -t tmpfs -o ro none $folder 2>/dev/null; done
mount -o remount,bind,ro / && exec unshare --user --map-user=12345 --map-group=12345 "$@"
"""
_BARE = ("env", "--unset=HOME", "--unset=USER", "--unset=LOGNAME", "--unset=TMPDIR")
_CONFINED = ("unshare", "--map-root-user", "--mount", "sh", "-c", _READ_ONLY, "sh", *_BARE)


def inside() -> tuple[str, ...]:
    """A command that confines another, as far as this machine lets an ordinary user confine anything."""
    allowed = subprocess.run([*_CONFINED, "true"], capture_output=True, check=False).returncode == 0
    return _CONFINED if allowed else (*_BARE, "HOME=/nonexistent", "TMPDIR=/nonexistent")


def test_where_nothing_can_be_written_a_server_serves(scene: Picture) -> None:
    with running.server(inside=inside()) as server, Client(server.address) as client:
        assert len(client.detect(jpeg(scene.pixels)))
        assert not server.events("worker_failed_to_start")
