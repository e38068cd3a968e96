"""Decoded frames as pixels: rotated, mirrored and converted by ffmpeg's own filters, in ffmpeg's order.

FFmpeg applies a frame's display matrix (`-autorotate`, its default): right angles and mirrors exactly, any other angle
with its `rotate` filter, at the frame's size. A frame's declared colours (matrix, range) apply; swscale's defaults fill
in the rest. So the pixels here are ffmpeg's, to the last bit if the versions agree.
"""

import math
import struct
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vedette_client.pyav import Graph, SideData, av
from vedette_client.structure import Crop

_Matrix: TypeAlias = tuple[int, ...]  # 3 x 3 fixed-point numbers, row by row
_Filter: TypeAlias = tuple[str, str]  # name and arguments

_NOTHING = Crop()


class Display:
    """Converter of frames to BGR8; it caches the latest filters."""

    def __init__(self, crop: Crop = _NOTHING) -> None:
        """`crop` is the area that the container hides."""
        self._crop = [] if crop == _NOTHING else [("crop", _cropping(crop))]
        self._matrix: _Matrix | None = None  # a frame's matrix applies to the following ones without a matrix
        self._graph: Graph | None = None
        self._made_for: tuple[object, ...] = ()
        self.turned = False  # the last frame's width and height are swapped

    def pixels(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Convert a frame, upright: shape (height, width, 3), BGR. Raises av.FFmpegError if no conversion exists."""
        matrix = self._matrix = _matrix(frame) or self._matrix
        wanted = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, matrix)
        if self._graph is None or wanted != self._made_for:
            turns = _turns(matrix) if matrix else []
            self.turned = any(name == "transpose" for name, _ in turns)
            self._graph, self._made_for = _graph(frame, [*self._crop, *turns]), wanted
        self._graph.push(frame)
        shown = self._graph.pull()
        assert isinstance(shown, av.VideoFrame)  # noqa: S101  a video graph yields video
        return np.asarray(shown.to_ndarray(), np.uint8)


def _matrix(frame: av.VideoFrame) -> _Matrix | None:
    sides: Any = frame.side_data  # a mapping by type; PyAV's stubs say by text
    data = sides.get(SideData.DISPLAYMATRIX)
    return struct.unpack("=9i", bytes(data)) if data is not None else None


def _graph(frame: av.VideoFrame, changes: list[_Filter]) -> Graph:
    source = (
        f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1000:pixel_aspect=1/1"
        f":colorspace={int(frame.colorspace)}:range={int(frame.color_range)}"
    )
    filters = [("buffer", source), *changes, ("format", "pix_fmts=bgr24"), ("buffersink", "")]
    graph = Graph()
    graph.link_nodes(*(graph.add(name, arguments or None) for name, arguments in filters)).configure()
    return graph


def _cropping(crop: Crop) -> str:
    return f"w=iw-{crop.left + crop.right}:h=ih-{crop.top + crop.bottom}:x={crop.left}:y={crop.top}"


def _turns(matrix: _Matrix) -> list[_Filter]:
    """Return the filters with which ffmpeg applies a display matrix."""
    match _angle(matrix):
        case 90:
            return [("transpose", "cclock_flip" if matrix[3] > 0 else "clock")]
        case 180:
            return [("hflip", "")] * (matrix[0] < 0) + [("vflip", "")] * (matrix[4] < 0)
        case 270:
            return [("transpose", "clock_flip" if matrix[3] < 0 else "cclock")]
        case 0:
            return [("vflip", "")] * (matrix[4] < 0)
        case None | 1:  # ffmpeg ignores one degree, but not 359
            return []
        case angle:
            return [("rotate", f"{angle}*PI/180")]


def _angle(matrix: _Matrix) -> int | None:
    """Return degrees, clockwise, from 0 to 359; None for a degenerate matrix."""
    a, b, _, c, d = matrix[:5]
    width, height = math.hypot(a, c), math.hypot(b, d)
    if not width or not height:
        return None
    return round(math.degrees(math.atan2(b / height, a / width))) % 360
