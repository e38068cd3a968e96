"""An AVIF's boxes and its AV1 headers, made by hand after their specifications: each size that a decoder would take."""

import struct
from collections.abc import Sequence
from typing import Any

import pytest
from vedette_server.contract import avif
from vedette_server.contract.refusal import Reason, Refused

WIDTH, HEIGHT = 2_000, 1_600
ROOM = 2**20  # pixels by which a frame may exceed the picture
Fields = Sequence[tuple[int, int]]  # values and their bits


def packed(*fields: tuple[int, int]) -> bytes:
    bits = "".join(f"{value:0{count}b}" for value, count in fields if count)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "1"), 2).to_bytes(-(-len(bits) // 8), "big")


ONES = (2**32 - 1, 32)
SIZE: Fields = ((10, 4), (11, 4), (WIDTH - 1, 11), (HEIGHT - 1, 12))
POINT: Fields = ((4_095, 12), (7, 5))  # of a level without a tier
MODEL: Fields = ((1, 1), (9, 5), ONES, (1_023, 10))  # delays of ten bits

# What lies between the profile and the size in a sequence header (AV1 specification, 5.5).
HEADERS: dict[str, Fields] = {
    "reduced": [(1, 1), (31, 5)],
    "plain": [(0, 1), (0, 1), (0, 1), (0, 5), *POINT],
    "of a level with a tier": [(0, 1), (0, 1), (0, 1), (0, 5), (4_095, 12), (8, 5), (1, 1)],
    "of two operating points": [(0, 1), (0, 1), (0, 1), (1, 5), *POINT, (4_095, 12), (31, 5), (1, 1)],
    "with timing": [(0, 1), (1, 1), ONES, ONES, (0, 1), (0, 1), (0, 1), (0, 5), *POINT],
    "with an interval": [(0, 1), (1, 1), ONES, ONES, (1, 1), (0, 3), (1, 1), (7, 3), (0, 1), (0, 1), (0, 5), *POINT],
    "with the longest interval": [(0, 1), (1, 1), ONES, ONES, (1, 1), (0, 32), (0, 1), (0, 1), (0, 5), *POINT],
    "with a decoder model": [
        *[(0, 1), (1, 1), ONES, ONES, (0, 1), *MODEL, (0, 1), (1, 5)],
        *[*POINT, (1, 1), (2**21 - 1, 21)],
        *[*POINT, (0, 1)],
    ],
    "with display delays": [(0, 1), (0, 1), (1, 1), (1, 5), *POINT, (1, 1), (15, 4), *POINT, (0, 1)],
    "with all of it": [
        *[(0, 1), (1, 1), ONES, ONES, (1, 1), (0, 1), (1, 1), (1, 1), *MODEL, (1, 1), (0, 5)],
        *[(4_095, 12), (9, 5), (0, 1), (1, 1), (2**21 - 1, 21), (1, 1), (15, 4)],
    ],
}


def header(kind: str = "plain", size: Fields = SIZE) -> bytes:
    return packed((7, 3), (1, 1), *HEADERS[kind], *size)


def unit(kind: int, content: bytes, *, extension: bool = False, sized: bool = True) -> bytes:
    """An open bitstream unit."""
    start = bytes([kind << 3 | extension << 2 | sized << 1]) + b"\xff" * extension
    length = b""
    rest = len(content)
    while sized:
        length += bytes([rest & 127 | (rest > 127) << 7])
        rest >>= 7
        if not rest:
            break
    return start + length + content


SEQUENCE, SMALL = unit(1, header()), unit(1, header("reduced", ((3, 4), (3, 4), (15, 4), (15, 4))))
DELIMITER, PADDING = unit(2, b""), unit(15, bytes(300))

STREAMS: dict[str, bytes] = {
    "alone": SEQUENCE,
    "behind a delimiter": DELIMITER + SEQUENCE,
    "behind padding whose length takes two bytes": PADDING + SEQUENCE,
    "behind padding of 128 bytes": unit(15, bytes(128)) + SEQUENCE,
    "behind padding whose length takes three bytes": unit(15, bytes(20_000)) + SEQUENCE,
    "before other units": SEQUENCE + PADDING,
    "with a reserved bit": bytes([SEQUENCE[0] | 1]) + SEQUENCE[1:],
    "with an extension": DELIMITER + unit(1, header(), extension=True),
    "without a length": DELIMITER + unit(1, header(), sized=False),
    "with an extension and without a length": unit(1, header(), extension=True, sized=False),
    "behind a smaller one": SMALL + SEQUENCE,
    **{f"a header {kind}": unit(1, header(kind)) for kind in HEADERS},
}


def box(kind: bytes, *content: bytes, wide: bool = False) -> bytes:
    whole = b"".join(content)
    return (
        struct.pack(">I4sQ", 1, kind, 16 + len(whole)) + whole
        if wide
        else struct.pack(">I4s", 8 + len(whole), kind) + whole
    )


FILE_TYPE = box(b"ftyp", b"avif\0\0\0\0mif1avif")
START = len(FILE_TYPE) + 8  # of the data
FULL = bytes(4)  # version and flags


def items(*kinds: bytes, version: int = 0, entry: int = 2) -> bytes:
    """The list of items, numbered from 1."""
    layout = ">B3xHH4s" if entry == 2 else ">B3xIH4s"
    entries = [box(b"infe", struct.pack(layout, entry, number, 0, kind)) for number, kind in enumerate(kinds, start=1)]
    return box(b"iinf", struct.pack(">B3xI" if version else ">B3xH", version, len(kinds)), *entries)


def places(
    *extents: Sequence[tuple[int, int]], version: int = 0, method: int = 0, base: int = 0, index: int = 0
) -> bytes:
    """Where each item lies: offsets and lengths of four bytes, a base and an index of as many bytes as given."""
    sizes = bytes([version, 0, 0, 0, 0x44, (8 if base else 0) << 4 | index])
    content = (len(extents)).to_bytes(4 if version == 2 else 2, "big")
    for number, parts in enumerate(extents, start=1):
        content += number.to_bytes(4 if version == 2 else 2, "big")
        content += struct.pack(">H", method) if version else b""
        content += b"\xff\xff" + (base.to_bytes(8, "big") if base else b"") + struct.pack(">H", len(parts))
        for offset, length in parts:
            content += b"\xff" * (index if version else 0) + struct.pack(">II", offset, length)
    return box(b"iloc", sizes, content)


def properties(depth: int = 0) -> bytes:
    return box(
        b"iprp",
        box(b"ipma", box(b"av1C", bytes([129, 0, 0x40, 0]))),
        box(b"ipco", box(b"ispe", b"\xff" * 12), box(b"av1C", bytes([129, 0, depth, 0]))),
    )


def file(*inside: bytes, data: bytes = SEQUENCE, wide: bool = False) -> bytes:
    return FILE_TYPE + box(b"mdat", data) + box(b"meta", FULL, *inside, wide=wide)


LENGTH = len(SEQUENCE)
ONE = [(START, LENGTH)]
APART = [(START + 5, 3), (START + 8, LENGTH - 3)]  # the sequence in two parts

FILES: dict[str, bytes] = {
    "usual": file(properties(), items(b"av01"), places(ONE)),
    "in a box of 64 bits": file(properties(), items(b"av01"), places(ONE), wide=True),
    "of a list of the second version": file(properties(), items(b"av01", version=1), places(ONE)),
    "of an entry of the third version": file(properties(), items(b"av01", entry=3), places(ONE)),
    "of places of the first version": file(properties(), items(b"av01"), places(ONE, version=1)),
    "of places of the second version": file(properties(), items(b"av01"), places(ONE, version=2)),
    "with indices": file(properties(), items(b"av01"), places(ONE, version=1, index=4)),
    "of the first places, which have no indices": file(properties(), items(b"av01"), places(ONE, index=4)),
    "from a base": file(properties(), items(b"av01"), places([(2, LENGTH)], base=START - 2)),
    "in two parts": file(properties(), items(b"av01"), places(APART), data=bytes(5) + SEQUENCE),
    "to the end of the file": file(properties(), items(b"av01"), places([(START, 0)])),
    "behind another item": file(properties(), items(b"Exif", b"av01"), places([(10**9, 10**9)], ONE, version=1)),
    "behind a smaller one": file(
        properties(),
        items(b"av01", b"av01"),
        places([(START, len(SMALL))], [(START + len(SMALL), LENGTH)]),
        data=SMALL + SEQUENCE,
    ),
    "beside the metadata": file(
        properties(),
        box(b"idat", bytes(3) + SEQUENCE),
        items(b"av01"),
        places([(3, LENGTH)], version=1, method=1),
        data=b"",
    ),
    **{
        f"of a stream {kind}": file(properties(), items(b"av01"), places([(START, len(stream))]), data=stream)
        for kind, stream in STREAMS.items()
    },
}


@pytest.mark.parametrize("kind", FILES)
def test_a_frame_may_exceed_the_picture_by_little(kind: str) -> None:
    avif.check(FILES[kind], WIDTH * HEIGHT - ROOM)
    with pytest.raises(Refused) as caught:
        avif.check(FILES[kind], WIDTH * HEIGHT - ROOM - 1)
    assert caught.value.reason is Reason.IMAGE_UNREADABLE
    assert caught.value.facts == {
        "seen": f"it is an AVIF whose frames are 2000 x 1600 pixels, and its picture has {WIDTH * HEIGHT - ROOM - 1}",
        "remedy": "save it again, or as PNG or JPEG",
    }


def test_the_last_box_may_reach_to_the_end() -> None:
    whole = file(properties(), items(b"av01"), places(ONE))
    at = whole.index(b"meta") - 4
    for length in (0, len(whole) - at + 1_000):
        with pytest.raises(Refused, match="2000 x 1600"):
            avif.check(whole[:at] + struct.pack(">I", length) + whole[at + 4 :], 1)


def test_only_items_that_are_streams_are_read() -> None:
    avif.check(file(properties(), items(b"hvc1"), places(ONE)), 1)


@pytest.mark.parametrize("depth", [0x40, 0x60])
def test_deep_samples_are_told_by_their_flag(depth: int) -> None:
    with pytest.raises(Refused) as caught:
        avif.check(file(properties(depth), items(b"av01"), places(ONE)), WIDTH * HEIGHT)
    assert (caught.value.reason, caught.value.facts) == (Reason.IMAGE_TOO_DEEP, {"codec": "AVIF"})
    avif.check(file(properties(0xBF & ~depth), items(b"av01"), places(ONE)), WIDTH * HEIGHT)


def test_an_animation_is_told_by_its_tracks() -> None:
    with pytest.raises(Refused) as caught:
        avif.check(FILES["usual"] + box(b"moov"), WIDTH * HEIGHT)
    assert (caught.value.reason, caught.value.facts) == (Reason.IMAGE_ANIMATED, {"frames": "several"})


WHOLE = FILES["usual"]
BROKEN: dict[str, bytes] = {
    "no metadata": FILE_TYPE + box(b"mdat", SEQUENCE),
    "no properties": file(items(b"av01"), places(ONE)),
    "no list of items": file(properties(), places(ONE)),
    "no places": file(properties(), items(b"av01")),
    "a box that ends before it begins": WHOLE + struct.pack(">I4s", 7, b"free"),
    "a box of 64 bits that ends before it begins": WHOLE + struct.pack(">I4sQ", 1, b"free", 15),
    "half of a length": WHOLE + struct.pack(">I4sI", 1, b"free", 0),
    "an item beyond the end": file(properties(), items(b"av01"), places([(START, 10**6)])),
    "an item a byte beyond the end": file(properties(), items(b"av01"), places([(len(WHOLE) - 9, 10)])),
    "more places than there are": WHOLE[:-16] + b"\0\2" + WHOLE[-14:],
    "a stream that is cut": file(properties(), items(b"av01"), places([(START, 5)])),
    "a length that does not end": file(properties(), items(b"av01"), places([(START, 4)]), data=b"\x0a\xff\xff\xff"),
    "nothing": b"",
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_file_that_does_not_add_up_is_cut_off(what: str) -> None:
    with pytest.raises(Refused) as caught:
        avif.check(BROKEN[what], WIDTH * HEIGHT)
    facts: dict[str, Any] = {"bytes": str(len(BROKEN[what])), "codec": "AVIF"}
    assert (caught.value.reason, caught.value.facts) == (Reason.IMAGE_TRUNCATED, facts)


@pytest.mark.parametrize(
    ("data", "known"),
    [
        (FILE_TYPE, True),
        (box(b"ftyp", b"avis\0\0\0\0"), True),
        (box(b"ftyp", b"mif1\0\0\0\0miafavif"), True),
        (box(b"ftyp", b"mif1\0\0\0\0miavifaf"), False),  # across two brands
        (box(b"ftyp", b"mif1\0\0\0\0miaf") + b"avif", False),  # behind the box
        (box(b"ftyp", bytes(244), b"avif"), True),
        (box(b"ftyp", bytes(248), b"avif"), False),  # far beyond any list
        (box(b"free", b"avif\0\0\0\0"), False),
        (b"", False),
    ],
)
def test_any_brand_at_the_start_tells_an_avif(data: bytes, *, known: bool) -> None:
    assert avif.is_avif(data) == known
