"""What docs/geometry.md says of known warps and of the seconds of each step: `python -m benchmarks.geometry`."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import skimage.data

from benchmarks.geometry_stages import stage_seconds
from benchmarks.known_warps import MILD, Change, KnownPair, corner_error, known_pair
from benchmarks.timing import Effort
from lisrd import LISRD
from lisrd.verify import Geometry, Steps, estimate, refine, verify_pair
from lisrd.verify.steps import ESTIMATE_ALONE

CHANGES = {
    "nothing": Change(),
    "noise 5": Change(noise=5),
    "noise 15": Change(noise=15),
    "noise 30": Change(noise=30),
    "blur 1": Change(blur=1),
    "blur 2": Change(blur=2),
    "half the light": Change(gain=0.5),
    "a fifth of the light, noise 5": Change(gain=0.2, noise=5),
    "offset 40, gain 0.55": Change(gain=0.55, offset=40),
}
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea")
#: Translations that would show a convention that is off by half a pixel.
SHIFTS = ((0.0, 0.0), (0.5, 0.5), (0.25, -0.4))
#: Standard deviation of a detector's places, pixels per axis.
PLACED = 0.7


def known_pairs(change: Change, H: np.ndarray = MILD) -> Iterator[KnownPair]:
    """Each photograph under the warp and the change."""
    for name in PHOTOGRAPHS:
        yield known_pair(getattr(skimage.data, name)(), H, change)


def refinement_error(pair: KnownPair) -> tuple[float, float]:
    """Share of refined matches, and the median of their errors in pixels; `PLACED` decides where they start."""
    found = refine(pair.image0, pair.image1, pair.points0, pair.off(pixels=PLACED), model_H=pair.H)
    error = np.linalg.norm(found.points1 - pair.truth1, axis=1)[found.refined]
    return float(found.refined.mean()), float(np.median(error)) if len(error) else float("nan")


def homography_errors(pair: KnownPair, model: LISRD) -> dict[str, float]:
    """Corner errors in pixels by plain RANSAC, by the estimate alone, and by the whole stage."""
    matched = model.match_images(pair.image0, pair.image1)
    features = matched.features0, matched.features1

    def verify(steps: Steps) -> Geometry:
        return verify_pair(pair.image0, pair.image1, *features, matched.matches, steps=steps).geometry

    found = {
        "ransac": estimate(matched.points0, matched.points1, method="ransac", threshold=3.0),
        "estimate": verify(ESTIMATE_ALONE),
        "full": verify(Steps()),
    }
    return {name: corner_error(geometry.model, pair.H) for name, geometry in found.items()}


def known_warp_table() -> str:
    """One row per change: the median over the photographs."""
    model = LISRD.from_pretrained("root-sift")
    lines = [
        "| image 1 changed by | refined | error of a match | corners, RANSAC | estimate | whole stage |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, change in CHANGES.items():
        pairs = list(known_pairs(change))
        refined, error = np.median([refinement_error(pair) for pair in pairs], axis=0)
        corners = [homography_errors(pair, model) for pair in pairs]
        medians = [np.median([one[key] for one in corners]) for key in ("ransac", "estimate", "full")]
        lines.append(
            f"| {name} | {100 * refined:.0f} % | {error:.3f} | "
            + " | ".join(f"{m:.2f}" for m in medians)
            + " |"
        )
    return "\n".join(lines)


def bias() -> tuple[float, float]:
    """Median offset of refined matches in x and y, pixels, under translations by parts of a pixel."""
    offsets = []
    for x, y in SHIFTS:
        H = np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
        for pair in known_pairs(Change(), H):
            found = refine(pair.image0, pair.image1, pair.points0, pair.off(pixels=0.3), model_H=H)
            offsets.append((found.points1 - pair.truth1)[found.refined])
    along_x, along_y = np.median(np.concatenate(offsets), axis=0)
    return float(along_x), float(along_y)


def main() -> None:
    print(f"{known_warp_table()}\n")
    print("bias of refined matches: {:+.4f}, {:+.4f} px\n".format(*bias()))
    for keypoints in (1000, 2048):
        seconds = stage_seconds("pyramid", keypoints, Effort(clock=time.process_time))
        stages = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in seconds.items())
        print(f"pyramid, {keypoints} keypoints, CPU time: {stages}")


if __name__ == "__main__":
    main()
