"""What a visitor may ask, and the check of what arrived: only offered names and uploaded files get through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from lisrd.errors import InputError
from lisrd.invariance import FACTORS, Invariance, invariances
from lisrd.match import Policy
from lisrd.match.policy import turn_from_text
from lisrd.verify.geometry import Kind

#: Choices as (words, value).
TURNS = (
    ("found for the pair", "auto"),
    ("by the keypoints' orientations", "orientations"),
    ("not turned", "off"),
    ("90° counter-clockwise", "1"),
    ("180°", "2"),
    ("90° clockwise", "3"),
)
MODELS = (("homography: a plane, or a turning camera", "homography"), ("fundamental matrix", "fundamental"))
SELECTIONS = (
    ("chosen per match, weighted", "soft"),
    ("chosen per match, the best alone", "hard"),
    ("all of them, equally", "mean"),
)
MIN_KEYPOINTS = 64
_ONLY = "only "


@dataclass(frozen=True, slots=True)
class Menu:
    """What this server offers: names of detectors, and of describers with their invariances."""

    detectors: tuple[str, ...]
    describers: Mapping[str, tuple[str, ...]]

    def invariance_choices(self, describer: str) -> list[tuple[str, str]]:
        """The selections, then each invariance alone."""
        names = self.describers.get(describer, ())
        alone = [(f"only: {label_of(name)}", _ONLY + name) for name in names] if len(names) > 1 else []
        return [*SELECTIONS, *alone] if alone else [SELECTIONS[0]]


@dataclass(frozen=True, slots=True)
class MatchRequest:
    """One question to a worker; made by `checked_request` alone where strangers ask."""

    photographs: tuple[Path, Path]
    detector: str = "sift"
    describer: str = "pyramid"
    invariance: str = "soft"
    turn: str = "auto"
    model: Kind = "homography"
    max_keypoints: int = 2048

    @property
    def policy(self) -> Policy:
        turn = turn_from_text(self.turn)
        if self.invariance.startswith(_ONLY):
            return Policy(only=(self.invariance.removeprefix(_ONLY),), turn=turn)
        return Policy(selection=self.invariance, turn=turn)  # type: ignore[arg-type]


#: Gives the JSON of an answer.
Match = Callable[[MatchRequest], str]


def checked_request(values: Sequence[Any], menu: Menu, uploads: Path, max_keypoints: int) -> MatchRequest:
    """The request of what the browser sent: two uploads, detector, describer, invariance, turn, model, keypoints.

    Raises:
        InputError: a photograph is missing, or anything that the page does not offer.
    """
    if len(values) != 8:
        raise InputError("the page is out of date: reload it")
    photograph0, photograph1, detector, describer, invariance, turn, model, count = values
    paths = (
        uploaded_path(photograph0, "photograph 1", uploads),
        uploaded_path(photograph1, "photograph 2", uploads),
    )
    return MatchRequest(
        paths,
        _offered("detector", detector, menu.detectors),
        _offered("describer", describer, tuple(menu.describers)),
        _offered("invariance", invariance, _values(menu.invariance_choices(str(describer)))),
        _offered("turn", turn, _values(TURNS)),
        _offered("model", model, get_args(Kind)[:2]),  # type: ignore[arg-type]
        _whole_number(count, max_keypoints),
    )


def uploaded_path(value: Any, name: str, uploads: Path) -> Path:
    """The file of gradio's record of an upload, which the browser could have written itself.

    Raises:
        InputError: nothing was dropped, or the path leads out of the folder of uploads.
    """
    if not value:
        raise InputError(f"{name} is missing: drop one, or take an example")
    path = value.get("path") if isinstance(value, dict) else None
    if isinstance(path, str):
        with suppress(ValueError):  # a NUL, or half of a surrogate pair: no file has such a name
            resolved = Path(path).resolve()
            if resolved.is_relative_to(uploads.resolve()) and Path(path).is_absolute():
                return resolved
    raise InputError(f"{name} is no upload of this page: drop the photograph again")


def label_of(name: str) -> str:
    """An invariance in words: what it is invariant to."""
    known = {one.name: one for one in (*invariances(), *invariances(FACTORS[:1]))}
    return _words(known[name]) if name in known else name.replace("_", " ").replace("-", " ")


def _words(invariance: Invariance) -> str:
    to = [{"illumination": "light"}.get(f.name, f.name) for f in FACTORS if f in invariance.invariant_to]
    return f"invariant to {' and '.join(to)}" if to else "varies, the sharpest"


def _values(choices: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(value for _, value in choices)


def _offered(what: str, value: Any, offered: Sequence[str]) -> str:
    if value not in offered:
        raise InputError(f"this page offers no such {what}; choose one of its list")
    return str(value)


def _whole_number(value: Any, most: int) -> int:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not MIN_KEYPOINTS <= value <= most:
        raise InputError(f"keypoints: choose a number from {MIN_KEYPOINTS} to {most}")
    return int(value)
