"""The whole stage on a photograph and its view under a known warp: what each step adds, and when it is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.known_warps import MILD, Change, KnownPair, corner_error, known_pair

from lisrd import LISRD, LocalFeatures, Matches, match
from lisrd.errors import InputError
from lisrd.types import Selection
from lisrd.verify import stage
from lisrd.verify.geometry import project
from lisrd.verify.match_sets import contained, joined, touching
from lisrd.verify.refine import refine
from lisrd.verify.stage import VerifiedPair, verify_pair
from lisrd.verify.steps import ESTIMATE_ALONE, Steps

Described = tuple[LocalFeatures, LocalFeatures, Matches]


@pytest.fixture(scope="module")
def pair() -> KnownPair:
    import skimage.data

    return known_pair(skimage.data.astronaut(), change=Change(gain=0.7, offset=10, noise=3))


@pytest.fixture(scope="module")
def described(pair: KnownPair) -> Described:
    model = LISRD.from_pretrained("root-sift")
    found = model.match_images(pair.image0, pair.image1)
    return found.features0, found.features1, found.matches


def verified(pair: KnownPair, described: Described, **options: object) -> VerifiedPair:
    return verify_pair(pair.image0, pair.image1, *described, **options)  # type: ignore[arg-type]


def median_error(pair: KnownPair, found: VerifiedPair) -> float:
    inside = found.geometry.inliers
    off = found.points1[inside] - project(found.points0[inside], pair.H)
    return float(np.median(np.linalg.norm(off, axis=1)))


def test_the_whole_stage_is_closer_than_the_estimate_alone(pair: KnownPair, described: Described) -> None:
    alone, whole = (verified(pair, described, steps=steps) for steps in (ESTIMATE_ALONE, Steps()))
    errors = [corner_error(found.geometry.model, MILD) for found in (alone, whole)]
    assert errors[1] < 0.1
    assert errors[1] < errors[0]
    assert median_error(pair, whole) < 0.6 * median_error(pair, alone)


def test_each_step_leaves_its_mark(pair: KnownPair, described: Described) -> None:
    matches = described[2]
    alone = verified(pair, described, steps=ESTIMATE_ALONE)
    assert set(alone.seconds) == {"estimate"}
    assert not alone.refined.any()
    assert not alone.guided.any()
    np.testing.assert_array_equal(alone.matches.matches, matches.matches)
    guided = verified(pair, described, steps=replace(ESTIMATE_ALONE, guided="on"))
    assert guided.guided.sum() > 20
    assert guided.geometry.num_inliers > alone.geometry.num_inliers
    refined = verified(pair, described, steps=replace(ESTIMATE_ALONE, refine="on"))
    assert refined.refined.mean() > 0.5
    assert (refined.points1 != alone.points1).any(1).tolist() == refined.refined.tolist()


def test_every_keypoint_has_one_partner_and_rows_belong_together(
    pair: KnownPair, described: Described
) -> None:
    found = verified(pair, described)
    for index in found.matches.matches.T:
        assert len(index.unique()) == len(index)
    keypoints0 = described[0].keypoints[0, found.matches.matches[:, 0]]
    np.testing.assert_array_equal(found.points0, keypoints0.double())
    off = found.points1 - described[1].keypoints[0, found.matches.matches[:, 1]].numpy()
    assert (np.linalg.norm(off, axis=1)[~found.refined] == 0).all()
    assert found.guided.tolist() == (~contained(found.matches, described[2])).tolist()
    assert found.guided[found.guided.argmax() :].all()  # they come last
    assert not (found.geometry.inliers & ~found.refined & found.guided).any()


def test_the_same_input_gives_the_same_answer(pair: KnownPair, described: Described) -> None:
    first, second = verified(pair, described), verified(pair, described)
    np.testing.assert_array_equal(first.geometry.model, second.geometry.model)
    np.testing.assert_array_equal(first.points1, second.points1)


def test_two_images_in_one_call(pair: KnownPair, described: Described) -> None:
    found = LISRD.from_pretrained("root-sift").verify_images(pair.image0, pair.image1, steps=ESTIMATE_ALONE)
    alone = verified(pair, described, steps=ESTIMATE_ALONE)
    np.testing.assert_array_equal(found.geometry.model, alone.geometry.model)


def test_other_content_gets_no_guided_matches(pair: KnownPair) -> None:
    import skimage.data

    other = known_pair(skimage.data.coffee())
    found = LISRD.from_pretrained("root-sift").match_images(pair.image0, other.image0)
    stage = verify_pair(pair.image0, other.image0, found.features0, found.features1, found.matches)
    assert stage.verdict.answer == "no"
    assert "guided" not in stage.seconds
    assert not stage.guided.any()


def test_a_model_of_one_corner_grows_over_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keypoints a pixel off, of which a corner is matched: far from it the first model is many pixels wrong."""
    rng = np.random.default_rng(1)
    places = np.stack(np.meshgrid(np.arange(10.0, 400, 20), np.arange(10.0, 400, 20)), axis=-1).reshape(-1, 2)
    moved = project(places, MILD) + rng.normal(0, 0.7, places.shape)
    features0, features1 = unmistakable(places), unmistakable(moved)
    corner = torch.from_numpy(np.flatnonzero((places < 100).all(1)))
    count = len(places)
    matches = Matches(
        corner[:, None].expand(-1, 2),
        torch.ones(len(corner)),
        torch.ones((len(corner), 1)),
        (count, count),
        ("only",),
    )

    def inliers() -> int:
        steps = Steps(refine="off", guided="on")
        return verify_pair(None, None, features0, features1, matches, steps=steps).geometry.num_inliers

    grown = inliers()
    monkeypatch.setattr(stage, "MOST_ROUNDS", 1)
    assert inliers() < 0.8 * count < 0.95 * count < grown


def unmistakable(points: np.ndarray) -> LocalFeatures:
    """Keypoints of one image whose descriptors have nothing in common."""
    count = len(points)
    return LocalFeatures(
        torch.from_numpy(points)[None].float(),
        torch.ones((1, count)),
        torch.eye(count)[None, :, None],
        torch.ones((1, 1, 1, 1, 1)),
        torch.tensor([[640.0, 480.0]]),
        torch.ones((1, count), dtype=torch.bool),
        Selection(("only",), 1.0, (0.0,)),
    )


def test_no_matches_are_an_ordinary_answer(pair: KnownPair, described: Described) -> None:
    few = described[2].keep(torch.arange(3))
    found = verified(pair, (described[0], described[1], few))
    assert not found.geometry
    assert "too few" in found.geometry.reason
    assert (len(found.matches), found.verdict.answer) == (3, "no")
    nothing = few.keep(torch.arange(0))
    assert verified(pair, (described[0], described[1], nothing)).points1.shape == (0, 2)


def test_a_fundamental_matrix_is_refined_and_not_guided(pair: KnownPair, described: Described) -> None:
    found = verified(pair, described, model="fundamental")
    assert found.geometry.kind == "fundamental"
    assert set(found.seconds) == {"estimate", "refine"}
    guided = verified(pair, described, model="fundamental", steps=Steps(guided="on"))
    assert "guided" in guided.seconds


def test_keypoints_without_frames(pair: KnownPair, described: Described) -> None:
    plain = tuple(replace(features, scales=None, oris=None) for features in described[:2])
    found = verified(pair, (*plain, described[2]))  # type: ignore[arg-type]
    assert corner_error(found.geometry.model, MILD) < 0.1
    with pytest.raises(InputError, match="no scale and orientation"):
        verified(pair, (*plain, described[2]), steps=Steps(frames="on"))  # type: ignore[arg-type]


def test_frames_that_mislead_are_left_out(pair: KnownPair, described: Described) -> None:
    features0, features1, matches = described
    assert features1.oris is not None
    anyhow = torch.rand(features1.oris.shape, generator=torch.manual_seed(0)) * 6
    misled = features0, replace(features1, oris=anyhow, scales=anyhow.exp()), matches
    on, auto, off = (
        verified(pair, misled, steps=replace(ESTIMATE_ALONE, frames=frames)).geometry
        for frames in ("on", "auto", "off")
    )
    assert on.num_inliers < off.num_inliers
    np.testing.assert_array_equal(auto.model, off.model)


def test_wrong_usage_says_what_to_do(pair: KnownPair, described: Described) -> None:
    with pytest.raises(InputError, match="refine is 'maybe'; use off, on or auto"):
        Steps(refine="maybe")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'absolute_pose' has no verdict"):
        verified(pair, described, model="absolute_pose")


def test_only_refining_looks_at_the_images(pair: KnownPair, described: Described) -> None:
    steps = Steps(refine="off")
    with_images = verified(pair, described, steps=steps)
    without = verify_pair(None, None, *described, steps=steps)
    np.testing.assert_array_equal(without.geometry.model, with_images.geometry.model)
    with pytest.raises(InputError, match="refining looks at both images"):
        verify_pair(pair.image0, None, *described)


def pairs_of(*pairs: tuple[int, int]) -> Matches:
    count = len(pairs)
    index = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    return Matches(index, torch.ones(count), torch.ones((count, 1)), (9, 9), ("only",))


def test_sets_of_matches_by_hand() -> None:
    some, others = pairs_of((0, 1), (2, 3), (4, 5)), pairs_of((2, 3), (4, 6))
    assert contained(some, others).tolist() == [False, True, False]
    assert joined(some, others).matches.tolist() == [[0, 1], [2, 3], [4, 5], [2, 3], [4, 6]]
    chosen = np.array([True, False, False, False])
    assert touching(pairs_of((0, 1), (0, 2), (3, 1), (4, 4)), chosen).tolist() == [True, True, True, False]


def test_matching_again_is_matching_where_everything_is_allowed(described: Described) -> None:
    from lisrd.verify import Geometry, guided_matches

    features0, features1, matches = described
    anywhere = Geometry(np.eye(3), np.ones(4, dtype=bool), "homography", "usac")
    again = guided_matches(features0, features1, anywhere, radius=1e6, min_similarity=-1.0)
    assert match(features0, features1).matches.tolist() == matches.matches.tolist()
    assert sorted(again.matches.tolist()) == sorted(matches.matches.tolist())


def test_what_the_model_leaves_in_place_is_not_refined_again(
    pair: KnownPair, described: Described, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it where nothing may stay: then guided matching refines all that the model allows, as it did at first."""
    refined: list[int] = []

    def counting(*arguments: Any, **named: Any) -> Any:
        refined.append(len(arguments[2]))
        return refine(*arguments, **named)

    monkeypatch.setattr(stage, "refine", counting)
    found = verified(pair, described)
    first, second = refined[:2]
    assert second < first / 2
    refined.clear()
    monkeypatch.setattr(stage, "SAME_PLACE", -1.0)
    every_time = verified(pair, described)
    assert refined[1] > first / 2
    errors = [corner_error(one.geometry.model, pair.H) for one in (found, every_time)]
    assert abs(errors[0] - errors[1]) < 0.02


def test_what_the_pair_said_is_not_asked_again(pair: KnownPair) -> None:
    from lisrd.verify import Geometry, guided_matches

    found = LISRD.from_pretrained("pyramid").match_images(pair.image0, pair.image1, max_keypoints=200)
    anywhere = Geometry(np.eye(3), np.ones(4, dtype=bool), "homography", "usac")
    asked, remembered, other = (
        guided_matches(found.features0, found.features1, anywhere, radius=50.0, evidence=evidence)
        for evidence in (None, found.matches.evidence, torch.tensor([0.0, 0.0, 0.0, 50.0]))
    )
    assert torch.equal(asked.invariance_weights, remembered.invariance_weights)
    assert (other.invariance_weights[:, 3] > 0.99).all()  # it is what decides


@pytest.mark.slow
def test_real_photographs(shared: Path) -> None:
    """Matches of real pairs end closer to the truth than they began, and are more."""
    from lisrd.evaluate import evaluate

    root = shared / "data" / "eval" / "hpatches_style"
    if not root.is_dir():
        pytest.skip(f"no {root}: these photographs are not at hand")
    document = evaluate(root, "hpatches", ["root-sift"], limit=12, geometry="full", progress=False)
    rows = {row["estimate"]: row for row in document["geometry"] if row["part"] == "viewpoint"}
    assert rows["full"]["median_error"] < 0.85 * rows["ransac"]["median_error"]
    assert rows["full"]["num_correct"] > rows["ransac"]["num_correct"]
    assert rows["full"]["accuracy_3"] >= rows["ransac"]["accuracy_3"]
