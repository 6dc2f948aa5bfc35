"""An optional teacher: another describer's descriptors of the anchor before anything was done to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lisrd.describe import Describer, build_describer
from lisrd.errors import InputError
from lisrd.train.looks import describe_looks, looks
from lisrd.types import Keypoints, LocalFeatures


@dataclass(frozen=True, slots=True)
class Beside:
    """A second teacher, whose values stand beside the first one's, times `weight`, for some of the kinds."""

    name: str  # a describer
    kinds: tuple[str, ...]
    weight: float


class Teacher:
    """Computed once per sample on the clean anchor, and asked of every view of it."""

    def __init__(
        self,
        name: str,
        kinds: Sequence[str],
        descriptor_dim: int,
        size: tuple[int, int],
        device: torch.device | str = "cpu",
        sizes: Sequence[float] = (),
        mirrored: bool = False,
        beside: Beside | None = None,
    ) -> None:
        """`kinds` are the names of the invariances that it teaches, `size` is the anchor's (height, width).

        It looks at the anchor as it is, at `sizes` times its size, and where `mirrored` in a mirror too. What stands
        `beside` it looks once.

        Raises InputError for an unknown describer.
        """
        self.describer: Describer = build_describer(name, device)
        self.beside = beside
        self.second: Describer | None = build_describer(beside.name, device) if beside else None
        self.device = torch.device(device)
        self.kinds = tuple(kinds)
        self.size = size
        self.looks = looks(sizes, mirrored)
        self.descriptor_dim = descriptor_dim
        self.components: Float[Tensor, "K values D"] | None = None

    @torch.no_grad()
    def shorten(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """Where it has more values than the network, learn from `batches` which of them to teach.

        The same batches give the same components: nothing of it needs to be saved.
        """
        described = []
        for batch in batches:
            described.append(self._described(batch)[batch["keypoint_mask"].to(self.device)])
            if described[0].shape[-1] <= self.descriptor_dim:
                return
        kinds = torch.cat(described).unbind(1)
        self.components = torch.stack([principal_components(kind, self.descriptor_dim) for kind in kinds])

    @torch.no_grad()
    def describe(self, batch: dict[str, Tensor]) -> Float[Tensor, "B N K D"]:
        """Unit descriptors at the keypoints of the anchors of a batch of samples, for each kind that is taught.

        A teacher with one descriptor gives it for every kind, one with several gives each kind its own; one with more
        values than the network gives what `shorten` found.

        Raises InputError when the descriptors cannot be compared with the network's.
        """
        descriptors = self._described(batch)
        if self.components is not None:
            return F.normalize(torch.einsum("bnkv,kvd->bnkd", descriptors, self.components), dim=-1)
        if descriptors.shape[-1] != self.descriptor_dim:
            raise InputError(
                f"the teacher {self.describer.name} has {descriptors.shape[-1]} values per descriptor and the network "
                f"{self.descriptor_dim}; set network.descriptor_dim to the teacher's, or below"
            )
        return descriptors

    def _described(self, batch: dict[str, Tensor]) -> Float[Tensor, "B N K values"]:
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        canvas = batch["image0"]
        top, left = ((canvas.shape[2 + axis] - self.size[axis]) // 2 for axis in (0, 1))
        anchor = canvas[:, :, top : top + self.size[0], left : left + self.size[1]].float() / 255
        known = ~torch.stack([batch["scales"], batch["oris"]], 1).isnan().any(2)
        told, group = torch.unique(known, dim=0, return_inverse=True)
        described = []
        for index, (has_scales, has_oris) in enumerate(told.tolist()):  # what its detector gave each sample
            chosen = group == index
            xy, mask = batch["keypoints0"][chosen], batch["keypoint_mask"][chosen]
            scales = batch["scales"][chosen] if has_scales else None
            oris = batch["oris"][chosen] if has_oris else None
            described.append(self._seen(anchor[chosen], Keypoints(xy, mask.float(), mask, scales, oris)))
        return torch.cat(described)[group.argsort(stable=True).argsort()]

    def _seen(self, anchor: Float[Tensor, "B 3 H W"], keypoints: Keypoints) -> Float[Tensor, "B N K values"]:
        first = of_kinds(
            describe_looks(self.describer, anchor, keypoints, self.looks), self.kinds, self.describer
        )
        if self.second is None or self.beside is None:
            return first
        second = of_kinds(
            describe_looks(self.second, anchor, keypoints, looks((), False)), self.kinds, self.second
        )
        weights = second.new_tensor([self.beside.weight * (kind in self.beside.kinds) for kind in self.kinds])
        return F.normalize(torch.cat([first, weights[:, None] * second], dim=-1), dim=-1)


def of_kinds(
    features: LocalFeatures, kinds: Sequence[str], describer: Describer
) -> Float[Tensor, "B N K values"]:
    """The descriptors of each of `kinds`; a describer's only one for all of them."""
    descriptors, known = features.descriptors, features.invariances
    if descriptors.shape[2] == 1:
        return descriptors.expand(-1, -1, len(kinds), -1)
    for kind in kinds:
        if kind not in known:
            raise InputError(
                f"the teacher {describer.name} has no {kind}; loss.teacher_kinds may name {', '.join(known)}"
            )
    return descriptors[:, :, [known.index(kind) for kind in kinds]]


def principal_components(values: Float[Tensor, "n values"], count: int) -> Float[Tensor, "values count"]:
    """An orthonormal basis of the `count` directions in which there is most, as close as it can be to the first values.

    Of all bases of these directions a network that already gives the first values has the least to unlearn. The
    turn is Schoenemann's solution of the orthogonal Procrustes problem (Psychometrika 1966).
    """
    directions = torch.linalg.eigh(values.T @ values).eigenvectors[:, -count:]
    u, _, vt = torch.linalg.svd((values @ directions).T @ values[:, :count])
    return directions @ u @ vt
