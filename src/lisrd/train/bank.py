"""Training the selection of a bank: NetVLAD, temperature and bias, over frozen members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lisrd.describe import build_describer
from lisrd.describe.bank import Bank
from lisrd.describe.selector import Selector, SelectorConfig
from lisrd.describe.single import SingleDescriber
from lisrd.detect import build_detector
from lisrd.errors import InputError
from lisrd.train.bank_objective import BankLossConfig, BankObjective, validate_bank
from lisrd.train.bank_pairs import describe_pairs
from lisrd.train.clusters import start_from_clusters
from lisrd.train.config import OptimiserConfig, RunConfig
from lisrd.train.data.dataset import DataConfig, triplet_loader
from lisrd.train.data.dice import step_generator
from lisrd.train.data.triplets import AugmentConfig, Triplets
from lisrd.train.trainer import Trainer

#: Triplets whose descriptors are clustered before the first step.
_CLUSTERED_TRIPLETS = 32


@dataclass(frozen=True, slots=True)
class BankConfig:
    """The members by the names that `lisrd.describe.build_describer` takes, and what each is invariant to."""

    name: str = "lisrd-sift"
    members: tuple[str, ...] = ("root-sift", "upright-root-sift")
    invariances: tuple[str, ...] = ("rot_invar", "rot_var")
    descriptor_dim: int = 128  # of the widest member
    num_clusters: int = 8
    tiles_per_side: int = 3
    detector: str = "sift"
    max_keypoints: int = 1000  # per image

    def build(self) -> Bank:
        """The bank with a selection that knows nothing yet.

        Raises:
            InputError: a member has several descriptors, is unknown, or its weights are missing.
        """
        members = [_single(build_describer(name)) for name in self.members]
        names = tuple(member.name for member in members)
        sizes = (self.descriptor_dim, self.num_clusters, self.tiles_per_side)
        return Bank(self.name, members, Selector(SelectorConfig(names, self.invariances, *sizes)))


def _single(describer: Any) -> SingleDescriber:
    if not isinstance(describer, SingleDescriber):
        raise InputError(f"{describer.name} cannot be a member of a bank: it has several descriptors per keypoint")
    return describer


@dataclass(frozen=True, slots=True)
class BankTrainingConfig:
    """A whole training file of a bank, told by `kind = "bank"`; every table may be left out."""

    kind: str = "bank"
    bank: BankConfig = field(default_factory=BankConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: BankLossConfig = field(default_factory=BankLossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    run: RunConfig = field(default_factory=RunConfig)


def load_bank_config(path: str | Path) -> BankTrainingConfig:
    """Read a TOML file.

    Raises:
        InputError: the file cannot be read, or a key is unknown or of the wrong kind.
    """
    try:
        table = tomllib.loads(Path(path).read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: not a readable TOML file: {error}") from None
    return from_table(BankTrainingConfig, table, str(path))


class BankTrainer(Trainer):
    """The training loop of `Trainer` with a selector as the network, and what a bank minimises as the objective."""

    def __init__(
        self,
        config: BankTrainingConfig,
        data_root: Path,
        directory: Path,
        seed: int = 0,
        workers: int = 1,
        on_step: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        self.config: Any = config
        self.directory, self.seed, self.workers, self.on_step = directory, seed, workers, on_step
        directory.mkdir(parents=True, exist_ok=True)
        self.fabric = fabric_for(config.run.precision)
        torch.manual_seed(seed)
        bank = config.bank.build()
        self.network: Any = bank.selector
        detector = build_detector(config.bank.detector)
        self.objective: Any = BankObjective(config.loss, bank, detector, config.bank.max_keypoints)
