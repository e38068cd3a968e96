"""The frames of an opened source: each with its time, as in ffmpeg, and whether its data was complete."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, TypeAlias

from vedette_client import structure
from vedette_client.errors import LocalError
from vedette_client.opening import Kind, Opened
from vedette_client.pyav import ThreadType, av, reason

_GENERATE_TIMES: Final = 1  # AVFMT_FLAG_GENPTS, set by PyAV: it invents times where ffmpeg waits for the decoder's
_UNALIGNED: Final = 1  # AV_CODEC_FLAG_UNALIGNED: crop exactly as the stream says
_TIMES_JUMP: Final = 0x200  # AVFMT_TS_DISCONT
_ARRIVALS: Final = 256  # packets whose arrival is remembered until their frames appear

_JUMP: Final = Fraction(10)  # seconds ahead from which ffmpeg assumes a different clock
_BACK: Final = Fraction(1, 10)  # seconds of backward steps that are tolerated
_TIMED: Final = ("flv", "nut", "mxf")  # containers that declare their length in the header only
_TOLERANCE: Final = Fraction(1, 2)  # seconds by which that may be wrong
_DENSE: Final = ("flv", "matroska", "nut")  # containers with nothing but consecutive packets
_HOLE: Final = 4096  # bytes between two packets that indicate missing data there

_JOINED: Final = ("mpegts", "hls")  # formats that also mark complete packets at seams, so the decoder's verdict counts

_JPEG_END: Final = b"\xff\xd9"
_JPEG_TAIL: Final = 1024  # bytes that may contain the marker, because some cameras pad their frames

Packet: TypeAlias = "av.Packet[Any]"


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A frame from the decoder."""

    frame: "av.VideoFrame"
    time: Fraction  # seconds from the start of the source
    duration: Fraction  # seconds; an estimate if the source does not declare it
    damaged: bool  # marked by the decoder, or made from incomplete data
    arrived: float  # arrival of its data, in seconds since the epoch


class Clock:
    """The times of frames, as in the ffmpeg command.

    They start at 0 with whichever stream starts first in the file. Of a frame's presentation time and its decoding
    time, the one that was wrong less often counts. If both are unknown, the frame follows the previous one.
    """

    def __init__(self, unit: Fraction, start: Fraction, rate: Fraction | None, *, jumps: bool) -> None:
        self._unit = unit
        self._start = round(start / unit)
        self._rate = rate
        self._jumps = jumps  # the format's times may jump, as in broadcasts
        self._offset = Fraction(0)
        self._before = Fraction(0)  # decoding time of the last packet
        self._expected: Fraction | None = None  # expected decoding time of the next packet
        self._wrong_shown = self._wrong_decoded = 0
        self._shown: int | None = None
        self._decoded: int | None = None
        self._last: int | None = None
        self._step = 0

    def straighten(self, packet: Packet) -> None:
        """Remove a jump from the times of this packet and the following ones."""
        if not self._jumps or packet.dts is None:
            return
        due = packet.dts * self._unit + self._offset
        if self._expected is not None:
            ahead = due - self._expected
            if abs(ahead) > _JUMP or due + _BACK < self._before:
                self._offset -= ahead
                due -= ahead
        packet.dts += round(self._offset / self._unit)
        if packet.pts is not None:
            packet.pts += round(self._offset / self._unit)
        self._before = due
        self._expected = due + (packet.duration or 0) * self._unit

    def time(self, frame: "av.VideoFrame") -> tuple[Fraction, Fraction]:
        """Return a frame's presentation time and duration, in seconds."""
        shown = self._better(frame.pts, frame.dts)
        now = shown - self._start if shown is not None else 0 if self._last is None else self._last + self._step
        since = now - self._last if self._last is not None else 0
        guessed = frame.duration == 1 and since > 2  # libavformat's value for an unknown duration
        if frame.duration > 0 and not guessed:
            self._step = frame.duration
        elif since > 0:
            self._step = since
        elif self._rate:
            self._step = round(1 / self._rate / self._unit)
        self._step = max(self._step, 1)
        self._last = now
        return now * self._unit, self._step * self._unit

    def _better(self, shown: int | None, decoded: int | None) -> int | None:
        if decoded is not None:
            self._wrong_decoded += self._decoded is not None and decoded <= self._decoded
            self._decoded = decoded
        elif shown is not None:
            self._decoded = shown
        if shown is not None:
            self._wrong_shown += self._shown is not None and shown <= self._shown
            self._shown = shown
        elif decoded is not None:
            self._shown = decoded
        if shown is not None and (decoded is None or self._wrong_shown <= self._wrong_decoded):
            return shown
        return decoded


class Decoding:
    """One pass over a source."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._stream = opened.stream
        self._container = opened.container
        self._format = opened.container.format.name.split(",")
        self._container.flags &= ~_GENERATE_TIMES
        context = self._stream.codec_context
        context.flags |= _UNALIGNED
        context.thread_type = ThreadType.SLICE  # frame threads would hide which packet caused an error
        context.thread_count = 0
        self.unit = self._stream.time_base or Fraction(1, 1000)
        self._begin = Fraction(self._container.start_time or 0, av.time_base)
        jumps = bool(self._container.format.flags & _TIMES_JUMP)
        self._clock = Clock(self.unit, self._begin, self._stream.average_rate, jumps=jumps)
        self._arrivals: dict[int | None, float] = {}  # by presentation time, in units
        self._half: set[int] = set()  # presentation times of incomplete packets
        self._last_is_half = False
        self._jpegs_have_ends = False
        self._end = Fraction(0)  # of the stream that ends last, on the source's own clock
        self._longest = Fraction(0)  # seconds from one end to the next
        self._read_until = 0  # bytes
        self._holes: list[str] = []  # places where demuxing resumed after unreadable data
        self._packets = 0
        self._frames_seen = 0
        self._lost = 0  # packets that could not be decoded
        self._builds_on_lost = False  # until the next key frame
        self._hidden = 0  # packets whose frames are not shown
        self._damaged = 0  # frames
        self.shown = Fraction(0)  # seconds of video so far
        self.damage = ""  # missing or damaged parts of a file that was read to its end

    @property
    def promised(self) -> int | None:
        """The number of frames that a file declares, or None."""
        if self._opened.kind is not Kind.FILE or not self._stream.frames:
            return None
        if "mp4" in self._format:
            return sum(not entry.is_discard for entry in self._stream.index_entries)
        return self._stream.frames

    def __iter__(self) -> Iterator[Decoded]:
        """Yield the frames. Raises `LocalError` if the source breaks off, even before a file's declared end."""
        try:
            for packet in self._container.demux():
                if packet.size:
                    self._see(packet)
                if packet.stream.index == self._stream.index:  # the only property of the last, empty packets
                    yield from self._frames(packet)
        except (OSError, ValueError, av.FFmpegError) as error:
            raise LocalError(self._breaks_off(reason(error))) from error
        if self._opened.kind is Kind.FILE:
            self._check()

    def _see(self, packet: Packet) -> None:
        """Record the progress of a source, audio included, and the data skipped on the way."""
        position = packet.pos or 0
        times = [moment for moment in (packet.pts, packet.dts) if moment is not None]
        if times and packet.time_base:
            begin, end = self._end - self._begin, min(times) * packet.time_base - self._begin
            dense = self._opened.kind is Kind.FILE and self._format[0] in _DENSE
            if dense and position - self._read_until > _HOLE and self._read_until and end > begin:
                self._holes.append(f"{float(begin):.2f} to {float(end):.2f} s")
            until = (max(times) + (packet.duration or 0)) * packet.time_base
            self._longest = max(self._longest, until - self._end if self._end else Fraction(0))
            self._end = max(self._end, until)
        self._read_until = max(self._read_until, position + packet.size)

    def _frames(self, packet: Packet) -> Iterator[Decoded]:
        arrived = time.time()
        at_end = not packet.size and packet.dts is None
        if not at_end:
            self._note(packet, arrived)
            if not packet.size:  # a repeated frame, which decoders would take for the end
                self._hidden += 1
                return
        try:
            frames = packet.decode()
        except (av.FFmpegError, ValueError):
            self._lost += not at_end
            self._builds_on_lost = True
            return
        for frame in frames:
            now, duration = self._clock.time(frame)
            half = self._last_is_half if frame.pts is None else frame.pts in self._half
            self._builds_on_lost = self._builds_on_lost and not frame.key_frame
            damaged = frame.is_corrupt or half or self._builds_on_lost
            self._frames_seen += 1
            self._damaged += damaged
            self.shown = max(self.shown, now + duration)
            yield Decoded(
                frame=frame,
                time=now,
                duration=duration,
                damaged=damaged,
                arrived=self._arrivals.pop(frame.pts, arrived),
            )

    def _note(self, packet: Packet, arrived: float) -> None:
        self._clock.straighten(packet)
        self._packets += 1
        self._hidden += packet.is_discard
        doubtful = packet.is_corrupt and self._format[0] not in _JOINED
        self._last_is_half = doubtful or self._is_half_a_jpeg(packet)
        if packet.pts is None:
            return
        if self._last_is_half:
            self._half.add(packet.pts)
        self._arrivals[packet.pts] = arrived
        if len(self._arrivals) > _ARRIVALS:
            self._arrivals.pop(next(iter(self._arrivals)))

    def _is_half_a_jpeg(self, packet: Packet) -> bool:
        """Return whether a JPEG lacks its end, which its decoder tolerates; some cameras never write one."""
        if self._stream.codec_context.name != "mjpeg" or not packet.size:
            return False
        has_end = _JPEG_END in bytes(packet)[-_JPEG_TAIL:]
        self._jpegs_have_ends |= has_end
        return self._jpegs_have_ends and not has_end

    def _breaks_off(self, why: str) -> str:
        name = self._opened.name
        return f"{name} breaks off after {float(self.shown):.2f} s: {why}" if self._packets else f"{name}: {why}"

    def _check(self) -> None:
        """Compare the frames read to the file's own declarations. Raises `LocalError`."""
        cut = structure.missing_bytes(self._opened.path) if self._opened.path else 0
        expected = self._expected_packets(cut)
        absent = max(expected - self._packets, 0)
        early = self._ends_early()
        lost = self._lost
        if lost or self._damaged:  # some decoders silently yield nothing for frames that depend on these
            lost = max(lost, self._packets - self._hidden - self._frames_seen)
        counts = {
            f"{absent} of {expected} frames are missing": absent,
            f"{cut} bytes are missing at its end": 0 if absent else cut,
            early: bool(early and not absent and not cut),
            f"frames are missing at {', '.join(self._holes)}": bool(self._holes),
            f"{lost} of {self._packets} frames could not be decoded": lost,
            f"{self._damaged} damaged frame{'s were' if self._damaged > 1 else ' was'} not sent": self._damaged,
        }
        told = [text for text, count in counts.items() if count]
        if cut or early or self._last_is_half:
            raise LocalError(self._breaks_off(", ".join(told)))
        if told:
            self.damage = f"{self._opened.name} is damaged: {', '.join(told)}"
        if not self._packets:
            msg = f"{self._opened.name} holds no frames"
            raise LocalError(msg)

    def _expected_packets(self, cut: int) -> int:
        indexed = len(self._stream.index_entries)
        if "mp4" in self._format or ("avi" in self._format and not cut):  # an AVI header's count is often wrong
            return indexed
        return max(self._stream.frames, indexed)

    def _ends_early(self) -> str:
        """Return the evidence that a file is truncated; empty if there is none."""
        container = self._container
        if self._format[0] == "yuv4mpegpipe":
            return "its last frame is incomplete" if container.size > self._read_until else ""
        if self._format[0] not in _TIMED or container.duration is None:
            return ""
        promised = Fraction(container.duration, av.time_base)
        ends = max(self._end, self._end - self._begin) + max(_TOLERANCE, self._longest)
        return f"its header declares {float(promised):.2f} s" if ends < promised else ""
