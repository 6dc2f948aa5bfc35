"""Diagnosis: angles by hand, averaging against wrong pairs, and copies of a photograph turned and relit by us."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lisrd.cli import console
from lisrd.describe import build_describer
from lisrd.diagnose import (
    Diagnosis,
    ImageFinding,
    PairEvidence,
    WeightSummary,
    advice_on,
    diagnose,
    image_angles,
)
from lisrd.diagnose.evidence import kinds_invariant_to, relative_angle
from lisrd.diagnose.picture import draw_diagnosis
from lisrd.errors import InputError
from lisrd.image import write_image
from lisrd.invariance import ILLUMINATION, ROTATION, invariances
from lisrd.scale import exhaustive_pairs, extract, image_names, match_pairs, read_features, read_matches
from small_describer import SmallDescriber
from test_cli import call

NAMES = tuple(one.name for one in invariances())


class TestRelativeAngle:
    def test_a_quarter_turn_by_hand(self):
        square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], dtype=float)
        clockwise = np.array([[2, 0], [2, 2], [0, 2], [0, 0]], dtype=float)  # y points down
        assert relative_angle(square, clockwise) == pytest.approx(90)
        assert relative_angle(clockwise, square) == pytest.approx(-90)
        assert relative_angle(square, 3 * square + 7) == pytest.approx(0, abs=1e-9)

    def test_a_third_of_wrong_matches_does_not_count(self):
        dice = np.random.default_rng(0)
        points0 = dice.uniform(0, 100, (90, 2))
        turn = np.radians(170)
        points1 = points0 @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        points1[:30] = dice.uniform(-100, 0, (30, 2))
        assert relative_angle(points0, points1) == pytest.approx(170, abs=10)

    def test_one_place_has_no_angle(self):
        assert relative_angle(np.ones((3, 2)), np.ones((3, 2))) is None


class TestImageAngles:
    def test_by_hand(self):
        """0 and 1 are upright, 2 is turned by 90 degrees; 3 and 4 know only each other; 5 knows nobody."""
        pairs = np.array([[0, 1], [1, 2], [3, 4]])
        angles, groups = image_angles(pairs, np.array([0.0, 90.0, 45.0]), np.ones(3), 6)
        np.testing.assert_allclose(angles[:3], [0, 0, 90], atol=1e-6)
        assert abs(angles[4] - angles[3]) == pytest.approx(45)
        assert np.isnan(angles[5])
        assert groups[0] == groups[1] == groups[2] != groups[3] == groups[4] != groups[5]

    def test_one_wrong_pair_is_outvoted(self):
        pairs = np.array([(i, j) for i in range(6) for j in range(i + 1, 6)])
        true = np.array([0.0, 0, 0, 0, 80, -170])
        relative = true[pairs[:, 1]] - true[pairs[:, 0]]
        weights = np.ones(len(pairs))
        relative[0] += 120
        weights[0] = 3  # a wrong pair that claims more inliers than any other
        angles, _ = image_angles(pairs, relative, weights, 6)
        np.testing.assert_allclose(angles, true, atol=2)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(2, 12), st.integers(0, 2**32 - 1))
    def test_consistent_pairs_give_consistent_images(self, count: int, seed: int):
        dice = np.random.default_rng(seed)
        true = dice.uniform(-180, 180, count)
        chain = np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)
        more = dice.integers(0, count, (count, 2))
        pairs = np.concatenate([chain, more[more[:, 0] != more[:, 1]]])
        relative = true[pairs[:, 1]] - true[pairs[:, 0]]
        angles, groups = image_angles(pairs, relative, dice.uniform(1, 9, len(pairs)), count)
        offset = np.exp(1j * np.radians(angles - true))
        np.testing.assert_allclose(offset, offset[0], atol=1e-6)
        assert len(set(groups)) == 1
        assert np.isfinite(angles).all()


class TestAdvice:
    @staticmethod
    def a_diagnosis(angles: list[float], changes: list[float | None]) -> Diagnosis:
        pairs = tuple(
            PairEvidence(("a", "b"), 100, 50, True, 0, (0.7, 0.1, 0.1, 0.1), 0.0, change)
            for change in changes
        )
        images = tuple(ImageFinding(str(i), 3, 0, angle, 1.0, 0.0) for i, angle in enumerate(angles))
        wins = (0.88, 0.02, 0.1, 0.0)
        weights = tuple(WeightSummary(n, 0.25, 0, 0.25, 1, w) for n, w in zip(NAMES, wins, strict=True))
        return Diagnosis(NAMES, pairs, images, weights)

    def test_upright_and_steady(self):
        rotation, light = advice_on(self.a_diagnosis([0, 3, -5], [0.01] * 6))
        assert rotation.startswith("keep the camera upright prior (--turn off): none of 3 images")
        assert "rotation invariant weights win in 2% of the pairs" in rotation
        assert light.startswith("the light is steady in all 6 pairs")

    def test_turned_and_relit(self):
        rotation, light = advice_on(self.a_diagnosis([0, 90, -5], [0.01] * 6 + [0.2] * 2))
        assert rotation.startswith("leave the turn to the matcher (--turn auto): 1 of 3 images")
        assert "25% of the pairs" in light

    def test_few_pairs_and_a_describer_that_does_not_tell(self):
        caution, _, light = advice_on(self.a_diagnosis([0], [None]))
        assert caution.startswith("only 1 pairs")
        assert light.startswith("nothing is known of the light")

    def test_nothing_verified(self):
        pair = PairEvidence(("a", "b"), 9, 0, False, 0, (0.0,) * 4, None, None)
        (only,) = advice_on(Diagnosis(NAMES, (pair,), ()))
        assert "nothing can be concluded" in only

    def test_kinds_by_their_names(self):
        assert kinds_invariant_to(ROTATION, NAMES) == [False, True, False, True]
        assert kinds_invariant_to(ILLUMINATION, NAMES) == [False, False, True, True]
        assert kinds_invariant_to(ROTATION, ("root-sift", "upright-root-sift")) is None


#: Degrees clockwise by which each copy is turned.
TURNS = {"1.png": 0, "2.png": 0, "3.png": 0, "quarter.png": 90, "tilted.png": -25, "relit.png": 0}


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six crops of one photograph, two of them turned, one in evening light."""
    import skimage.data

    folder = tmp_path_factory.mktemp("copies")
    photograph = skimage.data.astronaut()
    for k, (name, degrees) in enumerate(TURNS.items()):
        M = cv2.getRotationMatrix2D((255.5, 255.5), -degrees, 1)  # OpenCV turns counter-clockwise
        turned = cv2.warpAffine(photograph, M, (512, 512), flags=cv2.INTER_LINEAR)
        crop = turned[110 + 4 * k : 390 + 4 * k, 110 - 3 * k : 390 - 3 * k]
        write_image(folder / name, evening(crop) if name == "relit.png" else np.ascontiguousarray(crop))
    return folder


def evening(image: np.ndarray) -> np.ndarray:
    """A lamp on the left, the rest in the dark, reddish, with noise."""
    dice = np.random.default_rng(1)
    linear = (image / 255.0) ** 2.2
    distance = np.linspace(0.2, 3, image.shape[1])[:, None]
    lit = linear * (0.6 / distance**1.5) * (1.0, 0.7, 0.4) + dice.normal(0, 0.004, image.shape)
    return np.round(255 * lit.clip(0, 1) ** (1 / 2.2)).astype(np.uint8)


@pytest.fixture(scope="module")
def files(copies: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Features and matches of the copies."""
    folder = tmp_path_factory.mktemp("files")
    features, matches = folder / "features.h5", folder / "matches.h5"
    extract(copies, features, build_describer("pyramid", precision="float32"), 300, keep_turns=True)
    match_pairs(features, exhaustive_pairs(image_names(features)), matches)
    return features, matches


@pytest.fixture(scope="module")
def diagnosis(files: tuple[Path, Path]) -> Diagnosis:
    return diagnose(*files, exhaustive_pairs(image_names(files[0])))


class TestCopies:
    def test_turned_images_are_found_with_their_angles(self, diagnosis: Diagnosis):
        assert {image.name for image in diagnosis.images if image.turned} == {"quarter.png", "tilted.png"}
        for image in diagnosis.images:
            assert image.angle == pytest.approx(TURNS[image.name], abs=1), image

    def test_the_relit_image_is_found(self, diagnosis: Diagnosis):
        assert [image.name for image in diagnosis.images if image.other_light] == ["relit.png"]

    def test_weights_are_summed_up(self, diagnosis: Diagnosis):
        assert sum(one.wins for one in diagnosis.weights) == pytest.approx(1)
        assert sum(one.mean for one in diagnosis.weights) == pytest.approx(1, abs=1e-3)
        by_hand = np.array([pair.weights for pair in diagnosis.verified])
        np.testing.assert_allclose([one.mean for one in diagnosis.weights], by_hand.mean(0))

    def test_a_pair_in_both_directions_counts_once(self, files: tuple[Path, Path]):
        one = diagnose(*files, [("2.png", "1.png"), ("1.png", "2.png")])
        assert [pair.names for pair in one.pairs] == [("1.png", "2.png")]  # the direction of the file

    def test_matches_come_back_from_their_file(self, files: tuple[Path, Path]):
        from lisrd.match import match

        features0, features1 = (read_features(files[0], name) for name in ("1.png", "quarter.png"))
        expected = match(features0, features1)
        order = expected.matches[:, 0].argsort()
        found = read_matches(files[1], "1.png", "quarter.png", features1.keypoints.shape[1])
        assert found.matches.tolist() == expected.matches[order].tolist()
        assert (found.turn, found.invariances) == (expected.turn, expected.invariances)
        assert found.num_keypoints == expected.num_keypoints
        np.testing.assert_allclose(found.scores, expected.scores[order], atol=1e-3)
        with pytest.raises(InputError, match="no matches of"):
            read_matches(files[1], "1.png", "gone.png", 1)

    def test_the_picture(self, diagnosis: Diagnosis, tmp_path: Path):
        draw_diagnosis(diagnosis, tmp_path / "d.png")
        picture = cv2.imread(str(tmp_path / "d.png"))
        assert picture.shape[1] == 1600
        assert picture.std() > 10
        with pytest.raises(InputError, match="suffix"):
            draw_diagnosis(diagnosis, tmp_path / "d.doc")

    def test_mistakes(self, files: tuple[Path, Path], copies: Path, tmp_path: Path):
        with pytest.raises(InputError, match="no pairs"):
            diagnose(*files, [])
        extract(copies, tmp_path / "sift.h5", build_describer("root-sift"), 50)
        with pytest.raises(InputError, match="no invariances to choose from"):
            diagnose(tmp_path / "sift.h5", files[1], [("1.png", "2.png")])


class TestCommand:
    """`lisrd diagnose` in this process, with a small describer."""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Noise: three images that have nothing in common, and one that is none."""
        monkeypatch.setattr("lisrd.describe.build_describer", lambda _: SmallDescriber())
        folder = tmp_path / "images"
        folder.mkdir()
        for k in range(3):
            write_image(folder / f"{k}.png", np.random.default_rng(k).integers(0, 255, (64, 64, 3), np.uint8))
        (folder / "broken.png").write_bytes(b"no image")
        return folder

    def test_nothing_verified_costs_the_picture_alone(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        assert call("diagnose", folder, "--picture", tmp_path / "d.png", "--json") == console.SOME_BROKEN
        captured = capsys.readouterr()
        document = json.loads(captured.out)
        assert document["advice"]
        assert document["picture"] is None
        assert "nothing to draw into" in captured.err
        assert not (tmp_path / "d.png").exists()

    def test_broken_images_are_named_where_nothing_is_left(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ):
        for k in range(3):
            (folder / f"{k}.png").write_bytes(b"no image")
        assert call("diagnose", folder) == console.BAD_INPUT
        said = capsys.readouterr().err
        assert said.count("broken: ") == 4
        assert "no pairs to diagnose by" in said

    def test_a_broken_pair_is_broken_in_both_directions(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        pairs = tmp_path / "pairs.txt"
        pairs.write_text("0.png broken.png\nbroken.png 0.png\n0.png 1.png\n")
        assert call("diagnose", folder, "--pairs", pairs, "--json") == console.SOME_BROKEN
        document = json.loads(capsys.readouterr().out)
        assert [pair["names"] for pair in document["pairs"]] == [["0.png", "1.png"]]

    def test_images_that_are_gone_are_left_out(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        found = []
        for _ in range(2):
            call("diagnose", folder, "-o", tmp_path / "kept", "--json")
            found.append([image["name"] for image in json.loads(capsys.readouterr().out)["images"]])
            (folder / "0.png").unlink(missing_ok=True)
        assert found == [["0.png", "1.png", "2.png"], ["1.png", "2.png"]]


@pytest.mark.slow
def test_the_command(copies: Path, tmp_path: Path):
    (copies / "broken.png").write_bytes(b"no image")
    command = [sys.executable, "-m", "lisrd", "diagnose", str(copies), "--max-keypoints", "400", "--json"]
    command += ["--picture", str(tmp_path / "d.png"), "-o", str(tmp_path / "kept")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert [name for name, _ in document["broken"]] == ["broken.png"]
    assert {one["name"] for one in document["images"] if one["turned"]} == {"quarter.png", "tilted.png"}
    assert len(document["weights"]) == 4
    assert (tmp_path / "d.png").is_file()
    assert (tmp_path / "kept" / "features.h5").is_file()
    (copies / "broken.png").unlink()


@pytest.mark.slow
def test_turned_webcam_images_have_the_angle_of_their_homography(shared: Path, tmp_path: Path):
    from lisrd.verify import relative_rotation_scale

    root = shared / "data" / "eval" / "rotated_webcam"
    images = sorted((root / "images" / "stlouis").glob("*.jpg"))[::12]
    features = tmp_path / "f.h5"
    extract(
        [root / "references" / "stlouis" / "day.jpg", *images],
        features,
        build_describer("pyramid"),
        1024,
        keep_turns=True,
        root=root,
    )
    pairs = exhaustive_pairs(image_names(features))
    match_pairs(features, pairs, tmp_path / "m.h5")
    found = {image.name: image for image in diagnose(features, tmp_path / "m.h5", pairs).images}
    assert len(found) == 11
    for path in images:
        H = np.loadtxt(path.with_suffix(".txt")).reshape(3, 3)
        true = relative_rotation_scale(H, (640, 360)).angle
        image = found[path.relative_to(root).as_posix()]
        assert image.angle == pytest.approx(true, abs=3), path
        assert image.turned == (abs(true) > 20)
