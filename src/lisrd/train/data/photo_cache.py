"""Decoded photographs, kept in memory up to a bound.

Caches are per process: every worker of a loader fills its own. What a cache returns never depends on what it
holds.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from lisrd.errors import InputError
from lisrd.image import read_image

_log = logging.getLogger(__name__)


class ArrayCache:
    """The arrays used last, of at most `megabytes` together; copies of it start empty in another process."""

    def __init__(self, megabytes: float) -> None:
        self.capacity = int(megabytes * 2**20)
        self._clear()

    def _clear(self) -> None:
        self._arrays: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self.size = 0

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of `key`, made when it is not there."""
        if key in self._arrays:
            self._arrays.move_to_end(key)
            return self._arrays[key]
        array = self._arrays[key] = make()
        self.size += array.nbytes
        while self.size > self.capacity:
            self.size -= self._arrays.popitem(last=False)[1].nbytes
        return array

    def __getstate__(self) -> int:
        return self.capacity

    def __setstate__(self, capacity: int) -> None:
        self.capacity = capacity
        self._clear()


class PhotoCache:
    """Reads photographs, shrunk so that the short side has at most `short_side` pixels."""

    def __init__(self, short_side: int = 400, megabytes: float = 1024.0) -> None:
        self.short_side = short_side
        self._cache = ArrayCache(megabytes)
        self._broken: set[Path] = set()

    def read(self, path: Path) -> UInt8[np.ndarray, "h w 3"] | None:
        """RGB, or None when the file cannot be read: the first time with a warning."""
        if path in self._broken:
            return None
        try:
            return self._cache.get(path, lambda: self._shrunk(read_image(path)))
        except (InputError, OSError) as error:
            self._broken.add(path)
            _log.warning("skipping a broken training image: %s", error)
            return None

    def _shrunk(self, photo: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        height, width = photo.shape[:2]
        scale = self.short_side / min(height, width)
        if scale >= 1:
            return photo
        return cv2.resize(photo, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
