"""Outputs on disks that are full, read-only, shared or cut off: a clear error, nothing lost, nothing half-written."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import lisrd
from lisrd.cli import app, console
from lisrd.errors import InputError
from lisrd.evaluate.cache import DetectedImage, FeatureCache
from lisrd.image import read_image, write_image
from lisrd.scale import extract, image_names, match_pairs, read_features, read_pairs, write_pairs
from lisrd.scale.store import ResumableStore
from lisrd.tensor_files import save_atomically
from lisrd.types import Keypoints
from lisrd.whole_file import whole_file
from small_describer import SmallDescriber

NOISE = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)  # does not compress
NAMES = ("with space.png", "zürich 日本.png", "two\nlines.png", "-dash.png", "'quote\".png")


def _store(path: Path) -> None:
    with ResumableStore(path, {"kind": "test"}) as store:
        store.write("one", {"values": NOISE})


def _cache(path: Path) -> None:
    many = Keypoints.from_xy(torch.rand(50_000, 2))
    detected = DetectedImage(many, (8, 6), torch.eye(3, dtype=torch.float64), 0.1, "digest")
    FeatureCache(path.parent).store_keypoints(path.stem, detected)


#: One output of some hundred kilobytes in each format.
WRITERS: dict[str, Callable[[Path], None]] = {
    "image.png": lambda path: write_image(path, NOISE),
    "image.jpg": lambda path: write_image(path, NOISE),
    "tensors.safetensors": lambda path: save_atomically({"a": torch.rand(100_000)}, path, {}),
    "pairs.txt": lambda path: write_pairs([(f"{i}.jpg", f"{i + 1}.jpg") for i in range(20_000)], path),
    "keypoints.npz": _cache,
    "store.h5": _store,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_keeps_the_old_file(name: str, small_disk: Path) -> None:
    path = small_disk / name
    path.write_bytes(b"old")
    if name == "store.h5":
        path.unlink()  # a store continues what is there
    with pytest.raises(InputError, match=r"cannot write .*No space left on device"):
        WRITERS[name](path)
    left = {file.name: file.read_bytes() for file in small_disk.iterdir() if file.is_file()}
    assert left == ({} if name == "store.h5" else {name: b"old"})


def test_a_store_on_a_full_disk_keeps_what_was_finished(small_disk: Path) -> None:
    path = small_disk / "store.h5"

    def fill() -> None:
        with ResumableStore(path, {}, part_seconds=0) as store:
            for number in range(40):
                store.write(f"{number}", {"values": np.arange(1000)})

    with pytest.raises(InputError, match="No space left"):
        fill()
    subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
    with ResumableStore(path, {}) as store:
        kept = [number for number in range(40) if f"{number}" in store]
    assert kept == list(range(len(kept)))
    assert kept


@pytest.mark.parametrize("name", WRITERS)
def test_a_read_only_disk_is_an_error_of_one_line(name: str, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(InputError, match=r"(cannot write|cannot be written).*Read-only file system"):
        WRITERS[name](small_disk / name)


@pytest.mark.parametrize("name", WRITERS)
def test_permissions_are_those_of_any_new_file(name: str, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        WRITERS[name](tmp_path / name)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640


@pytest.mark.parametrize("name", sorted(WRITERS.keys() - {"store.h5"}))
def test_a_link_stays_a_link_and_a_loop_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link, loop = tmp_path / name, tmp_path / f"loop{Path(name).suffix}"
    link.symlink_to(tmp_path / "real" / name)
    WRITERS[name](link)
    assert link.is_symlink()
    assert (tmp_path / "real" / name).stat().st_size > 1000
    loop.symlink_to(tmp_path / "other")
    (tmp_path / "other").symlink_to(loop)
    with pytest.raises(InputError, match="loop"):
        WRITERS[name](loop)


@pytest.mark.parametrize("where", ["missing/file.png", "."])
def test_a_folder_that_is_missing_or_in_the_way(where: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"), whole_file(tmp_path / where):
        raise AssertionError("there is nothing to write to")


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_file(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list(tmp_path.iterdir())


def test_two_writers_of_one_output_leave_one_of_the_two(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with whole_file(path) as first, whole_file(path) as second:
        first.write_text("first " * 1000)
        second.write_text("second")
        first.write_text("first " * 1000)
    assert path.read_text() == "first " * 1000  # the outer block ends last
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_killed_while_writing_the_old_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    script = (
        "import os, signal, sys; from lisrd.whole_file import whole_file\n"
        "with whole_file(sys.argv[1]) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, path])
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_store_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    with ResumableStore(path, {}) as first:
        with pytest.raises(InputError, match="being written by another process"):
            ResumableStore(path, {}).__enter__()
        first.write("one", {"values": NOISE})
    with ResumableStore(path, {}) as again:
        assert "one" in again


def test_a_store_cleans_up_before_another_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it removes would otherwise be the parts of a process that began in between."""
    path, refused, remove = tmp_path / "store.h5", [], shutil.rmtree

    def rmtree(folder: Path, **options: bool) -> None:
        with pytest.raises(InputError, match="being written by another process"):
            ResumableStore(path, {}).__enter__()
        refused.append(folder)
        remove(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    _store(path)
    assert refused == [tmp_path / "store.h5.parts"]
    assert [file.name for file in tmp_path.iterdir()] == ["store.h5"]


def test_names_with_spaces_unicode_and_newlines_travel_through_the_pipeline(tmp_path: Path) -> None:
    folder = tmp_path / "a folder\nof imäges"
    folder.mkdir()
    for name in NAMES:
        write_image(folder / name, NOISE[:96, :128])
    features, matches = tmp_path / "fea tures\n.h5", tmp_path / "mätches.h5"
    report = extract(folder, features, SmallDescriber(), max_keypoints=50)
    assert not report.broken
    assert image_names(features) == sorted(NAMES)
    pairs = [(NAMES[0], name) for name in NAMES[1:]]
    assert match_pairs(features, pairs, matches).matched == len(pairs)
    assert len(read_features(features, NAMES[2]).keypoints[0])


@pytest.mark.parametrize("name", ["two\nlines.png", "tab\tin.png", "#hash.png", ""])
def test_a_list_of_pairs_refuses_names_that_it_cannot_give_back(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rename"):
        write_pairs([("a.png", "b.png"), (name, "b.png")], tmp_path / "pairs.txt")
    assert not list(tmp_path.iterdir())


def test_a_list_of_pairs_keeps_spaces(tmp_path: Path) -> None:
    pairs = [(" space.png", "zürich 日本.png"), ("a.png", "b#.png")]
    write_pairs(pairs, tmp_path / "pairs.txt")
    assert read_pairs(tmp_path / "pairs.txt") == pairs


def test_an_image_that_vanishes_is_listed_and_the_others_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        write_image(folder / name, NOISE[:96, :128])

    def vanish(done: int, total: int) -> None:
        (folder / "c.png").unlink(missing_ok=True)

    images = [folder / name for name in ("a.png", "b.png", "c.png")]
    (folder / "c.png").unlink()
    report = extract(images, tmp_path / "features.h5", SmallDescriber(), 50, vanish)
    assert report.described == 2
    assert [name for name, _ in report.broken] == ["c.png"]


def test_an_image_behind_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png"):
        read_image(tmp_path / "a.png")


def test_a_command_on_a_full_disk_says_one_line(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "a.png"
    write_image(image, NOISE)
    output = small_disk / "matches.npz"
    monkeypatch.setattr(
        sys,
        "argv",
        ["lisrd", "match", f"{image}", f"{image}", "--describer", "root-sift", "--save", f"{output}"],
    )
    (small_disk / "filling").write_bytes(b"x" * 60_000)
    with pytest.raises(SystemExit) as stopped:
        console.run(app)
    said = capsys.readouterr().err
    assert stopped.value.code == console.BAD_INPUT
    assert re.search(r"lisrd: cannot write .*matches\.npz: No space left on device", said)
    assert "Traceback" not in said
    assert [file.name for file in small_disk.iterdir()] == ["filling"]


def test_every_output_is_written_through_whole_file() -> None:
    """Texts, bytes and figures go to a partial file or into memory."""
    writes = re.compile(r"(\w+)\.write_(?:text|bytes)\(|\.savefig\((\w+)")
    for path in Path(lisrd.__file__).parent.rglob("*.py"):
        targets = {found[1] or found[2] for found in writes.finditer(path.read_text())}
        assert targets <= {"partial", "buffer"}, path
