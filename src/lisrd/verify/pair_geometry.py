"""The whole stage for one pair of images: estimate, refine the matches by the model, estimate again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lisrd.errors import InputError
from lisrd.types import ImageLike
from lisrd.verify.geometry import Geometry, Kind
from lisrd.verify.local_affine import Frames
from lisrd.verify.refine import Mode, Refined, refine
from lisrd.verify.robust import Points, estimate


@dataclass(frozen=True, slots=True, eq=False)
class RefinedGeometry:
    """The model of the refined matches, and the refined matches."""

    geometry: Geometry
    refined: Refined


def estimate_refined(
    image0: ImageLike,
    image1: ImageLike,
    points0: Points,
    points1: Points,
    model: Kind = "homography",
    mode: Mode = "auto",
    frames0: Frames | None = None,
    frames1: Frames | None = None,
    **options: Any,
) -> RefinedGeometry:
    """The model of matches moved to where their patches fit; `options` go to `estimate`.

    A homography is estimated first and shows how patches look in image 1. The other models do not tell that, so
    there the neighbouring matches do, or the keypoints' frames where both are given. Where the first estimate
    fails, its answer is returned. Raises what `estimate` and `refine` raise, InputError for "absolute_pose".
    """
    if model == "absolute_pose":
        raise InputError("model 'absolute_pose' has no second image to refine in: use estimate")
    first = estimate(points0, points1, model, **options)
    if not first:
        return RefinedGeometry(first, refine(image0, image1, points0, points1, mode="off"))
    homography = first.model if model == "homography" else None
    refined = refine(image0, image1, points0, points1, frames0, frames1, homography, mode)
    return RefinedGeometry(estimate(points0, refined.points1, model, **options), refined)
