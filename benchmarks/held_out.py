"""Real pairs for validation: python -m benchmarks.held_out --data ROOT --out DIR [--config configs/pyramid.toml]

The scenes under several lights that a training keeps for validation (webcams, exposures), as an HPatches-style folder:
sequences of up to six photographs, `i_<scene>_<k>`, whose homographies are the identity. For `lisrd evaluate DIR` and
`lisrd train --val DIR`; nothing of it is trained on, and nothing of it is in the evaluation's scenes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from lisrd.image import read_image
from lisrd.train.config import load_config
from lisrd.train.data.sources import build_mixture

LONGEST = 6  # photographs of a sequence, as in HPatches
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("configs/pyramid.toml"))
    options = parser.parse_args()
    mixture = build_mixture(options.data, load_config(options.config).data.sources, "val")
    scenes = [scene for source, _ in mixture.parts for scene in source.scenes if len(scene) > 1]
    rng = np.random.default_rng(SEED)
    for scene in scenes:
        for number, photographs in enumerate(sequences(scene, rng)):
            write_sequence(options.out / f"i_{scene[0].parent.name}_{number}", photographs)
    print(f"{len(scenes)} scenes in {options.out}")


def sequences(scene: Sequence[Path], rng: np.random.Generator) -> Iterator[list[Path]]:
    """The photographs of a scene in any order, six at a time; what is left over is left out."""
    length = min(LONGEST, len(scene))
    order = rng.permutation(len(scene))
    for start in range(0, len(scene) - length + 1, length):
        yield [scene[k] for k in order[start : start + length]]


def write_sequence(folder: Path, photographs: Sequence[Path]) -> None:
    """`1.png`, `2.png`, ... and `H_1_2`, ..., all the identity."""
    folder.mkdir(parents=True)
    for number, path in enumerate(photographs, 1):
        cv2.imwrite(str(folder / f"{number}.png"), cv2.cvtColor(read_image(path), cv2.COLOR_RGB2BGR))
        if number > 1:
            np.savetxt(folder / f"H_1_{number}", np.eye(3))


if __name__ == "__main__":
    main()
