"""Predict: keypoints and features of every image into the cache. The only stage that loads networks.

What is there already, made by the same code, weights, keypoints and pixels, is kept: a run that was stopped
goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.coordinates import turn_points
from lisrd.describe import Describer, build_describer
from lisrd.detect import Detector, build_detector
from lisrd.errors import InputError
from lisrd.evaluate.cache import (
    FORMAT,
    DescribedImage,
    DetectedImage,
    FeatureCache,
    StaleCacheError,
    sha256,
)
from lisrd.evaluate.datasets.records import EvaluationImage, EvaluationPair
from lisrd.evaluate.methods import Method
from lisrd.image import as_image
from lisrd.types import Keypoints


@dataclass(frozen=True, slots=True)
class ImageJob:
    """One image with all that is to be computed on it: (describer, turn of the image)."""

    image: EvaluationImage
    wanted: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Failures:
    """What could not be computed and why: images by key, features by (describer, image's key)."""

    images: dict[str, str] = field(default_factory=dict)
    features: dict[tuple[str, str], str] = field(default_factory=dict)

    def merge(self, other: Failures) -> None:
        self.images.update(other.images)
        self.features.update(other.features)


@dataclass(frozen=True, slots=True)
class Predictor:
    """Detects and describes one image at a time; small enough to be sent to another process."""

    cache: FeatureCache
    detector: str
    digests: dict[str, str]  # of the detector and of every describer, see `lisrd.evaluate.identity`

    def __call__(self, job: ImageJob) -> Failures:
        """Fill the cache for one image. Raises `StaleCacheError`; broken images are returned, not raised."""
        failures = Failures()
        try:
            pixels, transform = job.image.read()
        except InputError as error:
            failures.images[job.image.key] = str(error)
            return failures
        detected = self._detect(job.image.key, pixels, transform)
        for describer, turn in job.wanted:
            try:
                self._describe(describer, turn, job.image.key, pixels, detected)
            except StaleCacheError:
                raise
            except (InputError, RuntimeError) as error:  # too small for the network, out of memory, ...
                failures.features[describer, job.image.key] = str(error)
        return failures

    def _detect(self, key: str, pixels: np.ndarray, transform: Float[Tensor, "3 3"]) -> DetectedImage:
        digest = sha256(FORMAT, self.digests[self.detector], pixels.shape, pixels.tobytes(), transform)
        known = self.cache.keypoints(key, digest)
        if known is not None:
            return known
        start = time.perf_counter()
        keypoints = _detector(self.detector, self.digests[self.detector])(as_image(pixels)).select(0)
        seconds = time.perf_counter() - start
        size = pixels.shape[1], pixels.shape[0]
        detected = DetectedImage(keypoints, size, transform, seconds, digest)
        self.cache.store_keypoints(key, detected)
        return detected

    def _describe(self, name: str, turn: int, key: str, pixels: np.ndarray, detected: DetectedImage) -> None:
        placed = detected.keypoints
        digest = sha256(FORMAT, self.digests[name], detected.digest, placed.xy, placed.scores, turn)
        if self.cache.has_features(name, key, turn, digest):
            return
        image = as_image(np.ascontiguousarray(np.rot90(pixels, turn)))
        keypoints = turned_keypoints(placed, *detected.size, turn)
        describer = _describer(name, self.digests[name])
        start = time.perf_counter()
        features = describer.describe(image, keypoints)
        seconds = time.perf_counter() - start
        if features.keypoints.shape != keypoints.xy.shape:
            raise InputError(
                f"'{name}' describes keypoints of its own only: it cannot be compared on common ones"
            )
        self.cache.store_features(name, key, turn, DescribedImage(features, seconds), digest)


def image_jobs(pairs: Iterable[EvaluationPair], methods: Sequence[Method]) -> list[ImageJob]:
    """Every image once; the second image of a pair in four turns where a method asks for them."""
    bases = {(base, 0) for method in methods for base in method.bases}
    turned = {(method.base, turn) for method in methods if method.four_rotations for turn in (1, 2, 3)}
    images: dict[str, EvaluationImage] = {}
    wanted: dict[str, set[tuple[str, int]]] = {}
    for pair in pairs:
        for image, jobs in ((pair.image0, bases), (pair.image1, bases | turned)):
            images[image.key] = image
            wanted.setdefault(image.key, set()).update(jobs)
    return [ImageJob(images[key], tuple(sorted(wanted[key]))) for key in images]


def turned_keypoints(keypoints: Keypoints, width: int, height: int, turn: int) -> Keypoints:
    """The same keypoints in `torch.rot90(image, turn)`, the axes after the batch being height and width."""
    if turn == 0:
        return keypoints
    oris = None if keypoints.oris is None else keypoints.oris - turn * torch.pi / 2
    return replace(keypoints, xy=turn_points(keypoints.xy, width, height, turn), oris=oris)


@cache
def _detector(name: str, digest: str) -> Detector:
    """One per process; the digest tells apart what had the same name at another time."""
    return build_detector(name)


@cache
def _describer(name: str, digest: str) -> Describer:
    """One per process and digest, as `_detector`."""
    return build_describer(name)
