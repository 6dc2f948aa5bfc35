"""`lisrd evaluate` on the command line: options of the layouts, tables, and comparisons."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lisrd.cli import app, console
from lisrd.cli.evaluation import split_describers

WEIGHTS = Path(str(files("lisrd"))) / "weights"


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        console.run(lambda standalone_mode: app([str(a) for a in arguments], standalone_mode=standalone_mode))
    return int(ended.value.code or 0)


@pytest.fixture
def poses(tmp_path: Path, photograph: np.ndarray) -> Path:
    """The same photograph three times, and two pairs of it: whatever the step, no point leaves its epipolar line."""
    for name in "abc":
        Image.fromarray(photograph[:200, :300]).save(tmp_path / f"{name}.png")
    camera, step = "300 0 149.5 0 300 99.5 0 0 1", "1 0 0 1 0 1 0 0 0 0 1 0 0 0 0 1"
    rows = (f"a.png {name}.png 0 0 {camera} {camera} {step}" for name in "bc")
    (tmp_path / "list.txt").write_text("\n".join(rows))
    return tmp_path


def arguments(poses: Path, *more: str | Path) -> tuple[str | Path, ...]:
    fixed = ("evaluate", poses, "--layout", "poses", "--describers", "root-sift", "--max-keypoints", "100")
    return (*fixed, "--pairs-file", poses / "list.txt", *more)


def test_options_reach_the_layout(poses: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments(poses, "--longest-side", "150", "--limit", "1", "--json")) == console.DONE
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["settings"]["longest_side"] == 150
    assert [row["pairs"] for row in document["rows"]] == [1]
    assert document["rows"][0]["precision"] == 1


def test_the_table_has_the_columns_of_its_truth(poses: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments(poses)) == console.DONE
    head, row = capsys.readouterr().out.strip().splitlines()
    assert head.split() == [
        "describer",
        "part",
        "pairs",
        "precision",
        *["pose", "5°", "pose", "10°", "pose", "20°"],
    ]
    assert row.split()[:4] == ["root-sift", "all", "2", "100.0"]


def test_options_of_another_layout_are_refused(poses: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("evaluate", poses, "--layout", "pairs", "--longest-side", "9") == console.BAD_INPUT
    assert "no option longest_side" in capsys.readouterr().err
    assert call("evaluate", poses, "elsewhere") == console.BAD_INPUT
    assert "elsewhere is a second one" in capsys.readouterr().err


def test_comparisons_are_a_table(poses: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments(poses, "--out", poses / "one")) == console.DONE
    assert call(*arguments(poses, "--out", poses / "two", "--limit", "1")) == console.DONE
    capsys.readouterr()
    results = (poses / "one" / "results.json", poses / "two" / "results.json")
    assert call("evaluate", "compare", *results) == console.DONE
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].split() == ["describer", "part", "pairs", "metric", "A", "B", "gain", "95", "%"]
    assert lines[1].split() == [
        "root-sift",
        "all",
        "1",
        "precision",
        "100.0",
        "100.0",
        "0.0",
        "0.0",
        "to",
        "0.0",
    ]
    assert lines[-1] == "1 pairs are in A alone"


def test_commas_within_a_name_stay() -> None:
    assert split_describers("root-sift, lisrd-aliked=a.pth,b.pth,disk=d.pth") == [
        "root-sift",
        "lisrd-aliked=a.pth,b.pth",
        "disk=d.pth",
    ]


def test_a_selection_stays_with_its_bank_and_a_network_is_a_describer() -> None:
    selection, network = (str(WEIGHTS / f"{name}.safetensors") for name in ("lisrd-aliked", "pyramid-small"))
    bank = "lisrd-aliked=a.pth,b.pth"
    assert split_describers(f"{bank},{selection},root-sift") == [f"{bank},{selection}", "root-sift"]
    assert split_describers(f"{bank},{network},{bank}") == [bank, network, bank]
    assert split_describers(f"{bank},{selection},{selection}") == [f"{bank},{selection}", selection]
