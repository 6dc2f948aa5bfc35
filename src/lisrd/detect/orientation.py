"""Orientations for keypoints that have none: the dominant gradient, as SIFT defines it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

#: SIFT looks for gradients within 4.5 sigma, and its keypoint size is 2 sigma (Lowe, section 5).
_RADIUS_PER_SIZE = 4.5 / 2


@torch.no_grad()
def dominant_orientations(
    image: Float[Tensor, "B 3 H W"], xy: Float[Tensor, "B N 2"], sizes: Float[Tensor, "B N"]
) -> Float[Tensor, "B N"]:
    """Radians from x towards y, by kornia's dominant gradient on patches of SIFT's radius."""
    if xy.shape[1] == 0:
        return torch.zeros_like(sizes)
    from kornia.color import rgb_to_grayscale
    from kornia.feature import LAFOrienter, get_laf_orientation, laf_from_center_scale_ori

    upright = laf_from_center_scale_ori(xy, _RADIUS_PER_SIZE * sizes[..., None, None])
    turned = LAFOrienter(patch_size=32)(upright, rgb_to_grayscale(image))
    return -torch.deg2rad(get_laf_orientation(turned)[..., 0])  # kornia's angles run against OpenCV's
