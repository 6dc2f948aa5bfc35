"""OpenCV's records in and out, and features behind OpenCV's three calls.

Keypoints convert by `lisrd.detect.sift.from_cv2` and `to_cv2`, which keep what OpenCV's descriptors need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lisrd.describe import Describer
from lisrd.detect import Detector
from lisrd.detect.sift import from_cv2, to_cv2
from lisrd.errors import InputError
from lisrd.image import as_image
from lisrd.match.selection import distance_of
from lisrd.types import Keypoints, LocalFeatures, Matches

__all__ = ["Feature2D", "features_to_cv2", "from_cv2", "matches_from_cv2", "matches_to_cv2", "to_cv2"]


def features_to_cv2(
    features: LocalFeatures,
) -> tuple[list[cv2.KeyPoint], Float[np.ndarray, "N VD"]]:
    """The keypoints and flat unit descriptors of one image, for OpenCV's matchers with `cv2.NORM_L2`.

    Keypoints without orientations have the angle -1, OpenCV's word for it. Raises InputError for several images.
    """
    if len(features) != 1:
        raise InputError(f"features of {len(features)} images; convert one image's: features.select(i)")
    one = features.select(0)
    oris = torch.zeros_like(one.keypoint_scores) if one.oris is None else one.oris
    keypoints = to_cv2(Keypoints(one.keypoints, one.keypoint_scores, one.mask, one.scales, oris))
    if one.oris is None:
        for keypoint in keypoints:
            keypoint.angle = -1
    return keypoints, one.flat()[0].detach().float().cpu().numpy()


def matches_to_cv2(matches: Matches) -> list[cv2.DMatch]:
    """Matches as query (image 0) and train (image 1) indices with the L2 distance of unit vectors."""
    distances = distance_of(matches.scores).tolist()
    return [cv2.DMatch(i, j, d) for (i, j), d in zip(matches.matches.tolist(), distances, strict=True)]


def matches_from_cv2(matches: Sequence[cv2.DMatch], num_keypoints: tuple[int, int]) -> Matches:
    """OpenCV's matches of unit vectors by L2 distance, all of one invariance named "given".

    Raises:
        InputError: an index is no keypoint's.
    """
    pairs = torch.tensor([(m.queryIdx, m.trainIdx) for m in matches], dtype=torch.long).reshape(-1, 2)
    if (pairs < 0).any() or (pairs >= torch.tensor(num_keypoints)).any():
        raise InputError(
            f"matches go beyond {num_keypoints} keypoints; give the numbers of keypoints of both images"
        )
    distances = torch.tensor([m.distance for m in matches], dtype=torch.float32)
    weights = torch.ones(len(pairs), 1)
    return Matches(pairs, 1 - distances.square() / 2, weights, num_keypoints, ("given",))


@dataclass(frozen=True, slots=True)
class Feature2D:
    """A detector and a describer where code expects one of OpenCV's, for instance `cv2.SIFT_create()`.

    Images are OpenCV's: uint8, grey or BGR. A mask, uint8 of the image's size, is 0 where no keypoint is wanted.
    """

    describer: Describer
    detector: Detector
    max_keypoints: int = 2048

    def detect(
        self, image: UInt8[np.ndarray, "H W *C"], mask: np.ndarray | None = None
    ) -> list[cv2.KeyPoint]:
        """The strongest keypoints where the mask is not 0."""
        tensor = _rgb(image)
        return to_cv2(self._detected(tensor, mask), tensor)

    def compute(
        self, image: UInt8[np.ndarray, "H W *C"], keypoints: Sequence[cv2.KeyPoint]
    ) -> tuple[list[cv2.KeyPoint], Float[np.ndarray, "N VD"]]:
        """The same keypoints and their descriptors."""
        features = self.describer.describe(_rgb(image), from_cv2(keypoints), False)
        return list(keypoints), features.flat()[0].detach().float().cpu().numpy()

    def detectAndCompute(  # noqa: N802 OpenCV's name
        self, image: UInt8[np.ndarray, "H W *C"], mask: np.ndarray | None = None
    ) -> tuple[list[cv2.KeyPoint], Float[np.ndarray, "N VD"]]:
        """Keypoints and their descriptors."""
        tensor = _rgb(image)
        return features_to_cv2(self.describer.describe(tensor, self._detected(tensor, mask), False))

    def _detected(self, image: Float[Tensor, "1 3 H W"], mask: np.ndarray | None) -> Keypoints:
        if mask is None:
            return self.detector(image, self.max_keypoints)
        if mask.shape != tuple(image.shape[-2:]):
            raise InputError(f"mask of shape {mask.shape} for an image of shape {tuple(image.shape[-2:])}")
        found = self.detector(image)
        x, y = found.xy[0].round().long().unbind(1)
        height, width = mask.shape
        wanted = torch.from_numpy(mask != 0)[y.clamp(0, height - 1), x.clamp(0, width - 1)]
        kept = replace(found, mask=found.mask & wanted).select(0)
        return _first(kept, self.max_keypoints)


def _first(keypoints: Keypoints, count: int) -> Keypoints:
    k = keypoints
    return Keypoints(
        k.xy[:, :count],
        k.scores[:, :count],
        k.mask[:, :count],
        None if k.scales is None else k.scales[:, :count],
        None if k.oris is None else k.oris[:, :count],
    )


def _rgb(image: UInt8[np.ndarray, "H W *C"]) -> Float[Tensor, "1 3 H W"]:
    return as_image(image[..., 2::-1] if image.ndim == 3 else image)
