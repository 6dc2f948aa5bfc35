"""Describing given keypoints with `pyramid` beside other describers of the same keypoints."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.inputs import given_keypoints, image
from benchmarks.peers import PEERS
from benchmarks.timing import Comparison
from lisrd.describe.describer import NetworkDescriber
from lisrd.describe.network import PyramidNetwork


def pyramid_describer(precision: str = "auto") -> NetworkDescriber:
    """The default network with random weights, as `build_describer` would set it up."""
    torch.manual_seed(0)
    return NetworkDescriber("pyramid", PyramidNetwork(), "random", precision=precision)  # type: ignore[arg-type]


def comparisons(
    width: int, height: int, count: int, names: tuple[str, ...] = (), suffix: str = ""
) -> Iterator[Comparison]:
    """One row for each peer of `names`, all where there are none."""
    describer = pyramid_describer()
    images, keypoints = image(width, height), given_keypoints(count, width, height)
    precision = str(describer.precision).removeprefix("torch.")
    ours = (
        f"pyramid, {precision} ({describer.precision_reason}), with meta descriptors and turns; "
        f"{width} x {height}, {count} keypoints"
    )
    for name, words, build in PEERS:
        if not names or name in names:
            yield Comparison(
                f"describe_vs_{name}{suffix}",
                ours,
                words,
                lambda: describer.describe(images, keypoints),
                build(images, keypoints),
            )
