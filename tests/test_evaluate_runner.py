"""The evaluation from end to end on photographs with known homographies, whole and broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lisrd.describe.network import PyramidConfig, PyramidNetwork
from lisrd.describe.weights import save_weights
from lisrd.errors import InputError
from lisrd.evaluate import BROKEN_INPUT, evaluate
from lisrd.evaluate.cache import StaleCacheError, file_name
from lisrd.evaluate.datasets.preparation import LongestSide, QuarterTurns, Rotate
from lisrd.evaluate.methods import expand_parts, parse_method

SIFTS = ["root-sift", "upright-root-sift"]


def write_pair(root: Path, photograph: np.ndarray, name: str, *steps: Any) -> str:
    """A photograph and the same after `steps`, and the row of pairs.txt for them."""
    small, _ = LongestSide(200)(photograph)
    changed, H = small, torch.eye(3, dtype=torch.float64)
    for step in steps:
        changed, moved = step(changed)
        H = moved @ H
    Image.fromarray(small).save(root / f"{name}0.png")
    Image.fromarray(changed).save(root / f"{name}1.png")
    return f"{name}0.png {name}1.png {' '.join(map(str, H.ravel().tolist()))} {name}"


@pytest.fixture
def pairs(tmp_path: Path, photograph: np.ndarray) -> Path:
    """Three pairs: nothing changed, turned by 90 degrees, turned by 40 degrees."""
    root = tmp_path / "data"
    root.mkdir()
    rows = [
        write_pair(root, photograph, "same"),
        write_pair(root, photograph, "quarter", QuarterTurns(1)),
        write_pair(root, photograph, "turned", Rotate(40.0)),
    ]
    (root / "pairs.txt").write_text("\n".join(rows))
    return root


@pytest.fixture
def network(tmp_path: Path) -> str:
    """A small pyramid network with random weights: a bank of four descriptors and four turns."""
    torch.manual_seed(0)
    config = PyramidConfig((2, 4, 4, 4, 4), trunk_width=8, head_width=16, descriptor_dim=16)
    path = tmp_path / "net.safetensors"
    save_weights(path, PyramidNetwork(config), {})
    return str(path)


def run(root: Path, describers: list[str], **options: Any) -> dict[str, Any]:
    return evaluate(root, "pairs", describers, max_keypoints=150, progress=False, **options)


def row_of(document: dict[str, Any], describer: str, part: str) -> dict[str, Any]:
    (row,) = [r for r in document["rows"] if (r["describer"], r["part"]) == (describer, part)]
    return row


def without_times(document: dict[str, Any]) -> Any:
    """What must be the same in every run."""
    kept = {key: document[key] for key in ("rows", "pairs", "problems", "selection", "curves")}
    return json.loads(
        json.dumps(kept), object_hook=lambda o: {k: v for k, v in o.items() if "seconds" not in k}
    )


def test_rows_hold_what_scripts_rely_on(pairs: Path) -> None:
    document = run(pairs, SIFTS)
    json.dumps(document, allow_nan=False)
    row = row_of(document, "root-sift", "same")
    assert row["pairs"] == 1
    assert row["precision"] == row["recall"] == row["homography_accuracy"] == 1
    assert row["mma"] == [1] * 10
    assert row["interval"]["precision"] == [1, 1]
    assert row["repeatability"] == 1
    assert {r["part"] for r in document["rows"]} == {"same", "quarter", "turned", "all"}
    assert row_of(document, "root-sift", "all")["pairs"] == 3


def test_order_of_the_sifts_flips_where_the_camera_turned(pairs: Path) -> None:
    document = run(pairs, SIFTS)
    assert row_of(document, "root-sift", "quarter")["precision"] > 0.6
    assert row_of(document, "upright-root-sift", "quarter")["precision"] < 0.1
    assert row_of(document, "upright-root-sift", "same")["precision"] == 1
    rotations = {p["part"]: p["change"]["rotation"] for p in document["pairs"]}
    assert rotations["quarter"] == pytest.approx(-90)  # counter-clockwise, from y towards x
    assert rotations["turned"] == pytest.approx(40)


def test_four_rotations_mend_what_is_upright(pairs: Path) -> None:
    document = run(pairs, ["upright-root-sift", "upright-root-sift:four-rotations"])
    mended = row_of(document, "upright-root-sift:four-rotations", "quarter")
    assert mended["precision"] > 0.8
    assert row_of(document, "upright-root-sift", "quarter")["precision"] < 0.1
    (quarter,) = [p for p in document["pairs"] if p["part"] == "quarter"]
    assert quarter["scores"]["upright-root-sift:four-rotations"]["turn"] == 3  # turns image 1 back


def test_parts_of_a_bank_share_its_features(pairs: Path, network: str, tmp_path: Path) -> None:
    document = run(pairs, [network, f"{network}:parts"], out=tmp_path / "out", report=False)
    names = document["settings"]["describers"]
    assert len(names) == 1 + 4 + 4
    folders = [p.name for p in (tmp_path / "out/features/sift").iterdir() if p.is_dir()]
    assert folders == [file_name(network)]
    (quarter,) = [p["scores"] for p in document["pairs"] if p["part"] == "quarter"]
    singles = [name for name in names if "invar" in name or ":rot_var" in name]
    correct = {name.rpartition(":")[2]: quarter[name]["num_correct"] for name in singles}
    oracle = quarter[f"{network}:oracle"]
    assert oracle["num_correct"] == max(correct.values())
    assert correct[oracle["best_single"]] == max(correct.values())
    assert quarter[network]["turn"] == 3  # the network reads image 1 turned back
    assert quarter[f"{network}:turn-off"]["turn"] == 0
    assert quarter[network]["precision"] > quarter[f"{network}:turn-off"]["precision"]
    analysis = document["selection"][network]
    assert sum(analysis["chosen"].values()) == pytest.approx(1)
    assert sum(analysis["weights"].values()) == pytest.approx(1)
    assert 0 <= analysis["right"] <= 1
    assert {"precision", "recall"} == set(analysis["gain_over_mean"]) == set(analysis["loss_to_oracle"])
    assert [s["scene"] for s in analysis["scenes"]] == [".", ".", "."]


def test_unknown_names_are_refused_before_anything_is_computed(
    pairs: Path, network: str, tmp_path: Path
) -> None:
    for names, words in (
        ([], "no describers"),
        (["root-sfit"], "root-sift"),
        (["aliked-n16=/no/such.pth"], "such.pth"),
        ([":mean"], "not a describer"),
    ):
        with pytest.raises(InputError, match=words):
            run(pairs, names, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="has no part 'brightness'"):
        run(pairs, [f"{network}:brightness"])
    with pytest.raises(InputError, match="max_keypoints is 0"):
        evaluate(pairs, "pairs", SIFTS, max_keypoints=0)


def test_broken_inputs_are_counted_and_reported(pairs: Path) -> None:
    table = pairs / "pairs.txt"
    (pairs / "half.png").write_bytes((pairs / "same0.png").read_bytes()[:500])
    rows = [
        "same0.png same1.png 1 0 0 0 1 0 part",
        "same0.png same1.png 1 0 0 2 0 0 0 0 1 part",
        "same0.png half.png 1 0 0 0 1 0 0 0 1 part",
        "same0.png gone.png 1 0 0 0 1 0 0 0 1 part",
        "same0.png same1.png 1 0 9000 0 1 0 0 0 1 apart",
    ]
    table.write_text("\n".join([table.read_text(), *rows]))
    document = run(pairs, ["root-sift"])
    kinds = [problem["kind"] for problem in document["problems"]]
    assert kinds == ["ground truth", "ground truth", "image", "image", "no keypoints"]
    assert [problem["counted"] for problem in document["problems"]] == [False] * 4 + [True]
    assert "half.png" in document["problems"][2]["what"]
    assert "gone.png" in document["problems"][3]["what"]
    assert set(kinds) - set(BROKEN_INPUT) == {"no keypoints"}
    apart = row_of(document, "root-sift", "apart")  # a failure is a zero, not a hole
    assert (apart["pairs"], apart["precision"], apart["recall"], apart["homography_auc_5"]) == (1, 0, 0, 0)
    whole = row_of(document, "root-sift", "all")
    assert (whole["pairs"], whole["excluded"]) == (4, 4)


def test_a_describer_that_fails_scores_zero(pairs: Path, network: str, photograph: np.ndarray) -> None:
    Image.fromarray(photograph[:20, :300]).save(pairs / "strip.png")
    (pairs / "pairs.txt").write_text("strip.png strip.png 1 0 0 0 1 0 0 0 1 all\n")
    document = run(pairs, [network, "root-sift"])
    (problem,) = [p for p in document["problems"] if p["describer"] == network]
    assert problem["kind"] == "describer"
    assert "32 x 32" in problem["what"]
    assert row_of(document, network, "all")["recall"] == 0
    assert row_of(document, "root-sift", "all")["recall"] > 0.9


def test_only_broken_pairs_give_empty_rows(pairs: Path) -> None:
    (pairs / "pairs.txt").write_text("gone0.png gone1.png 1 0 0 0 1 0 0 0 1\n")
    document = run(pairs, ["root-sift"])
    (row,) = document["rows"]
    assert (row["pairs"], row["excluded"], row["precision"], row["mma"]) == (0, 1, None, None)


def test_a_black_image_has_no_keypoints_and_that_is_all(pairs: Path) -> None:
    Image.fromarray(np.zeros((90, 120, 3), np.uint8)).save(pairs / "black.png")
    (pairs / "pairs.txt").write_text("same0.png black.png 1 0 0 0 1 0 0 0 1\n")
    document = run(pairs, ["root-sift"])
    assert [p["kind"] for p in document["problems"]] == ["no keypoints"]
    assert document["rows"][0]["precision"] == 0


def test_second_run_predicts_nothing_and_scores_the_same(
    pairs: Path, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [network, "root-sift"]
    first = run(pairs, names, out=tmp_path / "out", report=False)

    def refuse(name: str, digest: str) -> Any:
        raise AssertionError(f"{name} was built although its features are cached")

    monkeypatch.setattr("lisrd.evaluate.predict._describer", refuse)
    monkeypatch.setattr("lisrd.evaluate.predict._detector", refuse)
    second = run(pairs, names, out=tmp_path / "out", report=False)
    assert without_times(first) == without_times(second)
    assert json.loads((tmp_path / "out/results.json").read_text())["rows"] == second["rows"]


def test_interrupted_run_goes_on(pairs: Path, tmp_path: Path) -> None:
    whole = run(pairs, SIFTS, out=tmp_path / "out", report=False)
    features = sorted((tmp_path / "out/features/sift/root-sift").glob("*.npz"))
    kept = features[0].stat().st_mtime_ns
    features[1].unlink()
    assert without_times(run(pairs, SIFTS, out=tmp_path / "out", report=False)) == without_times(whole)
    assert features[1].exists()
    assert features[0].stat().st_mtime_ns == kept


def test_stale_features_are_refused_with_advice(pairs: Path, network: str, tmp_path: Path) -> None:
    run(pairs, [network], out=tmp_path / "out", report=False)
    torch.manual_seed(1)
    config = PyramidConfig((2, 4, 4, 4, 4), trunk_width=8, head_width=16, descriptor_dim=16)
    save_weights(network, PyramidNetwork(config), {})
    with pytest.raises(StaleCacheError, match=r"delete .* or choose another --out"):
        run(pairs, [network], out=tmp_path / "out", report=False)


def test_features_of_a_changed_image_are_refused(pairs: Path, tmp_path: Path, photograph: np.ndarray) -> None:
    run(pairs, ["root-sift"], out=tmp_path / "out", report=False)
    Image.fromarray(photograph[::4, ::4]).save(pairs / "same0.png")
    with pytest.raises(StaleCacheError, match="same0"):
        run(pairs, ["root-sift"], out=tmp_path / "out", report=False)
    shutil.rmtree(tmp_path / "out/features")  # as the error says
    again = run(pairs, ["root-sift"], out=tmp_path / "out", report=False)
    assert without_times(again) == without_times(run(pairs, ["root-sift"]))


def test_a_torn_feature_file_is_named(pairs: Path, tmp_path: Path) -> None:
    run(pairs, ["root-sift"], out=tmp_path / "out", report=False)
    file = next((tmp_path / "out/features/sift/root-sift").glob("same0*.npz"))
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(StaleCacheError, match=f"{file.name} is broken"):
        run(pairs, ["root-sift"], out=tmp_path / "out", report=False)


def test_limit_spreads_over_the_data_set(pairs: Path) -> None:
    assert [p["part"] for p in run(pairs, ["root-sift"], limit=2)["pairs"]] == ["same", "quarter"]
    assert len(run(pairs, ["root-sift"], limit=99)["pairs"]) == 3
    with pytest.raises(InputError, match="limit is 0"):
        run(pairs, ["root-sift"], limit=0)


def test_relative_pose_from_end_to_end(pairs: Path) -> None:
    """A camera that moved to its side: what is near (below) moves twice as far as what is distant."""
    image = np.array(Image.open(pairs / "same0.png"))
    moved = np.vstack([np.roll(image[:100], -12, axis=1), np.roll(image[100:], -24, axis=1)])
    Image.fromarray(moved).save(pairs / "moved.png")
    K, sideways = "200 0 99.5 0 200 99.5 0 0 1", "1 0 0 -1 0 1 0 0 0 0 1 0 0 0 0 1"
    (pairs / "pairs.txt").write_text(f"same0.png moved.png 0 0 {K} {K} {sideways}\n")
    document = evaluate(pairs, "poses", ["root-sift"], progress=False)
    (row,) = document["rows"]
    assert row["mma"] is None
    assert row["recall"] is None
    assert row["precision"] > 0.6
    assert row["pose_auc_5"] > 0.2
    assert row["interval"]["pose_auc_20"][0] <= row["pose_auc_20"]
    assert document["curves"] == {}


@pytest.mark.parametrize(
    ("name", "base", "only", "turn"),
    [
        ("pyramid", "pyramid", (), "auto"),
        ("pyramid:rot_invar_illum_var", "pyramid", ("rot_invar_illum_var",), "auto"),
        ("pyramid:rot_var_illum_var:turn-off", "pyramid", ("rot_var_illum_var",), "off"),
        ("aliked-n16=a/b.pth", "aliked-n16=a/b.pth", (), "auto"),
        (r"aliked-n16=C:\w\b.pth:four-rotations", r"aliked-n16=C:\w\b.pth", (), "off"),
        ("nets/x.safetensors:mean", "nets/x.safetensors", (), "auto"),
    ],
)
def test_names_of_methods(name: str, base: str, only: tuple[str, ...], turn: str) -> None:
    method = parse_method(name)
    assert (method.base, method.policy.only, method.policy.turn) == (base, only, turn)
    assert method.policy.selection == ("mean" if name.endswith("mean") else "soft")


def test_parts_stand_for_all_of_a_bank_and_nothing_of_a_single() -> None:
    expanded = expand_parts(["b:parts", "s", "b:mean"], {"b": ("x", "y"), "s": ("s",)})
    assert expanded == ["b:x", "b:y", "b:mean", "b:hard", "b:oracle", "b:turn-off", "s"]


@pytest.mark.slow
def test_several_processes_give_the_same_result(pairs: Path, network: str) -> None:
    names = ["root-sift", network, f"{network}:oracle", "upright-root-sift:four-rotations"]
    assert without_times(run(pairs, names, workers=2)) == without_times(run(pairs, names))
