"""What one visitor may ask of the server, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass

from lisrd.errors import InputError

MEGABYTE = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """The defaults fit a machine of two cores and four gigabytes, two workers and a few dozen visitors.

    `max_pixels` is checked before anything is decoded. Longer sides than `max_side` are matched in a smaller copy, and
    the visitor is told. `seconds` and `memory` are of one match: its process is ended beyond. `queue` counts the
    matches that wait; `keep_seconds` is how long an upload lies on the disk, `disk` and `files` are what all uploads
    may take of it.
    """

    upload: int = 20 * MEGABYTE
    max_pixels: int = 50_000_000
    max_side: int = 1600
    max_keypoints: int = 4096
    seconds: float = 60.0
    memory: int = 3072 * MEGABYTE
    queue: int = 64
    keep_seconds: int = 900
    disk: int = 1024 * MEGABYTE
    files: int = 4000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not value > 0:
                raise InputError(f"limit {name.replace('_', ' ')} is {value}; it must be above 0")
