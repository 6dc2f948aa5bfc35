"""Any folder of image pairs with known homographies, listed in ROOT/pairs.txt.

One pair a line, separated by spaces; `#` starts a comment:

    image0 image1 h11 h12 h13 h21 h22 h23 h31 h32 h33 [part]

Paths are relative to ROOT; the homography leads from image 0 to image 1, in pixels as in `lisrd.coordinates`.
`part` groups the rows of the report (`all` where it is left out).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from lisrd.errors import InputError
from lisrd.evaluate.datasets.records import (
    EvaluationImage,
    EvaluationPair,
    checked_homography,
    require_folder,
)
from lisrd.text_files import read_lines

ROW = "image0 image1 h11 h12 h13 h21 h22 h23 h31 h32 h33 [part]"


def homography_pairs(root: Path) -> list[EvaluationPair]:
    """The pairs of `root`/pairs.txt.

    Raises `InputError` where the list is missing or empty, or a line does not begin with two images.
    """
    require_folder(root, "pairs", f"images and pairs.txt with rows `{ROW}`", "your own images")
    table = root / "pairs.txt"
    if not table.is_file():
        raise InputError(f"no {table}: write one row `{ROW}` for each pair")
    lines = [line.partition("#")[0].split() for line in read_lines(table)]
    pairs = [_pair(root, words, f"{table}:{number}") for number, words in enumerate(lines, 1) if words]
    if not pairs:
        raise InputError(f"{table} lists no pairs: write one row `{ROW}` for each pair")
    return pairs


def _pair(root: Path, words: list[str], where: str) -> EvaluationPair:
    if len(words) < 2:
        raise InputError(f"{where}: '{' '.join(words)}' is not a row `{ROW}`")
    H, broken = _homography(words[2:11], where)
    image0, image1 = (EvaluationImage(root / word) for word in words[:2])
    part = words[11] if len(words) > 11 else "all"
    scene = Path(words[0]).parent.as_posix()
    return EvaluationPair(f"{words[0]}-{words[1]}", scene, part, image0, image1, H, broken=broken)


def _homography(words: list[str], where: str) -> tuple[Float[Tensor, "3 3"] | None, str | None]:
    try:
        numbers = np.array(words, dtype=np.float64)
    except ValueError:
        return None, f"no homography: {where} has no nine numbers after the two images"
    return checked_homography(numbers, where)
