"""Other describers at given keypoints, with random weights, on which speed does not depend.

Networks describe all images of a batch, OpenCV one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lisrd.coordinates import sample_map
from lisrd.describe.paper import PaperConfig, PaperNetwork
from lisrd.types import Keypoints

Describe = Callable[[], object]


def paper(images: Float[Tensor, "B 3 H W"], keypoints: Keypoints) -> Describe:
    """The published network, eager, in float32: maps, samples at the keypoints, meta descriptors there."""
    from benchmarks.direct import meta_at_keypoints

    network = _still(PaperNetwork(PaperConfig()))
    height, width = images.shape[-2:]

    @torch.no_grad()
    def describe() -> tuple[Tensor, Tensor]:
        field = network(images)
        return field.at(keypoints), meta_at_keypoints(field.meta(), keypoints.xy, width, height)

    return describe


def aliked(images: Float[Tensor, "B 3 H W"], keypoints: Keypoints) -> Describe:
    """ALIKED-n16: dense map, then deformable descriptors at the keypoints."""
    from kornia.feature import ALIKED

    network = _still(ALIKED("aliked-n16"))
    far_corner = keypoints.xy.new_tensor([images.shape[3] - 1, images.shape[2] - 1])
    places = list(2 * keypoints.xy / far_corner - 1)

    @torch.no_grad()
    def describe() -> object:
        maps, _ = network.extract_dense_map(images)
        return network.desc_head(maps, places)

    return describe


def disk(images: Float[Tensor, "B 3 H W"], keypoints: Keypoints) -> Describe:
    """DISK: dense descriptors at full resolution, sampled."""
    from kornia.feature import DISK

    network = _still(DISK())
    return _sampled(lambda: network.heatmap_and_dense_descriptors(images)[1], images, keypoints)


def xfeat(images: Float[Tensor, "B 3 H W"], keypoints: Keypoints) -> Describe:
    """XFeat: dense descriptors at stride 8, sampled."""
    from kornia.feature import XFeatModel

    network = _still(XFeatModel())
    return _sampled(lambda: network(images)[0], images, keypoints)


def hardnet(images: Float[Tensor, "B 3 H W"], keypoints: Keypoints) -> Describe:
    """HardNet on oriented 32 x 32 patches cut from a pyramid of the grey image."""
    from kornia.feature import HardNet, extract_patches_from_pyramid, laf_from_center_scale_ori

    assert keypoints.scales is not None
    assert keypoints.oris is not None
    network = _still(HardNet(pretrained=False))
    grey = images.mean(1, keepdim=True)
    radii = keypoints.scales[..., None, None] * 3
    frames = laf_from_center_scale_ori(keypoints.xy, radii, -torch.rad2deg(keypoints.oris)[..., None])

    @torch.no_grad()
    def describe() -> Tensor:
        return network(extract_patches_from_pyramid(grey, frames, 32).flatten(0, 1))

    return describe


def sift_compute(images: Float[Tensor, "1 3 H W"], keypoints: Keypoints) -> Describe:
    """OpenCV's SIFT descriptors at the keypoints."""
    from lisrd.detect.sift import grey_images, sift_descriptors, to_cv2

    grey, converted = grey_images(images)[0], to_cv2(keypoints)
    return lambda: sift_descriptors(grey, converted)


def sift_detect_and_compute(images: Float[Tensor, "1 3 H W"], keypoints: Keypoints) -> Describe:
    """OpenCV's SIFT from the image alone, for as many keypoints."""
    import cv2

    from lisrd.detect.sift import grey_images

    grey = grey_images(images)[0]
    sift = cv2.SIFT.create(nfeatures=keypoints.xy.shape[1])
    return lambda: sift.detectAndCompute(grey, None)


def _sampled(
    dense: Callable[[], Float[Tensor, "B D h w"]], images: Float[Tensor, "B 3 H W"], keypoints: Keypoints
) -> Describe:
    height, width = images.shape[-2:]

    @torch.no_grad()
    def describe() -> Tensor:
        return F.normalize(sample_map(dense(), keypoints.xy, width, height), dim=-1)

    return describe


def _still(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False)


#: What `describing` compares with: name, words, and how to build it.
PEERS = (
    ("paper", "the published network, eager float32, with meta descriptors at the keypoints", paper),
    ("aliked_n16", "ALIKED-n16 (kornia), float32", aliked),
    ("disk", "DISK (kornia), float32", disk),
    ("xfeat", "XFeat (kornia), float32", xfeat),
    ("hardnet", "HardNet on 32 x 32 patches (kornia), float32", hardnet),
    ("sift", "OpenCV SIFT descriptors", sift_compute),
    ("sift_detect", "OpenCV SIFT, detection and descriptors", sift_detect_and_compute),
)
