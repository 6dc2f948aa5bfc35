"""`lisrd match A B`: two photographs in, matches and the reasons for them out."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from torch import Tensor

from lisrd.cli.console import JsonOption, answer, words
from lisrd.errors import InputError
from lisrd.image import as_image, write_image
from lisrd.match import Policy
from lisrd.model import LISRD, MAX_KEYPOINTS, MatchedPair
from lisrd.verify import align_images, estimate, relative_rotation_scale, same_place
from lisrd.verify.geometry import Geometry, Kind
from lisrd.whole_file import whole_file

DescriberOption = Annotated[str, typer.Option(help="Describer: a name, a .safetensors file, or NAME=PATH.")]
DetectorOption = Annotated[str, typer.Option(help="Detector: sift, or a network of kornia's, NAME[=PATH].")]
MaxKeypointsOption = Annotated[int, typer.Option(min=1, help="Keypoints of an image, the strongest.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, float32 or bfloat16, of the network.")]

#: The models in words, for people.
NAMES = {"homography": "homography", "fundamental": "fundamental matrix"}


@dataclass
class Stopwatch:
    """Seconds of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


def match(
    a: Annotated[Path, typer.Argument(help="Image 0.")],
    b: Annotated[Path, typer.Argument(help="Image 1.")],
    describer: DescriberOption = "pyramid",
    detector: DetectorOption = "sift",
    max_keypoints: MaxKeypointsOption = MAX_KEYPOINTS,
    save: Annotated[Path | None, typer.Option(help="Write the matches to this .npz file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the matches into this .png file.")] = None,
    align: Annotated[Path | None, typer.Option(help="Write image 0 warped into image 1, blended.")] = None,
    selection: Annotated[str, typer.Option(help="soft, hard or mean.")] = "soft",
    turn: Annotated[
        str, typer.Option(help="auto, orientations, off, or the quarter turns of image 1.")
    ] = "auto",
    only: Annotated[list[str], typer.Option(help="Use this invariance; may be repeated.")] = [],  # noqa: B006
    forbid: Annotated[list[str], typer.Option(help="Leave this invariance out; may be repeated.")] = [],  # noqa: B006
    prior: Annotated[list[str], typer.Option(help="Favour an invariance: NAME=WEIGHT.")] = [],  # noqa: B006
    ratio: Annotated[float | None, typer.Option(help="Lowe's ratio; off by default.")] = None,
    model: Annotated[str, typer.Option(help="homography or fundamental.")] = "homography",
    threshold: Annotated[float, typer.Option(help="Inlier distance in pixels.")] = 2.0,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "auto",
    json: JsonOption = False,
) -> None:
    """Match two images, say why they matched, and verify the geometry."""
    if model not in ("homography", "fundamental"):
        raise InputError(f"--model is {model!r}; use homography or fundamental")
    policy = Policy(
        selection=selection,  # type: ignore[arg-type]
        turn=int(turn) if turn.isdigit() else turn,  # type: ignore[arg-type]
        only=tuple(only),
        forbid=tuple(forbid),
        prior=_priors(prior),
        ratio=ratio,
    )
    images = as_image(a), as_image(b)
    lisrd = LISRD.from_pretrained(describer, detector, device, precision)  # type: ignore[arg-type]
    watch = Stopwatch()
    pair = _matched(lisrd, images, policy, max_keypoints, watch)
    kind = cast(Kind, model)
    geometry = estimate(pair.points0, pair.points1, kind, threshold=threshold, scores=pair.matches.scores)
    watch.lap("verify")
    if save:
        _save(save, pair, geometry)
    if align:
        _align(align, images, geometry)
    if picture:
        _draw(picture, images, pair, geometry)
    document = {**_document(pair, geometry, picture, watch), **_geometry_document(pair, geometry)}
    answer(document, json, _text(document, geometry, picture))


def _matched(
    lisrd: LISRD, images: tuple[Tensor, Tensor], policy: Policy, max_keypoints: int, watch: Stopwatch
) -> MatchedPair:
    keypoints = [lisrd.detector(image, max_keypoints) for image in images]
    watch.lap("detect")
    features = [lisrd.describer.describe(i, k) for i, k in zip(images, keypoints, strict=True)]
    watch.lap("describe")
    matches = lisrd.match(features[0], features[1], policy)
    watch.lap("match")
    return MatchedPair(features[0], features[1], matches)


def _priors(pairs: list[str]) -> dict[str, float]:
    priors = {}
    for pair in pairs:
        name, _, weight = pair.partition("=")
        try:
            priors[name] = float(weight)
        except ValueError:
            raise InputError(f"--prior {pair}: write NAME=WEIGHT, for instance rot_var_illum_var=2") from None
    return priors


def _save(path: Path, pair: MatchedPair, geometry: Geometry) -> None:
    tensors = {
        "keypoints0": pair.features0.keypoints[0],
        "keypoints1": pair.features1.keypoints[0],
        "matches": pair.matches.matches,
        "scores": pair.matches.scores,
        "invariance_weights": pair.matches.invariance_weights,
    }
    arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    arrays |= {"invariances": np.array(pair.matches.invariances), "inliers": geometry.inliers}
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _draw(path: Path, images: tuple[Tensor, Tensor], pair: MatchedPair, geometry: Geometry) -> None:
    from lisrd.view.plot import draw_matches

    verified = "" if geometry.model is None else NAMES[geometry.kind]
    draw_matches(*images, pair.features0, pair.features1, pair.matches, geometry.inliers, path, verified)


def _align(path: Path, images: tuple[Tensor, Tensor], geometry: Geometry) -> None:
    if geometry.model is None or geometry.kind != "homography":
        words.print(
            f"no homography to align by{': ' + geometry.reason if geometry.reason else ''}", markup=False
        )
        return
    write_image(path, align_images(*images, geometry.model))


def _geometry_document(pair: MatchedPair, geometry: Geometry) -> dict[str, Any]:
    """Whether the images show one place, and by which angle and scale they differ."""
    points0, points1 = pair.points0.cpu().numpy(), pair.points1.cpu().numpy()
    verdict = same_place(geometry, points0, points1)
    document: dict[str, Any] = {
        "verdict": {"answer": verdict.answer, "probability": verdict.probability},
        "rotation": None,
        "scale": None,
    }
    if geometry.model is not None and geometry.kind == "homography":
        width, height = pair.features0.image_size[0].int().tolist()
        inliers = geometry.inliers
        relative = relative_rotation_scale(
            geometry.model, (width, height), points0[inliers], points1[inliers]
        )
        document["rotation"] = {"degrees": relative.angle, "error": _known(relative.angle_error)}
        document["scale"] = {"factor": relative.scale, "error": _known(relative.scale_error)}
    return document


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value  # JSON has no NaN


def _document(
    pair: MatchedPair, geometry: Geometry, picture: Path | None, watch: Stopwatch
) -> dict[str, Any]:
    matches = pair.matches
    means = matches.invariance_weights.mean(0).tolist() if len(matches) else [0.0] * len(matches.invariances)
    homography = geometry.model if geometry.kind == "homography" else None
    return {
        "keypoints0": pair.features0.keypoints.shape[1],
        "keypoints1": pair.features1.keypoints.shape[1],
        "matches": len(matches),
        "inliers": int(np.asarray(geometry.inliers).sum()),
        "homography": None if homography is None else np.asarray(homography).tolist(),
        "fundamental": np.asarray(geometry.model).tolist()
        if geometry.kind == "fundamental" and geometry.model is not None
        else None,
        "reason": geometry.reason,
        "invariance_weights": dict(zip(matches.invariances, means, strict=True)),
        "turn": matches.turn,
        "picture": None if picture is None else str(picture),
        "seconds": watch.seconds,
    }


def _text(document: dict[str, Any], geometry: Geometry, picture: Path | None) -> str:
    weights = "  ".join(f"{name} {value:.2f}" for name, value in document["invariance_weights"].items())
    seconds = "  ".join(f"{name} {value:.2f} s" for name, value in document["seconds"].items())
    found = (
        f"{geometry.kind} with {document['inliers']} inliers" if geometry.model is not None else "no model"
    )
    lines = [
        f"{document['keypoints0']} and {document['keypoints1']} keypoints, {document['matches']} matches, {found}"
        + (f" ({geometry.reason})" if geometry.reason else ""),
        f"image 1 read at {90 * document['turn']} degrees; mean weights: {weights}",
        seconds,
    ]
    verdict = document["verdict"]
    lines.append(f"one place: {verdict['answer']} ({verdict['probability']:.2f})")
    if document["rotation"]:
        degrees, factor = document["rotation"]["degrees"], document["scale"]["factor"]
        lines[-1] += f"; image 1 is turned by {degrees:.1f} degrees clockwise and scaled by {factor:.2f}"
    if picture:
        lines.append(f"picture: {picture}")
    return "\n".join(lines)
