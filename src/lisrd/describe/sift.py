"""SIFT descriptors of given keypoints as RootSIFT (Arandjelovic and Zisserman, CVPR 2012), oriented or upright."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lisrd.describe.single import SingleDescriber
from lisrd.detect.sift import grey_images, sift_descriptors, to_cv2
from lisrd.types import Keypoints


class RootSift(SingleDescriber):
    """RootSIFT by OpenCV. Upright, every keypoint is described at angle 0, whatever its orientation.

    Keypoints without scales are described at `lisrd.detect.sift.DEFAULT_SIZE`; those without orientations take the
    dominant gradient around them, unless upright. A place without gradients has the zero vector.

    Several keypoints at one position (SIFT's other orientations) have one and the same upright descriptor, and would
    tie for every match. The first of them is described upright, the others have the zero vector, which is similar to
    nothing. `lisrd.detect.sift.SIFT` finds one keypoint per position, unless asked for all.
    """

    def __init__(self, upright: bool = False) -> None:
        self.upright = upright
        self.name = "upright-root-sift" if upright else "root-sift"

    @property
    def config(self) -> dict[str, Any]:
        return {"describer": self.name, "opencv": cv2.__version__}

    @torch.no_grad()
    def descriptors(self, images: Float[Tensor, "B 3 H W"], keypoints: Keypoints) -> Float[Tensor, "B N 128"]:
        if self.upright:
            keypoints = replace(keypoints, oris=torch.zeros_like(keypoints.scores))
        described = keypoints.xy.new_zeros((*keypoints.xy.shape[:2], 128))
        for index, grey in enumerate(grey_images(images)):
            one = keypoints.select(index)
            sift = torch.from_numpy(sift_descriptors(grey, to_cv2(one, images[index : index + 1])))
            if self.upright:
                sift[~first_at_position(one.xy[0]).cpu()] = 0
            described[index, keypoints.mask[index]] = root_sift(sift).to(described)
        return described


def root_sift(sift: Float[Tensor, "N 128"]) -> Float[Tensor, "N 128"]:
    """Square roots of L1-normalised histograms: their dot product is the Hellinger kernel, of norm 1 already."""
    return F.normalize(F.normalize(sift, p=1, dim=1).sqrt(), dim=1)


def first_at_position(xy: Float[Tensor, "N 2"]) -> Bool[Tensor, " N"]:
    """False for every keypoint whose position an earlier one has, to the last bit."""
    index = torch.arange(len(xy), device=xy.device)
    distinct, position = torch.unique(xy, dim=0, return_inverse=True)
    first = index.new_full((len(distinct),), len(xy)).scatter_reduce(0, position, index, "amin")
    return first[position] == index
