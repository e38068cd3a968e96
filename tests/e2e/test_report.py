"""The report, drawn as users draw it, and opened in a real browser."""

import base64
import io
import itertools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from vedette.v1 import detection_service_pb2 as pb
from vedette_client import Answered, Client, InvalidRequest, NotFound, Raw, Tensor, images
from vedette_client.images import Beside
from vedette_server.baseline.scrape import Page
from vedette_server.baseline.statistics import cumulative, ks, shares, total_variation
from vedette_server.cli import main
from vedette_server.contract.types import UInt8Array
from vedette_server.explain.findings import FINDINGS, Code
from vedette_server.report.reading import read
from vedette_server.report.verdict import Light, Verdict, of_source, of_version

from tests.sim import labelled
from tests.support import commands, running

HOSTILE = "<script>alert('x')</script>\"&'<img src=x>"
DARK, GATE = "dark yard", "gate"
V = {"model": "roadsigns", "version": "1"}

pytestmark = pytest.mark.timeout(900)  # the fixtures wait for what a server finds out beside its traffic
needs_browser = pytest.mark.skipif(
    shutil.which("chromium") is None and not os.environ.get("CI"), reason="needs Debian's chromium"
)


@dataclass
class Traffic:
    """A server that has seen signs, quiet scenes, a black camera, a swapped feed and wrong requests, and its page."""

    server: running.Server
    scrape: str
    page: Page = field(init=False)

    def __post_init__(self) -> None:
        self.page = Page.parse(self.scrape)


def swapped(client: Client, server: running.Server) -> None:
    """Send a feed with red and blue exchanged until the server suspects it."""

    def silenced(bgr: UInt8Array) -> bool:
        sound = client.detect(bgr, pixel_format="BGR8")
        turned = np.ascontiguousarray(bgr[:, :, ::-1])
        return len(sound) > 0 and sound.scores[0] > 0.9 and not len(client.detect(turned, pixel_format="BGR8"))

    pictures = (picture.bgr for picture in labelled.drawn(range(9_000_000, 9_000_200), quiet=False))
    feed = [np.ascontiguousarray(bgr[:, :, ::-1]) for bgr in itertools.islice(filter(silenced, pictures), 4)]
    until = time.monotonic() + running.PATIENCE
    frames = (
        Raw(bgr.tobytes(), pixel_format="BGR8", height=bgr.shape[0], width=bgr.shape[1])
        for bgr in itertools.takewhile(lambda _bgr: time.monotonic() < until, itertools.cycle(feed))
    )
    for event in client.stream(frames, policy="LOSSLESS", stream_id=HOSTILE, max_in_flight=1):
        assert isinstance(event, Answered)
        if "CHANNELS_SWAPPED" in [finding.code for finding in event.result.findings]:
            break
    assert server.logged("cause_suspected"), "within the time that a slow machine may take"


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    config = tmp_path_factory.mktemp("config") / "vedette.toml"
    config.write_text("diagnose_share = 1.0\n")
    noise = np.random.default_rng(1)
    black = [noise.integers(0, 6, (96, 128, 3), np.uint8) for _ in range(31)]
    mixed = [picture.bgr for picture in itertools.islice(labelled.drawn(range(9_100_000, 9_100_050), quiet=False), 3)]
    mixed += [picture.bgr for picture in itertools.islice(labelled.drawn(range(9_100_000, 9_100_050), quiet=True), 1)]
    with running.server("--threads", "1", "--config", str(config)) as server, Client(server.address) as client:
        for name, frames in ((DARK, black), (GATE, mixed)):
            events = client.stream(frames, policy="LOSSLESS", stream_id=name, pixel_format="BGR8")
            assert all(isinstance(event, Answered) for event in events)
        with pytest.raises(InvalidRequest, match="VALUES_IN_UNIT_RANGE"):
            client.detect(Tensor(mixed[0] / 255, "BGR", "HWC", "0-255"))
        message, data = images.message(mixed[0], Beside("BGR8"))
        message.raw.data = bytes(data)
        running.detect_unchecked(server, pb.DetectRequest(image=message, options=pb.DetectOptions(threshold=50)))
        with pytest.raises(NotFound):
            client.detect(mixed[0], pixel_format="BGR8", model="nobody")
        swapped(client, server)
        yield Traffic(server, settled(server))


def settled(server: running.Server) -> str:
    """The page of metrics once the last frame of a stream that was left is counted."""
    running.wait_for(lambda: running.sample(server, "vedette_running_requests") == 0, "the last frame")
    return running.http(server, "/metrics")[1]


def report(*arguments: str) -> Result:
    """Run the command in this process; the report of the running server is drawn by one of its own."""
    return CliRunner().invoke(main, ["report", *arguments])


@pytest.fixture(scope="module")
def live(traffic: Traffic, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the running server."""
    out = tmp_path_factory.mktemp("live") / "report.html"
    asked = ("--from", traffic.server.http, "--server", traffic.server.address, "--out", out)
    ran = commands.run(commands.SERVER, "report", *asked)
    assert (ran.returncode, ran.stdout) == (0, f"{out}\n".encode()), ran.stderr
    return out


class Dom(HTMLParser):
    """The content of a page: its text, the rows of each card's table, its elements. Texts beside SVG are left out."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.tables: dict[str, list[list[str]]] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._title: list[str] = []
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self._inside.append(tag)
        if tag == "h3":
            self._title = []
        if tag == "tr":
            self.tables.setdefault("".join(self._title), []).append([])
        if tag in ("th", "td"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "svg" in self._inside or "style" in self._inside:
            return
        self.text += data.replace("\N{NO-BREAK SPACE}", " ")
        if "h3" in self._inside:
            self._title.append(data)
        if "th" in self._inside or "td" in self._inside:
            self._rows[-1][-1] += data.replace("\N{NO-BREAK SPACE}", " ")

    @property
    def _rows(self) -> list[list[str]]:
        return self.tables["".join(self._title)]

    def row(self, table: str, first: str) -> list[str]:
        """The other cells of the row that begins so."""
        (found,) = (row[1:] for row in self.tables[table] if row[0] == first)
        return found


def browse(page: Path, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open a page in a real browser."""
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    switches += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
    command = ["chromium", *switches, "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", *flags]
    ran = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, check=True, timeout=240)
    assert "Content Security Policy" not in ran.stderr, "the page keeps its own policy"
    return ran


@pytest.fixture(scope="module")
def dom(live: Path, tmp_path_factory: pytest.TempPathFactory) -> Dom:
    """The report of the running server, as a browser has understood it."""
    return Dom(browse(live, tmp_path_factory.mktemp("browser"), "--dump-dom").stdout)


@needs_browser
def test_its_figures_are_those_of_the_scrape(dom: Dom, traffic: Traffic) -> None:
    page = traffic.page
    answers = page.value("vedette_answers_total", **V)
    reasons = page.by("vedette_empty_answers_total", "reason", **V)
    assert {reason: count for (reason,), count in reasons.items() if count} == {
        row[0]: float(row[1]) for row in dom.tables["Why answers were empty"][1:]
    }
    assert len(dom.tables["Why answers were empty"]) > 3, "quiet, black, swapped"
    classes = page.by("vedette_detections_total", "class", **V)
    assert len(classes) == len(dom.tables["Class mix"]) - 1
    for (name,), count in classes.items():
        share = f"{100 * count / sum(classes.values()):.1f} %"
        assert dom.row("Class mix", name)[:2] == [f"{count:.0f}", share]
    empty = f"{100 * sum(reasons.values()) / answers:.1f} %"
    assert dom.tables[""][1][3:] == [f"{answers:.0f}", empty]
    for stream in (DARK, GATE, HOSTILE):
        total = page.value("vedette_answers_total", **V, stream=stream)
        empties = page.value("vedette_empty_answers_total", **V, stream=stream) / total
        brightness = page.value("vedette_input_brightness_levels_sum", **V, stream=stream) / total
        shown = dom.row("Streams and single images", stream)
        assert shown[1:3] == [f"{total:.0f}", f"{100 * empties:.1f} %"]
        assert shown[5] == f"{brightness:.0f}"


@needs_browser
def test_it_says_what_is_wrong_and_what_to_do(dom: Dom) -> None:
    assert dom.tables[""][1][:2] == ["roadsigns version 1", "silenced"]
    assert (
        f"2 of 4 sources of images are silenced: “{HOSTILE}” by CHANNELS_SWAPPED, “{DARK}” by IMAGE_BLACK" in dom.text
    )
    streams = "Streams and single images"
    assert dom.row(streams, HOSTILE)[4] == "CHANNELS_SWAPPED"
    states = {row[0]: row[1] for row in dom.tables[streams][1:]}
    assert states == {HOSTILE: "silenced", DARK: "silenced", GATE: "ok", "single images": "ok"}
    for code in (Code.QUIET_SCENE, Code.IMAGE_BLACK, Code.CHANNELS_SWAPPED):
        assert dom.row("Findings", code)[2:] == [FINDINGS[code].meaning, FINDINGS[code].remedy]
    assert dom.row("Refused and dropped", "VALUES_IN_UNIT_RANGE")[:2] == ["1", "yes"]
    assert dom.row("Refused and dropped", "THRESHOLD_OUT_OF_RANGE")[:2] == ["1", ""]
    assert ["MODEL_NOT_FOUND", "1"] in dom.tables[""]
    assert dom.row("Latencies", "forward")
    assert int(dom.row("Golden images", "passed")[0]) >= 1
    assert "counted since the server's start" in dom.text
    assert "No baseline has been captured" in dom.text


@needs_browser
def test_a_silenced_source_is_shown_by_a_frame_with_its_diagnosis(dom: Dom) -> None:
    (image,) = (attributes for tag, attributes in dom.elements if tag == "img")
    kind, _, data = (image["src"] or "").partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.width == 4 * 320
        assert picture.height < 320 + 60, "one row"
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 1_000
    assert "Red and blue are swapped" in (image["alt"] or "")
    assert f"{HOSTILE}: Red and blue are swapped" in dom.text
    assert f"{DARK}: The server keeps no frame of it" in dom.text, "what is black needs no diagnosis"


@needs_browser
def test_what_callers_have_named_is_text_and_nothing_else(dom: Dom) -> None:
    tags = {tag for tag, _ in dom.elements}
    assert "script" not in tags
    assert sum(tag == "img" for tag, _ in dom.elements) == 1, "the sample alone"
    assert not [name for _, attributes in dom.elements for name in attributes if name.startswith("on")]


def test_it_needs_nothing_but_itself(live: Path) -> None:
    dom = Dom(live.read_text())
    policy = next(
        attributes["content"] for tag, attributes in dom.elements if tag == "meta" and "http-equiv" in attributes
    )
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    for tag, attributes in dom.elements:
        for name in ("src", "href", "srcset", "poster", "data", "action", "xlink:href"):
            if name in attributes:
                assert re.match(r"#|data:", attributes[name] or ""), f"{tag} {name}={attributes[name]}"
    assert not re.search(r"@import|url\(", live.read_text().partition("</style>")[0])
    assert live.stat().st_size < 2**20, "small enough to mail"


def test_it_can_be_read_without_eyes(live: Path) -> None:
    dom = Dom(live.read_text())
    for tag, attributes in dom.elements:
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
        if tag == "html":
            assert attributes["lang"] == "en"


@needs_browser
@pytest.mark.parametrize(("flags", "paper", "red", "blue"), [
    ((), (246, 247, 249), (198, 40, 53), (47, 111, 208)),
    (("--blink-settings=preferredColorScheme=0",), (18, 22, 27), (255, 107, 112), (111, 168, 255)),
])  # fmt: skip
def test_it_is_drawn_light_and_dark(
    flags: tuple[str, ...],
    paper: tuple[int, ...],
    red: tuple[int, ...],
    blue: tuple[int, ...],
    live: Path,
    tmp_path: Path,
) -> None:
    shot = tmp_path / "report.png"
    browse(live, tmp_path, f"--screenshot={shot}", "--window-size=1240,1600", *flags)
    with Image.open(shot) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    assert tuple(pixels[2, 2]) == paper
    assert (pixels == red).all(axis=2).sum() > 100, "the traffic light is red"
    assert (pixels == blue).all(axis=2).sum() > 500, "bars and lines"


def baseline(traffic: Traffic) -> str:
    """The same page of a server that has a baseline: other scores and classes, one stream as it is, one far off."""
    lines = [line for line in traffic.scrape.splitlines() if "vedette_baseline_" not in line]
    of = 'model="roadsigns",version="1"'
    lines += [f'vedette_baseline_state{{{of},vedette_baseline_state="present"}} 1']
    lines += [f'vedette_baseline_answers{{{of},stream=""}} 5000']
    lines += [f"vedette_baseline_captured_timestamp_seconds{{{of}}} 1700000000"]
    limits = {("", "empty"): (0.1, 0.3), (GATE, "empty"): (0.0, 0.9), (GATE, "brightness"): (200, 220)}
    limits |= {("", "score_distance"): (0, 0.01), ("", "class_distance"): (0, 1), (DARK, "empty"): (0.0, 0.4)}
    for (stream, statistic), bounds in limits.items():
        for bound, value in zip(("low", "high"), bounds, strict=True):
            labels = f'{of},stream="{stream}",statistic="{statistic}",bound="{bound}"'
            lines.append(f"vedette_baseline_limit{{{labels}}} {value}")
    for index, edge in enumerate(edges(traffic.page)):
        lines.append(f'vedette_baseline_score_cumulative_ratio{{{of},edge="{edge}"}} {min(index / 14, 1)}')
    lines += [f'vedette_baseline_class_share_ratio{{{of},class="{name}"}} 0.25' for name in ("stop", "yield")]
    lines += [f'vedette_baseline_class_share_ratio{{{of},class="tram"}} 0.5']
    lines += [f'vedette_baseline_class_detections_per_answer{{{of},class="tram"}} 5']
    # A hundredfold, for there to be enough to judge.
    counted = re.compile(
        r"^(vedette_(?:detections_total|detection_score_bucket|answers_total|empty_answers_total).* )(\S+)$"
    )
    return "\n".join(counted.sub(lambda found: f"{found[1]}{100 * float(found[2])}", line) for line in lines) + "\n"


def edges(page: Page) -> Sequence[str]:
    return sorted((edge for (edge,) in page.by("vedette_detection_score_bucket", "le")), key=float)


@needs_browser
def test_a_saved_scrape_needs_no_server_and_is_held_against_its_baseline(traffic: Traffic, tmp_path: Path) -> None:
    saved, out = tmp_path / "metrics.txt", tmp_path / "report.html"
    saved.write_text(baseline(traffic))
    os.utime(saved, (1_700_000_000, 1_700_000_000))
    ran = report("--scrape", str(saved), "--out", str(out))
    assert ran.exit_code == 0, ran.stderr
    dom, page = Dom(browse(out, tmp_path, "--dump-dom").stdout), Page.parse(saved.read_text())
    assert "2023-11-14 22:13 UTC" in dom.text, "when it was saved"
    assert str(saved) in dom.text
    assert "pictures come from a running server alone" in dom.text
    assert "img" not in {tag for tag, _ in dom.elements}
    buckets = page.by("vedette_detection_score_bucket", "le", **V)
    usual = page.by("vedette_baseline_score_cumulative_ratio", "edge", **V)
    order = [(edge,) for edge in edges(page)]
    distance = ks(cumulative([buckets[edge] for edge in order]), [usual[edge] for edge in order])
    assert f"Kolmogorov-Smirnov distance from the baseline: {distance:.3f}; 0.010 was usual at most." in dom.text
    counts = {name: count for (name,), count in page.by("vedette_detections_total", "class", **V).items()}
    apart = total_variation(shares(counts), {"stop": 0.25, "yield": 0.25, "tram": 0.5})
    assert f"Total variation from the baseline: {apart:.3f}; 1.000 was usual at most." in dom.text
    assert dom.row("Class mix", "tram")[:3] == ["0", "0.0 %", "50.0 %"]
    assert "No “tram” has been found" in dom.text
    assert f"scores of detections lie {distance:.2f} from the baseline's" in dom.text
    assert dom.row("Streams and single images", GATE)[0] == "attention", "its brightness is outside"
    assert "200 to 220" in dom.row("Streams and single images", GATE)[5]
    outside = [attributes for _, attributes in dom.elements if attributes.get("class") == "outside"]
    assert [attributes["title"] for attributes in outside] == ["below what was usual"]


@pytest.mark.parametrize(("arguments", "status", "said"), [
    (("--from", "http://127.0.0.1:9"), 1, "http://127.0.0.1:9 cannot be read as a page of metrics: "),
    (("--from", "file:///etc/hostname"), 1, "no http:// address"),
    (("--scrape", "{missing}"), 1, "No such file"),
    (("--scrape", "{prose}"), 1, "cannot be read as a page of metrics"),
    (("--scrape", "{other}"), 1, "no release of Vedette"),
    (("--scrape", "{binary}"), 1, "cannot be read as a page of metrics"),
    (("--scrape", "{good}", "--out", "{missing}/report.html"), 1, "No such file"),
    (("--scrape", "{good}", "--from", "http://127.0.0.1:9"), 2, "leave out --from"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_said_in_one_line(
    arguments: tuple[str, ...], status: int, said: str, tmp_path: Path
) -> None:
    files = {name: tmp_path / name for name in ("missing", "prose", "other", "binary", "good")}
    files["prose"].write_text("It is quiet.\n")
    files["other"].write_text("node_load1 0.5\n")
    files["binary"].write_bytes(b"\x89PNG\xff\x00")
    files["good"].write_text('vedette_build_info{release="0.1.0"} 1\n')
    out = ("--out", str(tmp_path / "report.html"))
    ran = report(*out, *(word.format(**files) for word in arguments))
    assert ran.exit_code == status
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "report.html").exists()
    if status == 1:
        (line,) = ran.stderr.splitlines()
        assert line.startswith("vedette-server: ")


def test_a_server_that_answers_no_grpc_is_drawn_without_pictures(traffic: Traffic, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    ran = report("--from", traffic.server.http, "--server", "127.0.0.1:9", "--out", str(out))
    assert ran.exit_code == 0, ran.stderr
    assert "no server answers gRPC at 127.0.0.1:9" in Dom(out.read_text()).text


def judged(*lines: str) -> Verdict:
    """The verdict on a version of which these lines tell, beside that a worker is ready."""
    of = 'model="m",version="1"'
    page = [f"vedette_model_ready{{{of}}} 1", f"vedette_workers_ready{{{of}}} 1", f"vedette_workers_wanted{{{of}}} 1"]
    page += [line.replace("{", f"{{{of},").replace(",}", "}") for line in lines]
    (version,) = read(Page.parse("\n".join(page) + "\n"))
    return of_version(version)


def answers(total: int, empty: int, reason: str = "QUIET_SCENE", stream: str = "") -> tuple[str, str]:
    """The answers of a source."""
    return (
        f'vedette_answers_total{{stream="{stream}"}} {total}',
        f'vedette_empty_answers_total{{stream="{stream}",reason="{reason}"}} {empty}',
    )


def brightness(mean: float, low: float, high: float) -> tuple[str, ...]:
    """The mean of a hundred single images, and between what it lay when all was well."""
    return (
        f'vedette_input_brightness_levels_sum{{stream=""}} {100 * mean}',
        'vedette_input_brightness_levels_count{stream=""} 100',
        f'vedette_baseline_limit{{stream="",statistic="brightness",bound="low"}} {low}',
        f'vedette_baseline_limit{{stream="",statistic="brightness",bound="high"}} {high}',
    )


USUAL = 'vedette_baseline_limit{stream="",statistic="empty",bound="high"} 0.5'
NEVER = USUAL.replace("0.5", "0")
NEVER_AT_GATE = NEVER.replace('stream=""', 'stream="gate"')
SUSPECTED = 'vedette_suspected_cause{stream="",cause="IMAGE_ROTATED"} 1'


@pytest.mark.parametrize(("lines", "light", "said"), [
    ((), "idle", "Nothing has been answered yet"),
    (answers(100, 20), "ok", "20.0 % of 100 answers are empty, and no baseline says what is usual"),
    ((*answers(100, 20), USUAL), "ok", "50.0 % were usual at most"),
    ((*answers(100, 99),), "ok", "no baseline says what is usual"),
    ((*answers(100, 60), USUAL), "attention", "the scene may be quiet"),
    ((*answers(100, 60, "BELOW_THRESHOLD"), USUAL), "silenced", "mostly because of BELOW_THRESHOLD: Candidates"),
    ((*answers(100, 60, "BELOW_THRESHOLD"),), "ok", "60.0 %"),
    ((*answers(100, 81, "BELOW_THRESHOLD"),), "silenced", "BELOW_THRESHOLD"),
    ((*answers(20, 20, "BELOW_THRESHOLD"), USUAL), "ok", "fewer than 30 are not judged"),
    ((*answers(100, 60, "OF_A_NEWER_RELEASE"), USUAL), "silenced", "mostly because of OF_A_NEWER_RELEASE."),
    (("vedette_golden_failing{} 1", *answers(100, 5)), "silenced", "answers to its golden images differ"),
    ((SUSPECTED, *answers(100, 5)), "silenced", "IMAGE_ROTATED: The"),
    ((*answers(100, 90, "IMAGE_BLACK", "a"), *answers(900, 9, stream="b")), "attention", "“a” is silenced. 90.0 %"),
    ((*answers(900, 890, "IMAGE_BLACK", "a"), *answers(100, 9, stream="b")), "silenced", "IMAGE_BLACK"),
    (('vedette_nonfinite_rows_total{stage="backbone"} 3', *answers(9, 1)), "attention", "3 regions were dropped"),
    (('vedette_contract_violations_total{reason="SIZE_INVALID"} 3', *answers(9, 1)), "attention", "3 requests"),
    (('vedette_golden_disagreement_ratio{predecessor="7"} 0.9', *answers(9, 1)), "attention", "version 7's golden"),
    (('vedette_baseline_state{vedette_baseline_state="refused"} 1', *answers(9, 1)), "attention", "the server's log"),
    ((*answers(1_000_000, 1, "BELOW_THRESHOLD"), NEVER), "ok", "< 0.1 % of 1,000,000 answers are empty"),
    ((*answers(1_000_000, 1), NEVER), "ok", "< 0.1 %"),
    ((*answers(100, 40, "BELOW_THRESHOLD"), NEVER), "attention", "mostly because of BELOW_THRESHOLD"),
    ((*answers(100, 60, "BELOW_THRESHOLD"), NEVER), "silenced", "mostly because of BELOW_THRESHOLD"),
    ((*answers(100, 15, "IMAGE_BLACK", "gate"), *answers(50, 0), NEVER_AT_GATE), "ok", "10.0 %"),
    ((*answers(100, 40, "IMAGE_BLACK", "gate"), *answers(50, 0), NEVER_AT_GATE), "attention", "“gate” is silenced."),
    ((*answers(100, 90, "IMAGE_BLACK", "gate"), *answers(50, 0), NEVER_AT_GATE), "silenced", "“gate” is silenced."),
    ((*answers(100, 5), *brightness(111, 100, 110)), "ok", "5.0 %"),
    ((*answers(100, 5), *brightness(121, 100, 110)), "attention", "brightness is 121 on average, above the usual 110"),
    ((*answers(100, 5), *brightness(139, 50, 110)), "ok", "5.0 %"),
    (('vedette_baseline_class_detections_per_answer{class="stop"} 0.39', *answers(100, 5)), "ok", "5.0 %"),
    (('vedette_baseline_class_detections_per_answer{class="stop"} 0.4', *answers(100, 5)), "attention", "No “stop”"),
])  # fmt: skip
def test_the_traffic_light_says_why(lines: Sequence[str], light: str, said: str) -> None:
    verdict = judged(*lines)
    sentence = verdict.whys[0].sentence.replace("\N{NO-BREAK SPACE}", " ")
    assert (verdict.light.word, said in sentence) == (light, True), verdict


def test_no_worker_is_silence() -> None:
    (version,) = read(Page.parse('vedette_model_ready{model="m",version="1"} 0\n'))
    assert of_version(version).light is Light.SILENCED
    assert "No worker is ready" in of_version(version).whys[0].sentence


def test_a_class_alone_and_a_stream_alone_are_drawn(tmp_path: Path) -> None:
    """The smallest page there can be, and a stream that only drops."""
    saved, out = tmp_path / "metrics.txt", tmp_path / "report.html"
    of = 'model="m",version="1"'
    lines = [
        'vedette_build_info{release="0.1.0"} 1',
        f"vedette_model_ready{{{of}}} 1",
        f'vedette_answers_total{{{of},stream=""}} 3',
    ]
    lines += [f'vedette_detections_total{{{of},class="stop"}} 3']
    lines += [f'vedette_frames_dropped_total{{{of},stream="late",reason="EXPIRED"}} 7']
    saved.write_text("\n".join(lines) + "\n")
    assert report("--scrape", str(saved), "--out", str(out)).exit_code == 0
    dom = Dom(out.read_text())
    assert dom.row("Class mix", "stop")[:2] == ["3", "100.0 %"]
    assert dom.row("Refused and dropped", "EXPIRED")[0] == "7"
    assert of_source(read(Page.parse(saved.read_text()))[0].sources[-1]).light is Light.IDLE
