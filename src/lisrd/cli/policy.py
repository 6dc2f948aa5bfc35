"""The options of the matcher's policy, the same for every command that matches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from lisrd.errors import InputError
from lisrd.match import Policy
from lisrd.match.policy import turn_from_text

SelectionOption = Annotated[str, typer.Option(help="soft, hard or mean.")]
TurnOption = Annotated[
    str,
    typer.Option(
        help="auto, orientations, off, or the quarter turns of image 1: 0, 1, 2, 3, for eight turns halves between."
    ),
]
OnlyOption = Annotated[list[str], typer.Option(help="Use this invariance; may be repeated.")]
ForbidOption = Annotated[list[str], typer.Option(help="Leave this invariance out; may be repeated.")]
PriorOption = Annotated[list[str], typer.Option(help="Favour an invariance: NAME=WEIGHT; may be repeated.")]
RatioOption = Annotated[float | None, typer.Option(help="Lowe's ratio; off by default.")]


def build_policy(
    selection: str = "soft",
    turn: str = "auto",
    only: Sequence[str] = (),
    forbid: Sequence[str] = (),
    prior: Sequence[str] = (),
    ratio: float | None = None,
) -> Policy:
    """The policy that the options ask for. Raises InputError for a value that none of them knows."""
    return Policy(
        selection=selection,  # type: ignore[arg-type]
        turn=turn_from_text(turn),
        only=tuple(only),
        forbid=tuple(forbid),
        prior=dict(map(_prior, prior)),
        ratio=ratio,
    )


def _prior(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    try:
        return name, float(weight)
    except ValueError:
        raise InputError(f"--prior {text}: write NAME=WEIGHT, for instance rot_var_illum_var=2") from None
