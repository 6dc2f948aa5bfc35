"""The `pyramid` network, assembled: encoder, trunk, heads, meta descriptors, and the field they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lisrd.describe.field import Turn, pad_to_stride
from lisrd.describe.folded_heads import FoldedHead, FoldedTrunk
from lisrd.describe.heads import Head, Trunk, normalise_in_place
from lisrd.describe.meta import MetaDescriptors, tile_grid
from lisrd.describe.pyramid import EncoderInput, PyramidEncoder, check_input
from lisrd.describe.smoothing import MAX_RADIUS, smoothed
from lisrd.invariance import ROTATION, invariances
from lisrd.types import Keypoints, Selection, TileSampling


@dataclass(frozen=True, slots=True)
class PyramidConfig:
    """Sizes of the network; `widths` are channels per turn of each level, `turns` is 8, 4 or 1 (a plain network).

    `ring_radii` are in pixels of each level's map, the finest first; levels that are not named have no ring.
    """

    widths: tuple[int, ...] = (8, 16, 32, 48, 48)
    turns: int = 4
    encoder_input: EncoderInput = "colour"  # what the first convolution sees, see `lisrd.describe.light`
    first_kernel: int = 4  # its side, an even number
    plain_levels: int = 0  # so many of the finest have no residual block
    ring_radii: tuple[float, ...] = ()  # of each level, see `lisrd.describe.ring`; 0 for none
    smoothing: float = 0.0  # pixels of the image, see `lisrd.describe.smoothing`
    trunk_width: int = 48  # per turn
    head_width: int = 192
    descriptor_dim: int = 128
    num_clusters: int = 8
    tiles_per_side: int = 3
    meta_spacing: float = 24.0  # pixels between the places that NetVLAD aggregates
    agreement_power: float = 16.0  # of the pair's agreement in the selection, see `lisrd.match.agreement`
    agreement_ratio: float = 0.95  # of distances, what counts as a distinct match there

    def __post_init__(self) -> None:
        if self.turns not in (1, 4, 8):
            raise ValueError(f"turns is {self.turns}; it must be 1, 4 or 8")
        check_input(self.encoder_input, levels=len(self.widths))
        if self.first_kernel < 4 or self.first_kernel % 2:
            raise ValueError(
                f"first_kernel is {self.first_kernel}; it must be 4, 6, 8 or another even number"
            )
        if not 0 <= self.plain_levels <= len(self.widths):
            raise ValueError(f"plain_levels is {self.plain_levels}; it must be from 0 to {len(self.widths)}")
        if len(self.ring_radii) > len(self.widths) or min(self.ring_radii, default=0.0) < 0:
            raise ValueError(
                f"ring_radii is {list(self.ring_radii)}; it must be a radius of 0 or more for each level of widths"
            )
        if not 0 <= self.smoothing <= MAX_RADIUS:
            raise ValueError(f"smoothing is {self.smoothing}; it must be from 0 to {MAX_RADIUS} pixels")

    @property
    def radii_of_levels(self) -> tuple[float, ...]:
        """`ring_radii` of every level; levels that are not named have no ring."""
        return self.ring_radii + (0.0,) * (len(self.widths) - len(self.ring_radii))


class PyramidNetwork(nn.Module):
    """Descriptors of all 2^F invariances, equivariant to quarter turns of the image by construction."""

    tile_sampling: TileSampling = "bilinear"

    def __init__(self, config: PyramidConfig = PyramidConfig()) -> None:
        super().__init__()
        self.config = config
        self.invariances = invariances()
        self.encoder = PyramidEncoder(
            config.widths, config.turns, config.encoder_input, config.first_kernel, config.plain_levels
        )
        self.trunk = Trunk(config.widths, config.trunk_width, config.turns, config.radii_of_levels)
        self.heads = nn.ModuleList(
            Head(config.trunk_width, config.head_width, config.descriptor_dim, config.turns)
            for _ in self.invariances
        )
        self.meta = MetaDescriptors(len(self.invariances), config.descriptor_dim, config.num_clusters)

    @property
    def num_turns(self) -> int:
        """Turns at which its fields can be read: quarters of a whole turn, or eighths."""
        return self.config.turns

    @property
    def rotation_variant(self) -> tuple[bool, ...]:
        return tuple(ROTATION not in i.invariant_to for i in self.invariances)

    @property
    def selection(self) -> Selection:
        """Only a network with turns has descriptors that can be turned."""
        turnable = self.rotation_variant if self.config.turns > 1 else None
        selection = self.meta.selection(tuple(i.name for i in self.invariances), turnable)
        config = self.config
        return replace(
            selection, agreement_power=config.agreement_power, agreement_ratio=config.agreement_ratio
        )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> PyramidField:
        """The field of RGB images in [0, 1], of any size."""
        padded, (left, top) = pad_to_stride(images, self.encoder.stride)
        maps = smoothed(self.encoder(padded), self.config.smoothing)
        return PyramidField(self, maps, images.shape[-1], images.shape[-2], left, top)

    @torch.no_grad()
    def fold(self, dtype: torch.dtype, fused: bool = False) -> PyramidNetwork:
        """Expand all banks of weights and multiply in `dtype`; for inference only.

        `fused` writes sums and ReLUs within the convolutions, where the device that the network is on knows how: the
        encoder is bound to that device then, and cannot be exported.
        """
        self.encoder.fold()
        if fused:
            self.encoder.fuse(dtype)
        self.trunk = FoldedTrunk(self.trunk, dtype)  # type: ignore[assignment]
        self.heads = nn.ModuleList(FoldedHead(head, dtype) for head in self.heads)  # type: ignore[arg-type]
        return self

    def describe_trunk(
        self, trunk: Float[Tensor, "B N trunk"], kinds: Sequence[int], turn: Turn = 0
    ) -> Float[Tensor, "B N K D"]:
        """Descriptors of the invariances `kinds` from trunk features, read at `turn`."""
        descriptors = []
        for kind in kinds:
            if self.rotation_variant[kind]:
                descriptors.append(self._head(kind).variant(trunk, turn))
            else:  # every turn gives the same
                descriptors.append(self._head(kind).invariant(trunk))
        return torch.stack(descriptors, dim=2)

    def describe_trunk_in_all_turns(
        self, trunk: Float[Tensor, "B N trunk"]
    ) -> tuple[Float[Tensor, "B N V D"], Float[Tensor, "B N turned R D"]]:
        """`describe_trunk` of every kind at turn 0, and of the R rotation variant kinds at the other turns."""
        variant = [kind for kind, is_variant in enumerate(self.rotation_variant) if is_variant]
        # Put side by side before they are normalised: in the precision of the products they are half as large.
        every = normalise_in_place(
            torch.stack([self._head(kind).in_all_turns(trunk) for kind in variant], dim=3)
        )
        upright = [
            every[:, :, 0, variant.index(kind)] if kind in variant else self._head(kind).invariant(trunk)
            for kind in range(len(self.heads))
        ]
        return torch.stack(upright, dim=2), every[:, :, 1:]

    def _head(self, kind: int) -> Head:
        head = self.heads[kind]
        assert isinstance(head, Head)
        return head

    def aggregate(
        self, descriptors: Float[Tensor, "B tiles P K D"], kinds: Sequence[int]
    ) -> Float[Tensor, "B K T T C"]:
        """Meta descriptors of the invariances `kinds` from descriptors on the grid of each tile."""
        T = self.config.tiles_per_side
        vlads = [self.meta.vlads[kind](descriptors[..., k, :]) for k, kind in enumerate(kinds)]
        return torch.stack(vlads, dim=1).unflatten(2, (T, T))


class PyramidField:
    """The field of one batch of images. Heads run only where they are asked."""

    def __init__(
        self,
        network: PyramidNetwork,
        maps: list[Float[Tensor, "B _ _ _"]],
        width: int,
        height: int,
        left: int,
        top: int,
    ) -> None:
        self.network = network
        self.maps = maps
        self.image_size = (width, height)
        self._offset = (left, top)
        self._padded_size = (maps[0].shape[-1] * 2, maps[0].shape[-2] * 2)

    @property
    def num_turns(self) -> int:
        return self.network.num_turns

    @property
    def selection(self) -> Selection:
        return self.network.selection

    @property
    def all_kinds(self) -> range:
        return range(len(self.network.invariances))

    def first(self, count: int) -> PyramidField:
        """The field of the first `count` images."""
        maps = [level[:count] for level in self.maps]
        return PyramidField(self.network, maps, *self.image_size, *self._offset)

    def at(self, keypoints: Keypoints, turn: Turn = 0) -> Float[Tensor, "B N V D"]:
        return self.network.describe_trunk(self.trunk_at(keypoints.xy), self.all_kinds, turn)

    def meta(self, turn: Turn = 0) -> Float[Tensor, "B V T T C"]:
        network = self.network
        with torch.no_grad():  # the selection weighs the descriptors, it does not shape them
            descriptors = network.describe_trunk(self.grid_trunk, self.all_kinds, turn)
        tiles = network.config.tiles_per_side**2
        return network.aggregate(descriptors.unflatten(1, (tiles, -1)), self.all_kinds)

    def at_all_turns(
        self, keypoints: Keypoints
    ) -> tuple[Float[Tensor, "B N V D"], Float[Tensor, "B N turned R D"]]:
        return self.network.describe_trunk_in_all_turns(self.trunk_at(keypoints.xy))

    def meta_all_turns(self) -> tuple[Float[Tensor, "B V T T C"], Float[Tensor, "B turned R T T C"]]:
        network = self.network
        tiles = network.config.tiles_per_side**2
        upright, turned = network.describe_trunk_in_all_turns(self.grid_trunk)
        variant = [kind for kind, is_variant in enumerate(network.rotation_variant) if is_variant]
        metas = [network.aggregate(one.unflatten(1, (tiles, -1)), variant) for one in turned.unbind(2)]
        return network.aggregate(upright.unflatten(1, (tiles, -1)), self.all_kinds), torch.stack(metas, dim=1)

    def trunk_at(self, xy: Float[Tensor, "B N 2"]) -> Float[Tensor, "B N trunk"]:
        """Trunk features at pixels of the original image."""
        return self.network.trunk(self.maps, xy + xy.new_tensor(self._offset), *self._padded_size)

    @cached_property
    def grid_trunk(self) -> Float[Tensor, "B P trunk"]:
        """Trunk features on the regular grid of every tile."""
        config = self.network.config
        device = self.maps[0].device
        grid = tile_grid(*self.image_size, config.tiles_per_side, config.meta_spacing, device)
        return self.trunk_at(grid.reshape(1, -1, 2).expand(self.maps[0].shape[0], -1, 2))
