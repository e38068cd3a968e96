"""A safetensors file is read only if its header accounts for each of its bytes exactly once."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from vedette_server.contract import layout
from vedette_server.contract.loading import Check, LoadRefusedError

LONGEST = 32 * 2**20  # bytes of a header


def tensor(begin: int, end: int, shape: list[int] | None = None, dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def file(tensors: dict[str, Any] | bytes, data: int = 8) -> bytes:
    header = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header + bytes(data)


def check(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    layout.check(path, within=path.parent)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


ACCEPTED: dict[str, bytes] = {
    "what the library writes": save(
        {
            "b": np.ones((2, 3), np.float32),
            "a": np.ones((4, 0), np.float64),
            "c": np.array(1, np.float16),
            "d": np.ones(5, bool),
        },
        {"made": "here"},
    ),
    "no tensors": file(b"{}", 0),
    "a header padded with blanks": file(b'{"a":' + json.dumps(tensor(0, 8)).encode() + b"}   "),
    "tensors in any order": file({"b": tensor(4, 8), "a": tensor(0, 4)}),
    "empty tensors between others": file({"b": tensor(4, 8), "a": tensor(0, 4), "c": tensor(4, 4)}),
    "as many dimensions as allowed": file({"a": tensor(0, 8, [1] * 63 + [8])}),
    "eight bits": file({"a": tensor(0, 8, [8], "BOOL")}),
    "16 bits": file({"a": tensor(0, 8, [2, 2], "BF16")}),
    "32 bits": file({"a": tensor(0, 8, [2], "F32")}),
    "64 bits": file({"a": tensor(0, 8, [], "I64")}),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_a_whole_file_is_accepted(what: str, path: Path) -> None:
    check(path, ACCEPTED[what])


MISCOUNTED = "whose number of bytes contradicts its shape"
UNREADABLE = "has a header that cannot be read"

REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "begins with a header of 0 bytes, and has 0"),
    "half a length": (b"\x02\0\0", "begins with a header of 2 bytes, and has 3"),
    "no header": (struct.pack("<Q", 1) + b"{", "begins with a header of 1 bytes, and has 9"),
    "a header that is cut off": (file({"a": tensor(0, 8)})[:40], "begins with a header of .* bytes, and has 40"),
    "a header of one byte too many": (struct.pack("<Q", 3) + b"{}", "begins with a header of 3 bytes, and has 10"),
    "a length of the other byte order": (struct.pack(">Q", 2) + b"{}", "begins with a header of 144115188075855872"),
    "a header longer than any": (
        struct.pack("<Q", LONGEST + 1) + bytes(LONGEST + 1),
        f"begins with a header of {LONGEST + 1} bytes",
    ),
    "no JSON": (file(b"{'a': 1}"), UNREADABLE),
    "no text": (file(b'{"\xff": 1}'), UNREADABLE),
    "a list": (file(b"[]"), UNREADABLE),
    "a tensor without a shape": (file({"a": {"dtype": "U8", "data_offsets": [0, 8]}}), UNREADABLE),
    "a shape of fractions": (file({"a": tensor(0, 8, [8.5])}), UNREADABLE),  # type: ignore[list-item]
    "a nest without end": (file(b'{"a":' + b"[" * 100_000), UNREADABLE),
    "a dtype that nobody knows": (
        file({"a" * 200: tensor(0, 8, [8], "F4" * 20)}),
        f"has the tensor '{'a' * 100}' of '{'F4' * 10}', a dtype that is not supported",
    ),
    "a dimension too many": (
        file({"a" * 200: tensor(0, 8, [1] * 64 + [8])}),
        f"has the tensor '{'a' * 100}', whose shape is invalid",
    ),
    "a negative dimension": (file({"a": tensor(0, 8, [-2, -4])}), "has the tensor 'a', whose shape is invalid"),
    "too few bytes for its shape": (
        file({"a" * 200: tensor(0, 8, [9])}),
        f"has the tensor '{'a' * 100}', {MISCOUNTED}",
    ),
    "too few for its dtype": (file({"a": tensor(0, 8, [8], "F16")}), f"has the tensor 'a', {MISCOUNTED}"),
    "a gap before the first": (file({"a": tensor(1, 8)}), f"has the tensor 'a', {MISCOUNTED}"),
    "a gap between": (file({"a": tensor(0, 3), "b": tensor(4, 8)}), f"has the tensor 'b', {MISCOUNTED}"),
    "an overlap": (file({"a": tensor(0, 5), "b": tensor(4, 8)}), f"has the tensor 'b', {MISCOUNTED}"),
    "bytes of none": (file({"a": tensor(0, 8)}, data=9), "declares 8 bytes of tensors, but has 9"),
    "bytes that are missing": (file({"a": tensor(0, 8)}, data=7), "declares 8 bytes of tensors, but has 7"),
    "only data": (file(b"{}"), "declares 0 bytes of tensors, but has 8"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_does_not_add_up_is_refused(what: str, path: Path) -> None:
    content, seen = REFUSED[what]
    with pytest.raises(LoadRefusedError, match=f"^WEIGHTS_UNREADABLE: {path} {seen}") as caught:
        check(path, content)
    assert caught.value.check is Check.WEIGHTS_UNREADABLE


def test_a_header_may_be_as_long_as_the_longest(path: Path) -> None:
    check(path, file(b"{" + b" " * (LONGEST - 2) + b"}", 0))


def test_weights_lie_in_their_folder(path: Path) -> None:
    path.symlink_to(__file__)
    with pytest.raises(LoadRefusedError, match="leads out of") as caught:
        layout.check(path, within=path.parent)
    assert caught.value.check is Check.FILE_UNUSABLE
    with pytest.raises(LoadRefusedError, match="begins with a header of"):
        layout.check(path)  # anywhere
