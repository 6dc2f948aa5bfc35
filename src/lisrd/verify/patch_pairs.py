"""The patches around matched points of two images, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from lisrd.verify.patches import (
    MOST_LEVELS,
    PreparedImage,
    sample_offsets,
    sample_patches,
    sample_places,
    spacing_levels,
    square_grid,
)

#: Patches of image 1 of the chosen rows (R of S), under warps of theirs.
Reader = Callable[[Int[np.ndarray, " R"], Float[np.ndarray, "R 2 3"]], Float[np.ndarray, "R K"]]
#: The two images at the levels that some rows are read at, and these rows.
LevelRows = tuple[tuple[Float[np.ndarray, "H0 W0"], Float[np.ndarray, "H1 W1"]], Int[np.ndarray, " R"]]


@dataclass(frozen=True, slots=True, eq=False)
class PatchPairs:
    """Square patches of K = side * side samples around each of S matches.

    `frames` map offsets in units of the grid to pixels around `points`; each patch is read from its image at the
    level for that spacing.
    """

    image0: PreparedImage
    image1: PreparedImage
    points0: Float[np.ndarray, "S 2"]
    points1: Float[np.ndarray, "S 2"]
    frames0: Float[np.ndarray, "S 2 2"]
    frames1: Float[np.ndarray, "S 2 2"]
    side: int

    def __len__(self) -> int:
        return len(self.points0)

    def templates(self) -> Float[np.ndarray, "S K"]:
        """The patches of image 0."""
        places = sample_places(self.points0, sample_offsets(self.frames0, square_grid(self.side)))
        return sample_patches(self.image0, places, spacing_levels(self.frames0))

    def reader(self, affine: bool) -> Reader:
        """How patches of image 1 are read under warps; without `affine` these are shifts alone."""
        grid, levels = square_grid(self.side), spacing_levels(self.frames1)
        unwarped = sample_offsets(self.frames1, grid)

        def read(rows: Int[np.ndarray, " R"], warps: Float[np.ndarray, "R 2 3"]) -> Float[np.ndarray, "R K"]:
            frames = self.frames1[rows]
            centres = self.points1[rows] + (frames @ warps[:, :, 2:])[..., 0]
            offsets = sample_offsets(frames @ warps[:, :, :2], grid) if affine else unwarped[rows]
            return sample_patches(self.image1, sample_places(centres, offsets), levels[rows])

        return read

    def by_level(self) -> Iterator[LevelRows]:
        """All rows, those of the same two levels together."""
        both = spacing_levels(self.frames0) * MOST_LEVELS + spacing_levels(self.frames1)
        for level in np.flatnonzero(np.bincount(both)):
            level0, level1 = divmod(int(level), MOST_LEVELS)
            yield (self.image0.level(level0), self.image1.level(level1)), np.flatnonzero(both == level)

    def inside(self, moved1: Float[np.ndarray, "S 2"]) -> Bool[np.ndarray, " S"]:
        """Whether both patches lie within their images, those of image 1 around `moved1`."""
        corners = square_grid(self.side)[[0, self.side - 1, -self.side, -1]]
        corners0 = self.points0[:, None] + sample_offsets(self.frames0, corners)
        corners1 = moved1[:, None] + sample_offsets(self.frames1, corners)
        return self.image0.contains(corners0) & self.image1.contains(corners1)
