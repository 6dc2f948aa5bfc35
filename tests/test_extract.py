"""Collections of images: hloc's layout, broken images, resuming, and being killed at random moments."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from lisrd.describe import build_describer
from lisrd.detect import build_detector
from lisrd.errors import InputError
from lisrd.image import as_image, write_image
from lisrd.match import Policy, match
from lisrd.scale import (
    LocalEngine,
    exhaustive_pairs,
    extract,
    image_names,
    match_pairs,
    names_to_pair,
    read_features,
    read_pairs,
    sequential_pairs,
    similar_pairs,
    write_pairs,
)
from lisrd.scale.images import find_images, image_root
from lisrd.scale.layout import feature_datasets, features_from_datasets
from lisrd.scale.lookahead import prepared_ahead
from lisrd.scale.pairs import similarity_in_turns
from lisrd.scale.store import ResumableStore, record_names
from lisrd.types import LocalFeatures
from small_describer import SmallDescriber
from test_match import random_features


@pytest.fixture
def folder(tmp_path: Path, photograph: np.ndarray) -> Path:
    """Four overlapping crops, two of them in a subfolder."""
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.jpg", "sub/c.png", "sub/d e.png")):
        write_image(root / name, np.ascontiguousarray(photograph[20 * i : 20 * i + 120, 100 : 260 + 10 * i]))
    return root


def contents(path: Path) -> dict[str, np.ndarray]:
    """Every dataset of a file by its full name."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None)
    return found


def assert_same(path0: Path, path1: Path) -> None:
    contents0, contents1 = contents(path0), contents(path1)
    assert contents0.keys() == contents1.keys()
    for name, values in contents0.items():
        assert values.dtype == contents1[name].dtype
        assert values.tobytes() == contents1[name].tobytes(), name


def hloc_list_names(path: Path) -> set[str]:
    """The images of a features file as hloc finds them: the parents of all datasets."""
    return {name.rpartition("/")[0] for name in contents(path)}


class TestLayout:
    def test_a_reader_of_hloc_finds_what_it_expects(self, folder: Path, tmp_path: Path):
        output = tmp_path / "features.h5"
        extract(folder, output, SmallDescriber(), max_keypoints=50)
        assert hloc_list_names(output) == {"a.png", "b.jpg", "sub/c.png", "sub/d e.png"}
        with h5py.File(output, "r") as file:
            group = file["sub/c.png"]
            assert group["keypoints"].shape == (50, 2)
            assert group["keypoints"].dtype == np.float32
            assert group["descriptors"].shape == (256, 50)
            assert group["scores"].shape == (50,)
            assert group["image_size"][()].tolist() == [180, 120]
            # hloc turns every dataset of a group into a float tensor
            assert all(torch.from_numpy(item.__array__()).float().ndim >= 1 for item in group.values())
            norms = np.linalg.norm(group["descriptors"][()].astype(np.float32), axis=0)
            np.testing.assert_allclose(norms, 1, atol=2e-3)
            assert list(group.attrs["invariances"]) == ["oriented", "upright"]

    @pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-6), (True, 1e-3)])
    def test_features_come_back(self, folder: Path, tmp_path: Path, half: bool, tolerance: float):
        output = tmp_path / "features.h5"
        extract(folder, output, SmallDescriber(), max_keypoints=50, half=half)
        image = as_image(folder / "b.jpg")
        expected = SmallDescriber().describe(image, build_detector("sift")(image, 50))
        features = read_features(output, "b.jpg")
        assert features.selection == expected.selection
        for name in ("keypoints", "keypoint_scores", "image_size", "scales", "oris", "mask"):
            torch.testing.assert_close(getattr(features, name), getattr(expected, name), rtol=0, atol=0)
        for name in ("descriptors", "meta_descriptors"):
            torch.testing.assert_close(
                getattr(features, name), getattr(expected, name), rtol=0, atol=tolerance
            )

    def test_turned_descriptors_are_kept_on_request(self, tmp_path: Path):
        features = random_features(7, 0, turns=True, dtype=torch.float32)
        back = features_from_datasets(feature_datasets(features, half=False))
        torch.testing.assert_close(back.turned_descriptors, features.turned_descriptors)
        torch.testing.assert_close(back.turned_meta_descriptors, features.turned_meta_descriptors)
        torch.testing.assert_close(back.descriptors, features.descriptors)
        assert "turned_descriptors" not in feature_datasets(features, keep_turns=False)

    def test_an_image_without_keypoints_is_an_image(self, tmp_path: Path):
        (tmp_path / "images").mkdir()
        for name in ("black.png", "grey.png"):
            write_image(tmp_path / "images" / name, np.full((64, 80, 3), 9, np.uint8))
        report = extract(tmp_path / "images", tmp_path / "f.h5", SmallDescriber())
        assert report.described == 2
        assert read_features(tmp_path / "f.h5", "black.png").descriptors.shape == (1, 0, 2, 128)
        match_pairs(tmp_path / "f.h5", [("black.png", "grey.png")], tmp_path / "m.h5")
        assert contents(tmp_path / "m.h5")["black.png/grey.png/matches0"].shape == (0,)


class TestExtract:
    def test_broken_images_are_listed_and_the_others_described(self, folder: Path, tmp_path: Path):
        whole = (folder / "a.png").read_bytes()
        (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
        (folder / "empty.jpg").write_bytes(b"")
        (folder / "text.jpg").write_text("no image")
        huge = whole[:16] + (60000).to_bytes(4, "big") * 2 + whole[24:]  # a PNG header of 3.6 gigapixels
        (folder / "huge.png").write_bytes(huge)
        write_image(folder / "tiny.png", np.zeros((1, 1, 3), np.uint8))
        (folder / "notes.txt").write_text("not an image, and not named like one")
        progress: list[tuple[int, int]] = []
        report = extract(
            folder, tmp_path / "f.h5", build_describer("root-sift"), on_progress=lambda *p: progress.append(p)
        )
        assert report.described + len(report.broken) == 9
        assert {"truncated.png", "empty.jpg", "text.jpg", "huge.png"} <= {name for name, _ in report.broken}
        assert all(reason for _, reason in report.broken)
        assert progress[-1] == (9, 9)
        assert image_names(tmp_path / "f.h5")[:2] == ["a.png", "b.jpg"]

    def test_what_exists_is_skipped_and_what_is_new_is_added(self, folder: Path, tmp_path: Path):
        output = tmp_path / "f.h5"
        moved = tmp_path / "d e.png"
        (folder / "sub" / "d e.png").rename(moved)
        assert extract(folder, output, SmallDescriber()).described == 3
        moved.rename(folder / "sub" / "d e.png")
        report = extract(folder, output, SmallDescriber())
        assert (report.described, report.skipped) == (1, 3)
        extract(folder, tmp_path / "once.h5", SmallDescriber())
        assert_same(output, tmp_path / "once.h5")

    def test_neither_threads_nor_batches_change_a_bit(self, folder: Path, tmp_path: Path):
        extract(folder, tmp_path / "alone.h5", SmallDescriber(), engine=LocalEngine(1))
        extract(folder, tmp_path / "threads.h5", SmallDescriber(), engine=LocalEngine(4))
        extract(folder, tmp_path / "batches.h5", SmallDescriber(), batch=3)
        assert_same(tmp_path / "threads.h5", tmp_path / "alone.h5")
        assert_same(tmp_path / "batches.h5", tmp_path / "alone.h5")

    def test_images_of_one_size_are_described_together(self, folder: Path, tmp_path: Path):
        class CountingDescriber(SmallDescriber):
            sizes: list[int] = []  # noqa: RUF012

            def describe(self, images: torch.Tensor, *options: Any) -> LocalFeatures:
                self.sizes.append(len(images))
                return super().describe(images, *options)

        for name in ("e.png", "f.png"):
            write_image(folder / name, np.asarray(Image.open(folder / "a.png")))
        (folder / "g.png").write_bytes(b"no image")
        report = extract(folder, tmp_path / "f.h5", CountingDescriber(), batch=5)
        # a, b, e, f, g and then sub/c, sub/d e: only a, e and f are of one size
        assert sorted(CountingDescriber.sizes) == [1, 1, 1, 3]
        assert (report.described, len(report.broken)) == (6, 1)

    def test_features_of_another_describer_or_setting_are_refused(self, folder: Path, tmp_path: Path):
        output = tmp_path / "f.h5"
        extract(folder, output, SmallDescriber(version=1))
        with pytest.raises(InputError, match="describer"):
            extract(folder, output, SmallDescriber(version=2))
        with pytest.raises(InputError, match="max_keypoints 2048, not 10"):
            extract(folder, output, SmallDescriber(), max_keypoints=10)

    def test_parts_of_another_describer_are_refused(self, folder: Path, tmp_path: Path):
        class StoppedError(Exception):
            pass

        def stop(done: int, total: int) -> None:
            if done == 2:
                raise StoppedError

        with pytest.raises(StoppedError):
            extract(folder, tmp_path / "f.h5", SmallDescriber(), on_progress=stop)
        with pytest.raises(InputError, match="describer"):
            extract(folder, tmp_path / "f.h5", SmallDescriber(version=2))
        report = extract(folder, tmp_path / "f.h5", SmallDescriber())
        assert (report.described, report.skipped) == (2, 2)
        assert not (tmp_path / "f.h5.parts").exists()

    def test_any_other_file_is_refused(self, folder: Path, tmp_path: Path):
        (tmp_path / "f.h5").write_text("no HDF5")
        with pytest.raises(InputError, match="no HDF5 file"):
            extract(folder, tmp_path / "f.h5", SmallDescriber())
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file["x"] = 1
        with pytest.raises(InputError, match="not made by this command"):
            extract(folder, tmp_path / "other.h5", SmallDescriber())

    def test_an_image_beyond_the_memory_is_listed(self, folder: Path, tmp_path: Path):
        class HungryDescriber(SmallDescriber):
            def describe(self, images: torch.Tensor, *options: Any) -> LocalFeatures:
                if images.shape[-1] == 160:
                    raise MemoryError
                if images.shape[-1] == 170:
                    raise RuntimeError(
                        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
                    )
                return super().describe(images, *options)

        report = extract(folder, tmp_path / "f.h5", HungryDescriber())
        assert report.described == 2
        assert [name for name, _ in sorted(report.broken)] == ["a.png", "b.jpg"]
        assert all("--workers 1" in reason for _, reason in report.broken)

    def test_what_is_not_the_fault_of_an_image_ends_the_run(self, folder: Path, tmp_path: Path):
        class DefectiveDescriber(SmallDescriber):
            def describe(self, images: torch.Tensor, *options: Any) -> LocalFeatures:
                raise RuntimeError("shapes cannot be multiplied")

        with pytest.raises(RuntimeError, match="multiplied"):
            extract(folder, tmp_path / "f.h5", DefectiveDescriber())

    @pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
    def test_a_name_that_is_not_utf8_is_listed(self, folder: Path, tmp_path: Path):
        (folder / "b.jpg").rename(folder / os.fsdecode(b"caf\xe9.jpg"))
        for skipped in (0, 3):
            report = extract(folder, tmp_path / "f.h5", SmallDescriber())
            assert (report.described, report.skipped) == (3 - skipped, skipped)
            assert report.broken == [(r"'caf\udce9.jpg'", "its name is not UTF-8; rename it")]

    def test_a_folder_is_no_output(self, folder: Path):
        for output in (folder / "sub", Path(".")):
            with pytest.raises(InputError, match="is a folder; give a file, for instance"):
                extract(folder, output, SmallDescriber())

    def test_unknown_names_are_answered_with_the_nearest(self, folder: Path, tmp_path: Path):
        extract(folder, tmp_path / "f.h5", SmallDescriber())
        with pytest.raises(InputError, match=r"did you mean sub/c\.png"):
            read_features(tmp_path / "f.h5", "sub/c.jpg")


class TestFindImages:
    def test_a_list_in_a_text_file(self, folder: Path):
        (folder / "list.txt").write_text("# a comment\nsub/c.png\n\na.png\n")
        assert [image.name for image in find_images(folder / "list.txt")] == ["a.png", "sub/c.png"]

    def test_a_list_elsewhere_is_named_by_what_its_paths_have_in_common(self, folder: Path, tmp_path: Path):
        (tmp_path / "lists").mkdir()
        for lines in (
            [folder / "a.png", folder / "sub" / "c.png"],
            ["../images/a.png", "../images/sub/../sub/c.png"],
        ):
            (tmp_path / "lists" / "list.txt").write_text("\n".join(map(str, lines)))
            found = find_images(tmp_path / "lists" / "list.txt")
            assert [image.name for image in found] == ["a.png", "sub/c.png"]
            assert image_root(tmp_path / "lists" / "list.txt") == folder

    def test_a_list_of_paths_is_named_by_what_they_have_in_common(self, folder: Path):
        found = find_images([folder / "sub" / "c.png", folder / "a.png"])
        assert [image.name for image in found] == ["a.png", "sub/c.png"]

    def test_errors_say_what_to_do(self, folder: Path, tmp_path: Path):
        with pytest.raises(InputError, match="outside"):
            find_images([folder / "a.png"], root=folder / "sub")
        (tmp_path / "none").mkdir()
        with pytest.raises(InputError, match="no images"):
            find_images(tmp_path / "none")
        with pytest.raises(InputError, match="does not exist"):
            find_images(tmp_path / "absent")


class TestStore:
    def test_a_record_that_was_interrupted_leaves_nothing(self, tmp_path: Path):
        def write_one_and_a_half() -> None:
            with ResumableStore(tmp_path / "s.h5", {}) as store:
                store.write("whole", {"x": np.arange(3)})
                store.write("half", {"x": np.arange(3), "y": object()})  # type: ignore[dict-item]

        with pytest.raises(TypeError):
            write_one_and_a_half()
        assert not (tmp_path / "s.h5").exists()
        with ResumableStore(tmp_path / "s.h5", {}) as store:
            assert "whole" in store
            assert "half" not in store
        assert contents(tmp_path / "s.h5").keys() == {"whole/x"}

    def test_what_a_killed_writer_left_is_swept(self, tmp_path: Path):
        parts = tmp_path / "s.h5.parts"
        parts.mkdir()
        (parts / "writing.tmp").write_bytes(b"\x89HDF half")
        (parts / "merging.tmp").write_bytes(b"\x89HDF half")
        with ResumableStore(tmp_path / "s.h5", {}) as store:
            store.write("a/b", {"x": np.arange(3)})
        assert contents(tmp_path / "s.h5").keys() == {"a/b/x"}
        assert not parts.exists()

    def test_killed_between_merging_and_sweeping(self, tmp_path: Path):
        with ResumableStore(tmp_path / "s.h5", {}) as store:
            store.write("a", {"x": np.arange(3)})
        (tmp_path / "s.h5.parts").mkdir()
        (tmp_path / "s.h5.parts" / "00000.h5").write_bytes((tmp_path / "s.h5").read_bytes())
        with ResumableStore(tmp_path / "s.h5", {}) as store:
            store.write("b", {"x": np.arange(2)})
        assert contents(tmp_path / "s.h5").keys() == {"a/x", "b/x"}

    def test_one_writer_at_a_time(self, tmp_path: Path):
        with (
            ResumableStore(tmp_path / "s.h5", {}),
            pytest.raises(InputError, match="another process"),
            ResumableStore(tmp_path / "s.h5", {}),
        ):
            pass

    def test_names_of_all_depths_in_order(self, tmp_path: Path):
        with ResumableStore(tmp_path / "s.h5", {}, part_seconds=0.0) as store:
            for name in ("b", "a/2/x", "a/1"):
                store.write(name, {"v": np.zeros(1)})
        with h5py.File(tmp_path / "s.h5", "r") as file:
            assert list(record_names(file)) == ["a/1", "a/2/x", "b"]

    @pytest.mark.parametrize("threads", [1, 3])
    def test_work_ahead_keeps_order_and_raises_where_asked(self, threads: int):
        results = []
        for item, future in prepared_ahead(lambda n: 12 // n, [4, 0, 3], threads=threads):
            results.append((item, "error" if future.exception() else future.result()))
        assert results == [(4, 3), (0, "error"), (3, 4)]


class TestPairs:
    def test_by_hand(self):
        assert exhaustive_pairs(["a", "b", "c"]) == [("a", "b"), ("a", "c"), ("b", "c")]
        assert sequential_pairs(["a", "b", "c", "d"], overlap=2) == [
            ("a", "b"),
            ("a", "c"),
            ("b", "c"),
            ("b", "d"),
            ("c", "d"),
        ]

    def test_names_of_what_is_still_there(self, folder: Path, tmp_path: Path):
        extract(folder, tmp_path / "f.h5", SmallDescriber(), max_keypoints=10)
        (folder / "a.png").unlink()
        names = image_names(tmp_path / "f.h5", folder)
        assert names == ["b.jpg", "sub/c.png", "sub/d e.png"]
        assert {name for pair in similar_pairs(tmp_path / "f.h5", 9, names) for name in pair} == set(names)

    def test_written_pairs_come_back(self, tmp_path: Path):
        pairs = [("a.png", "sub/c.png"), ("sub/d e.png", "a.png")]
        write_pairs(pairs, tmp_path / "pairs.txt")
        assert (tmp_path / "pairs.txt").read_text().splitlines()[0] == "a.png sub/c.png"
        assert read_pairs(tmp_path / "pairs.txt") == pairs

    @pytest.mark.parametrize("line", ["alone", "a b c", "a a"])
    def test_a_line_that_is_no_pair_is_named(self, tmp_path: Path, line: str):
        (tmp_path / "pairs.txt").write_text(f"# comment\na b\n{line}\n")
        with pytest.raises(InputError, match="line 3"):
            read_pairs(tmp_path / "pairs.txt")

    def test_images_that_look_alike_find_each_other(self, tmp_path: Path):
        from skimage import data

        (tmp_path / "images").mkdir()
        for name, photograph in (("astronaut", data.astronaut()), ("coffee", data.coffee())):
            for i in range(2):
                crop = photograph[4 * i : 200 + 4 * i, 100:300]
                write_image(tmp_path / "images" / f"{name}{i}.png", np.ascontiguousarray(crop))
        extract(tmp_path / "images", tmp_path / "f.h5", SmallDescriber(), max_keypoints=10)
        assert similar_pairs(tmp_path / "f.h5", top_k=1) == [
            ("astronaut0.png", "astronaut1.png"),
            ("coffee0.png", "coffee1.png"),
        ]
        assert len(similar_pairs(tmp_path / "f.h5", top_k=99)) == 6

    def test_a_turned_image_is_itself_by_hand(self):
        tiles = torch.eye(4).view(4, 1, 2, 2, 1)  # image k shows something in tile k alone
        expected = torch.ones(4, 4)  # one turn or another brings any tile of 2 x 2 to any other
        torch.testing.assert_close(similarity_in_turns(tiles, tiles), expected)
        row = torch.tensor([[1.0, 1], [0, 0]]).view(1, 1, 2, 2, 1)
        diagonal = torch.eye(2).view(1, 1, 2, 2, 1)
        assert similarity_in_turns(row, torch.cat([row, diagonal])).tolist() == [[2, 1]]

    def test_a_photograph_that_was_turned_finds_its_like(self, tmp_path: Path):
        from skimage import data

        (tmp_path / "images").mkdir()
        for name, photograph in (("astronaut", data.astronaut()), ("coffee", data.coffee())):
            crop = photograph[:200, 100:300]
            write_image(tmp_path / "images" / f"{name}.png", np.ascontiguousarray(crop))
            write_image(tmp_path / "images" / f"{name}-turned.png", np.ascontiguousarray(np.rot90(crop)))
        extract(tmp_path / "images", tmp_path / "f.h5", SmallDescriber(), max_keypoints=10)
        assert similar_pairs(tmp_path / "f.h5", top_k=1) == [
            ("astronaut-turned.png", "astronaut.png"),
            ("coffee-turned.png", "coffee.png"),
        ]

    def test_a_describer_without_meta_descriptors_cannot_tell(self, folder: Path, tmp_path: Path):
        extract(folder, tmp_path / "f.h5", build_describer("root-sift"))
        with pytest.raises(InputError, match="no meta descriptors"):
            similar_pairs(tmp_path / "f.h5")


class TestMatchPairs:
    def test_hloc_reads_the_matches(self, folder: Path, tmp_path: Path):
        extract(folder, tmp_path / "f.h5", SmallDescriber(), max_keypoints=200, half=False)
        names = image_names(tmp_path / "f.h5")
        write_pairs(exhaustive_pairs(names), tmp_path / "pairs.txt")
        report = match_pairs(tmp_path / "f.h5", tmp_path / "pairs.txt", tmp_path / "m.h5")
        assert (report.matched, report.skipped, report.broken) == (6, 0, [])
        expected = match(*(read_features(tmp_path / "f.h5", name) for name in ("a.png", "sub/c.png")))
        with h5py.File(tmp_path / "m.h5", "r") as file:
            group = file["a.png/sub-c.png"]  # hloc: slashes of names become hyphens, one slash between
            matches0 = group["matches0"][()]
            assert matches0.dtype == np.int32
            indices = np.flatnonzero(matches0 != -1)
            pairs = np.stack([indices, matches0[indices]], 1)
            order = expected.matches[:, 0].argsort()
            np.testing.assert_array_equal(pairs, expected.matches[order])
            np.testing.assert_allclose(group["matching_scores0"][indices], expected.scores[order], atol=1e-3)
            weights = group["invariance_weights"][()]
            np.testing.assert_allclose(weights, expected.invariance_weights[order], atol=1e-3)
            assert list(group.attrs["invariances"]) == ["oriented", "upright"]

    def test_resuming_and_refusing(self, folder: Path, tmp_path: Path):
        extract(folder, tmp_path / "f.h5", SmallDescriber())
        match_pairs(tmp_path / "f.h5", [("a.png", "b.jpg")], tmp_path / "m.h5")
        again = [("b.jpg", "a.png"), ("a.png", "sub/c.png"), ("sub/c.png", "a.png"), ("a.png", "gone.png")]
        report = match_pairs(tmp_path / "f.h5", again, tmp_path / "m.h5")
        assert (report.matched, report.skipped) == (1, 1)  # as in hloc, one direction is enough
        assert report.broken == [("a.png gone.png", "no features of gone.png; extract them first")]
        with pytest.raises(InputError, match="policy"):
            match_pairs(tmp_path / "f.h5", again, tmp_path / "m.h5", Policy("mean"))

    def test_two_pairs_of_one_group_are_refused(self, folder: Path, tmp_path: Path):
        extract(folder, tmp_path / "f.h5", SmallDescriber())
        with pytest.raises(InputError, match="same group"):
            match_pairs(tmp_path / "f.h5", [("a/b", "c"), ("a-b", "c")], tmp_path / "m.h5")
        assert names_to_pair("a/b", "c") == names_to_pair("a-b", "c") == "a-b/c"


@pytest.mark.slow
def test_two_hundred_images_ten_of_them_broken(tmp_path: Path, photograph: np.ndarray):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(190):
        crop = photograph[i : i + 90, 2 * (i % 100) : 2 * (i % 100) + 120]
        write_image(folder / f"{i:03d}.png", np.ascontiguousarray(crop))
    whole = (folder / "000.png").read_bytes()
    huge = whole[:16] + (60000).to_bytes(4, "big") * 2 + whole[24:]
    for i in range(10):
        (folder / f"broken{i}.png").write_bytes((whole[:-200], b"", b"no image at all", huge)[i % 4])
    command = [sys.executable, "-m", "lisrd", "extract", str(folder), "-o", str(tmp_path / "f.h5")]
    done = subprocess.run([*command, "--describer", "root-sift", "--json"], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    answer = json.loads(done.stdout)
    assert answer["described"] == 190
    assert sorted(name for name, _ in answer["broken"]) == [f"broken{i}.png" for i in range(10)]
    assert image_names(tmp_path / "f.h5") == [f"{i:03d}.png" for i in range(190)]


def extract_or_match(work: Path, stage: str) -> None:
    """What the child process runs; nearly every record is a part of its own."""
    torch.set_num_threads(1)
    if stage == "extract":
        extract(work / "images", work / "f.h5", SmallDescriber(), 300, part_seconds=0.02)
    else:
        pairs = exhaustive_pairs(image_names(work / "f.h5"))
        match_pairs(work / "f.h5", pairs, work / "m.h5", part_seconds=0.02)


def run_and_kill(context: BaseContext, work: Path, stage: str, seconds: float | None) -> bool:
    """Whether the stage ended by itself; otherwise it was killed by SIGKILL after so many seconds."""
    process = context.Process(target=extract_or_match, args=(work, stage))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode == 0


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["extract", "match"])
def test_killed_at_random_moments_the_result_is_that_of_an_uninterrupted_run(
    tmp_path: Path, photograph: np.ndarray, stage: str, monkeypatch: pytest.MonkeyPatch
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for work in (whole, killed):
        (work / "images").mkdir(parents=True)
        for i in range(24):
            crop = photograph[8 * i : 8 * i + 220, 6 * i : 6 * i + 240]
            write_image(work / "images" / f"{i:02d}.png", np.ascontiguousarray(crop))
        if stage == "match":
            extract(work / "images", work / "f.h5", SmallDescriber(), 300)
    # Children are forked from a server that has imported everything, and in which no thread has run.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lisrd.scale", "lisrd.detect.sift", "small_describer", "test_match"])
    run_and_kill(context, killed, stage, 0.01)  # starts the server
    started = time.monotonic()
    assert run_and_kill(context, whole, stage, None)
    longest = time.monotonic() - started
    file = "f.h5" if stage == "extract" else "m.h5"
    dice = random.Random(0)
    kills = 0
    while kills < 20:
        if run_and_kill(context, killed, stage, dice.uniform(0, longest / 3)):
            (killed / file).unlink()  # from the beginning, so that there is something to kill
        else:
            kills += 1
    assert run_and_kill(context, killed, stage, None)
    assert_same(whole / file, killed / file)
    assert not (killed / f"{file}.parts").exists()
