"""NetVLAD starts from a clustering of the descriptors it will see (Arandjelovic et al., CVPR 2016, section 3.1)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.describe.netvlad import NetVLAD

_ROUNDS = 15
#: The nearest cluster outweighs the second by this factor, typically.
_PREFERENCE = 10.0


@torch.no_grad()
def start_from_clusters(vlad: NetVLAD, descriptors: Float[Tensor, "P D"], generator: torch.Generator) -> None:
    """Centroids by k-means, and an assignment that is the softmax over -alpha |x - c|^2, alpha to suit their gaps."""
    centroids = k_means(descriptors, len(vlad.centroids), generator)
    nearest = torch.cdist(descriptors, centroids).square().topk(2, dim=1, largest=False).values
    gap = (nearest[:, 1] - nearest[:, 0]).mean().clamp_min(1e-6)
    alpha = torch.tensor(_PREFERENCE).log() / gap
    vlad.centroids.copy_(centroids)
    vlad.assign.weight.copy_(2 * alpha * centroids)
    vlad.assign.bias.copy_(-alpha * centroids.square().sum(1))


def k_means(points: Float[Tensor, "P D"], count: int, generator: torch.Generator) -> Float[Tensor, "K D"]:
    """Lloyd's rounds from points drawn by k-means++; an empty cluster keeps its centroid."""
    centroids = points[torch.randint(len(points), (1,), generator=generator)]
    while len(centroids) < count:
        distance = torch.cdist(points, centroids).square().amin(1)
        chosen = torch.multinomial(distance + 1e-12, 1, generator=generator)
        centroids = torch.cat([centroids, points[chosen]])
    for _ in range(_ROUNDS):
        nearest = torch.cdist(points, centroids).argmin(1)
        members = torch.bincount(nearest, minlength=count).unsqueeze(1)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, points)
        centroids = torch.where(members > 0, sums / members.clamp_min(1), centroids)
    return centroids
