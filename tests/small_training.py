"""A training that takes milliseconds a step: photographs of noise, which has keypoints everywhere, and small sizes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

#: The tables [network] and [data] of a configuration; [run] is each test's own.
SMALL = """
[network]
widths = [2, 2, 2, 2, 2]
trunk_width = 4
head_width = 8
descriptor_dim = 8
[data]
height = 64
width = 96
num_keypoints = 32
min_keypoints = 8
"""


def write_photographs(folder: Path, count: int = 30) -> Path:
    """Blurred noise as PNG files; gives the folder."""
    rng = np.random.default_rng(0)
    for i in range(count):
        noise = cv2.GaussianBlur(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8), (0, 0), 2)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX))
    return folder
