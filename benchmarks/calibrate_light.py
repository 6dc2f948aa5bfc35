"""The threshold of `lisrd diagnose` for a change of light: python -m benchmarks.calibrate_light ROOT

ROOT holds training images: `webcam`, a folder for each scene of a camera that stood still, whose light is that of other
days and hours; `images`, single photographs. A steady pair is a photograph and what another camera would have seen of
it at that moment: turned, from the side, its colours as they were. The threshold proposed has the smallest sum of two
shares: of the steady pairs above it, and of the others below.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from lisrd import LISRD, LocalFeatures
from lisrd.diagnose.collection import LIGHT_CHANGED
from lisrd.diagnose.evidence import pair_evidence
from lisrd.image import read_image

#: Degrees by which the other camera is held askew; 45, halfway between quarter turns, is the worst for the network.
ANGLES = (0, 5, 15, 30, 45, 90)
#: How far the corners of what the other camera sees may lie from a square, as a share of the sides.
PERSPECTIVE = 0.1
MAX_KEYPOINTS = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--describer", default="pyramid")
    parser.add_argument("--photographs", type=int, default=60, help="as many steady pairs")
    parser.add_argument("--of-scene", type=int, default=5, help="photographs of each webcam, in pairs")
    options = parser.parse_args()
    model = LISRD.from_pretrained(options.describer)
    photographs = spread(sorted((options.root / "images").iterdir()), options.photographs)
    steady = [(angle, change(model, *pair)) for angle, pair in steady_pairs(model, photographs)]
    scenes = [sorted(folder.iterdir()) for folder in sorted((options.root / "webcam").iterdir())]
    relit = [change(model, *pair) for pair in relit_pairs(model, scenes, options.of_scene)]
    report(steady, relit)


def steady_pairs(
    model: LISRD, photographs: Sequence[Path]
) -> Iterator[tuple[int, tuple[LocalFeatures, LocalFeatures]]]:
    """(degrees, photograph and the same by another camera), all angles equally often."""
    for number, path in enumerate(photographs):
        angle, image = ANGLES[number % len(ANGLES)], read_image(path)
        other = seen_by_another(image, angle, np.random.default_rng(number))
        yield angle, (described(model, image), described(model, other))


def relit_pairs(
    model: LISRD, scenes: Sequence[Sequence[Path]], of_scene: int
) -> Iterator[tuple[LocalFeatures, LocalFeatures]]:
    """Photographs of one webcam at different times."""
    for scene in scenes:
        yield from combinations([described(model, read_image(path)) for path in spread(scene, of_scene)], 2)


def described(model: LISRD, image: np.ndarray) -> LocalFeatures:
    return model.describe(image, max_keypoints=MAX_KEYPOINTS)


def seen_by_another(image: np.ndarray, angle: float, dice: np.random.Generator) -> np.ndarray:
    """The middle of a photograph by a camera held askew, a little from the side."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((0, 0), angle, 0.8)[:, :2]
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) + dice.uniform(-PERSPECTIVE, PERSPECTIVE, (4, 2))
    source = (corners * min(width, height) / 2 @ turn.T + (width / 2, height / 2)).astype(np.float32)
    side = min(width, height)
    target = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
    H = cv2.getPerspectiveTransform(source, target)
    return cv2.warpPerspective(image, H, (side, side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """So many of them, from beginning to end."""
    return [paths[k] for k in np.unique(np.linspace(0, len(paths) - 1, count).astype(int))]


def change(model: LISRD, features0: LocalFeatures, features1: LocalFeatures) -> float | None:
    """What the diagnosis measures; None where the pair is not verified."""
    matches = model.match(features0, features1)
    return pair_evidence(("0", "1"), features0, features1, matches).light_change


def report(steady: list[tuple[int, float | None]], relit: list[float | None]) -> None:
    for angle in ANGLES:
        print(f"steady, turned by {angle:2}:  {quantiles([one for a, one in steady if a == angle])}")
    print(f"another light:         {quantiles(relit)}")
    known = np.array([one for _, one in steady if one is not None])
    changed = np.array([one for one in relit if one is not None])
    for name, value in (("proposed", best_threshold(known, changed)), ("in use", LIGHT_CHANGED)):
        print(
            f"{name} {value:.3f}: {np.mean(known > value):.0%} of steady, {np.mean(changed > value):.0%} of others"
        )


def best_threshold(below: np.ndarray, above: np.ndarray) -> float:
    """Between two neighbouring values, where the fewest of both kinds are on the wrong side."""
    values = np.sort(np.concatenate([below, above]))
    between = (values[1:] + values[:-1]) / 2
    wrong = (below[:, None] > between).mean(0) + (above[:, None] < between).mean(0)
    return float(between[wrong.argmin()])


def quantiles(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return f"none of {len(values)} verified"
    numbers = "  ".join(f"{q:.0%} {np.quantile(known, q):+.3f}" for q in (0.1, 0.5, 0.9, 1.0))
    return f"{len(known):3} of {len(values):3} verified  {numbers}"


if __name__ == "__main__":
    main()
