"""The compiled pass finds what torch finds: in several tiles and threads, with ties, and with extreme weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from lisrd.match import Policy, fused, match, scorer
from lisrd.match.nearest import mutual_nearest_neighbours
from lisrd.types import LocalFeatures, Matches
from test_match import NAMES, direct_similarity, random_features

pytest.importorskip("numba", reason="the extra `fast` is not installed")


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def match_both_ways(
    f0: LocalFeatures, f1: LocalFeatures, monkeypatch: pytest.MonkeyPatch, policy: Policy = Policy()
) -> tuple[Matches, Matches]:
    """Compiled, in tiles of 16, and by torch."""
    monkeypatch.setattr(fused, "SIDE", 16)
    compiled = match(f0, f1, policy)
    monkeypatch.setattr(scorer, "choose_pass", lambda device: ("torch", "asked for"))
    return compiled, match(f0, f1, policy)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("count0", "count1"), [(150, 97), (16, 33), (1, 40), (40, 1), (0, 5)])
def test_same_matches_as_torch_and_as_the_formula(
    count0: int, count1: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    f0, f1 = random_features(count0, 1), random_features(count1, 2)
    compiled, by_torch = match_both_ways(f0, f1, monkeypatch)
    expected = mutual_nearest_neighbours(direct_similarity(f0, f1)).tolist()
    assert compiled.matches.tolist() == by_torch.matches.tolist() == expected


@pytest.mark.usefixtures("threads")
def test_the_first_of_equals_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every keypoint stands four times at one place with one descriptor, in different tiles and threads."""
    f0, f1 = (repeated(random_features(20, seed), 4) for seed in (1, 2))
    compiled, by_torch = match_both_ways(f0, f1, monkeypatch)
    assert compiled.matches.tolist() == by_torch.matches.tolist()
    assert compiled.matches.max() < 20


def repeated(features: LocalFeatures, times: int) -> LocalFeatures:
    names = ("keypoints", "keypoint_scores", "descriptors", "mask")
    return replace(features, **{n: torch.cat([getattr(features, n)] * times, dim=1) for n in names})


@pytest.mark.parametrize(
    "policy",
    [
        Policy(temperature=1e-3),
        Policy(temperature=1e3),
        Policy(prior={NAMES[0]: 1e30, NAMES[1]: 1e-30}),
        Policy(only=NAMES[:2]),
        Policy(forbid=NAMES[:1]),
        Policy(ratio=0.95),
    ],
    ids=repr,
)
def test_extreme_weights_and_the_second_best(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    f0, f1 = random_features(60, 3), random_features(70, 4)
    compiled, by_torch = match_both_ways(f0, f1, monkeypatch, policy)
    assert compiled.matches.tolist() == by_torch.matches.tolist()
    assert len(compiled.matches) > 0


def test_exponential_is_exact_to_rounding() -> None:
    from lisrd.match.fused_kernel import _exp2

    exponents = np.linspace(-125, 0, 20_001, dtype=np.float32)
    found = np.array([_exp2(x) for x in exponents])
    relative = np.abs(found / np.exp2(exponents.astype(np.float64)) - 1)
    assert relative.max() < 2e-7  # one or two units in the last place
    assert _exp2(np.float32(0)) == 1
    assert 0 <= _exp2(np.float32(-1e4)) < 1e-37
