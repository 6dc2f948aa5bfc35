"""Matches as sets of keypoint pairs: which are in both, all of both, whose keypoints are taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Int

from lisrd.types import Matches


def contained(matches: Matches, others: Matches) -> Bool[np.ndarray, " S"]:
    """Which of `matches` are among `others`, both of one pair of images."""
    wanted, codes = np.sort(_codes(others)), _codes(matches)
    if not len(wanted):
        return np.zeros(len(codes), dtype=bool)
    return wanted[np.searchsorted(wanted, codes).clip(max=len(wanted) - 1)] == codes


def joined(first: Matches, second: Matches) -> Matches:
    """The matches of both, one after the other."""
    return replace(
        first,
        matches=torch.cat([first.matches, second.matches]),
        scores=torch.cat([first.scores, second.scores]),
        invariance_weights=torch.cat([first.invariance_weights, second.invariance_weights]),
    )


def touching(matches: Matches, chosen: Bool[np.ndarray, " S"]) -> Bool[np.ndarray, " S"]:
    """Which of `matches` have a keypoint that one of the `chosen` has."""
    touches = np.zeros(len(matches), dtype=bool)
    for index, count in zip(matches.matches.cpu().numpy().T, matches.num_keypoints, strict=True):
        taken = np.zeros(count, dtype=bool)
        taken[index[chosen]] = True
        touches |= taken[index]
    return touches


def keep(matches: Matches, chosen: Bool[np.ndarray, " S"]) -> Matches:
    """The chosen matches alone."""
    return matches.keep(torch.from_numpy(chosen).to(matches.matches.device))


def _codes(matches: Matches) -> Int[np.ndarray, " S"]:
    """One number for each pair of keypoints."""
    pairs = matches.matches.cpu().numpy()
    return pairs[:, 0] * max(matches.num_keypoints[1], 1) + pairs[:, 1]
