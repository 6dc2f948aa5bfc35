"""What one training step minimises, and what validation measures, for networks with a descriptor field.

A triplet is image 0 (the anchor), image 1 (rotation and light may have changed) and image 2 (steady: another view
without rotation, under the anchor's light). Source: LISRD, section 3; the dual softmax and the fitted turn are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lisrd.describe.network import PyramidField
from lisrd.describe.weights import Network
from lisrd.errors import InputError
from lisrd.invariance import ILLUMINATION, ROTATION, Invariance
from lisrd.match.agreement import agreement_logits, distinct_shares
from lisrd.match.selection import (
    descriptor_similarity,
    meta_factors,
    tile_weights,
)
from lisrd.train.data.triplets import Triplets
from lisrd.train.hints import hint_loss
from lisrd.train.looks import looks
from lisrd.train.losses import (
    dual_softmax_loss,
    ignored_negatives,
    masked_mean,
    rotation_gap,
    triplet_loss,
    variant_loss,
)
from lisrd.train.pair_selection import selected_similarity, weights_of_factors
from lisrd.train.pair_softmax import dual_softmax_of_descriptors
from lisrd.train.taught import TEACHER_LOSSES, finding_loss, likeness_loss
from lisrd.types import Keypoints


@dataclass(frozen=True, slots=True)
class LossConfig:
    """Weights of the parts of the loss; a part of weight 0 is not computed."""

    matching: str = "dual_softmax"  # or "triplet", the paper's
    ignore_radius: float = 8.0  # px: closer keypoints are no negatives
    steady_weight: float = 1.0  # pairs (0, 2), for every descriptor
    variant_weight: float = 0.5
    meta_weight: float = 1.0
    selection_weight: float = 0.0  # cross entropy of the selection to what changed
    teacher: str = ""  # a describer, "aliked-n16=PATH"; views shall have its descriptors of the clean anchor
    teacher_sizes: tuple[float, ...] = ()  # of the anchor at which the teacher sees it beside full size
    teacher_mirrored: bool = False  # whether it sees the anchor in a mirror too, at every size
    teacher_beside: str = ""  # a second describer: its values stand beside the teacher's for some kinds
    teacher_beside_weight: float = 1.0  # of its values to the teacher's, both of length 1
    teacher_beside_kinds: tuple[str, ...] = ("rot_var_illum_invar",)
    teacher_weight: float = 0.0
    teacher_loss: str = (
        "cosine"  # or "dual_softmax": each view finds its partners among the teacher's descriptors
    )
    teacher_share: float = 1.0  # of every batch; a teacher may cost more than the network
    teacher_kinds: tuple[str, ...] = ("rot_var_illum_invar",)
    hints: str = ""  # a network, bundled or a file: its maps and descriptors of the same views
    hints_weight: float = 0.0
    initial_sharpness: float = 20.0  # of the dual softmax; learned
    unrotated_below: float = 15.0  # degrees left after the fitting turn: no change of rotation

    def __post_init__(self) -> None:
        if bool(self.teacher) != (self.teacher_weight > 0):
            raise ValueError("loss.teacher and loss.teacher_weight need each other")
        if bool(self.hints) != (self.hints_weight > 0):
            raise ValueError("loss.hints and loss.hints_weight need each other")
        looks(self.teacher_sizes, self.teacher_mirrored)  # refuses sizes that are none
        if self.teacher_beside and not self.teacher:
            raise ValueError("loss.teacher_beside stands beside loss.teacher, which is not set")
        untaught = sorted({*self.teacher_beside_kinds} - {*self.teacher_kinds})
        if self.teacher_beside and untaught:
            raise ValueError(
                f"loss.teacher_beside_kinds names {', '.join(untaught)}: not in loss.teacher_kinds"
            )
        if self.teacher_loss not in TEACHER_LOSSES:
            raise ValueError(
                f"loss.teacher_loss is {self.teacher_loss!r}; it must be one of {', '.join(TEACHER_LOSSES)}"
            )
        if self.matching not in ("dual_softmax", "triplet"):
            raise ValueError(f"loss.matching is {self.matching!r}; it must be 'dual_softmax' or 'triplet'")


@dataclass(frozen=True, slots=True)
class Views:
    """What a network makes of the images of each triplet; image 1 is read at the fitting turn."""

    descriptors: tuple[Float[Tensor, "B N V D"], ...]  # of the three images
    meta: tuple[Float[Tensor, "B V T T C"], ...]  # of images 0 and 1; the steady view is not weighed
    residual_angle: Float[Tensor, " B"]  # what rotation is left after the turn, radians
    maps: Sequence[Float[Tensor, "3*B _ _ _"]] = ()  # of the levels of a pyramid


def fitting_turn(angle: Float[Tensor, " B"], num_turns: int) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """The turn, of `num_turns`, that undoes most of a rotation by `angle` radians, and the angle that is left."""
    one = 2 * math.pi / num_turns
    turns = torch.round(angle / one)
    return (-turns.long()) % num_turns, angle - turns * one


def read_views(network: Network, triplets: Triplets, turn: Int[Tensor, " B"], residual: Tensor) -> Views:
    """One pass of the encoder over the three images; heads at the keypoints and on the grid."""
    count = triplets.images.shape[1]
    field = network(triplets.images.flatten(0, 1))
    no_turn = torch.zeros_like(turn)
    turns = torch.cat([no_turn, turn, no_turn])
    descriptors = field.at(Keypoints.from_xy(triplets.keypoints.flatten(0, 1)), turns)
    meta = field.first(2 * count).meta(turns[: 2 * count])
    maps = field.maps if isinstance(field, PyramidField) else ()
    return Views(descriptors.float().split(count), meta.split(count), residual, maps)


class TripletObjective(nn.Module):
    """The loss of a batch of triplets; holds the learned sharpness of the dual softmax."""

    def __init__(self, config: LossConfig, kinds: tuple[Invariance, ...]) -> None:
        super().__init__()
        self.config = config
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(config.initial_sharpness)))
        self.register_buffer("invariant_to_rotation", _column(kinds, ROTATION), persistent=False)
        self.register_buffer("invariant_to_light", _column(kinds, ILLUMINATION), persistent=False)
        self.taught = _columns(kinds, config.teacher_kinds)
        self.invariant_to_rotation: Bool[Tensor, " V"]
        self.invariant_to_light: Bool[Tensor, " V"]

    def forward(
        self,
        network: Network,
        triplets: Triplets,
        taught: Float[Tensor, "S N K D"] | None = None,
        hinting: Network | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """The parts of the loss by name; "loss" is their weighted sum.

        `taught` are the teacher's descriptors of the first S <= B anchors, for the K kinds that are taught; the network
        `hinting` gives hints.
        """
        config = self.config
        turn, residual = fitting_turn(triplets.angle, network.num_turns)
        views = read_views(network, triplets, turn, residual)
        d0, d1, d2 = views.descriptors
        k0, k1, k2 = triplets.keypoints
        must_match = self.must_match(triplets, residual)
        ignored = ignored_negatives(k0, k1, triplets.mask, config.ignore_radius)
        parts = {"invariant": self._matching(d0, d1, ignored, triplets.mask, must_match)}
        if config.steady_weight:
            steady_ignored = ignored_negatives(k0, k2, triplets.mask, config.ignore_radius)
            every_kind = torch.ones_like(must_match)
            parts["steady"] = self._matching(d0, d2, steady_ignored, triplets.mask, every_kind)
        if config.variant_weight:
            parts["variant"] = self._variant((d0 * d2).sum(-1), (d0 * d1).sum(-1), triplets, residual)
        if config.meta_weight or config.selection_weight:
            weighted, own_weights = self._selected(network, views, triplets)
            parts["meta"] = masked_mean(self._pair_loss(weighted, ignored), triplets.mask)
            parts["selection"] = self._selection(own_weights, triplets, residual)
        if taught is not None:
            parts["teacher"] = self._teacher(views, taught, triplets, must_match)
        if hinting is not None:
            with torch.no_grad():
                hints = read_views(hinting, triplets, turn, residual)
            parts["hints"] = hint_loss(
                views.maps, views.descriptors, hints.maps, hints.descriptors, triplets.mask
            )
        parts["loss"] = parts["invariant"] + sum(
            getattr(config, f"{name}_weight") * part for name, part in parts.items() if name != "invariant"
        )
        return parts

    def rotation_changed(self, triplets: Triplets, residual: Float[Tensor, " B"]) -> Bool[Tensor, " B"]:
        return residual.abs() > math.radians(self.config.unrotated_below)

    def must_match(self, triplets: Triplets, residual: Float[Tensor, " B"]) -> Bool[Tensor, "B V"]:
        """Whether descriptor v is invariant to everything that changed between images 0 and 1."""
        rotated = self.rotation_changed(triplets, residual)[:, None]
        relit = triplets.illumination_changed[:, None]
        return (self.invariant_to_rotation | ~rotated) & (self.invariant_to_light | ~relit)

    def _matching(
        self,
        descriptors0: Float[Tensor, "B N V D"],
        descriptors1: Float[Tensor, "B N V D"],
        ignored: Bool[Tensor, "B N N"],
        mask: Bool[Tensor, "B N"],
        chosen: Bool[Tensor, "B V"],
    ) -> Float[Tensor, ""]:
        """The mean matching loss of the chosen pairs of an image and a kind."""
        image, kind = chosen.nonzero(as_tuple=True)
        if self.config.matching == "triplet":
            similarity = descriptor_similarity(descriptors0, descriptors1)[image, kind].float()
            loss = triplet_loss(similarity, ignored[image])
        else:
            sharpness = self.log_sharpness.exp()
            loss = dual_softmax_of_descriptors(descriptors0, descriptors1, ignored, chosen, sharpness)
        return masked_mean(loss, mask[image])

    def _pair_loss(
        self, similarity: Float[Tensor, "P N N"], ignored: Bool[Tensor, "P N N"]
    ) -> Float[Tensor, "P N"]:
        if self.config.matching == "triplet":
            return triplet_loss(similarity, ignored)
        return dual_softmax_loss(similarity, ignored, self.log_sharpness.exp())

    def _variant(
        self,
        steady: Float[Tensor, "B N V"],
        changed: Float[Tensor, "B N V"],
        triplets: Triplets,
        residual: Float[Tensor, " B"],
    ) -> Float[Tensor, ""]:
        """The variant descriptors of the pairs in which a factor changed that they vary with."""
        rotated = self.rotation_changed(triplets, residual)
        by_rotation = (rotation_gap(residual) * rotated)[:, None] * ~self.invariant_to_rotation
        by_light = triplets.illumination_changed[:, None] * ~self.invariant_to_light
        gap = torch.maximum(by_rotation, by_light.float())  # (B, V)
        image, kind = (gap > 0).nonzero(as_tuple=True)
        loss = variant_loss(steady[image, :, kind], changed[image, :, kind], gap[image, kind])
        return masked_mean(loss, triplets.mask[image])

    def _selected(
        self, network: Network, views: Views, triplets: Triplets
    ) -> tuple[Float[Tensor, "B N N"], Float[Tensor, "B V N"]]:
        """The weighted similarity of images 0 and 1, and the weights at true correspondences.

        The local descriptors learn nothing from either.
        """
        d0, d1, _ = views.descriptors
        meta0, meta1 = views.meta
        similarity = descriptor_similarity(d0.detach(), d1.detach()).float()
        return selected_similarity(
            *selection_factors(network, meta0, meta1, similarity, triplets), similarity
        )

    def _selection(
        self, own_weights: Float[Tensor, "B V N"], triplets: Triplets, residual: Float[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """Cross entropy, at true correspondences, to the descriptor that is invariant to just what changed."""
        rotated = self.rotation_changed(triplets, residual)
        relit = triplets.illumination_changed
        needed = (self.invariant_to_rotation == rotated[:, None]) & (
            self.invariant_to_light == relit[:, None]
        )
        chosen = own_weights[needed]  # one kind per image: (B, N)
        return masked_mean(-chosen.clamp_min(1e-6).log(), triplets.mask)

    def _teacher(
        self,
        views: Views,
        taught: Float[Tensor, "S N K D"],
        triplets: Triplets,
        must_match: Bool[Tensor, "B V"],
    ) -> Float[Tensor, ""]:
        """What is asked of every view that must match the clean anchor."""
        count = len(taught)
        learners = torch.stack(views.descriptors)[:, :count, :, self.taught]  # (3, S, N, K, D)
        asked = torch.ones_like(learners[:, :, 0, :, 0], dtype=torch.bool)
        asked[1] = must_match[:count, self.taught]
        mask = triplets.mask[:count]
        if self.config.teacher_loss == "cosine":
            return likeness_loss(learners, taught, asked, mask)
        places = [xy[:count] for xy in triplets.keypoints]
        radius, sharpness = self.config.ignore_radius, self.log_sharpness.exp()
        return finding_loss(learners, taught, asked, mask, places, radius, sharpness)


def selection_factors(
    network: Network,
    meta0: Float[Tensor, "B V T T C"],
    meta1: Float[Tensor, "B V T T C"],
    similarity: Float[Tensor, "B V N N"],
    triplets: Triplets,
) -> tuple[Float[Tensor, "B V N K"], Float[Tensor, "B V N K"]]:
    """Two thin matrices per pair and invariance, whose product are the logits of the selection of images 0 and 1.

    Differentiable; the pair's agreement is given. The bias is one more column.
    """
    height, width = triplets.images.shape[-2:]
    size = meta0.new_tensor([[width, height]]).expand(len(meta0), 2)
    tiles = network.config.tiles_per_side
    weights0, weights1 = (
        tile_weights(k.to(meta0.dtype), size, tiles, network.tile_sampling) for k in triplets.keypoints[:2]
    )
    thin0, thin1 = meta_factors(meta0, meta1, weights0, weights1)
    bias: Tensor = network.meta.bias.expand(len(meta0), -1)
    selection = network.selection
    if selection.agreement_power:
        present = triplets.mask.unsqueeze(1).expand(similarity.shape[:3])
        shares = distinct_shares(similarity.detach().float(), present, present, selection.agreement_ratio)
        bias = bias + agreement_logits(shares, selection.agreement_power)
    column = bias[:, :, None, None].expand(*thin0.shape[:3], 1)
    factors0 = torch.cat([thin0 * network.meta.log_sharpness.exp(), column.to(thin0.dtype)], dim=-1)
    return factors0, torch.cat([thin1, torch.ones_like(column, dtype=thin1.dtype)], dim=-1)


def selection_weights(
    network: Network,
    meta0: Float[Tensor, "B V T T C"],
    meta1: Float[Tensor, "B V T T C"],
    similarity: Float[Tensor, "B V N N"],
    triplets: Triplets,
) -> Float[Tensor, "B V N N"]:
    """Invariance weights of all keypoint pairs of images 0 and 1, differentiable; the pair's agreement is given."""
    return weights_of_factors(*selection_factors(network, meta0, meta1, similarity, triplets))


def _column(kinds: tuple[Invariance, ...], factor: object) -> Bool[Tensor, " V"]:
    return torch.tensor([factor in kind.invariant_to for kind in kinds])


def _columns(kinds: tuple[Invariance, ...], names: tuple[str, ...]) -> list[int]:
    known = [kind.name for kind in kinds]
    for name in names:
        if name not in known:
            raise InputError(f"loss.teacher_kinds names {name!r}; known: {', '.join(known)}")
    return [v for v, name in enumerate(known) if name in names]
