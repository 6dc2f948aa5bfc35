"""What the user may ask of the matcher beside its default."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lisrd.errors import InputError


@dataclass(frozen=True, slots=True)
class Policy:
    """How two images are matched; the default is the paper's online selection with the turn chosen for the pair.

    `selection`: "soft" weighs the invariances, "hard" takes the one of the highest weight for each keypoint pair,
    "mean" weighs them equally. `temperature` replaces the describer's own. `prior` multiplies weights before they are
    normalised, by name; `only` and `forbid` choose the invariances that take part. `turn` are the quarter turns by
    which image 1 is read (halves of them too, of a network of eight turns), "auto" (where the turned descriptors agree
    best), "orientations" (what the keypoints' orientations suggest) or "off". `ratio` is Lowe's, on distances;
    `min_similarity` a floor for scores. `precision` is that of the descriptors' products; float16 is for GPUs.
    """

    selection: Literal["soft", "hard", "mean"] = "soft"
    temperature: float | None = None
    prior: Mapping[str, float] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    turn: Literal["auto", "orientations", "off"] | float = "auto"
    ratio: float | None = None
    min_similarity: float | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"

    def __post_init__(self) -> None:
        if self.selection not in ("soft", "hard", "mean"):
            raise InputError(f"policy: selection is {self.selection!r}; use 'soft', 'hard' or 'mean'")
        if self.turn not in ("auto", "orientations", "off", *(half / 2 for half in range(8))):
            raise InputError(
                f"policy: turn is {self.turn!r}; use 'auto', 'orientations', 'off', 0, 1, 2, 3 or a half between"
            )
        if self.temperature is not None and not self.temperature > 0:
            raise InputError(f"policy: temperature is {self.temperature}; it must be above 0")
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise InputError(f"policy: ratio is {self.ratio}; it must be above 0 and at most 1")
        if self.precision not in ("float32", "bfloat16", "float16"):
            raise InputError(
                f"policy: precision is {self.precision!r}; use 'float32', 'bfloat16' or 'float16'"
            )
        for name, value in self.prior.items():
            if not (value > 0 and math.isfinite(value)):
                raise InputError(
                    f"policy: the prior of {name} is {value}; it must be above 0: use `forbid` to exclude"
                )

    def kinds(self, invariances: tuple[str, ...]) -> list[int]:
        """Indices of the invariances that take part.

        Raises:
            InputError: a name is unknown, or none is left.
        """
        for name in (*self.only, *self.forbid, *self.prior):
            if name not in invariances:
                near = difflib.get_close_matches(name, invariances, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(invariances)}"
                raise InputError(f"policy: these features have no invariance {name!r}; {hint}")
        wanted = self.only or invariances
        kept = [v for v, name in enumerate(invariances) if name in wanted and name not in self.forbid]
        if not kept:
            raise InputError("policy: every invariance is forbidden; leave at least one")
        return kept


def turn_from_text(text: str) -> Any:
    """The `turn` of a policy as a user writes it, a number or a word; `Policy` refuses what it does not know."""
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number
