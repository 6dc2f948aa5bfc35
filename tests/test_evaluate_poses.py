"""Relative pose: a scene of two boards whose truth is exact, COLMAP models as truth, and real photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boards import K, camera, view
from lisrd.describe import build_describer
from lisrd.errors import InputError
from lisrd.evaluate import evaluate
from lisrd.evaluate.datasets import load_pairs
from lisrd.evaluate.datasets.colmap_model import write_pose_pairs
from lisrd.evaluate.metrics.pose import RelativePose

#: The camera as stored, turned clockwise by a quarter: its x axis is the upright one's -y, its y axis the x.
CLOCKWISE = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
K_CLOCKWISE = np.array([[600.0, 0, 179.5], [0, 600.0, 239.5], [0, 0, 1]])


def motion(degrees: float) -> np.ndarray:
    """A step to the left with a turn about the y axis, and a little of both elsewhere."""
    return camera((0.6, 0.05, -0.1), (2.0, degrees, -4.0))


def row(name0: str, name1: str, turns1: int, K1: np.ndarray, T: np.ndarray) -> str:
    numbers = np.concatenate([K.ravel(), K1.ravel(), T.ravel()])
    return f"{name0} {name1} 0 {turns1} " + " ".join(map(repr, numbers.tolist()))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One camera moves; its second image is stored upright, and turned clockwise by a quarter."""
    root = tmp_path_factory.mktemp("boards")
    T = motion(-8)
    images = {"0.png": view(np.eye(4)), "1.png": view(T), "turned.png": np.rot90(view(T), -1)}
    for name, image in images.items():
        Image.fromarray(image).save(root / name)
    rows = [row("0.png", "1.png", 0, K, T), row("0.png", "turned.png", 1, K_CLOCKWISE, CLOCKWISE @ T)]
    (root / "pairs.txt").write_text("\n".join(rows))
    return root


def test_poses_of_an_exact_scene(scene: Path) -> None:
    document = evaluate(scene, "poses", ["root-sift", "upright-root-sift"], max_keypoints=500, progress=False)
    for describer in ("root-sift", "upright-root-sift"):
        plain, turned = (pair["scores"][describer] for pair in document["pairs"])
        assert plain["num_matches"] > 60
        assert plain["precision"] > 0.7
        assert plain["pose_error"] < 1.5
        # Put upright before it is described, the turned image is the other one pixel by pixel.
        assert turned["num_correct"] == plain["num_correct"]
        assert turned["pose_error"] == pytest.approx(plain["pose_error"], abs=0.3)
    (of_root_sift, _) = (row for row in document["rows"] if row["part"] == "all")
    assert of_root_sift["pose_auc_5"] > 0.7
    assert of_root_sift["homography_accuracy"] is None


def test_a_wrong_truth_is_missed_by_its_error(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.txt").write_text(row("0.png", "1.png", 0, K, motion(2)))
    document = evaluate(scene, "poses", ["root-sift"], progress=False, pairs_file=tmp_path / "wrong.txt")
    scores = document["pairs"][0]["scores"]["root-sift"]
    assert scores["pose_error"] == pytest.approx(10, abs=2)
    assert scores["precision"] < 0.5


def test_pairs_of_a_colmap_model_confirm_its_observations(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_frames_per_rig, options.num_points3D = 5, 80
    options.camera_model_id = pycolmap.CameraModelId.PINHOLE
    options.camera_params = [1280.0, 1290.0, 512.0, 384.0]
    model = pycolmap.synthesize_dataset(options)
    model.write(tmp_path)
    count = write_pose_pairs(tmp_path, tmp_path / "pairs.txt")
    pairs = load_pairs(tmp_path, "poses")
    assert len(pairs) == count > 5
    images = {image.name: image for image in model.images.values()}
    for pair in pairs:
        assert pair.pose is not None
        points = [observed(images[image.path.name]) for image in (pair.image0, pair.image1)]
        shared = sorted(set(points[0]) & set(points[1]))
        assert len(shared) >= 30
        points0, points1 = (np.array([one[k] for k in shared]) for one in points)
        assert epipolar_residual(points0, points1, pair.pose) < 1e-9
        assert epipolar_residual(points0 + 0.5, points1, pair.pose) > 1e-5  # COLMAP's own pixels


def epipolar_residual(points0: np.ndarray, points1: np.ndarray, truth: RelativePose) -> float:
    """The largest |x1 . (t x R x0)| of rays through these pixels, t being of length 1."""
    K0, K1, T = (matrix.numpy() for matrix in (truth.K0, truth.K1, truth.T_0to1))
    rays0, rays1 = (
        np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(camera).T
        for points, camera in ((points0, K0), (points1, K1))
    )
    translation = T[:3, 3] / np.linalg.norm(T[:3, 3])
    return float(np.abs((rays1 * np.cross(translation, rays0 @ T[:3, :3].T)).sum(1)).max())


def observed(image: Any) -> dict[int, np.ndarray]:
    """Pixels, as we count them, of the points that an image sees."""
    return {p.point3D_id: p.xy - 0.5 for p in image.points2D if p.has_point3D()}


def test_folders_without_a_model_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    with pytest.raises(InputError, match="no COLMAP model in"):
        write_pose_pairs(tmp_path, tmp_path / "pairs.txt")


@pytest.mark.slow
def test_photographs_with_the_poses_of_their_reconstruction(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    from lisrd.adapters.colmap import reconstruct

    photographs = shared / "data" / "eval" / "sfm"
    if not photographs.is_dir():
        pytest.skip(f"no {photographs}: the photographs are not at hand")
    report = reconstruct(photographs, tmp_path, build_describer("root-sift"))
    assert report.folder is not None
    table = tmp_path / "poses.txt"
    count = write_pose_pairs(report.folder, table, shared_points=40)
    assert count >= 3  # COLMAP does not register the same photographs every time
    some = table.read_text().splitlines(keepends=True)[::3]
    table.write_text("".join(some))
    names = ["root-sift", "pyramid"]
    document = evaluate(photographs, "poses", names, progress=False, pairs_file=table, longest_side=480)
    for describer in names:
        (found,) = [r for r in document["rows"] if (r["describer"], r["part"]) == (describer, "all")]
        assert found["pairs"] == len(some)
        assert found["pose_auc_20"] > 0.25, (describer, found)
        assert found["precision"] > 0.15
