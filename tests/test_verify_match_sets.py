"""Matches as sets, by hand, and which local maps a refinement may start from."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lisrd.types import Matches
from lisrd.verify.match_sets import contained, touching
from lisrd.verify.refine import LARGEST_SCALE, _usable


def matches(*pairs: tuple[int, int]) -> Matches:
    count = len(pairs)
    indices = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    return Matches(indices, torch.ones(count), torch.ones(count, 1), (5, 4), ("one",))


def test_contained_by_hand() -> None:
    """(1, 0) and (0, 3) are neighbours of what is there, in the order of pairs; (4, 3) lies behind all of it."""
    found = contained(matches((0, 2), (1, 0), (0, 3), (4, 3), (2, 1)), matches((2, 1), (0, 2)))
    assert found.tolist() == [True, False, False, False, True]
    assert contained(matches((0, 2)), matches()).tolist() == [False]
    assert contained(matches(), matches((0, 2))).tolist() == []


def test_touching_by_hand() -> None:
    """Of the chosen match itself, one with its first keypoint, one with its second, and one with neither."""
    chosen = np.array([False, True, False, False])
    assert touching(matches((0, 1), (0, 2), (3, 2), (2, 0)), chosen).tolist() == [True, True, True, False]


@given(st.integers(0, 2**31))
def test_usable_maps_are_those_of_the_decomposition(seed: int) -> None:
    """No mirror, and no direction that grows or shrinks by more than the limit; by numpy's singular values."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(50, 2, 2)) * np.exp(rng.uniform(-3, 3, (50, 1, 1)))
    lengths = np.linalg.svd(maps, compute_uv=False)
    within = (lengths[:, 0] <= LARGEST_SCALE) & (lengths[:, 1] >= 1 / LARGEST_SCALE)
    assert _usable(maps).tolist() == (within & (np.linalg.det(maps) > 0)).tolist()
    maps[0, 0, 0] = np.nan
    assert not _usable(maps)[0]
