"""From a configuration file to the trainer it asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lisrd.errors import InputError
from lisrd.train.bank import BankTrainer
from lisrd.train.bank_config import load_bank_config
from lisrd.train.checkpoint import newest_checkpoint
from lisrd.train.config import load_config, read_table, with_budget
from lisrd.train.trainer import RealScores, Trainer


def build_trainer(
    config: Path,
    data: Path,
    out: Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    workers: int = 1,
    resume: bool = False,
    on_step: Callable[[dict[str, float]], None] | None = None,
    init: Sequence[str | Path] = (),
    real_pairs: RealScores | None = None,
) -> Trainer:
    """The trainer of a network or of a bank's selection, at the start or where `out` left off.

    `init`: weights that a new run starts from, of several their mean; one that `out` holds has its own. `real_pairs`:
    see `Trainer`.

    Raises:
        InputError: bad configuration or data; `out` holds a run and `resume` is false, or the run there is another.
    """
    begun = newest_checkpoint(out) is not None
    if begun and not resume:
        raise InputError(f"{out} holds checkpoints: continue with --resume, or choose another --out")
    start = () if begun else init
    trainer: Trainer
    if read_table(config).get("kind") == "bank":
        if real_pairs:
            raise InputError("--val is for networks; measure a bank with `lisrd evaluate`")
        bank = with_budget(load_bank_config(config), steps, minutes)
        trainer = BankTrainer(bank, data, out, seed, workers, on_step, start)
    else:
        network = with_budget(load_config(config), steps, minutes)
        trainer = Trainer(network, data, out, seed, workers, on_step, start)
        trainer.real_pairs = real_pairs
    if begun:
        trainer.resume()
    return trainer
