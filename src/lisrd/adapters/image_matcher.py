"""A matcher in the shape of vismatch and the image-matching web interface: two images in, a dictionary of arrays out.

    matcher = build_image_matcher("pyramid", device="cpu", max_num_keypoints=2048)
    result = matcher("day.jpg", "night.jpg")
    result["num_inliers"], result["H"]

Inside vismatch, `vismatch_matcher()` gives one of its own kind, for its scripts and benchmarks; its ensembles take
matchers by name, which is a branch in `vismatch.get_matcher`:

    elif matcher_name == "lisrd-pyramid":
        from lisrd.adapters.image_matcher import vismatch_matcher
        return vismatch_matcher(device, max_num_keypoints=max_num_keypoints)

vismatch has wrappers of the published LISRD under the same package name: in one process, use either those or these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.errors import InputError
from lisrd.match import Policy
from lisrd.model import LISRD, MatchedPair
from lisrd.types import ImageLike, LocalFeatures
from lisrd.verify.robust import estimate


@dataclass(frozen=True, slots=True)
class ImageMatcher:
    """Detects, describes, matches and verifies a homography.

    `ransac_reproj_thresh` is the distance in pixels up to which a match is an inlier.
    """

    model: LISRD
    max_num_keypoints: int = 2048
    policy: Policy = field(default_factory=Policy)
    ransac_reproj_thresh: float = 3.0

    name = "LISRD"

    def __call__(self, img0: ImageLike, img1: ImageLike) -> dict[str, Any]:
        """A dictionary of numpy arrays.

        all_kpts0 (N0, 2), all_kpts1, all_desc0 (N0, V*D, unit norm), all_desc1; matched_kpts0 (S, 2), matched_kpts1,
        matched_confidences (S,), the weighted similarity in [0, 1]; num_inliers, H (3 x 3, image 0 to image 1, or
        None), inlier_kpts0 (I, 2), inlier_kpts1; and invariance_weights (S, V) with the names `invariances`.

        An image is a path, a PIL image, a tensor (3, H, W) or array (3, H, W) in [0, 1], or a uint8 array (H, W, 3).
        """
        pair = self.match(img0, img1)
        geometry = estimate(
            pair.points0, pair.points1, threshold=self.ransac_reproj_thresh, scores=pair.matches.scores
        )
        matched0, matched1 = _numpy(pair.points0), _numpy(pair.points1)
        return {
            "num_inliers": geometry.num_inliers,
            "H": geometry.model,
            "all_kpts0": _numpy(pair.features0.keypoints[0]),
            "all_kpts1": _numpy(pair.features1.keypoints[0]),
            "all_desc0": _descriptors(pair.features0),
            "all_desc1": _descriptors(pair.features1),
            "matched_kpts0": matched0,
            "matched_kpts1": matched1,
            "matched_confidences": confidences(pair),
            "inlier_kpts0": matched0[geometry.inliers],
            "inlier_kpts1": matched1[geometry.inliers],
            "invariance_weights": _numpy(pair.matches.invariance_weights),
            "invariances": pair.matches.invariances,
        }

    def match(self, img0: ImageLike, img1: ImageLike) -> MatchedPair:
        """The matched pair as our own records."""
        features0, features1 = self._described(img0), self._described(img1)
        matches = self.model.match(features0, features1, self.policy)
        return MatchedPair(features0.select(0), features1.select(0), matches)

    def extract(self, img: ImageLike) -> dict[str, np.ndarray]:
        """all_kpts0 and all_desc0 of one image."""
        features = self._described(img)
        return {"all_kpts0": _numpy(features.keypoints[0]), "all_desc0": _descriptors(features)}

    def _described(self, img: ImageLike) -> LocalFeatures:
        return self.model.describe(_image(img), max_keypoints=self.max_num_keypoints)


def build_image_matcher(
    describer: str = "pyramid",
    detector: str = "sift",
    device: str = "cpu",
    max_num_keypoints: int = 2048,
    policy: Policy = Policy(),
    ransac_reproj_thresh: float = 3.0,
) -> ImageMatcher:
    """The matcher of these names, see `build_describer` and `build_detector`."""
    model = LISRD.from_pretrained(describer, detector, device)
    return ImageMatcher(model, max_num_keypoints, policy, ransac_reproj_thresh)


def vismatch_matcher(device: str = "cpu", model: LISRD | None = None, **options: Any) -> Any:
    """A `vismatch.BaseMatcher`. `options` are those of `build_image_matcher`; `model` replaces the named parts.

    vismatch verifies by its own RANSAC. Raises InputError where vismatch is not installed.
    """
    try:
        from vismatch import BaseMatcher
    except ImportError:
        raise InputError(
            "vismatch is not installed: pip install vismatch, or use build_image_matcher"
        ) from None
    matcher = ImageMatcher(model, **options) if model else build_image_matcher(device=device, **options)

    class LISRDMatcher(BaseMatcher):
        """Online invariance selection in vismatch's shape."""

        def _forward(self, img0: Tensor, img1: Tensor) -> tuple[np.ndarray, ...]:
            pair = matcher.match(img0, img1)
            return (
                _numpy(pair.points0),
                _numpy(pair.points1),
                *(_numpy(features.keypoints[0]) for features in (pair.features0, pair.features1)),
                *(_descriptors(features) for features in (pair.features0, pair.features1)),
                confidences(pair),
            )

    return LISRDMatcher(device, ransac_reproj_thresh=matcher.ransac_reproj_thresh)


def confidences(pair: MatchedPair) -> Float[np.ndarray, " S"]:
    """The weighted similarities of the matches, cut to [0, 1]."""
    return _numpy(pair.matches.scores.clamp(0, 1))


def _image(img: ImageLike) -> ImageLike:
    """vismatch's arrays have their channels first, ours last."""
    channels_first = isinstance(img, np.ndarray) and img.ndim == 3 and img.shape[0] == 3 and img.shape[2] != 3
    return torch.from_numpy(np.ascontiguousarray(img)) if channels_first else img


def _descriptors(features: LocalFeatures) -> Float[np.ndarray, "N VD"]:
    return _numpy(features.flat()[0].float())


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
