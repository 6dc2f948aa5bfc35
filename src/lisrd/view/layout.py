"""Where the parts of the picture of two matched images lie, in pixels from its top-left corner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

WIDTH = 1600
MARGIN = 24.0
GAP = 16.0
#: Higher images would push the tile maps off a screen.
MAX_IMAGE_HEIGHT = 820.0
MAX_TILES_HEIGHT = 150.0
HEADER = 96.0
CAPTION = 58.0


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the picture, pixels."""

    left: float
    top: float
    width: float
    height: float

    def carry(
        self, points: Float[np.ndarray, "S 2"], image_size: tuple[int, int]
    ) -> Float[np.ndarray, "S 2"]:
        """Keypoints of an image (width, height) that fills this box; pixel areas scale, see `lisrd.coordinates`."""
        scale = np.array([self.width, self.height]) / image_size
        return (points + 0.5) * scale + [self.left, self.top]


@dataclass(frozen=True, slots=True)
class Layout:
    """Both images at one height beside each other; below each its row of tile maps, if there is a choice."""

    images: tuple[Box, Box]
    tiles: tuple[list[Box], list[Box]]
    height: float


def arrange(size0: tuple[int, int], size1: tuple[int, int], num_maps: int) -> Layout:
    """The layout for images of these sizes (width, height)."""
    aspects = [width / height for width, height in (size0, size1)]
    inner = WIDTH - 2 * MARGIN - GAP
    height = min(MAX_IMAGE_HEIGHT, inner / sum(aspects))
    widths = [height * aspect for aspect in aspects]
    left = MARGIN + (inner - sum(widths)) / 2
    box0 = Box(left, HEADER, widths[0], height)
    box1 = Box(left + widths[0] + GAP, HEADER, widths[1], height)
    below = HEADER + height
    if not num_maps:
        return Layout((box0, box1), ([], []), below + MARGIN)
    rows = [_row_of_maps(half, below + CAPTION, aspects[half], num_maps) for half in (0, 1)]
    lowest = max(box.top + box.height for row in rows for box in row)
    return Layout((box0, box1), (rows[0], rows[1]), lowest + MARGIN)


def _row_of_maps(half: int, top: float, aspect: float, count: int) -> list[Box]:
    """Maps of the image's aspect, within what stays readable, in the left or the right half."""
    aspect = min(max(aspect, 0.7), 2.0)
    half_width = (WIDTH - 2 * MARGIN - 2 * GAP) / 2
    column = (half_width - (count - 1) * GAP) / count
    height = min(MAX_TILES_HEIGHT, column / aspect)
    width = height * aspect
    start = MARGIN + half * (half_width + 2 * GAP)
    return [Box(start + k * (column + GAP), top, width, height) for k in range(count)]
