"""The geometry stage in the evaluation: its rows by hand, and from end to end on photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lisrd.errors import InputError
from lisrd.evaluate import evaluate
from lisrd.evaluate.datasets.preparation import LongestSide, Rotate
from lisrd.evaluate.geometry_rows import geometry_rows, mean_of_known, median_of_all, share_within
from lisrd.evaluate.metrics.matching import error_counts
from lisrd.evaluate.report import html_report, markdown_report
from lisrd.evaluate.score import PairResult


def result(name: str, part: str, corner: float | None, median: float | None) -> PairResult:
    counts = [0] * 60
    if median is not None:
        counts[round(median / 0.05)] = 10
    estimate = {"corner_error": corner, "median_error": median, "num_correct": 10, "error_counts": counts}
    timed = {**estimate, "seconds": {"estimate": 0.1, "guided": 0.4}}
    scores: dict[str, Any] = {"geometry": {"ransac": estimate, "full": timed}}
    return PairResult(name, "scene", part, scores={"sift": scores})


def test_rows_by_hand() -> None:
    pairs = [result("a", "day", 0.5, 0.4), result("b", "day", 2.0, 0.8), result("c", "night", None, None)]
    excluded = PairResult("d", "scene", "night")
    rows = geometry_rows([*pairs, excluded], ["sift"])
    assert [(r["part"], r["estimate"], r["pairs"]) for r in rows] == [
        ("day", "ransac", 2),
        ("day", "full", 2),
        ("night", "ransac", 1),
        ("night", "full", 1),
        ("all", "ransac", 3),
        ("all", "full", 3),
    ]
    day, everything = rows[1], rows[5]
    assert (day["accuracy_1"], day["accuracy_3"], day["accuracy_5"]) == (0.5, 1, 1)
    assert day["median_error"] == pytest.approx(0.6)
    assert day["error_of_all"] == pytest.approx(0.45)  # ten matches of 0.4 to 0.45 px, ten of 0.8 to 0.85
    assert rows[3]["error_of_all"] is None
    assert rows[3]["median_error"] is None
    assert not {"error_of_all", "median_error"} & set(rows[3]["interval"])
    assert everything["accuracy_5"] == pytest.approx(2 / 3)  # no homography is a wrong one
    assert everything["median_error"] == pytest.approx(0.6)  # and says nothing about the error of matches
    assert everything["seconds"] == pytest.approx({"estimate": 0.1, "refine": 0, "guided": 0.4})
    assert rows[0]["seconds"] == {}
    assert everything["interval"]["median_error"] == pytest.approx([0.4, 0.8])
    low, high = everything["interval"]["accuracy_5"]
    assert 0 <= low < 2 / 3 < high <= 1


def test_statistics_take_resamples_at_once() -> None:
    errors = np.array([[0.5, np.inf], [1.0, 1.0]])
    np.testing.assert_allclose(share_within(errors, 1.0), [0.5, 1.0])
    values = np.array([[1.0, np.nan], [2.0, 4.0], [np.nan, np.nan]])
    np.testing.assert_allclose(mean_of_known(values), [1.0, 3.0, np.nan])


def test_median_of_all_matches_by_hand() -> None:
    """A pair with many matches counts as much as its matches; resamples at once."""
    first, second = np.zeros((2, 60))
    first[2], second[10] = 6, 2
    assert median_of_all(np.stack([first, second])) == pytest.approx(0.05 * (2 + 4 / 6))
    both = median_of_all(np.stack([[first, second], [second, second]]))
    np.testing.assert_allclose(both, [0.05 * (2 + 4 / 6), 0.05 * 10.5])
    assert np.isnan(median_of_all(np.zeros((3, 60))))


@given(st.lists(st.floats(0, 3), min_size=1, max_size=80))
def test_error_counts_hold_the_median_within_a_bin(values: list[float]) -> None:
    errors = torch.tensor(values, dtype=torch.float64).expand(2, -1)
    counts = np.array([error_counts(errors)], dtype=np.float64)
    assert counts.sum() == len(values)
    below, above = np.quantile(values, 0.5, method="lower"), np.quantile(values, 0.5, method="higher")
    assert below - 0.0501 <= median_of_all(counts) <= above + 0.0501


def test_without_geometry_there_are_no_rows() -> None:
    plain = PairResult("a", "scene", "day", scores={"sift": {}})
    assert geometry_rows([plain], ["sift"]) == []


@pytest.fixture(scope="module")
def pairs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One photograph, itself turned by 20 degrees, and itself against a flat grey image."""
    import skimage.data

    root = tmp_path_factory.mktemp("data")
    image, _ = LongestSide(240)(skimage.data.astronaut())
    turned, H = Rotate(20.0)(image)
    for name, pixels in (("0", image), ("1", turned), ("grey", np.full_like(image, 128))):
        Image.fromarray(pixels).save(root / f"{name}.png")
    numbers = " ".join(map(str, H.ravel().tolist()))
    identity = " ".join(map(str, torch.eye(3).ravel().tolist()))
    (root / "pairs.txt").write_text(f"0.png 1.png {numbers} turned\n0.png grey.png {identity} blank\n")
    return root


@pytest.fixture(scope="module")
def document(pairs_folder: Path) -> dict[str, Any]:
    names = ["root-sift", "upright-root-sift:four-rotations"]
    return evaluate(pairs_folder, "pairs", names, max_keypoints=300, progress=False, geometry="ablation")


def row_of(document: dict[str, Any], part: str, estimate: str) -> dict[str, Any]:
    wanted = ("root-sift", part, estimate)
    (row,) = [r for r in document["geometry"] if (r["describer"], r["part"], r["estimate"]) == wanted]
    return row


def test_ablation_from_end_to_end(document: dict[str, Any]) -> None:
    estimates = ["ransac", "magsac", "estimate", "+ frames", "+ refine", "+ guided", "full"]
    of_first = [r for r in document["geometry"] if (r["describer"], r["part"]) == ("root-sift", "turned")]
    assert [row["estimate"] for row in of_first] == estimates
    full, alone = row_of(document, "turned", "full"), row_of(document, "turned", "estimate")
    assert full["accuracy_1"] == 1
    assert full["median_error"] < 0.5 * alone["median_error"]
    assert full["num_correct"] > alone["num_correct"]
    (pair,) = [p for p in document["pairs"] if p["part"] == "turned"]
    ransac = pair["scores"]["root-sift"]
    assert ransac["geometry"]["ransac"]["corner_error"] == ransac["corner_error"]
    assert ransac["geometry"]["full"]["verdict"] == "yes"


def test_a_pair_without_keypoints_has_no_homography(document: dict[str, Any]) -> None:
    row = row_of(document, "blank", "full")
    assert (row["accuracy_5"], row["num_correct"]) == (0, 0)


def test_report_has_a_table_of_estimates(document: dict[str, Any]) -> None:
    text = markdown_report(document)
    assert "| describer | estimate | within 1 px |" in text
    assert "| root-sift | + refine | " in text
    (blank,) = [part for part in text.split("## ") if part.startswith("blank")]
    (line,) = [line for line in blank.splitlines() if line.startswith("| root-sift | full |")]
    assert line.count(" – ") == 2  # no correct match has an error
    assert "<h3>Geometry</h3>" in html_report(document)
    without = {**document, "geometry": []}
    assert "estimate |" not in markdown_report(without)
    assert "<h3>Geometry</h3>" not in html_report(without)


def test_unknown_geometry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="geometry is 'some'; use off, full, ablation"):
        evaluate(tmp_path, "pairs", ["root-sift"], geometry="some")  # type: ignore[arg-type]


def test_command_line_shows_the_estimates(pairs_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lisrd.cli.evaluation import evaluate as command

    command(str(pairs_folder), layout="pairs", describers="root-sift", max_keypoints=200, geometry="full")
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    (full,) = [cells for cells in shown if cells[:3] == ["root-sift", "turned", "full"]]
    assert full[3:7] == ["1", "100.0", "100.0", "100.0"]
