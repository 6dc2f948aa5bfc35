"""The descriptor field: the one interface between a network and everything after it.

A field belongs to a batch of images of one size. It is evaluated where keypoints are; a field with turns can also
be read as the image turned by quarters, or eighths, of a turn would give it.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lisrd.errors import InputError
from lisrd.types import Keypoints, LocalFeatures, Selection

#: Sides of an image must reach this: stride 32 below, and three tiles.
MIN_SIDE = 32

#: The number of a turn, of the field's `num_turns`, for all images or one for each.
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


@runtime_checkable
class TurnedField(DescriptorField, Protocol):
    """A field that is asked for all its turns at once, because what they share is computed once."""

    def at_all_turns(
        self, keypoints: Keypoints
    ) -> tuple[Float[Tensor, "B N V D"], Float[Tensor, "B N turned R D"]]:
        """`at` turn 0, and the R rotation variant kinds at the other turns."""

    def meta_all_turns(self) -> tuple[Float[Tensor, "B V T T C"], Float[Tensor, "B turned R T T C"]]:
        """`meta` of turn 0, and of the R rotation variant kinds at the other turns."""


@torch.no_grad()
def read_field(field: DescriptorField, keypoints: Keypoints, keep_turns: bool = True) -> LocalFeatures:
    """Everything the matcher needs of a field; of four turns the other three cost 1.5 times the memory again."""
    if keep_turns and field.num_turns > 1:
        assert isinstance(field, TurnedField)
        descriptors, turned = field.at_all_turns(keypoints)
        meta, turned_meta = field.meta_all_turns()
    else:
        descriptors, meta, turned, turned_meta = field.at(keypoints), field.meta(), None, None
    width, height = field.image_size
    return LocalFeatures(
        keypoints=keypoints.xy,
        keypoint_scores=keypoints.scores,
        descriptors=descriptors,
        meta_descriptors=meta,
        image_size=descriptors.new_tensor([[width, height]]).expand(len(keypoints), 2),
        mask=keypoints.mask,
        selection=field.selection,
        scales=keypoints.scales,
        oris=keypoints.oris,
        turned_descriptors=turned,
        turned_meta_descriptors=turned_meta,
    )


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


def check_size(images: Tensor) -> None:
    """Raises InputError for images too small for three tiles at the coarsest stride."""
    height, width = images.shape[-2:]
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"image is {width} x {height}; needs at least {MIN_SIDE} x {MIN_SIDE} (stride 32, 3 tiles): "
            "resize or pad it"
        )
