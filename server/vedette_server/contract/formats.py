"""Recognition of unsupported formats by their first bytes, and advice for the sender."""

import re
from dataclasses import dataclass

from vedette_server.contract.image import Buffer

_PICTURE = "convert it to PNG, or to JPEG"
_RAW = "develop it to PNG, TIFF of 8 bits or JPEG"
_VIDEO = "send its frames, one by one or as a stream: `vedette stream` reads videos"
_DOCUMENT = "render it to PNG at the intended size"
_PIXELS = "send pixels without a file format in image.raw, with their format and size"
_FETCH = "the file is not the intended picture: look at its contents"


@dataclass(frozen=True)
class _Kind:
    pattern: re.Pattern[bytes]  # of the first bytes
    name: str
    remedy: str


def _kind(pattern: bytes, name: str, remedy: str) -> _Kind:
    return _Kind(re.compile(pattern, re.DOTALL), name, remedy)


_KINDS = (
    _kind(rb".{4}ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1|mif2)", "HEIC", _PICTURE),
    _kind(rb".{4}ftypcrx", "a Canon RAW file (CR3)", _RAW),
    _kind(rb".{4}(ftyp|moov|mdat|wide|free)", "an MP4 or QuickTime video", _VIDEO),
    _kind(rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000", _PICTURE),
    _kind(rb"\x00\x00\x00\x0cJXL |\xff\x0a", "JPEG XL", _PICTURE),
    _kind(rb"II\xbc", "JPEG XR", _PICTURE),
    _kind(rb"(II\*\x00|MM\x00\*).{4}CR|FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\x00|FOVb", "a camera's RAW file", _RAW),
    _kind(rb"%PDF", "PDF", _DOCUMENT),
    _kind(rb"\s*(<\?xml.{0,400}?)?(<!--.{0,400}?-->\s*)?(<!DOCTYPE svg.{0,400}?)?<svg", "SVG", _DOCUMENT),
    _kind(rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript", _DOCUMENT),
    _kind(rb"8BPS", "Photoshop", _PICTURE),
    _kind(rb"\x1aE\xdf\xa3", "a Matroska or WebM video", _VIDEO),
    _kind(rb"RIFF.{4}AVI ", "an AVI video", _VIDEO),
    _kind(rb"FLV\x01|OggS|\x00\x00\x01[\xb0-\xbf]|G.{187}G.{187}G|\x30\x26\xb2\x75", "a video", _VIDEO),
    _kind(rb"\x00\x00(\x00)?\x01[\x09\x27\x47\x67\x40\x42]", "a video stream without a container", _VIDEO),
    _kind(rb".{128}DICM", "DICOM", "window it to 8 bits a sample as the model's training images were, and send PNG"),
    _kind(rb"\x89HDF|CDF[\x01\x02]", "HDF5 or NetCDF", _PIXELS),
    _kind(rb"\x93NUMPY", "a NumPy array (.npy)", _PIXELS),
    _kind(
        rb"\x76\x2f\x31\x01|#\?RADIANCE|#\?RGBE", "a picture of high dynamic range", "map its tones to 8 bits, as PNG"
    ),
    _kind(rb"P[1-7]\s", "PBM, PGM or PPM", _PICTURE),
    _kind(rb"\x00\x00[\x01\x02]\x00", "an icon", _PICTURE),
    _kind(rb"DDS |\xabKTX", "a texture", _PICTURE),
    _kind(
        rb"\x1f\x8b|PK\x03\x04|7z\xbc\xaf|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|Rar!",
        "a compressed file or archive",
        "unpack it",
    ),
    _kind(rb"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it with `git lfs pull`"),
    _kind(
        rb"(data:image/|/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk0[0-9A-Za-z])",
        "a picture in base64",
        "decode it, and send the bytes",
    ),
    _kind(
        rb"(\xef\xbb\xbf)?\s*(<!doctype html|<!DOCTYPE HTML|<!DOCTYPE html|<html|<HTML|<head)", "an HTML page", _FETCH
    ),
    _kind(rb"(\xef\xbb\xbf)?\s*<\?xml|<Error>", "XML", _FETCH),
    _kind(rb'(\xef\xbb\xbf)?\s*[{\[]\s*["\]}\[{0-9]', "JSON", _FETCH),
    _kind(rb"#!", "a script", _FETCH),
    _kind(rb"[\t\n\r\x20-\x7e]{24}", "text", _FETCH),
)
_LOOKED_AT = 1024  # bytes


def recognise(data: Buffer) -> tuple[str, str]:
    """Return a description and a remedy for data in none of the supported formats."""
    start = bytes(data[:_LOOKED_AT])
    for kind in _KINDS:
        if kind.pattern.match(start):
            return f"it is {kind.name}", kind.remedy
    return f"it begins with the bytes {start[:8].hex(' ')}", _PIXELS
