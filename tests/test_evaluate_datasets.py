"""Data sets in the layouts their authors publish, whole and broken, and what is done to their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lisrd.coordinates import turn_points, warp_points
from lisrd.errors import InputError
from lisrd.evaluate.datasets import LAYOUTS, load_pairs
from lisrd.evaluate.datasets.preparation import Darken, LongestSide, QuarterTurns, ResizeAndCrop, Rotate
from lisrd.evaluate.datasets.records import EvaluationImage

H_TEXT = "1 0 5\n0 1 -3\n0 0 1\n"
POSE_ROW = "a.png b.png 0 1 " + " ".join(
    map(str, [500, 0, 320, 0, 500, 240, 0, 0, 1] * 2 + list(np.eye(4).ravel()))
)


def blob_image(x: float, y: float, width: int = 120, height: int = 90) -> np.ndarray:
    """One smooth bright spot centred at (x, y)."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    spot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 50)
    return np.repeat(spot[..., None], 3, 2).astype(np.uint8)


def centre_of(image: np.ndarray) -> list[float]:
    weights = image[..., 0].astype(float)
    rows, columns = np.indices(weights.shape)
    return [float((columns * weights).sum() / weights.sum()), float((rows * weights).sum() / weights.sum())]


@pytest.mark.parametrize(
    "step",
    [
        ResizeAndCrop(64, 64),
        ResizeAndCrop(240, 100),
        LongestSide(60),
        Rotate(30.0),
        Rotate(-77.0),
        QuarterTurns(1),
    ],
    ids=repr,
)
def test_content_moves_as_the_transform_says(step: object) -> None:
    prepared, transform = step(blob_image(66, 40))
    expected = warp_points(torch.tensor([[66.0, 40.0]], dtype=torch.float64), transform)[0]
    np.testing.assert_allclose(centre_of(prepared), expected, atol=0.3)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, -1])
def test_quarter_turns_agree_with_the_convention(turns: int) -> None:
    points = torch.tensor([[3.0, 7.0], [110.0, 2.0]], dtype=torch.float64)
    _, transform = QuarterTurns(turns)(blob_image(9, 9))
    assert torch.equal(warp_points(points, transform), turn_points(points, 120, 90, turns))


def test_sizes_after_preparation(photograph: np.ndarray) -> None:
    assert ResizeAndCrop(640, 480)(photograph)[0].shape == (480, 640, 3)
    assert LongestSide(100)(photograph[:300])[0].shape == (59, 100, 3)
    assert LongestSide(1000)(photograph)[0] is photograph


def test_darkness_loses_the_stops_it_says_and_repeats(photograph: np.ndarray) -> None:
    grey = np.full_like(photograph, 200)
    dark, _ = Darken(1.0, seed=5)(grey)
    stops = 2.2 * np.log2(200 / np.maximum(dark, 1).astype(float))
    assert stops.mean() == pytest.approx(1, abs=0.05)
    assert stops.min() < 0.4
    assert stops.max() > 1.6
    assert np.array_equal(dark, Darken(1.0, seed=5)(grey)[0])
    assert not np.array_equal(dark, Darken(1.0, seed=6)(grey)[0])


def test_steps_compose_and_name_their_images(tmp_path: Path) -> None:
    Image.fromarray(blob_image(66, 40)).save(tmp_path / "a.png")
    plain = EvaluationImage(tmp_path / "a.png")
    both = plain.then(LongestSide(60), QuarterTurns(1))
    pixels, transform = both.read()
    expected = warp_points(torch.tensor([[66.0, 40.0]], dtype=torch.float64), transform)[0]
    np.testing.assert_allclose(centre_of(pixels), expected, atol=0.3)
    assert plain.key != both.key
    assert both.key == plain.then(LongestSide(60)).then(QuarterTurns(1)).key


def hpatches(root: Path) -> Path:
    for scene in ("i_lamp", "v_wall"):
        (root / scene).mkdir(parents=True)
        for k, suffix in ((1, "ppm"), (2, "png"), (4, "jpg")):
            Image.fromarray(blob_image(20, 20)).save(root / scene / f"{k}.{suffix}")
        for k in (2, 4):
            (root / scene / f"H_1_{k}").write_text(H_TEXT)
    (root / "notes").mkdir()
    return root


def test_hpatches_with_mixed_formats_and_fewer_images(tmp_path: Path) -> None:
    pairs = load_pairs(hpatches(tmp_path), "hpatches")
    assert [(p.name, p.part) for p in pairs] == [
        ("i_lamp/1-2", "illumination"),
        ("i_lamp/1-4", "illumination"),
        ("v_wall/1-2", "viewpoint"),
        ("v_wall/1-4", "viewpoint"),
    ]
    assert pairs[0].H_0to1 is not None
    assert pairs[0].H_0to1.tolist() == [[1, 0, 5], [0, 1, -3], [0, 0, 1]]
    assert pairs[0].image0.read()[0].shape == (480, 640, 3)
    assert load_pairs(tmp_path, "hpatches", resize=False)[0].image0.read()[0].shape == (90, 120, 3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "missing"),
        ("1 0 5\n0 1", "not a table"),
        ("1 2 3 4", "4 numbers"),
        ("1 0 0\n0 1 0\n1 1 0\n", "cannot be inverted"),
        ("nan 0 0\n0 1 0\n0 0 1\n", "not finite"),
        ("0 0 0\n0 0 0\n0 0 0\n", "zero"),
    ],
)
def test_broken_homographies_are_reported_not_dropped(tmp_path: Path, text: str | None, reason: str) -> None:
    file = hpatches(tmp_path) / "v_wall" / "H_1_2"
    file.unlink()
    if text is not None:
        file.write_text(text)
    pairs = load_pairs(tmp_path, "hpatches")
    assert len(pairs) == 4
    broken = [p for p in pairs if p.broken]
    assert [p.name for p in broken] == ["v_wall/1-2"]
    assert reason in str(broken[0].broken)
    assert "H_1_2" in str(broken[0].broken)


def rdnim(root: Path) -> Path:
    for folder in ("references/s", "images/s", "time_stamps"):
        (root / folder).mkdir(parents=True)
    for name in ("references/s/day.jpg", "references/s/night.jpg", "images/s/x.jpg", "images/s/y.jpg"):
        Image.fromarray(blob_image(20, 20)).save(root / name)
    (root / "images/s/x.txt").write_text(H_TEXT)
    (root / "images/s/y.txt").write_text(H_TEXT)
    (root / "time_stamps/s.txt").write_text("x.jpg 20120101 21 30\n")
    return root


def test_rdnim_has_every_image_with_both_references(tmp_path: Path) -> None:
    pairs = load_pairs(rdnim(tmp_path), "rdnim")
    assert [(p.name, p.part) for p in pairs] == [
        ("s/day-x", "day"),
        ("s/day-y", "day"),
        ("s/night-x", "night"),
        ("s/night-y", "night"),
    ]
    assert pairs[2].image0.path.name == "night.jpg"
    assert pairs[2].tags == {"reference": "night", "date": "20120101", "hour": 21.5}
    assert pairs[3].tags == {"reference": "night"}


def test_list_of_pairs_with_homographies(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(
        "# a comment\n"
        "a/1.png a/2.png 1 0 5 0 1 -3 0 0 1 roofs\n\n"
        "b.png c.png 1 0 0 0 1 0 0 0\nd.png e.png 1 0 0 part\n"
    )
    first, second, third = load_pairs(tmp_path, "pairs")
    assert (first.scene, first.part, first.image1.path) == ("a", "roofs", tmp_path / "a/2.png")
    assert first.H_0to1 is not None
    assert first.H_0to1[0, 2] == 5
    assert "pairs.txt:4 holds 8 numbers" in str(second.broken)
    assert "pairs.txt:5 has no nine numbers" in str(third.broken)


def test_rows_that_are_no_pairs_name_their_line(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("# head\nonly-one.png\n")
    with pytest.raises(InputError, match=r"pairs\.txt:2"):
        load_pairs(tmp_path, "pairs")


def test_superglue_pairs_turn_images_upright(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(POSE_ROW + "\n")
    Image.fromarray(blob_image(66, 40)).save(tmp_path / "b.png")
    (pair,) = load_pairs(tmp_path, "poses", longest_side=60)
    assert pair.pose is not None
    assert pair.pose.K0[0, 2] == 320
    assert pair.image1.read()[0].shape == (60, 45, 3)
    assert pair.image0.steps == (LongestSide(60),)


def test_superglue_rows_of_another_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("a.png b.png 0 0 1 2 3\n")
    with pytest.raises(InputError, match="7 columns, not 38"):
        load_pairs(tmp_path, "poses")
    (tmp_path / "pairs.txt").write_text(POSE_ROW.replace("1.0 0.0 0.0 0.0", "9.0 0.0 0.0 0.0", 1))
    assert "no rotation" in str(load_pairs(tmp_path, "poses")[0].broken)


def test_sweep_turns_and_darkens_every_image(tmp_path: Path) -> None:
    Image.fromarray(blob_image(66, 40)).save(tmp_path / "a.png")
    pairs = load_pairs(tmp_path, "sweep", angles=(0.0, 90.0), stops=(0.0, 2.0))
    assert [(p.part, p.tags) for p in pairs] == [
        ("nothing", {"angle": 0, "stops": 0}),
        ("illumination", {"angle": 0, "stops": 2}),
        ("rotation", {"angle": 90, "stops": 0}),
        ("both", {"angle": 90, "stops": 2}),
    ]
    original, turned = pairs[2].image0.read(), pairs[2].image1.read()
    point = torch.tensor([centre_of(original[0])], dtype=torch.float64)
    moved = warp_points(point, turned[1] @ torch.linalg.inv(original[1]))[0]
    np.testing.assert_allclose(centre_of(turned[0]), moved, atol=0.5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_absent_data_says_where_it_belongs_and_who_offers_it(tmp_path: Path, layout: str) -> None:
    missing = tmp_path / "nothing here"
    with pytest.raises(InputError, match="get it from") as absent:
        load_pairs(missing, layout)
    assert str(missing) in str(absent.value)
    missing.mkdir()
    with pytest.raises(InputError, match="nothing here"):
        load_pairs(missing, layout)


def test_unknown_layouts_and_options_name_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hpatches, rdnim"):
        load_pairs(tmp_path, "hpatch")
    with pytest.raises(InputError, match="it takes: resize"):
        load_pairs(tmp_path, "hpatches", longest_side=3)
