"""COLMAP: a synthetic scene through the database to a model, and real photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lisrd.adapters.colmap import map_matches, reconstruct
from lisrd.adapters.colmap_database import write_database
from lisrd.describe import build_describer
from lisrd.errors import InputError
from lisrd.scale import exhaustive_pairs, extract, image_names, match_pairs, read_features
from lisrd.scale.layout import feature_datasets
from lisrd.scale.store import ResumableStore
from lisrd.types import LocalFeatures, Selection
from small_describer import SmallDescriber

pycolmap = pytest.importorskip("pycolmap")

WIDTH, HEIGHT, FOCAL = 640, 480, 768.0  # COLMAP's guess of the focal length: 1.2 times the larger side
NUM_POINTS = 160


def camera(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and centre of one of the cameras on an arc around the scene, all looking at its middle."""
    angle = np.radians(12 * (index - 2))
    centre = np.array([8 * np.sin(angle), 0.4 * index - 1, -8 * np.cos(angle)])
    forward = -centre / np.linalg.norm(centre)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward]), centre


def projected(points: np.ndarray, index: int) -> np.ndarray:
    """Pixels of the points in COLMAP's convention: the corner of the image is (0, 0)."""
    rotation, centre = camera(index)
    seen = (points - centre) @ rotation.T
    return FOCAL * seen[:, :2] / seen[:, 2:] + [WIDTH / 2, HEIGHT / 2]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A workspace with features of six images of a cloud of points; every point has a descriptor of its own."""
    workspace = tmp_path_factory.mktemp("scene")
    dice = np.random.default_rng(0)
    points = dice.uniform(-1.6, 1.6, (NUM_POINTS, 3))
    descriptors = torch.nn.functional.normalize(
        torch.from_numpy(dice.normal(size=(NUM_POINTS, 2, 64))).float(), dim=-1
    )
    with ResumableStore(workspace / "features.h5", {"kind": "features"}) as store:
        for index in range(6):
            order = torch.from_numpy(dice.permutation(NUM_POINTS))
            xy = torch.from_numpy(projected(points, index) - 0.5).float()[order]
            features = LocalFeatures(
                keypoints=xy[None],
                keypoint_scores=torch.ones(1, NUM_POINTS),
                descriptors=descriptors[order][None],
                meta_descriptors=torch.ones(1, 2, 1, 1, 1),
                image_size=torch.tensor([[WIDTH, HEIGHT]]).float(),
                mask=torch.ones(1, NUM_POINTS, dtype=torch.bool),
                selection=Selection(("a", "b")),
            )
            store.write(f"{index}.png", feature_datasets(features))
    names = image_names(workspace / "features.h5")
    match_pairs(workspace / "features.h5", exhaustive_pairs(names), workspace / "matches.h5")
    return workspace, points


def test_the_database_holds_colmaps_pixels_and_our_matches(scene: tuple[Path, np.ndarray], tmp_path: Path):
    workspace, points = scene
    pairs = [("1.png", "0.png"), ("2.png", "5.png")]  # the first was matched in the other direction
    ids = write_database(tmp_path / "d.db", workspace / "features.h5", workspace / "matches.h5", pairs)
    db = pycolmap.Database.open(tmp_path / "d.db")
    features = {name: read_features(workspace / "features.h5", name) for name in ids}
    for index, name in enumerate(sorted(ids)):
        stored = db.read_keypoints(ids[name])
        expected = projected(points, index)
        nearest = np.linalg.norm(stored[:, None, :2] - expected, axis=2).min(0)
        assert nearest.max() < 1e-3  # half a pixel from our own
        np.testing.assert_allclose(stored[:, :2] - 0.5, features[name].keypoints[0], atol=1e-4)
    image = db.read_image(ids["0.png"])
    made = db.read_camera(image.camera_id)
    assert (made.width, made.height, made.focal_length) == (WIDTH, HEIGHT, FOCAL)
    assert db.num_matched_image_pairs() == 2
    for name0, name1 in pairs:
        matches = db.read_matches(ids[name0], ids[name1])
        assert len(matches) == NUM_POINTS
        descriptors0 = features[name0].descriptors[0, matches[:, 0].astype(int)]
        descriptors1 = features[name1].descriptors[0, matches[:, 1].astype(int)]
        torch.testing.assert_close(descriptors0, descriptors1)
    db.close()


def test_the_synthetic_scene_is_reconstructed(scene: tuple[Path, np.ndarray]):
    workspace, _ = scene
    pairs = exhaustive_pairs(image_names(workspace / "features.h5"))
    report = map_matches(workspace, pairs, one_camera=True)
    assert (report.images, report.registered, report.models) == (6, 6, 1)
    assert (report.pairs, report.verified) == (15, 15)
    assert report.points > 0.95 * NUM_POINTS
    assert report.reprojection_error is not None
    assert report.reprojection_error < 0.05
    model = pycolmap.Reconstruction(report.folder)
    centres = {image.name: image.projection_center() for image in model.images.values()}
    found = np.array([centres[f"{i}.png"] for i in range(6)])
    true = np.array([camera(i)[1] for i in range(6)])

    def shape(positions: np.ndarray) -> np.ndarray:
        distances = np.linalg.norm(positions[:, None] - positions, axis=2)
        return distances / distances.max()

    np.testing.assert_allclose(shape(found), shape(true), atol=0.01)  # up to a similarity


def test_images_turned_by_exif_have_the_camera_of_what_is_seen(
    tmp_path: Path, photograph: np.ndarray, scene: tuple[Path, np.ndarray]
):
    (tmp_path / "images").mkdir()
    picture = Image.fromarray(photograph[:120, :200])
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter: 200 x 120 in the file, 120 x 200 on the screen
    picture.save(tmp_path / "images" / "a.jpg", exif=exif)
    picture.save(tmp_path / "images" / "b.jpg")
    extract(tmp_path / "images", tmp_path / "f.h5", SmallDescriber(), 50)  # type: ignore[arg-type]
    match_pairs(tmp_path / "f.h5", [("a.jpg", "b.jpg")], tmp_path / "m.h5")
    ids = write_database(tmp_path / "d.db", tmp_path / "f.h5", tmp_path / "m.h5", [], tmp_path / "images")
    db = pycolmap.Database.open(tmp_path / "d.db")
    sizes = []
    for name in ("a.jpg", "b.jpg"):
        made = db.read_camera(db.read_image(ids[name]).camera_id)
        sizes.append((made.width, made.height, made.principal_point_x))
    db.close()
    assert sizes == [(120, 200, 60), (200, 120, 100)]


def test_a_pair_that_was_not_matched_is_named(scene: tuple[Path, np.ndarray], tmp_path: Path):
    workspace, _ = scene
    with pytest.raises(InputError, match=r"no matches of 0\.png and 9\.png"):
        write_database(
            tmp_path / "d.db", workspace / "features.h5", workspace / "matches.h5", [("0.png", "9.png")]
        )


def test_nothing_in_common_is_an_ordinary_answer(tmp_path: Path):
    from skimage import data

    (tmp_path / "images").mkdir()
    for name, photograph in (("astronaut", data.astronaut()), ("coffee", data.coffee())):
        Image.fromarray(photograph[:160, :160]).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "images" / "broken.png").write_text("no image")
    report = reconstruct(tmp_path / "images", tmp_path / "work", SmallDescriber(), max_keypoints=100)  # type: ignore[arg-type]
    assert (report.images, report.registered, report.points, report.folder) == (3, 0, 0, None)
    assert report.reprojection_error is None
    assert (report.pairs, report.verified) == (1, 0)
    assert [name for name, _ in report.broken] == ["broken.png"]
    assert report.as_dict()["broken"] == report.broken


def test_photographs_that_are_gone_are_left_out(tmp_path: Path, photograph: np.ndarray):
    folder, work = tmp_path / "images", tmp_path / "work"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(photograph[:160, 40 * i : 160 + 40 * i]).save(folder / f"{i}.png")
    images = {"describer": SmallDescriber(), "max_keypoints": 50}
    assert reconstruct(folder, work, **images).images == 3  # type: ignore[arg-type]
    (folder / "0.png").unlink()
    report = reconstruct(folder, work, **images)  # type: ignore[arg-type]
    assert (report.images, report.pairs) == (2, 1)
    with pytest.raises(InputError, match=r"the pairs name 0\.png"):
        reconstruct(folder, work, **images, pairs=[("0.png", "1.png")])  # type: ignore[arg-type]


def test_a_large_collection_needs_meta_descriptors(tmp_path: Path):
    for i in range(61):
        (tmp_path / f"{i}.png").touch()
    with pytest.raises(InputError, match="root-sift has no meta descriptors to tell which of 61 images"):
        reconstruct(tmp_path, tmp_path / "work", build_describer("root-sift"))
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_ten_photographs_of_one_church(shared: Path, tmp_path: Path):
    folder = shared / "data" / "eval" / "sfm"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    report = reconstruct(folder, tmp_path, build_describer("root-sift"), max_keypoints=2048)
    assert report.images == 10
    assert report.registered >= 8
    assert report.points > 300
    assert report.reprojection_error is not None
    assert report.reprojection_error < 1.5
