"""The damage that JPEG compression does, batched on the device: quantised cosines of 8 x 8 blocks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_SIDE = 8
# Rows of ITU-R BT.601 (JFIF): luma and the two chroma differences, without their offset.
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def compress(images: Float[Tensor, "B 3 H W"], quality: Float[Tensor, " B"]) -> Float[Tensor, "B 3 H W"]:
    """Images in [0, 1] after compression with `quality` (1 to 100) and decompression.

    The quantisation step grows with frequency, a line through the table of JPEG's annex K; the chroma is
    quantised twice as coarsely instead of being subsampled.
    """
    height, width = images.shape[2:]
    padded = F.pad(images, (0, -width % _SIDE, 0, -height % _SIDE), mode="replicate")
    to_ycc = images.new_tensor(_TO_YCC)
    ycc = torch.einsum("cd,bdhw->bchw", to_ycc, padded)
    b, c, h, w = ycc.shape
    blocks = ycc.view(b, c, h // _SIDE, _SIDE, w // _SIDE, _SIDE).transpose(3, 4)
    basis = _cosine_basis(images)
    step = _steps(quality).view(b, c, 1, 1, _SIDE, _SIDE)
    quantised = ((basis @ blocks @ basis.T) / step).round() * step
    restored = (basis.T @ quantised @ basis).transpose(3, 4).reshape(b, c, h, w)
    rgb = torch.einsum("cd,bdhw->bchw", torch.linalg.inv(to_ycc), restored)
    return rgb[:, :, :height, :width].clamp(0, 1)


def _cosine_basis(like: Tensor) -> Float[Tensor, "8 8"]:
    """Rows are the orthonormal cosines of a block's side."""
    k = torch.arange(_SIDE, device=like.device, dtype=like.dtype)
    basis = torch.cos(torch.pi / _SIDE * (k + 0.5) * k.unsqueeze(1)) * math.sqrt(2 / _SIDE)
    basis[0] /= math.sqrt(2)
    return basis


def _steps(quality: Float[Tensor, " B"]) -> Float[Tensor, "B 3 8 8"]:
    """Quantisation steps in the units of the images, for luma and chroma."""
    k = torch.arange(_SIDE, device=quality.device, dtype=quality.dtype)
    table = 10 + 7 * (k + k.unsqueeze(1))
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)  # the scaling of the IJG library
    chroma = quality.new_tensor([1.0, 2.0, 2.0]).view(1, 3, 1, 1)
    return (table * scale.view(-1, 1, 1, 1) * chroma).clamp(min=1) / 255
