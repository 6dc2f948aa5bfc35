"""How well `lisrd pairs` finds photographs of one place: python -m benchmarks.retrieval ROOT

ROOT holds training images: `webcam`, a folder for each scene of a camera that stood still, in every light; `images`,
single photographs, which are nobody's partner. Asked are photographs of the webcams, as they are, as another camera
would have seen them, and that camera held at a quarter turn; right are photographs of the same webcam at other times.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import torch

from lisrd import scale
from lisrd.describe import build_describer
from lisrd.image import read_image, write_image
from lisrd.scale.pairs import similarity_in_turns, tile_descriptors

#: Of the webcams' photographs how many are asked for, of the single ones how many stand in the way: each n-th.
EVERY_SEEN, EVERY_TURNED, EVERY_IMAGE = 6, 10, 12
TOP = (1, 10, 20)

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--describer", default="pyramid")
    parser.add_argument(
        "--thin", type=int, default=1, help="take only each n-th photograph, for a first look"
    )
    options = parser.parse_args()
    webcam = sorted((options.root / "webcam").glob("*/*"))[:: options.thin]
    images = sorted((options.root / "images").iterdir())[:: EVERY_IMAGE * options.thin]
    asked: dict[str, tuple[list[Path], Change]] = {
        "as it is": (webcam, lambda image, dice: image),
        "another camera": (webcam[::EVERY_SEEN], another_camera),
        "another camera, turned": (webcam[::EVERY_TURNED], another_camera_turned),
    }
    with tempfile.TemporaryDirectory() as folder:
        copies = Path(folder) / "asked"
        write_changed(copies, asked, options.root)
        features = Path(folder) / "features.h5"
        describer = build_describer(options.describer)
        scale.extract([*webcam, *images], features, describer, 512, keep_turns=False, root=options.root)
        scale.extract(copies, Path(folder) / "asked.h5", describer, 512, keep_turns=False)
        report(features, Path(folder) / "asked.h5", list(asked))


def another_camera(image: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """Six to nine tenths of the photograph, from anywhere in it, askew by up to 10 degrees, a little from the side."""
    height, width = image.shape[:2]
    part = dice.uniform(0.6, 0.9)
    shift = dice.uniform(part / 2, 1 - part / 2, 2)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * part / 2 + dice.uniform(-0.06, 0.06, (4, 2))
    angle = np.radians(dice.uniform(-10, 10))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    source = (corners * (width, height) @ turn + shift * (width, height)).astype(np.float32)
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    H = cv2.getPerspectiveTransform(source, target)
    return cv2.warpPerspective(image, H, (width, height), borderMode=cv2.BORDER_REFLECT)


def another_camera_turned(image: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(another_camera(image, dice), dice.integers(1, 4)))


def write_changed(folder: Path, asked: Mapping[str, tuple[list[Path], Change]], root: Path) -> None:
    """What is asked for, in a folder for each way to ask, under the names that the photographs have below `root`."""
    for way, (paths, change) in asked.items():
        for number, path in enumerate(paths):
            target = (folder / way / path.relative_to(root)).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            write_image(target, change(read_image(path), np.random.default_rng(number)))


def report(features: Path, asked: Path, ways: list[str]) -> None:
    names, questions = scale.image_names(features), scale.image_names(asked)
    similarity = similarity_in_turns(tile_descriptors(asked, questions), tile_descriptors(features, names))
    for row, question in enumerate(questions):  # nothing is its own partner
        own = question.partition("/")[2].removesuffix(".png")
        similarity[row, [name.rpartition(".")[0] == own for name in names]] = -torch.inf
    best = similarity.topk(min(max(TOP), len(names) - 1)).indices
    right = torch.tensor(
        [
            [names[k].startswith(scene_of(question)) for k in row]
            for question, row in zip(questions, best, strict=True)
        ]
    )
    print(f"{len(names)} images; of the first {TOP} one is right; share of the {TOP[-1]} that are")
    for way in ways:
        rows = right[[question.startswith(f"{way}/") for question in questions]]
        found = "  ".join(f"{rows[:, :k].any(1).float().mean():.0%}" for k in TOP)
        print(f"{way:24} {len(rows):4} asked  {found}   {rows.float().mean():.0%}")


def scene_of(question: str) -> str:
    """The webcam's folder, with "/" at its end."""
    return question.partition("/")[2].rpartition("/")[0] + "/"


if __name__ == "__main__":
    main()
