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

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
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
    grid = normalised_coordinates(keypoints.to(dtype), width, height, corner_origin)
    rows_of_pixels = feature_map.is_contiguous(memory_format=torch.channels_last)
    if rows_of_pixels and not corner_origin and not keypoints.requires_grad:
        return _sample_rows(feature_map, grid)
    padding = "zeros" if corner_origin else "border"  # the released code leaves grid_sample's default
    sampled = F.grid_sample(
        feature_map.to(dtype), grid.unsqueeze(1), mode="bilinear", padding_mode=padding, align_corners=False
    )
    return sampled.squeeze(2).transpose(1, 2)


def _sample_rows(
    feature_map: Float[Tensor, "B C h w"], grid: Float[Tensor, "B N 2"]
) -> Float[Tensor, "B N C"]:
    """`grid_sample` of a map in channels-last memory, where the values of a pixel are a row of a matrix.

    Reads four rows per keypoint and writes as many gradients: keypoints are few, and grid_sample would convert the
    whole map to float32 and its gradient back, in the other memory format.
    """
    B, C, h, w = feature_map.shape
    size = grid.new_tensor([w, h])
    place = torch.minimum(((grid + 1) * size / 2 - 0.5).clamp_min(0), size - 1)  # the border is repeated
    first = torch.minimum(place.floor(), (size - 2).clamp_min(0))
    share = place - first  # of the right and of the lower pixel
    x, y = first.long().unbind(-1)
    top_left = (torch.arange(B, device=x.device)[:, None] * h + y) * w + x
    right, below = int(w > 1), w * int(h > 1)
    corners = torch.stack([top_left, top_left + right, top_left + below, top_left + below + right])
    along, down = share.unbind(-1)
    shares = torch.stack([(1 - along) * (1 - down), along * (1 - down), (1 - along) * down, along * down])
    rows = feature_map.permute(0, 2, 3, 1).reshape(B * h * w, C)
    sampled = _WeightedRows.apply(rows, corners.flatten(1), shares.flatten(1).unsqueeze(-1))
    return sampled.view(*grid.shape[:2], C)


class _WeightedRows(torch.autograd.Function):
    """`(shares * rows[corners]).sum(0)` without holding what is summed; gradients reach `rows` alone."""

    @staticmethod
    def forward(
        ctx: Any, rows: Float[Tensor, "R C"], corners: Int[Tensor, "4 P"], shares: Float[Tensor, "4 P 1"]
    ) -> Float[Tensor, "P C"]:
        ctx.save_for_backward(corners, shares)
        ctx.rows = rows.shape, rows.dtype
        # In one pass, half the time; rows that are read often are converted for it, all of them.
        is_read_often = len(rows) < 2 * corners.numel()
        if rows.device.type == "cpu" and (rows.dtype == shares.dtype or is_read_often):
            bags, weights = corners.T.contiguous(), shares.squeeze(-1).T.contiguous()
            return F.embedding_bag(bags, rows.to(shares.dtype), mode="sum", per_sample_weights=weights)
        sampled = shares.new_zeros(corners.shape[1], rows.shape[1])
        for corner, share in zip(corners, shares, strict=True):
            sampled.addcmul_(rows.index_select(0, corner).to(shares.dtype), share)
        return sampled

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "P C"]) -> tuple[Float[Tensor, "R C"], None, None]:  # type: ignore[override]
        corners, shares = ctx.saved_tensors
        shape, dtype = ctx.rows
        # Where keypoints share pixels, many gradients are added up; a large map is rather written once, as it is.
        summed = shares.dtype if shape[0] < corners.numel() else dtype
        gradient_of_rows = gradient.new_zeros(shape, dtype=summed)
        for corner, share in zip(corners, shares, strict=True):
            gradient_of_rows.index_add_(0, corner, (gradient * share).to(summed))
        return gradient_of_rows.to(dtype), None, None


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
