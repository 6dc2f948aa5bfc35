"""What a bank learns: NetVLAD of the local descriptors in each tile, and how sharply their agreement selects."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lisrd.describe.meta import MetaDescriptors
from lisrd.types import Selection


@dataclass(frozen=True, slots=True)
class SelectorConfig:
    """Sizes of the selector of a bank; `members` are the names of its describers, in order.

    What is learned is right for pairs as common as in training, where many are turned or nothing would be learned of
    them. `prior` multiplies the weights in use, before they are normalised: how much commoner the pairs that suit each
    member are there (Menon et al., Long-tail learning via logit adjustment, ICLR 2021).
    """

    members: tuple[str, ...]
    invariances: tuple[str, ...]
    descriptor_dim: int = 128  # of the widest member
    num_clusters: int = 8
    tiles_per_side: int = 3
    agreement_power: float = 16.0  # of the pair's agreement in the selection, see `lisrd.match.agreement`
    agreement_ratio: float = 0.95  # of distances, what counts as a distinct match there
    prior: tuple[float, ...] = ()  # one factor per member; empty for pairs as common as in training

    def __post_init__(self) -> None:
        if len(self.members) < 2 or len(self.members) != len(self.invariances):
            raise ValueError(
                f"a bank selects among two members or more and names the invariance of each: there are "
                f"{len(self.members)} members and {len(self.invariances)} invariances"
            )
        if len(set(self.invariances)) < len(self.invariances):
            raise ValueError(f"invariances {', '.join(self.invariances)}: each needs a name of its own")
        if self.prior and len(self.prior) != len(self.members):
            raise ValueError(
                f"the prior has {len(self.prior)} numbers for {len(self.members)} members; give one for each"
            )
        if not all(factor > 0 and math.isfinite(factor) for factor in self.prior):
            raise ValueError(f"the prior is {self.prior}; its numbers must be above 0")


class Selector(nn.Module):
    """Meta descriptors from the descriptors of keypoints. A keypoint takes those of its own tile.

    Source: LISRD, section 3.4 (LISRD-SIFT).
    """

    def __init__(self, config: SelectorConfig) -> None:
        super().__init__()
        self.config = config
        self.meta = MetaDescriptors(len(config.members), config.descriptor_dim, config.num_clusters)

    @property
    def selection(self) -> Selection:
        config = self.config
        selection = self.meta.selection(config.invariances)
        prior = config.prior or (1.0,) * len(config.members)
        return replace(
            selection,
            bias=tuple(
                learned + math.log(factor)
                for learned, factor in zip(self.meta.bias.tolist(), prior, strict=True)
            ),
            tile_sampling="nearest",
            agreement_power=config.agreement_power,
            agreement_ratio=config.agreement_ratio,
        )

    def forward(
        self,
        descriptors: Float[Tensor, "B N V D"],
        xy: Float[Tensor, "B N 2"],
        mask: Bool[Tensor, "B N"],
        image_size: Float[Tensor, "B 2"],
    ) -> Float[Tensor, "B V T T C"]:
        """Unit vectors, or zeros where a tile has no keypoints. Descriptors that are zero do not count."""
        T = self.config.tiles_per_side
        index, inside = keypoints_of_tiles(tile_of(xy, image_size, T), mask, T * T)
        batch = torch.arange(len(xy), device=xy.device)[:, None, None]
        aggregated = []
        for one, vlad in zip(descriptors.unbind(2), self.meta.vlads, strict=True):
            tiles = one[batch, index]
            aggregated.append(vlad(tiles, inside & tiles.any(-1)))
        return torch.stack(aggregated, dim=1).unflatten(2, (T, T))


def keypoints_of_tiles(
    tile: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"], num_tiles: int
) -> tuple[Int[Tensor, "B K P"], Bool[Tensor, "B K P"]]:
    """Numbers of the keypoints in each of K tiles, padded to the fullest, and which are no padding."""
    inside = (tile[:, None] == torch.arange(num_tiles, device=tile.device)[:, None]) & mask[:, None]
    fullest = int(inside.sum(-1).max()) if inside.numel() else 0
    order = inside.int().argsort(dim=-1, descending=True, stable=True)[..., :fullest]
    return order, inside.gather(-1, order)


def tile_of(
    xy: Float[Tensor, "B N 2"], image_size: Float[Tensor, "B 2"], tiles_per_side: int
) -> Int[Tensor, "B N"]:
    """The tile, in row-major order, that each keypoint lies in."""
    column_row = ((xy + 0.5) / image_size[:, None] * tiles_per_side).floor().long()
    column, row = column_row.clamp(0, tiles_per_side - 1).unbind(-1)
    return row * tiles_per_side + column
