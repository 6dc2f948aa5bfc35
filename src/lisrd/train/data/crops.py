"""Random crops of photographs, and the keypoints in them; `size` is (height, width) of the crop."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

_BORDER = 3  # keypoints closer to the border, in pixels, are of no use to any loss
_TILES = 3  # per side; keypoints are spread over them


def random_crop(
    photo_size: tuple[int, int], size: tuple[int, int], rng: np.random.Generator
) -> Float[np.ndarray, "2 3"]:
    """Affine map from photograph to crop: a window between the crop's own size and the largest.

    Half of the crops are mirrored; a photograph smaller than the crop is enlarged.
    """
    (photo_height, photo_width), (height, width) = photo_size, size
    largest = min(photo_height / height, photo_width / width)
    window = largest if largest <= 1 else np.exp(rng.uniform(0, np.log(largest)))
    left, top = rng.random(2) * (photo_width - window * width, photo_height - window * height)
    # Pixel areas: x' + 0.5 = (x + 0.5 - left) / window.
    transform = np.array([[1, 0, 0.5 - left], [0, 1, 0.5 - top]]) / window - [[0, 0, 0.5], [0, 0, 0.5]]
    if rng.random() < 0.5:
        transform[0] = [-transform[0, 0], 0, width - 1 - transform[0, 2]]
    return transform


def keypoints_in_crop(
    keypoints: Float[np.ndarray, "n 4"], transform: Float[np.ndarray, "2 3"], size: tuple[int, int]
) -> Float[np.ndarray, "m 4"]:
    """Rows of x, y, scale, orientation carried from the photograph; not those near the border."""
    x, y, scale, ori = keypoints.T
    zoom, mirrored = transform[1, 1], transform[0, 0] < 0
    x, y = transform[0, 0] * x + transform[0, 2], zoom * y + transform[1, 2]
    carried = np.column_stack([x, y, zoom * scale, np.pi - ori if mirrored else ori])
    height, width = size
    inside = (x >= _BORDER) & (x <= width - 1 - _BORDER) & (y >= _BORDER) & (y <= height - 1 - _BORDER)
    return carried[inside]


def spread(xy: Float[np.ndarray, "n 2"], size: tuple[int, int], limit: int) -> Int[np.ndarray, " m"]:
    """Indices of at most `limit` keypoints: the strongest of every tile first, then the strongest others.

    The strongest come first in `xy`, and stay first.
    """
    height, width = size
    column, row = (xy / [width, height] * _TILES).astype(int).T
    tile = row * _TILES + column
    rank = np.zeros(len(xy), int)
    for t in range(_TILES**2):
        rank[tile == t] = np.arange((tile == t).sum())
    beyond_share = rank >= limit // _TILES**2
    return np.sort(np.argsort(beyond_share, kind="stable")[:limit])
