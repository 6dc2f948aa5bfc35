"""Guided matching and the evidence of scales and orientations, on hand-placed keypoints and made-up descriptors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lisrd.errors import InputError
from lisrd.types import LocalFeatures, Selection
from lisrd.verify import Geometry
from lisrd.verify.consistency import filter_by_frames, frame_agreement, reweighted
from lisrd.verify.geometry import Kind, project
from lisrd.verify.guided import allowed_pairs, guided_matches, second_choices, share_moved
from lisrd.verify.local_affine import Frames

SHIFT = np.array([[1.0, 0, 10], [0, 1, 0], [0, 0, 1]])


def geometry(model: np.ndarray | None, kind: Kind = "homography", inliers: int = 0) -> Geometry:
    return Geometry(model, np.ones(inliers, dtype=bool), kind, "usac", "" if model is not None else "too few")


def features(keypoints: list[list[float]], descriptors: torch.Tensor) -> LocalFeatures:
    """Two invariances (descriptors are N x 2 x D); the bias lets the selection read the first alone."""
    count = len(keypoints)
    meta = torch.zeros((1, 2, 1, 1, 2))
    meta[..., 0] = 1
    return LocalFeatures(
        torch.tensor(keypoints, dtype=torch.float32).reshape(1, count, 2),
        torch.ones((1, count)),
        descriptors[None],
        meta,
        torch.tensor([[200.0, 200.0]]),
        torch.ones((1, count), dtype=torch.bool),
        Selection(("selected", "other"), temperature=0.05, bias=(100.0, 0.0)),
    )


def with_similarities(
    keypoints0: list[list[float]], keypoints1: list[list[float]], similarity: list[list[float]]
) -> tuple[LocalFeatures, LocalFeatures]:
    """Features whose descriptors have these dot products: those of image 0 are unit vectors."""
    count0, count1 = len(keypoints0), len(keypoints1)
    columns = torch.tensor(similarity).reshape(count0, count1).T
    both = [torch.eye(count0), columns]
    return tuple(  # type: ignore[return-value]
        features(k, d.unsqueeze(1).expand(-1, 2, -1))
        for k, d in zip((keypoints0, keypoints1), both, strict=True)
    )


def test_a_stronger_rival_elsewhere_does_not_count() -> None:
    pair = with_similarities(
        [[0, 0], [50, 50]], [[10.5, 0], [60, 50], [150, 150]], [[0.5, 0.4, 0.9], [0.6, 0.3, 0.8]]
    )
    found = guided_matches(*pair, geometry(SHIFT))
    assert found.matches.tolist() == [[0, 0], [1, 1]]
    torch.testing.assert_close(found.scores, torch.tensor([0.5, 0.3]))
    torch.testing.assert_close(found.invariance_weights, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert found.num_keypoints == (2, 3)


def test_the_best_of_several_that_the_model_allows() -> None:
    pair = with_similarities([[0, 0], [2, 0]], [[10, 0], [11, 0]], [[0.5, 0.9], [0.4, 0.95]])
    assert guided_matches(*pair, geometry(SHIFT)).matches.tolist() == [[1, 1]]  # 0 prefers 1, which prefers 1


def test_nothing_beyond_the_radius_or_below_the_least_similarity() -> None:
    pair = with_similarities([[0, 0]], [[16, 0]], [[0.5]])

    def found(radius: float, least: float) -> int:
        return len(guided_matches(*pair, geometry(SHIFT), radius=radius, min_similarity=least))

    assert (found(5, 0), found(6, 0), found(6, 0.6)) == (0, 1, 0)


def test_an_epipolar_line_guides_too() -> None:
    horizontal = np.array([[0, 0, 0], [0, 0, -1.0], [0, 1, 0]])  # a pure sideways motion: rows stay
    pair = with_similarities([[0, 0], [0, 40]], [[150, 1], [90, 41]], [[0.1, 0.9], [0.9, 0.1]])
    found = guided_matches(*pair, geometry(horizontal, "fundamental"))
    assert found.matches.tolist() == [[0, 0], [1, 1]]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 60),
    st.integers(0, 60),
    st.floats(0.5, 40.0),
    st.sampled_from(["homography", "fundamental"]),
    st.integers(0, 99),
)
def test_allowed_pairs_are_all_that_lie_near(n0: int, n1: int, radius: float, kind: Kind, seed: int) -> None:
    """Against every pair compared; some places lie beyond the horizon, and keypoints share columns."""
    g = np.random.default_rng(seed)
    points0, points1 = (np.round(g.uniform(0, 100, (n, 2))) for n in (n0, n1))
    model = np.array([[1.0, 0.1, 3.0], [-0.1, 1.0, 2.0], [0.01, -0.02, 1.0]])
    found = allowed_pairs(torch.tensor(points0), torch.tensor(points1), geometry(model, kind), radius)
    if kind == "homography":
        distance = np.linalg.norm(project(points0, model)[:, None] - points1, axis=2)
    else:
        lines = np.c_[points0, np.ones(n0)] @ model.T
        distance = (
            np.abs(lines @ np.c_[points1, np.ones(n1)].T) / np.linalg.norm(lines[:, :2], axis=1)[:, None]
        )
    assert found.tolist() == np.argwhere(distance <= radius).tolist()


def test_no_keypoints_give_no_matches() -> None:
    found = guided_matches(*with_similarities([[0, 0]], [], []), geometry(SHIFT))
    assert found.matches.shape == (0, 2)
    assert found.scores.shape == (0,)


@pytest.mark.parametrize("bad", [geometry(None), geometry(np.eye(3, 4), "absolute_pose")])
def test_only_models_that_predict_a_place_guide(bad: Geometry) -> None:
    with pytest.raises(InputError, match=r"no model|guides no matches"):
        guided_matches(*with_similarities([[0, 0]], [[0, 0]], [[1.0]]), bad)


def test_second_choice_finds_what_the_selected_invariance_lost() -> None:
    rng, g = np.random.default_rng(0), torch.Generator().manual_seed(0)
    keypoints0 = rng.uniform(0, 180, (40, 2))
    descriptors0 = F.normalize(torch.randn((40, 2, 32), generator=g), dim=-1)
    descriptors1 = descriptors0.clone()
    descriptors1[30:, 0] = F.normalize(torch.randn((10, 32), generator=g), dim=-1)  # lost to the selected one
    features0 = features(keypoints0.tolist(), descriptors0)
    features1 = features((keypoints0 + np.array([10, 0])).tolist(), descriptors1)
    under_model = guided_matches(features0, features1, geometry(SHIFT), min_similarity=0.5)
    assert under_model.matches.tolist() == [[i, i] for i in range(30)]
    more = second_choices(features0, features1, under_model, geometry(SHIFT))
    assert more.matches.tolist() == [[i, i] for i in range(30, 40)]
    torch.testing.assert_close(more.scores, torch.ones(10))
    assert more.invariance_weights.tolist() == [[0, 1]] * 10


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
        frame_agreement(points0, frames0, moved), frame_agreement(points0, frames0, frames1), atol=1e-5
    )


def test_a_match_that_is_not_finite_costs_itself_alone() -> None:
    points0, frames0, frames1 = framed_matches(0)
    others = (Frames(frames.scales[2:], frames.oris[2:]) for frames in (frames0, frames1))
    whole = frame_agreement(points0[2:], *others)
    points0[0, 1] = frames1.scales[1] = np.nan
    np.testing.assert_allclose(frame_agreement(points0, frames0, frames1), [0, 0, *whole])
    nothing = np.full((3, 2), np.nan)
    three = Frames(np.ones(3), np.zeros(3))
    assert frame_agreement(nothing, three, three).tolist() == [0, 0, 0]


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


def test_what_moves_by_hand() -> None:
    """Of three keypoints image 1 (200 x 200) shows two; growing by 1 % about (0, 0) moves the farther one by 1.5."""
    pair = with_similarities([[50, 0], [150, 0], [400, 0]], [[0, 0]], [[0.0], [0.0], [0.0]])
    grown = np.diag([1.01, 1.01, 1.0])
    assert share_moved(*pair, geometry(np.eye(3)), geometry(grown)) == 0.5
    assert share_moved(*pair, geometry(np.eye(3)), geometry(grown), pixels=2.0) == 0
    assert share_moved(*pair, geometry(np.eye(3)), geometry(SHIFT)) == 1
    beyond = np.array([[1.0, 0, 900], [0, 1, 0], [0, 0, 1]])
    assert share_moved(*pair, geometry(np.eye(3)), geometry(beyond)) == 0
    assert share_moved(*pair, geometry(np.eye(3)), geometry(None)) == 0
