"""The describer as a module of tensors alone, written over the descriptor field.

The sizes of images and the numbers of keypoints stay symbols, none of which may be asked for its value: an `if` on one
would be decided once, for all inputs, by the example that is exported.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lisrd.describe.weights import Network
from lisrd.types import Keypoints

#: Outputs of the describer, which are inputs of the matcher with the suffix 0 or 1; the turned ones of image 1 alone.
FEATURES = ("image_size", "descriptors", "meta_descriptors")
TURNED_FEATURES = ("turned_descriptors", "turned_meta_descriptors")


class DescriberGraph(nn.Module):
    """An image and its keypoints to `FEATURES`, and to `TURNED_FEATURES` where the network has turns.

    The network's banks of turned weights are expanded in place: it is for inference from here on.
    """

    inputs = ("images", "keypoints")

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        network.fold(torch.float32)
        self.eval().requires_grad_(False)

    @property
    def outputs(self) -> tuple[str, ...]:
        return FEATURES + TURNED_FEATURES if self.network.num_turns > 1 else FEATURES

    def forward(
        self, images: Float[Tensor, "1 3 H W"], keypoints: Float[Tensor, "1 N 2"]
    ) -> tuple[Tensor, ...]:
        with SymbolicSizes():
            field = self.network(images)
            # ONNX knows no channels-last memory; without it, sampling a map is one operator.
            field.maps = [level.contiguous() for level in field.maps]
            size = keypoints.new_tensor(field.image_size).unsqueeze(0)
            at = Keypoints.from_xy(keypoints)
            if field.num_turns == 1:
                return size, field.at(at), field.meta()
            descriptors, turned = field.at_all_turns(at)
            meta, turned_meta = field.meta_all_turns()
        return size, descriptors, meta, turned, turned_meta


class SymbolicSizes(TorchFunctionMode):
    """Lets sizes go into tensors as symbols, where `new_tensor` would take the example's numbers for good."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.new_tensor and any(isinstance(v, torch.SymInt) for v in args[1]):
            like, sizes = args
            return torch.stack([torch.scalar_tensor(v, dtype=like.dtype, device=like.device) for v in sizes])
        return func(*args, **(kwargs or {}))
