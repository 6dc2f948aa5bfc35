"""Detectors that kornia implements: DISK, ALIKED, KeyNet and the difference of Gaussians.

All of them count pixels from the centre of the top-left one, as we do; KeyNet's positions on coarse levels of
its pyramid are half a level's pixel off, which is mended here. None of them estimates orientations.

The published ALIKED networks move with a shifted image, but not quite with a mirrored or turned one: there
`aliked-n16rot` places its keypoints about half a pixel to the right, and `aliked-n16` prefers other corners.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lisrd.detect.lafs import keypoints_from_lafs, laf_scales
from lisrd.detect.weights import downloaded, load_weights
from lisrd.types import Keypoints, stack_keypoints

_SMALLEST_SIDE = 32  # below, the coarsest level of a network has no pixels to normalise over


@dataclass(frozen=True, slots=True)
class ALIKEDDetector:
    """ALIKED (Zhao et al., 2023): sub-pixel maxima of the score map above `detection_threshold`.

    Dark images score low: lower the threshold for them.
    """

    network: nn.Module
    detection_threshold: float

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "B 3 H W"], max_keypoints: int | None = None) -> Keypoints:
        network: Any = self.network.to(images.device)
        _, score_map = network.extract_dense_map(images)
        positions, scores, _ = network.dkd(score_map)
        last_pixel = images.new_tensor([images.shape[-1] - 1, images.shape[-2] - 1])
        singles = []
        for xy, score in zip(positions, scores, strict=True):
            # Where nothing passes the threshold, kornia returns what lies above the image's mean.
            passes = score > self.detection_threshold
            singles.append(_strongest((xy[passes] + 1) / 2 * last_pixel, score[passes], max_keypoints))
        return stack_keypoints(singles)


@dataclass(frozen=True, slots=True)
class DISKDetector:
    """DISK (Tyszkiewicz et al., 2020): maxima of the heatmap above `score_threshold`, whole pixels.

    Images with a side below 32 pixels have no keypoints.
    """

    network: nn.Module
    score_threshold: float

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "B 3 H W"], max_keypoints: int | None = None) -> Keypoints:
        if min(images.shape[2:]) < _SMALLEST_SIDE:
            return _none(images)
        features = self.network.to(images.device)(
            images, score_threshold=self.score_threshold, pad_if_not_divisible=True
        )
        return stack_keypoints(
            [_strongest(f.keypoints.float(), f.detection_scores, max_keypoints) for f in features]
        )


@dataclass(frozen=True, slots=True)
class FrameDetector:
    """A kornia module that returns local affine frames on the grey image, at most its own `num_features`.

    Images with a side below 32 pixels have no keypoints. `level_pixel` is the frame scale that one pixel of a
    pyramid level has, for modules that map the corner of that pixel to the image instead of its centre.
    """

    network: nn.Module
    score_threshold: float
    level_pixel: float | None = None

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "B 3 H W"], max_keypoints: int | None = None) -> Keypoints:
        from kornia.color import rgb_to_grayscale

        if min(images.shape[2:]) < _SMALLEST_SIDE:
            return _none(images)
        self.network.to(images.device)
        singles = [self._detect(grey) for grey in rgb_to_grayscale(images).split(1)]
        found = stack_keypoints(singles)
        return found if max_keypoints is None else _first(found, max_keypoints)

    def _detect(self, grey: Float[Tensor, "1 1 H W"]) -> Keypoints:
        lafs, scores = self.network(grey)
        found = keypoints_from_lafs(lafs, scores)
        xy = found.xy
        if self.level_pixel is not None:
            stride = laf_scales(lafs)[..., None] / self.level_pixel
            xy = xy + (stride - 1) / 2
        passes = found.mask & (scores > self.score_threshold)
        return replace(found, xy=xy, mask=passes, oris=None).select(0)


def build_aliked(
    name: str, weights: str | Path | None = None, detection_threshold: float = 0.2
) -> ALIKEDDetector:
    """ALIKED with weights from a file of its authors', or else from kornia's download."""
    return ALIKEDDetector(load_aliked(name, weights, detection_threshold), detection_threshold)


def load_aliked(name: str, weights: str | Path | None = None, detection_threshold: float = 0.2) -> nn.Module:
    """kornia's network of this name, for detection and description alike.

    Raises `InputError` where the file does not fit the network or the download fails.
    """
    from kornia.feature import ALIKED

    if weights is None:
        return downloaded(name, ALIKED.from_pretrained, name, detection_threshold=detection_threshold)
    network = ALIKED(name, detection_threshold=detection_threshold)
    # The grid of offsets is a constant that the authors' files do not hold.
    return load_weights(network, weights, may_miss=("dkd.hw_grid",))


def build_disk(weights: str | Path | None = None, score_threshold: float = 0.0) -> DISKDetector:
    """DISK with weights from a file of its authors', or else from kornia's download ("depth")."""
    from kornia.feature import DISK

    if weights is None:
        return DISKDetector(downloaded("disk", DISK.from_pretrained, "depth"), score_threshold)
    return DISKDetector(load_weights(DISK(), weights, inside="extractor"), score_threshold)


def build_keynet(
    weights: str | Path | None = None, num_features: int = 4096, score_threshold: float = 0.0
) -> FrameDetector:
    """Key.Net (Barroso-Laguna et al., 2019) with weights from a file, or else from kornia's download."""
    from kornia.feature import KeyNetDetector

    if weights is None:
        network = downloaded("keynet", KeyNetDetector, pretrained=True, num_features=num_features)
    else:
        network = KeyNetDetector(pretrained=False, num_features=num_features)
        load_weights(cast(nn.Module, network.model), weights, inside="state_dict")
    return FrameDetector(network.eval(), score_threshold, level_pixel=network.mr_size)


def build_dog(num_features: int = 4096, contrast_threshold: float = 0.01) -> FrameDetector:
    """Both signs of the difference of Gaussians, with SIFT's scale space and without its edge test.

    `contrast_threshold` means what it means in `lisrd.detect.sift.SIFT`.
    """
    from kornia.feature import BlobDoG, ScaleSpaceDetector
    from kornia.geometry import ScalePyramid

    network = ScaleSpaceDetector(
        num_features,
        scale_pyr_module=ScalePyramid(n_levels=3, init_sigma=1.6, min_size=32, double_image=True),
        resp_module=BlobDoG(),
        minima_are_also_good=True,
        scale_space_response=True,
    )
    return FrameDetector(network.eval(), contrast_threshold / 3)  # per layer of an octave, as in OpenCV


def _strongest(xy: Float[Tensor, "N 2"], scores: Float[Tensor, " N"], max_keypoints: int | None) -> Keypoints:
    order = scores.argsort(descending=True, stable=True)[:max_keypoints]
    return replace(Keypoints.from_xy(xy[order]), scores=scores[order][None])


def _first(keypoints: Keypoints, count: int) -> Keypoints:
    cut = {name: getattr(keypoints, name)[:, :count] for name in ("xy", "scores", "mask", "scales")}
    return replace(keypoints, **cut)


def _none(images: Float[Tensor, "B 3 H W"]) -> Keypoints:
    return Keypoints.from_xy(images.new_zeros((len(images), 0, 2)))
