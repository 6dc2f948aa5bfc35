"""The benchmarks measure what they say: the same matches on both sides, ratios the right way round, one report."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))  # the benchmarks are no part of the installed package

from benchmarks.direct import (  # noqa: E402
    DirectObjective,
    match_direct,
    match_plain,
    selection_weights_direct,
)
from benchmarks.gpu.report import write_report  # noqa: E402
from benchmarks.inputs import feature_pair, given_keypoints, triplets, unit  # noqa: E402
from benchmarks.peers import PEERS  # noqa: E402
from benchmarks.report import table  # noqa: E402
from benchmarks.timing import Comparison, Effort, compare  # noqa: E402
from benchmarks.training import plain_config  # noqa: E402

from lisrd.describe.network import PyramidNetwork  # noqa: E402
from lisrd.match import match  # noqa: E402
from lisrd.train.objective import LossConfig, TripletObjective, selection_weights  # noqa: E402
from lisrd.types import stack_keypoints  # noqa: E402


def test_ratio_is_baseline_over_ours() -> None:
    sleeps = Comparison("x", "short", "long", lambda: time.sleep(0.001), lambda: time.sleep(0.02))
    row = compare(sleeps, Effort(rounds=3, seconds=0))
    assert row.ratio > 2
    assert row.ratio == row.seconds_baseline / row.seconds_ours


@pytest.mark.parametrize("count", [50, 400])
def test_direct_formulation_gives_our_matches(count: int) -> None:
    features = feature_pair(count)
    found = match(*features)
    assert found.turn == 0
    assert found.matches.tolist() == match_direct(*features).tolist()
    # Half of the keypoints correspond, the last ones of image 0 to the first ones of image 1.
    true = {(i, i - count // 2) for i in range(count - count // 2, count)}
    assert true <= {tuple(pair) for pair in found.matches.tolist()}


def test_plain_neighbours_by_hand() -> None:
    descriptors = torch.eye(3)
    assert match_plain(descriptors, descriptors[[2, 0, 1]]).tolist() == [[0, 1], [1, 2], [2, 0]]


def test_direct_selection_of_a_training_step_is_ours() -> None:
    torch.manual_seed(0)
    network, batch = PyramidNetwork(), triplets(2, 96, 64, 20)
    meta0, meta1 = unit((2, 2, 4, 3, 3, 1024), torch.Generator().manual_seed(1))
    similarity = torch.rand((2, 4, 20, 20))
    ours = selection_weights(network, meta0, meta1, similarity, batch)
    torch.testing.assert_close(selection_weights_direct(network, meta0, meta1, similarity, batch), ours)


def test_direct_training_step_has_our_losses() -> None:
    torch.manual_seed(0)
    network, batch = PyramidNetwork(), triplets(2, 96, 64, 20)
    ours, direct = (kind(LossConfig(), network.invariances) for kind in (TripletObjective, DirectObjective))
    expected = ours(network, batch)
    for name, value in direct(network, batch).items():
        torch.testing.assert_close(value, expected[name])


def test_the_plain_network_is_as_wide() -> None:
    turned, plain = PyramidNetwork(), PyramidNetwork(plain_config())
    maps = [network.train().encoder(torch.rand(1, 3, 64, 64)) for network in (turned, plain)]
    assert [m.shape for m in maps[0]] == [m.shape for m in maps[1]]
    assert plain.num_turns == 1


def test_table_by_hand() -> None:
    assert table(("a", "b"), [(1, "x")]) == "| a | b |\n| --- | --- |\n| 1 | x |"


@pytest.mark.parametrize("name", ["paper", "aliked_n16", "disk", "xfeat", "hardnet"])
def test_peers_give_every_image_of_a_batch_what_they_give_it_alone(name: str) -> None:
    build = {peer: how for peer, _, how in PEERS}[name]
    images = torch.rand((2, 3, 64, 96), generator=torch.Generator().manual_seed(0))
    one = given_keypoints(20, 96, 64)
    keypoints = [one, replace(one, xy=one.xy.flip(1))]

    def described(chosen: slice) -> torch.Tensor:
        torch.manual_seed(0)  # of the weights
        found = build(images[chosen], stack_keypoints(keypoints[chosen]))()
        while not isinstance(
            found, torch.Tensor
        ):  # ALIKED: (one per image, offsets); the published network: (at, meta)
            found = torch.cat(found) if isinstance(found, list) else found[0]
        return found.flatten(0, -2)

    alone = [described(slice(i, i + 1)) for i in range(2)]
    torch.testing.assert_close(described(slice(0, 2)), torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_the_report_of_the_gpu_is_that_of_its_results(tmp_path: Path) -> None:
    folder = REPOSITORY / "benchmarks"
    write_report(json.loads((folder / "results_gpu.json").read_text()), tmp_path / "again.md")
    assert (tmp_path / "again.md").read_text() == (folder / "RESULTS_GPU.md").read_text()


def test_the_report_of_the_gpu_names_what_failed(tmp_path: Path) -> None:
    rows = [
        {"group": "ceilings", "name": "copy", "unit": "", "seconds": 0.5, "operations": 0.0, "bytes": 1e12},
        {"group": "train", "name": "step", "unit": "bfloat16", "error": "RuntimeError: a | b"},
    ]
    write_report({"machine": {"device": "a GPU"}, "rows": rows}, tmp_path / "report.md")
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert "| copy |  | 500.00 | 2.0 TB/s |" in lines
    assert lines[-1] == "| step | bfloat16 |  |  |  |  |  |  | RuntimeError: a / b |"


def run_quickly(out: Path, *options: str) -> dict:
    command = [sys.executable, "-m", "benchmarks.run", "--quick", "--threads", "1", "--out", str(out)]
    subprocess.run([*command, *options], cwd=REPOSITORY, check=True, capture_output=True)
    return json.loads((out / "results.json").read_text())


def test_one_group_of_rows(tmp_path: Path) -> None:
    results = run_quickly(tmp_path, "--only", "match")
    assert {
        "match_64_vs_direct",
        "match_64_with_turn_vs_direct",
        "match_64_vs_plain_nn512",
        "match_64_vs_plain_nn128",
        "match_64_bfloat16_vs_float32",
    } <= {row["name"] for row in results["rows"]}
    assert "`match_64_vs_direct`" in (tmp_path / "RESULTS.md").read_text()


@pytest.mark.slow
@pytest.mark.long  # two exports to ONNX
def test_rows_of_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    names = {row["name"] for row in run_quickly(tmp_path, "--only", "onnx")["rows"]}
    assert names == {"describe_onnx_vs_torch", "match_64_onnx_vs_torch"}


@pytest.mark.slow
def test_everything_else_quickly(tmp_path: Path) -> None:
    results = run_quickly(tmp_path, "--skip", "onnx")
    names = {row["name"] for row in results["rows"]}
    assert {"describe_vs_paper", "describe_vs_aliked_n16", "train_step_vs_direct"} <= names
    for row in results["rows"]:
        assert row["ratio"] == pytest.approx(row["seconds_baseline"] / row["seconds_ours"])
    assert results["memory"][0]["megabytes_over_input"] < 200
    report = (tmp_path / "RESULTS.md").read_text()
    assert all(title in report for title in ("## Floors", "growth.png", results["machine"]["cpu"]))
    assert (tmp_path / "growth.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_gpu_benchmark_runs_without_a_gpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--quick", "--device", "cpu", "--out", str(tmp_path)]
    groups = ["--only", "ceilings", "describe", "train", "match"]
    subprocess.run([*command, *groups], cwd=REPOSITORY, check=True, capture_output=True)
    rows = json.loads((tmp_path / "results_gpu.json").read_text())["rows"]
    assert {row["group"] for row in rows} == set(groups[1:])
    assert [row["name"] for row in rows if "error" in row] == []
    assert "## Matching" in (tmp_path / "RESULTS_GPU.md").read_text()
