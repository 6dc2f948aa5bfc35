"""kornia's local affine frames to keypoints and back.

A frame [A | xy] of scale s = sqrt |det A| spans 2 s pixels, the window that a descriptor sees: 6 sigma to
each side in kornia's SIFT. OpenCV's size is 2 sigma, a third of s. kornia measures angles anticlockwise as
seen on screen, OpenCV clockwise.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.types import Keypoints

_SIZE_PER_SCALE = 2 / 6


def keypoints_from_lafs(
    lafs: Float[Tensor, "B N 2 3"], scores: Float[Tensor, "B N"] | None = None
) -> Keypoints:
    """Keypoints in the given order, of score 1 without `scores`; frames of scale 0 are kornia's padding."""
    frame_scales = laf_scales(lafs)
    scores = torch.ones_like(frame_scales) if scores is None else scores
    oris = torch.atan2(-lafs[..., 0, 1], lafs[..., 0, 0])
    return Keypoints(lafs[..., 2], scores, frame_scales > 0, _SIZE_PER_SCALE * frame_scales, oris)


def lafs_from_keypoints(
    xy: Float[Tensor, "B N 2"], scales: Float[Tensor, "B N"], oris: Float[Tensor, "B N"]
) -> Float[Tensor, "B N 2 3"]:
    """Frames without shear of keypoints as in `lisrd.types.Keypoints`: what `keypoints_from_lafs` undoes."""
    cosine, sine = scales / _SIZE_PER_SCALE * oris.cos(), scales / _SIZE_PER_SCALE * oris.sin()
    rows = [torch.stack([cosine, -sine, xy[..., 0]], dim=-1), torch.stack([sine, cosine, xy[..., 1]], dim=-1)]
    return torch.stack(rows, dim=-2)


def laf_scales(lafs: Float[Tensor, "B N 2 3"]) -> Float[Tensor, "B N"]:
    """Half the side of each frame, pixels."""
    (a, b), (c, d) = lafs[..., 0, :2].unbind(-1), lafs[..., 1, :2].unbind(-1)
    return (a * d - b * c).abs().sqrt()
