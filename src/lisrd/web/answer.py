"""What the browser gets: one JSON document with everything that the viewer draws and everything to download."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float
from PIL import Image

from lisrd.model import MatchedPair
from lisrd.types import LocalFeatures
from lisrd.verify import VerifiedPair
from lisrd.view.plot import COLOURS
from lisrd.view.tiles import chosen_invariances, tile_weights_of
from lisrd.web.photograph import Photograph
from lisrd.web.request import MatchRequest, label_of

#: Longer side of the photographs that are sent back: a laptop shows each of the two with fewer pixels.
_SHOWN_SIDE = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """All that is known of one pair; `keypoints`, `points`, `model` and `relation` are in pixels of the uploads.

    `pair` has the matches of `verified`, and `points` their refined places.
    """

    photographs: tuple[Photograph, Photograph]
    pair: MatchedPair
    verified: VerifiedPair
    keypoints: tuple[Float[np.ndarray, "N0 2"], Float[np.ndarray, "N1 2"]]
    points: tuple[Float[np.ndarray, "S 2"], Float[np.ndarray, "S 2"]]
    model: Float[np.ndarray, "3 3"] | None
    relation: dict[str, float | None] | None


def as_document(finding: Finding, request: MatchRequest) -> dict[str, Any]:
    """Plain values, ready for JSON. `matches` is by columns; `maps` are mean weights, null where a tile has none."""
    return {
        "settings": {
            "detector": request.detector,
            "describer": request.describer,
            "invariance": request.invariance,
            "turn": request.turn,
            "max_keypoints": request.max_keypoints,
        },
        "notes": _notes(finding, request),
        "verdict": {
            "answer": finding.verified.verdict.answer,
            "probability": finding.verified.verdict.probability,
        },
        "model": {
            "kind": finding.verified.geometry.kind,
            "matrix": None if finding.model is None else finding.model.tolist(),
            "reason": finding.verified.geometry.reason,
        },
        "relation": finding.relation,
        "turn": finding.pair.matches.turn,
        "keypoints": [len(one) for one in finding.keypoints],
        "inliers": finding.verified.geometry.num_inliers,
        "invariances": _invariances(finding),
        "photographs": [_shown(photograph) for photograph in finding.photographs],
        "matches": _matches(finding),
        "maps": _maps(finding),
        "npz": base64.b64encode(_npz(finding)).decode(),
    }


def _notes(finding: Finding, request: MatchRequest) -> list[str]:
    """What the visitor should know before trusting the numbers."""
    notes = []
    for k, photograph in enumerate(finding.photographs, start=1):
        if photograph.is_reduced:
            whole, part = (f"{w} × {h}" for w, h in (photograph.size, photograph.matched_size))
            notes.append(
                f"Photograph {k} is {whole} and was matched as {part}; coordinates are of the original."
            )
    for k, octave in enumerate(finding.pair.matches.octaves, start=1):
        if octave:
            notes.append(
                f"Photograph {k} shows things larger and was described at 1/{1 << octave} of its size."
            )
    full = [len(keypoints) == request.max_keypoints for keypoints in finding.keypoints]
    if any(full):
        which = "Both photographs have" if all(full) else f"Photograph {1 + full.index(True)} has"
        notes.append(f"{which} more keypoints than {request.max_keypoints:,}; the strongest were used.")
    return notes


def _invariances(finding: Finding) -> list[dict[str, Any]]:
    """Name, words, colour, the share of the matches that chose it, and its mean weight."""
    matches = finding.pair.matches
    count = max(1, len(matches))
    chosen = chosen_invariances(matches).bincount(minlength=len(matches.invariances)).tolist()
    mean = (matches.invariance_weights.double().sum(0) / count).tolist()
    return [
        {
            "name": name,
            "label": label_of(name),
            "colour": COLOURS[v % len(COLOURS)],
            "share": chosen[v] / count,
            "mean": mean[v],
        }
        for v, name in enumerate(matches.invariances)
    ]


def _shown(photograph: Photograph) -> dict[str, Any]:
    """A JPEG as a data URL, and the size of the upload, whose pixels all coordinates are."""
    factor = min(1.0, _SHOWN_SIDE / max(photograph.matched_size))
    size = tuple(max(1, round(side * factor)) for side in photograph.matched_size)
    pixels = cv2.resize(photograph.pixels, size, interpolation=cv2.INTER_AREA)
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=82)
    width, height = photograph.size
    url = "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()
    return {"url": url, "width": width, "height": height}


def _matches(finding: Finding) -> dict[str, Any]:
    matches = finding.pair.matches
    return {
        "points0": np.round(finding.points[0], 2).tolist(),
        "points1": np.round(finding.points[1], 2).tolist(),
        "scores": np.round(matches.scores.double().cpu().numpy(), 4).tolist(),
        "weights": np.round(matches.invariance_weights.double().cpu().numpy(), 4).tolist(),
        "inliers": finding.verified.geometry.inliers.tolist(),
    }


def _maps(finding: Finding) -> list[list[list[list[float | None]]]]:
    """Of each image and each invariance the T x T mean weights; empty where there is no choice."""
    matches = finding.pair.matches
    if len(matches.invariances) < 2:
        return []
    both: tuple[LocalFeatures, LocalFeatures] = (finding.pair.features0, finding.pair.features1)
    maps = [tile_weights_of(one, matches.matches[:, side], matches).numpy() for side, one in enumerate(both)]
    return [np.where(np.isnan(one), np.array(None), np.round(one, 4)).tolist() for one in maps]


def _npz(finding: Finding) -> bytes:
    """The arrays of `lisrd match --save`."""
    matches = finding.pair.matches
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        keypoints0=finding.keypoints[0].astype(np.float32),
        keypoints1=finding.keypoints[1].astype(np.float32),
        matches=matches.matches.cpu().numpy(),
        scores=matches.scores.cpu().numpy(),
        invariance_weights=matches.invariance_weights.cpu().numpy(),
        invariances=np.array(matches.invariances),
        inliers=finding.verified.geometry.inliers,
        points0=finding.points[0],
        points1=finding.points[1],
        refined=finding.verified.refined,
        guided=finding.verified.guided,
    )
    return buffer.getvalue()
