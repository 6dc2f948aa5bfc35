"""Triplets: keypoints land where the homography says, angles count as `torch.rot90`, light stays in range."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lisrd.coordinates import turn_points, warp_points
from lisrd.detect.sift import SIFT
from lisrd.train.data.detection import DetectionConfig, nearest_detections
from lisrd.train.data.dice import Dice, numbered_generator, sample_generators
from lisrd.train.data.homographies import (
    HomographyConfig,
    carry_keypoints,
    sample_angles,
    sample_homographies,
    warp_images,
)
from lisrd.train.data.jpeg import compress
from lisrd.train.data.night import NightConfig, turn_to_night
from lisrd.train.data.photometric import PhotometricConfig, photograph
from lisrd.train.data.relighting import RelightConfig, relight
from lisrd.train.data.sheet import draw_sheet
from lisrd.train.data.triplets import AugmentConfig, Augmenter

SIZE = (60, 80)
MARGIN = (12, 16)
RIGID = HomographyConfig(patch_ratio=1.0, perspective=0.0, scaling=0.0, translation=0.0, wide_probability=0.0)
NO_NOISE = PhotometricConfig(
    brightness=0.0,
    contrast=0.0,
    noise_probability=0.0,
    shade_probability=0.0,
    motion_probability=0.0,
    jpeg_probability=0.0,
)


def _dice(count: int, seed: int = 0) -> Dice:
    return Dice(sample_generators(seed, 0, count), "cpu")


def _smooth(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(count, 3, height // 12, width // 12, generator=numbered_generator(seed, 1))
    return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)


def _batch(count: int = 4, keypoints: int = 30) -> dict[str, torch.Tensor]:
    canvas = (_smooth(2 * count, 84, 112) * 255).byte()
    xy = 3 + torch.rand(count, keypoints, 2, generator=numbered_generator(0, 2)) * torch.tensor([73.0, 53.0])
    mask = torch.ones(count, keypoints, dtype=torch.bool)
    mask[:, -5:] = False
    has_other = torch.arange(count) % 2 == 0
    other = torch.where(has_other.view(-1, 1, 1, 1), canvas[count:], canvas[:count])
    return {
        "image0": canvas[:count],
        "other": other,
        "has_other": has_other,
        "keypoints0": xy,
        "keypoint_mask": mask,
    }


def _dot(x: float, y: float) -> torch.Tensor:
    """A canvas with a round spot of 2 px around the anchor's pixel (x, y)."""
    height, width = SIZE[0] + 2 * MARGIN[0], SIZE[1] + 2 * MARGIN[1]
    rows = torch.arange(height).view(-1, 1) - MARGIN[0] - y
    columns = torch.arange(width).view(1, -1) - MARGIN[1] - x
    return torch.exp(-(rows**2 + columns**2) / 8).view(1, 1, height, width)


def _centroid(image: torch.Tensor) -> torch.Tensor:
    weight = image.squeeze() / image.sum()
    x = (weight.sum(0) * torch.arange(weight.shape[1])).sum()
    y = (weight.sum(1) * torch.arange(weight.shape[0])).sum()
    return torch.stack([x, y])


class TestHomographies:
    @pytest.mark.parametrize("seed", range(8))
    def test_a_dot_lands_where_its_keypoint_does(self, seed: int) -> None:
        dice = _dice(1, seed)
        angle, _ = sample_angles(1, dice, HomographyConfig(rotation_probability=1.0))
        H = sample_homographies(angle, *SIZE, dice, HomographyConfig(wide_probability=0.5, wide_max=1.2))
        keypoint = torch.tensor([[[42.0, 27.0]]], dtype=torch.float64)
        view = warp_images(_dot(42, 27).double(), torch.linalg.inv(H), MARGIN, SIZE)
        carried, visible = carry_keypoints(keypoint, H, SIZE, border=8.0)
        assert visible.all()
        torch.testing.assert_close(_centroid(view), carried[0, 0], atol=0.5, rtol=0)

    def test_most_keypoints_in_the_middle_stay_visible(self) -> None:
        dice = _dice(200)
        angle, _ = sample_angles(200, dice, HomographyConfig())
        H = sample_homographies(angle, *SIZE, dice, HomographyConfig())
        _, visible = carry_keypoints(torch.tensor([[[40.0, 30.0]]]).expand(200, 1, 2).double(), H, SIZE, 3.0)
        assert visible.float().mean() > 0.95

    @pytest.mark.parametrize("turn", [1, 2, 3])
    def test_angles_count_as_rot90_does(self, turn: int) -> None:
        image = _smooth(1, 60, 60)
        angle = torch.tensor([turn * math.pi / 2])
        H = sample_homographies(angle, 60, 60, _dice(1), RIGID)
        keypoints = torch.tensor([[[10.0, 20.0], [30.0, 5.0]]], dtype=torch.float64)
        torch.testing.assert_close(warp_points(keypoints, H), turn_points(keypoints, 60, 60, turn))
        view = warp_images(image.double(), torch.linalg.inv(H), (0, 0), (60, 60))
        torch.testing.assert_close(view.float(), torch.rot90(image, turn, (-2, -1)), atol=1e-4, rtol=0)

    def test_scale_is_that_of_things_in_the_view(self) -> None:
        wide = HomographyConfig(
            perspective=0.0, translation=0.0, wide_probability=1.0, wide_min=1.4, wide_max=1.6
        )
        H = sample_homographies(torch.zeros(50), *SIZE, _dice(50), wide)
        ends = warp_points(
            torch.tensor([[30.0, 30.0], [40.0, 30.0]], dtype=torch.float64).expand(50, 2, 2), H
        )
        scale = (ends[:, 1] - ends[:, 0]).norm(dim=-1) / 10
        assert scale.min() > 1.399
        assert scale.max() < 1.601

    def test_half_of_the_views_are_turned_within_the_limit(self) -> None:
        angle, rotated = sample_angles(2000, _dice(2000), HomographyConfig(max_rotation=90.0))
        assert rotated.float().mean() == pytest.approx(0.5, abs=0.04)
        assert torch.equal(angle != 0, rotated)
        assert 1.5 < angle.abs().max() <= math.pi / 2

    def test_points_beyond_the_horizon_are_not_visible(self) -> None:
        H = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [-0.02, 0, 1]]])  # the horizon is x = 50
        # The point comes out at (20, 20) for a depth of -1.
        carried, visible = carry_keypoints(torch.tensor([[[10.0, 10.0], [100.0, 20.0]]]), H, SIZE, 3.0)
        assert visible.tolist() == [[True, False]]
        torch.testing.assert_close(carried[0, 0], torch.tensor([12.5, 12.5]))


class TestLight:
    @pytest.mark.parametrize(
        "change",
        [
            lambda x, d: relight(x, d, RelightConfig(night_probability=0.0)),
            lambda x, d: relight(x, d, RelightConfig(night_probability=1.0)),
            lambda x, d: turn_to_night(x, d, NightConfig()),
            lambda x, d: photograph(
                x.clone(), d, PhotometricConfig(jpeg_probability=1.0, motion_probability=1.0)
            ),
        ],
    )
    @pytest.mark.parametrize("fill", ["photo", "black", "white"])
    def test_images_stay_in_range(self, change, fill: str) -> None:
        images = {"photo": _smooth(6, 60, 80), "black": torch.zeros(6, 3, 60, 80)}.get(
            fill, torch.ones(6, 3, 60, 80)
        )
        changed = change(images, _dice(6, seed=1))
        assert changed.shape == images.shape
        assert torch.isfinite(changed).all()
        assert changed.min() >= 0
        assert changed.max() <= 1

    def test_relighting_changes_every_image(self) -> None:
        images = _smooth(12, 60, 80)
        relit = relight(images, _dice(12), RelightConfig())
        assert ((relit - images).abs().mean(dim=(1, 2, 3)) > 0.01).all()

    def test_nights_are_darker(self) -> None:
        images = _smooth(32, 60, 80)
        dark = turn_to_night(images, _dice(32), NightConfig())
        assert (dark.mean(dim=(1, 2, 3)) < 0.4).all()
        assert dark.mean() < 0.6 * images.mean()

    def test_no_effect_is_the_identity(self) -> None:
        images = _smooth(3, 60, 80)
        torch.testing.assert_close(photograph(images.clone(), _dice(3), NO_NOISE), images)

    def test_motion_blur_keeps_the_brightness_and_the_place_of_a_dot(self) -> None:
        config = PhotometricConfig(
            brightness=0.0,
            contrast=0.0,
            noise_probability=0.0,
            shade_probability=0.0,
            motion_probability=1.0,
            jpeg_probability=0.0,
        )
        dot = _dot(40, 30).expand(4, 3, -1, -1).clone() * 0.9
        blurred = photograph(dot.clone(), _dice(4), config)
        for before, after in zip(dot, blurred, strict=True):
            torch.testing.assert_close(_centroid(after[0]), _centroid(before[0]), atol=1e-2, rtol=0)
            torch.testing.assert_close(after.sum(), before.sum(), rtol=1e-3, atol=0)

    def test_jpeg_error_falls_with_quality(self) -> None:
        images = _smooth(1, 61, 83) * 0.8 + 0.2 * torch.rand(1, 3, 61, 83, generator=numbered_generator(0, 0))
        errors = [
            float((compress(images, torch.tensor([q])) - images).abs().mean()) for q in (10.0, 50.0, 90.0)
        ]
        assert errors[0] > errors[1] > errors[2]
        torch.testing.assert_close(compress(images, torch.tensor([100.0])), images, atol=0.02, rtol=0)


class TestAugmenter:
    def test_same_generators_same_triplets(self) -> None:
        batch, augment = _batch(), Augmenter(size=SIZE)
        a, b, c = (augment(batch, sample_generators(1, first, 4)) for first in (20, 20, 24))
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.keypoints, b.keypoints)
        assert not torch.equal(a.images, c.images)

    def test_a_sample_looks_the_same_in_any_batch(self) -> None:
        """So that the processes of a training see their shares of what one process would see."""
        batch, augment = _batch(), Augmenter(size=SIZE)
        whole = augment(batch, sample_generators(1, 8, 4))
        for first in (0, 2):
            half = {name: value[first : first + 2] for name, value in batch.items()}
            share = augment(half, sample_generators(1, 8 + first, 2))
            torch.testing.assert_close(share.images, whole.images[:, first : first + 2])
            assert torch.equal(share.mask, whole.mask[first : first + 2])
            assert torch.equal(share.illumination_changed, whole.illumination_changed[first : first + 2])

    def test_shapes_range_and_mask(self) -> None:
        triplets = Augmenter(size=SIZE)(_batch(), sample_generators(0, 0, 4))
        assert triplets.images.shape == (3, 4, 3, *SIZE)
        assert triplets.images.dtype == torch.float32
        assert triplets.keypoints.shape == (3, 4, 30, 2)
        assert triplets.images.min() >= 0
        assert triplets.images.max() <= 1
        assert not triplets.mask[:, -5:].any()
        seen = triplets.keypoints[:, triplets.mask]
        assert len(seen[0]) > 20
        assert (seen >= 3).all()
        assert (seen <= torch.tensor([76, 56])).all()

    def test_keypoints_are_carried_by_the_homographies(self) -> None:
        triplets = Augmenter(size=SIZE)(_batch(), sample_generators(0, 4, 4))
        k0, k1, k2 = triplets.keypoints
        for H, carried in ((triplets.H_0to1, k1), (triplets.H_0to2, k2)):
            expected = warp_points(k0, H)[triplets.mask]
            torch.testing.assert_close(carried[triplets.mask], expected, atol=1e-3, rtol=0)

    def test_noise_moves_the_views_keypoints_and_not_the_anchors(self) -> None:
        exact = Augmenter(size=SIZE)(_batch(keypoints=400), sample_generators(0, 4, 4))
        config = AugmentConfig(detection=DetectionConfig(noise=1.5))
        noisy = Augmenter(config, SIZE)(_batch(keypoints=400), sample_generators(0, 4, 4))
        assert torch.equal(noisy.images, exact.images)
        assert torch.equal(noisy.keypoints[0], exact.keypoints[0])
        assert torch.equal(noisy.mask, exact.mask)
        missed = (noisy.keypoints - exact.keypoints)[1:]
        assert missed.std((1, 2, 3)).tolist() == pytest.approx([1.5, 1.5], rel=0.05)
        assert missed.mean((1, 2)).abs().max() < 0.15
        assert (missed[0] - missed[1]).std() == pytest.approx(1.5 * 2**0.5, rel=0.05)  # each view by itself

    def test_keypoints_move_to_what_is_detected_in_the_view(self) -> None:
        exact = Augmenter(size=SIZE)(_batch(), sample_generators(0, 4, 4))
        config = AugmentConfig(detection=DetectionConfig(radius=3.0))
        again = Augmenter(config, SIZE)(_batch(), sample_generators(0, 4, 4))
        assert torch.equal(again.keypoints[0], exact.keypoints[0])
        moved = (again.keypoints - exact.keypoints)[1:].norm(dim=-1)
        assert 0 < moved.max() <= 3.0
        assert not moved[:, ~exact.mask].any()
        for view in (1, 2):
            found = SIFT()(again.images[view], 512)
            for sample in range(4):
                kept = moved[view - 1, sample] == 0
                places = {tuple(place) for place in found.select(sample).xy[0].tolist()}
                assert {tuple(place) for place in again.keypoints[view, sample, ~kept].tolist()} <= places

    def test_keypoints_move_to_detections_that_are_theirs(self) -> None:
        """Two keypoints and three detections: one is nearest for both, one too far, one absent."""
        keypoints = torch.tensor([[[10.0, 10.0], [11.0, 10.0], [30.0, 30.0]]])
        found = torch.tensor([[[11.5, 10.0], [34.0, 30.0], [30.0, 30.5]]])
        present = torch.tensor([[True, True, False]])
        everyone = torch.ones(1, 3, dtype=torch.bool)
        moved = nearest_detections(keypoints, everyone, found, present, radius=3.0)
        assert moved.tolist() == [[[10.0, 10.0], [11.5, 10.0], [30.0, 30.0]]]
        hidden = torch.tensor([[True, False, True]])
        moved = nearest_detections(keypoints, hidden, found, present, radius=3.0)
        assert moved.tolist() == [[[11.5, 10.0], [11.0, 10.0], [30.0, 30.0]]]
        nothing = nearest_detections(keypoints, everyone, found[:, :0], present[:, :0], radius=3.0)
        assert torch.equal(nothing, keypoints)

    @pytest.mark.parametrize("name", ["noise", "radius"])
    def test_what_cannot_be_a_distance_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"{name} is -1"):
            DetectionConfig(**{name: -1})  # type: ignore[arg-type]

    def test_keypoints_sit_on_the_same_structure(self) -> None:
        """Without photometric changes, the three images have the same colour at a keypoint."""
        config = AugmentConfig(
            relight_probability=0.0,
            other_light_probability=0.0,
            homography=HomographyConfig(wide_probability=0.0),
            photometric=NO_NOISE,
        )
        triplets = Augmenter(config, SIZE)(_batch(), sample_generators(0, 12, 4))
        size = torch.tensor([80.0, 60.0])
        grid = 2 * (triplets.keypoints + 0.5) / size - 1
        colours = F.grid_sample(
            triplets.images.flatten(0, 1), grid.flatten(0, 1).unsqueeze(1), align_corners=False
        ).view(3, 4, 3, -1)
        for view in (1, 2):
            difference = (colours[view] - colours[0]).abs().amax(1)[triplets.mask]
            assert difference.max() < 0.08

    def test_the_steady_view_is_not_turned_and_keeps_the_light(self) -> None:
        config = AugmentConfig(
            other_light_probability=1.0, other_relight_probability=0.0, homography=RIGID, photometric=NO_NOISE
        )
        batch = _batch()
        triplets = Augmenter(config, SIZE)(batch, sample_generators(0, 0, 4))
        torch.testing.assert_close(triplets.images[2], triplets.images[0], atol=1e-4, rtol=0)
        assert torch.equal(triplets.illumination_changed[batch["has_other"]], torch.tensor([True, True]))
        assert torch.equal(triplets.angle != 0, triplets.rotated)

    def test_light_changes_as_often_as_configured(self) -> None:
        batch = {name: value.repeat_interleave(64, 0)[..., :] for name, value in _batch(2, 6).items()}
        config = AugmentConfig(relight_probability=0.5, other_light_probability=0.8)
        changed = Augmenter(config, SIZE)(batch, sample_generators(0, 0, 128)).illumination_changed
        assert changed[batch["has_other"]].float().mean() == pytest.approx(0.8, abs=0.15)
        assert changed[~batch["has_other"]].float().mean() == pytest.approx(0.5, abs=0.2)

    def test_the_sheet_is_a_picture(self, tmp_path: Path) -> None:
        from lisrd.image import read_image

        draw_sheet(Augmenter(size=SIZE)(_batch(), sample_generators(0, 0, 4)), tmp_path / "sheet.png", rows=2)
        sheet = read_image(tmp_path / "sheet.png")
        assert min(sheet.shape[:2]) > 300
        assert np.ptp(sheet) > 200
