"""Areas under cumulative error curves: corner errors at 1, 3, 5 px and pose errors at 5, 10, 20 degrees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CORNER_AUC_PX = (1.0, 3.0, 5.0)
POSE_AUC_DEGREES = (5.0, 10.0, 20.0)


def error_auc(errors: Sequence[float] | np.ndarray, threshold: float) -> float:
    """Area under the recall-over-error curve from 0 to `threshold`, divided by `threshold`.

    Trapezoids between the sorted errors, as in SuperGlue's evaluation; an infinite error is a failure.
    """
    ordered = np.sort(np.asarray(errors, dtype=np.float64))
    if not len(ordered):
        return 0.0
    within = ordered[ordered <= threshold]
    share = np.arange(1, len(within) + 1) / len(ordered)
    x = np.concatenate([[0.0], within, [threshold]])
    y = np.concatenate([[0.0], share, share[-1:] if len(share) else [0.0]])
    return float(np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2) / threshold)
