"""The regions of shared memory that callers have registered. No caller sees those of another."""

import contextlib
from dataclasses import dataclass

from vedette_server.contract.refusal import Reason, Refused
from vedette_server.rpc.shared_files import SharedFile

MOST_REGIONS = 1_024  # of one caller
MOST_OF_ALL = 4_096


@dataclass(frozen=True, kw_only=True)
class Region:
    """A part of a file, by the name that its caller gave it; offset and size in bytes."""

    name: str
    key: str  # of the file, as the caller wrote it
    offset: int
    byte_size: int
    file: SharedFile


@dataclass(frozen=True)
class Place:
    """A part of a region for one tensor: `offset` from the beginning of the region, in bytes."""

    region: Region
    offset: int
    byte_size: int

    @property
    def start(self) -> int:
        """Its offset in the file."""
        return self.region.offset + self.offset

    def overlaps(self, other: "Place") -> bool:
        """Return whether they share bytes, by whatever names."""
        apart = self.start + self.byte_size <= other.start or other.start + other.byte_size <= self.start
        return self.region.file == other.region.file and not apart


class Regions:
    """Registered regions, by their callers' names."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, Region]] = {}

    def add(self, caller: str, region: Region) -> None:
        """Register a region. Raises `Refused`: REGION_EXISTS, REGIONS_EXCEEDED."""
        own = self._of.get(caller, {})
        if region.name in own:
            raise Refused(Reason.REGION_EXISTS, region=region.name, key=own[region.name].key)
        if len(own) >= MOST_REGIONS or sum(map(len, self._of.values())) >= MOST_OF_ALL:
            raise Refused(Reason.REGIONS_EXCEEDED, who=caller, has=len(own), most=MOST_REGIONS, all=MOST_OF_ALL)
        self._of.setdefault(caller, {})[region.name] = region

    def remove(self, caller: str, name: str) -> None:
        """Forget a region, or without a name all of a caller's. One that is unknown is forgotten already."""
        if not name:
            self._of.pop(caller, None)
            return
        with contextlib.suppress(KeyError):
            del self._of[caller][name]
            if not self._of[caller]:
                del self._of[caller]

    def of(self, caller: str) -> list[Region]:
        """Return the regions of a caller."""
        return list(self._of.get(caller, {}).values())

    def find(self, caller: str, name: str) -> Region:
        """Return a region of a caller. Raises `Refused`: REGION_NOT_FOUND."""
        found = self._of.get(caller, {}).get(name)
        if found is None:
            raise Refused(Reason.REGION_NOT_FOUND, region=name)
        return found
