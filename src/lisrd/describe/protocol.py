"""What every describer is to the stages after it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lisrd.types import Keypoints, LocalFeatures


@runtime_checkable
class Describer(Protocol):
    """Describes the keypoints of a batch of images of one size."""

    name: str

    @property
    def config(self) -> dict[str, Any]:
        """What makes the descriptors, as plain values: caches are keyed by it."""

    def describe(
        self, images: Float[Tensor, "B 3 H W"], keypoints: Keypoints, keep_turns: bool = True
    ) -> LocalFeatures:
        """Features at the keypoints of each image."""
