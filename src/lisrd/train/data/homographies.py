"""Random homographies between the anchor and a view of the same size: the paper's (4.1) and a wider range."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from kornia.geometry import get_perspective_transform
from torch import Tensor

from lisrd.coordinates import normalised_coordinates, warp_points
from lisrd.train.data.dice import Dice

_SQUARE = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))


@dataclass(frozen=True, slots=True)
class HomographyConfig:
    """What a view shows of the anchor: a patch of `patch_ratio` of its sides, distorted; angles in degrees.

    Amplitudes are shares of the image's sides. With `wide_probability` the size of things in the view over
    that in the anchor is between `wide_min` and `wide_max` instead of what patch_ratio and scaling give.
    """

    patch_ratio: float = 0.85
    perspective: float = 0.2
    scaling: float = 0.2
    translation: float = 0.1
    rotation_probability: float = 0.5
    max_rotation: float = 180.0
    wide_probability: float = 0.3
    wide_min: float = 0.6
    wide_max: float = 1.6


def sample_angles(
    count: int, dice: Dice, config: HomographyConfig
) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """Rotations in radians, counter-clockwise as seen in the image (as `torch.rot90`); which are not 0."""
    rotated = dice.coin(count, config.rotation_probability).to(dice.device)
    limit = math.radians(config.max_rotation)
    angle = dice.uniform(count, low=-limit, high=limit)
    return torch.where(rotated, angle, torch.zeros_like(angle)), rotated


def sample_homographies(
    angle: Float[Tensor, " B"], height: int, width: int, dice: Dice, config: HomographyConfig
) -> Float[Tensor, "B 3 3"]:
    """`H_0to1`, float64: pixels of the anchor to pixels of the view, whose content is turned by `angle`.

    Scaled so that the third homogeneous coordinate is positive on this side of the horizon.
    """
    angle = angle.double()
    size = angle.new_tensor([width, height])
    shift = dice.uniform(len(angle), 1, 2, low=-config.translation, high=config.translation) * size
    # Content that turns counter-clockwise is seen through a window that turns clockwise.
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([cos, sin, -sin, cos], -1).view(-1, 2, 2)
    centre = (size - 1) / 2
    patch = (_distorted_patch(len(angle), dice, config) * size) @ turn + shift + centre
    corners = angle.new_tensor(_SQUARE) * size + centre
    # From the view to the anchor and not the other way: the view's pixel (0, 0), where the solution has depth
    # 1, is certainly visible.
    return torch.linalg.inv(get_perspective_transform(corners.expand_as(patch), patch))


def _distorted_patch(count: int, dice: Dice, config: HomographyConfig) -> Float[Tensor, "B 4 2"]:
    """Corners of the window, centred, in shares of the image's sides."""
    left, right, vertical = (dice.triangular(count, 3) * config.perspective).unbind(1)
    lean = torch.stack([left, vertical, right, -vertical, right, vertical, left, -vertical], dim=-1).view(
        count, 4, 2
    )
    square = torch.tensor(_SQUARE, device=dice.device)
    usual = 1 + dice.triangular(count) * config.scaling
    wide = 1 / (config.patch_ratio * dice.log_uniform(count, low=config.wide_min, high=config.wide_max))
    scale = torch.where(dice.coin(count, config.wide_probability).to(dice.device), wide, usual)
    return (square * config.patch_ratio + lean) * scale.view(-1, 1, 1)


def warp_images(
    canvases: Float[Tensor, "B C h w"],
    H_1to0: Float[Tensor, "B 3 3"],
    margin: tuple[int, int],
    size: tuple[int, int],
) -> Float[Tensor, "B C H W"]:
    """Views of `size` (height, width); anchors are at `margin` (top, left) of the canvases; black outside."""
    (height, width), (top, left) = size, margin
    y, x = torch.meshgrid(
        torch.arange(height, device=canvases.device, dtype=H_1to0.dtype),
        torch.arange(width, device=canvases.device, dtype=H_1to0.dtype),
        indexing="ij",
    )
    pixels = torch.stack([x, y], -1).view(1, -1, 2)
    in_anchor = warp_points(pixels.expand(len(canvases), -1, -1), H_1to0)
    in_canvas = in_anchor + in_anchor.new_tensor([left, top])
    grid = normalised_coordinates(in_canvas, canvases.shape[3], canvases.shape[2])
    return F.grid_sample(canvases, grid.view(-1, height, width, 2), align_corners=False)


def carry_keypoints(
    keypoints: Float[Tensor, "B N 2"], H_0to1: Float[Tensor, "B 3 3"], size: tuple[int, int], border: float
) -> tuple[Float[Tensor, "B N 2"], Bool[Tensor, "B N"]]:
    """Keypoints of the anchor in the view, and which lie at least `border` pixels inside; the rest become 0.

    Points beyond the homography's horizon come out mirrored, maybe inside the view: they count as outside.
    """
    height, width = size
    carried = warp_points(keypoints, H_0to1)
    depth = keypoints @ H_0to1[:, 2, :2].unsqueeze(-1) + H_0to1[:, 2:, 2:]
    far_corner = carried.new_tensor([width - 1 - border, height - 1 - border])
    visible = ((carried >= border) & (carried <= far_corner)).all(-1) & (depth.squeeze(-1) > 0)
    return torch.where(visible.unsqueeze(-1), carried, carried.new_zeros(())), visible
