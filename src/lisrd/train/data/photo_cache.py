"""Decoded photographs and their keypoints, kept in memory up to a bound.

Both are per process: every worker of a loader fills its own. What a cache returns never depends on what it
holds.
"""

from __future__ import annotations

import functools
import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from lisrd.detect import build_detector
from lisrd.errors import InputError
from lisrd.image import as_image, read_image

_log = logging.getLogger(__name__)
# Per process, because OpenCV's detectors cannot travel to a worker.
_built_once = functools.cache(build_detector)


class ArrayCache:
    """The arrays used last, of at most `megabytes` together; copies of it start empty in another process."""

    def __init__(self, megabytes: float) -> None:
        self.capacity = int(megabytes * 2**20)
        self._clear()

    def _clear(self) -> None:
        self._arrays: OrderedDict[Path, np.ndarray] = OrderedDict()
        self.size = 0

    def get(self, path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of `path`, made when it is not there."""
        if path in self._arrays:
            self._arrays.move_to_end(path)
            return self._arrays[path]
        array = self._arrays[path] = make()
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

    def __init__(self, short_side: int = 400, megabytes: float = 1024) -> None:
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

    def _shrunk(self, photo: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        height, width = photo.shape[:2]
        scale = self.short_side / min(height, width)
        if scale >= 1:
            return photo
        return cv2.resize(photo, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


class KeypointCache:
    """The keypoints of whole photographs, the strongest first.

    Crops of one photograph share them, so that a detector runs once per photograph and not once per sample.
    """

    def __init__(self, detector: str = "sift", megabytes: float = 256) -> None:
        self.detector = detector
        self._cache = ArrayCache(megabytes)

    def of(self, path: Path, photo: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "n 4"]:
        """Rows of x, y, scale, orientation in the photograph; the last two 0 if the detector has none."""
        return self._cache.get(path, lambda: self._detect(photo))

    def _detect(self, photo: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "n 4"]:
        found = _built_once(self.detector)(as_image(photo))
        xy = found.xy[0].numpy()
        missing = np.zeros(len(xy), np.float32)
        scales = missing if found.scales is None else found.scales[0].numpy()
        oris = missing if found.oris is None else found.oris[0].numpy()
        return np.column_stack([xy, scales, oris])[found.mask[0].numpy()].astype(np.float32)
