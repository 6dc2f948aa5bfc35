"""Where a describer stops: python -m benchmarks.limits --out docs/pictures/pyramid_limits.jpg [--describer pyramid]

One photograph against itself, changed more and more in one way; every place is known. The table has the matches
within 3 pixels of all matches, for the describer and for RootSIFT on the same keypoints; the picture draws the hardest
change of each kind, right matches in green and wrong ones in red.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from lisrd import LISRD
from lisrd.coordinates import scale_transform
from lisrd.demo import build_scene
from lisrd.model import MatchedPair
from lisrd.verify.geometry import project
from lisrd.whole_file import whole_file

CORRECT_PX = 3.0
LINES = 150  # of a picture, the most similar matches
RIGHT, WRONG = "#14c9a2", "#e63946"

Photograph = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True, slots=True)
class Change:
    """One kind of change, the amounts that are tried, and what one makes of a photograph: image and homography."""

    name: str
    amounts: tuple[float, ...]
    apply: Callable[[Photograph, float], tuple[Photograph, Float[np.ndarray, "3 3"]]]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The matches of one pair, and which of them are right."""

    pair: MatchedPair
    right: Bool[np.ndarray, " S"]

    def __str__(self) -> str:
        return f"{self.right.sum()} of {len(self.right)}"


def squeezed(photograph: Photograph, along_x: float, along_y: float) -> tuple[Photograph, np.ndarray]:
    """Reduced by two factors, each new pixel the mean of those that it covers."""
    height, width = photograph.shape[:2]
    size = max(1, round(width / along_x)), max(1, round(height / along_y))
    H = scale_transform(size[0] / width, size[1] / height).numpy()
    return cv2.resize(photograph, size, interpolation=cv2.INTER_AREA), H


def tilted(photograph: Photograph, degrees: float) -> tuple[Photograph, np.ndarray]:
    """Seen from the side, from far away."""
    return squeezed(photograph, 1 / np.cos(np.radians(degrees)), 1.0)


def darkened(photograph: Photograph, stops: float) -> tuple[Photograph, np.ndarray]:
    """So many halvings of the light, before a sensor of a fixed noise."""
    light = (photograph / 255.0) ** 2.2 / 2**stops
    light += np.random.default_rng(0).normal(0, 1e-3, photograph.shape)
    return np.round(255 * light.clip(0, 1) ** (1 / 2.2)).astype(np.uint8), np.eye(3)


def blurred(photograph: Photograph, sigma: float) -> tuple[Photograph, np.ndarray]:
    """Out of focus: a Gaussian of `sigma` pixels."""
    return cv2.GaussianBlur(photograph, (0, 0), sigma), np.eye(3)


CHANGES = (
    Change("times smaller", (2, 4, 8), lambda image, factor: squeezed(image, factor, factor)),
    Change("degrees of tilt", (40, 60, 75), tilted),
    Change("stops darker", (4, 6, 8), darkened),
    Change("pixels of blur", (2, 4, 8), blurred),
)


def outcome(model: LISRD, image0: Photograph, image1: Photograph, H: Float[np.ndarray, "3 3"]) -> Outcome:
    """Match the pair and compare with the truth."""
    pair = model.match_images(image0, image1)
    error = np.linalg.norm(project(pair.points0.numpy(), H) - pair.points1.numpy(), axis=1)
    return Outcome(pair, error <= CORRECT_PX)


def draw(axes: Axes, image0: Photograph, image1: Photograph, found: Outcome, title: str) -> None:
    """Both images side by side and the most similar matches between them."""
    height, gap = image0.shape[0], image0.shape[1] + 20
    page = np.full((height, gap + image0.shape[1], 3), 255, np.uint8)
    page[:, : image0.shape[1]] = image0
    page[: image1.shape[0], gap : gap + image1.shape[1]] = image1
    axes.imshow(page)
    best = found.pair.matches.scores.argsort(descending=True)[:LINES].numpy()
    starts, ends = found.pair.points0.numpy()[best], found.pair.points1.numpy()[best] + [gap, 0]
    colours = [RIGHT if right else WRONG for right in found.right[best]]
    axes.add_collection(LineCollection(np.stack([starts, ends], 1).tolist(), colors=colours, linewidths=0.6))
    axes.set_title(title, size=11)
    axes.axis("off")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--describer", default="pyramid")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    models = {name: LISRD.from_pretrained(name) for name in (options.describer, "root-sift")}
    photograph = build_scene().image0
    figure = Figure(figsize=(16, 6.2), dpi=80, layout="constrained")
    print(f"| | {' | '.join(models)} |\n| --- | --- | --- |")
    for change, axes in zip(CHANGES, figure.subplots(2, 2).flat, strict=True):
        for amount in change.amounts:
            changed, H = change.apply(photograph, amount)
            found = {name: outcome(model, photograph, changed, H) for name, model in models.items()}
            title = f"{amount:g} {change.name}"
            print(f"| {title} | {' | '.join(map(str, found.values()))} |", flush=True)
        ours = found[options.describer]
        draw(axes, photograph, changed, ours, f"{title}: {ours} right")
    with whole_file(options.out) as partial:
        figure.savefig(partial)


if __name__ == "__main__":
    main()
