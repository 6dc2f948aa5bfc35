"""Guided matching and the evidence of scales and orientations, on hand-placed keypoints and made-up descriptors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lisrd.errors import InputError
from lisrd.match import match
from lisrd.types import LocalFeatures, Selection
from lisrd.verify import Geometry, estimate
from lisrd.verify.consistency import filter_by_frames, frame_agreement, reweighted
from lisrd.verify.geometry import Kind
from lisrd.verify.guided import guided_matches, guided_second_choice
from lisrd.verify.local_affine import Frames

SHIFT = np.array([[1.0, 0, 10], [0, 1, 0], [0, 0, 1]])


def geometry(model: np.ndarray | None, kind: Kind = "homography", inliers: int = 0) -> Geometry:
    return Geometry(model, np.ones(inliers, dtype=bool), kind, "usac", "" if model is not None else "too few")


def test_a_stronger_rival_elsewhere_does_not_count() -> None:
    keypoints0 = torch.tensor([[0.0, 0.0], [50.0, 50.0]])
    keypoints1 = torch.tensor([[10.5, 0.0], [60.0, 50.0], [300.0, 300.0]])
    similarity = torch.tensor([[0.5, 0.4, 0.9], [0.6, 0.3, 0.8]])
    pairs, scores = guided_matches(lambda a, b: similarity[a:b], keypoints0, keypoints1, geometry(SHIFT))
    assert pairs.tolist() == [[0, 0], [1, 1]]
    torch.testing.assert_close(scores, torch.tensor([0.5, 0.3]))


def test_nothing_beyond_the_radius_or_below_the_least_similarity() -> None:
    keypoints0, keypoints1 = torch.tensor([[0.0, 0.0]]), torch.tensor([[16.0, 0.0]])
    similarity = torch.tensor([[0.5]])

    def found(radius: float, least: float) -> int:
        return len(
            guided_matches(
                lambda a, b: similarity[a:b], keypoints0, keypoints1, geometry(SHIFT), radius, least
            )[0]
        )

    assert (found(5, 0), found(6, 0), found(6, 0.6)) == (0, 1, 0)


def test_an_epipolar_line_guides_too() -> None:
    horizontal = np.array([[0, 0, 0], [0, 0, -1.0], [0, 1, 0]])  # a pure sideways motion: rows stay
    keypoints0 = torch.tensor([[0.0, 0.0], [0.0, 40.0]])
    keypoints1 = torch.tensor([[200.0, 1.0], [90.0, 41.0]])
    similarity = torch.tensor([[0.1, 0.9], [0.9, 0.1]])
    pairs, _ = guided_matches(
        lambda a, b: similarity[a:b], keypoints0, keypoints1, geometry(horizontal, "fundamental")
    )
    assert pairs.tolist() == [[0, 0], [1, 1]]


def test_no_keypoints_give_no_matches() -> None:
    nothing = torch.zeros((0, 2))
    pairs, scores = guided_matches(
        lambda a, b: torch.zeros((b - a, 0)), torch.zeros((3, 2)), nothing, geometry(SHIFT)
    )
    assert pairs.shape == (0, 2)
    assert scores.shape == (0,)


@pytest.mark.parametrize("bad", [geometry(None), geometry(np.eye(3, 4), "absolute_pose")])
def test_only_models_that_predict_a_place_guide(bad: Geometry) -> None:
    with pytest.raises(InputError, match=r"no model|guides no matches"):
        guided_matches(lambda a, b: torch.zeros((1, 1)), torch.zeros((1, 2)), torch.zeros((1, 2)), bad)


def features(keypoints: np.ndarray, descriptors: torch.Tensor) -> LocalFeatures:
    """Two invariances; the meta descriptors agree on the first, so that the selection reads nearly it alone."""
    count = len(keypoints)
    meta = torch.zeros((1, 2, 1, 1, 2))
    meta[0, 0, ..., 0] = 1
    meta[0, 1, ..., 0] = 1
    return LocalFeatures(
        torch.from_numpy(keypoints).float()[None],
        torch.ones((1, count)),
        descriptors[None],
        meta,
        torch.tensor([[200.0, 200.0]]),
        torch.ones((1, count), dtype=torch.bool),
        Selection(("selected", "other"), temperature=0.05, bias=(100.0, 0.0)),
    )


def test_second_choice_finds_what_the_selected_invariance_lost() -> None:
    rng, g = np.random.default_rng(0), torch.Generator().manual_seed(0)
    keypoints0 = rng.uniform(0, 180, (40, 2))
    descriptors0 = F.normalize(torch.randn((40, 2, 32), generator=g), dim=-1)
    descriptors1 = descriptors0.clone()
    descriptors1[30:, 0] = F.normalize(torch.randn((10, 32), generator=g), dim=-1)  # lost to the selected one
    features0 = features(keypoints0, descriptors0)
    features1 = features(keypoints0 + [10, 0], descriptors1)  # noqa: RUF005
    matches = match(features0, features1)
    points = [f.keypoints[0, matches.matches[:, k]] for k, f in enumerate((features0, features1))]
    model = estimate(points[0], points[1], scores=matches.scores)
    settled = matches.matches[torch.from_numpy(model.inliers)][:, 0]
    assert set(range(30)) <= set(settled.tolist())
    lost = sorted(set(range(40)) - set(settled.tolist()))  # a few of the ten meet their partner by chance
    pairs, scores = guided_second_choice(features0, features1, matches, model)
    assert len(lost) > 5
    assert sorted(pairs.tolist()) == [[i, i] for i in lost]
    torch.testing.assert_close(scores, torch.ones(len(lost)))


def framed_matches(seed: int) -> tuple[np.ndarray, Frames, Frames]:
    """60 matches turned by 1 radian and twice as large, then 20 with any change."""
    rng = np.random.default_rng(seed)
    frames0 = Frames(rng.uniform(3, 10, 80), rng.uniform(-3, 3, 80))
    ratio, turn = np.full(80, 2.0), np.full(80, 1.0)
    ratio[60:], turn[60:] = np.exp(rng.uniform(-2, 2, 20)), rng.uniform(-3, 3, 20)
    frames1 = Frames(frames0.scales * ratio, frames0.oris + turn + 2 * np.pi * rng.integers(-1, 2, 80))
    return rng.uniform(0, 400, (80, 2)), frames0, frames1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_matches_that_change_alike_support_each_other(seed: int) -> None:
    points0, frames0, frames1 = framed_matches(seed)
    agreement = frame_agreement(points0, frames0, frames1)
    assert agreement.min() >= 0
    assert agreement.max() == pytest.approx(1)
    kept = filter_by_frames(points0, frames0, frames1)
    assert kept[:60].all()
    assert kept[60:].mean() < 0.3


@settings(max_examples=10, deadline=None)
@given(turn=st.floats(-10, 10), scale=st.floats(0.2, 5))
def test_turning_or_enlarging_image_1_changes_no_agreement(turn: float, scale: float) -> None:
    points0, frames0, frames1 = framed_matches(0)
    moved = Frames(frames1.scales * scale, frames1.oris + turn)
    np.testing.assert_allclose(
        frame_agreement(points0, frames0, moved), frame_agreement(points0, frames0, frames1), atol=1e-9
    )


def test_keypoints_without_frames_lose_nothing() -> None:
    points0, frames0, _ = framed_matches(0)
    assert filter_by_frames(points0, None, None).all()
    scores = np.linspace(0, 1, 80)
    np.testing.assert_array_equal(reweighted(scores, frame_agreement(points0, None, frames0)), scores)


def test_a_match_without_support_keeps_a_part_of_its_score() -> None:
    np.testing.assert_allclose(reweighted(np.array([0.8, 0.8]), np.array([1.0, 0.0]), 0.25), [0.8, 0.6])


def test_frames_of_other_matches_are_refused() -> None:
    points0, frames0, frames1 = framed_matches(0)
    with pytest.raises(InputError, match="one row per match"):
        frame_agreement(points0[:10], frames0, frames1)
