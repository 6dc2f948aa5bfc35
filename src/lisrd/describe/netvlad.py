"""NetVLAD: a summary of many descriptors in one vector.

Source: Arandjelovic et al., NetVLAD, CVPR 2016; as used in LISRD, section 3.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class NetVLAD(nn.Module):
    """Soft assignment of unit descriptors to clusters, summed residuals, normalised per cluster, then as a whole."""

    def __init__(self, dim: int = 128, num_clusters: int = 8) -> None:
        super().__init__()
        self.assign = nn.Linear(dim, num_clusters)
        self.centroids = nn.Parameter(F.normalize(torch.randn(num_clusters, dim), dim=1))
        self._start_sharp()

    @torch.no_grad()
    def _start_sharp(self, sharpness: float = 10.0) -> None:
        # Assignment by distance to the centroid, so that training starts from a clustering.
        self.assign.weight.copy_(2 * sharpness * self.centroids / self.centroids.shape[1] ** 0.5)
        self.assign.bias.zero_()

    def forward(
        self, descriptors: Float[Tensor, "*batch P D"], mask: Bool[Tensor, "*batch P"] | None = None
    ) -> Float[Tensor, "*batch KD"]:
        """One unit vector per set of P descriptors; an empty set (all masked) gives zeros."""
        assignment = self.assign(descriptors).softmax(dim=-1)
        if mask is not None:
            assignment = assignment * mask.unsqueeze(-1)
        residuals = assignment.transpose(-1, -2) @ descriptors
        residuals = residuals - assignment.sum(-2).unsqueeze(-1) * self.centroids
        per_cluster = F.normalize(residuals, dim=-1)  # intra-normalisation: no cluster drowns the others
        return F.normalize(per_cluster.flatten(-2), dim=-1)
