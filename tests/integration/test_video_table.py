"""Videos of every kind, each made here by an ffmpeg from outside and held against what that ffmpeg shows of it."""

import re
from pathlib import Path

import numpy as np
import pytest
from vedette_client import LocalError
from vedette_client.video import Video, VideoFrame

from tests.support import videos, videos_page

ROOT = Path(__file__).parents[2]


def read(path: Path) -> tuple[list[VideoFrame], list[int], str]:
    """The frames that are sent, the numbers of those that are not, and what is said of it in the end."""
    skipped: list[int] = []
    said: list[str] = []
    frames: list[VideoFrame] = []
    video = Video(str(path), skipped=lambda skip: skipped.append(skip.frame_id), notice=said.append)
    try:
        frames.extend(video)
    except LocalError as error:
        said.append(str(error))
    (told,) = said or [""]
    return frames, skipped, told


@pytest.mark.parametrize("row", [row for row in videos.ROWS if not row.refused], ids=lambda row: row.name)
def test_a_video_is_shown_as_by_ffmpeg(row: videos.Row, tmp_path: Path) -> None:
    """Each frame is sent with ffmpeg's pixels and time, or told as damaged; what is missing is said."""
    path = tmp_path / row.name
    row.make(path)
    shown = videos.frames(path)
    frames, skipped, told = read(path)
    assert frames
    assert sorted([*skipped, *(frame.frame_id or 0 for frame in frames)]) == list(range(len(shown)))
    for frame in frames:
        time, pixels = shown[frame.frame_id or 0]
        assert isinstance(frame.image, np.ndarray)
        assert frame.image.shape == pixels.shape
        assert np.abs(frame.image.astype(int) - pixels).max() <= videos.LEVELS
        assert frame.time == pytest.approx(time, abs=videos.SECONDS)
    assert re.search(row.told, told)
    assert bool(told) == bool(row.told)
    assert bool(skipped) == ("damaged frame" in told)


@pytest.mark.parametrize("row", [row for row in videos.ROWS if row.refused], ids=lambda row: row.name)
def test_what_is_no_video_is_refused_with_a_precise_line(row: videos.Row, tmp_path: Path) -> None:
    """Before the first frame."""
    path = tmp_path / row.name
    row.make(path)
    with pytest.raises(LocalError, match=row.told) as error:
        Video(str(path))
    assert "\n" not in str(error.value)


def test_the_page_tells_of_every_row() -> None:
    """The page in the repository is the one that the rows make."""
    assert (ROOT / "deploy/docs/video.md").read_text() == videos_page.page(), "run `make docs`"
