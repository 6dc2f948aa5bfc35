"""The blocked matcher against the direct formula, and the laws that every matcher obeys."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lisrd.errors import InputError
from lisrd.match import Policy, match, match_batch, scorer
from lisrd.match.nearest import mutual_nearest_neighbours
from lisrd.match.policy import turn_from_text
from lisrd.match.selection import tile_weights
from lisrd.types import LocalFeatures, Selection

NAMES = ("rot_var_illum_var", "rot_invar_illum_var", "rot_var_illum_invar", "rot_invar_illum_invar")


def random_features(
    count: int,
    seed: int,
    size: tuple[float, float] = (320.0, 240.0),
    turns: bool = False,
    dtype=torch.float64,
    num_turns: int = 4,
) -> LocalFeatures:
    g = torch.Generator().manual_seed(seed)

    def unit(*shape: int) -> torch.Tensor:
        return F.normalize(torch.randn(shape, generator=g, dtype=dtype), dim=-1)

    return LocalFeatures(
        keypoints=torch.rand((1, count, 2), generator=g, dtype=dtype) * (torch.tensor(size, dtype=dtype) - 1),
        keypoint_scores=torch.rand((1, count), generator=g, dtype=dtype),
        descriptors=unit(1, count, 4, 16),
        meta_descriptors=unit(1, 4, 3, 3, 32),
        image_size=torch.tensor([size], dtype=dtype),
        mask=torch.ones((1, count), dtype=torch.bool),
        selection=Selection(NAMES, 0.1, (0.1, 0.0, -0.2, 0.3), (True, False, True, False) if turns else None),
        turned_descriptors=unit(1, count, num_turns - 1, 2, 16) if turns else None,
        turned_meta_descriptors=unit(1, num_turns - 1, 2, 3, 3, 32) if turns else None,
    )


def direct_similarity(f0: LocalFeatures, f1: LocalFeatures) -> torch.Tensor:
    """The formula of the paper, word for word: per-keypoint meta descriptors and N x M x V tensors, float64."""

    def at_keypoints(f: LocalFeatures) -> torch.Tensor:
        weights = tile_weights(f.keypoints.double(), f.image_size.double(), 3)[0]
        return F.normalize(
            torch.einsum("nk,vkc->nvc", weights, f.meta_descriptors[0].double().flatten(1, 2)), dim=-1
        )

    meta = torch.einsum("nvc,mvc->nmv", at_keypoints(f0), at_keypoints(f1))
    weights = (
        meta / f0.selection.temperature + torch.tensor(f0.selection.bias, dtype=torch.float64)
    ).softmax(-1)
    local = torch.einsum("nvd,mvd->nmv", f0.descriptors[0].double(), f1.descriptors[0].double())
    return (weights * local).sum(-1)


def test_five_keypoints_placed_by_hand() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.3, 0.1], [0.0, 0.2, 0.7]])
    # Row 1 prefers column 0, which prefers row 0: only (0, 0) and (2, 2) are mutual.
    assert mutual_nearest_neighbours(similarity).tolist() == [[0, 0], [2, 2]]


def test_ties_go_to_the_first() -> None:
    assert mutual_nearest_neighbours(torch.ones(3, 2)).tolist() == [[0, 0]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 10_000), st.integers(1, 3))
def test_blocked_equals_direct(count0: int, count1: int, seed: int, rows: int) -> None:
    f0, f1 = random_features(count0, seed), random_features(count1, seed + 1, (500.0, 111.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "choose_pass", lambda device: ("torch", "the compiled pass has its own tests"))
        patch.setattr(scorer.PairScorer, "block", property(lambda self: rows))
        found = match(f0, f1)
    direct = direct_similarity(f0, f1)
    expected = mutual_nearest_neighbours(direct)
    assert found.matches.tolist() == expected.tolist()
    assert found.invariance_weights.sum(1).numpy() == pytest.approx(1, abs=1e-5)
    assert found.scores.double().numpy() == pytest.approx(
        direct[expected[:, 0], expected[:, 1]].numpy(), abs=1e-5
    )


@pytest.mark.parametrize("place", ["one tile", "border"])
def test_adversarial_places(place: str) -> None:
    f0, f1 = random_features(30, 3), random_features(25, 4)
    for f in (f0, f1):
        if place == "one tile":
            f.keypoints.mul_(0.01)
        else:
            f.keypoints[0, ::2, 0] = 319.5
            f.keypoints[0, 1::2, 1] = -0.5
    assert match(f0, f1).matches.tolist() == mutual_nearest_neighbours(direct_similarity(f0, f1)).tolist()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 10_000))
def test_swapping_images_swaps_columns(count0: int, count1: int, seed: int) -> None:
    f0, f1 = random_features(count0, seed), random_features(count1, seed + 1)
    forward, back = match(f0, f1), match(f1, f0)
    assert sorted(forward.matches.tolist()) == sorted(back.matches.flip(1).tolist())


def test_no_keypoints_give_no_matches() -> None:
    found = match(random_features(0, 1), random_features(5, 2))
    assert found.matches.shape == (0, 2)
    assert found.invariance_weights.shape == (0, 4)
    assert [len(m) for m in found.padded()] == [0, 5]


def test_itself_matches_itself() -> None:
    features = random_features(50, 7)
    assert match(features, features).matches.tolist() == [[i, i] for i in range(50)]


#: Quarter turns, how many turns there are, and which of them that is.
TURNS = [
    (0, 4, 0),
    (1, 4, 1),
    (2, 4, 2),
    (3, 4, 3),
    (0, 8, 0),
    (0.5, 8, 1),
    (1, 8, 2),
    (2.5, 8, 5),
    (3.5, 8, 7),
]


@pytest.mark.parametrize(("turn", "num_turns", "number"), TURNS)
def test_turn_is_found_and_undone(turn: float, num_turns: int, number: int) -> None:
    """Image 1 whose descriptors at `turn` are those of image 0 is read at that turn."""
    f0, f1 = (random_features(40, seed, turns=True, num_turns=num_turns) for seed in (1, 2))
    f1.descriptors[:, :, [1, 3]] = f0.descriptors[:, :, [1, 3]]
    target = f1.descriptors[:, :, [0, 2]] if turn == 0 else f1.turned_descriptors[:, :, number - 1]
    target.copy_(f0.descriptors[:, :, [0, 2]])
    if turn == 0:
        f1.descriptors[:, :, [0, 2]] = f0.descriptors[:, :, [0, 2]]
    found = match(f0, f1)
    assert found.turn == turn
    assert found.matches.tolist() == [[i, i] for i in range(40)]
    assert match(f0, f1, Policy(turn=turn)).matches.tolist() == found.matches.tolist()
    assert match(f0, f1, Policy(turn="off")).turn == 0


def test_a_turn_as_users_write_it() -> None:
    assert [turn_from_text(text) for text in ("2", "0.5", "auto")] == [2, 0.5, "auto"]
    assert isinstance(turn_from_text("2"), int)
    for text in ("nan", "inf", "0.3", ""):
        with pytest.raises(InputError, match="policy: turn is"):
            Policy(turn=turn_from_text(text))


@pytest.mark.parametrize(("turn", "num_turns", "number"), TURNS)
def test_orientations_tell_the_turn(turn: float, num_turns: int, number: int) -> None:
    """Image 1 turned by rot90 k times shows every direction k x 90 degrees less (y points down)."""
    f0, f1 = (random_features(40, seed, turns=True, num_turns=num_turns) for seed in (1, 2))
    f1.descriptors[:, :, [1, 3]] = f0.descriptors[:, :, [1, 3]]
    oris = torch.rand(1, 40, dtype=torch.float64) * 6.28
    f0, f1 = replace(f0, oris=oris), replace(f1, oris=(oris + turn * torch.pi / 2) % (2 * torch.pi))
    assert match(f0, f1, Policy(turn="orientations")).turn == turn
    with pytest.raises(InputError, match="keypoints have none"):
        match(f0, replace(f1, oris=None), Policy(turn="orientations"))
    with pytest.raises(InputError, match="no invariance that it allows is one to rotation"):
        match(f0, f1, Policy(turn="orientations", only=(NAMES[0],)))


def test_policy_forces_forbids_and_weighs() -> None:
    f0, f1 = random_features(30, 5), random_features(30, 6)
    only = match(f0, f1, Policy(only=(NAMES[2],)))
    single = torch.einsum("nd,md->nm", f0.descriptors[0, :, 2], f1.descriptors[0, :, 2])
    assert only.matches.tolist() == mutual_nearest_neighbours(single).tolist()
    assert (only.invariance_weights[:, 2] == 1).all()
    assert (match(f0, f1, Policy(forbid=(NAMES[0],))).invariance_weights[:, 0] == 0).all()
    heavy = match(f0, f1, Policy(prior={NAMES[3]: 1e6}))
    assert (heavy.invariance_weights[:, 3] > 0.99).all()
    mean = match(f0, f1, Policy(selection="mean"))
    assert mean.invariance_weights.numpy() == pytest.approx(0.25)
    hard = match(f0, f1, Policy(selection="hard"))
    assert set(hard.invariance_weights.unique().tolist()) <= {0.0, 1.0}


def test_ratio_and_floor_only_remove() -> None:
    f0, f1 = random_features(60, 8), random_features(60, 9)
    everything = {tuple(m) for m in match(f0, f1).matches.tolist()}
    for policy in (Policy(ratio=0.9), Policy(min_similarity=0.55)):
        assert {tuple(m) for m in match(f0, f1, policy).matches.tolist()} < everything


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Policy(selection="best"), "selection is 'best'"),
        (lambda: Policy(turn=4), "turn is 4"),
        (lambda: Policy(temperature=0.0), "must be above 0"),
        (lambda: Policy(only=("rot_var_illum_vra",)).kinds(NAMES), "did you mean rot_var_illum_var"),
        (lambda: Policy(forbid=NAMES).kinds(NAMES), "every invariance is forbidden"),
        (
            lambda: match(random_features(3, 1), random_features(3, 2), Policy(turn=1)),
            "no turned descriptors",
        ),
        (
            lambda: match(random_features(3, 1), random_features(3, 2, turns=True), Policy(turn=1.5)),
            "turn is 1.5, but features1 hold quarter turns only",
        ),
    ],
)
def test_errors_teach(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("selection", ["soft", "hard"])
@pytest.mark.parametrize("name", ["descriptors", "meta_descriptors", "keypoints", "turned_descriptors"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_one_value_that_is_not_finite_is_refused(
    name: str, value: float, selection: Literal["soft", "hard"]
) -> None:
    """In the middle of more keypoints than a tile holds: the matches of all others would be gone."""
    f0, f1 = (random_features(600, seed, turns=True, dtype=torch.float32) for seed in (1, 2))
    values = getattr(f1, name)
    values.view(-1)[values.numel() // 2] = value
    with pytest.raises(InputError, match=f"features1 hold NaN or infinite {name}"):
        match(f0, f1, Policy(selection=selection))


@pytest.mark.parametrize("name", ["descriptors", "meta_descriptors", "turned_descriptors"])
def test_descriptors_that_are_no_unit_vectors_are_refused(name: str) -> None:
    """Whatever direction it has, a long one is nearest to all that lie on its side."""
    f0, f1 = (random_features(20, seed, turns=True) for seed in (1, 2))
    getattr(f1, name)[0, 1] *= 100
    with pytest.raises(InputError, match=f"features1 hold {name} that are no unit vectors"):
        match(f0, f1)


def test_ragged_batch_equals_singles() -> None:
    pairs = [(random_features(n, n), random_features(m, m + 50)) for n, m in ((12, 9), (5, 14))]
    batches = [_stacked([pair[side] for pair in pairs]) for side in (0, 1)]
    together = match_batch(*batches)
    for (f0, f1), found in zip(pairs, together, strict=True):
        assert found.matches.tolist() == match(f0, f1).matches.tolist()


def _stacked(singles: list[LocalFeatures]) -> LocalFeatures:
    longest = max(f.keypoints.shape[1] for f in singles)

    def joined(name: str, padded: bool) -> torch.Tensor:
        values = [getattr(f, name) for f in singles]
        if padded:
            values = [F.pad(v, [0, 0] * (v.ndim - 2) + [0, longest - v.shape[1]]) for v in values]
        return torch.cat(values)

    names = {"keypoints": True, "keypoint_scores": True, "descriptors": True, "mask": True}
    names |= {"meta_descriptors": False, "image_size": False}
    return LocalFeatures(**{n: joined(n, p) for n, p in names.items()}, selection=singles[0].selection)
