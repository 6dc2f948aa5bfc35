"""Training configurations: TOML tables onto frozen dataclasses; an unknown key names the nearest known one."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from lisrd.describe.network import PyramidConfig
from lisrd.describe.paper import PaperConfig
from lisrd.errors import InputError
from lisrd.train.data.dataset import DataConfig
from lisrd.train.data.triplets import AugmentConfig
from lisrd.train.objective import LossConfig

T = TypeVar("T")
C = TypeVar("C")  # a whole training file: it has a table [run]

#: What `kind` may be, and the table [network] of each.
NETWORKS: dict[str, type[PyramidConfig] | type[PaperConfig]] = {
    "pyramid": PyramidConfig,
    "paper": PaperConfig,
}


@dataclass(frozen=True, slots=True)
class OptimiserConfig:
    """AdamW with gradient clipping and a warm-up.

    `schedule`: "constant"; "cosine" over the budget; or "cooldown", constant and then straight down over the last
    `cooldown_share` of the budget, which a later run with a larger budget goes on from. `parts`: "all", or
    "selection" for the meta descriptors, their temperature and bias alone, over frozen descriptors.
    """

    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    warmup_steps: int = 50
    schedule: str = "cosine"
    cooldown_share: float = 0.25
    final_fraction: float = 0.02  # of the learning rate, at the end of the cosine or the cooldown
    ema_decay: float = 0.998
    parts: str = "all"

    def __post_init__(self) -> None:
        if self.schedule not in ("cosine", "constant", "cooldown"):
            raise ValueError(
                f"optimiser.schedule is {self.schedule!r}; it must be 'cosine', 'constant' or 'cooldown'"
            )
        if self.parts not in ("all", "selection"):
            raise ValueError(f"optimiser.parts is {self.parts!r}; it must be 'all' or 'selection'")
        if not 0 < self.cooldown_share <= 1:
            raise ValueError(f"optimiser.cooldown_share is {self.cooldown_share}; it must be in (0, 1]")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How long, how often, in which precision."""

    steps: int = 20_000
    minutes: float | None = None  # whichever of the two budgets ends first
    batch_size: int = 8
    precision: str = "auto"  # "auto", "float32" or "bfloat16"
    checkpoint_minutes: float = 5.0
    keep_checkpoints: int = 2
    validate_minutes: float = 15.0
    validation_triplets: int = 32

    def __post_init__(self) -> None:
        for name in ("steps", "minutes", "checkpoint_minutes", "validate_minutes"):
            self._require(name, 0)
        for name in ("batch_size", "keep_checkpoints", "validation_triplets"):
            self._require(name, 1)

    def _require(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is not None and not value >= least:
            raise InputError(f"run.{name} is {value}; it must be {least} or more")


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """A whole training file of a network; every table may be left out. `kind` says which network."""

    kind: str = "pyramid"
    network: PyramidConfig | PaperConfig = field(default_factory=PyramidConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    run: RunConfig = field(default_factory=RunConfig)


def load_config(path: str | Path) -> TrainingConfig:
    """Read a TOML file.

    Raises:
        InputError: the file cannot be read, or a key is unknown or of the wrong kind.
    """
    return network_config(read_table(path), str(path))


def read_table(path: str | Path) -> dict[str, Any]:
    """The plain values of a TOML file. Raises InputError when it cannot be read."""
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such configuration; see configs/ for complete ones") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise InputError(f"{path}: not a readable TOML file: {error}") from None


def network_config(table: dict[str, Any], where: str) -> TrainingConfig:
    """The configuration of a network's training; the table [network] is read as `kind` wants it."""
    kind = table.get("kind", "pyramid")
    if kind not in NETWORKS:
        raise InputError(f"{where}: kind is {kind!r}; it must be one of {', '.join(NETWORKS)} or bank")
    network = _converted(table.get("network", {}), NETWORKS[kind], "network", where)
    rest = {key: value for key, value in table.items() if key != "network"}
    return replace(from_table(TrainingConfig, rest, where), network=network)


def with_budget(config: C, steps: int | None, minutes: float | None) -> C:
    """The configuration with the budgets that the user gave in place of its own."""
    given = {name: value for name, value in (("steps", steps), ("minutes", minutes)) if value is not None}
    return replace(config, run=replace(config.run, **given)) if given else config  # type: ignore[type-var, attr-defined]


def from_table(kind: type[T], table: dict[str, Any], where: str) -> T:
    """Fill a dataclass from a table, tables within tables."""
    hints = get_type_hints(kind)
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    values = {}
    for key, value in table.items():
        if key not in known:
            raise InputError(f"{where}: unknown key '{key}'{_nearest(key, known)}")
        values[key] = _converted(value, hints[key], key, where)
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from None


def _converted(value: Any, hint: Any, key: str, where: str) -> Any:
    """A TOML value as the field's type wants it: tables and lists of tables become dataclasses."""
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise InputError(f"{where}: '{key}' must be a table, [{key}]")
        return from_table(hint, value, f"{where} [{key}]")  # type: ignore[arg-type]
    if isinstance(hint, UnionType):  # with None, which TOML has no word for
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise InputError(f"{where}: '{key}' is {value!r}; it must be a list")
        return tuple(_converted(v, get_args(hint)[0], key, where) for v in value)
    wanted = {float: (int, float), int: (int,), str: (str,), bool: (bool,)}.get(hint)
    if wanted is not None and (not isinstance(value, wanted) or isinstance(value, bool) != (hint is bool)):
        raise InputError(f"{where}: '{key}' is {value!r}; it must be a {hint.__name__}")
    return float(value) if hint is float else value


def _nearest(key: str, known: set[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known keys: {', '.join(sorted(known))}"


def to_table(config: Any) -> dict[str, Any]:
    """The configuration as plain values, for metadata."""
    return asdict(config)
