"""Scale and orientation as evidence: correct matches around one place change scale and turn by the same amounts.

A match proposes log(scale1 / scale0) and ori1 - ori0. Wrong matches propose anything, correct ones what their
neighbours propose, so the density of the proposals, counted more for near matches, tells them apart.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from lisrd.errors import InputError
from lisrd.verify.local_affine import Frames
from lisrd.verify.robust import Points, as_matrix

#: Within these a pair of proposals counts as the same: half an octave step of SIFT, and a bin of its orientations.
LOG_SCALE_WIDTH, ANGLE_WIDTH = 0.25, np.radians(15.0)
#: Matches count as near within this part of the matches' extent in image 0.
NEAR = 0.25
#: Matches of less than this part of the best agreement contradict their neighbours.
MIN_AGREEMENT = 0.1
#: Matches that are compared with all others at a time.
_BLOCK = 512


def frame_agreement(
    points0: Points, frames0: Frames | None, frames1: Frames | None
) -> Float[np.ndarray, " S"]:
    """How much the other matches support each match's change of scale and orientation, from 0 to 1 (the best).

    `points0` (S, 2) are the pixels of the matches in image 0. All ones where a detector gave no frames, and for
    fewer than three matches; 0 for a match that is not finite. Raises InputError for shapes that do not fit.
    """
    places = as_matrix(points0, "points0", 2)
    if frames0 is None or frames1 is None or len(places) < 3:
        return np.ones(len(places))
    lengths = {len(places), len(frames0.scales), len(frames1.scales), len(frames0.oris), len(frames1.oris)}
    if len(lengths) > 1:
        raise InputError(f"points and frames have {sorted(lengths)} rows: pass one row per match in each")
    log_ratio = np.log(np.maximum(frames1.scales, 1e-6) / np.maximum(frames0.scales, 1e-6))
    turn = frames1.oris - frames0.oris
    proposals = np.stack([log_ratio, turn], axis=1)
    finite = np.isfinite(places).all(1) & np.isfinite(proposals).all(1)
    places, proposals = places[finite], proposals[finite]
    total = np.zeros(len(finite))
    blocks = [_support(places, proposals, start) for start in range(0, len(places), _BLOCK)]
    total[finite] = np.concatenate([np.zeros(0), *blocks])
    return total / max(total.max(), 1e-12)


def reweighted(
    scores: Float[np.ndarray, " S"], agreement: Float[np.ndarray, " S"], strength: float = 0.5
) -> Float[np.ndarray, " S"]:
    """Scores for `estimate` that put agreeing matches first; with all agreements 1 the scores stay.

    A match without support keeps 1 - `strength` of its score.
    """
    return scores * (1 - strength + strength * agreement)


def filter_by_frames(
    points0: Points, frames0: Frames | None, frames1: Frames | None, least: float = MIN_AGREEMENT
) -> Bool[np.ndarray, " S"]:
    """Matches that their neighbours' scales and orientations do not contradict; all of them without frames."""
    return frame_agreement(points0, frames0, frames1) >= least


def _support(
    places: Float[np.ndarray, "S 2"], proposals: Float[np.ndarray, "S 2"], start: int
) -> Float[np.ndarray, " rows"]:
    """For the matches from `start` on, a block of them: how many near ones propose the same."""
    block = slice(start, start + _BLOCK)
    reach = max(NEAR * float(np.linalg.norm(np.ptp(places, axis=0))), 1e-6)
    squared = np.square(_turns_between(proposals[:, 1], block) / np.float32(ANGLE_WIDTH))
    for values, width in zip((*places.T, proposals[:, 0]), (reach, reach, LOG_SCALE_WIDTH), strict=True):
        scaled = ((values - values.mean()) / width).astype(np.float32)  # precise enough for a weight
        difference = np.subtract.outer(scaled[block], scaled)
        squared += np.square(difference, out=difference)
    support = np.exp(-0.5 * squared)
    rows = np.arange(len(support))
    support[rows, start + rows] = 0  # nobody is their own witness
    return support.sum(1)


def _turns_between(angles: Float[np.ndarray, " S"], block: slice) -> Float[np.ndarray, "rows S"]:
    """From the block's angles to all of them, at most half a turn; radians."""
    angles = np.remainder(angles, 2 * np.pi).astype(np.float32)
    difference = np.subtract.outer(angles[block], angles)
    half_turn = np.float32(np.pi)
    return half_turn - np.abs(half_turn - np.abs(difference))  # a full turn is none
