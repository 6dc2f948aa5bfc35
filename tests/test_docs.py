"""The documentation: its tutorials run as they stand, and the site builds without a warning."""

from __future__ import annotations

import ast
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lisrd.cli import app, console
from tutorials import CAMERAS, QUERY, ROOT, TUTORIALS, blocks, configuration_name, write_photographs

#: What a tutorial may import: its readers have installed the package and the tutorial's extra.
INSTALLED = {"match": {"lisrd", "numpy"}, "localise": {"lisrd", "numpy", "pycolmap"}, "train": {"lisrd"}}


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Do what a tutorial says in a folder of its own; returns the variables of its Python blocks."""
    monkeypatch.chdir(tmp_path)

    def run(name: str) -> dict[str, Any]:
        variables: dict[str, Any] = {}
        for language, code in blocks(name):
            if language == "python":
                exec(compile(code, f"{name}.md", "exec"), variables)
            elif language == "sh":
                for line in code.splitlines():
                    run_command(shlex.split(line), monkeypatch)
            else:
                assert language == "toml", f"{name}.md has a block of {language!r}, which nobody runs"
                Path(configuration_name(code)).write_text(code, encoding="utf-8")
        return variables

    return run


def run_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert words[0] == "lisrd"
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        console.run(app)
    assert (ended.value.code or 0) == console.DONE, " ".join(words)


@pytest.mark.parametrize("name", INSTALLED)
def test_tutorials_need_only_what_they_say(name: str) -> None:
    code = "\n".join(code for language, code in blocks(name) if language == "python")
    imported = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
    assert imported <= INSTALLED[name]


def test_every_tutorial_is_run() -> None:
    assert {path.stem for path in TUTORIALS.glob("*.md")} == set(INSTALLED)


@pytest.mark.slow
def test_matching_two_images(follow: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    write_photographs("match", tmp_path)
    variables = follow("match")
    assert variables["geometry"].inliers.sum() > 50
    assert variables["verdict"].answer == "yes"
    assert {"matches.png", "matches.npz", "inliers.png"} <= {path.name for path in tmp_path.iterdir()}
    assert len(variables["partners"]) == 3


@pytest.mark.slow
def test_localising_a_photograph(follow: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    """The map has any scale: what can be compared is where the query lies among the photographs."""
    pytest.importorskip("pycolmap")
    write_photographs("localise", tmp_path)
    variables = follow("localise")
    registered = {image.name: image.projection_center() for image in variables["model"].images.values()}
    assert len(registered) >= 5
    mapped = np.array([registered[name] for name in sorted(registered)])
    true = np.array([centre(CAMERAS[name]) for name in sorted(registered)])
    found = to_world(variables["position"], mapped, true)
    assert np.linalg.norm(found - centre(QUERY)) < 0.1  # metres, at a distance of three to five


def centre(T: np.ndarray) -> np.ndarray:
    return -T[:3, :3].T @ T[:3, 3]


def to_world(point: np.ndarray, mapped: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The point through the similarity that carries the mapped positions to the true ones (Umeyama)."""
    a, b = mapped - mapped.mean(0), true - true.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    signs = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = (s * signs.diagonal()).sum() / (a**2).sum()
    return scale * u @ signs @ vt @ (point - mapped.mean(0)) + true.mean(0)


@pytest.mark.slow
def test_training_on_ones_own_images(follow: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    write_photographs("train", tmp_path)
    variables = follow("train")
    assert (tmp_path / "sheet.png").is_file()
    assert len((tmp_path / "runs" / "mine" / "metrics.jsonl").read_text().splitlines()) == 3
    assert len(variables["pair"].matches) > 50


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Every link, every page of the navigation, every name of the reference, every section of a docstring."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    reference = (tmp_path / "api" / "model.html").read_text(encoding="utf-8")
    assert "LISRD.match_images" in reference
    assert "Detect, describe and match" in reference
