"""The page that says what becomes of each kind of video; `make docs` writes it, a test holds it to the rows."""

from vedette_client import opening, saving

from tests.support import videos
from tests.support.videos import Row

_HEAD = """\
# Videos

`vedette stream` and `vedette_client.video.Video` show a video as ffmpeg does: the same frames, with the same pixels, at
the same times. They rotate and mirror frames by their display matrix, and crop them as the codec says. Of local files,
they also apply the container's cropping, as ffmpeg does since 7.1. The same filters convert frames to 8-bit BGR. Frames
are never scaled, deinterlaced or tone-mapped. If a source does not declare its colours, ffmpeg's defaults apply.

The tests make each file below with an independent ffmpeg, and compare every frame with what that ffmpeg shows. No pixel
differs by more than {levels} levels and no time by more than {milliseconds} ms. With the versions of
`requirements.lock`, none differs at all.

## Supported videos

| video | file of the tests |
| --- | --- |
"""

_DAMAGED = """
## Damaged videos

The intact frames of these are shown, with ffmpeg's pixels and times. A message at the end says what is missing.

| video | file of the tests | message at the end, with exit code 1 |
| --- | --- | --- |
"""

_REFUSED = """
## Refused files

| file | name in the tests | message before the first frame, with exit code 1 |
| --- | --- | --- |
"""

_FOOT = """
## Handling of damage

Damaged frames are not sent. A frame is damaged if its decoder says so, or if its data are incomplete. After data that
cannot be decoded at all, so are all frames up to the next key frame. The command reports damaged frames as
`FRAME_DAMAGED` (`"error"` in the lines of `--jsonl`), counts them, and leaves them out of the saved video. All other
frames are sent. If anything is missing or damaged, the command ends with a line that says how much, and with exit code
1. Earlier answers are kept.

The index (MP4), the length (Matroska, AVI, ASF, GIF, APNG, YUV4MPEG) or the duration (FLV, NUT, MXF) shows if a file is
truncated. So does an incomplete last frame. MPEG-TS, Ogg and Matroska recorded live promise nothing: if they end
between two frames, they have ended. Gaps are reported if an index or the bytes between the frames show them. Damage
that a decoder conceals without marking it (FFV1's checksums, single blocks of JPEGs) cannot be detected.

## Files and live sources

The client reads a file at its own pace and gets an answer for every frame (`--policy lossless`), unless `--fps` plays
it. A file behind an HTTP address with a known length or duration is treated the same way, and so is one on standard
input.

Everything else is live, and processed as fast as it arrives (`--policy latest`). Live sources are `rtsp`, `rtmp`,
`udp`, `rtp` and `tcp` addresses, cameras by number or device, HTTP cameras (multipart JPEG), HLS and DASH without an
end, pipes and FIFOs. A frame that is outdated before anyone takes it is reported as dropped, `SUPERSEDED`. HLS and DASH
arrive in segments of several seconds and are shown as they were filmed, frame by frame.

A live source is lost if it ends, fails or stays silent for {silence} s ({pieces} s for HLS and DASH). The client
reconnects, with pauses that grow to 5 s, for `--reconnect` seconds (60). Then the command ends with exit code 1. A pipe
is read once: its end is final, and it may be silent for as long as `--reconnect` says.

## Times and the saved video

`time` in the lines of `--jsonl` is the frame's time in seconds. It counts from the beginning of the file, as in ffmpeg;
live, from the first frame. `frame_id` is the frame's number, from 0. Numbers continue through frames that were not
sent, rounds of `--loop` and connections.

`--save` writes the answered frames, upright, each at its own time: a variable rate stays variable. Its name ends in
{suffixes}.
The command writes beside that name and renames the file when it is complete; an older file stays until then. `--jsonl`
takes its name with the first line, and can be followed from then on. If the command is cut short (Ctrl-C, a broken
source, a full disk), the partial video is kept, and a message says that it is partial. If there is an older file, the
partial one is named NAME-partial.

`make docs` writes this page from the rows in `tests/support/videos.py`.
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
        suffixes=f"{', '.join(most)} or {last}",
    )
    tables = (head, *map(_line, shown), _DAMAGED, *map(_line, damaged), _REFUSED, *map(_line, refused), foot)
    return "".join(tables)


def _line(row: Row) -> str:
    told = f" … {row.told.replace('.*', '…')} … |" if row.told else ""
    return f"| {row.about} | `{row.name}` |{told}\n"


if __name__ == "__main__":
    print(page(), end="")
