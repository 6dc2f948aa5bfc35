"""What every data set becomes: a list of pairs with their ground truth, or with what is wrong with it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.errors import InputError
from lisrd.evaluate.datasets.preparation import Prepared, Step
from lisrd.evaluate.metrics.pose import RelativePose
from lisrd.image import read_image

#: A homography whose matrix, scaled to norm 1, has a smaller determinant maps an image to a line.
DEGENERATE = 1e-12


@dataclass(frozen=True, slots=True)
class EvaluationImage:
    """A file, and what is done to it before it is described."""

    path: Path
    steps: tuple[Step, ...] = ()

    def read(self) -> Prepared:
        """The prepared image and the homography from original to prepared pixels.

        Raises `InputError` where the file cannot be read.
        """
        image, transform = read_image(self.path), torch.eye(3, dtype=torch.float64)
        for step in self.steps:
            image, moved = step(image)
            transform = moved @ transform
        return image, transform

    @property
    def key(self) -> str:
        """A short name of its own for the file that holds its features."""
        identity = f"{self.path.resolve()} {self.steps}"
        return f"{self.path.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"

    def then(self, *steps: Step) -> EvaluationImage:
        """The same file with more done to it."""
        return EvaluationImage(self.path, (*self.steps, *steps))


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationPair:
    """Two images and how one moves to the other, in original pixels: a homography or a relative pose.

    `broken` says why there is no usable ground truth; such a pair is reported and counted, but not in the
    means. `part` is the row it counts in besides `all`.
    """

    name: str
    scene: str
    part: str
    image0: EvaluationImage
    image1: EvaluationImage
    H_0to1: Float[Tensor, "3 3"] | None = None
    pose: RelativePose | None = None
    broken: str | None = None
    tags: dict[str, Any] = field(default_factory=dict)


def read_homography(path: Path) -> tuple[Float[Tensor, "3 3"] | None, str | None]:
    """The matrix in a text file of nine numbers, or None and the reason why there is none."""
    if not path.is_file():
        return None, f"no homography: {path} is missing"
    try:
        numbers = np.loadtxt(path, dtype=np.float64).ravel()
    except ValueError as error:
        return None, f"no homography: {path} is not a table of numbers ({error})"
    return checked_homography(numbers, str(path))


def checked_homography(numbers: np.ndarray, where: str) -> tuple[Float[Tensor, "3 3"] | None, str | None]:
    """Nine finite numbers that can be inverted, as a matrix; or None and what is wrong."""
    if numbers.size != 9:
        return None, f"no homography: {where} holds {numbers.size} numbers, not 9"
    if not np.isfinite(numbers).all() or not numbers.any():
        return None, f"degenerate homography: {where} is zero or not finite"
    H = numbers.reshape(3, 3)
    if abs(np.linalg.det(H / np.linalg.norm(H))) < DEGENERATE:
        return None, f"degenerate homography: {where} cannot be inverted"
    return torch.from_numpy(H.copy()), None


def require_folder(folder: Path, layout: str, expected: str, source: str) -> None:
    """Raise `InputError` where a data set is absent, with what should lie there and who offers it."""
    if not folder.is_dir():
        raise InputError(f"no {layout} data at {folder}: it should hold {expected}; get it from {source}")
