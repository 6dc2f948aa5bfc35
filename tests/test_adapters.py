"""OpenCV, kornia, LightGlue's dictionaries, hloc's modules, and the shape of vismatch's matchers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import h5py
import kornia.feature as kornia_feature
import numpy as np
import pytest
import torch
from torch import nn

from lisrd.adapters import hloc as hloc_adapter
from lisrd.adapters.image_matcher import ImageMatcher, vismatch_matcher
from lisrd.adapters.kornia import (
    Extractor,
    LAFDescriber,
    Matcher,
    features_from_dictionary,
    features_to_dictionary,
    match_pair,
    matches_to_dictionary,
)
from lisrd.adapters.opencv import Feature2D, features_to_cv2, from_cv2, matches_from_cv2, matches_to_cv2
from lisrd.detect import build_detector
from lisrd.errors import InputError, MissingExtraError
from lisrd.image import as_image
from lisrd.match import match
from lisrd.model import LISRD
from lisrd.scale import extract, match_pairs
from lisrd.types import LocalFeatures, Matches
from small_describer import SmallDescriber
from test_match import random_features

SHIFT = 24


@pytest.fixture
def crops(photograph: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two crops of a photograph: what lies at x in the first lies at x - 24 in the second."""
    return photograph[40:240, 100:320].copy(), photograph[40:240, 100 + SHIFT : 320 + SHIFT].copy()


@pytest.fixture
def model() -> LISRD:
    return LISRD(SmallDescriber(), build_detector("sift"))  # type: ignore[arg-type]


def three_matches() -> Matches:
    """0 - 2, 1 - 0, 3 - 1 of 4 and 3 keypoints."""
    return Matches(
        torch.tensor([[0, 2], [1, 0], [3, 1]]),
        torch.tensor([1.0, 0.5, 0.875]),
        torch.tensor([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]]),
        (4, 3),
        ("a", "b"),
    )


def assert_same_features(f0: LocalFeatures, f1: LocalFeatures) -> None:
    for name in LocalFeatures.__slots__:
        value0, value1 = getattr(f0, name), getattr(f1, name)
        if isinstance(value0, torch.Tensor):
            torch.testing.assert_close(value0, value1)
        else:
            assert value0 == value1, name


class TestOpenCV:
    def test_matches_by_hand(self):
        converted = matches_to_cv2(three_matches())
        assert [(m.queryIdx, m.trainIdx) for m in converted] == [(0, 2), (1, 0), (3, 1)]
        # unit vectors of similarity s are sqrt(2 - 2 s) apart
        np.testing.assert_allclose([m.distance for m in converted], [0, 1, 0.5], atol=1e-6)

    def test_matches_there_and_back(self):
        back = matches_from_cv2(matches_to_cv2(three_matches()), (4, 3))
        torch.testing.assert_close(back.matches, three_matches().matches)
        torch.testing.assert_close(back.scores, three_matches().scores)
        assert len(matches_from_cv2([], (0, 0))) == 0
        with pytest.raises(InputError, match="go beyond"):
            matches_from_cv2(matches_to_cv2(three_matches()), (3, 3))

    def test_features_match_in_opencv(self, model: LISRD, crops: tuple[np.ndarray, np.ndarray]):
        (keypoints0, descriptors0), (keypoints1, descriptors1) = (
            features_to_cv2(model.describe(crop)) for crop in crops
        )
        found = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(descriptors0, descriptors1)
        moved = [np.subtract(keypoints0[m.queryIdx].pt, keypoints1[m.trainIdx].pt) for m in found]
        right = np.linalg.norm(np.array(moved) - [SHIFT, 0], axis=1) < 1
        assert right.mean() > 0.7

    def test_without_orientations_the_angle_is_opencvs_word_for_none(self):
        keypoints, descriptors = features_to_cv2(random_features(5, 0, dtype=torch.float32))
        assert {keypoint.angle for keypoint in keypoints} == {-1.0}
        assert descriptors.shape == (5, 64)
        np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-6)

    def test_in_the_place_of_cv2_sift(self, model: LISRD, crops: tuple[np.ndarray, np.ndarray]):
        bgr = crops[0][..., ::-1].copy()
        feature = Feature2D(model.describer, model.detector, max_keypoints=60)
        keypoints, descriptors = feature.detectAndCompute(bgr, None)
        expected_keypoints, expected = features_to_cv2(model.describe(crops[0], max_keypoints=60))
        assert [k.pt for k in keypoints] == [k.pt for k in expected_keypoints]
        np.testing.assert_array_equal(descriptors, expected)
        same, computed = feature.compute(bgr, feature.detect(bgr))
        assert [k.pt for k in same] == [k.pt for k in keypoints]
        np.testing.assert_allclose(computed, descriptors, atol=1e-5)

    def test_a_mask_keeps_keypoints_away(self, model: LISRD, crops: tuple[np.ndarray, np.ndarray]):
        mask = np.zeros(crops[0].shape[:2], np.uint8)
        mask[:, 100:] = 255
        found = Feature2D(model.describer, model.detector, 30).detect(crops[0], mask)
        assert len(found) == 30
        assert min(k.pt[0] for k in found) >= 99.5
        with pytest.raises(InputError, match="mask"):
            Feature2D(model.describer, model.detector).detect(crops[0], mask[:-1])

    def test_keypoints_keep_what_opencv_needs(self, crops: tuple[np.ndarray, np.ndarray]):
        found = cv2.SIFT_create(50, enable_precise_upscale=True).detect(crops[0])
        converted = from_cv2(found)
        np.testing.assert_allclose(converted.xy[0], [k.pt for k in found])
        np.testing.assert_allclose(converted.scales[0], [k.size for k in found])


class TestLightGlue:
    def test_matches_by_hand(self):
        answer = matches_to_dictionary([three_matches()])
        assert answer["matches0"].tolist() == [[2, 0, -1, 1]]
        assert answer["matches1"].tolist() == [[1, 3, 0]]
        assert answer["matching_scores0"].tolist() == [[1.0, 0.5, 0.0, 0.875]]
        assert answer["matching_scores1"].tolist() == [[0.5, 0.875, 1.0]]
        assert answer["matches"][0].tolist() == [[0, 2], [1, 0], [3, 1]]

    def test_features_there_and_back(self):
        features = random_features(6, 1, turns=True, dtype=torch.float32)
        dictionary = features_to_dictionary(features)
        assert dictionary["descriptors"].shape == (1, 6, 64)
        torch.testing.assert_close(dictionary["descriptors"].norm(dim=-1), torch.ones(1, 6))
        assert_same_features(features_from_dictionary(dictionary), features)
        with pytest.raises(InputError, match="meta_descriptors"):
            features_from_dictionary({"keypoints": features.keypoints, "descriptors": features.flat()})

    def test_match_pair_gives_our_own_matches(self, model: LISRD, crops: tuple[np.ndarray, np.ndarray]):
        extractor = Extractor(model.describer, model.detector, 200)
        features0, features1, matches01 = match_pair(extractor, Matcher(), *crops)
        expected = model.match_images(*crops, max_keypoints=200)
        torch.testing.assert_close(matches01["matches"], expected.matches.matches)
        torch.testing.assert_close(matches01["scores"], expected.matches.scores)
        points0 = features0["keypoints"][matches01["matches"][:, 0]]
        points1 = features1["keypoints"][matches01["matches"][:, 1]]
        torch.testing.assert_close(points0, expected.points0)
        torch.testing.assert_close(points1, expected.points1)
        moved = (points0 - points1 - torch.tensor([SHIFT, 0.0])).norm(dim=1)
        assert (moved < 1).float().mean() > 0.7

    def test_match_pair_takes_other_extractors_and_matchers(self):
        class Another:
            def extract(self, img: torch.Tensor) -> dict[str, torch.Tensor]:
                return {"keypoints": torch.zeros(1, 3, 2), "image_size": torch.tensor([[5, 4]])}

        def matcher(data: dict[str, dict[str, torch.Tensor]]) -> dict[str, object]:
            assert data["image0"]["keypoints"].shape == (1, 3, 2)
            return {"matches": [torch.zeros(2, 2)], "stop": 9}

        features0, _, matches01 = match_pair(Another(), matcher, *[np.zeros((4, 5, 3), np.uint8)] * 2)
        assert features0["keypoints"].shape == (3, 2)
        assert matches01["matches"].shape == (2, 2)
        assert matches01["stop"] == 9


class TestKornia:
    def test_in_the_place_of_kornias_descriptor(self, model: LISRD, crops: tuple[np.ndarray, np.ndarray]):
        detector = kornia_feature.ScaleSpaceDetector(40)
        local = kornia_feature.LocalFeature(detector, LAFDescriber(model.describer))
        grey = as_image(crops[0]).mean(1, keepdim=True)
        lafs, _, descriptors = local(grey)
        assert descriptors.shape == (1, 40, 256)
        filled = kornia_feature.laf_is_filled(lafs)
        torch.testing.assert_close(descriptors[filled].norm(dim=-1), torch.ones(int(filled.sum())))

    def test_frames_are_described_at_their_centres(self, model: LISRD, crops: tuple[np.ndarray, np.ndarray]):
        image = as_image(crops[0])
        keypoints = model.detector(image, 20)
        # kornia measures angles anticlockwise, and its scale is three times OpenCV's size
        lafs = kornia_feature.laf_from_center_scale_ori(
            keypoints.xy, 3 * keypoints.scales[..., None, None], -torch.rad2deg(keypoints.oris)[..., None]
        )
        expected = model.describer.describe(image, keypoints).flat()
        torch.testing.assert_close(LAFDescriber(model.describer)(image, lafs), expected, atol=2e-2, rtol=0)


@pytest.fixture
def installed_hloc(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The parts of hloc that the adapter meets, of our own writing, in the form that hloc has them."""

    class BaseModel(nn.Module):
        default_conf: dict = {}  # noqa: RUF012
        required_inputs: list = []  # noqa: RUF012

        def __init__(self, conf: dict) -> None:
            super().__init__()
            self.conf = {**self.default_conf, **conf}
            self._init(self.conf)

        def forward(self, data: dict) -> dict:
            assert all(key in data for key in self.required_inputs)
            return self._forward(data)

    modules = {name: ModuleType(name) for name in ("hloc", "hloc.utils", "hloc.utils.base_model")}
    modules["hloc.utils.base_model"].BaseModel = BaseModel  # type: ignore[attr-defined]
    for name in ("extract_features", "match_features"):
        modules[f"hloc.{name}"] = ModuleType(f"hloc.{name}")
        modules[f"hloc.{name}"].confs = {}  # type: ignore[attr-defined]
        setattr(modules["hloc"], name, modules[f"hloc.{name}"])
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield SimpleNamespace(**modules["hloc"].__dict__)
    for name in ("hloc.extractors.lisrd", "hloc.matchers.lisrd"):
        sys.modules.pop(name, None)


def hloc_model(kind: str, conf: dict) -> nn.Module:
    """Like hloc: the one class that is defined in the module of that name."""
    name = f"hloc.{kind}.{conf['name']}"
    module = sys.modules[name]
    (found,) = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == name]
    return found(conf)


class TestHloc:
    def test_its_pipeline_gives_our_matches(
        self, installed_hloc: SimpleNamespace, crops: tuple[np.ndarray, np.ndarray]
    ):
        hloc_adapter.register()
        conf = installed_hloc.extract_features.confs["lisrd"]["model"]
        extractor = hloc_model("extractors", {**conf, "describer": "root-sift", "max_keypoints": 150})
        matcher = hloc_model("matchers", installed_hloc.match_features.confs["lisrd"]["model"])
        data: dict[str, torch.Tensor] = {}
        for i, crop in enumerate(crops):
            prediction = extractor({"image": as_image(crop)})
            stored = {name: value[0].numpy() for name, value in prediction.items()}
            data |= {f"{name}{i}": torch.from_numpy(v).float()[None] for name, v in stored.items()}
            data[f"image{i}"] = torch.empty((1, 1, *crop.shape[:2]))
        answer = matcher(data)
        model = LISRD.from_pretrained("root-sift")
        expected, _ = model.match_images(*crops, max_keypoints=150).matches.padded()
        assert answer["matches0"].shape == (1, 150)
        assert answer["matches0"][0].tolist() == expected.tolist()
        assert (answer["matching_scores0"][answer["matches0"] >= 0] > 0).all()

    def test_its_matcher_reads_our_files(
        self, installed_hloc: SimpleNamespace, crops: tuple[np.ndarray, np.ndarray], tmp_path: Path
    ):
        hloc_adapter.register()
        for i, crop in enumerate(crops):
            cv2.imwrite(str(tmp_path / f"{i}.png"), crop)
        extract(tmp_path, tmp_path / "f.h5", SmallDescriber(), 100)  # type: ignore[arg-type]
        match_pairs(tmp_path / "f.h5", [("0.png", "1.png")], tmp_path / "m.h5")
        data: dict[str, torch.Tensor] = {}
        with h5py.File(tmp_path / "f.h5", "r") as file:
            for i in range(2):
                group = file[f"{i}.png"]
                data |= {f"{k}{i}": torch.from_numpy(v.__array__()).float()[None] for k, v in group.items()}
                data[f"image{i}"] = torch.empty((1, 1, *tuple(group["image_size"])[::-1]))
        with h5py.File(tmp_path / "m.h5", "r") as file:
            expected = file["0.png/1.png/matches0"][()]
        answer = hloc_model("matchers", {"name": "lisrd"})(data)
        np.testing.assert_array_equal(answer["matches0"][0], expected)

    def test_without_hloc_it_says_so(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "hloc", None)
        with pytest.raises(MissingExtraError, match="hloc"):
            hloc_adapter.register()


class TestImageMatcher:
    def test_every_array_that_vismatch_names(self, model: LISRD, crops: tuple[np.ndarray, np.ndarray]):
        result = ImageMatcher(model, max_num_keypoints=200)(*crops)
        num_matches = len(result["matched_kpts0"])
        for suffix in "01":
            keypoints = result[f"all_kpts{suffix}"]
            assert keypoints.shape == (200, 2)
            assert result[f"all_desc{suffix}"].shape == (200, 256)
            assert result[f"matched_kpts{suffix}"].shape == (num_matches, 2)
            assert result[f"inlier_kpts{suffix}"].shape == (result["num_inliers"], 2)
        assert result["matched_confidences"].shape == (num_matches,)
        assert 0 <= result["matched_confidences"].min() <= result["matched_confidences"].max() <= 1
        np.testing.assert_allclose(result["H"], [[1, 0, -SHIFT], [0, 1, 0], [0, 0, 1]], atol=0.05)
        assert result["num_inliers"] > 0.7 * num_matches

    def test_images_of_every_kind_give_one_answer(
        self, model: LISRD, crops: tuple[np.ndarray, np.ndarray], tmp_path: Path
    ):
        matcher = ImageMatcher(model, max_num_keypoints=50)
        expected = matcher.extract(crops[0])
        cv2.imwrite(str(tmp_path / "a.png"), crops[0][..., ::-1])
        tensor = torch.from_numpy(crops[0]).permute(2, 0, 1).float() / 255
        for image in (tmp_path / "a.png", str(tmp_path / "a.png"), tensor, tensor.numpy()):
            np.testing.assert_array_equal(matcher.extract(image)["all_kpts0"], expected["all_kpts0"])

    def test_nothing_to_match_is_an_ordinary_answer(self, model: LISRD):
        result = ImageMatcher(model)(*[np.zeros((64, 64, 3), np.uint8)] * 2)
        assert result["num_inliers"] == 0
        assert result["H"] is None
        assert result["inlier_kpts0"].shape == result["all_kpts0"].shape == (0, 2)

    def test_inside_vismatch(self, model: LISRD, crops: tuple[np.ndarray, np.ndarray]):
        pytest.importorskip("vismatch")
        matcher = vismatch_matcher(model=model, max_num_keypoints=200)
        tensors = [torch.from_numpy(crop).permute(2, 0, 1).float() / 255 for crop in crops]
        result = matcher(*tensors)
        expected = ImageMatcher(model, max_num_keypoints=200)(*crops)
        for name in ("all_kpts0", "all_desc1", "matched_kpts0", "matched_kpts1", "matched_confidences"):
            np.testing.assert_array_equal(result[name], expected[name])
        np.testing.assert_allclose(result["H"], [[1, 0, -SHIFT], [0, 1, 0], [0, 0, 1]], atol=0.05)

    def test_without_vismatch_it_says_so(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "vismatch", None)
        with pytest.raises(InputError, match="vismatch is not installed"):
            vismatch_matcher()


def test_the_matches_of_one_pair_are_the_same_through_every_adapter(
    model: LISRD, crops: tuple[np.ndarray, np.ndarray]
):
    features = [model.describe(crop, max_keypoints=100) for crop in crops]
    expected = match(*features)
    pairs = [(m.queryIdx, m.trainIdx) for m in matches_to_cv2(expected)]
    answer = Matcher()({f"image{i}": features_to_dictionary(f) for i, f in enumerate(features)})
    assert answer["matches"][0].tolist() == [list(pair) for pair in pairs]
