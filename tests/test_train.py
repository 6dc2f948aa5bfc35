"""The trainer end to end on a handful of small photographs: budgets, resume, refusals."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from lisrd.cli.real_pairs import RealPairs
from lisrd.describe.network import PyramidConfig, PyramidNetwork
from lisrd.errors import InputError
from lisrd.train.bank_config import load_bank_config
from lisrd.train.checkpoint import load_checkpoint, newest_checkpoint
from lisrd.train.config import TrainingConfig, load_config, network_config, read_table
from lisrd.train.data.dataset import DataConfig
from lisrd.train.objective import fitting_turn
from lisrd.train.run import build_trainer
from lisrd.train.schedule import learning_rate
from lisrd.train.trainer import Trainer
from small_training import SMALL, write_photographs

CONFIG = f"""
{SMALL}
[run]
batch_size = 2
precision = "float32"
checkpoint_minutes = 0.0
validation_triplets = 2
"""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(CONFIG)
    return path


def trainer(config: Path, photographs: Path, out: Path, steps: int, **options: int) -> Trainer:
    settings = load_config(config)
    settings = replace(settings, run=replace(settings.run, steps=steps))
    return Trainer(settings, photographs, out, workers=0, **options)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_resumed_run_equals_the_uninterrupted_one(config: Path, photographs: Path, tmp_path: Path) -> None:
    whole = trainer(config, photographs, tmp_path / "whole", 6).fit().state_dict()
    first = trainer(config, photographs, tmp_path / "halves", 6)
    for _, batch in zip(range(3), first._batches(), strict=False):
        first._record(first._step(batch))
    first.save()
    second = trainer(config, photographs, tmp_path / "halves", 6)
    assert second.resume()
    halves = second.fit().state_dict()
    torch.testing.assert_close(halves, whole, atol=1e-6, rtol=0)  # of the moving average
    assert losses(tmp_path / "halves") == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)
    assert len(losses(tmp_path / "halves")) == 6


def test_a_run_whose_budget_is_spent_takes_no_step(config: Path, photographs: Path, tmp_path: Path) -> None:
    trainer(config, photographs, tmp_path, 2).fit()
    again = trainer(config, photographs, tmp_path, 2)
    assert again.resume()
    again.fit()
    assert len(losses(tmp_path)) == 2


@pytest.mark.parametrize(("steps", "minutes"), [(0, None), (0, 5.0), (9, 0.0)])
def test_a_budget_of_nothing_is_spent(
    config: Path, photographs: Path, tmp_path: Path, steps: int, minutes: float | None
) -> None:
    assert build_trainer(config, photographs, tmp_path, steps=steps, minutes=minutes)._spent() == 1


def test_a_look_at_the_first_triplets_leaves_no_file(config: Path, photographs: Path, tmp_path: Path) -> None:
    assert trainer(config, photographs, tmp_path, 1).preview().images.shape[:2] == (3, 2)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_losses(config: Path, photographs: Path, tmp_path: Path) -> None:
    def command(out: str) -> list[str]:
        options = [
            "--data",
            str(photographs),
            "--out",
            str(tmp_path / out),
            "--steps",
            "24",
            "--workers",
            "0",
        ]
        return [sys.executable, "-m", "lisrd", "train", str(config), *options]

    subprocess.run([*command("whole"), "--seed", "3"], check=True, capture_output=True)
    killed = subprocess.Popen([*command("killed"), "--seed", "3"], stderr=subprocess.DEVNULL)
    while killed.poll() is None and not _recorded(tmp_path / "killed", 12):
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    subprocess.run([*command("killed"), "--seed", "3", "--resume"], check=True, capture_output=True)
    assert losses(tmp_path / "killed") == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)


def _recorded(out: Path, steps: int) -> bool:
    metrics = out / "metrics.jsonl"
    return metrics.exists() and len(metrics.read_text().splitlines()) >= steps


def test_scores_of_real_pairs_are_recorded_beside_the_others(
    config: Path, photographs: Path, tmp_path: Path
) -> None:
    training = trainer(config, photographs, tmp_path, 1)
    training.real_pairs = lambda network: {"real night": {"soft": 50.0, "mean": float(network.training)}}
    training.fit()
    row = json.loads((tmp_path / "validation.jsonl").read_text())
    assert row["real night"] == {"soft": 50.0, "mean": 0.0}
    assert training.provenance()["validation"]["real night"]["soft"] == 50.0
    wide = cv2.imread(str(tmp_path / "validation.png")).shape[1]
    trainer(config, photographs, tmp_path / "without", 1).fit()
    assert wide > cv2.imread(str(tmp_path / "without" / "validation.png")).shape[1]  # a panel more


@pytest.mark.slow
def test_real_pairs_in_the_layout_of_hpatches(photographs: Path, tmp_path: Path) -> None:
    sequence = tmp_path / "pairs" / "v_same"
    sequence.mkdir(parents=True)
    for number in (1, 2):
        (sequence / f"{number}.png").write_bytes((photographs / "0.png").read_bytes())
    (sequence / "H_1_2").write_text("1 0 0\n0 1 0\n0 0 1\n")
    network = PyramidNetwork(PyramidConfig(widths=(2, 2, 2, 2, 2), trunk_width=4, head_width=8))
    scores = RealPairs(tmp_path / "pairs", tmp_path, 5)(network.eval())
    names = {kind.name for kind in network.invariances} | {"soft", "mean", "hard", "oracle"}
    assert set(scores["real viewpoint"]) == names
    assert set(scores["real viewpoint"].values()) == {100.0}  # an image matches itself


def test_real_pairs_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        RealPairs(tmp_path, tmp_path, 5)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_with_the_doubled_batch(
    config: Path, photographs: Path, tmp_path: Path
) -> None:
    """The same samples, BatchNorm over all of them, means over all that counts; and one process reports."""
    options = ["--data", str(photographs), "--steps", "4", "--workers", "0", "--json"]
    doubled = tmp_path / "doubled.toml"
    doubled.write_text(config.read_text().replace("batch_size = 2", "batch_size = 4"))
    alone = [sys.executable, "-m", "lisrd", "train", str(doubled), "--out", str(tmp_path / "one"), *options]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    both = [*torchrun, "-m", "lisrd", "train", str(config), "--out", str(tmp_path / "two"), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(alone, check=True, capture_output=True, env=environment)
    answered = subprocess.run(both, check=True, capture_output=True, env=environment)
    assert json.loads(answered.stdout)["step"] == 4
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    assert len(losses(tmp_path / "two")) == 4


def test_another_configuration_is_refused(config: Path, photographs: Path, tmp_path: Path) -> None:
    trainer(config, photographs, tmp_path, 1).fit()
    with pytest.raises(InputError, match=r"another seed \(0 there, 1 here\)"):
        trainer(config, photographs, tmp_path, 2, seed=1).resume()
    faster = tmp_path / "faster.toml"
    faster.write_text(f"{CONFIG}[optimiser]\nlearning_rate = 0.5\n")
    with pytest.raises(
        InputError, match=r"another config \(optimiser: learning_rate: 0\.0015 there, 0\.5 here\)"
    ):
        trainer(faster, photographs, tmp_path, 2).resume()


@pytest.mark.parametrize(
    ("name", "value", "difference"),
    [
        ("lisrd.__version__", "0.0.0", "another version"),
        ("lisrd.train.identity.process_count", lambda: 2, r"another process_count \(1 there, 2 here\)"),
        (
            "lisrd.train.identity.precision_here",
            lambda _: "bfloat16",
            r"another precision \(float32 there, bfl",
        ),
    ],
    ids=["version", "processes", "precision"],
)
def test_another_run_is_refused(
    config: Path,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: object,
    difference: str,
) -> None:
    trainer(config, photographs, tmp_path, 2).save()
    monkeypatch.setattr(name, value)
    with pytest.raises(InputError, match=difference):
        trainer(config, photographs, tmp_path, 2).resume()


class _InfiniteGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * math.inf


@pytest.mark.parametrize(
    ("spoilt", "what"),
    [(lambda loss: loss * math.nan, "loss is nan"), (_InfiniteGradient.apply, "gradient's norm is")],
)
def test_what_is_not_finite_ends_the_run_before_it_is_learnt(
    config: Path, photographs: Path, tmp_path: Path, spoilt: Callable[[Any], Any], what: str
) -> None:
    run = trainer(config, photographs, tmp_path, 2)
    before = {name: p.clone() for name, p in run.network.named_parameters()}
    loss_of = run.learner.objective.forward
    run.learner.objective.forward = lambda *batch: (
        (parts := loss_of(*batch)) | {"loss": spoilt(parts["loss"])}
    )
    with pytest.raises(InputError, match=f"the {what} .*at step 0: .* start again in another --out"):
        run.fit()
    again = trainer(config, photographs, tmp_path, 0)
    assert again.resume()
    exported = again.fit()
    assert all(torch.equal(p, before[name]) for name, p in exported.named_parameters())
    assert all(value.isfinite().all() for value in exported.state_dict().values())


def test_half_written_checkpoint_is_refused(config: Path, photographs: Path, tmp_path: Path) -> None:
    trainer(config, photographs, tmp_path, 1).fit()
    path = newest_checkpoint(tmp_path)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="half-written"):
        load_checkpoint(path)


def test_validation_scores_every_kind(config: Path, photographs: Path, tmp_path: Path) -> None:
    run = trainer(config, photographs, tmp_path, 1)
    run.fit()
    for scores in run.last_validation.values():
        singles = [scores[name] for name in scores if name.startswith("rot_")]
        assert len(singles) == 4
        assert scores["oracle"] >= max(singles) - 1e-9
        assert 0 <= scores["soft"] <= 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[netwrok]\nturns = 4", "did you mean 'network'"),
        ("[optimiser]\nlearning_rat = 1.0", "did you mean 'learning_rate'"),
        ("[network]\nturns = 3", "it must be 1, 4 or 8"),
        ("[optimiser]\nlearning_rate = 'fast'", "must be a float"),
        ("network = 3", "must be a table"),
        ("[run]\nminutes = '30'", "'minutes' is '30'; it must be a float"),
        ("[run]\nminutes = true", "'minutes' is True; it must be a float"),
        ("[run]\nsteps = [1]", r"'steps' is \[1\]; it must be a int"),
        ("[data]\nnum_keypoints = [512]", "must be a int"),
        ("[network]\nwidths = 3", "must be a list"),
        ("[loss]\nteacher_kinds = 'rot_var_illum_invar'", "must be a list"),
        ("[[data.sources]]\nvalidation = 'a.jpg'", "must be a list"),
        ("[data]\nheight = 0", r"\[data\]: height is 0; it must be 32 or more"),
        ("[data]\ncanvas = nan", "canvas is nan; it must be 1 or more"),
        ("[data]\nlasting = 2", "it must be a share"),
        ("[run]\nsteps = -1", r"\[run\]: run.steps is -1; it must be 0 or more"),
        ("[run]\nminutes = nan", "it must be 0 or more"),
        ("[run]\nbatch_size = 0", "it must be 1 or more"),
        ("not toml", "not a readable TOML"),
    ],
)
def test_configuration_errors_teach(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_config(path)


@pytest.mark.parametrize("path", (Path(__file__).parents[1] / "configs").glob("*.toml"), ids=lambda p: p.stem)
def test_shipped_configurations_load(path: Path) -> None:
    kind = read_table(path).get("kind", "pyramid")
    load = load_bank_config if kind == "bank" else load_config
    assert load(path).kind == kind


def test_tables_become_dataclasses() -> None:
    table = {"network": {"widths": [4, 4], "turns": 1}, "data": {"num_keypoints": 7}}
    config = network_config(table, "here")
    assert config.network == PyramidConfig(widths=(4, 4), turns=1)
    assert config.data == DataConfig(num_keypoints=7)


def test_fitting_turn_by_hand() -> None:
    degrees = torch.tensor([0.0, 30.0, 90.0, 100.0, 180.0, -90.0, -170.0])
    turn, left = fitting_turn(torch.deg2rad(degrees), 4)
    assert turn.tolist() == [0, 0, 3, 3, 2, 1, 2]
    assert torch.rad2deg(left).tolist() == pytest.approx([0, 30, 0, 10, 0, 0, 10], abs=1e-3)
    turn, left = fitting_turn(torch.deg2rad(degrees), 8)
    assert turn.tolist() == [0, 7, 6, 6, 4, 2, 4]
    assert torch.rad2deg(left).tolist() == pytest.approx([0, -15, 0, 10, 0, 0, 10], abs=1e-3)
    turn, left = fitting_turn(torch.deg2rad(degrees), 1)
    assert not turn.any()
    assert torch.rad2deg(left).tolist() == pytest.approx(degrees.tolist(), abs=1e-3)


def test_learning_rate_warms_up_and_ends_low() -> None:
    config = TrainingConfig().optimiser
    assert learning_rate(config, 0, 0.0) == pytest.approx(config.learning_rate / config.warmup_steps)
    assert learning_rate(config, 10_000, 1.0) == pytest.approx(config.learning_rate * config.final_fraction)


def test_paper_network_trains_with_the_same_loop(config: Path, photographs: Path, tmp_path: Path) -> None:
    table = tomllib.loads(CONFIG) | {
        "kind": "paper",
        "network": {"widths": [4, 4, 4, 8], "descriptor_dim": 8},
    }
    settings = network_config(table | {"loss": {"matching": "triplet"}}, "here")
    run = Trainer(replace(settings, run=replace(settings.run, steps=2)), photographs, tmp_path, workers=0)
    before = [p.detach().clone() for p in run.network.parameters()]
    run.fit()
    assert len(losses(tmp_path)) == 2
    moved = [not torch.equal(p, b) for p, b in zip(run.network.parameters(), before, strict=True)]
    assert sum(moved) > len(moved) - 3  # temperature and bias are fixed
