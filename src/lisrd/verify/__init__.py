"""From matches to geometry: robust models, sub-pixel refinement, guided matching, the verdict, alignment."""

from __future__ import annotations

from lisrd.verify.align import RotationScale, align_images, relative_rotation_scale
from lisrd.verify.consistency import filter_by_frames, frame_agreement, reweighted
from lisrd.verify.geometry import Geometry
from lisrd.verify.guided import guided_matches, second_choices
from lisrd.verify.local_affine import Frames
from lisrd.verify.refine import Refined, refine
from lisrd.verify.robust import estimate
from lisrd.verify.stage import VerifiedPair, verify_pair
from lisrd.verify.steps import Steps
from lisrd.verify.verdict import Verdict, same_place

__all__ = [
    "Frames",
    "Geometry",
    "Refined",
    "RotationScale",
    "Steps",
    "Verdict",
    "VerifiedPair",
    "align_images",
    "estimate",
    "filter_by_frames",
    "frame_agreement",
    "guided_matches",
    "refine",
    "relative_rotation_scale",
    "reweighted",
    "same_place",
    "second_choices",
    "verify_pair",
]
