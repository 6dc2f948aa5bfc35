"""From a diagnosis to what one would do about it, with the options of the commands."""

from __future__ import annotations

from lisrd.diagnose.collection import LIGHT_CHANGED, TURNED, Diagnosis
from lisrd.diagnose.evidence import kinds_invariant_to
from lisrd.invariance import ILLUMINATION, ROTATION, Factor

#: Fewer verified pairs say something about themselves, not about a collection.
_ENOUGH_PAIRS = 5


def advice_on(diagnosis: Diagnosis) -> list[str]:
    """A sentence on what can be concluded, one on rotation, one on light."""
    verified = diagnosis.verified
    if not verified:
        return [
            f"none of {len(diagnosis.pairs)} pairs was verified, so nothing can be concluded: "
            "give images that overlap, or the pairs that do (--pairs)"
        ]
    advice = [_on_rotation(diagnosis), _on_light(diagnosis)]
    if len(verified) < _ENOUGH_PAIRS:
        advice.insert(0, f"only {len(verified)} pairs were verified: take the rest as a hint")
    return advice


def _on_rotation(diagnosis: Diagnosis) -> str:
    known = [image for image in diagnosis.images if image.angle is not None]
    turned = [image for image in known if image.turned]
    wins = _share_won(diagnosis, ROTATION)
    won = "" if wins is None else f", rotation invariant weights win in {wins:.0%} of the pairs"
    if turned:
        return (
            f"leave the turn to the matcher (--turn auto): {len(turned)} of {len(known)} images are turned by more "
            f"than {TURNED:.0f} degrees{won}"
        )
    return (
        f"keep the camera upright prior (--turn off): none of {len(known)} images is turned by more than "
        f"{TURNED:.0f} degrees{won}"
    )


def _on_light(diagnosis: Diagnosis) -> str:
    changes = [pair.light_change for pair in diagnosis.verified if pair.light_change is not None]
    if not changes:
        return "nothing is known of the light: this describer has no illumination variant kinds beside invariant ones"
    changed = sum(change > LIGHT_CHANGED for change in changes)
    share = changed / len(changes)
    if not changed:
        kept = [name for name, ignores in _kinds(diagnosis, ILLUMINATION) if not ignores]
        return (
            f"the light is steady in all {len(changes)} pairs: the illumination variant kinds bear (--prior "
            f"{kept[0]}=2 favours one), nothing has to be left out"
        )
    return f"keep the illumination invariant kinds: the light changes in {share:.0%} of the pairs"


def _share_won(diagnosis: Diagnosis, factor: Factor) -> float | None:
    """By the kinds that are invariant to the factor; None where the names of the kinds do not tell."""
    kinds = dict(_kinds(diagnosis, factor))
    return sum(one.wins for one in diagnosis.weights if kinds[one.invariance]) if kinds else None


def _kinds(diagnosis: Diagnosis, factor: Factor) -> list[tuple[str, bool]]:
    invariant = kinds_invariant_to(factor, diagnosis.invariances)
    return list(zip(diagnosis.invariances, invariant or (), strict=bool(invariant)))
