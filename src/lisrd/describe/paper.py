"""The `paper` network as published: one map of stride 8 per invariance, and NetVLAD over its tiles.

Parameter for parameter the network of the released code; `lisrd.describe.weights` translates the published names.
Source: LISRD, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lisrd.coordinates import sample_map
from lisrd.describe.field import Turn, pad_to_stride
from lisrd.describe.halving import halved
from lisrd.describe.meta import MetaDescriptors
from lisrd.invariance import invariances
from lisrd.types import Keypoints, Selection, TileSampling


@dataclass(frozen=True, slots=True)
class PaperConfig:
    """Sizes of the network; the defaults are the published ones.

    `compat="reference"` reproduces the released code, for published checkpoints to give their published numbers: the
    keypoint (0, 0) sits at the image's corner (see `lisrd.coordinates`), and images whose sides are no multiples of
    the stride are not padded, their last rows and columns are dropped by the pooling.
    """

    widths: tuple[int, ...] = (64, 64, 128, 256)
    descriptor_dim: int = 128
    num_clusters: int = 8
    tiles_per_side: int = 3
    learn_selection: bool = False  # of the temperature and bias; published weights have temperature 1
    compat: Literal["none", "reference"] = "none"
    agreement_power: float = 0.0  # of the pair's agreement in the selection; the published formula has none
    agreement_ratio: float = 0.95  # of distances, what counts as a distinct match there

    def __post_init__(self) -> None:
        if self.compat not in ("none", "reference"):
            raise ValueError(f"compat is {self.compat!r}; it must be 'none' or 'reference'")


class ConvReluNorm(nn.Module):
    """3 x 3 convolution, ReLU, BatchNorm: ReLU before BatchNorm, as published weights expect it."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        return self.norm(F.relu(self.conv(x)))


class PaperEncoder(nn.Module):
    """Groups of two convolutions with 2 x 2 average pooling between them."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.groups = nn.ModuleList(
            nn.Sequential(ConvReluNorm(below, width), ConvReluNorm(width, width))
            for below, width in zip((3, *widths), widths, strict=False)
        )

    @property
    def stride(self) -> int:
        """Pixels of the image per pixel of the map."""
        return 2 ** (len(self.groups) - 1)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        x = images.contiguous(memory_format=torch.channels_last)
        for index, group in enumerate(self.groups):
            x = group(halved(x) if index else x)
        return x

    def fold(self) -> PaperEncoder:
        """Prepare for inference. No BatchNorm can be folded exactly: the convolution behind it pads with zeros."""
        return self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class PaperHead(nn.Module):
    """The map of one invariance; its descriptors are normalised where they are sampled."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.hidden = ConvReluNorm(width, width)
        self.out = nn.Conv2d(width, dim, 1)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        return self.out(self.hidden(x))


class PaperNetwork(nn.Module):
    """Descriptors of all 2^F invariances from one shared encoder; selection at temperature 1, as published."""

    num_turns = 1

    def __init__(self, config: PaperConfig = PaperConfig()) -> None:
        super().__init__()
        self.config = config
        self.invariances = invariances()
        self.encoder = PaperEncoder(config.widths)
        self.heads = nn.ModuleList(
            PaperHead(config.widths[-1], config.descriptor_dim) for _ in self.invariances
        )
        self.meta = MetaDescriptors(
            len(self.invariances), config.descriptor_dim, config.num_clusters, config.learn_selection
        )
        if not config.learn_selection:
            nn.init.zeros_(self.meta.log_sharpness)

    @property
    def tile_sampling(self) -> TileSampling:
        return "reference" if self.config.compat == "reference" else "bilinear"

    @property
    def selection(self) -> Selection:
        selection = self.meta.selection(tuple(i.name for i in self.invariances))
        config = self.config
        return replace(
            selection,
            tile_sampling=self.tile_sampling,
            agreement_power=config.agreement_power,
            agreement_ratio=config.agreement_ratio,
        )

    def fold(self, dtype: torch.dtype, fused: bool = False) -> PaperNetwork:
        """Prepare for inference; `dtype` is left to autocast, and there is nothing to fuse."""
        self.encoder.fold()
        return self

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> PaperField:
        """The field of RGB images in [0, 1], of any size whose map has a pixel per tile."""
        height, width = images.shape[-2:]
        offset = (0, 0)
        if self.config.compat == "none":
            images, offset = pad_to_stride(images, self.encoder.stride)
        features = self.encoder(images)
        padded_size = (images.shape[-1], images.shape[-2])
        return PaperField(self, [head(features) for head in self.heads], (width, height), padded_size, offset)


class PaperField:
    """The field of one batch of images: a map per invariance, over the padded image."""

    num_turns = 1

    def __init__(
        self,
        network: PaperNetwork,
        maps: list[Float[Tensor, "B D h w"]],
        image_size: tuple[int, int],
        padded_size: tuple[int, int],
        offset: tuple[int, int],
    ) -> None:
        self.network = network
        self.maps = maps
        self.image_size = image_size
        self._padded_size = padded_size
        self._offset = offset

    @property
    def selection(self) -> Selection:
        return self.network.selection

    def first(self, count: int) -> PaperField:
        """The field of the first `count` images."""
        maps = [one[:count] for one in self.maps]
        return PaperField(self.network, maps, self.image_size, self._padded_size, self._offset)

    def at(self, keypoints: Keypoints, turn: Turn = 0) -> Float[Tensor, "B N V D"]:
        assert not torch.as_tensor(turn).any(), "the maps know only the image as it is"
        xy = keypoints.xy + keypoints.xy.new_tensor(self._offset)
        corner_origin = self.network.config.compat == "reference"
        # float32, because coordinates in the maps' bfloat16 would be off by a third of a pixel.
        samples = [sample_map(m.float(), xy, *self._padded_size, corner_origin) for m in self.maps]
        return F.normalize(torch.stack(samples, dim=2), dim=-1)

    def meta(self, turn: Turn = 0) -> Float[Tensor, "B V T T C"]:
        assert not torch.as_tensor(turn).any(), "the maps know only the image as it is"
        T = self.network.config.tiles_per_side
        vlads = [
            vlad(self._tiles(m.detach())).unflatten(1, (T, T))
            for vlad, m in zip(self.network.meta.vlads, self.maps, strict=True)
        ]
        return torch.stack(vlads, dim=1)

    def _tiles(self, feature_map: Float[Tensor, "B D h w"]) -> Float[Tensor, "B tiles P D"]:
        """Unit descriptors in the tiles, in row-major order.

        The map is resized bilinearly to the multiples of T below its size, which leaves out the padding exactly: a
        grid over the image alone samples the map that covers the padded image.
        """
        T, stride = self.network.config.tiles_per_side, self.network.encoder.stride
        columns, rows = (max(1, side // stride // T) for side in self.image_size)
        grid = self._image_grid(T * columns, T * rows, feature_map.device).expand(
            len(feature_map), -1, -1, -1
        )
        resized = F.grid_sample(feature_map.float(), grid, padding_mode="border", align_corners=False)
        tiles = resized.unflatten(2, (T, rows)).unflatten(4, (T, columns)).permute(0, 2, 4, 3, 5, 1)
        return F.normalize(tiles.flatten(3, 4).flatten(1, 2), dim=-1)

    def _image_grid(self, columns: int, rows: int, device: torch.device) -> Float[Tensor, "1 rows columns 2"]:
        """Centres of equal cells of the image, in coordinates of the padded image."""
        axes = []
        for count, side, padded, start in zip(
            (columns, rows), self.image_size, self._padded_size, self._offset, strict=True
        ):
            centres = start + (torch.arange(count, device=device) + 0.5) * (side / count)
            axes.append(2 * centres / padded - 1)
        return torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1).unsqueeze(0)
