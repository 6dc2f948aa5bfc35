"""COLMAP's database of our keypoints and matches, through pycolmap.

COLMAP counts pixels from the corner of the image, (0.5, 0.5) is the centre of the first: half a pixel is added here and
nowhere else. It also ignores the EXIF orientation that we obey, so cameras are made from our image sizes, not by COLMAP
from the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import UInt32

from lisrd.errors import InputError, MissingExtraError
from lisrd.scale.layout import names_to_pair
from lisrd.scale.pairs import Pair, image_names
from lisrd.scale.store import open_h5

_FOCAL_LENGTH = 1.2  # per larger side, COLMAP's guess for a camera without EXIF


def write_database(
    database: Path,
    features: Path,
    matches: Path,
    pairs: Sequence[Pair],
    image_folder: Path | None = None,
    one_camera: bool = False,
    names: Sequence[str] | None = None,
) -> dict[str, int]:
    """A new COLMAP database of the keypoints and matches of our files; returns the ids of the images by name.

    `names` are the images that it is about, by default all of `features`.

    The focal length comes from the EXIF data of the files in `image_folder`, or is guessed. An older database at this
    place is replaced.

    Raises:
        InputError: a pair that was not matched.
        MissingExtraError: pycolmap is not installed.
    """
    pycolmap = load_pycolmap()
    for suffix in ("", "-shm", "-wal"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    with open_h5(features) as file, open_h5(matches) as matched, opened(pycolmap, database) as db:
        names = image_names(features) if names is None else names
        ids = _write_images(pycolmap, db, file, names, image_folder, one_camera)
        for name0, name1 in pairs:
            indices = read_matches(matched, name0, name1)
            if len(indices):
                db.write_matches(ids[name0], ids[name1], indices)
    return ids


def read_matches(file: h5py.File, name0: str, name1: str) -> UInt32[np.ndarray, "S 2"]:
    """Index pairs of a matches file, whichever direction was matched. Raises InputError where none was."""
    for key, step in ((names_to_pair(name0, name1), 1), (names_to_pair(name1, name0), -1)):
        if key in file:
            matches0 = np.asarray(file[key]["matches0"][()])
            if matches0.ndim != 1 or matches0.dtype.kind != "i":
                raise InputError(
                    f"{file.filename}, {key}: matches0 is no list of indices; match the pair again"
                )
            index0 = np.flatnonzero(matches0 >= 0)
            return np.stack([index0, matches0[index0]], axis=1)[:, ::step].astype(np.uint32)
    raise InputError(f"{file.filename} has no matches of {name0} and {name1}; match the pair first")


def _write_images(
    pycolmap: Any,
    db: Any,
    features: h5py.File,
    names: Sequence[str],
    image_folder: Path | None,
    one_camera: bool,
) -> dict[str, int]:
    ids: dict[str, int] = {}
    rigs: dict[tuple[int, int], tuple[Any, int]] = {}
    for name in names:
        width, height = (int(side) for side in features[name]["image_size"][()])
        if not (one_camera and (width, height) in rigs):
            path = None if image_folder is None else image_folder / name
            rigs[width, height] = _write_camera(pycolmap, db, width, height, path)
        camera, rig_id = rigs[width, height]
        ids[name] = _write_image(pycolmap, db, name, camera, rig_id)
        db.write_keypoints(ids[name], features[name]["keypoints"][()] + 0.5)
    return ids


def _write_camera(pycolmap: Any, db: Any, width: int, height: int, path: Path | None) -> tuple[Any, int]:
    """A camera and its trivial rig, which COLMAP wants since version 3.12."""
    focal, from_exif = _focal_length(pycolmap, width, height, path)
    camera = pycolmap.Camera.create_from_model_name(
        pycolmap.INVALID_CAMERA_ID, "SIMPLE_RADIAL", focal, width, height
    )
    camera.has_prior_focal_length = from_exif
    camera.camera_id = db.write_camera(camera)
    rig = pycolmap.Rig()
    rig.add_ref_sensor(camera.sensor_id)
    return camera, db.write_rig(rig)


def _focal_length(pycolmap: Any, width: int, height: int, path: Path | None) -> tuple[float, bool]:
    """In pixels, and whether EXIF data say so."""
    guess = _FOCAL_LENGTH * max(width, height)
    if path is None:
        return guess, False
    try:
        camera = pycolmap.infer_camera_from_image(path)
    except (ValueError, RuntimeError):  # a format that COLMAP does not read
        return guess, False
    return (camera.focal_length, True) if camera.has_prior_focal_length else (guess, False)


def _write_image(pycolmap: Any, db: Any, name: str, camera: Any, rig_id: int) -> int:
    image = pycolmap.Image(name=name, camera_id=camera.camera_id)
    image.image_id = db.write_image(image)
    frame = pycolmap.Frame()
    frame.rig_id = rig_id
    frame.add_data_id(image.data_id)
    db.write_frame(frame)
    return image.image_id


def load_pycolmap() -> Any:
    """The module, imported where it is needed. Raises MissingExtraError where it is not installed."""
    try:
        import pycolmap
    except ImportError:
        raise MissingExtraError("sfm", "reconstruction with COLMAP") from None
    return pycolmap


@contextmanager
def opened(pycolmap: Any, database: Path) -> Iterator[Any]:
    """The database, closed at the end; a new one where there is none."""
    db = pycolmap.Database.open(database)
    try:
        yield db
    finally:
        db.close()
