"""The common-keypoint protocol: every describer is judged on the same keypoints (paper, section 4.2).

Of each image the strongest that fall well inside the other image. Without a homography (relative pose) nobody
knows what the other image shows, and the strongest are taken.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lisrd.coordinates import warp_points

#: Pixels that a keypoint must keep from the border of the other image.
MARGIN_PX = 3.0

Size = tuple[int, int]  # width, height


def common_keypoints(
    keypoints0: Float[Tensor, "N0 2"],
    keypoints1: Float[Tensor, "N1 2"],
    size0: Size,
    size1: Size,
    H_0to1: Float[Tensor, "3 3"],
    max_keypoints: int,
) -> tuple[Int[Tensor, " K0"], Int[Tensor, " K1"]]:
    """Indices of the first `max_keypoints` of each image (strongest first) that the other one shows."""
    H = H_0to1.double()
    shown0 = falls_inside(keypoints0, H, size1).nonzero().squeeze(1)
    shown1 = falls_inside(keypoints1, torch.linalg.inv(H), size0).nonzero().squeeze(1)
    return shown0[:max_keypoints], shown1[:max_keypoints]


def falls_inside(
    keypoints: Float[Tensor, "N 2"], H: Float[Tensor, "3 3"], size: Size, margin: float = MARGIN_PX
) -> Tensor:
    """Which keypoints the homography carries at least `margin` pixels inside an image of that size."""
    warped = warp_points(keypoints.double(), H)
    limit = warped.new_tensor([size[0] - 1.0, size[1] - 1.0]) - margin
    return ((warped >= margin) & (warped <= limit)).all(dim=-1)
