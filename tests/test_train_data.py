"""Samples: sources and their splits, crops and keypoints, the same batches for any number of workers."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lisrd.detect import build_detector
from lisrd.errors import InputError
from lisrd.image import as_image, write_image
from lisrd.train.data.crops import keypoints_in_crop, random_crop, spread
from lisrd.train.data.dataset import DataConfig, TripletDataset, triplet_loader
from lisrd.train.data.keypoint_cache import KeypointCache
from lisrd.train.data.photo_cache import ArrayCache, PhotoCache
from lisrd.train.data.sources import (
    Mixture,
    Source,
    SourceConfig,
    build_mixture,
    image_folder,
    multi_illumination,
    scene_folder,
    vidit,
)

SMALL = DataConfig(height=60, width=80, num_keypoints=64, min_keypoints=8)


def _photo(seed: int, height: int = 100, width: int = 140) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 5, width // 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _write(path: Path, photo: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, photo)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six photographs in `images/`, and three scenes of three lights in `scenes/`."""
    for i in range(6):
        _write(tmp_path / "images" / f"{i}.png", _photo(i))
    for scene in range(3):
        for light in range(3):
            _write(tmp_path / "scenes" / f"s{scene}" / f"{light}.png", _photo(100 + scene) // (light + 1))
    return tmp_path


@pytest.fixture
def dataset(root: Path) -> TripletDataset:
    sources = (SourceConfig("images", "images"), SourceConfig("scenes", "scenes"))
    return TripletDataset(build_mixture(root, sources, "all"), SMALL, seed=7)


def _equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class TestSources:
    def test_every_image_below_the_folder_is_a_scene(self, root: Path) -> None:
        (root / "images" / "notes.txt").write_text("not an image")
        assert len(image_folder(root)) == 6 + 9
        assert {len(scene) for scene in image_folder(root).scenes} == {1}

    def test_a_scene_has_its_images_in_order(self, root: Path) -> None:
        scenes = scene_folder(root / "scenes").scenes
        assert [[path.name for path in scene] for scene in scenes] == [["0.png", "1.png", "2.png"]] * 3

    def test_the_split_is_a_partition_that_new_images_do_not_change(self, tmp_path: Path) -> None:
        for i in range(200):
            (tmp_path / f"{i}.png").touch()
        parts = {
            split: set(image_folder(tmp_path, split, val_share=0.2).scenes) for split in ("train", "val")
        }
        assert not parts["train"] & parts["val"]
        assert len(parts["train"] | parts["val"]) == 200
        assert 20 < len(parts["val"]) < 60
        (tmp_path / "new.png").touch()
        assert parts["val"] <= set(image_folder(tmp_path, "val", val_share=0.2).scenes)

    def test_a_small_folder_keeps_one_scene_for_validation(self, root: Path) -> None:
        assert len(image_folder(root / "images", "val", val_share=1e-9)) == 1
        assert len(image_folder(root / "images", "train", val_share=1e-9)) == 5

    def test_named_validation_scenes(self, root: Path) -> None:
        source = scene_folder(root / "scenes", "val", validation=("s1",))
        assert [scene[0].parent.name for scene in source.scenes] == ["s1"]
        source = image_folder(root / "images", "val", validation=("1.png", "4.png"))
        assert [scene[0].name for scene in source.scenes] == ["1.png", "4.png"]

    @pytest.mark.parametrize(
        ("kind", "path", "names"),
        [("scenes", "scenes", ("s1", "s9")), ("images", "images", ("1.png", "s9"))],
    )
    def test_a_misspelt_name_for_validation_is_an_error(
        self, root: Path, kind: str, path: str, names: tuple[str, ...]
    ) -> None:
        with pytest.raises(InputError, match=rf"{path}: nothing named 's9' for validation; there are: "):
            build_mixture(root, (SourceConfig(kind, path, validation=names),))

    def test_coco_is_split_by_its_folders(self, tmp_path: Path) -> None:
        for part, number in (("train2014", 3), ("val2014", 2)):
            for i in range(number):
                _write(tmp_path / part / f"{i}.jpg", _photo(i))
        assert [len(image_folder(tmp_path, split)) for split in ("train", "val", "all")] == [3, 2, 5]
        with pytest.raises(InputError, match="val2014/ is for validation"):
            build_mixture(tmp_path, (SourceConfig("images", validation=("train2014/0.jpg",)),))

    def test_multi_illumination(self, tmp_path: Path) -> None:
        for part, scene in (("train", "kitchen"), ("train", "hall"), ("test", "attic")):
            for name in ("dir_0_mip2.jpg", "dir_1_mip2.jpg", "materials_mip2.png"):
                _write(tmp_path / part / scene / name, _photo(0))
        assert [len(multi_illumination(tmp_path, split)) for split in ("train", "val")] == [2, 1]
        assert {len(scene) for scene in multi_illumination(tmp_path).scenes} == {2}
        with pytest.raises(InputError, match="test/ is for validation"):
            build_mixture(tmp_path, (SourceConfig("multi-illumination", validation=("hall",)),))

    def test_vidit_has_forty_lights_per_scene(self, tmp_path: Path) -> None:
        for i in range(80):
            (tmp_path / f"Image{i // 40:03d}_{i % 40:02d}.png").touch()
        first, second = vidit(tmp_path).scenes
        assert len(first) == len(second) == 40
        assert {path.name[:8] for path in first} == {"Image000"}
        named = SourceConfig("vidit", validation=("Image001_00",))
        for split, scene in (("train", first), ("val", second)):
            ((source, _),) = build_mixture(tmp_path, (named,), split).parts
            assert source.scenes == (scene,)
        (tmp_path / "extra.png").touch()
        with pytest.raises(InputError, match="81 images"):
            vidit(tmp_path)

    @pytest.mark.parametrize("read", [image_folder, scene_folder, vidit])
    def test_an_empty_source_is_an_error(self, tmp_path: Path, read) -> None:
        with pytest.raises(InputError, match="no images"):
            read(tmp_path)

    def test_a_missing_folder_and_an_unknown_kind_are_errors(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such folder"):
            build_mixture(tmp_path, (SourceConfig("images", "nowhere"),))
        with pytest.raises(InputError, match="multi-illumination"):
            build_mixture(tmp_path, (SourceConfig("video"),))

    def test_the_mixture_draws_by_weight(self) -> None:
        rare, often = Source("a", ((Path("a"),),)), Source("b", ((Path("b"),),))
        mixture = Mixture(((rare, 1.0), (often, 3.0)))
        rng = np.random.default_rng(0)
        drawn = [mixture.draw(rng)[0].name for _ in range(2000)]
        assert drawn.count("b") / 2000 == pytest.approx(0.75, abs=0.03)
        with pytest.raises(InputError, match="above 0"):
            Mixture(((rare, 0.0),))


class TestCaches:
    def test_the_oldest_arrays_go_first(self) -> None:
        cache = ArrayCache(megabytes=2.0)
        megabyte = np.zeros(2**20, np.uint8)
        made: list[str] = []
        for name in ("a", "b", "a", "c", "a", "b"):
            cache.get(Path(name), lambda name=name: made.append(name) or megabyte.copy())
        assert made == ["a", "b", "c", "b"]
        assert cache.size == 2 * 2**20

    def test_large_photographs_are_shrunk(self, tmp_path: Path) -> None:
        path = _write(tmp_path / "large.png", _photo(0, 500, 1000))
        assert PhotoCache(short_side=100).read(path).shape == (100, 200, 3)


def test_keypoints_of_what_moved_are_dropped_from_long_scenes(tmp_path: Path) -> None:
    """Ten photographs of one wall: its left half stays, its right half is another in each."""
    still = _photo(0, 100, 140)
    for i in range(10):
        photo = still.copy()
        photo[:, 70:] = _photo(i + 1, 100, 70)
        _write(tmp_path / "wall" / f"{i}.png", photo)
    (scene,) = scene_folder(tmp_path).scenes
    photos = PhotoCache()
    cache = KeypointCache(photos, lasting=0.5)
    photo = photos.read(scene[4])
    every, lasting = cache.of(scene[4], photo)[:, 0], cache.in_scene(scene[4], photo, scene)[:, 0]
    assert (lasting < 65).sum() == (every < 65).sum() > 20
    assert (lasting > 75).sum() < 0.3 * (every > 75).sum()
    np.testing.assert_array_equal(cache.in_scene(scene[4], photo, scene[:5])[:, 0], every)


def test_a_long_scene_may_have_photographs_of_several_sizes(tmp_path: Path) -> None:
    """In upright and lying photographs of one wall the same keypoints last, whichever is asked first."""
    for i in range(10):
        lying = _photo(i % 2, 100, 140)
        _write(tmp_path / "wall" / f"{i}.png", lying if i % 2 else np.rot90(lying))
    (scene,) = scene_folder(tmp_path).scenes
    photos = PhotoCache()
    for path in scene[:2]:
        cache = KeypointCache(photos, lasting=0.5)
        for first in (path, *scene[:2]):
            photo = photos.read(first)
            assert len(cache.in_scene(first, photo, scene)) == len(cache.of(first, photo)) > 20


class TestKeptKeypoints:
    def test_another_worker_reads_them(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, photo = Path("wall.png"), _photo(0, 100, 140)
        found = _keeping(tmp_path).of(path, photo)
        monkeypatch.setattr(KeypointCache, "_detect", lambda *_: pytest.fail("it was detected before"))
        np.testing.assert_array_equal(_keeping(tmp_path).of(path, photo), found)
        with pytest.raises(pytest.fail.Exception):
            _keeping(tmp_path).of(path, photo[:, ::-1])

    def test_a_damaged_file_is_made_again(self, tmp_path: Path) -> None:
        found = _keeping(tmp_path).of(Path("wall.png"), _photo(0, 100, 140))
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:200])
        np.testing.assert_array_equal(_keeping(tmp_path).of(Path("wall.png"), _photo(0, 100, 140)), found)
        np.testing.assert_array_equal(np.load(file), found)


def _keeping(directory: Path) -> KeypointCache:
    cache = KeypointCache(PhotoCache())
    cache.directory = directory
    return cache


class TestCrops:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(20, 300), st.integers(20, 300), st.integers(0, 2**32))
    def test_crops_lie_inside_the_photograph(self, height: int, width: int, seed: int) -> None:
        size = (60, 80)
        transform = random_crop((height, width), size, np.random.default_rng(seed))
        inverse = np.linalg.inv(np.vstack([transform, [0, 0, 1]]))
        corners = np.array([[-0.5, 79.5], [-0.5, 59.5], [1, 1]])  # outer edges of the border pixels
        x, y = np.sort((inverse @ corners)[:2], axis=1)
        assert x[0] >= -0.5 - 1e-6
        assert x[1] <= width - 0.5 + 1e-6
        assert y[0] >= -0.5 - 1e-6
        assert y[1] <= height - 0.5 + 1e-6

    def test_keypoints_follow_a_mirrored_crop(self) -> None:
        transform = np.array([[-0.5, 0, 60], [0, 0.5, -4.0]])
        keypoints = np.array(
            [[40, 20, 6, 0.5], [118, 20, 6, 0.5]], np.float32
        )  # the second at x = 1: too near
        carried = keypoints_in_crop(keypoints, transform, (60, 80))
        np.testing.assert_allclose(carried, [[40, 6, 3, np.pi - 0.5]], rtol=1e-6)

    def test_keypoints_are_those_of_the_crop(self, dataset: TripletDataset) -> None:
        """Detecting on the crop itself finds most of the strongest cached keypoints within a pixel."""
        sample = dataset.sample(0)
        top, left = SMALL.margin
        crop = sample["image0"][:, top : top + 60, left : left + 80]
        found = build_detector("sift")(as_image(crop.permute(1, 2, 0).numpy())).xy[0]
        cached = sample["keypoints0"][sample["keypoint_mask"]][:20]
        assert (torch.cdist(cached, found).amin(1) < 1).float().mean() > 0.7

    def test_of_several_detectors_each_sample_has_one(self, dataset: TripletDataset) -> None:
        """SIFT's keypoints have orientations, those of the difference of Gaussians have none, in no crop."""
        both = TripletDataset(dataset.mixture, replace(dataset.config, detector="sift, dog"), dataset.seed)
        samples = [both.sample(index) for index in range(12)]
        oriented = [s["oris"][s["keypoint_mask"]].isfinite().float().mean().item() for s in samples]
        assert set(oriented) == {0.0, 1.0}
        for index, sample in enumerate(samples[:3]):
            torch.testing.assert_close(both.sample(index), sample, rtol=0, atol=0, equal_nan=True)

    def test_spread_takes_the_strongest_of_each_tile_first(self) -> None:
        crowd = np.column_stack(
            [np.linspace(1, 20, 30), np.full(30, 5.0)]
        )  # all in the first tile, all stronger
        far = np.array([[70.0, 50.0]])
        chosen = spread(np.vstack([crowd, far]), (60, 80), limit=18)
        assert 30 in chosen
        assert list(chosen[:17]) == list(range(17))


class TestDataset:
    def test_a_sample_depends_on_seed_and_index_only(self, dataset: TripletDataset) -> None:
        first = dataset.sample(3)
        for other in (5, 4, 3):
            again = dataset.sample(other)
        assert _equal(first, again)
        assert not _equal(first, dataset.sample(4))
        reseeded = TripletDataset(dataset.mixture, SMALL, seed=8)
        assert not _equal(first, reseeded.sample(3))

    def test_shapes_and_padding(self, dataset: TripletDataset) -> None:
        sample = dataset.sample(0)
        assert sample["image0"].shape == sample["other"].shape == (3, 84, 112)
        assert sample["image0"].dtype == torch.uint8
        mask = sample["keypoint_mask"]
        assert sample["keypoints0"].shape == (64, 2)
        assert (sample["keypoints0"][~mask] == 0).all()
        inside = sample["keypoints0"][mask]
        assert (inside >= 3).all()
        assert (inside <= torch.tensor([76, 56])).all()
        assert (sample["scales"][mask] > 0).all()

    def test_the_other_light_shows_the_same_pixels(self, root: Path) -> None:
        mixture = build_mixture(root / "scenes", (SourceConfig("scenes"),), "all")
        sample = TripletDataset(mixture, SMALL).sample(1)
        assert sample["has_other"]
        a, b = sample["image0"].flatten().float(), sample["other"].flatten().float()
        assert not torch.equal(a, b)
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.99

    def test_single_photographs_have_no_other_light(self, root: Path) -> None:
        sample = TripletDataset(build_mixture(root / "images", (), "all"), SMALL).sample(0)
        assert not sample["has_other"]
        assert torch.equal(sample["image0"], sample["other"])

    def test_a_broken_image_is_reported_once_and_skipped(
        self, root: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (root / "images" / "0.png").write_bytes(b"not a picture")
        dataset = TripletDataset(build_mixture(root / "images", (), "all"), SMALL)
        with caplog.at_level(logging.WARNING):
            for index in range(30):
                dataset.sample(index)
        assert len([r for r in caplog.records if "0.png" in r.getMessage()]) == 1

    def test_only_broken_images_are_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "0.png").write_bytes(b"not a picture")
        with pytest.raises(InputError, match="in a row"):
            TripletDataset(build_mixture(tmp_path, (), "all"), SMALL).sample(0)


class TestLoader:
    def test_starting_later_gives_the_later_batches(self, dataset: TripletDataset) -> None:
        from_start = list(triplet_loader(dataset, 2, num_steps=4))
        resumed = list(triplet_loader(dataset, 2, start_step=2, num_steps=2))
        assert all(_equal(a, b) for a, b in zip(from_start[2:], resumed, strict=True))

    def test_two_ranks_share_the_batch_of_one(self, dataset: TripletDataset) -> None:
        whole = next(iter(triplet_loader(dataset, 4, start_step=3)))
        halves = [next(iter(triplet_loader(dataset, 2, start_step=3, rank=r, world_size=2))) for r in (0, 1)]
        assert _equal(whole, {name: torch.cat([half[name] for half in halves]) for name in whole})

    def test_the_trainer_s_random_numbers_are_left_alone(self, dataset: TripletDataset) -> None:
        before = torch.get_rng_state()
        next(iter(triplet_loader(dataset, 2)))
        assert torch.equal(before, torch.get_rng_state())

    @pytest.mark.slow
    def test_workers_change_nothing(self, dataset: TripletDataset) -> None:
        expected = list(triplet_loader(dataset, 2, num_steps=5))
        for workers in (1, 3):
            got = list(triplet_loader(dataset, 2, workers, num_steps=5))
            assert all(_equal(a, b) for a, b in zip(expected, got, strict=True))


def test_real_photographs(shared: Path) -> None:
    """The mixture to train on here: its validation scenes are kept out, and samples have keypoints."""
    sources = (
        SourceConfig("images", "images", 0.55),
        SourceConfig("scenes", "multi_exposure", 0.2),
        SourceConfig("scenes", "webcam", 0.25, validation=("panorama_3",)),
    )
    train, val = (build_mixture(shared / "data" / "train", sources, split) for split in ("train", "val"))
    assert [len(a) + len(b) for (a, _), (b, _) in zip(train.parts, val.parts, strict=True)] == [1748, 239, 6]
    assert {path.parent.name for path in val.parts[2][0].scenes[0]} == {"panorama_3"}
    sample = TripletDataset(train).sample(0)
    assert sample["image0"].shape == (3, 336, 448)
    assert sample["keypoint_mask"].sum() > 100
