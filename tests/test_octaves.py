"""Octaves: places by hand, the choice by hand and by its laws, and photographs of which one was reduced."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmarks.scale import wide_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from lisrd import LISRD
from lisrd.coordinates import sample_map, turn_points
from lisrd.describe import build_describer
from lisrd.describe.octaves import (
    HALVED,
    OctaveDescriber,
    describe_octave,
    octaves_that_fit,
    split_octaves,
    with_smaller_octaves,
)
from lisrd.errors import InputError
from lisrd.evaluate import evaluate
from lisrd.evaluate.identity import describer_digest
from lisrd.evaluate.methods import parse_method
from lisrd.image import as_image
from lisrd.match import Policy, match
from lisrd.match.octave import choose_octaves, match_octaves, octave_pairs
from lisrd.types import Keypoints, LocalFeatures, Selection
from lisrd.web.limits import Limits
from lisrd.web.matching import answer
from lisrd.web.request import MatchRequest
from test_cli import call
from test_match import random_features


class Colours:
    """Describes a keypoint by the colours there, which anybody can check."""

    name = "colours"
    config: ClassVar[dict[str, Any]] = {}

    def describe(self, images: Tensor, keypoints: Keypoints, keep_turns: bool = True) -> LocalFeatures:
        height, width = images.shape[-2:]
        return LocalFeatures(
            keypoints=keypoints.xy,
            keypoint_scores=keypoints.scores,
            descriptors=sample_map(images, keypoints.xy, width, height).unsqueeze(2),
            meta_descriptors=torch.ones(len(images), 1, 1, 1, 1),
            image_size=torch.tensor([[width, height]], dtype=torch.float32).expand(len(images), 2),
            mask=keypoints.mask,
            selection=Selection((self.name,)),
            scales=keypoints.scales,
        )


def ramp(width: int, height: int) -> Tensor:
    """Red is x / 1000, green is y / 1000: averages and bilinear samples of it are exact."""
    y, x = torch.meshgrid(torch.arange(height) / 1000, torch.arange(width) / 1000, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)]).unsqueeze(0)


@pytest.mark.parametrize("size", [(96, 64), (97, 67), (99, 70)])
@pytest.mark.parametrize("octave", [0, 1, 2])
def test_every_octave_sees_the_keypoint_where_it_is(size: tuple[int, int], octave: int) -> None:
    keypoints = Keypoints.from_xy(torch.tensor([[20.0, 30.0], [40.25, 12.5], [70.0, 45.0]]))
    features = describe_octave(Colours(), ramp(*size), keypoints, octave)
    torch.testing.assert_close(features.descriptors[0, :, 0, :2], keypoints.xy[0] / 1000, rtol=0, atol=1e-6)


def test_places_stay_those_of_the_original() -> None:
    xy = torch.tensor([[20.0, 30.0], [40.0, 12.0]])
    keypoints = replace(Keypoints.from_xy(xy), scales=torch.tensor([[6.0, 20.0]]))
    seen: dict[str, Any] = {}

    class Watching(Colours):
        def describe(self, images: Tensor, keypoints: Keypoints, keep_turns: bool = True) -> LocalFeatures:
            seen.update(size=tuple(images.shape[-2:]), scales=keypoints.scales)
            return super().describe(images, keypoints, keep_turns)

    features = describe_octave(Watching(), ramp(97, 64), keypoints, 1)
    assert torch.equal(features.keypoints[0], xy)
    assert features.image_size.tolist() == [[97, 64]]
    assert features.scales is not None
    assert features.scales.tolist() == [[6, 20]]
    assert seen["size"] == (32, 49)
    assert seen["scales"].tolist() == [[3, 10]]


def test_an_octave_of_a_turned_image_is_the_turned_octave() -> None:
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    xy = torch.rand(20, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([95.0, 63.0])
    turned = Keypoints.from_xy(turn_points(xy, 96, 64, 1))
    there = describe_octave(Colours(), image.rot90(1, (2, 3)), turned, 2)
    here = describe_octave(Colours(), image, Keypoints.from_xy(xy), 2)
    torch.testing.assert_close(there.descriptors, here.descriptors)


def test_octaves_end_where_a_network_cannot_follow() -> None:
    sizes = {(63, 200): (0,), (64, 200): (0, 1), (127, 128): (0, 1), (128, 128): (0, 1, 2), (8, 8): (0,)}
    for size, octaves in sizes.items():
        assert octaves_that_fit(torch.zeros(1, 3, *size)) == octaves
    full = Colours().describe(ramp(64, 64), Keypoints.from_xy(torch.zeros(0, 2)))
    assert len(with_smaller_octaves(Colours(), ramp(64, 64), full)) == 2


def test_two_sizes_side_by_side() -> None:
    keypoints = Keypoints.from_xy(torch.tensor([[20.0, 30.0], [40.25, 12.5]]))
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    full, half = (describe_octave(build_describer("pyramid"), image, keypoints, k) for k in (0, 1))
    both = OctaveDescriber(build_describer("pyramid"), (0, 1)).describe(image, keypoints)
    assert both.descriptors.shape == (1, 2, 4, 256)
    for name in ("descriptors", "turned_descriptors"):
        parts = torch.cat([getattr(full, name), HALVED * getattr(half, name)], dim=-1)
        torch.testing.assert_close(getattr(both, name), F.normalize(parts, dim=-1))
    assert torch.equal(both.meta_descriptors, full.meta_descriptors)
    assert torch.equal(both.keypoints[0], keypoints.xy[0])


def test_names_of_octaves() -> None:
    assert split_octaves("pyramid@4") == ("pyramid", (2,))
    assert split_octaves("pyramid@1+2") == ("pyramid", (0, 1))
    assert split_octaves("pyramid") == ("pyramid", (0,))
    assert split_octaves("net@3.safetensors") == ("net@3.safetensors", (0,))
    names = ("root-sift", "root-sift@2", "root-sift@4", "root-sift@1+2")
    assert [build_describer(name).name for name in names] == list(names)
    assert len({describer_digest(name) for name in names}) == 4
    assert parse_method("a:octaves").bases == ["a", "a@2", "a@4"]
    with pytest.raises(InputError, match="ask for one of the two"):
        parse_method("a:octaves:four-rotations")


def features_of(descriptors: Tensor) -> LocalFeatures:
    """One image with these descriptors (N, D) of one kind."""
    count = len(descriptors)
    xy = torch.stack([torch.linspace(5, 90, count), torch.full((count,), 50.0)], dim=1)
    return LocalFeatures(
        keypoints=xy.unsqueeze(0),
        keypoint_scores=torch.ones(1, count),
        descriptors=F.normalize(descriptors, dim=-1)[None, :, None],
        meta_descriptors=torch.ones(1, 1, 1, 1, 1),
        image_size=torch.tensor([[100.0, 100.0]]),
        mask=torch.ones(1, count, dtype=torch.bool),
        selection=Selection(("only",)),
    )


def test_pairs_that_are_tried() -> None:
    assert octave_pairs(1, 1) == [(0, 0)]
    assert octave_pairs(3, 2) == [(0, 0), (1, 0), (0, 1), (2, 0)]
    with pytest.raises(InputError, match="at least the full size"):
        octave_pairs(0, 1)


def test_distinct_matches_decide_and_mutual_ones_do_not() -> None:
    """Three keypoints in each image. Full size: three mutual neighbours, none nearer than the others by much.
    Half of image 0: two that are exactly one in image 1, and one that has no partner."""
    axes = torch.eye(4)
    image1 = features_of(axes[:3])
    full = features_of(torch.ones(3, 4) + 0.1 * axes[:3])
    half = features_of(torch.stack([axes[0], axes[1], axes[3]]))
    assert len(match(full, image1)) == 3
    assert len(match(half, image1, Policy(min_similarity=0.5))) == 2
    assert choose_octaves([full, half], [image1]) == (1, 0)
    assert choose_octaves([image1], [full, half]) == (0, 1)
    matches = match_octaves([full, half], [image1])
    assert matches.octaves == (1, 0)
    assert torch.equal(matches.matches, match(half, image1).matches)


def test_full_size_where_no_octave_has_more() -> None:
    same, empty = features_of(torch.eye(4)), features_of(torch.zeros(0, 4))
    assert choose_octaves([same, same], [same, same, same]) == (0, 0)
    assert choose_octaves([empty, empty], [empty]) == (0, 0)
    assert len(match_octaves([empty, empty], [empty])) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31 - 9), st.integers(1, 3), st.integers(1, 3), st.integers(1, 12))
def test_swapped_images_swap_the_octaves(seed: int, count0: int, count1: int, keypoints: int) -> None:
    octaves0 = [random_features(keypoints, seed + k) for k in range(count0)]
    octaves1 = [random_features(9, seed + 3 + k) for k in range(count1)]
    there, back = choose_octaves(octaves0, octaves1), choose_octaves(octaves1, octaves0)
    # Of octaves with as many matches, the first stays: (k, 0) is tried before (0, k) on either side.
    counts = {
        pair: len(match(octaves0[pair[0]], octaves1[pair[1]], Policy(ratio=0.8)))
        for pair in octave_pairs(count0, count1)
    }
    assert counts[there] == counts[back[::-1]] == max(counts.values())


def test_one_pair_at_a_time() -> None:
    one = random_features(5, 0)
    tensors = {f.name: value for f in fields(one) if isinstance(value := getattr(one, f.name), Tensor)}
    two = replace(one, **{name: torch.cat([value, value]) for name, value in tensors.items()})
    with pytest.raises(InputError, match="one pair at a time"):
        choose_octaves([two, two], [two])


@pytest.fixture(scope="module")
def lisrd() -> LISRD:
    return LISRD.from_pretrained("pyramid", precision="float32")


def reduced(photograph: np.ndarray, factor: float) -> np.ndarray:
    """The photograph at 1 / factor of its size in the middle of noise, as a place in a wider view."""
    side = round(len(photograph) / factor)
    small = cv2.resize(photograph, (side, side), interpolation=cv2.INTER_AREA)
    wide = np.random.default_rng(0).integers(0, 256, (320, 320, 3), dtype=np.uint8)
    wide = cv2.GaussianBlur(wide, (0, 0), 2)
    corner = (320 - side) // 2
    wide[corner : corner + side, corner : corner + side] = small
    return wide


@pytest.mark.parametrize(("factor", "octave"), [(1, 0), (2, 1), (4, 2)])
def test_the_octave_that_undoes_the_scale_is_chosen(
    lisrd: LISRD, photograph: np.ndarray, factor: int, octave: int
) -> None:
    image0 = photograph[:320, 100:420]
    images = as_image(image0), as_image(reduced(image0, factor))
    octaves = [with_smaller_octaves(lisrd.describer, i, lisrd.describe(i, max_keypoints=600)) for i in images]
    assert choose_octaves(octaves[0], octaves[1]) == (octave, 0)
    assert choose_octaves(octaves[1], octaves[0]) == (0, octave)


def test_smaller_octaves_are_described_where_full_size_gives_no_yes(
    lisrd: LISRD, photograph: np.ndarray
) -> None:
    image0 = photograph[:320, 100:420]
    wide = reduced(image0, 5)  # a quarter leaves a factor that the network bears
    off = lisrd.verify_images(image0, wide, scale="off", max_keypoints=600)
    assert off.verdict.answer == "no"
    assert off.matches.octaves == (0, 0)
    found = lisrd.verify_images(image0, wide, max_keypoints=600)
    assert found.verdict.answer == "yes"
    assert found.matches.octaves == (2, 0)
    assert found.geometry.model is not None
    corners = np.array([[[0, 0], [319, 0], [319, 319], [0, 319]]], np.float64)
    there = cv2.perspectiveTransform(corners, found.geometry.model)
    np.testing.assert_allclose(there, (corners + 0.5) / 5 - 0.5 + 128, atol=2.0)


def test_the_page_says_that_a_photograph_was_read_smaller(
    lisrd: LISRD, photograph: np.ndarray, tmp_path: Path
) -> None:
    paths = tmp_path / "a.png", tmp_path / "b.png"
    image0 = photograph[:320, 100:420]
    for path, image in zip(paths, (image0, reduced(image0, 5)), strict=True):
        Image.fromarray(image).save(path)
    request = MatchRequest(paths, max_keypoints=600)
    document = answer(request, lambda detector, describer: lisrd, Limits())
    assert document["verdict"]["answer"] == "yes"
    assert any("Photograph 1 shows things larger" in note and "1/4" in note for note in document["notes"])


def test_a_yes_costs_no_octave(photograph: np.ndarray) -> None:
    lisrd = LISRD.from_pretrained("root-sift")
    described: list[tuple[int, ...]] = []
    inner = lisrd.describer.describe

    class Counting:
        name, config = "root-sift", lisrd.describer.config

        def describe(self, images: Tensor, keypoints: Keypoints, keep_turns: bool = True) -> LocalFeatures:
            described.append(tuple(images.shape[-2:]))
            return inner(images, keypoints, keep_turns)

    counting = LISRD(Counting(), lisrd.detector)
    assert counting.verify_images(photograph, photograph, max_keypoints=300).verdict.answer == "yes"
    assert described == [(512, 512)] * 2
    counting.verify_images(photograph, photograph, scale="on", max_keypoints=300)
    assert described[2:] == [(512, 512)] * 2 + [(256, 256), (128, 128)] * 2
    with pytest.raises(InputError, match="off, on or auto"):
        counting.verify_images(photograph, photograph, scale="large", max_keypoints=300)  # type: ignore[arg-type]


def test_evaluated_by_name(tmp_path: Path, photograph: np.ndarray) -> None:
    image0 = photograph[:320, 100:420]
    Image.fromarray(image0).save(tmp_path / "a.png")
    Image.fromarray(reduced(image0, 4)).save(tmp_path / "b.png")
    H = "0.25 0 119.625 0 0.25 119.625 0 0 1"
    (tmp_path / "pairs.txt").write_text(f"a.png b.png {H} wide\n")
    names = ["pyramid", "pyramid:octaves", "pyramid@4"]
    document = evaluate(tmp_path, "pairs", names, max_keypoints=600, progress=False, geometry="full")
    (pair,) = document["pairs"]
    full, octaves, quarter = (pair["scores"][name] for name in names)
    assert full["octaves"] == [0, 0]
    assert octaves["octaves"] == [2, 0]
    assert octaves["num_correct"] > 2 * max(full["num_correct"], quarter["num_correct"])
    assert octaves["seconds_describe"] > full["seconds_describe"]
    assert octaves["geometry"]["full"]["num_inliers"] > full["geometry"]["full"]["num_inliers"]


@pytest.mark.parametrize(("factor", "angle"), [(1.0, 0.0), (2.0, 0.0), (3.0, 20.0)])
def test_the_benchmarks_views_fit_their_homography(factor: float, angle: float) -> None:
    y, x = np.mgrid[:320, :480]
    spot = 255 * np.exp(-((x - 300.0) ** 2 + (y - 100.0) ** 2) / 200)
    photograph = np.repeat(spot.astype(np.uint8)[..., None], 3, axis=2)
    pair = wide_pair(photograph, np.zeros_like(photograph), factor, angle)
    light = np.clip(pair.image1[..., 0].astype(float) - 50, 0, None)  # above the offset and the noise
    centre = np.array([(light * x).sum(), (light * y).sum()]) / light.sum()
    true = pair.H.numpy() @ [300.0, 100.0, 1.0]
    np.testing.assert_allclose(centre, true[:2], atol=0.1)


def test_command_line(tmp_path: Path, photograph: np.ndarray, capsys: Any) -> None:
    paths = tmp_path / "a.png", tmp_path / "b.png"
    image0 = photograph[:320, 100:420]
    for path, image in zip(paths, (image0, reduced(image0, 5)), strict=True):
        Image.fromarray(image).save(path)
    assert call("match", *paths, "--max-keypoints", "600", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["octaves"] == [2, 0]
    assert document["scale"]["factor"] == pytest.approx(0.2, abs=0.01)
    assert call("match", *paths, "--max-keypoints", "600") == 0
    assert "image 0 at 1/4 of its size" in capsys.readouterr().out
    assert call("match", *paths, "--describer", "root-sift", "--scale", "big") == 2
    assert "use off, on or auto" in capsys.readouterr().err
