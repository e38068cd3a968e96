"""Bytes that were damaged on the way, or by somebody who means harm; each wholly given by its generator's state."""

import random

HEADER = 2_000  # bytes, within which headers and the beginning of a pickle lie


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Flip, cut, repeat or exchange bytes."""
    changed = bytearray(data)
    match rng.randrange(5):
        case 0:
            for _ in range(rng.choice([1, 3, 50])):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
        case 1:
            del changed[rng.randrange(len(changed)) :]
        case 2:
            at = rng.randrange(len(changed))
            changed[at:at] = changed[: rng.randrange(1, 200)]
        case 3:
            at = rng.randrange(min(len(changed), HEADER))
            changed[at : at + rng.choice([1, 8, 64])] = rng.randbytes(rng.choice([1, 8, 64]))
        case _:
            at = rng.randrange(len(changed))
            del changed[at : at + rng.randrange(1, 64)]
    return bytes(changed)


def lying(rng: random.Random, data: bytes) -> bytes:
    """Write a size that is none over one of the header's: 2 or 4 bytes, of either order, where a size may stand."""
    width, order = rng.choice([2, 4]), rng.choice(["big", "little"])
    at = rng.randrange(max(1, min(len(data), 200) - width))
    value = rng.choice([0, 1, 2, 255, 256, 999, 3_000, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, rng.randrange(2**32)])
    told = (value % 256**width).to_bytes(width, "little" if order == "little" else "big")
    return bytes(data[:at] + told + data[at + width :])


def spliced(rng: random.Random, one: bytes, other: bytes) -> bytes:
    """The beginning of one and the end of another."""
    return one[: rng.randrange(len(one) + 1)] + other[rng.randrange(len(other) + 1) :]
