"""The renderer: the same seed gives the same picture, and labels say what is visible."""

import hashlib
from pathlib import Path

import av
import numpy as np
from vedette_server.demo import clips, scenes, signs


def digest(picture: scenes.Picture) -> str:
    return hashlib.sha256(
        picture.pixels.tobytes() + b"".join(sign.mask.tobytes() for sign in picture.signs)
    ).hexdigest()


def test_a_seed_decides_everything() -> None:
    first, again, other = (digest(scenes.draw(scenes.describe(seed))) for seed in (41, 41, 42))
    assert first == again
    assert first != other


def test_labels_lie_within_the_picture_and_do_not_overlap() -> None:
    width, height = scenes.SIZE
    for seed in range(30):
        picture = scenes.draw(scenes.describe(seed))
        assert picture.pixels.shape == (height, width, 3)
        assert picture.pixels.dtype == np.uint8
        covered = np.zeros((height, width), int)
        for sign in picture.signs:
            assert sign.name in signs.CLASSES
            x0, y0, x1, y1 = sign.box
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
            covered += sign.mask
        assert covered.max() <= 1


def test_some_scenes_are_quiet_and_all_classes_occur() -> None:
    described = [scenes.describe(seed) for seed in range(300)]
    quiet = sum(not any(item.name for item in scene.placed) for scene in described)
    assert 30 < quiet < 90
    assert {item.name for scene in described for item in scene.placed} == {*signs.CLASSES, None}
    assert not any(item.name for item in scenes.describe(1, quiet=True).placed)


def test_a_decoy_is_a_face_with_red_and_blue_exchanged() -> None:
    rng = np.random.default_rng(3)
    faces = {
        name: signs.face(name, np.random.default_rng(0))[..., :3].reshape(-1, 3).mean(axis=0) for name in signs.CLASSES
    }
    assert faces["stop"][0] > faces["stop"][2]
    assert faces["parking"][2] > faces["parking"][0]
    assert signs.decoy(rng).shape == (signs.PATCH, signs.PATCH, 4)


def test_a_clip_becomes_a_video_file(tmp_path: Path) -> None:
    clip = scenes.Clip(seed=7, frames=6)
    clips.write(clip, tmp_path / "clip.mp4")
    with av.open(tmp_path / "clip.mp4") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 6
    for frame, picture in zip(frames, clip, strict=True):
        assert np.abs(frame.astype(float) - picture.pixels).mean() < 12, "the codec loses a little, the order nothing"


def test_a_clip_comes_nearer() -> None:
    clip = scenes.Clip(seed=7, frames=5)
    first, last = clip.scene(0), clip.scene(4)
    assert [item.side for item in first.placed] < [item.side for item in last.placed]
    frames = list(clip)
    assert len(frames) == 5
    assert len({digest(frame) for frame in frames}) == 5
