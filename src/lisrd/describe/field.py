"""The descriptor field: the one interface between a network and everything after it.

A field belongs to a batch of images of one size. It is evaluated where keypoints are; a field with turns can also
be read as the image turned by quarter turns would give it.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lisrd.types import Keypoints, LocalFeatures, Selection

#: A quarter turn for all images of a field, or one for each.
Turn = int | Int[Tensor, " B"]


@runtime_checkable
class DescriptorField(Protocol):
    """Descriptors of V invariances at any place of B images."""

    image_size: tuple[int, int]  # (width, height), before any padding
    num_turns: int
    selection: Selection

    def at(self, keypoints: Keypoints, turn: Turn = 0) -> Float[Tensor, "B N V D"]:
        """Unit descriptors at the keypoints, as the image turned by `torch.rot90(image, turn)` would give them."""

    def meta(self, turn: Turn = 0) -> Float[Tensor, "B V T T C"]:
        """Unit meta descriptors of the T x T tiles; their places stay those of the image that was not turned.

        Gradients reach NetVLAD and end there: the selection weighs the descriptors, it does not shape them.
        """


@torch.no_grad()
def read_field(field: DescriptorField, keypoints: Keypoints, keep_turns: bool = True) -> LocalFeatures:
    """Everything the matcher needs of a field; the turns cost 1.5 times the memory of the descriptors again."""
    descriptors = field.at(keypoints)
    width, height = field.image_size
    turned, turned_meta = _turned(field, keypoints) if keep_turns and field.num_turns > 1 else (None, None)
    return LocalFeatures(
        keypoints=keypoints.xy,
        keypoint_scores=keypoints.scores,
        descriptors=descriptors,
        meta_descriptors=field.meta(),
        image_size=descriptors.new_tensor([[width, height]]).expand(len(keypoints), 2),
        mask=keypoints.mask,
        selection=field.selection,
        scales=keypoints.scales,
        oris=keypoints.oris,
        turned_descriptors=turned,
        turned_meta_descriptors=turned_meta,
    )


def _turned(
    field: DescriptorField, keypoints: Keypoints
) -> tuple[Float[Tensor, "B N 3 R D"], Float[Tensor, "B 3 R T T C"]]:
    variant = [v for v, is_variant in enumerate(field.selection.rotation_variant or ()) if is_variant]
    turns = range(1, field.num_turns)
    descriptors = torch.stack([field.at(keypoints, t)[:, :, variant] for t in turns], dim=2)
    meta = torch.stack([field.meta(t)[:, variant] for t in turns], dim=1)
    return descriptors, meta


def pad_to_stride(
    images: Float[Tensor, "B 3 H W"], stride: int
) -> tuple[Float[Tensor, "B 3 h w"], tuple[int, int]]:
    """Both sides padded to multiples of `stride` by repeating the border, equally on opposite sides.

    An even padding keeps the field exactly equivariant to quarter turns. An odd one puts the spare pixel to the
    right or below, so that a turned image sees its grid shifted by one pixel. Returns the padding (left, top).
    """
    height, width = images.shape[-2:]
    extra_x, extra_y = -width % stride, -height % stride
    left, top = extra_x // 2, extra_y // 2
    if extra_x == extra_y == 0:
        return images, (0, 0)
    padded = F.pad(images, (left, extra_x - left, top, extra_y - top), mode="replicate")
    return padded, (left, top)
