"""The command line as scripts see it: one JSON document, exit codes, one line for every mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from lisrd.cli import app, console


def call(*arguments: str | Path) -> int:
    """The exit code of `lisrd ARGUMENTS`, run inside this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lisrd", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            console.run(app)
    return int(stopped.value.code or 0)


@pytest.fixture
def pair(photograph: np.ndarray, tmp_path: Path) -> tuple[Path, Path, np.ndarray]:
    """A photograph and the same turned by 20 degrees, with the homography between them."""
    small = cv2.resize(photograph[..., ::-1], (320, 240))
    affine = cv2.getRotationMatrix2D((160, 120), 20, 1.0)
    paths = tmp_path / "a b.png", tmp_path / "ü.png"
    cv2.imwrite(str(paths[0]), small)
    cv2.imencode(".png", cv2.warpAffine(small, affine, (320, 240)))[1].tofile(paths[1])
    return *paths, np.vstack([affine, [0, 0, 1]])


def test_match_answers_with_one_document(pair, tmp_path: Path, capsys) -> None:
    a, b, H = pair
    saved = tmp_path / "matches.npz"
    assert call("match", a, b, "--describer", "root-sift", "--json", "--save", saved) == console.DONE
    document = json.loads(capsys.readouterr().out)
    assert set(document) >= {"keypoints0", "keypoints1", "matches", "inliers", "homography", "seconds"}
    assert set(document["seconds"]) == {"detect", "describe", "match", "verify"}
    assert document["rotation"]["degrees"] == pytest.approx(-20, abs=0.3)  # cv2 turns counter-clockwise
    assert document["scale"]["factor"] == pytest.approx(1, abs=0.01)
    assert document["verdict"]["answer"] == "yes"
    assert document["invariance_weights"] == {"root-sift": pytest.approx(1)}
    corners = np.array([[[0, 0], [319, 0], [319, 239], [0, 239]]], np.float64)
    found, true = (cv2.perspectiveTransform(corners, np.array(m)) for m in (document["homography"], H))
    assert np.abs(found - true).max() < 1
    arrays = np.load(saved, allow_pickle=False)
    assert len(arrays["matches"]) == len(arrays["scores"]) == len(arrays["inliers"]) == document["matches"]
    assert arrays["keypoints0"].shape == (document["keypoints0"], 2)
    assert arrays["invariances"].tolist() == ["root-sift"]


@pytest.mark.parametrize("swapped", [False, True])
def test_match_says_in_words_which_way_an_image_is_turned(swapped: bool, pair, capsys) -> None:
    a, b, _ = pair
    assert call("match", *((b, a) if swapped else (a, b)), "--describer", "root-sift") == console.DONE
    degrees, sense = re.search(r"image 1 is turned by (\S+) degrees (\S+)", capsys.readouterr().out).groups()
    assert float(degrees) == pytest.approx(20, abs=0.3)
    assert sense == ("clockwise" if swapped else "counter-clockwise")


def test_match_of_flat_images_has_no_model(tmp_path: Path, capsys) -> None:
    grey = tmp_path / "grey.png"
    cv2.imwrite(str(grey), np.full((100, 100, 3), 128, np.uint8))
    assert call("match", grey, grey, "--describer", "root-sift", "--json") == console.DONE
    document = json.loads(capsys.readouterr().out)
    assert document["matches"] == 0
    assert document["homography"] is None
    assert document["reason"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("match", "{a}", "missing.png"), "missing.png"),
        (("match", "{a}"), "Missing argument"),
        (("match", "{a}", "{a}", "--describer", "root-sfit"), "did you mean root-sift"),
        (("match", "{a}", "{a}", "--describer", "aliked-n16"), "needs its published weights"),
        (("match", "{a}", "{a}", "--detector", "sfit"), "did you mean 'sift'"),
        (
            ("match", "{a}", "{a}", "--describer", "root-sift", "--selection", "best"),
            "'soft', 'hard' or 'mean'",
        ),
        (("match", "{a}", "{a}", "--describer", "root-sift", "--turn", "7"), "turn is 7"),
        (("match", "{a}", "{a}", "--describer", "root-sift", "--only", "rot"), "no invariance 'rot'"),
        (("match", "{a}", "{a}", "--describer", "root-sift", "--prior", "root-sift"), "NAME=WEIGHT"),
        (
            ("match", "{a}", "{a}", "--describer", "root-sift", "--model", "affine"),
            "homography or fundamental",
        ),
        (("match", "{a}", "{a}", "--describer", "root-sift", "--save", "no/such/folder.npz"), "cannot write"),
        (("match", "{a}", "{a}", "--device", "foo"), "device 'foo' cannot be used"),
        (("match", "{a}", "{a}", "--describer", "paper=none.safetensors"), "paper takes no path"),
        (("diagnose", "{a}", "--picture", "d.xyz"), "no picture has the suffix '.xyz'"),
        (("diagnose", "{a}", "--describer", "root-sift"), "no invariances to choose from"),
        (("train", "missing.toml", "--data", ".", "--out", "{out}"), "no such configuration"),
        (("convert", "missing.pth", "-o", "{out}"), "missing.pth"),
        (("evaluate", "compare", "{a}"), "needs two result files"),
        (("frobnicate",), "No such command"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, message: str, pair, tmp_path: Path, capsys) -> None:
    filled = [a.format(a=pair[0], out=tmp_path / "out") for a in arguments]
    assert call(*filled) == console.BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.strip().count("\n") == 0
    assert "Traceback" not in captured.err


def test_info_is_json(capsys) -> None:
    assert call("info", "--json") == console.DONE
    document = json.loads(capsys.readouterr().out)
    assert document["packages"]["torch"]
    assert document["precision"]["auto"] in ("float32", "bfloat16")


def test_module_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "lisrd", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for command in ("match", "train", "evaluate", "convert", "info"):
        assert command in done.stdout
