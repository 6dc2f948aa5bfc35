"""An optional teacher: another describer's descriptors of the anchor before anything was done to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lisrd.describe import Describer, build_describer
from lisrd.errors import InputError
from lisrd.train.looks import describe_looks, looks
from lisrd.types import Keypoints


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
    ) -> None:
        """`kinds` are the names of the invariances that it teaches, `size` is the anchor's (height, width).

        It looks at the anchor as it is, at `sizes` times its size, and where `mirrored` in a mirror too.

        Raises InputError for an unknown describer.
        """
        self.describer: Describer = build_describer(name, device)
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
        xy, mask = batch["keypoints0"], batch["keypoint_mask"]
        keypoints = Keypoints(xy, mask.float(), mask, batch["scales"], batch["oris"])
        features = describe_looks(self.describer, anchor, keypoints, self.looks)
        descriptors = features.descriptors
        if descriptors.shape[2] == 1:
            return descriptors.expand(-1, -1, len(self.kinds), -1)
        return descriptors[:, :, [self._column(kind, features.invariances) for kind in self.kinds]]

    def _column(self, kind: str, known: tuple[str, ...]) -> int:
        if kind not in known:
            raise InputError(
                f"the teacher {self.describer.name} has no {kind}; loss.teacher_kinds may name {', '.join(known)}"
            )
        return known.index(kind)


def principal_components(values: Float[Tensor, "n values"], count: int) -> Float[Tensor, "values count"]:
    """An orthonormal basis of the `count` directions in which there is most, as close as it can be to the first values.

    Of all bases of these directions a network that already gives the first values has the least to unlearn. The
    turn is Schoenemann's solution of the orthogonal Procrustes problem (Psychometrika 1966).
    """
    directions = torch.linalg.eigh(values.T @ values).eigenvectors[:, -count:]
    u, _, vt = torch.linalg.svd((values @ directions).T @ values[:, :count])
    return directions @ u @ vt
