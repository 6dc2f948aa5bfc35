"""Whole stages and the adapters on whatever a caller may hand in: a right result or an `InputError`."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lisrd.adapters.kornia import Extractor, Matcher, features_from_dictionary
from lisrd.adapters.opencv import Feature2D, features_to_cv2, matches_from_cv2, matches_to_cv2
from lisrd.coordinates import normalised_coordinates, sample_map, turn_points, warp_points
from lisrd.detect import build_detector
from lisrd.errors import InputError
from lisrd.match import Policy, match, match_batch
from lisrd.model import LISRD, MatchedPair
from lisrd.types import Keypoints, LocalFeatures
from lisrd.verify import estimate, refine, verify_pair
from lisrd.view.plot import draw_matches
from lisrd.web.request import Menu, checked_request
from small_describer import SmallDescriber
from test_reliability_functions import images, points, tensors

few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))

MODEL = LISRD(SmallDescriber(), build_detector("sift"))


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor, MatchedPair]:
    """Two images of blurred noise, the second a crop of the first, and their matches."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 150, 3), dtype=np.uint8)
    image = torch.from_numpy(cv2.GaussianBlur(noise, (0, 0), 2)).permute(2, 0, 1)
    image = (image - image.min()) / (image.max() - image.min())
    crop = image[:, 4:, 6:]  # not contiguous
    return image, crop, MODEL.match_images(image, crop, max_keypoints=100)


def test_keypoints_that_a_mask_hides_shift_no_match(pair: tuple[Tensor, Tensor, MatchedPair]) -> None:
    """An image against itself, every third of its keypoints hidden on one side: each is matched with its own place."""
    image = pair[0]
    keypoints = MODEL.detector(image[None], 90)
    hidden = keypoints.mask.clone()
    hidden[:, ::3] = False
    both = [image[None]] * 2
    features = MODEL.describe_pair(both, [replace(keypoints, mask=hidden), keypoints])
    given = MatchedPair(*features, MODEL.match(*features))
    features0 = MODEL.describe(image, replace(keypoints, mask=hidden))
    assert len(features0.select(0).keypoints[0]) == hidden.sum()
    for found in (given, MatchedPair(features0.select(0), features[1], MODEL.match(features0, features[1]))):
        assert len(found.matches) > 30
        assert torch.equal(found.points0, found.points1)


def test_keypoints_of_other_images_are_refused(pair: tuple[Tensor, Tensor, MatchedPair]) -> None:
    two = Keypoints.from_xy(torch.full((2, 3, 2), 5.0))
    with pytest.raises(InputError, match="keypoints of 2 images, but 1 to describe"):
        MODEL.describe(pair[0], two)
    with pytest.raises(InputError, match="not finite"):
        MODEL.describe(pair[0], Keypoints.from_xy(torch.full((1, 3, 2), torch.nan)))


def with_gradients(features: LocalFeatures) -> LocalFeatures:
    """The features as a network in training gives them."""
    floats = {
        f.name: value.clone().requires_grad_()
        for f in fields(features)
        if isinstance(value := getattr(features, f.name), Tensor)
        and value.is_floating_point()
        and f.name != "image_size"
    }
    return replace(features, **floats)


def test_features_with_gradients_go_through_every_stage(
    pair: tuple[Tensor, Tensor, MatchedPair], tmp_path: Path
) -> None:
    images = [one.clone().requires_grad_() for one in pair[:2]]
    features = with_gradients(pair[2].features0), with_gradients(pair[2].features1)
    matches = match(*features)
    verified = verify_pair(*images, *features, matches)
    plain = verify_pair(*pair[:2], pair[2].features0, pair[2].features1, pair[2].matches)
    assert np.array_equal(verified.geometry.model, plain.geometry.model)
    draw_matches(*images, *features, verified.matches, verified.geometry.inliers, tmp_path / "a.png")
    keypoints, descriptors = features_to_cv2(features[0])
    assert len(keypoints) == len(descriptors) == features[0].keypoints.shape[1]


def test_matches_of_other_features_are_refused(pair: tuple[Tensor, Tensor, MatchedPair]) -> None:
    image0, image1, matched = pair
    others = MODEL.describe(image0, max_keypoints=50)
    with pytest.raises(InputError, match="pass the features that were matched"):
        verify_pair(image0, image1, others, matched.features1, matched.matches)


@few
@given(image0=images, image1=images)
def test_matching_any_two_images(image0: Tensor, image1: Tensor) -> None:
    try:
        verified = MODEL.verify_images(image0, image1, max_keypoints=50)
    except InputError:
        return
    assert np.isfinite(verified.points1).all()
    assert len(verified.points0) == len(verified.matches)


@few
@given(
    points0=points,
    points1=points,
    model=st.sampled_from(("homography", "fundamental", "essential", "absolute_pose")),
    method=st.sampled_from(("usac", "magsac", "ransac", "poselib")),
    camera=tensors(st.sampled_from(((3, 3), (3, 3), (2, 3)))),
)
def test_estimating_every_model_by_every_method(
    points0: Tensor, points1: Tensor, model: str, method: str, camera: Tensor
) -> None:
    if method == "poselib":
        pytest.importorskip("poselib")
    world = (
        torch.cat([points0, points0[..., :1]], dim=-1)
        if model == "absolute_pose" and points0.ndim
        else points0
    )
    try:
        found = estimate(world, points1, model, method, intrinsics0=camera, intrinsics1=camera)  # type: ignore[arg-type]
    except InputError:
        return
    assert found.model is None or np.isfinite(found.model).all()
    assert found.num_inliers == found.inliers.sum()


@few
@given(points0=points, points1=points, mode=st.sampled_from(("off", "on", "auto")))
def test_refining_any_points(points0: Tensor, points1: Tensor, mode: str) -> None:
    image = torch.linspace(0, 1, 30 * 40).reshape(1, 30, 40).expand(3, 30, 40)
    try:
        refined = refine(image, image, points0, points1, mode=mode)  # type: ignore[arg-type]
    except InputError:
        return
    before = points1.detach().double().numpy()
    moved = np.linalg.norm(refined.points1 - before, axis=1)
    assert refined.points1.shape == before.shape
    assert (moved[refined.refined] < 10).all()
    assert np.array_equal(refined.points1[~refined.refined], before[~refined.refined], equal_nan=True)


@few
@given(
    image=images.map(
        lambda one: one.detach().float().numpy() if one.dtype == torch.bfloat16 else one.detach().numpy()
    ),
    mask=st.sampled_from((None, np.zeros((20, 30), np.uint8), np.ones((40, 40), np.uint8))),
)
def test_opencvs_calls_on_any_array(image: np.ndarray, mask: np.ndarray | None) -> None:
    feature2d = Feature2D(SmallDescriber(), build_detector("sift"), 20)
    try:
        keypoints, descriptors = feature2d.detectAndCompute(image, mask)
    except InputError:
        return
    assert len(keypoints) == len(descriptors)
    assert np.isfinite(descriptors).all()


@few
@given(count=st.integers(0, 3), query=st.integers(-2, 5), train=st.integers(-2, 5))
def test_opencvs_matches_out_of_range(count: int, query: int, train: int) -> None:
    given = [cv2.DMatch(query, train, 0.5)] * min(count, 1)
    try:
        matches = matches_from_cv2(given, (count, count))
    except InputError:
        return
    assert [(m.queryIdx, m.trainIdx) for m in matches_to_cv2(matches)] == [
        (m.queryIdx, m.trainIdx) for m in given
    ]


@few
@given(image0=images, image1=images)
def test_kornias_modules_on_any_batch(image0: Tensor, image1: Tensor) -> None:
    extractor = Extractor(SmallDescriber(), build_detector("sift"), 20)
    try:
        features = [extractor({"image": one}) for one in (image0, image1)]
        matches = Matcher()({"image0": features[0], "image1": features[1]})
    except InputError:
        return
    assert len(matches["matches"]) == len(features[0]["keypoints"])


@pytest.mark.parametrize("missing", ["meta_descriptors", "selection", "mask", "keypoints", "descriptors"])
def test_kornias_dictionaries_that_lack_something(
    missing: str, pair: tuple[Tensor, Tensor, MatchedPair]
) -> None:
    extractor = Extractor(SmallDescriber(), build_detector("sift"), 20)
    dictionary = extractor.extract(pair[0])
    del dictionary[missing]
    with pytest.raises(InputError, match=missing):
        features_from_dictionary(dictionary)


def test_batches_of_nothing_and_of_different_lengths(pair: tuple[Tensor, Tensor, MatchedPair]) -> None:
    features = pair[2].features0
    empty = replace(
        features,
        **{f.name: v[:0] for f in fields(features) if isinstance(v := getattr(features, f.name), Tensor)},
    )
    assert match_batch(empty, empty) == []
    with pytest.raises(InputError, match="pair them"):
        match_batch(features, empty)
    with pytest.raises(InputError, match="0 images"):
        match(empty, empty)


@few
@given(
    selection=st.sampled_from(("soft", "HARD", "", None)),
    turn=st.one_of(st.integers(-1, 5), st.sampled_from(("auto", "left", None, 1.5, 1.25))),
    number=st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)),
)
def test_policies_are_legal_or_refused(selection: str | None, turn: object, number: float | None) -> None:
    try:
        policy = Policy(selection=selection, turn=turn, temperature=number, ratio=number)  # type: ignore[arg-type]
    except InputError:
        return
    assert policy.turn in ("auto", "orientations", "off") or policy.turn in [half / 2 for half in range(8)]
    assert number is None or 0 < number <= 1


@few
@given(xy=tensors(st.tuples(st.just(1), st.integers(0, 9), st.just(2))), turn=st.integers(-5, 5))
def test_coordinates_and_samples(xy: Tensor, turn: int) -> None:
    places = xy.float()
    back = turn_points(turn_points(places, 40, 30, 1), 30, 40, 3)
    finite = places.isfinite().all(-1) & (places.abs() < 1e4).all(-1)
    assert torch.allclose(back[finite], places[finite], atol=1e-2)
    assert warp_points(places, torch.eye(3)).shape == places.shape
    assert normalised_coordinates(places, 40, 30).shape == places.shape
    values = sample_map(torch.rand(1, 2, 5, 4), places, 40, 30)
    assert values.shape == (*places.shape[:2], 2)
    assert bool(((values[finite] >= 0) & (values[finite] <= 1)).all())


anything = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(exclude_categories=()))
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)


@settings(few, max_examples=50)
@given(
    path=st.one_of(
        st.text(st.characters(exclude_categories=())),
        st.sampled_from(("/etc/passwd", "../x", "/\ud800", "/a\0b", "")),
    ),
    values=st.lists(anything, min_size=6, max_size=6),
)
def test_what_a_browser_sends_is_refused_unless_it_was_offered(path: str, values: list[object]) -> None:
    menu = Menu(("sift",), {"pyramid": ("a", "b")})
    file = {"path": path}
    with pytest.raises(InputError):
        checked_request([file, file, *values], menu, Path("/nowhere/uploads"), 2048)
