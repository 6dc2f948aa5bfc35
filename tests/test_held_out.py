"""The held-out pairs of `benchmarks.held_out`: which photographs, and homographies that say what the images show."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))  # the benchmarks are no part of the installed package

from benchmarks import held_out  # noqa: E402

from lisrd.evaluate.datasets import load_pairs  # noqa: E402
from lisrd.evaluate.datasets.records import EvaluationImage, EvaluationPair  # noqa: E402
from lisrd.verify.geometry import project  # noqa: E402

CONFIG = """
[[data.sources]]
kind = "scenes"
path = "webcam"
validation = ["kept", "single"]
"""
#: Where the photographs of `kept` have their one bright spot; away from the centre, in no symmetric place.
SPOT = (101, 47)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A scene that is trained on, one of eight photographs and one of a single photograph that are kept."""
    image = np.zeros((120, 160, 3), np.float32)
    image[SPOT[1], SPOT[0]] = 1
    spot = cv2.GaussianBlur(image, (0, 0), 4)
    for scene, count in {"kept": 8, "single": 1, "trained": 3}.items():
        folder = tmp_path / "data" / "webcam" / scene
        folder.mkdir(parents=True)
        for k in range(count):  # each as bright as no other
            cv2.imwrite(str(folder / f"{k}.png"), np.round((60 + 20 * k) * spot / spot.max()))
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path


def write_pairs(data: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> list[EvaluationPair]:
    words = ["--data", str(data / "data"), "--out", str(data / "out"), "--config", str(data / "config.toml")]
    monkeypatch.setattr(sys, "argv", ["held_out", *words, *options])
    held_out.main()
    return load_pairs(data / "out", "hpatches", resize=False)


def test_six_photographs_of_the_kept_scene(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = write_pairs(data, monkeypatch)
    assert [pair.name for pair in pairs] == [f"i_kept_0/1-{k}" for k in range(2, 7)]
    assert all(torch.equal(pair.H_0to1, torch.eye(3, dtype=torch.float64)) for pair in pairs)
    images = [pairs[0].image0, *(pair.image1 for pair in pairs)]
    brightness = {int(image.read()[0].max()) for image in images}
    assert len(brightness) == 6
    assert brightness <= {60 + 20 * k for k in range(8)}


def test_warped_photographs_show_what_their_homographies_say(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write_pairs(data, monkeypatch, "--warped")
    assert [pair.part for pair in pairs] == ["illumination"] * 5 + ["viewpoint"] * 5
    seen = []
    for plain, warped in zip(pairs[:5], pairs[5:], strict=True):
        assert torch.equal(as_tensor(plain.image0), as_tensor(warped.image0))
        place = project(np.array([SPOT], float), warped.H_0to1.numpy())[0]
        image = as_tensor(warped.image1)[..., 0].double().numpy()
        if (place > 12).all() and (place < np.array([160, 120]) - 13).all():
            assert abs(centre_of_mass(image) - place).max() < 0.5
            assert abs(image.max() - int(as_tensor(plain.image1).max())) < 6  # the same photograph
            seen.append(warped.name)
    assert len(seen) >= 3


def test_warps_are_about_the_centre_of_the_image() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        H = held_out.random_homography(641, 481, rng)
        np.testing.assert_allclose(project(np.array([[320.0, 240.0]]), H), [[320, 240]], atol=1e-9)
        near = project(np.array([[320.0, 240.0], [320.01, 240.0], [320.0, 240.01]]), H)
        area = np.linalg.det((near[1:] - near[0]) / 0.01)
        assert held_out.SCALES[0] ** 2 < area < held_out.SCALES[1] ** 2


def as_tensor(image: EvaluationImage) -> torch.Tensor:
    return torch.as_tensor(image.read()[0])


def centre_of_mass(image: np.ndarray) -> np.ndarray:
    y, x = np.indices(image.shape)
    return np.array([(image * x).sum(), (image * y).sum()]) / image.sum()
