"""Which steps of the geometry stage are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from lisrd.errors import InputError

Switch = Literal["off", "on", "auto"]


@dataclass(frozen=True, slots=True)
class Steps:
    """What is done beside estimating; "auto" takes a step where it can help.

    `frames`, scales and orientations as evidence: where the keypoints of both images have them; "auto" goes
    without where that finds more inliers. `refine`: a match moves where its patches agree, see
    `lisrd.verify.refine`. `guided`: under a homography, unless the verdict is "no": an epipolar line leaves too
    many rivals, and a model by chance finds itself matches.
    """

    frames: Switch = "auto"
    refine: Switch = "auto"
    guided: Switch = "auto"

    def __post_init__(self) -> None:
        for name in ("frames", "refine", "guided"):
            if getattr(self, name) not in get_args(Switch):
                raise InputError(f"{name} is {getattr(self, name)!r}; use off, on or auto")


#: The robust model of the matches as they are.
ESTIMATE_ALONE = Steps("off", "off", "off")
