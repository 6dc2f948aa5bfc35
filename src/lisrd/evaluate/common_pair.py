"""A pair ready to be matched: the keypoints that all describers share, and the truth about them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lisrd.evaluate.cache import DetectedImage
from lisrd.evaluate.datasets.records import EvaluationPair
from lisrd.evaluate.keypoints import common_keypoints
from lisrd.evaluate.metrics.matching import true_partners
from lisrd.evaluate.metrics.pose import RelativePose
from lisrd.types import LocalFeatures

PER_KEYPOINT = ("keypoints", "keypoint_scores", "descriptors", "mask", "scales", "oris", "turned_descriptors")


@dataclass(frozen=True, slots=True, eq=False)
class CommonPair:
    """Indices of the common keypoints among all that were detected, and the ground truth.

    The homography is in prepared pixels, the relative pose in those of the original images.
    """

    image0: DetectedImage
    image1: DetectedImage
    index0: Int[Tensor, " N0"]
    index1: Int[Tensor, " N1"]
    H_0to1: Float[Tensor, "3 3"] | None
    pose: RelativePose | None
    partners0: Int[Tensor, " N0"] | None = None  # as `true_partners`, where the homography is known

    @property
    def keypoints0(self) -> Float[Tensor, "N0 2"]:
        return self.image0.keypoints.xy[0, self.index0]

    @property
    def keypoints1(self) -> Float[Tensor, "N1 2"]:
        return self.image1.keypoints.xy[0, self.index1]


def common_pair(
    pair: EvaluationPair, image0: DetectedImage, image1: DetectedImage, max_keypoints: int
) -> CommonPair:
    """The common-keypoint protocol of `lisrd.evaluate.keypoints` on detected images."""
    if pair.H_0to1 is None:  # nobody knows what the other image shows: the strongest
        counts = (min(max_keypoints, image.keypoints.xy.shape[1]) for image in (image0, image1))
        index0, index1 = (torch.arange(count) for count in counts)
        return CommonPair(image0, image1, index0, index1, None, pair.pose)
    H = image1.transform @ pair.H_0to1.double() @ torch.linalg.inv(image0.transform)
    xy0, xy1 = image0.keypoints.xy[0], image1.keypoints.xy[0]
    index0, index1 = common_keypoints(xy0, xy1, image0.size, image1.size, H, max_keypoints)
    partners0 = true_partners(xy0[index0], xy1[index1], H)
    return CommonPair(image0, image1, index0, index1, H, None, partners0)


def features_at(features: LocalFeatures, index: Int[Tensor, " N"]) -> LocalFeatures:
    """The features of the chosen keypoints of one image, in float32."""
    chosen = {
        name: value[:, index] for name in PER_KEYPOINT if (value := getattr(features, name)) is not None
    }
    return replace(features, **chosen).to(torch.float32)
