"""What is unusual about an image's pixels and no error: it is reported with the answer."""

from vedette_server.contract.answer import Note
from vedette_server.contract.types import UInt8Array

_STEP = 4  # every fourth row and column is looked at: a sixteenth of the pixels tells as much
_BLACK, _WHITE = 12, 250  # grey levels at and beyond which a sample counts as dark or as clipped
_NEARLY_ALL, _MANY = 0.99, 0.5  # shares of the samples
_FLAT = 2.0  # standard deviation in grey levels, below what any scene gives


def unusual(pixels: UInt8Array) -> tuple[Note, ...]:
    """Look at pixels of shape (height, width, 3), 0 to 255."""
    part = pixels[::_STEP, ::_STEP]
    dark, clipped = float((part <= _BLACK).mean()), float((part >= _WHITE).mean())
    spread = float(part.std())
    notes = []
    if dark > _NEARLY_ALL:
        notes.append(Note("IMAGE_BLACK", f"{dark:.1%} of the samples are at most {_BLACK} of 255"))
    if clipped > _MANY:
        notes.append(Note("IMAGE_CLIPPED", f"{clipped:.1%} of the samples are at least {_WHITE} of 255"))
    if spread < _FLAT:
        notes.append(Note("IMAGE_FLAT", f"the samples spread by {spread:.2f} grey levels around {part.mean():.0f}"))
    return tuple(notes)
