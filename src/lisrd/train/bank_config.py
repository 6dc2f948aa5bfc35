"""Training files of banks, told by `kind = "bank"`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lisrd.describe import build_describer
from lisrd.describe.bank import Bank
from lisrd.describe.selector import Selector, SelectorConfig
from lisrd.describe.single import SingleDescriber
from lisrd.errors import InputError
from lisrd.train.bank_objective import BankLossConfig
from lisrd.train.bank_pairs import PairsConfig
from lisrd.train.config import OptimiserConfig, RunConfig, from_table, read_table
from lisrd.train.data.dataset import DataConfig
from lisrd.train.data.triplets import AugmentConfig


@dataclass(frozen=True, slots=True)
class BankConfig:
    """The members by the names that `lisrd.describe.build_describer` takes, and what each is invariant to."""

    name: str = "lisrd-sift"
    members: tuple[str, ...] = ("root-sift", "upright-root-sift")
    invariances: tuple[str, ...] = ("rot_invar", "rot_var")
    descriptor_dim: int = 128  # of the widest member
    num_clusters: int = 8
    tiles_per_side: int = 3
    agreement_power: float = 16.0  # see `lisrd.match.agreement`
    agreement_ratio: float = 0.95
    prior: tuple[float, ...] = ()  # multiplies the weights in use, one factor per member

    def build(self) -> Bank:
        """The bank with a selection that knows nothing yet.

        Raises:
            InputError: a member has several descriptors, is unknown, or its weights are missing; the numbers of
                invariances or of the prior are not those of the members.
        """
        members = [_single(name) for name in self.members]
        names = tuple(member.name for member in members)
        sizes = (self.descriptor_dim, self.num_clusters, self.tiles_per_side)
        selection = (self.agreement_power, self.agreement_ratio, self.prior)
        try:
            config = SelectorConfig(names, self.invariances, *sizes, *selection)
        except ValueError as error:
            raise InputError(f"[bank] {self.name}: {error}") from None
        return Bank(self.name, members, Selector(config))


def _single(name: str) -> SingleDescriber:
    describer = build_describer(name)
    if not isinstance(describer, SingleDescriber):
        raise InputError(f"{name} cannot be a member of a bank: it has several descriptors per keypoint")
    return describer


@dataclass(frozen=True, slots=True)
class BankTrainingConfig:
    """A whole training file of a bank; every table may be left out."""

    kind: str = "bank"
    bank: BankConfig = field(default_factory=BankConfig)
    pairs: PairsConfig = field(default_factory=PairsConfig)
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
    return from_table(BankTrainingConfig, read_table(path), str(path))
