"""The page that says what becomes of each kind of video; `make docs` writes it, a test holds it to the rows."""

from vedette_client import opening, saving

from tests.support import videos
from tests.support.videos import Row

_HEAD = """\
# Videos

`vedette stream` and `vedette_client.video.Video` show a video as ffmpeg does: the same frames, with the
same pixels, at the same times. Frames are turned and mirrored by their display matrix, cropped as the codec
says and, of a file on this machine, the container (as ffmpeg does since 7.1), converted to 8-bit BGR by the
same filters, and never scaled, deinterlaced or tone-mapped. What a source does not say of its colours is
taken as ffmpeg takes it.

The tests make each file below with an ffmpeg from outside and compare every frame with what that ffmpeg
shows: no pixel differs by more than {levels} levels and no time by more than {milliseconds} ms; with the
versions of `requirements.lock`, none differs at all.

## What is shown

| video | file of the tests |
| --- | --- |
"""

_DAMAGED = """
## What is damaged

What is whole of these is shown, with ffmpeg's pixels and times; in the end it is said what is missing.

| video | file of the tests | said in the end, with exit code 1 |
| --- | --- | --- |
"""

_REFUSED = """
## What is refused

| what | file of the tests | said before the first frame, with exit code 1 |
| --- | --- | --- |
"""

_FOOT = """
## What becomes of damage

A frame that its decoder marks as damaged, one whose data are not whole, and those up to the next key frame
after data that could not be decoded at all, are not sent: they are told as `FRAME_DAMAGED` (`"error"` in
the lines of `--jsonl`), counted, and left out of the saved video. All others are. A file in which anything
is missing or damaged ends with a line that says how much, and with exit code 1; what was answered up to
there is kept.

That a file breaks off is known from its index (MP4), from its length (Matroska, AVI, ASF, GIF, APNG,
YUV4MPEG), from its duration (FLV, NUT, MXF) or from a last frame that is half there. MPEG-TS, Ogg and
Matroska recorded live promise nothing: where they end between two frames, they have ended. Holes are told
where an index or the bytes between the frames show them. What a decoder conceals without marking it (FFV1's
checksums, single blocks of JPEGs) cannot be told.

## Files and live sources

A file waits to be read: every frame is answered (`--policy lossless`), unless `--fps` plays it. So is a
file behind an HTTP address, of which the length or the duration is known, and one on standard input.

Everything else is live, and looked at as fast as it comes (`--policy latest`): `rtsp`, `rtmp`, `udp`, `rtp`
and `tcp` addresses, cameras by number or device, HTTP cameras (multipart JPEG), HLS and DASH without an
end, pipes and FIFOs. A frame that is too old before anyone takes it is told as dropped, `SUPERSEDED`. HLS
and DASH come in pieces of several seconds and are shown as they were filmed, frame by frame.

A live source that ends, fails or stays silent for {silence} s ({pieces} s for HLS and DASH) has dropped. It
is tried again, with pauses that grow to 5 s, for `--reconnect` seconds (60); then the command ends with
exit code 1. A pipe is read once: its end is the end, and it may be silent for as long as `--reconnect`
says.

## Times and the saved video

`time` in the lines of `--jsonl` is the frame's time in seconds, from the beginning of the file, as ffmpeg
counts it; live, from the first frame. `frame_id` is its number, from 0; numbers go on through frames that
were not sent, rounds of `--loop` and connections.

`--save` writes the frames that were answered, upright, each at its own time: a variable rate stays
variable. Its name ends in {suffixes}.
It is written beside that name and takes it when it is done; an older file stays until then. `--jsonl` takes
its name with the first line, and can be followed from then on. What is cut short (Ctrl-C, a broken source,
a full disk) is kept as far as it goes, and said to be partial; where there is an older file, under NAME-partial.

This page is written by `make docs` from the rows in `tests/support/videos.py`.
"""


def page() -> str:
    """The page, as Markdown."""
    shown = [row for row in videos.ROWS if not row.told]
    damaged = [row for row in videos.ROWS if row.told and not row.refused]
    refused = [row for row in videos.ROWS if row.refused]
    *most, last = saving.SUFFIXES
    head = _HEAD.format(levels=videos.LEVELS, milliseconds=round(videos.SECONDS * 1000))
    foot = _FOOT.format(
        silence=f"{opening.SILENCE_SECONDS:g}",
        pieces=f"{opening.PIECES_SECONDS:g}",
        suffixes=f"{', '.join(most)} and {last}",
    )
    tables = (head, *map(_line, shown), _DAMAGED, *map(_line, damaged), _REFUSED, *map(_line, refused), foot)
    return "".join(tables)


def _line(row: Row) -> str:
    told = f" … {row.told.replace('.*', '…')} … |" if row.told else ""
    return f"| {row.about} | `{row.name}` |{told}\n"


if __name__ == "__main__":
    print(page(), end="")
