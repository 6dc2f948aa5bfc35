"""Fine maps averaged over a cross of five points before they are read at keypoints.

A detector finds a point of the scene again a pixel or two beside it. What a fine map says there is another number;
averaged over as many pixels it is nearly the same one. The cross stands where quarter turns find it again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

#: Pixels of the image: the points around must lie within a pixel of the finest map, whose stride is 2.
MAX_RADIUS = 2.0


def smoothed(maps: Sequence[Float[Tensor, "B _ _ _"]], radius: float) -> list[Float[Tensor, "B _ _ _"]]:
    """Maps at strides 2, 4, 8, ...; those finer than `radius` pixels of the image can tell apart are averaged.

    Every value becomes the mean of a bilinear sample there and of four, `radius` pixels to each side; the border is
    repeated.
    """
    reaches = (radius / 2 ** (index + 1) for index in range(len(maps)))  # in pixels of the map
    return [
        _cross_mean(one, reach) if reach >= 0.5 else one for one, reach in zip(maps, reaches, strict=True)
    ]


def _cross_mean(x: Float[Tensor, "B C h w"], reach: float) -> Float[Tensor, "B C h w"]:
    kernel = x.new_zeros(3, 3, dtype=torch.float32)
    kernel[1] += reach / 5
    kernel[:, 1] += reach / 5
    kernel[1, 1] = 1 - 4 * reach / 5
    channels = x.shape[1]
    each = kernel.to(x.dtype).expand(channels, 1, 3, 3).contiguous()
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), each, groups=channels)
