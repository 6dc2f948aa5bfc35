"""Meta descriptors: NetVLAD of every tile of the image, and what the matcher must know to compare them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lisrd.describe.netvlad import NetVLAD
from lisrd.types import Selection


class MetaDescriptors(nn.Module):
    """One NetVLAD per invariance, with the temperature and bias of the selection (learned if `learn_selection`)."""

    def __init__(
        self, num_invariances: int, dim: int = 128, num_clusters: int = 8, learn_selection: bool = True
    ) -> None:
        super().__init__()
        self.vlads = nn.ModuleList(NetVLAD(dim, num_clusters) for _ in range(num_invariances))
        # At temperature 1 the weights stay nearly flat: unit vectors differ by a few hundredths.
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(10.0)), requires_grad=learn_selection)
        self.bias = nn.Parameter(torch.zeros(num_invariances), requires_grad=learn_selection)

    def selection(
        self, invariances: tuple[str, ...], rotation_variant: tuple[bool, ...] | None = None
    ) -> Selection:
        """The learned numbers as the matcher takes them."""
        return Selection(
            invariances,
            math.exp(-float(self.log_sharpness.detach())),
            tuple(self.bias.tolist()),
            rotation_variant,
        )


def tile_grid(
    width: int, height: int, tiles_per_side: int, spacing: float, device: torch.device | None = None
) -> Float[Tensor, "tiles P 2"]:
    """Pixels of a regular grid in each of T x T equal tiles, about `spacing` px apart; tiles in row-major order."""
    T = tiles_per_side
    columns, rows = (max(1, round(side / (T * spacing))) for side in (width, height))
    x = (torch.arange(T * columns, device=device) + 0.5) * (width / (T * columns)) - 0.5
    y = (torch.arange(T * rows, device=device) + 0.5) * (height / (T * rows)) - 0.5
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (T rows, T columns, 2)
    tiles = grid.unflatten(0, (T, rows)).unflatten(2, (T, columns)).transpose(1, 2)
    return tiles.reshape(T * T, rows * columns, 2)
