"""The report: what stands in it, that it needs nothing beside itself, and that a browser shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lisrd.evaluate.pictures import draw_matches
from lisrd.evaluate.report import Picture, html_report, markdown_report, write_report
from lisrd.evaluate.report.tables import Column, cells_of
from lisrd.evaluate.report.words import labels_of
from lisrd.evaluate.runner import _document
from lisrd.evaluate.score import PairResult, Problem

BANK = "nets/bank.safetensors"
NAMES = ["root-sift", BANK, f"{BANK}:mean", f"{BANK}:oracle"]


def scores(precision: float, **more: Any) -> dict[str, Any]:
    return {
        "precision": precision,
        "recall": precision / 2,
        "mma": [precision * k / 10 for k in range(1, 11)],
        "homography_accuracy": float(precision > 0.5),
        "homography_accuracy_magsac": float(precision > 0.4),
        "corner_error": 1.0,
        "corner_error_magsac": 2.0 if precision > 0.3 else None,
        "pose_error": None,
        "num_matches": 100,
        "num_correct": round(100 * precision),
        "num_inliers": 40,
        "median_error": 0.8,
        "seconds_describe": 0.1,
        "seconds_match": 0.02,
        "seconds_verify": 0.03,
        "turn": 0,
        "invariance_weights": {},
        **more,
    }


def result(k: int) -> PairResult:
    """Pair k of two scenes; the bank chooses `upright` where k is even, and is right in half of these."""
    weights = {"upright": 0.6, "turning": 0.4} if k % 2 == 0 else {"upright": 0.1, "turning": 0.9}
    best = "upright" if k % 4 == 0 else "turning"
    change = {
        "rotation": 20.0 * k,
        "scale": 1.0,
        "light_change": 0.4 * k,
        "repeatability": 0.5,
        "num_keypoints0": 900,
        "num_keypoints1": 1000,
    }
    of_methods = {
        "root-sift": scores(0.2 + 0.01 * k),
        BANK: scores(0.5, invariance_weights=weights),
        f"{BANK}:mean": scores(0.4, invariance_weights={"upright": 0.5, "turning": 0.5}),
        f"{BANK}:oracle": scores(0.55, best_single=best),
    }
    return PairResult(f"pair{k}", f"scene<{k % 2}>", "day" if k < 4 else "night", change, of_methods)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    results = [result(k) for k in range(8)]
    results[0].problems.append(Problem("no model", "3 matches fit no geometric model", "pair0", "root-sift"))
    missing = Problem("ground truth", "no homography: H_1_2 is missing", "pair8", counted=False)
    results.append(PairResult("pair8", "scene<0>", "night", problems=[missing]))
    settings = {"root": "data", "layout": "rdnim", "detector": "sift", "max_keypoints": 1000}
    return _document(results, NAMES, settings, {"predict": 1.0, "score": 2.0})


@pytest.fixture(scope="module")
def picture() -> Picture:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)
    points = rng.uniform(0, 100, (30, 2))
    jpeg = draw_matches(image, image[:90], points, points * 0.8, np.arange(30) < 20)
    return Picture("best: pair1", "20 of 30", jpeg)


@pytest.fixture(scope="module")
def html(document: dict[str, Any], picture: Picture) -> str:
    return html_report(document, [picture])


class Tags(HTMLParser):
    """Every tag with its attributes, and whether they nest."""

    VOID = frozenset(("meta", "img", "br", "link", "path", "use"))

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_selection_analysis_by_hand(document: dict[str, Any]) -> None:
    found = document["selection"][BANK]
    assert found["chosen"] == {"turning": 0.5, "upright": 0.5}
    assert found["best_single"] == {"turning": 0.75, "upright": 0.25}
    assert found["right"] == 0.75  # upright at 0 and 4, turning at 1, 3, 5, 7; wrong at 2 and 6
    assert found["gain_over_mean"]["precision"]["mean"] == pytest.approx(0.1)
    assert found["loss_to_oracle"]["precision"]["mean"] == pytest.approx(0.05)
    assert found["weights"] == {"upright": pytest.approx(0.35), "turning": pytest.approx(0.65)}
    assert [(s["scene"], s["part"], s["pairs"]) for s in found["scenes"]] == [
        ("scene<0>", "day", 2),
        ("scene<0>", "night", 2),
        ("scene<1>", "day", 2),
        ("scene<1>", "night", 2),
    ]


def test_curves_bin_the_pairs_by_what_changed(document: dict[str, Any]) -> None:
    rotation = document["curves"]["rotation"]
    assert [(b["low"], b["high"], b["pairs"]) for b in rotation["bins"]] == [
        (0, 10, 1),
        (10, 30, 1),
        (30, 60, 1),
        (60, 90, 2),
        (90, 135, 2),
        (135, None, 1),
    ]
    means = [b["mean"] for b in rotation["describers"]["root-sift"]["precision"]]
    assert means == pytest.approx([0.2, 0.21, 0.22, 0.235, 0.255, 0.27])


def test_tables_mark_the_best_but_not_the_oracle() -> None:
    rows = [
        {"describer": "a", "x": 0.5, "interval": {"x": [0.4, 0.6]}},
        {"describer": "b:oracle", "x": 0.9, "interval": {"x": [0.8, 1.0]}},
        {"describer": "c", "x": None, "interval": {}},
    ]
    first, oracle, missing = cells_of(rows, Column("x", "x", percent=True, best="high"))
    assert (first.text, first.interval, first.is_best) == ("50.0", "40.0–60.0", True)
    assert (oracle.text, oracle.is_best) == ("90.0", False)
    assert (missing.text, missing.is_best) == ("–", False)


def test_labels_lose_their_folders_while_they_differ() -> None:
    names = ["a/n.safetensors:mean", "aliked-n16=w/x.pth", "root-sift"]
    assert list(labels_of(names).values()) == ["n:mean", "aliked-n16", "root-sift"]
    twins = ["a/n.safetensors", "b/n.safetensors"]
    assert list(labels_of(twins).values()) == twins


def test_page_is_well_formed_and_self_contained(html: str) -> None:
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    for tag, attributes in tags.seen:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert not re.search(r"url\((?!#)", html)
    assert [tag for tag, _ in tags.seen].count(
        "svg"
    ) == 3 + 2  # matching accuracy per part, two axes of change
    assert "scene&lt;0&gt;" in html
    assert "scene<0>" not in html


def test_page_says_what_went_wrong_and_how_often(html: str) -> None:
    assert "9 pairs (1 without usable ground truth or images, not in the means)" in html
    assert "no homography: H_1_2 is missing" in html
    assert "3 matches fit no geometric model" in html


def test_markdown_has_the_same_numbers(document: dict[str, Any]) -> None:
    text = markdown_report(document)
    table = text.split("## all: 8 pairs")[1].split("##")[0].strip().splitlines()
    assert len(table) == 2 + len(NAMES)
    assert table[2].startswith("| root-sift | 23.5 (22.")
    assert table[3].startswith("| bank | **50.0** (50.0–50.0) | **25.0**")
    assert "chosen: " in text
    assert "| ground truth | 1 | no |" in text


def test_same_results_give_the_same_page(
    document: dict[str, Any], picture: Picture, html: str, tmp_path: Path
) -> None:
    files = write_report(document, tmp_path, [picture])
    assert Path(files["html"]).read_text(encoding="utf-8") == html
    assert Path(files["markdown"]).read_text(encoding="utf-8") == markdown_report(document)


def test_every_curve_is_a_picture_as_well(document: dict[str, Any], tmp_path: Path) -> None:
    files = write_report(document, tmp_path)
    assert set(document["curves"]) == {name for name in files if files[name].endswith(".png")} != set()
    for axis in document["curves"]:
        drawn = np.asarray(Image.open(files[axis]).convert("RGB")).astype(int)
        first_colour = np.abs(drawn - (0, 114, 178)).sum(axis=-1) < 12
        assert first_colour.sum() > 50, axis


def test_pictures_show_right_and_wrong_matches(picture: Picture, tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(picture.jpeg)
    drawn = np.asarray(Image.open(tmp_path / "p.jpg")).astype(int)
    assert drawn.shape == (260, 347 + 462, 3)
    for colour in ((0, 158, 115), (213, 94, 0)):
        assert (np.abs(drawn - colour).sum(axis=-1) < 60).sum() > 100


@pytest.mark.slow
def test_browser_shows_the_page(document: dict[str, Any], picture: Picture, tmp_path: Path) -> None:
    """Headless Chromium draws tables, curves and pictures: ink where each of them is."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine: the page cannot be looked at")
    page = write_report(document, tmp_path, [picture])["html"]
    shot = tmp_path / "page.png"
    quiet = [
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", *quiet]
    command = [chromium, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,5000"]
    subprocess.run(
        [*command, f"--screenshot={shot}", f"file://{page}"], check=True, timeout=120, capture_output=True
    )
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert pixels.shape == (5000, 1200, 3)
    curves = (
        (0, 114, 178),
        (213, 94, 0),
    )  # the colours of the first two lines, best cells, a picture's matches
    for colour in (*curves, (234, 246, 241), (0, 158, 115)):
        assert (np.abs(pixels - colour).sum(axis=-1) < 12).sum() > 50, colour
    right_edge = pixels[:, -20:-16]  # nothing runs out of the page
    assert (right_edge > 200).all()
