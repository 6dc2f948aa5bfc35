"""What a stage must at least do, in operations and bytes, and how long that takes at this machine's ceilings."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.describing import pyramid_describer
from benchmarks.inputs import feature_pair, given_keypoints, image
from benchmarks.timing import Effort, interleaved
from lisrd.describe.field import read_field
from lisrd.describe.network import PyramidField, PyramidNetwork
from lisrd.match import match
from lisrd.types import LocalFeatures


@dataclass(frozen=True, slots=True)
class Floor:
    """`bytes` are those that must cross main memory or the last cache: inputs, outputs, and maps between layers."""

    stage: str
    precision: str
    operations: float
    bytes: float
    seconds_measured: float

    def seconds(self, ceilings: dict[str, float]) -> tuple[float, float]:
        """(by operations, by bytes)."""
        product = ceilings[f"{self.precision}_operations_per_second"]
        return self.operations / product, self.bytes / ceilings["copy_bytes_per_second"]


def floors(count: int, width: int, height: int, keypoints: int, effort: Effort) -> list[Floor]:
    """Matching `count` x `count` keypoints; the two parts of describing one image."""
    return [_matching(count, effort), *_describing(width, height, keypoints, effort)]


def _matching(count: int, effort: Effort) -> Floor:
    features0, features1 = feature_pair(count)
    _, _, kinds, dim = features0.descriptors.shape
    # The products of the descriptors; those of the 9 numbers that stand for the meta descriptors.
    operations = 2 * count**2 * kinds * (dim + 9)
    traffic = features0.descriptors.nbytes + features1.descriptors.nbytes
    seconds = _seconds(lambda: match(features0, features1), effort)
    return Floor(f"match {count} x {count}", "float32", operations, traffic, seconds)


def _describing(width: int, height: int, count: int, effort: Effort) -> list[Floor]:
    describer = pyramid_describer()
    images, keypoints = image(width, height), given_keypoints(count, width, height)
    precision = str(describer.precision).removeprefix("torch.")
    where = f"{width} x {height}"
    # The counters know no fused convolutions, and these do the same operations.
    counted = PyramidNetwork().eval().requires_grad_(False).fold(describer.precision)

    @torch.no_grad()
    def encode(network: PyramidNetwork = describer.network) -> PyramidField:
        low = describer.precision
        with torch.autocast("cpu", dtype=low, enabled=low != torch.float32):
            return network(images)

    field = encode()
    field.maps = [level.float() for level in field.maps]

    def read() -> LocalFeatures:
        return read_field(copy(field), keypoints)  # a copy has not yet looked at its grid

    encoder = Floor(
        f"encoder, {where}",
        precision,
        count_operations(lambda: encode(counted)),
        map_bytes(counted.encoder, lambda: encode(counted)),
        _seconds(encode, effort),
    )
    features = read()
    assert features.turned_descriptors is not None
    written = features.descriptors.nbytes + features.turned_descriptors.nbytes
    what = f"heads and meta descriptors, {where}, {count} keypoints, four turns"
    return [encoder, Floor(what, precision, count_operations(read), written, _seconds(read, effort))]


def count_operations(run: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return counter.get_total_flops()


def map_bytes(network: nn.Module, run: Callable[[], object]) -> int:
    """Every convolution reads its input and its weights and writes its output once."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        # Maps are kept in the precision of the output, whatever the first layer is given.
        numbers = inputs[0].numel() + output.numel() + sum(p.numel() for p in layer.parameters())
        total += numbers * output.element_size()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    run()
    for hook in hooks:
        hook.remove()
    return total


def _seconds(run: Callable[[], object], effort: Effort) -> float:
    return interleaved({"run": run}, effort)["run"]
