"""Fuzzers on each reader of bytes that others have made."""

from pathlib import Path

FOUND = Path(__file__).parent / "found"  # by reader: bytes that it once stumbled over
