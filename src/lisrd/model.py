"""`LISRD`: a detector and a describer behind the three calls that most users need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.describe import Describer, build_describer
from lisrd.detect import Detector, build_detector
from lisrd.errors import InputError
from lisrd.image import as_image
from lisrd.match import Policy, match
from lisrd.scale_change import verify_at_any_scale
from lisrd.types import ImageLike, Keypoints, LocalFeatures, Matches
from lisrd.verify import Steps, VerifiedPair
from lisrd.verify.steps import Switch

MAX_KEYPOINTS = 2048


@dataclass(frozen=True, slots=True)
class MatchedPair:
    """Features of both images and the matches between them; those of image 0 need no turned descriptors.

    Matches number the keypoints that are no padding, so the features are without (`LocalFeatures.select`).
    """

    features0: LocalFeatures
    features1: LocalFeatures
    matches: Matches

    @property
    def points0(self) -> Float[Tensor, "S 2"]:
        """Pixels of the matches in image 0."""
        return self.features0.keypoints[0, self.matches.matches[:, 0]]

    @property
    def points1(self) -> Float[Tensor, "S 2"]:
        """Pixels of the matches in image 1."""
        return self.features1.keypoints[0, self.matches.matches[:, 1]]


class LISRD:
    """Local features with a choice of invariance.

    >>> model = LISRD.from_pretrained("pyramid")
    >>> pair = model.match_images("day.jpg", "night.jpg")
    >>> pair.points0, pair.points1, pair.matches.invariance_weights
    """

    def __init__(self, describer: Describer, detector: Detector) -> None:
        self.describer = describer
        self.detector = detector

    @classmethod
    def from_pretrained(
        cls,
        name: str = "pyramid",
        detector: str = "sift",
        device: torch.device | str = "cpu",
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
    ) -> LISRD:
        """Weights that come with the package (offline), a `.safetensors` file, or a peer as `aliked-n16=PATH`."""
        found = build_detector(detector)
        return cls(build_describer(name, device, precision), found)

    def describe(
        self,
        image: ImageLike,
        keypoints: Keypoints | Tensor | np.ndarray | None = None,
        max_keypoints: int | None = MAX_KEYPOINTS,
        keep_turns: bool = True,
    ) -> LocalFeatures:
        """Features of an image, or of a batch of images of one size.

        `keypoints` are the caller's own, (N, 2) pixels or a record; without them the detector finds some. `keep_turns`
        keeps the descriptors of the turned image, which the matcher needs to undo quarter turns.

        Raises:
            InputError: images or keypoints that cannot be used; the message says why.
        """
        images = as_image(image)
        if keypoints is None:
            keypoints = self.detector(images, max_keypoints)
        else:
            from lisrd.detect.given import given_keypoints

            keypoints = given_keypoints(keypoints, images.shape[-1], images.shape[-2])
            if len(keypoints) != len(images):
                raise InputError(f"keypoints of {len(keypoints)} images, but {len(images)} to describe")
        return self.describer.describe(images, keypoints, keep_turns)

    def describe_pair(
        self, images: Sequence[Float[Tensor, "1 3 _ _"]], keypoints: Sequence[Keypoints]
    ) -> tuple[LocalFeatures, LocalFeatures]:
        """Features of two images to be matched in this order: the matcher turns image 1, image 0 goes without turns."""
        image0, image1 = images
        keypoints0, keypoints1 = (some.select(0) for some in keypoints)
        features0 = self.describer.describe(image0, keypoints0, keep_turns=False)
        return features0, self.describer.describe(image1, keypoints1)

    def match(self, features0: LocalFeatures, features1: LocalFeatures, policy: Policy = Policy()) -> Matches:
        """See `lisrd.match`."""
        return match(features0, features1, policy)

    def match_images(
        self,
        image0: ImageLike,
        image1: ImageLike,
        policy: Policy = Policy(),
        **describing: int | bool | None,
    ) -> MatchedPair:
        """Detect, describe and match; `describing` goes to `describe`, `keep_turns` for image 1 alone."""
        features0 = self.describe(image0, **(describing | {"keep_turns": False}))  # type: ignore[arg-type]
        features1 = self.describe(image1, **describing)  # type: ignore[arg-type]
        matches = self.match(features0, features1, policy)
        return MatchedPair(features0.select(0), features1.select(0), matches)

    def verify_images(
        self,
        image0: ImageLike,
        image1: ImageLike,
        model: Literal["homography", "fundamental"] = "homography",
        steps: Steps = Steps(),
        policy: Policy = Policy(),
        scale: Switch = "auto",
        **describing: int | bool | None,
    ) -> VerifiedPair:
        """Detect, describe, match, and find the model between the images: see `lisrd.verify.verify_pair`.

        `scale` says when smaller sizes of the images are described too: see `lisrd.scale_change`.
        """
        images = as_image(image0), as_image(image1)
        pair = self.match_images(images[0], images[1], policy, **describing)
        features = pair.features0, pair.features1
        how = model, steps, policy
        return verify_at_any_scale(self.describer, images, features, pair.matches, *how, scale=scale)
