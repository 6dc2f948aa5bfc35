"""Public functions on whatever a caller may hand in: a right result or an `InputError`, never a crash or garbage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lisrd.describe import build_describer
from lisrd.detect import build_detector
from lisrd.detect.given import given_keypoints
from lisrd.errors import InputError
from lisrd.image import as_image
from lisrd.match import Policy, match
from lisrd.types import Keypoints, LocalFeatures, Matches
from lisrd.verify import align_images, estimate, relative_rotation_scale, same_place
from test_match import random_features

few = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool)
#: NaN, infinities, a denormal, the largest and smallest, and what looks like 0..255.
SPECIAL = (float("nan"), float("inf"), float("-inf"), 1e-42, 3e38, -3e38, -1.0, 255.0, 0.5)


@st.composite
def tensors(draw: st.DrawFn, shapes: st.SearchStrategy[tuple[int, ...]]) -> Tensor:
    """A tensor of any dtype, some of it special, perhaps transposed in memory, perhaps with a gradient."""
    shape, dtype = draw(shapes), draw(st.sampled_from(DTYPES))
    values = torch.rand(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    if dtype in (torch.uint8, torch.int64):
        values = values * 255
    tensor = values.to(dtype)
    if dtype.is_floating_point and tensor.numel() and draw(st.booleans()):
        tensor.view(-1)[draw(st.integers(0, tensor.numel() - 1))] = draw(st.sampled_from(SPECIAL))
    if tensor.ndim > 1 and draw(st.booleans()):
        tensor = tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    return tensor.requires_grad_() if dtype.is_floating_point and draw(st.booleans()) else tensor


def shapes(*sides: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, ...]]:
    """The shape that is right, or any other."""
    return st.one_of(st.tuples(*sides), st.lists(st.integers(0, 5), max_size=5).map(tuple))


side = st.integers(0, 40)
images = tensors(shapes(st.integers(0, 2), st.sampled_from((1, 2, 3, 4)), side, side))
points = tensors(shapes(st.integers(0, 30), st.just(2)))


@few
@given(image=images, as_array=st.booleans())
def test_as_image_gives_unit_range_rgb_or_an_error(image: Tensor, as_array: bool) -> None:
    if as_array and image.dtype == torch.bfloat16:
        return  # numpy has none
    try:
        result = as_image(image.detach().numpy() if as_array else image)
    except InputError:
        return
    assert result.dtype == torch.float32
    assert result.ndim == 4
    assert result.shape[1] == 3
    assert bool(((result >= 0) & (result <= 1)).all())  # false for NaN too


@few
@given(xy=points)
def test_given_keypoints_lie_inside_or_are_refused(xy: Tensor) -> None:
    try:
        keypoints = given_keypoints(xy, 30, 20)
    except InputError:
        return
    assert bool(((keypoints.xy >= -0.5) & (keypoints.xy <= torch.tensor([29.5, 19.5]))).all())


@settings(few, max_examples=15)
@given(image=images, count=st.sampled_from((None, 0, 1, 10**9)))
def test_detecting_and_describing_any_image(image: Tensor, count: int | None) -> None:
    try:
        batch = as_image(image)
        keypoints = build_detector("sift")(batch, count)
        features = build_describer("root-sift").describe(batch, keypoints)
    except InputError:
        return
    lengths = features.descriptors.norm(dim=-1)[features.mask]
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-4)


def check_matches(matches: Matches, features0: LocalFeatures, features1: LocalFeatures) -> None:
    """Indices of keypoints, each once; finite scores of unit vectors; weights that sum to 1."""
    for column, features in enumerate((features0, features1)):
        index = matches.matches[:, column]
        assert len(index.unique()) == len(index)
        assert bool(((index >= 0) & (index < features.keypoints.shape[1])).all())
    assert bool((matches.scores.abs() <= 1.01).all())  # false for NaN too
    assert torch.allclose(
        matches.invariance_weights.sum(1), torch.ones(len(matches)).to(matches.scores), atol=1e-2
    )


@few
@given(
    counts=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    dtype=st.sampled_from((torch.float32, torch.float64)),
    turns=st.booleans(),
    selection=st.sampled_from(("soft", "hard", "mean")),
    temperature=st.sampled_from((None, 1e-30, 1e-3, 1e30)),
    ratio=st.sampled_from((None, 1e-9, 0.8, 1.0)),
)
def test_matching_features_of_any_number(
    counts: tuple[int, int],
    dtype: torch.dtype,
    turns: bool,
    selection: str,
    temperature: float | None,
    ratio: float | None,
) -> None:
    features0, features1 = (
        random_features(count, seed, turns=turns, dtype=dtype) for seed, count in enumerate(counts)
    )
    policy = Policy(selection=selection, temperature=temperature, ratio=ratio)  # type: ignore[arg-type]
    check_matches(match(features0, features1, policy), features0, features1)


@pytest.mark.parametrize("name", ["descriptors", "meta_descriptors", "keypoints"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38, 1e-42])
def test_matching_features_that_are_not_finite(name: str, value: float) -> None:
    features0, features1 = (
        random_features(20, 0, dtype=torch.float32),
        random_features(20, 1, dtype=torch.float32),
    )
    broken = getattr(features0, name).clone()
    broken[0, 0] = value
    broken = replace(features0, **{name: broken})
    try:
        matches = match(broken, features1)
    except InputError:
        return
    check_matches(matches, broken, features1)


@few
@given(points0=points, points1=points, threshold=st.sampled_from((0.0, -1.0, 1e-9, 2.0, 1e9, float("nan"))))
def test_estimating_from_any_points(points0: Tensor, points1: Tensor, threshold: float) -> None:
    try:
        geometry = estimate(points0, points1, threshold=threshold)
        verdict = same_place(geometry, points0.detach().float().numpy(), points1.detach().float().numpy())
    except InputError:
        return
    assert geometry.inliers.shape == (len(points0),)
    assert geometry.model is None or np.isfinite(geometry.model).all()
    assert 0 <= verdict.probability <= 1


@few
@given(
    numbers=st.lists(st.sampled_from((0.0, 1.0, -1.0, 1e-300, 1e300, float("nan"))), min_size=9, max_size=9)
)
def test_aligning_by_any_homography(numbers: list[float]) -> None:
    homography = np.array(numbers).reshape(3, 3)
    image = torch.full((1, 3, 20, 30), 0.5)
    try:
        aligned = align_images(image, image, homography)
        relative = relative_rotation_scale(homography, (30, 20))
    except InputError:
        return
    assert aligned.dtype == np.uint8
    assert not relative.scale < 0  # NaN where the image collapses


@few
@given(xy=points)
def test_keypoints_of_any_shape_make_a_record_or_an_error(xy: Tensor) -> None:
    try:
        keypoints = given_keypoints(xy, 10**9, 10**9)
    except InputError:
        return
    assert isinstance(keypoints, Keypoints)
    assert keypoints.xy.shape[-1] == 2
