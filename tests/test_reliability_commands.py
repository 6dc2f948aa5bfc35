"""Every command that writes, on a disk that is full or read-only: one line, exit code 2, no debris."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from lisrd.cli.console import BAD_INPUT, DONE
from lisrd.errors import InputError
from lisrd.one_writer import claim
from lisrd.train.journal import Journal
from small_training import SMALL, write_photographs
from test_cli import call
from test_train import config, photographs, trainer  # noqa: F401

TRAINING = f"""
{SMALL}
[run]
steps = 1
batch_size = 2
precision = "float32"
validation_triplets = 2
"""

#: Arguments by what is written; {here} is a folder with inputs, {there} the one to write into.
COMMANDS = {
    "matches": "match {here}/images/0.png {here}/images/1.png --describer root-sift --save {there}/out.npz",
    "picture": "match {here}/images/0.png {here}/images/1.png --describer root-sift --picture {there}/out.png",
    "features": "extract {here}/images -o {there}/out.h5 --describer root-sift",
    "pairs": "pairs {here}/features.h5 -o {there}/out.txt --method exhaustive",
    "pair matches": "match-pairs {here}/features.h5 {here}/pairs.txt -o {there}/out.h5",
    "diagnosis": "diagnose {here}/features.h5 -o {there}/out",
    "diagnosis picture": "diagnose {here}/features.h5 --picture {there}/out.png",
    "evaluation": "evaluate {here}/truth --layout pairs --describers root-sift --out {there}/out",
    "training": "train {here}/training.toml --data {here}/images --out {there}/out --workers 0",
    "sheet": "train {here}/training.toml --data {here}/images --out {here}/run --workers 0 --sheet {there}/out.png",
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of one scene among others, their features, lists of pairs, and a training."""
    root = tmp_path_factory.mktemp("inputs")
    (root / "images").mkdir()
    write_photographs(root / "images", 12)
    shutil.copy(root / "images" / "0.png", root / "images" / "1.png")  # a pair that verifies on every machine
    assert call("extract", root / "images", "-o", root / "features.h5", "--describer", "lisrd-sift") == DONE
    (root / "pairs.txt").write_text("0.png 1.png\n")
    (root / "truth").mkdir()
    (root / "truth" / "pairs.txt").write_text("../images/0.png ../images/1.png 1 0 0 0 1 0 0 0 1\n")
    (root / "training.toml").write_text(TRAINING)
    return root


def _arguments(name: str, here: Path, there: Path) -> list[str]:
    return [word.format(here=here, there=there) for word in COMMANDS[name].split()]


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # TensorBoard's; see lisrd_command
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_command_that_cannot_write_says_so(
    name: str, state: str, here: Path, small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if state == "full":
        _fill(small_disk)
    else:
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert call(*_arguments(name, here, small_disk)) == BAD_INPUT
    said = capfd.readouterr().err
    reason = {"full": r"No space left on device|disk is full", "read-only": "Read-only file system"}[state]
    assert re.search(reason, said.splitlines()[-1]), said
    assert f"{small_disk}/out" in said.splitlines()[-1], said
    assert "Traceback" not in said, said
    files = [path for path in small_disk.rglob("*") if path.is_file() and path.stat().st_size]
    assert [path.name for path in files] in ([], ["filling"])


def _fill(disk: Path) -> None:
    with (disk / "filling").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1024))
        except OSError:
            return


def test_a_directory_is_trained_into_by_one_process_at_a_time(
    config: Path,  # noqa: F811
    photographs: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    training = trainer(config, photographs, tmp_path / "run", steps=1)
    with closing(claim(tmp_path / "run" / ".lock", tmp_path / "run")):
        for writes in (training.fit, training.resume):
            with pytest.raises(InputError, match="run is being written by another process"):
                writes()
    assert not list((tmp_path / "run").glob("*.jsonl"))
    training.fit()


@pytest.mark.parametrize("kind", ["missing folder", "folder", "text"])
def test_a_place_that_cannot_be_claimed(kind: str, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    match kind:
        case "missing folder":
            lock = tmp_path / "missing" / "lock"
        case "folder":
            lock.mkdir()
        case _:
            lock.write_text("not a database, and longer than the header of one" * 10)
    with pytest.raises(InputError, match="out cannot be written"):
        claim(lock, tmp_path / "out")


def test_half_a_row_of_a_journal_is_forgotten(tmp_path: Path) -> None:
    """Even where it breaks off behind a brace."""
    rows = tmp_path / "validation.jsonl"
    rows.write_text('{"step": 1, "a": {"soft": 1}}\n{"step": 2, "a": {"soft": 2}')
    Journal(tmp_path).forget_after(5)
    assert rows.read_text() == '{"step": 1, "a": {"soft": 1}}\n'
