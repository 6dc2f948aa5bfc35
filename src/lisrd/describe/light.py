"""An image whose light is normalised before any weight sees it.

Another exposure multiplies the whole image, a shadow or a lamp a part of it: the logarithm makes sums of both, whose
slow part the mean over the surroundings takes out, and the deviation takes out contrast. The surroundings are a window
of cells of `CELL` pixels, read between the cells' centres: two small maps instead of a box filter at full size, which
alone took longer than the rest of the encoder.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

CELL = 8  # pixels
CELLS = 5  # on a side: the window is 40 pixels wide, and falls off linearly over its outermost cell
DARK = 0.02  # of full scale, added before the logarithm: there noise would be taken for structure
FLAT = 0.1  # added to the deviation, so that a plain surface stays plain
LIMIT = 4.0  # deviations from the mean


def normalised_light(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
    """Log brightness less its local mean, over its local deviation; H and W are multiples of `CELL`.

    Computed in float32, and symmetric under quarter turns of the image.
    """
    brightness = (images.float().mean(dim=1, keepdim=True) + DARK).log()
    mean = _surroundings(brightness)
    deviation = (_surroundings(brightness.square()) - mean.square()).clamp_min(0).sqrt()
    normalised = (brightness - _between(mean)) / (_between(deviation) + FLAT)
    return normalised.clamp(-LIMIT, LIMIT)


def _surroundings(x: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 h w"]:
    """Means over the window around every cell, of what lies inside the image."""
    return F.avg_pool2d(F.avg_pool2d(x, CELL), CELLS, 1, CELLS // 2, count_include_pad=False)


def _between(x: Float[Tensor, "B 1 h w"]) -> Float[Tensor, "B 1 H W"]:
    return F.interpolate(x, scale_factor=CELL, mode="bilinear", align_corners=False)
