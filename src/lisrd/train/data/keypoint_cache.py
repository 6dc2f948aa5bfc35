"""Keypoints of whole photographs: a detector runs once per photograph, and crops share what it found."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from lisrd.detect import build_detector
from lisrd.image import as_image
from lisrd.train.data.photo_cache import ArrayCache, PhotoCache
from lisrd.train.data.sources import Scene
from lisrd.whole_file import whole_file, writing

_LONG_SCENE = 8  # photographs; shorter scenes are taken within seconds, and nothing moves
_WITNESSES = 16  # photographs of a scene that are asked whether a keypoint came back
_FORMAT = 2  # changes when what a file holds does
_NEAR = 2  # pixels between a keypoint and where it comes back

# Per process, because OpenCV's detectors cannot travel to a worker.
_built_once = functools.cache(build_detector)


class KeypointCache:
    """Keypoints, the strongest first, as rows of x, y, scale, orientation (NaN where the detector has none).

    A long scene is photographed over days: clouds, shadows and people move while the camera stands still, and
    are no correspondences. Of such a scene only keypoints stay that come back in the share `lasting` of its
    photographs.

    With a `directory` what was detected is kept there as well, for the other workers and for a run that goes on:
    nothing else that a sample needs takes as long as detection.
    """

    def __init__(
        self, photos: PhotoCache, detector: str = "sift", lasting: float = 0.25, megabytes: float = 256.0
    ) -> None:
        self.photos = photos
        self.directory: Path | None = None
        self.detector = detector
        self.lasting = lasting
        self._keypoints = ArrayCache(megabytes)
        self._lasting = ArrayCache(megabytes)

    def of(self, path: Path, photo: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "n 4"]:
        """The keypoints of one photograph."""
        return self._keypoints.get(path, lambda: self._kept(path, photo))

    def in_scene(
        self, path: Path, photo: UInt8[np.ndarray, "h w 3"], scene: Scene
    ) -> Float[np.ndarray, "n 4"]:
        """Those that last over its scene."""
        found = self.of(path, photo)
        if len(scene) < _LONG_SCENE or self.lasting <= 0:
            return found
        size = photo.shape[:2]
        lasting = self._lasting.get((scene[0], size), lambda: self._where_keypoints_last(scene, size))
        column, row = found[:, :2].round().astype(int).T
        return found[lasting[row, column]]

    def _kept(self, path: Path, photo: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "n 4"]:
        """From the file of this photograph, which is written where there is none that can be read."""
        if self.directory is None:
            return self._detect(photo)
        content = f"{_FORMAT} {self.detector} {photo.shape}".encode() + photo.tobytes()
        file = self.directory / f"{path.stem}-{hashlib.sha256(content).hexdigest()[:16]}.npy"
        try:
            kept: Float[np.ndarray, "n 4"] = np.load(file)
        except (OSError, ValueError, EOFError):
            kept = self._detect(photo)
            with writing(file):
                self.directory.mkdir(parents=True, exist_ok=True)
            with whole_file(file) as partial:
                np.save(partial, kept)
        return kept

    def _detect(self, photo: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "n 4"]:
        found = _built_once(self.detector)(as_image(photo))
        xy = found.xy[0].numpy()
        missing = np.full(len(xy), np.nan, np.float32)
        scales = missing if found.scales is None else found.scales[0].numpy()
        oris = missing if found.oris is None else found.oris[0].numpy()
        return np.column_stack([xy, scales, oris])[found.mask[0].numpy()].astype(np.float32)

    def _where_keypoints_last(self, scene: Scene, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _NEAR + 1, 2 * _NEAR + 1))
        count, asked = np.zeros(size, int), 0
        for path in scene[:: -(-len(scene) // _WITNESSES)]:
            photo = self.photos.read(path)
            if photo is None or photo.shape[:2] != size:
                continue
            column, row = self.of(path, photo)[:, :2].round().astype(int).T
            seen = np.zeros(size, np.uint8)
            seen[row, column] = 1
            count += cv2.dilate(seen, disc)
            asked += 1
        return count >= self.lasting * asked
