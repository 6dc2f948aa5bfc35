"""THE pixel convention, and everything that moves between pixels and maps.

A keypoint is (x, y) in pixels of the original image, float32, and (0, 0) is the *centre* of the top-left
pixel (OpenCV, LightGlue, hloc, kornia). An image of width w covers x from -0.5 to w - 0.5, and a map of any
stride covers the same area, so the normalised coordinate for `grid_sample(align_corners=False)` is
2 (x + 0.5) / w - 1 whatever the map's size. COLMAP puts (0, 0) at the corner: its adapter adds 0.5, nothing
else does.

`corner_origin=True` reproduces the released LISRD code, whose grid 2 x / w - 1 is half a pixel off for these
keypoints; published checkpoints need it to give their published numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def normalised_coordinates(
    keypoints: Float[Tensor, "*batch 2"], width: int | float, height: int | float, corner_origin: bool = False
) -> Float[Tensor, "*batch 2"]:
    """Pixels to [-1, 1], where -1 and 1 are the outer edges of the border pixels."""
    size = keypoints.new_tensor([width, height])
    offset = 0.0 if corner_origin else 0.5
    return 2 * (keypoints + offset) / size - 1


def sample_map(
    feature_map: Float[Tensor, "B C h w"],
    keypoints: Float[Tensor, "B N 2"],
    width: int | float,
    height: int | float,
    corner_origin: bool = False,
) -> Float[Tensor, "B N C"]:
    """Bilinear samples of a map that covers an image of `width` x `height` pixels; the border is repeated.

    Computed in float32 at least: in bfloat16 a coordinate would be off by a third of a pixel.
    """
    dtype = torch.promote_types(feature_map.dtype, torch.float32)
    grid = normalised_coordinates(keypoints, width, height, corner_origin).to(dtype)
    padding = "zeros" if corner_origin else "border"  # the released code leaves grid_sample's default
    sampled = F.grid_sample(
        feature_map.to(dtype), grid.unsqueeze(1), mode="bilinear", padding_mode=padding, align_corners=False
    )
    return sampled.squeeze(2).transpose(1, 2)


def warp_points(
    points: Float[Tensor, "*batch N 2"], H: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch N 2"]:
    """Points through a homography; points on its horizon come out infinite."""
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    warped = homogeneous @ H.transpose(-1, -2)
    return warped[..., :2] / warped[..., 2:]


def scale_transform(
    scale_x: int | float, scale_y: int | float, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "3 3"]:
    """Homography of resizing an image: pixel areas scale, so x' + 0.5 = (x + 0.5) * scale."""
    return torch.tensor(
        [[scale_x, 0, 0.5 * scale_x - 0.5], [0, scale_y, 0.5 * scale_y - 0.5], [0, 0, 1]], dtype=dtype
    )


def translation_transform(
    dx: int | float, dy: int | float, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "3 3"]:
    """Homography of a shift; cropping with the corner at (left, top) is a shift by (-left, -top)."""
    return torch.tensor([[1, 0, dx], [0, 1, dy], [0, 0, 1]], dtype=dtype)


def turn_points(
    keypoints: Float[Tensor, "*batch 2"], width: int | float, height: int | float, turn: int
) -> Float[Tensor, "*batch 2"]:
    """Where keypoints of a `width` x `height` image lie after `torch.rot90(image, turn)` (counter-clockwise)."""
    x, y = keypoints[..., 0], keypoints[..., 1]
    match turn % 4:
        case 0:
            return keypoints
        case 1:
            return torch.stack([y, width - 1 - x], dim=-1)
        case 2:
            return torch.stack([width - 1 - x, height - 1 - y], dim=-1)
        case _:
            return torch.stack([height - 1 - y, x], dim=-1)
