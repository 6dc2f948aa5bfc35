"""`make demo`: match two real photographs whose true correspondence is known, beside plain SIFT.

The photographs are the two views of a motorcycle that come with scikit-image (Middlebury 2014 stereo), with a measured
disparity for most pixels. The right one is turned and put into evening light here. So every match has a true place:
the disparity leads from the left photograph to the right one, and the rotation, which we chose, to where it was turned.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from lisrd.describe.weights import bundled_names
from lisrd.errors import InputError, MissingExtraError
from lisrd.image import write_image
from lisrd.model import LISRD, MatchedPair
from lisrd.verify import Geometry, estimate
from lisrd.view.plot import draw_matches

ANGLE = 100.0  # degrees: a quarter turn, and ten degrees that no quarter turn undoes
CORRECT_PX = 3.0


@dataclass(frozen=True, slots=True)
class Scene:
    """Two photographs and the truth between them."""

    image0: UInt8[np.ndarray, "H0 W0 3"]
    image1: UInt8[np.ndarray, "H1 W1 3"]
    disparity: Float[
        np.ndarray, "H0 W0"
    ]  # pixels to the left, from image 0 to the photograph image 1 was made of
    rotation: Float[np.ndarray, "2 3"]  # from that photograph to image 1

    def true_places(self, points0: Float[np.ndarray, "S 2"]) -> Float[np.ndarray, "S 2"]:
        """Where points of image 0 lie in image 1; NaN where no disparity was measured."""
        column, row = np.rint(points0).astype(int).T
        height, width = self.disparity.shape
        disparity = self.disparity[row.clip(0, height - 1), column.clip(0, width - 1)]
        x = points0[:, 0] - np.where(np.isfinite(disparity), disparity, np.nan)
        return np.stack([x, points0[:, 1]], axis=1) @ self.rotation[:, :2].T + self.rotation[:, 2]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How many of the matches whose truth is known are right."""

    matches: int
    correct: int

    @property
    def precision(self) -> float:
        return self.correct / self.matches if self.matches else 0.0


def build_scene(angle: int | float = ANGLE) -> Scene:
    """The two photographs, the right one turned by `angle` degrees counter-clockwise and relit.

    Raises:
        MissingExtraError: scikit-image, which brings the photographs, is not installed.
    """
    try:
        from skimage.data import stereo_motorcycle
    except ImportError:
        raise MissingExtraError("dev", "the demo's pair of photographs") from None
    left, right, disparity = stereo_motorcycle()
    turned, rotation = turn(evening(right), angle)
    return Scene(left, turned, disparity, rotation)


def evening(image: UInt8[np.ndarray, "H W 3"], seed: int = 0) -> UInt8[np.ndarray, "H W 3"]:
    """The photograph by a lamp at its left in a dim blue evening, taken by a noisy sensor."""
    height, width = image.shape[:2]
    y, x = np.mgrid[0:height, 0:width] / width
    lamp = 1.6 * np.exp(-((x - 0.1) ** 2 + (y - 0.25) ** 2) / 0.08)[..., None] * [1.0, 0.7, 0.4]
    sky = 0.10 * np.array([0.6, 0.8, 1.2])
    linear = (image / 255.0) ** 2.2 * (lamp + sky)  # light adds up and multiplies in linear intensities
    noise = np.random.default_rng(seed).normal(0, 0.02, image.shape)
    return np.round(255 * (linear.clip(0, 1) ** (1 / 2.2) + noise).clip(0, 1)).astype(np.uint8)


def turn(
    image: UInt8[np.ndarray, "H W 3"], angle: int | float
) -> tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "2 3"]]:
    """The image turned counter-clockwise by `angle` degrees, black around it, and the transform of its pixels."""
    height, width = image.shape[:2]
    rotation = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    sides = np.abs(rotation[:, :2]) @ [width, height]
    size = np.ceil(sides - 1e-6).astype(int)  # a quarter turn needs no pixel more, whatever the rounding
    to_centre = np.column_stack([np.zeros((2, 2)), (size - [width, height]) / 2])
    rotation = rotation + to_centre
    return cv2.warpAffine(image, rotation, size.tolist()), rotation


def measure(scene: Scene, pair: MatchedPair) -> Accuracy:
    """Matches within `CORRECT_PX` of their true place, of those whose truth is known."""
    error = np.linalg.norm(scene.true_places(pair.points0.numpy()) - pair.points1.numpy(), axis=1)
    return Accuracy(int(np.isfinite(error).sum()), int((error <= CORRECT_PX).sum()))


def run(describer: str, out: Path) -> tuple[dict[str, Accuracy], Geometry, Path]:
    """Match the scene by `describer` and by RootSIFT, on the same keypoints; draw what the first one found.

    Raises:
        InputError: no such describer, or a folder that cannot be written.
    """
    scene = build_scene()
    pairs = {
        name: LISRD.from_pretrained(name).match_images(scene.image0, scene.image1)
        for name in (describer, "root-sift")
    }
    pair = pairs[describer]
    geometry = estimate(pair.points0, pair.points1, "fundamental", scores=pair.matches.scores)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create {out}: {error.strerror}; choose another --out") from None
    write_image(out / "image0.png", scene.image0)
    write_image(out / "image1.png", scene.image1)
    picture = out / "matches.jpg"
    found = (pair.features0, pair.features1, pair.matches, geometry.inliers)
    draw_matches(scene.image0, scene.image1, *found, picture, "fundamental matrix")
    return {name: measure(scene, one) for name, one in pairs.items()}, geometry, picture


def default_describer() -> str:
    """Our network where its weights came with the package, otherwise the selection between two kinds of SIFT."""
    return "pyramid" if "pyramid" in bundled_names() else "lisrd-sift"


def main() -> None:
    """The entry point of `python -m lisrd.demo`."""
    parser = argparse.ArgumentParser(prog="python -m lisrd.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--describer", default=default_describer(), help="a name or a .safetensors file")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder of the picture")
    arguments = parser.parse_args()
    print(
        f"Two photographs of one scene; the second is turned by {ANGLE:.0f} degrees and taken in the evening."
    )
    try:
        accuracies, geometry, picture = run(arguments.describer, arguments.out)
    except (InputError, MissingExtraError) as error:
        sys.exit(f"lisrd.demo: {error}")
    print(table(accuracies))
    print(
        f"fundamental matrix with {geometry.num_inliers} inliers"
        if geometry
        else f"no model: {geometry.reason}"
    )
    print(f"picture: {picture}")


def table(accuracies: dict[str, Accuracy]) -> str:
    """One line per describer: matches whose truth is known, those within `CORRECT_PX`, and their share."""
    lines = [f"{'':24}{'matches':>9}{f'within {CORRECT_PX:g} px':>14}{'share':>9}"]
    for name, one in accuracies.items():
        lines.append(f"{name:24}{one.matches:>9,}{one.correct:>14,}{one.precision:>9.1%}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
