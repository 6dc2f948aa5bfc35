"""Two photographs that may show their place at very different scales: verified as they are, then in other octaves."""

from __future__ import annotations

from typing import get_args

from jaxtyping import Float
from torch import Tensor

from lisrd.describe import Describer
from lisrd.describe.octaves import with_smaller_octaves
from lisrd.errors import InputError
from lisrd.match import Policy
from lisrd.match.octave import match_octaves
from lisrd.types import LocalFeatures, Matches
from lisrd.verify import Steps, VerifiedPair, verify_pair
from lisrd.verify.geometry import Kind
from lisrd.verify.steps import Switch


def verify_at_any_scale(
    describer: Describer,
    images: tuple[Float[Tensor, "1 3 H0 W0"], Float[Tensor, "1 3 H1 W1"]],
    features: tuple[LocalFeatures, LocalFeatures],
    matches: Matches,
    model: Kind = "homography",
    steps: Steps = Steps(),
    policy: Policy = Policy(),
    threshold: float = 2.0,
    scale: Switch = "auto",
) -> VerifiedPair:
    """`lisrd.verify.verify_pair` of the matches, or of those between smaller octaves of the images.

    `features` are those of full size, from `describer`. `scale` says when the smaller octaves are described: "auto"
    where the verdict on the matches as they are is not "yes", "on" always, "off" never. The octaves are chosen by
    `lisrd.match.octave`; under "auto" the answer whose verdict is surer stays. Its `matches.octaves` say which it is.

    Raises InputError for another `scale`, and as `verify_pair` does.
    """
    if scale not in get_args(Switch):
        raise InputError(f"scale is {scale!r}; use off, on or auto")

    def verified(features0: LocalFeatures, features1: LocalFeatures, matches: Matches) -> VerifiedPair:
        return verify_pair(*images, features0, features1, matches, model, steps, policy, threshold)

    first = None if scale == "on" else verified(*features, matches)
    if first and (scale == "off" or first.verdict.answer == "yes"):
        return first
    octaves0, octaves1 = (
        with_smaller_octaves(describer, i, f) for i, f in zip(images, features, strict=True)
    )
    rescaled = match_octaves(octaves0, octaves1, policy)
    if first and rescaled.octaves == (0, 0):
        return first
    octave0, octave1 = rescaled.octaves
    second = verified(octaves0[octave0], octaves1[octave1], rescaled)
    return max(filter(None, (first, second)), key=lambda found: found.verdict.probability)
