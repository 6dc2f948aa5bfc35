"""Triplets from samples, on the device that trains: anchor, changed and steady view, and correspondences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lisrd.train.data.detection import DetectionConfig, detect_again
from lisrd.train.data.dice import Dice
from lisrd.train.data.homographies import (
    HomographyConfig,
    carry_keypoints,
    sample_angles,
    sample_homographies,
    warp_images,
)
from lisrd.train.data.photometric import PhotometricConfig, photograph
from lisrd.train.data.relighting import RelightConfig, relight

_BORDER = 3.0  # keypoints must lie this many pixels inside all three images


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Which light the changed view is under, and how views are made.

    `relight_probability` is for single photographs. Where the scene has another light, the changed view is
    taken under it with `other_light_probability`, and then relit on top with `other_relight_probability`.
    """

    relight_probability: float = 0.5
    other_light_probability: float = 0.8
    other_relight_probability: float = 0.25
    homography: HomographyConfig = field(default_factory=HomographyConfig)
    photometric: PhotometricConfig = field(default_factory=PhotometricConfig)
    relight: RelightConfig = field(default_factory=RelightConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)


@dataclass(frozen=True, slots=True, eq=False)
class Triplets:
    """B triplets of image 0 (anchor), 1 (changed) and 2 (steady: the anchor's light, not turned).

    Keypoints are those of the anchor, carried by the homographies or found again near there; `mask` marks those that
    are carried at least 3 px inside all three images, the others may lie anywhere. `angle` is the turn of image 1
    against the anchor, radians counter-clockwise as seen: at pi / 2, image 1 looks like
    `torch.rot90(anchor, 1, (-2, -1))`.
    """

    images: Float[Tensor, "3 B 3 H W"]
    keypoints: Float[Tensor, "3 B N 2"]
    mask: Bool[Tensor, "B N"]
    H_0to1: Float[Tensor, "B 3 3"]
    H_0to2: Float[Tensor, "B 3 3"]
    angle: Float[Tensor, " B"]
    illumination_changed: Bool[Tensor, " B"]
    rotated: Bool[Tensor, " B"]


class Augmenter:
    """Makes triplets of `size` (height, width) from collated samples that are on the training device.

    Everything random comes from the CPU generators it is called with, one per sample: see `sample_generators`.
    """

    def __init__(
        self,
        config: AugmentConfig = AugmentConfig(),
        size: tuple[int, int] = (240, 320),
    ) -> None:
        self.config = config
        self.size = size
        self.detector = config.detection.build_detector()

    @torch.no_grad()
    def __call__(self, batch: dict[str, Tensor], generators: Sequence[torch.Generator]) -> Triplets:
        canvases = batch["image0"]
        count, device = len(canvases), canvases.device
        margin = (canvases.shape[2] - self.size[0]) // 2, (canvases.shape[3] - self.size[1]) // 2
        on_cpu, dice = Dice(generators, "cpu"), Dice(generators, device)
        homography = self.config.homography
        angle, rotated = sample_angles(count, on_cpu, homography)
        H_0to1 = sample_homographies(angle, *self.size, on_cpu, homography)
        H_0to2 = sample_homographies(torch.zeros_like(angle), *self.size, on_cpu, homography)
        changed_canvases, relit, changed = self._change_light(batch, dice)

        anchor = canvases[:, :, margin[0] : margin[0] + self.size[0], margin[1] : margin[1] + self.size[1]]
        views = [anchor.float() / 255]
        keypoints, mask = [batch["keypoints0"]], batch["keypoint_mask"]
        for source, H in ((changed_canvases, H_0to1), (canvases, H_0to2)):
            H_back = torch.linalg.inv(H).to(device, torch.float32)
            views.append(warp_images(source.float() / 255, H_back, margin, self.size))
            carried, visible = carry_keypoints(keypoints[0], H.to(device, torch.float32), self.size, _BORDER)
            keypoints.append(carried)
            mask = mask & visible
        chosen = relit.to(device)
        views[1][chosen] = relight(views[1][chosen], dice.of(relit.tolist()), self.config.relight)
        images = photograph(torch.cat(views), dice.fork(3), self.config.photometric)
        images = images.view(3, count, *images.shape[1:])
        found = detect_again(
            torch.stack(keypoints[1:]), mask, images[1:], dice, self.config.detection, self.detector
        )
        return Triplets(
            images=images,
            keypoints=torch.cat([keypoints[0].unsqueeze(0), found]),
            mask=mask,
            H_0to1=H_0to1.to(device, torch.float32),
            H_0to2=H_0to2.to(device, torch.float32),
            angle=angle.to(device),
            illumination_changed=changed.to(device),
            rotated=rotated.to(device),
        )

    def _change_light(self, batch: dict[str, Tensor], dice: Dice) -> tuple[Tensor, Tensor, Tensor]:
        """Canvases of the changed view, which to relight (indices on the CPU), and whose light changes."""
        count, config = len(batch["image0"]), self.config
        has_other = batch["has_other"]
        use_other = has_other & dice.coin(count, config.other_light_probability).to(has_other.device)
        canvases = torch.where(use_other.view(-1, 1, 1, 1), batch["other"], batch["image0"])
        alone = dice.coin(count, config.relight_probability).to(has_other.device)
        on_top = dice.coin(count, config.other_relight_probability).to(has_other.device)
        relit = torch.where(has_other, use_other & on_top, alone)
        return canvases, relit.nonzero().squeeze(1).cpu(), use_other | relit
