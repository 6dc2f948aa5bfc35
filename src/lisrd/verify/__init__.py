"""From matches to geometry: robust models, sub-pixel refinement, guided matching, the verdict, alignment."""

from __future__ import annotations

from lisrd.verify.align import RotationScale, align_images, relative_rotation_scale
from lisrd.verify.consistency import filter_by_frames, frame_agreement, reweighted
from lisrd.verify.geometry import Geometry
from lisrd.verify.guided import guided_matches, guided_second_choice
from lisrd.verify.local_affine import Frames
from lisrd.verify.pair_geometry import RefinedGeometry, estimate_refined
from lisrd.verify.refine import Refined, refine
from lisrd.verify.robust import estimate
from lisrd.verify.verdict import Verdict, same_place

__all__ = [
    "Frames",
    "Geometry",
    "Refined",
    "RefinedGeometry",
    "RotationScale",
    "Verdict",
    "align_images",
    "estimate",
    "estimate_refined",
    "filter_by_frames",
    "frame_agreement",
    "guided_matches",
    "guided_second_choice",
    "refine",
    "relative_rotation_scale",
    "reweighted",
    "same_place",
]
