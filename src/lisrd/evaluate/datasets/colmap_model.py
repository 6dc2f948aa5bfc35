"""A COLMAP model as ground truth of relative pose: its image pairs in the rows of `pose_pairs`.

The model should come from something better than what is evaluated on it: many images, or another sensor. With the same
images and features its errors are those of the method, and only the differences between describers mean something.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from lisrd.errors import InputError, MissingExtraError
from lisrd.whole_file import whole_file

#: Pairs that see fewer points together hardly overlap.
SHARED_POINTS = 30


def write_pose_pairs(model: Path, table: Path, shared_points: int = SHARED_POINTS) -> int:
    """Write a row for every pair of registered images that see at least `shared_points` points together.

    `model` is a folder with cameras, images and points3D; paths in the rows are the model's image names, so that ROOT
    of `lisrd evaluate ROOT --layout poses` is its image folder. Lens distortion is left out of the intrinsics. Returns
    the number of rows.

    Raises:
        InputError: no model in this folder, or none of its pairs sees as many points.
        MissingExtraError: pycolmap is not installed.
    """
    reconstruction = _read(model)
    rows = [_row(reconstruction, image0, image1) for image0, image1 in _pairs(reconstruction, shared_points)]
    if not rows:
        raise InputError(
            f"no two images of {model} see {shared_points} points together: lower shared_points, or reconstruct more"
        )
    with whole_file(table) as partial:
        partial.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return len(rows)


def _read(model: Path) -> Any:
    try:
        import pycolmap
    except ImportError:
        raise MissingExtraError("sfm", "reading a COLMAP model") from None
    try:
        return pycolmap.Reconstruction(model)
    except (ValueError, RuntimeError, OSError):
        raise InputError(
            f"no COLMAP model in {model}: give the folder that holds cameras, images and points3D, for instance "
            "WORKSPACE/sparse/0"
        ) from None


def _pairs(reconstruction: Any, shared_points: int) -> Iterator[tuple[Any, Any]]:
    registered = sorted(
        (image for image in reconstruction.images.values() if image.has_pose), key=lambda image: image.name
    )
    seen = {image.name: {p.point3D_id for p in image.points2D if p.has_point3D()} for image in registered}
    for image0, image1 in combinations(registered, 2):
        if len(seen[image0.name] & seen[image1.name]) >= shared_points:
            yield image0, image1


def _row(reconstruction: Any, image0: Any, image1: Any) -> str:
    T_0to1 = np.eye(4)
    T_0to1[:3] = (image1.cam_from_world() * image0.cam_from_world().inverse()).matrix()
    intrinsics = (_intrinsics(reconstruction.cameras[image.camera_id]) for image in (image0, image1))
    numbers = np.concatenate([*(K.ravel() for K in intrinsics), T_0to1.ravel()])
    for name in (image0.name, image1.name):
        if len(name.split()) != 1:
            raise InputError(
                f"the image name {name!r} has spaces, which separate the columns of the list: rename it"
            )
    return " ".join([image0.name, image1.name, "0", "0", *(repr(float(number)) for number in numbers)])


def _intrinsics(camera: Any) -> np.ndarray:
    K = np.array(camera.calibration_matrix())
    K[:2, 2] -= 0.5  # COLMAP counts from the corner of the first pixel
    return K
