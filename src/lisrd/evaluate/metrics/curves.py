"""Areas under cumulative error curves: corner errors at 1, 3, 5 px and pose errors at 5, 10, 20 degrees."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

CORNER_AUC_PX = (1.0, 3.0, 5.0)
POSE_AUC_DEGREES = (5.0, 10.0, 20.0)


def error_auc(errors: Float[np.ndarray, "*batch N"], threshold: float) -> Float[np.ndarray, "*batch"]:
    """Area under the share-of-pairs-over-error curve from 0 to `threshold`, divided by `threshold`.

    Trapezoids between the sorted errors, as in SuperGlue's evaluation; an infinite error is a failure.
    """
    ordered = np.sort(errors, axis=-1)
    clipped = np.minimum(ordered, threshold)
    widths = np.diff(clipped, axis=-1, prepend=0.0)
    rank = np.arange(ordered.shape[-1])
    # Up to an error the curve rises by one pair; beyond the last one within the threshold it is level.
    heights = np.where(ordered <= threshold, rank + 0.5, rank) / ordered.shape[-1]
    level = threshold - clipped[..., -1]
    return np.asarray(((widths * heights).sum(axis=-1) + level) / threshold)
