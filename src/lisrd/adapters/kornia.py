"""Features and matches as the dictionaries of LightGlue and kornia, and describers as modules of kornia's kind.

    extractor, matcher = Extractor(describer, detector), Matcher()
    features0, features1, matches01 = match_pair(extractor, matcher, "day.jpg", "night.jpg")
    points0 = features0["keypoints"][matches01["matches"][:, 0]]

Any extractor and matcher of LightGlue's interface fits `match_pair` as well. kornia's frames become keypoints by
`lisrd.detect.lafs.keypoints_from_lafs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from lisrd.describe import Describer
from lisrd.detect import Detector
from lisrd.detect.lafs import keypoints_from_lafs
from lisrd.errors import InputError
from lisrd.image import as_image
from lisrd.match import Policy, match_batch
from lisrd.types import ImageLike, LocalFeatures, Matches

FeatureDictionary = dict[str, Any]


def features_to_dictionary(features: LocalFeatures) -> FeatureDictionary:
    """LightGlue's keys keypoints (B, N, 2), descriptors (B, N, V*D), keypoint_scores (B, N) and image_size (B, 2),
    and what our own matcher needs: the other fields of `LocalFeatures` by their names."""
    others = {f.name: getattr(features, f.name) for f in fields(LocalFeatures)}
    return {
        **{name: value for name, value in others.items() if value is not None},
        "descriptors": features.flat(),
    }


def features_from_dictionary(dictionary: Mapping[str, Any]) -> LocalFeatures:
    """What `features_to_dictionary` made, batched.

    Raises:
        InputError: a dictionary of another extractor, which has no meta descriptors.
    """
    needed = [f.name for f in fields(LocalFeatures) if f.default is MISSING]
    missing = [name for name in needed if name not in dictionary]
    if missing:
        raise InputError(
            f"features without {', '.join(missing)}; this matcher needs those of lisrd.adapters.kornia.Extractor"
        )
    num_invariances = len(dictionary["selection"].invariances)
    descriptors = dictionary["descriptors"].unflatten(2, (num_invariances, -1)) * num_invariances**0.5
    known = {f.name: dictionary[f.name] for f in fields(LocalFeatures) if f.name in dictionary}
    return LocalFeatures(**{**known, "descriptors": descriptors})


def matches_to_dictionary(matches: list[Matches]) -> dict[str, Any]:
    """LightGlue's answer for a batch of pairs.

    matches0 (B, N0) and matches1 (B, N1) are partners or -1, matching_scores0 and matching_scores1 their similarities
    or 0; `matches` (S, 2), `scores` (S,) and `invariance_weights` (S, V) are lists with one entry per pair. Batches of
    images with different numbers of keypoints are padded.
    """
    padded = [m.padded() for m in matches]
    scores = [_scores_per_keypoint(m) for m in matches]
    stack = nn.utils.rnn.pad_sequence
    return {
        "matches0": stack([p[0] for p in padded], batch_first=True, padding_value=-1),
        "matches1": stack([p[1] for p in padded], batch_first=True, padding_value=-1),
        "matching_scores0": stack([s[0] for s in scores], batch_first=True),
        "matching_scores1": stack([s[1] for s in scores], batch_first=True),
        "matches": [m.matches for m in matches],
        "scores": [m.scores for m in matches],
        "invariance_weights": [m.invariance_weights for m in matches],
    }


@runtime_checkable
class FeatureExtractor(Protocol):
    """What LightGlue's extractors offer."""

    def extract(self, img: Any) -> FeatureDictionary: ...


@runtime_checkable
class FeatureMatcher(Protocol):
    """What LightGlue is: a dictionary of two dictionaries in, matches out."""

    def __call__(self, data: dict[str, FeatureDictionary]) -> dict[str, Any]: ...


def match_pair(
    extractor: FeatureExtractor, matcher: FeatureMatcher, image0: ImageLike, image1: ImageLike
) -> tuple[FeatureDictionary, FeatureDictionary, dict[str, Any]]:
    """Features of both images and their matches, without the axis of the batch."""
    features0, features1 = (extractor.extract(as_image(image)) for image in (image0, image1))
    matches01 = matcher({"image0": features0, "image1": features1})
    return _first(features0), _first(features1), _first(matches01)


class Extractor(nn.Module):
    """A detector and a describer with the interface of LightGlue's extractors."""

    def __init__(
        self, describer: Describer, detector: Detector, max_num_keypoints: int | None = 2048
    ) -> None:
        super().__init__()
        self.describer = describer
        self.detector = detector
        self.max_num_keypoints = max_num_keypoints

    def forward(self, data: Mapping[str, Tensor]) -> FeatureDictionary:
        """Features of `data["image"]`, (B, 3, H, W) in [0, 1]."""
        images = as_image(data["image"])
        keypoints = self.detector(images, self.max_num_keypoints)
        return features_to_dictionary(self.describer.describe(images, keypoints))

    def extract(self, img: ImageLike) -> FeatureDictionary:
        """Features of an image in its own size: nothing is resized."""
        return self({"image": as_image(img)})


class Matcher(nn.Module):
    """Online selection with the interface of LightGlue."""

    def __init__(self, policy: Policy = Policy()) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, data: Mapping[str, FeatureDictionary]) -> dict[str, Any]:
        """See `matches_to_dictionary`; `data` holds the features "image0" and "image1"."""
        features0 = features_from_dictionary(data["image0"])
        features1 = features_from_dictionary(data["image1"])
        return matches_to_dictionary(match_batch(features0, features1, self.policy))


class LAFDescriber(nn.Module):
    """A describer in the place of `kornia.feature.LAFDescriptor`, for instance in `kornia.feature.LocalFeature`."""

    def __init__(self, describer: Describer) -> None:
        super().__init__()
        self.describer = describer

    def forward(
        self, img: Float[Tensor, "B C H W"], lafs: Float[Tensor, "B N 2 3"]
    ) -> Float[Tensor, "B N VD"]:
        """Flat unit descriptors at the frames; those of kornia's padding mean nothing."""
        return self.describer.describe(as_image(img), keypoints_from_lafs(lafs), False).flat()


def _scores_per_keypoint(matches: Matches) -> tuple[Float[Tensor, " N0"], Float[Tensor, " N1"]]:
    sides = []
    for side, count in enumerate(matches.num_keypoints):
        scores = matches.scores.new_zeros(count)
        scores[matches.matches[:, side]] = matches.scores
        sides.append(scores)
    return sides[0], sides[1]


def _first(dictionary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value[0] if isinstance(value, Tensor | list) else value for name, value in dictionary.items()
    }
