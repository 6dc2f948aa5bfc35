"""COLMAP (Schönberger and Frahm, CVPR 2016): from a folder of images to a reconstruction with our features."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lisrd.adapters.colmap_database import load_pycolmap, opened, write_database
from lisrd.describe import Describer
from lisrd.describe.describer import described_invariances
from lisrd.errors import InputError
from lisrd.match import Policy
from lisrd.one_writer import claim
from lisrd.scale import (
    exhaustive_pairs,
    extract,
    image_names,
    match_pairs,
    similar_pairs,
    write_pairs,
)
from lisrd.scale.extract import Progress
from lisrd.scale.images import find_images, image_root
from lisrd.scale.pairs import Pair
from lisrd.whole_file import writing

#: Up to here all pairs are matched; beyond, each image with this many of those that look most alike.
_EXHAUSTIVE_IMAGES, _SIMILAR_IMAGES = 60, 30

_SMALLEST_MODEL = 3  # COLMAP's default of 10 would drop every small collection


@dataclass(frozen=True, slots=True)
class ReconstructionReport:
    """The largest model of a collection.

    `registered` of `images` have a pose, `points` were triangulated, `reprojection_error` is their mean in pixels (None
    without a model). `verified` of `pairs` agree with a two-view geometry. `models` counts all models; `folder` holds
    the largest. `broken` lists the images that could not be described, with the reason.
    """

    images: int
    registered: int
    points: int
    reprojection_error: float | None
    pairs: int
    verified: int
    models: int
    folder: Path | None
    broken: list[tuple[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "folder": None if self.folder is None else str(self.folder)}


def reconstruct(
    images: Path,
    workspace: Path,
    describer: Describer,
    *,
    detector: str = "sift",
    max_keypoints: int = 4096,
    pairs: Sequence[Pair] | None = None,
    policy: Policy = Policy(),
    one_camera: bool = False,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> ReconstructionReport:
    """Features, matches, COLMAP's database, verification and incremental mapping of a folder of images.

    Everything is written to `workspace`: features.h5 and matches.h5 (resumed by another call), pairs.txt, database.db,
    and the models in sparse/. Without `pairs` all pairs are matched in small collections and the most similar ones in
    large ones. `one_camera` says that all images of one size come from one camera.

    Raises:
        InputError: no images, a workspace made with other settings, pairs of images that are not there, or a large
            collection and a describer without meta descriptors.
        MissingExtraError: pycolmap is not installed.
    """
    load_pycolmap()
    if pairs is None:
        _check_similar(describer, len(find_images(images)))
    with writing(workspace):
        workspace.mkdir(parents=True, exist_ok=True)
    features = workspace / "features.h5"
    extracted = extract(
        images, features, describer, max_keypoints, on_progress, detector=detector, keep_turns=True
    )
    names = image_names(features, images)
    pairs = _default_pairs(features, names) if pairs is None else list(pairs)
    unknown = sorted({name for pair in pairs for name in pair} - set(names))
    if unknown:
        raise InputError(f"the pairs name {unknown[0]}, which was not described; leave it out")
    write_pairs(pairs, workspace / "pairs.txt")
    match_pairs(features, pairs, workspace / "matches.h5", policy, on_progress)
    report = map_matches(workspace, pairs, image_root(images), one_camera, seed, names)
    return replace(report, images=report.images + len(extracted.broken), broken=extracted.broken)


def map_matches(
    workspace: Path,
    pairs: Sequence[Pair],
    image_folder: Path | None = None,
    one_camera: bool = False,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> ReconstructionReport:
    """Verification and mapping of a workspace with features.h5 and matches.h5, whoever matched them.

    Without `image_folder` focal lengths are guessed and points have no colours. Without `names` all images of
    features.h5 take part. Models of an earlier call are replaced. Raises like `reconstruct`.
    """
    pycolmap = load_pycolmap()
    with closing(claim(workspace / ".lock", workspace)):
        return _mapped(pycolmap, workspace, pairs, image_folder, one_camera, seed, names)


def _mapped(
    pycolmap: Any,
    workspace: Path,
    pairs: Sequence[Pair],
    image_folder: Path | None,
    one_camera: bool,
    seed: int,
    names: Sequence[str] | None,
) -> ReconstructionReport:
    database, sparse, new = (workspace / name for name in ("database.db", "sparse", "sparse.new"))
    ids = write_database(
        database, workspace / "features.h5", workspace / "matches.h5", pairs, image_folder, one_camera, names
    )
    shutil.rmtree(new, ignore_errors=True)
    with writing(new):
        new.mkdir()
    with _only_errors(pycolmap):
        _verify(pycolmap, database, seed)
        models = _map(pycolmap, database, image_folder, new, seed)
    shutil.rmtree(sparse, ignore_errors=True)  # an earlier reconstruction stays until this one is there
    new.rename(sparse)
    with opened(pycolmap, database) as db:
        verified = len(db.read_two_view_geometry_num_inliers()[0])  # the others have a row without inliers
    report = ReconstructionReport(len(ids), 0, 0, None, len(pairs), verified, len(models), None)
    return replace(report, **_largest(models, sparse)) if models else report


def _default_pairs(features: Path, names: Sequence[str]) -> list[Pair]:
    if len(names) <= _EXHAUSTIVE_IMAGES:
        return exhaustive_pairs(names)
    return similar_pairs(features, _SIMILAR_IMAGES, names)


def _check_similar(describer: Describer, count: int) -> None:
    if count > _EXHAUSTIVE_IMAGES and len(described_invariances(describer)) == 1:
        raise InputError(
            f"{describer.name} has no meta descriptors to tell which of {count} images look alike; use another "
            f"describer, for instance pyramid, or at most {_EXHAUSTIVE_IMAGES} images"
        )


def _verify(pycolmap: Any, database: Path, seed: int) -> None:
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = seed
    pycolmap.geometric_verification(database, two_view_geometry_options=options)


def _map(
    pycolmap: Any, database: Path, image_folder: Path | None, sparse: Path, seed: int
) -> Mapping[int, Any]:
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size = _SMALLEST_MODEL
    options.random_seed = seed
    options.extract_colors = image_folder is not None
    return pycolmap.incremental_mapping(database, image_folder or sparse, sparse, options)


def _largest(models: Mapping[int, Any], sparse: Path) -> dict[str, Any]:
    number, best = max(models.items(), key=lambda item: (item[1].num_reg_images(), item[1].num_points3D()))
    return {
        "registered": best.num_reg_images(),
        "points": best.num_points3D(),
        "reprojection_error": best.compute_mean_reprojection_error(),
        "folder": sparse / str(number),
    }


@contextmanager
def _only_errors(pycolmap: Any) -> Iterator[None]:
    """COLMAP tells every step on standard error; what matters is in the report."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = 2
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before
