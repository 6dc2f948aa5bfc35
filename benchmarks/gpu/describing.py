"""Describing at given keypoints, beside the peers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import lru_cache, partial

import torch
from torch import Tensor

from benchmarks.floors import count_operations, map_bytes
from benchmarks.gpu.ceilings import tf32
from benchmarks.gpu.work import Case, Meter, Sizes, Work
from benchmarks.inputs import given_keypoints, image
from benchmarks.peers import PEERS
from benchmarks.timing import Run
from lisrd.describe.describer import NetworkDescriber
from lisrd.describe.network import PyramidNetwork
from lisrd.types import Keypoints, LocalFeatures

_PEERS = ("paper", "aliked_n16", "disk", "xfeat", "hardnet")


def describing_cases(sizes: Sizes, meter: Meter) -> Iterator[Case]:
    """`pyramid` in each precision, then its peers, at given keypoints."""
    kinds = (("bfloat16", "bfloat16"), ("float32", "tf32"), ("float32", "float32"))
    for count in sizes.images:
        images = "1 image" if count == 1 else f"{count} images"
        for precision, unit in kinds:
            prepare = partial(_pyramid, sizes, meter, count, precision, unit)
            yield Case("describe", f"pyramid, {images}", unit, prepare)
        for name, words, build in PEERS:
            if name in _PEERS:
                prepare = partial(_peer, sizes, meter, count, build)
                yield Case("describe", f"{words.partition(',')[0]}, {images}", "tf32", prepare)


def _images(sizes: Sizes, count: int, device: torch.device) -> tuple[Tensor, Keypoints]:
    images = image(*sizes.image).expand(count, -1, -1, -1).contiguous()
    one = given_keypoints(sizes.keypoints, *sizes.image)
    values = {
        f.name: getattr(one, f.name).expand(count, *getattr(one, f.name).shape[1:]) for f in fields(one)
    }
    return images.to(device), Keypoints(**values).to(device)


def _pyramid(sizes: Sizes, meter: Meter, count: int, precision: str, unit: str) -> Work:
    network = PyramidNetwork()
    describer = NetworkDescriber("pyramid", network, "random", meter.device, precision)  # type: ignore[arg-type]
    images, keypoints = _images(sizes, count, meter.device)

    def run() -> LocalFeatures:
        with contextlib.nullcontext() if unit == "tf32" else tf32(False):
            return describer.describe(images, keypoints)

    features = run()
    operations, traffic = pyramid_floor(sizes)
    written = sum(t.nbytes for t in (getattr(features, f.name) for f in fields(features)) if _is_tensor(t))
    size = describer.precision.itemsize / torch.bfloat16.itemsize
    return Work(run, count, count * operations, count * traffic * size + written)


@lru_cache(maxsize=1)
def pyramid_floor(sizes: Sizes) -> tuple[float, float]:
    """Operations of one image, and the bytes of the encoder's maps in bfloat16: counted on the CPU."""
    describer = NetworkDescriber("pyramid", PyramidNetwork(), "random", precision="float32")
    # The counters know no fused convolutions, and these do the same operations.
    describer.network = PyramidNetwork().eval().requires_grad_(False).fold(torch.float32)
    images, keypoints = _images(sizes, 1, torch.device("cpu"))
    operations = count_operations(lambda: describer.describe(images, keypoints))
    traffic = map_bytes(describer.network.encoder, lambda: describer.network(images))
    return operations, traffic / 2  # counted in float32


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _peer(sizes: Sizes, meter: Meter, count: int, build: Callable[[Tensor, Keypoints], Run]) -> Work:
    images, keypoints = _images(sizes, count, meter.device)
    with meter.device:  # networks are built where they will run
        torch.manual_seed(0)
        run = build(images, keypoints)
    operations = 0.0
    with contextlib.suppress(Exception):  # some operators of peers have no formula
        operations = count_operations(run)
    return Work(run, count, operations, images.nbytes)
