"""Two photographs from files to verified matches, the model loaded: where the time goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

from benchmarks.describing import pyramid_describer
from benchmarks.inputs import image
from benchmarks.timing import Comparison
from lisrd.detect.sift import SIFT
from lisrd.image import as_image
from lisrd.model import LISRD
from lisrd.verify import Steps, verify_pair
from lisrd.verify.steps import ESTIMATE_ALONE

_MAX_KEYPOINTS = 2048


class Pipeline:
    """Read, detect, describe, match and verify, with the seconds of each stage of every run of all of them."""

    def __init__(self, path0: Path, path1: Path, clock: Callable[[], float] = time.perf_counter) -> None:
        self.paths, self.clock = (path0, path1), clock
        self.model = LISRD(pyramid_describer(), SIFT())
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def run(self, steps: Steps = Steps()) -> int:
        """The number of verified matches; under other `steps` than the default nothing is remembered."""
        laps: dict[str, float] = {}
        images = self._timed(laps, "read", lambda: [as_image(path) for path in self.paths])
        keypoints = self._timed(
            laps, "detect", lambda: [self.model.detector(i, _MAX_KEYPOINTS) for i in images]
        )
        features = self._timed(laps, "describe", lambda: self.model.describe_pair(images, keypoints))
        matches = self._timed(laps, "match", lambda: self.model.match(*features))
        verified = self._timed(laps, "verify", lambda: verify_pair(*images, *features, matches, steps=steps))
        if steps == Steps():
            for name, seconds in laps.items():
                self.seconds[name].append(seconds)
        return int(verified.geometry.inliers.sum())

    def stages(self) -> dict[str, float]:
        """Median seconds of each stage, both images together."""
        return {name: median(times) for name, times in self.seconds.items()}

    def _timed(self, laps: dict[str, float], name: str, stage: Callable[[], Any]) -> Any:
        start = self.clock()
        result = stage()
        laps[name] = self.clock() - start
        return result


def opencv_pipeline(path0: Path, path1: Path) -> int:
    """What OpenCV alone does: SIFT, mutual nearest neighbours, MAGSAC."""
    sift = cv2.SIFT.create(nfeatures=_MAX_KEYPOINTS, contrastThreshold=0.01, enable_precise_upscale=True)
    grey = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in (path0, path1)]
    (keypoints0, d0), (keypoints1, d1) = (sift.detectAndCompute(g, None) for g in grey)
    matches = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(d0, d1)
    points0 = np.float32([keypoints0[m.queryIdx].pt for m in matches])
    points1 = np.float32([keypoints1[m.trainIdx].pt for m in matches])
    _, inliers = cv2.findHomography(points0, points1, cv2.USAC_MAGSAC, 2.0)
    return int(inliers.sum())


def make_photographs(directory: Path, width: int, height: int) -> tuple[Path, Path]:
    """An image and its view turned by 20 degrees, as PNG files."""
    array = (image(width, height)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 20, 1.0)
    paths = directory / "0.png", directory / "1.png"
    for path, pixels in zip(paths, (array, cv2.warpAffine(array, turn, (width, height))), strict=True):
        cv2.imwrite(str(path), pixels)
    return paths


def comparisons(pipeline: Pipeline) -> Iterator[Comparison]:
    """With a robust model of the matches as they are, which is what OpenCV gives, and with the whole stage."""
    ours = "SIFT keypoints, pyramid, match, {}; two images from files"
    opencv = "OpenCV alone: SIFT, brute force with cross check, MAGSAC"
    for name, words, steps in (
        ("end_to_end_vs_opencv", "estimate", ESTIMATE_ALONE),
        ("end_to_end_with_geometry_vs_opencv", "all steps of verify_pair", Steps()),
    ):
        yield Comparison(
            name,
            ours.format(words),
            opencv,
            lambda steps=steps: pipeline.run(steps),
            lambda: opencv_pipeline(*pipeline.paths),
        )
