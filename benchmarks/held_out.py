"""Real pairs for validation: python -m benchmarks.held_out --data ROOT --out DIR [--config configs/pyramid.toml]

The scenes under several lights that a training keeps for validation (webcams, exposures), as an HPatches-style folder:
sequences of up to six photographs, `i_<scene>_<k>`, whose homographies are the identity, and with `--warped` each of
them once more, `v_<scene>_<k>`, with the second to the last photograph turned, scaled and tilted. For
`lisrd evaluate DIR` (rows of "illumination" and "viewpoint") and `lisrd train --val DIR`; nothing of it is trained on,
and nothing of it is in the evaluation's scenes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from lisrd.coordinates import translation_transform
from lisrd.image import read_image
from lisrd.train.config import load_config
from lisrd.train.data.sources import build_mixture

LONGEST = 6  # photographs of a sequence, as in HPatches
SEED = 0
WARP_SEED = 5
#: Ranges of the warps; the change of size is uniform in its logarithm.
SCALES = (0.6, 1.5)
SHEAR = 0.2
TILT = 0.35  # change of depth from one side of the image to the other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("configs/pyramid.toml"))
    parser.add_argument("--warped", action="store_true", help="also turned, scaled and tilted")
    options = parser.parse_args()
    mixture = build_mixture(options.data, load_config(options.config).data.sources, "val")
    scenes = [scene for source, _ in mixture.parts for scene in source.scenes if len(scene) > 1]
    rng = np.random.default_rng(SEED)
    folders = []
    for scene in scenes:
        for number, photographs in enumerate(sequences(scene, rng)):
            folders.append(options.out / f"i_{scene[0].parent.name}_{number}")
            write_sequence(folders[-1], [read_image(path) for path in photographs])
    if options.warped:
        rng = np.random.default_rng(WARP_SEED)
        for folder in sorted(folders):
            write_warped(folder, folder.with_name(f"v{folder.name[1:]}"), rng)
    print(f"{len(scenes)} scenes in {options.out}")


def sequences(scene: Sequence[Path], rng: np.random.Generator) -> Iterator[list[Path]]:
    """The photographs of a scene in any order, six at a time; what is left over is left out."""
    length = min(LONGEST, len(scene))
    order = rng.permutation(len(scene))
    for start in range(0, len(scene) - length + 1, length):
        yield [scene[k] for k in order[start : start + length]]


def write_sequence(
    folder: Path, images: Sequence[np.ndarray], H: Sequence[Float[np.ndarray, "3 3"]] | None = None
) -> None:
    """`1.png`, `2.png`, ... and the homographies from the first image, `H_1_2`, ...; the identity by default."""
    folder.mkdir(parents=True)
    for number, image in enumerate(images, 1):
        cv2.imwrite(str(folder / f"{number}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if number > 1:
            np.savetxt(folder / f"H_1_{number}", np.eye(3) if H is None else H[number - 2])


def write_warped(source: Path, folder: Path, rng: np.random.Generator) -> None:
    """A sequence of registered photographs with all but the first warped, each by its own homography."""
    count = len(list(source.glob("*.png")))
    first, *others = (read_image(source / f"{number}.png") for number in range(1, count + 1))
    drawn = [random_homography(image.shape[1], image.shape[0], rng) for image in others]
    warped = [warp(image, H) for image, H in zip(others, drawn, strict=True)]
    write_sequence(folder, [first, *warped], drawn)


def random_homography(width: int, height: int, rng: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    """Any rotation, a change of size, shear and tilt about the centre of the image; pixels to pixels."""
    angle = rng.uniform(-math.pi, math.pi)
    scale = math.exp(rng.uniform(*np.log(SCALES)))
    tilt = np.eye(3)
    tilt[2, :2] = rng.uniform(-TILT, TILT, 2) / (width, height)
    shear = np.eye(3)
    shear[0, 1] = rng.uniform(-SHEAR, SHEAR)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    similarity = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    centre = translation_transform((width - 1) / 2, (height - 1) / 2).numpy()
    H = centre @ tilt @ similarity @ shear @ np.linalg.inv(centre)
    return H / H[2, 2]


def warp(image: np.ndarray, H: Float[np.ndarray, "3 3"]) -> np.ndarray:
    """The image under `H`, in its own size; black where nothing was seen."""
    height, width = image.shape[:2]
    depth = H[2] @ ((width - 1) / 2, (height - 1) / 2, 1)
    larger = np.linalg.det(H) / depth**3 > 1  # of areas, at the centre
    flags = cv2.INTER_CUBIC if larger else cv2.INTER_LINEAR
    return cv2.warpPerspective(image, H, (width, height), flags=flags)


if __name__ == "__main__":
    main()
