"""The whole stage for one pair of images: from features and their matches to a model that holds to sub-pixels.

In this order, chosen by measurement (docs/geometry.md): estimate, with and without the matches that their
neighbours' scales and orientations contradict; refine the matches by the better model and estimate again; match
again under the model, refine the new matches, and estimate a last time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float

from lisrd.errors import InputError
from lisrd.match import Policy
from lisrd.types import ImageLike, LocalFeatures, Matches
from lisrd.verify.consistency import filter_by_frames
from lisrd.verify.geometry import Geometry, Kind, project
from lisrd.verify.guided import guided_matches, share_moved
from lisrd.verify.local_affine import Frames
from lisrd.verify.match_sets import contained, joined, keep, touching
from lisrd.verify.patches import PreparedImage
from lisrd.verify.refine import Refined, refine, unrefined
from lisrd.verify.robust import estimate
from lisrd.verify.steps import Steps
from lisrd.verify.stopwatch import Stopwatch
from lisrd.verify.verdict import CALIBRATIONS, Verdict, same_place

#: Matches that the model has moved by less, in pixels, are not refined again.
SAME_PLACE = 0.5
#: Guided matching goes on while it moves more than this part of the keypoints, at most so often.
STILL_MOVING, MOST_ROUNDS = 0.1, 5


@dataclass(frozen=True, slots=True, eq=False)
class VerifiedPair:
    """What one pair of images came to, match by match.

    `matches` are the matcher's, less those that guided matching contradicts, and then those that it found, which
    `guided` marks. `points0` are their keypoints, `points1` the refined partners, with a standard deviation per
    axis in `uncertainty` (pixels of image 1) where they are `refined`. `verdict` judges the matcher's matches
    alone: what was searched under a model is no evidence for it. `seconds` are those of the steps.
    """

    geometry: Geometry
    verdict: Verdict
    matches: Matches
    points0: Float[np.ndarray, "S 2"]
    points1: Float[np.ndarray, "S 2"]
    uncertainty: Float[np.ndarray, " S"]
    refined: Bool[np.ndarray, " S"]
    guided: Bool[np.ndarray, " S"]
    seconds: dict[str, float]


def verify_pair(
    image0: ImageLike | PreparedImage | None,
    image1: ImageLike | PreparedImage | None,
    features0: LocalFeatures,
    features1: LocalFeatures,
    matches: Matches,
    model: Kind = "homography",
    steps: Steps = Steps(),
    policy: Policy = Policy(),
    threshold: float = 2.0,
) -> VerifiedPair:
    """The model between two images, from their features (of one image each) and the matches of these.

    Only `refine` looks at the images: without it they may be None. `policy` is that of `matches`; within
    `threshold` pixels a match is an inlier. A pair without a model is an ordinary answer: its `geometry` says why.
    Raises InputError for models other than a homography and a fundamental matrix, for features other than those
    that were matched, for `frames` "on" where a detector gave none, and for images that are missing.
    """
    if model not in CALIBRATIONS:
        raise InputError(f"model {model!r} has no verdict: use {' or '.join(CALIBRATIONS)}, or `estimate`")
    watch = Stopwatch()
    images = None
    if steps.refine != "off":  # once for all refinements
        if image0 is None or image1 is None:
            raise InputError("refining looks at both images: pass them, or Steps(refine='off')")
        images = PreparedImage.of(image0), PreparedImage.of(image1)
        watch.lap("refine")
    features = features0.select(0), features1.select(0)
    counts = features[0].keypoints.shape[1], features[1].keypoints.shape[1]
    if counts != tuple(matches.num_keypoints):
        raise InputError(
            f"matches among {matches.num_keypoints} keypoints, but the features have {counts}: "
            "pass the features that were matched, in the same order"
        )
    return _Stage(images, features, model, steps, policy, threshold, watch).run(matches)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """Matches, where they lie by now, and the model of those that are trusted; the others are never inliers."""

    matches: Matches
    places: Refined
    trusted: Bool[np.ndarray, " S"]
    geometry: Geometry
    refined_under: Geometry | None = None  # the model that the patches were warped by


@dataclass(frozen=True, slots=True)
class _Stage:
    images: tuple[PreparedImage, PreparedImage] | None  # None where nothing is refined
    features: tuple[LocalFeatures, LocalFeatures]
    kind: Kind
    steps: Steps
    policy: Policy
    threshold: float
    watch: Stopwatch = field(default_factory=Stopwatch)

    def run(self, matches: Matches) -> VerifiedPair:
        found = self._tentative(matches)
        verdict = same_place(found.geometry, *self._points(matches))
        self.watch.lap("estimate")
        if found.geometry and self.images:
            found = self._refined(found)
            self.watch.lap("refine")
        if found.geometry and self._guides(verdict):
            found = self._grown(found)
            self.watch.lap("guided")
        return self._answer(found, verdict, guided=~contained(found.matches, matches))

    def _tentative(self, matches: Matches) -> _Found:
        """The first model: of matches whose frames agree, or of all, whichever has more inliers."""
        places, everyone = unrefined(self._points(matches)[1]), np.ones(len(matches), dtype=bool)
        agreeing = self._agreeing(matches)
        candidates = [self._estimated(matches, places, agreeing)]
        if self.steps.frames == "auto" and not agreeing.all():
            candidates.append(self._estimated(matches, places, everyone))
        return max(candidates, key=lambda found: found.geometry.num_inliers)

    def _refined(self, found: _Found) -> _Found:
        places = self._places(found.matches, found.trusted, found.geometry)
        again = replace(self._estimated(found.matches, places, found.trusted), refined_under=found.geometry)
        return again if again.geometry else found

    def _grown(self, found: _Found) -> _Found:
        """Guided until the model is still: one that holds in a corner of the images grows over the rest."""
        for _ in range(MOST_ROUNDS):
            before, found = found.geometry, self._guided(found)
            if share_moved(*self.features, before, found.geometry) <= STILL_MOVING:
                break
        return found

    def _guided(self, found: _Found) -> _Found:
        """The matches under the model, and of the others those whose keypoints these leave free."""
        features0, features1 = self.features
        turn, evidence = found.matches.turn, found.matches.evidence
        under_model = guided_matches(
            features0, features1, found.geometry, self.policy, turn, evidence=evidence
        )
        new = keep(under_model, ~contained(under_model, found.matches))
        matches = joined(found.matches, new)
        trusted = contained(matches, under_model)
        is_new = np.arange(len(matches)) >= len(found.matches)
        known = trusted & ~is_new
        known[~is_new] &= self._still_placed(found)
        places = self._places(matches, trusted & ~known, found.geometry)
        places = places.replaced(known, found.places.keep(known[~is_new]))
        if self.images:  # what the model alone suggests has to look the same as well
            trusted &= places.refined
        kept = trusted | (~is_new & ~touching(matches, trusted))
        again = replace(
            self._estimated(keep(matches, kept), places.keep(kept), trusted[kept]),
            refined_under=found.geometry,
        )
        return again if again.geometry.num_inliers >= found.geometry.num_inliers else found

    def _still_placed(self, found: _Found) -> Bool[np.ndarray, " S"]:
        """The refined matches whose patches the model of now warps as the model did under which they were refined."""
        if self.kind != "homography":  # their frames warp them
            return found.places.refined
        before, now = found.refined_under, found.geometry
        if before is None or before.model is None or now.model is None:
            return np.zeros(len(found.matches), dtype=bool)
        points0, _ = self._points(found.matches)
        moved = np.linalg.norm(project(points0, before.model) - project(points0, now.model), axis=1)
        return found.places.refined & (moved <= SAME_PLACE)

    def _guides(self, verdict: Verdict) -> bool:
        if self.steps.guided == "auto":
            return self.kind == "homography" and verdict.answer != "no"
        return self.steps.guided == "on"

    def _agreeing(self, matches: Matches) -> Bool[np.ndarray, " S"]:
        """The matches that their neighbours' frames do not contradict."""
        frames0, frames1 = self._frames(matches)
        if self.steps.frames == "on" and (frames0 is None or frames1 is None):
            raise InputError(
                "frames is on, but the keypoints have no scale and orientation: use SIFT's, or auto"
            )
        if self.steps.frames == "off":
            return np.ones(len(matches), dtype=bool)
        return filter_by_frames(self._points(matches)[0], frames0, frames1)

    def _places(self, matches: Matches, chosen: Bool[np.ndarray, " S"], geometry: Geometry) -> Refined:
        """Where the partners of all matches lie: refined under the model where they are chosen."""
        points0, points1 = self._points(matches)
        if self.images is None:
            return unrefined(points1)
        frames0, frames1 = self._frames(keep(matches, chosen))
        homography = geometry.model if self.kind == "homography" else None
        moved = refine(
            *self.images,
            points0[chosen],
            points1[chosen],
            frames0,
            frames1,
            homography,
            self.steps.refine,
        )
        return unrefined(points1).replaced(chosen, moved)

    def _estimated(self, matches: Matches, places: Refined, trusted: Bool[np.ndarray, " S"]) -> _Found:
        points0, _ = self._points(matches)
        scores = matches.scores.detach().cpu().numpy()[trusted]
        points = points0[trusted], places.points1[trusted]
        geometry = estimate(*points, self.kind, threshold=self.threshold, scores=scores)
        inliers = np.zeros(len(matches), dtype=bool)
        inliers[trusted] = geometry.inliers
        return _Found(matches, places, trusted, replace(geometry, inliers=inliers))

    def _points(self, matches: Matches) -> tuple[Float[np.ndarray, "S 2"], Float[np.ndarray, "S 2"]]:
        """Pixels of the matched keypoints in image 0 and image 1."""
        places0, places1 = (f.keypoints[0].detach().double().cpu().numpy() for f in self.features)
        index0, index1 = matches.matches.cpu().numpy().T
        return places0[index0], places1[index1]

    def _frames(self, matches: Matches) -> tuple[Frames | None, Frames | None]:
        index0, index1 = matches.matches.cpu().numpy().T
        return _frames_at(self.features[0], index0), _frames_at(self.features[1], index1)

    def _answer(self, found: _Found, verdict: Verdict, guided: Bool[np.ndarray, " S"]) -> VerifiedPair:
        places = found.places
        return VerifiedPair(
            found.geometry,
            verdict,
            found.matches,
            self._points(found.matches)[0],
            places.points1,
            places.uncertainty,
            places.refined,
            guided,
            self.watch.seconds,
        )


def _frames_at(features: LocalFeatures, index: np.ndarray) -> Frames | None:
    if features.scales is None or features.oris is None:
        return None
    scales, oris = (values[0].detach().double().cpu().numpy() for values in (features.scales, features.oris))
    return Frames(scales[index], oris[index])
