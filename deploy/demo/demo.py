"""The demonstration: a server with the bundled model, held-out pictures sent to it, and one classic mistake.

Run by `make demo`. Leaves in build/demo/: pictures/, detections.jsonl, annotated.png, and a clip with its answers:
clip.mp4, clip.jsonl, clip-annotated.mp4.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from rich.console import Console
from vedette_client import Client, Unavailable
from vedette_server.demo import clips, scenes

OUTPUT = Path("build/demo")
BIN = Path(sys.executable).parent
SEEDS = (3_000_001, 3_000_022, 3_000_026, 3_000_023, 3_000_034, 3_000_005)  # no scene of the training has them
START_SECONDS = 120

console = Console(stderr=True)


def free_port() -> int:
    """A port that is free now, so that the demonstration disturbs no server of yours."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A server of its own, from its start to its end; yields its address once it serves."""
    address = f"127.0.0.1:{free_port()}"
    command = [str(BIN / "vedette-server"), "serve", "--listen", address, "--http", f"127.0.0.1:{free_port()}"]
    console.print(f"[bold]$ {' '.join(['vedette-server', *command[1:]])}")
    environment = {**os.environ, "NO_COLOR": "1"}
    with (OUTPUT / "server.log").open("w") as log, subprocess.Popen(command, stderr=log, env=environment) as process:  # noqa: S603  our own command
        try:
            wait_until_serving(address, process)
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait()
    if status:
        msg = f"the server ended with status {status}; see {OUTPUT / 'server.log'}"
        raise SystemExit(msg)
    console.print("the server has stopped")


def wait_until_serving(address: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the model has answered its golden images."""
    deadline = time.monotonic() + START_SECONDS
    with console.status("the model loads and answers its golden images"), Client(address) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(Unavailable):
                if client.healthy():
                    return
            time.sleep(0.2)
    msg = f"the server did not come up; see {OUTPUT / 'server.log'}"
    raise SystemExit(msg)


def vedette(*arguments: str, stdout: Path | None = None) -> None:
    """Run the `vedette` command, and show how it is called."""
    shown = " ".join(["vedette", *arguments])
    console.print(f"\n[bold]$ {shown}" + (f" > {stdout}" if stdout else ""))
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(stdout.open("w")) if stdout else None
        subprocess.run([str(BIN / "vedette"), *arguments], stdout=target, check=True)  # noqa: S603  our own command


def draw_pictures(folder: Path) -> list[Path]:
    """Draw the pictures that are sent."""
    folder.mkdir(parents=True)
    paths = []
    for seed in SEEDS:
        picture = scenes.draw(scenes.describe(seed))
        names = "-".join(sorted({sign.name for sign in picture.signs})) or "no-sign"
        paths.append(folder / f"{names}-{seed % 1000:03}.png")
        Image.fromarray(picture.pixels).save(paths[-1])
    return paths


def swap(path: Path) -> Path:
    """The same picture as someone sends it who takes RGB for BGR."""
    with Image.open(path) as picture:
        red, green, blue = picture.split()
        swapped = OUTPUT / "swapped.png"
        Image.merge("RGB", (blue, green, red)).save(swapped)
    return swapped


def montage(paths: list[Path], target: Path) -> None:
    """Put the annotated pictures side by side."""
    width, height = scenes.SIZE
    sheet = Image.new("RGB", (width * 3, height * -(-len(paths) // 3)))
    for index, path in enumerate(paths):
        with Image.open(path) as picture:
            sheet.paste(picture, (index % 3 * width, index // 3 * height))
    sheet.save(target)


def main() -> None:
    """Show it all."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    pictures = draw_pictures(OUTPUT / "pictures")
    names = [str(path) for path in pictures]
    lines = OUTPUT / "detections.jsonl"
    with server() as address:
        vedette("detect", *names, "--server", address)
        vedette("detect", *names, "--server", address, "--json", "--save", str(OUTPUT / "annotated"), stdout=lines)
        console.print("\nNow the second picture with its red and blue swapped: no error, and four signs are gone. Why?")
        swapped = str(swap(pictures[1]))
        vedette("detect", swapped, "--server", address)
        vedette("diagnose", swapped, "--save", str(OUTPUT), "--server", address)
        clip, lines_of_clip, drawn = (OUTPUT / name for name in ("clip.mp4", "clip.jsonl", "clip-annotated.mp4"))
        clips.write(scenes.Clip(SEEDS[0]), clip)
        console.print("\nAnd a drive towards the same signs, as a stream.")
        at = ("--server", address)
        vedette("stream", str(clip), "--jsonl", str(lines_of_clip), "--save", str(drawn), *at)
    montage([OUTPUT / "annotated" / path.name for path in pictures], OUTPUT / "annotated.png")
    found = sum(len(json.loads(line)["detections"]) for line in lines.read_text().splitlines())
    console.print(f"\n{found} signs in {len(pictures)} pictures: see {OUTPUT / 'annotated.png'} and {lines}")


if __name__ == "__main__":
    main()
