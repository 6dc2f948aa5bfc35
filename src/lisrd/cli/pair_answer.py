"""What `lisrd match` says about a pair: the JSON document, and the same in words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lisrd.model import MatchedPair
from lisrd.verify import RotationScale, VerifiedPair, relative_rotation_scale


def document_of(
    pair: MatchedPair, verified: VerifiedPair, picture: Path | None, seconds: dict[str, float]
) -> dict[str, Any]:
    """Counts, the model, what the selection chose, the verdict, and by how much the images are turned and scaled."""
    matches, geometry = verified.matches, verified.geometry
    means = matches.invariance_weights.mean(0).tolist() if len(matches) else [0.0] * len(matches.invariances)
    model = None if geometry.model is None else geometry.model.tolist()
    return {
        "keypoints0": pair.features0.keypoints.shape[1],
        "keypoints1": pair.features1.keypoints.shape[1],
        "matches": len(matches),
        "inliers": geometry.num_inliers,
        "refined": int(verified.refined.sum()),
        "guided": int(verified.guided.sum()),
        "homography": model if geometry.kind == "homography" else None,
        "fundamental": model if geometry.kind == "fundamental" else None,
        "reason": geometry.reason,
        "invariance_weights": dict(zip(matches.invariances, means, strict=True)),
        "turn": matches.turn,
        "octaves": list(matches.octaves),
        "picture": None if picture is None else str(picture),
        "seconds": seconds,
        "seconds_verify": verified.seconds,
        "verdict": {"answer": verified.verdict.answer, "probability": verified.verdict.probability},
        **_turned_and_scaled(pair, verified),
    }


def _turned_and_scaled(pair: MatchedPair, verified: VerifiedPair) -> dict[str, Any]:
    geometry = verified.geometry
    if geometry.model is None or geometry.kind != "homography":
        return {"rotation": None, "scale": None}
    width, height = pair.features0.image_size[0].int().tolist()
    inliers = verified.points0[geometry.inliers], verified.points1[geometry.inliers]
    relative: RotationScale = relative_rotation_scale(geometry.model, (width, height), *inliers)
    return {
        "rotation": {"degrees": relative.angle, "error": _known(relative.angle_error)},
        "scale": {"factor": relative.scale, "error": _known(relative.scale_error)},
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value  # JSON has no NaN


def text_of(document: dict[str, Any]) -> str:
    """The document in a few lines."""
    weights = "  ".join(f"{name} {value:.2f}" for name, value in document["invariance_weights"].items())
    lines = [
        f"{document['keypoints0']} and {document['keypoints1']} keypoints, {_matches_in_words(document)}",
        f"image 1 read at {90 * document['turn']:g} degrees{_sizes_in_words(document)}; mean weights: {weights}",
        "  ".join(f"{name} {value:.2f} s" for name, value in document["seconds"].items()),
        _verdict_in_words(document),
    ]
    if document["picture"]:
        lines.append(f"picture: {document['picture']}")
    return "\n".join(lines)


def _sizes_in_words(document: dict[str, Any]) -> str:
    sizes = [
        f"image {k} at 1/{1 << octave} of its size" for k, octave in enumerate(document["octaves"]) if octave
    ]
    return "".join(f", {size}" for size in sizes)


def _matches_in_words(document: dict[str, Any]) -> str:
    kind = next((name for name in ("homography", "fundamental") if document[name] is not None), None)
    matches = f"{document['matches']} matches"
    if document["guided"]:
        matches += f" ({document['guided']} of them found under the model)"
    model = f"{kind} with {document['inliers']} inliers" if kind else "no model"
    reason = f" ({document['reason']})" if document["reason"] else ""
    return f"{matches}, {model}{reason}"


def _verdict_in_words(document: dict[str, Any]) -> str:
    verdict = document["verdict"]
    line = f"one place: {verdict['answer']} ({verdict['probability']:.2f})"
    if document["rotation"] and verdict["answer"] != "no":  # of a model by chance nobody wants the angle
        degrees, factor = document["rotation"]["degrees"], document["scale"]["factor"]
        sense = "counter-clockwise" if degrees < 0 else "clockwise"
        line += f"; image 1 is turned by {abs(degrees):.1f} degrees {sense} and scaled by {factor:.2f}"
    return line
