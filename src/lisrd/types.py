"""The records that travel between the stages: immutable, batched, moved between devices as a whole.

Letters of the shapes, here and everywhere: B images, N keypoints, V invariances (descriptors per keypoint),
D values in a descriptor, T tiles per side, C values in a meta descriptor, S matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

#: What the public functions accept as an image; `lisrd.image.as_image` turns each into a tensor.
ImageLike = str | Path | Image.Image | np.ndarray | Tensor


TileSampling = Literal["bilinear", "nearest", "reference"]

_R = TypeVar("_R", bound="_Record")


class _Record:
    """Moving a record moves every tensor in it."""

    __slots__ = ()

    def to(self: _R, *args: Any, **kwargs: Any) -> _R:
        """Like `torch.Tensor.to`; integer and boolean tensors keep their dtype."""
        moved = {}
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                tensor = value.to(*args, **kwargs)
                moved[f.name] = tensor if value.is_floating_point() else tensor.to(value.dtype)
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints(_Record):
    """What a detector found: pixels as in `lisrd.coordinates`, the strongest first."""

    xy: Float[Tensor, "B N 2"]
    scores: Float[Tensor, "B N"]
    mask: Bool[Tensor, "B N"]
    scales: Float[Tensor, "B N"] | None = None  # diameter of the described area, pixels (cv2.KeyPoint.size)
    oris: Float[Tensor, "B N"] | None = None  # radians, from x towards y (cv2.KeyPoint.angle)

    @classmethod
    def from_xy(cls, xy: Float[Tensor, "*B N 2"]) -> Keypoints:
        """Keypoints of the caller's own, all of score 1; (N, 2) is a batch of one."""
        xy = xy.unsqueeze(0) if xy.ndim == 2 else xy
        return cls(xy, torch.ones_like(xy[..., 0]), torch.ones_like(xy[..., 0], dtype=torch.bool))

    def __len__(self) -> int:
        return self.xy.shape[0]

    def select(self, index: int) -> Keypoints:
        """Image `index` of the batch, still batched, without its padding."""
        return _unpadded(self, index)


@dataclass(frozen=True, slots=True)
class Selection:
    """How the matcher weighs the V descriptors of one describer; stored with its weights.

    `temperature` divides the similarity of the meta descriptors before the softmax (1 is the paper's), `bias` is
    added to it, one number per invariance. `rotation_variant` marks the descriptors that exist in turns.
    `tile_sampling` says how a keypoint takes the meta descriptors of the tiles around it: "bilinear", "nearest" (its
    own tile's: LISRD-SIFT), or "reference" (bilinear in the released code's convention, see `lisrd.coordinates`).
    `agreement_power` times the logarithm of the share of distinct mutual nearest neighbours that an invariance has over
    the pair is added as well (`lisrd.match.agreement`); 0 is the paper's formula. `agreement_ratio` is Lowe's ratio of
    distances that makes them distinct.
    """

    invariances: tuple[str, ...]
    temperature: float = 1.0
    bias: tuple[float, ...] | None = None
    rotation_variant: tuple[bool, ...] | None = None
    tile_sampling: TileSampling = "bilinear"
    agreement_power: float = 0.0
    agreement_ratio: float = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class LocalFeatures(_Record):
    """Keypoints with V unit descriptors each, and the unit meta descriptors of the T x T tiles of the image."""

    keypoints: Float[Tensor, "B N 2"]
    keypoint_scores: Float[Tensor, "B N"]
    descriptors: Float[Tensor, "B N V D"]
    meta_descriptors: Float[Tensor, "B V T T C"]
    image_size: Float[Tensor, "B 2"]  # (width, height)
    mask: Bool[Tensor, "B N"]
    selection: Selection
    scales: Float[Tensor, "B N"] | None = None
    oris: Float[Tensor, "B N"] | None = None
    # The R rotation variant descriptors at the other quarters, or eighths, of a turn: what the image turned
    # counter-clockwise, as `torch.rot90` turns it, would give.
    turned_descriptors: Float[Tensor, "B N turned R D"] | None = None
    turned_meta_descriptors: Float[Tensor, "B turned R T T C"] | None = None

    def __len__(self) -> int:
        return self.keypoints.shape[0]

    @property
    def invariances(self) -> tuple[str, ...]:
        return self.selection.invariances

    def flat(self) -> Float[Tensor, "B N VD"]:
        """One unit descriptor per keypoint for plain nearest-neighbour tools: uniform fusion of the V."""
        return self.descriptors.flatten(2) / self.descriptors.shape[2] ** 0.5

    def select(self, index: int) -> LocalFeatures:
        """Image `index` of the batch, still batched, without its padding."""
        return _unpadded(self, index)


@dataclass(frozen=True, slots=True, eq=False)
class Matches(_Record):
    """Mutual nearest neighbours of one image pair, and why they matched."""

    matches: Int[Tensor, "S 2"]  # indices into the keypoints of image 0 and image 1, those of `mask` alone
    scores: Float[Tensor, " S"]  # weighted similarity, at most 1
    invariance_weights: Float[Tensor, "S V"]  # what each invariance contributed; rows sum to 1
    num_keypoints: tuple[int, int]
    invariances: tuple[str, ...]
    turn: float = 0  # quarter turns by which image 1 was read, see `torch.rot90`; of eight turns, halves too
    octaves: tuple[int, int] = (0, 0)  # each image was read at 1 / 2^octave of its size
    evidence: Float[Tensor, " V"] | None = None  # for each invariance by the pair as a whole, as logits

    def __len__(self) -> int:
        return self.matches.shape[0]

    def padded(self) -> tuple[Int[Tensor, " N0"], Int[Tensor, " N1"]]:
        """LightGlue's form: `matches0[i]` is the partner of keypoint i of image 0, or -1; and `matches1`."""
        index0, index1 = self.matches.unbind(1)
        matches0 = self.matches.new_full((self.num_keypoints[0],), -1)
        matches1 = self.matches.new_full((self.num_keypoints[1],), -1)
        matches0[index0] = index1
        matches1[index1] = index0
        return matches0, matches1

    def keep(self, chosen: Bool[Tensor, " S"] | Int[Tensor, " K"]) -> Matches:
        """The chosen matches alone."""
        return replace(
            self,
            matches=self.matches[chosen],
            scores=self.scores[chosen],
            invariance_weights=self.invariance_weights[chosen],
        )


@dataclass(frozen=True, slots=True, eq=False)
class ImagePair:
    """Two images with what is known about them; the ground truth is absent in use."""

    image0: ImageLike
    image1: ImageLike
    name: str = ""
    H_0to1: Float[Tensor, "3 3"] | None = None
    tags: dict[str, Any] = field(default_factory=dict)


_PER_KEYPOINT = frozenset(
    (
        "xy",
        "scores",
        "mask",
        "scales",
        "oris",
        "keypoints",
        "keypoint_scores",
        "descriptors",
        "turned_descriptors",
    )
)


def _unpadded(record: Any, index: int) -> Any:
    mask = record.mask[index]
    if mask.all():  # nothing to remove, and descriptors are large
        mask = slice(None)
    chosen = {}
    for f in fields(record):
        value = getattr(record, f.name)
        if isinstance(value, Tensor):
            one = value[index]
            chosen[f.name] = (one[mask] if f.name in _PER_KEYPOINT else one).unsqueeze(0)
    return replace(record, **chosen)


def stack_keypoints(singles: Sequence[Keypoints]) -> Keypoints:
    """Batches of one, padded to the longest and stacked; padding lies at (0, 0) with `mask` false."""
    longest = max((k.xy.shape[1] for k in singles), default=0)

    def padded(name: str) -> Tensor | None:
        values = [getattr(k, name) for k in singles]
        if any(v is None for v in values):
            return None
        missing = [longest - v.shape[1] for v in values]
        return torch.cat(
            [
                torch.cat([v, v.new_zeros((1, m, *v.shape[2:]))], 1)
                for v, m in zip(values, missing, strict=True)
            ]
        )

    return Keypoints(**{f.name: padded(f.name) for f in fields(Keypoints)})  # type: ignore[arg-type]
