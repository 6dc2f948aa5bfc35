"""Keypoints: where they are, in which order, and what they become in other libraries."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lisrd.coordinates import turn_points
from lisrd.detect import build_detector
from lisrd.detect.given import given_keypoints
from lisrd.detect.kornia import ALIKEDDetector, FrameDetector, load_aliked
from lisrd.detect.lafs import keypoints_from_lafs
from lisrd.detect.orientation import dominant_orientations
from lisrd.detect.sift import SIFT, from_cv2, grey_images, packed_octave, sift_descriptors, to_cv2
from lisrd.detect.weights import downloaded, load_weights
from lisrd.errors import InputError
from lisrd.image import as_image
from lisrd.types import Keypoints

BLOB = (41.0, 23.0)


def blob_image(width: int = 96, height: int = 64, sigma: float = 3.0) -> Tensor:
    """A bright Gaussian blob at `BLOB` on grey."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    squared = (x - BLOB[0]) ** 2 + (y - BLOB[1]) ** 2
    return (0.2 + 0.7 * torch.exp(-squared / (2 * sigma**2))).expand(1, 3, -1, -1)


def opencv_sift(**options: float) -> cv2.SIFT:
    return cv2.SIFT.create(enable_precise_upscale=True, **options)


def median_distance(found: Tensor, reference: Tensor, within: float = 3.0) -> float:
    nearest = torch.cdist(found, reference).amin(dim=1)
    return nearest[nearest < within].median().item()


# --- SIFT -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sift", "dog"])
def test_a_blob_is_found_at_its_centre_with_its_size(name: str) -> None:
    keypoints = build_detector(name)(blob_image(), max_keypoints=1)
    assert keypoints.xy[0, 0].tolist() == pytest.approx(BLOB, abs=0.05)
    # A difference of Gaussians of ratio k = 2^(1/3) peaks where sigma_blob^2 = k sigma^2; size = 2 sigma.
    assert keypoints.scales[0, 0].item() == pytest.approx(2 * 3.0 / 2 ** (1 / 6), rel=0.02)


@pytest.mark.parametrize("name", ["sift", "dog"])
def test_keypoints_turn_with_the_image(name: str, photograph: np.ndarray) -> None:
    image = as_image(photograph)[..., :150, :200]
    detector = build_detector(name)
    turned = turn_points(detector(image.rot90(2, (2, 3))).xy[0], 200, 150, 2)
    assert median_distance(turned, detector(image).xy[0]) < 0.05


def test_sift_is_opencvs_on_the_original_pixels(photograph: np.ndarray) -> None:
    grey = cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)
    assert np.array_equal(grey_images(as_image(photograph))[0], grey)
    expected = opencv_sift(contrastThreshold=0.02, edgeThreshold=8).detect(grey, None)
    found = SIFT(contrast_threshold=0.02, one_per_position=False, edge_threshold=8.0)(as_image(photograph))
    assert sorted(found.xy[0].tolist()) == sorted(list(k.pt) for k in expected)


def test_strongest_first_and_one_per_position(photograph: np.ndarray) -> None:
    image = as_image(photograph)
    every = SIFT(one_per_position=False)(image)
    single = SIFT()(image)
    assert (single.scores.diff() <= 0).all()
    positions = {tuple(xy) for xy in every.xy[0].tolist()}
    assert len(positions) < every.xy.shape[1]  # some do have several orientations
    assert single.xy.shape[1] == len(positions)
    assert {tuple(xy) for xy in single.xy[0].tolist()} == positions
    assert torch.equal(SIFT()(image, max_keypoints=10).xy, single.xy[:, :10])


def test_a_batch_is_padded_and_gives_what_its_images_give(photograph: np.ndarray) -> None:
    image = as_image(photograph)[..., :160, :160]
    batch = torch.cat([image, torch.full_like(image, 0.5), image.flip(-1)])
    found = SIFT()(batch)
    counts = found.mask.sum(dim=1).tolist()
    assert counts[1] == 0
    assert min(counts[0], counts[2]) > 20
    for index in range(3):
        alone = SIFT()(batch[index : index + 1])
        assert torch.equal(found.select(index).xy, alone.xy)
        assert torch.equal(found.select(index).oris, alone.oris)


@pytest.mark.parametrize("name", ["sift", "dog"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 40), (64, 64)])
def test_flat_and_tiny_images_have_no_keypoints(name: str, size: tuple[int, int]) -> None:
    found = build_detector(name)(torch.full((2, 3, *size), 0.5), max_keypoints=5)
    assert found.xy.shape == (2, 0, 2)
    assert found.mask.shape == found.scores.shape == (2, 0)


# --- OpenCV -----------------------------------------------------------------------------------------------


def test_descriptors_survive_the_way_through_keypoints(photograph: np.ndarray) -> None:
    grey = cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)
    found, expected = opencv_sift(contrastThreshold=0.01).detectAndCompute(grey, None)
    back = to_cv2(from_cv2(found))
    assert [k.octave for k in back] == [k.octave for k in found]
    assert max(abs(a.angle - b.angle) for a, b in zip(found, back, strict=True)) < 1e-4
    difference = np.abs(sift_descriptors(grey, back) - expected)
    assert (difference == 0).mean() > 0.9999  # an angle's last bit may tip a rounding
    assert difference.max() <= 1


def test_descriptors_do_not_depend_on_the_other_keypoints(photograph: np.ndarray) -> None:
    grey = cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)
    found, expected = opencv_sift().detectAndCompute(grey, None)
    coarse = [i for i, keypoint in enumerate(found) if keypoint.octave & 255 == 1][:5]
    chosen = [found[i] for i in coarse]
    assert np.array_equal(sift_descriptors(grey, chosen), expected[coarse])
    assert not np.array_equal(opencv_sift().compute(grey, chosen)[1], expected[coarse])  # the trap


def test_descriptors_of_no_keypoints_and_of_huge_ones() -> None:
    grey = np.zeros((3, 50), np.uint8)
    assert sift_descriptors(grey, []).shape == (0, 128)
    assert sift_descriptors(grey, [cv2.KeyPoint(1, 1, 800, 0, 0, packed_octave(800.0))]).shape == (1, 128)


def test_keypoints_without_orientation_take_the_dominant_gradient(photograph: np.ndarray) -> None:
    image = as_image(photograph)[..., :256, :256]
    found = SIFT()(image, max_keypoints=200)
    estimated = dominant_orientations(image, found.xy, found.scales)
    # SIFT keeps several peaks of a histogram and this the highest, so not every keypoint agrees.
    difference = (torch.rad2deg(estimated - found.oris) + 180) % 360 - 180
    assert difference.abs().median() < 10
    bare = Keypoints.from_xy(found.xy)
    converted = to_cv2(bare, image)
    assert {k.size for k in converted} == {12.0}
    with pytest.raises(InputError, match="no orientations; pass the image"):
        to_cv2(bare)


def test_opencvs_missing_angles_stay_missing() -> None:
    assert from_cv2([cv2.KeyPoint(1, 2, 3)]).oris is None
    assert from_cv2([]).xy.shape == (1, 0, 2)


def test_only_one_image_becomes_opencvs_keypoints() -> None:
    with pytest.raises(InputError, match=r"keypoints of 2 images; .*select"):
        to_cv2(Keypoints.from_xy(torch.zeros(2, 4, 2)))


@given(
    octave=st.integers(-1, 6),
    layer=st.integers(1, 3),
    offset=st.floats(-0.49, 0.49),
    xy=st.tuples(*[st.floats(0, 4000, width=32)] * 2),
    angle=st.floats(0, 359.5, width=32),
)
def test_opencv_keypoints_round_trip(
    octave: int, layer: int, offset: float, xy: tuple[float, float], angle: float
) -> None:
    size = 3.2 * 2 ** (octave + (layer + offset) / 3)
    packed = (octave & 255) | layer << 8 | round((offset + 0.5) * 255) << 16
    original = cv2.KeyPoint(*xy, size, angle, 0.25, packed)
    (back,) = to_cv2(from_cv2([original]))
    assert (back.pt, back.size, back.response) == (original.pt, original.size, original.response)
    assert back.octave & 0xFFFF == original.octave & 0xFFFF
    assert abs((back.octave >> 16) - (original.octave >> 16)) <= 1
    assert math.remainder(back.angle - original.angle, 360) == pytest.approx(0, abs=1e-4)


# --- kornia -----------------------------------------------------------------------------------------------


def test_frames_become_keypoints() -> None:
    """A frame of scale 9 turned a quarter clockwise on screen, which is +90 degrees from x towards y."""
    lafs = torch.tensor([[[[0.0, -9.0, 5.0], [9.0, 0.0, 7.0]], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]])
    keypoints = keypoints_from_lafs(lafs)
    assert keypoints.xy[0, 0].tolist() == [5, 7]
    assert keypoints.scales[0, 0].item() == pytest.approx(3)  # OpenCV's size is a third
    assert keypoints.oris[0, 0].item() == pytest.approx(math.pi / 2)
    assert keypoints.mask.tolist() == [[True, False]]


class CoarseLevel(nn.Module):
    """Stands in for KeyNet: one pixel of a level of stride 4, mapped to the image the way kornia does."""

    def forward(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        column, row, stride, frame = 5, 2, 4, 22
        scale = float(frame * stride)
        lafs = torch.tensor([[[[scale, 0, column * stride], [0, scale, row * stride]]]])
        return lafs, torch.ones(1, 1)


def test_pixels_of_coarse_levels_are_placed_at_their_centre() -> None:
    found = FrameDetector(CoarseLevel(), score_threshold=0.0, level_pixel=22.0)(torch.zeros(1, 3, 64, 64))
    # Pixel 5 of stride 4 covers image pixels 20, 21, 22, 23.
    assert found.xy[0, 0].tolist() == [21.5, 9.5]


class PeakAt(nn.Module):
    """Stands in for ALIKED's network: its detection head on a score map with one peak."""

    def __init__(self, x: int, y: int, peak: float) -> None:
        super().__init__()
        from kornia.feature.aliked.aliked import DKD

        self.dkd = DKD(scores_th=0.2)
        self.x, self.y, self.peak = x, y, peak

    def extract_dense_map(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scores = torch.full_like(images[:, :1], 0.01)
        scores[..., self.y, self.x] = self.peak
        return images, scores


def test_aliked_counts_pixels_from_the_centre_of_the_first() -> None:
    found = ALIKEDDetector(PeakAt(7, 3, peak=0.9), 0.2)(torch.zeros(1, 3, 20, 30))
    assert found.xy[0].tolist() == [pytest.approx([7, 3], abs=1e-3)]
    assert ALIKEDDetector(PeakAt(7, 3, peak=0.1), 0.2)(torch.zeros(1, 3, 20, 30)).xy.shape == (1, 0, 2)


@pytest.fixture(scope="module")
def aliked_weights(shared: Path) -> Path:
    path = shared / "peers" / "aliked-n16rot.pth"
    if not path.is_file():
        pytest.skip(f"no {path}: ALIKED's published weights are not at hand")
    return path


def test_aliked_keypoints_move_with_the_image(aliked_weights: Path, photograph: np.ndarray) -> None:
    detector = build_detector(f"aliked-n16rot={aliked_weights}")
    image = as_image(photograph)[..., :224, :288]
    found = detector(image)
    assert found.xy.shape[1] > 50
    assert (found.scores.diff() <= 0).all()
    assert found.scores.min() > 0.2
    shifted = detector(image[..., 5:, 9:]).xy[0] + torch.tensor([9.0, 5.0])
    assert median_distance(shifted, found.xy[0]) < 0.2
    upside_down = detector(image.flip(-2)).xy[0]
    upside_down[:, 1] = 223 - upside_down[:, 1]
    assert median_distance(upside_down, found.xy[0]) < 0.6
    assert detector(torch.full((1, 3, 64, 64), 0.5)).xy.shape == (1, 0, 2)


def test_weights_must_fit_the_network(aliked_weights: Path, tmp_path: Path) -> None:
    state = torch.load(aliked_weights, weights_only=True)
    path = tmp_path / "weights.pth"
    torch.save({k: v for k, v in state.items() if k != "conv1.weight"}, path)
    with pytest.raises(InputError, match=r"weights\.pth misses conv1\.weight: .* not weights of ALIKED"):
        load_aliked("aliked-n16rot", path)
    torch.save({**state, "extra.bias": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"has unknown extra\.bias"):
        load_aliked("aliked-n16rot", path)


def test_weights_files_that_are_none(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    path = tmp_path / "weights.pth"
    with pytest.raises(InputError, match=r"weights\.pth does not exist"):
        load_weights(network, path)
    path.write_text("not a checkpoint")
    with pytest.raises(InputError, match=r"weights\.pth is no checkpoint"):
        load_weights(network, path)
    torch.save({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, path)
    with pytest.raises(InputError, match=r"has other shapes for weight: .* not weights of Linear"):
        load_weights(network, path)
    torch.save({"model": {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}}, path)
    assert load_weights(network, path, inside="model").weight.sum() == 4


def test_a_failed_download_says_what_to_do() -> None:
    def build() -> nn.Module:
        raise OSError("no route to host")

    with pytest.raises(InputError, match=r"weights of disk .*no route to host.*give its path: disk=PATH"):
        downloaded("disk", build)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sfit", {}, "unknown detector 'sfit'; did you mean 'sift'"),
        ("orb", {}, "unknown detector 'orb'; known: sift, disk"),
        ("sift", {"contrast": 1}, "detector 'sift': .*contrast"),
        ("dog=weights.pth", {}, "detector 'dog': .*weights"),
        ("aliked-n16=nowhere.pth", {}, r"nowhere\.pth does not exist"),
    ],
)
def test_names_and_options_that_are_wrong(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_detector(name, **options)


# --- the caller's own --------------------------------------------------------------------------------------


def test_every_form_of_given_keypoints() -> None:
    xy = [[1.0, 2.0], [30.5, 4.0]]
    forms = [
        xy,
        np.array(xy),
        np.array(xy, np.float32)[:, ::-1].copy()[:, ::-1],  # columns swapped by a view
        torch.tensor(xy),
        torch.tensor([xy]),
        [cv2.KeyPoint(x, y, 12) for x, y in xy],
        Keypoints.from_xy(torch.tensor(xy)),
        Keypoints.from_xy(torch.tensor(xy, dtype=torch.float64)),
        torch.tensor([[[[9.0, 0, 1], [0, 9, 2]], [[9, 0, 30.5], [0, 9, 4]]]]),
    ]
    for form in forms:
        found = given_keypoints(form, width=40, height=20).xy
        assert found.tolist() == [xy]
        assert found.dtype == torch.float32


@pytest.mark.parametrize("nothing", [[], np.empty((0, 2)), torch.empty(1, 0, 2), torch.empty(1, 0, 2, 3)])
def test_no_keypoints_are_keypoints(nothing: object) -> None:
    assert given_keypoints(nothing, width=40, height=20).xy.shape == (1, 0, 2)


@pytest.mark.parametrize(
    ("given_by_caller", "message"),
    [
        (
            [[1.0, 2.0], [50.0, 3.0]],
            r"keypoint 1 at \(50\.0, 3\.0\) lies outside the 40 x 20 image \(1 of 2 do\)",
        ),
        ([[19.0, 39.0]], "they fit as .row, column.: swap the columns"),
        ([[1.0, math.nan]], "remove what is not finite"),
        (np.zeros((4, 3)), r"keypoints of shape \(4, 3\)"),
        (np.array([["a", "b"]]), "not numbers"),
    ],
)
def test_given_keypoints_that_are_wrong(given_by_caller: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        given_keypoints(given_by_caller, width=40, height=20)


@settings(max_examples=30)
@given(st.floats(-0.5, 39.5, width=32), st.floats(-0.5, 19.5, width=32))
def test_the_image_reaches_half_a_pixel_beyond_its_outer_centres(x: float, y: float) -> None:
    assert given_keypoints([[x, y]], width=40, height=20).xy.shape == (1, 1, 2)
    with pytest.raises(InputError, match="outside"):
        given_keypoints([[x + 40.01, y]], width=40, height=20)
