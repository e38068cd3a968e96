"""Export of a moving scene as a video file."""

from pathlib import Path

import av

from vedette_server.demo import scenes


def write(clip: scenes.Clip, path: Path) -> None:
    """Write a clip as H.264, in the container given by the path's suffix, such as .mp4."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=clip.fps)
        stream.width, stream.height = scenes.SIZE
        stream.pix_fmt = "yuv420p"
        for picture in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture.pixels, format="rgb24")))
        container.mux(stream.encode(None))
