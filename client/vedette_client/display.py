"""Decoded frames as pixels: turned, mirrored and converted by the same filters, in the same order, as ffmpeg's own.

FFmpeg shows a frame by its display matrix (`-autorotate`, its default): right angles and mirrors exactly, any other
angle with its `rotate` filter, at the frame's size. What a frame says of its colours (matrix, range) counts; what it
does not say is what swscale takes it for. So pixels here are ffmpeg's, to the last bit where the versions agree.
"""

import math
import struct
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vedette_client.pyav import Graph, SideData, av
from vedette_client.structure import Crop

_Matrix: TypeAlias = tuple[int, ...]  # of 3 x 3 fixed-point numbers, row by row
_Filter: TypeAlias = tuple[str, str]  # its name and its arguments

_NOTHING = Crop()


class Display:
    """Turns frames into BGR8; keeps the filters that it last needed."""

    def __init__(self, crop: Crop = _NOTHING) -> None:
        """`crop`: what the container says is not to be shown."""
        self._crop = [] if crop == _NOTHING else [("crop", _cropping(crop))]
        self._matrix: _Matrix | None = None  # what a frame says holds for those after it that say nothing
        self._graph: Graph | None = None
        self._made_for: tuple[object, ...] = ()
        self.turned = False  # whether the last frame's width is its height now

    def pixels(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """A frame, upright, of shape (height, width, 3), BGR. Raises av.FFmpegError for what has no conversion."""
        matrix = self._matrix = _matrix(frame) or self._matrix
        wanted = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, matrix)
        if self._graph is None or wanted != self._made_for:
            turns = _turns(matrix) if matrix else []
            self.turned = any(name == "transpose" for name, _ in turns)
            self._graph, self._made_for = _graph(frame, [*self._crop, *turns]), wanted
        self._graph.push(frame)
        shown = self._graph.pull()
        assert isinstance(shown, av.VideoFrame)  # noqa: S101  of a graph of video
        return np.asarray(shown.to_ndarray(), np.uint8)


def _matrix(frame: av.VideoFrame) -> _Matrix | None:
    sides: Any = frame.side_data  # a mapping by type, whose types are those of a mapping by text
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
    """The filters by which ffmpeg shows a display matrix."""
    match _angle(matrix):
        case 90:
            return [("transpose", "cclock_flip" if matrix[3] > 0 else "clock")]
        case 180:
            return [("hflip", "")] * (matrix[0] < 0) + [("vflip", "")] * (matrix[4] < 0)
        case 270:
            return [("transpose", "clock_flip" if matrix[3] < 0 else "cclock")]
        case 0:
            return [("vflip", "")] * (matrix[4] < 0)
        case None | 1:  # ffmpeg lets a single degree be, though not 359
            return []
        case angle:
            return [("rotate", f"{angle}*PI/180")]


def _angle(matrix: _Matrix) -> int | None:
    """Degrees, clockwise, from 0 to 359; None for a matrix that flattens the picture."""
    a, b, _, c, d = matrix[:5]
    width, height = math.hypot(a, c), math.hypot(b, d)
    if not width or not height:
        return None
    return round(math.degrees(math.atan2(b / height, a / width))) % 360
