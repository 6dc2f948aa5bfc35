"""The factors that change between two images, and the invariances made of them.

With F factors there are 2^F invariances, one descriptor for each. Their order is fixed here and nowhere
else: the first factor changes fastest, so that for rotation and illumination it is the order of the
released code: variant to both, rotation invariant, illumination invariant, invariant to both.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True, slots=True)
class Factor:
    """Something that may change between two images; `short` is its part of an invariance's name."""

    name: str
    short: str


ROTATION = Factor("rotation", "rot")
ILLUMINATION = Factor("illumination", "illum")
FACTORS = (ROTATION, ILLUMINATION)


@dataclass(frozen=True, slots=True)
class Invariance:
    """Which factors one descriptor is invariant to, and which it varies with."""

    factors: tuple[Factor, ...]
    invariant_to: frozenset[Factor]

    @property
    def name(self) -> str:
        """For instance `rot_invar_illum_var`."""
        return "_".join(f"{f.short}_{'invar' if f in self.invariant_to else 'var'}" for f in self.factors)


def invariances(factors: tuple[Factor, ...] = FACTORS) -> tuple[Invariance, ...]:
    """All 2^F invariances, the first factor changing fastest."""
    choices = product((False, True), repeat=len(factors))
    return tuple(
        Invariance(
            factors, frozenset(f for f, chosen in zip(factors, reversed(choice), strict=True) if chosen)
        )
        for choice in choices
    )
