"""RootSIFT: by hand, against OpenCV, and that batches, padding and duplicates change nothing they should not."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from lisrd.coordinates import turn_points
from lisrd.describe.sift import RootSift, first_at_position, root_sift
from lisrd.detect.sift import SIFT
from lisrd.image import as_image
from lisrd.match import Policy, match
from lisrd.types import Keypoints, stack_keypoints


@pytest.fixture
def image(photograph: np.ndarray) -> Tensor:
    return as_image(np.ascontiguousarray(photograph[:200, 130:370]))


@pytest.fixture
def keypoints(image: Tensor) -> Keypoints:
    return SIFT()(image, 60)


def test_root_sift_by_hand() -> None:
    histogram = torch.zeros(2, 128)
    histogram[0, :2] = torch.tensor([1.0, 3.0])
    described = root_sift(histogram)
    assert described[0, :3].tolist() == pytest.approx([0.5, 0.75**0.5, 0])
    assert not described[1].any()


def test_first_at_position_by_hand() -> None:
    xy = torch.tensor([[1.0, 2.0], [5.0, 5.0], [1.0, 2.0], [2.0, 1.0], [5.0, 5.0]])
    assert first_at_position(xy).tolist() == [True, True, False, True, False]
    assert first_at_position(xy[:0]).tolist() == []


def test_descriptors_are_those_of_opencv(image: Tensor) -> None:
    grey = cv2.cvtColor((image[0] * 255).round().byte().permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY)
    sift = cv2.SIFT.create(contrastThreshold=0.01, enable_precise_upscale=True)
    found, theirs = sift.detectAndCompute(grey, None)
    theirs = np.sqrt(theirs / theirs.sum(1, keepdims=True))
    ours = RootSift().describe(image, SIFT(one_per_position=False)(image))
    by_place = {(*k.pt, round(k.angle, 3)): d for k, d in zip(found, theirs, strict=True)}
    assert ours.oris is not None
    angles = torch.rad2deg(ours.oris[0]) % 360
    same = [
        by_place[(*xy.tolist(), round(angle, 3))] @ d.numpy()
        for xy, angle, d in zip(ours.keypoints[0], angles.tolist(), ours.descriptors[0, :, 0], strict=True)
        if (*xy.tolist(), round(angle, 3)) in by_place
    ]
    assert len(same) > 0.9 * len(found)
    assert np.median(same) > 0.9999
    assert np.mean(np.array(same) > 0.99) > 0.98


def test_units_names_and_trivial_selection(image: Tensor, keypoints: Keypoints) -> None:
    for upright, name in ((False, "root-sift"), (True, "upright-root-sift")):
        features = RootSift(upright).describe(image, keypoints)
        assert features.invariances == (name,)
        assert features.descriptors.shape == (1, keypoints.xy.shape[1], 1, 128)
        assert torch.allclose(features.descriptors.norm(dim=-1), torch.ones(()), atol=1e-5)
        assert features.image_size.tolist() == [[240, 200]]


def test_batch_and_padding_change_nothing(image: Tensor, keypoints: Keypoints) -> None:
    other = image.flip(-1)
    few = SIFT()(other, 7)
    both = RootSift().describe(torch.cat([image, other]), stack_keypoints([keypoints, few]))
    for index, (one, found) in enumerate(((image, keypoints), (other, few))):
        alone = RootSift().describe(one, found)
        assert torch.equal(both.select(index).descriptors, alone.descriptors)
    assert not both.descriptors[1, 7:].any()


@pytest.mark.parametrize("upright", [False, True])
def test_no_keypoints(image: Tensor, upright: bool) -> None:
    features = RootSift(upright).describe(image, Keypoints.from_xy(torch.zeros(0, 2)))
    assert features.descriptors.shape == (1, 0, 1, 128)


def test_a_turned_image_is_told_apart_upright_alone(image: Tensor, keypoints: Keypoints) -> None:
    """A quarter turn of the image turns the orientations with it: RootSIFT stays, Upright SIFT does not."""
    turned = image.rot90(1, (2, 3))
    assert keypoints.oris is not None
    there = replace(keypoints, xy=turn_points(keypoints.xy, 240, 200, 1), oris=keypoints.oris - torch.pi / 2)
    same = {
        upright: (
            RootSift(upright).describe(image, keypoints).descriptors
            * RootSift(upright).describe(turned, there).descriptors
        )
        .sum(-1)
        .median()
        for upright in (False, True)
    }
    assert same[False] > 0.98
    assert same[True] < 0.8


def test_upright_ignores_orientations(image: Tensor, keypoints: Keypoints) -> None:
    without = replace(keypoints, oris=None)
    described = [RootSift(True).descriptors(image, k) for k in (keypoints, without)]
    assert torch.equal(*described)


def test_keypoints_without_orientation_take_the_dominant_one(image: Tensor, keypoints: Keypoints) -> None:
    own = RootSift().descriptors(image, keypoints)
    estimated = RootSift().descriptors(image, replace(keypoints, oris=None))
    assert (own * estimated).sum(-1).median() > 0.9


def test_upright_matches_each_position_once(image: Tensor) -> None:
    """Also with Lowe's ratio, which would drop every position that ties with itself."""
    several = SIFT(one_per_position=False)(image, 80)
    positions = int(first_at_position(several.xy[0]).sum())
    assert positions < 80
    features = RootSift(upright=True).describe(image, several)
    for policy in (Policy(), Policy(ratio=0.95)):
        matches = match(features, features, policy)
        assert torch.equal(matches.matches[:, 0], matches.matches[:, 1])
        matched = several.xy[0, matches.matches[:, 0]]
        assert len(torch.unique(matched, dim=0)) == len(matches)
        assert len(matches) >= 0.9 * positions
