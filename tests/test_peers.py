"""HardNet, SOSNet, DISK and XFeat at any keypoints, with random weights in a file: nothing is downloaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from kornia.feature import DISK, HardNet, LAFDescriptor, SOSNet, XFeat, laf_from_center_scale_ori
from torch import Tensor, nn

from lisrd.coordinates import turn_points
from lisrd.describe.dense_networks import Disk
from lisrd.describe.dense_networks import XFeat as XFeatDescriber
from lisrd.describe.describer import build_describer
from lisrd.describe.patch_networks import PatchNetwork
from lisrd.detect.lafs import keypoints_from_lafs, lafs_from_keypoints
from lisrd.detect.sift import SIFT
from lisrd.errors import InputError
from lisrd.evaluate import evaluate
from lisrd.image import as_image
from lisrd.types import Keypoints, stack_keypoints

PATCH_NETWORKS: dict[str, Any] = {"hardnet": HardNet, "sosnet": SOSNet}
NAMES = ("hardnet", "upright-hardnet", "sosnet", "upright-sosnet", "disk", "xfeat")


def lively(network: nn.Module, inputs: Tensor) -> nn.Module:
    """Random weights with the statistics of these inputs, as training leaves them: descriptors that differ."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(inputs)
    return network.eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files as the authors wrap theirs."""
    torch.manual_seed(0)
    grey = torch.from_numpy(skimage.data.camera()).float()[None, None] / 255
    patches = F.unfold(grey, 32, stride=32)[0].T.reshape(-1, 1, 32, 32)
    folder = tmp_path_factory.mktemp("weights")
    states = {
        "hardnet": {"state_dict": lively(HardNet(pretrained=False), patches).state_dict(), "epoch": 9},
        "sosnet": lively(SOSNet(pretrained=False), patches).state_dict(),
        "disk": {"extractor": DISK().state_dict()},
        "xfeat": lively(XFeat().net, grey).state_dict(),
    }
    for name, state in states.items():
        torch.save(state, folder / f"{name}.pth")
    return {name: folder / f"{name.removeprefix('upright-')}.pth" for name in NAMES}


@pytest.fixture
def image(photograph: np.ndarray) -> Tensor:
    return as_image(photograph[:187, :233])  # a size that DISK pads and XFeat shrinks


@pytest.fixture
def keypoints(image: Tensor) -> Keypoints:
    return SIFT()(image, 60)


def test_frames_and_keypoints_are_each_others_inverse(keypoints: Keypoints) -> None:
    assert keypoints.scales is not None
    assert keypoints.oris is not None
    back = keypoints_from_lafs(lafs_from_keypoints(keypoints.xy, keypoints.scales, keypoints.oris))
    torch.testing.assert_close(back.xy, keypoints.xy)
    torch.testing.assert_close(back.scales, keypoints.scales)
    torch.testing.assert_close(back.oris.cos(), keypoints.oris.cos(), atol=1e-5, rtol=0)
    torch.testing.assert_close(back.oris.sin(), keypoints.oris.sin(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", PATCH_NETWORKS)
def test_patches_are_what_kornia_describes(
    weights: dict[str, Path], image: Tensor, keypoints: Keypoints, name: str
) -> None:
    """kornia's own module on its own frames of the same keypoints."""
    network = PATCH_NETWORKS[name](pretrained=False)
    state = torch.load(weights[name], weights_only=True)
    network.load_state_dict(state.get("state_dict", state))
    assert keypoints.scales is not None
    assert keypoints.oris is not None
    frame_scale = 3 * keypoints.scales[..., None, None]  # 6 sigma; OpenCV's size is 2 sigma
    lafs = laf_from_center_scale_ori(keypoints.xy, frame_scale, -torch.rad2deg(keypoints.oris)[..., None])
    with torch.no_grad():
        expected = LAFDescriptor(network, 32)(image, lafs)
    torch.testing.assert_close(PatchNetwork(name, weights[name]).descriptors(image, keypoints), expected)


@pytest.mark.parametrize("name", PATCH_NETWORKS)
def test_oriented_patches_follow_a_quarter_turn_and_upright_ones_do_not(
    weights: dict[str, Path], image: Tensor, keypoints: Keypoints, name: str
) -> None:
    assert keypoints.oris is not None
    turned = Keypoints(
        turn_points(keypoints.xy, 233, 187, 1),
        keypoints.scores,
        keypoints.mask,
        keypoints.scales,
        keypoints.oris - math.pi / 2,
    )
    agreement = {}
    for which in (name, f"upright-{name}"):
        describer = PatchNetwork(which, weights[which])
        before = describer.descriptors(image, keypoints)
        after = describer.descriptors(torch.rot90(image, 1, (2, 3)), turned)
        agreement[which] = float((before * after).sum(-1).median())
    assert agreement[name] > 0.99
    assert agreement[f"upright-{name}"] < agreement[name] - 0.1


def test_upright_keypoints_at_one_position_do_not_tie(weights: dict[str, Path], image: Tensor) -> None:
    twice = Keypoints.from_xy(torch.tensor([[90.0, 80.0], [90.0, 80.0]]))
    upright = PatchNetwork("upright-hardnet", weights["hardnet"]).descriptors(image, twice)[0]
    assert upright.norm(dim=-1).tolist() == pytest.approx([1, 0], abs=1e-5)


@pytest.mark.parametrize("name", PATCH_NETWORKS)
@pytest.mark.parametrize("grey", [0.5, 0.3, 77 / 255, 1.0])
def test_patches_of_one_colour_are_like_nothing(weights: dict[str, Path], name: str, grey: float) -> None:
    flat = PatchNetwork(name, weights[name]).descriptors(
        torch.full((1, 3, 64, 64), grey), Keypoints.from_xy(torch.tensor([[30.0, 30.0]]))
    )
    assert not flat.any()


def test_keypoints_without_scale_and_orientation_are_described(
    weights: dict[str, Path], image: Tensor, keypoints: Keypoints
) -> None:
    bare = Keypoints.from_xy(keypoints.xy)
    described = PatchNetwork("hardnet", weights["hardnet"]).descriptors(image, bare)
    torch.testing.assert_close(described.norm(dim=-1), torch.ones(1, 60))


def test_disk_gives_its_own_descriptors_at_its_own_keypoints(weights: dict[str, Path], image: Tensor) -> None:
    describer = Disk(weights["disk"])
    with torch.no_grad():
        (theirs,) = describer.network(image, score_threshold=-1e9, pad_if_not_divisible=True)
    assert len(theirs.keypoints) > 20
    ours = describer.descriptors(image, Keypoints.from_xy(theirs.keypoints.float()))
    torch.testing.assert_close(ours[0], theirs.descriptors, atol=1e-4, rtol=0)
    moved = describer.descriptors(image, Keypoints.from_xy(theirs.keypoints.float() + 1))
    assert (moved[0] * theirs.descriptors).sum(1).mean() < 0.999


def test_xfeat_gives_its_own_descriptors_at_its_own_keypoints(
    weights: dict[str, Path], photograph: np.ndarray
) -> None:
    """On multiples of 32, where kornia reports the pixels of the image itself."""
    image = as_image(photograph[:160, :224])
    describer = XFeatDescriber(weights["xfeat"])
    (theirs,) = describer.network.detectAndCompute(image, detection_threshold=0.0)
    assert len(theirs["keypoints"]) > 20
    ours = describer.descriptors(image, Keypoints.from_xy(theirs["keypoints"].clone()))
    torch.testing.assert_close(ours[0], theirs["descriptors"].clone(), atol=1e-5, rtol=0)


def test_xfeat_counts_pixels_of_the_image_it_shrinks(weights: dict[str, Path], image: Tensor) -> None:
    """The same place in the image and in its shrunk copy, whose sides are multiples of 32."""
    describer = XFeatDescriber(weights["xfeat"])
    shrunk = F.interpolate(image, (160, 224), mode="bilinear", align_corners=False)
    place, same_place = (
        torch.tensor([[100.0, 50.0]]),
        torch.tensor([[100.5 * 224 / 233 - 0.5, 50.5 * 160 / 187 - 0.5]]),
    )
    torch.testing.assert_close(
        describer.descriptors(image, Keypoints.from_xy(place)),
        describer.descriptors(shrunk, Keypoints.from_xy(same_place)),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_peer_respects_masks_and_batches(
    weights: dict[str, Path], image: Tensor, keypoints: Keypoints, name: str
) -> None:
    describer = build_describer(f"{name}={weights[name]}")
    few = SIFT()(image, 5)
    both = describer.describe(image.repeat(2, 1, 1, 1), stack_keypoints([few, keypoints]))
    assert both.invariances == (name,)
    assert not both.descriptors[0, 5:].any()
    alone = describer.describe(image, few)
    torch.testing.assert_close(both.descriptors[:1, :5], alone.descriptors, atol=1e-5, rtol=0)
    nothing = describer.describe(image, Keypoints.from_xy(torch.zeros(0, 2)))
    assert nothing.descriptors.shape == (1, 0, 1, alone.descriptors.shape[-1])


def test_old_files_without_counts_of_batches_load(weights: dict[str, Path], tmp_path: Path) -> None:
    state = torch.load(weights["sosnet"], weights_only=True)
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "old.pth")
    PatchNetwork("sosnet", tmp_path / "old.pth")


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_another_network_are_refused(weights: dict[str, Path], tmp_path: Path, name: str) -> None:
    other = weights["disk" if name == "xfeat" else "xfeat"]
    with pytest.raises(InputError, match="these are not weights of"):
        build_describer(f"{name}={other}")
    with pytest.raises(InputError, match="does not exist"):
        build_describer(f"{name}={tmp_path / 'none.pth'}")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(InputError, match="no checkpoint"):
        build_describer(f"{name}={tmp_path / 'text.pth'}")
    with pytest.raises(InputError, match=f"{name}=PATH"):
        build_describer(name)


def test_peers_are_compared_on_common_keypoints(
    weights: dict[str, Path], photograph: np.ndarray, tmp_path: Path
) -> None:
    """A photograph with itself: whatever the weights, the same place looks the same."""
    from PIL import Image

    (tmp_path / "data").mkdir()
    Image.fromarray(photograph[:160, :224]).save(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "pairs.txt").write_text("a.png a.png 1 0 0 0 1 0 0 0 1")
    describers = [f"{name}={weights[name]}" for name in NAMES]
    document = evaluate(tmp_path / "data", "pairs", describers, max_keypoints=80, progress=False)
    rows = [row for row in document["rows"] if row["part"] == "all"]
    assert [row["describer"] for row in rows] == describers
    assert [row["precision"] for row in rows] == [1.0] * 6
