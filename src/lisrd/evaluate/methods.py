"""The names of what is compared, and how each is matched: `BASE[:part][:part]`.

BASE is a describer of `lisrd.describe`. Parts change the matching: all names of one base share its features.

    pyramid                      the default policy: soft selection, the turn chosen for the pair
    pyramid:rot_invar_illum_var  one descriptor of the bank alone
    pyramid:mean, pyramid:hard   the plain mean of the descriptors; the best weight takes all
    pyramid:oracle               of the single descriptors the one with the most correct matches, pair by pair
    pyramid:turn-off             variant descriptors are read upright only; combines: pyramid:mean:turn-off
    NAME:octaves                 images are described at half and a quarter of their size too; those that fit match
    NAME@2, NAME@4               images are described at half or at a quarter of their size alone
    NAME@1+2                     at full and at half size, descriptors side by side
    NAME:four-rotations          image 1 is described in four turns, the one with the most inliers counts
    pyramid:parts                stands for all of the bank's parts at once
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lisrd.describe.octaves import octave_names
from lisrd.errors import InputError
from lisrd.match import Policy

FOUR_ROTATIONS = "four-rotations"
SELECTIONS = ("soft", "hard", "mean")


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the report."""

    name: str
    base: str
    policy: Policy = field(default_factory=Policy)
    oracle: bool = False
    four_rotations: bool = False
    octaves: bool = False

    @property
    def bases(self) -> list[str]:
        """The describers whose features are matched, by octave."""
        return octave_names(self.base) if self.octaves else [self.base]


def parse_method(name: str) -> Method:
    """What a name means. Whether a bank has the invariance it names is known once its features are there."""
    base, *parts = split_name(name)
    method = Method(name, base)
    for part in parts:
        method = _with_part(method, part)
    if method.octaves and method.four_rotations:
        raise InputError(
            f"'{name}': octaves are chosen among images that are not turned; ask for one of the two"
        )
    return method


def _with_part(method: Method, part: str) -> Method:
    match part:
        case "oracle":
            return replace(method, oracle=True)
        case "octaves":
            return replace(method, octaves=True)
        case "turn-off":
            return replace(method, policy=replace(method.policy, turn="off"))
        case "four-rotations":  # the turns of the images replace those of the descriptors
            return replace(method, four_rotations=True, policy=replace(method.policy, turn="off"))
        case "soft" | "hard" | "mean":
            return replace(method, policy=replace(method.policy, selection=part))
        case _:
            return replace(method, policy=replace(method.policy, only=(part,)))


def expand_parts(names: Sequence[str], invariances: dict[str, tuple[str, ...]]) -> list[str]:
    """`BASE:parts` replaced by the names it stands for; `invariances` are those of each base."""
    expanded: list[str] = []
    for name in names:
        base, *parts = split_name(name)
        if parts == ["parts"]:
            singles = invariances[base] if len(invariances[base]) > 1 else ()
            expanded += [f"{base}:{part}" for part in (*singles, "mean", "hard", "oracle", "turn-off")]
        else:
            expanded.append(name)
    return list(dict.fromkeys(expanded))


def check_invariances(methods: Sequence[Method], invariances: dict[str, tuple[str, ...]]) -> None:
    """Raise `InputError` where a name asks for a part that its base does not have."""
    for method in methods:
        has = invariances[method.base]
        for part in method.policy.only or ():
            if part not in has:
                known = ", ".join(
                    (*has, "mean", "hard", "oracle", "turn-off", "octaves", FOUR_ROTATIONS, "parts")
                )
                raise InputError(f"'{method.name}': '{method.base}' has no part '{part}'; it has {known}")


def base_of(name: str) -> str:
    """The describer a name is about."""
    return split_name(name)[0]


def split_name(name: str) -> list[str]:
    """The base and its parts. Raises `InputError` where there is no base."""
    base, *rest = name.split(":")
    parts: list[str] = []
    for piece in rest:  # `aliked-n16=C:\weights.pth`: a piece with a separator belongs to a path
        if not parts and ("/" in piece or "\\" in piece or "." in piece):
            base = f"{base}:{piece}"
        else:
            parts.append(piece)
    if not base:
        raise InputError(f"'{name}' is not a describer's name; see `lisrd info` for those at hand")
    return [base, *parts]
