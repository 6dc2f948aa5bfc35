"""The wheel with one extra at a time, each in an environment made for it: what its user can do without any other.

`make fresh` runs it; `LISRD_FRESH` is the folder of the environments. One that is there already is used as it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tutorials import ROOT, as_program, write_photographs

FRESH = os.environ.get("LISRD_FRESH")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(not FRESH, reason="asks the package index for minutes: `make fresh`"),
]

#: Two visitors at once, who bring the same photographs in opposite order.
VISITORS = """
import asyncio, httpx, json, pathlib
from benchmarks.page_load import ask, served
photographs = [pathlib.Path(name).read_bytes() for name in ("old.jpg", "new.jpg")]
async def visit(url, both):
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False) as client:
        return await ask(client, both, "pyramid")
async def visits(url):
    return await asyncio.gather(visit(url, photographs), visit(url, photographs[::-1]))
with served("--workers", "2") as (url, _):
    print(json.dumps([answer["photographs"] for answer in asyncio.run(visits(url))]))
"""


@dataclass(frozen=True)
class Environment:
    """An environment, and the folder in which its user works."""

    folder: Path
    work: Path

    @property
    def programs(self) -> Path:
        return self.folder / ("Scripts" if sys.platform == "win32" else "bin")

    def run(self, *words: str, expected: int = 0) -> str:
        """Standard output of a command of the environment, and what it says of an error."""
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        done = subprocess.run(
            [str(self.programs / words[0]), *words[1:]],
            cwd=self.work,
            env={**variables, "PATH": path, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
        )
        assert done.returncode == expected, done.stdout + done.stderr
        return done.stdout if expected == 0 else done.stderr

    def follow(self, tutorial: str) -> None:
        """Do what a tutorial says."""
        write_photographs(tutorial, self.work)
        self.run("python", "-c", as_program(tutorial))


@pytest.fixture(scope="module")
def wheel() -> Path:
    folder = Path(str(FRESH)) / "wheel"
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return max(folder.glob("lisrd-*.whl"), key=lambda path: path.stat().st_mtime)


@pytest.fixture
def environment(wheel: Path, tmp_path: Path) -> Callable[..., Environment]:
    """Make the environment of an extra, "" for none, from the wheel; or one that holds only what is named."""

    def make(extra: str, *packages: str) -> Environment:
        one = Environment(Path(str(FRESH)).absolute() / (extra or "none"), tmp_path)
        if not one.folder.exists():
            venv.create(one.folder, with_pip=True)
            wanted = packages or (f"{wheel.absolute()}[{extra}]" if extra else str(wheel.absolute()),)
            constraints = ["--constraint", str(ROOT / "constraints.txt")]
            one.run("python", "-m", "pip", "install", "--quiet", *constraints, *wanted)
        return one

    return make


def test_without_an_extra(environment: Callable[..., Environment]) -> None:
    none = environment("")
    none.follow("match")
    none.run("lisrd", "extract", ".", "-o", "f.h5", "--max-keypoints", "300")
    none.run("lisrd", "pairs", "f.h5", "-o", "pairs.txt")
    none.run("lisrd", "match-pairs", "f.h5", "pairs.txt", "-o", "m.h5")
    none.run("lisrd", "diagnose", "f.h5", "--pairs", "pairs.txt")


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("web", "serve"),
        ("sfm", "colmap . -o map"),
        ("onnx", "export-onnx -o onnx"),
        ("ray", "extract . -o f.h5 --engine ray"),
        ("train", "train mine.toml --data . --out run --steps 1"),
    ],
)
def test_a_missing_extra_is_named(environment: Callable[..., Environment], extra: str, command: str) -> None:
    none = environment("")
    write_photographs("match", none.work)
    (none.work / "mine.toml").write_text('[[data.sources]]\nkind = "images"\npath = "."\n')
    said = none.run("lisrd", *command.split(), expected=2)
    assert f"lisrd[{extra}]" in said.replace("\n", "")
    assert "Traceback" not in said


@pytest.mark.parametrize(("extra", "tutorial"), [("sfm", "localise"), ("train", "train"), ("fast", "match")])
def test_a_tutorial(environment: Callable[..., Environment], extra: str, tutorial: str) -> None:
    environment(extra).follow(tutorial)


def test_the_page_answers_two_visitors(environment: Callable[..., Environment]) -> None:
    web = environment("web")
    write_photographs("match", web.work)
    program = f"import sys; sys.path.append({str(ROOT)!r})\n{VISITORS}"
    first, second = json.loads(web.run("python", "-c", program))
    sides = [[(one["width"], one["height"]) for one in answer] for answer in (first, second)]
    assert sides == [[(320, 240), (240, 320)], [(240, 320), (320, 240)]]


def test_onnx_files_are_used_without_torch_and_without_us(environment: Callable[..., Environment]) -> None:
    onnx = environment("onnx")
    write_photographs("match", onnx.work)
    onnx.run("lisrd", "export-onnx", "-o", "files")
    alone = environment("onnxruntime-alone", "numpy", "onnxruntime", "opencv-python-headless")
    example = str(ROOT / "examples" / "onnx_match.py")
    files = ["files/describer.onnx", "files/matcher.onnx", "old.jpg", "new.jpg"]
    answer = json.loads(alone.run("python", example, *files))
    assert answer["turn"] != 0
    assert answer["inliers"] > 50
    assert "No module named" in alone.run("python", "-c", "import torch", expected=1)
    assert "No module named" in alone.run("python", "-c", "import lisrd", expected=1)


def test_ray_describes_like_one_machine(environment: Callable[..., Environment]) -> None:
    ray = environment("ray")
    write_photographs("match", ray.work)
    described = ["lisrd", "extract", ".", "--max-keypoints", "300", "--precision", "float32"]
    ray.run(*described, "-o", "here.h5")
    ray.run(*described, "-o", "there.h5", "--engine", "ray")
    same = (
        "import h5py; a, b = (h5py.File(n)['new.jpg/descriptors'][()] for n in ('here.h5', 'there.h5')); "
        "assert a.tobytes() == b.tobytes()"
    )
    ray.run("python", "-c", same)


def test_poselib_estimates(environment: Callable[..., Environment]) -> None:
    program = (
        "import numpy as np; from lisrd.verify import estimate\n"
        "points = np.random.default_rng(0).uniform(0, 400, (50, 2))\n"
        "found = estimate(points, points + 7, 'homography', method='poselib')\n"
        "assert found.inliers.all(); print(found.model)"
    )
    environment("poselib").run("python", "-c", program)
