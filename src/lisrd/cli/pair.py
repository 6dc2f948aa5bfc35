"""`lisrd match A B`: two photographs in, matches, the reasons for them and the geometry out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from torch import Tensor

from lisrd.cli.console import JsonOption, answer, words
from lisrd.cli.pair_answer import document_of, text_of
from lisrd.cli.policy import (
    ForbidOption,
    OnlyOption,
    PriorOption,
    RatioOption,
    SelectionOption,
    TurnOption,
    build_policy,
)
from lisrd.errors import InputError
from lisrd.image import as_image, write_image
from lisrd.match import Policy
from lisrd.model import LISRD, MAX_KEYPOINTS, MatchedPair
from lisrd.scale_change import verify_at_any_scale
from lisrd.verify import Steps, VerifiedPair, align_images
from lisrd.verify.geometry import Geometry, Kind
from lisrd.verify.steps import Switch
from lisrd.verify.stopwatch import Stopwatch
from lisrd.whole_file import whole_file

DescriberOption = Annotated[str, typer.Option(help="Describer: a name, a .safetensors file, or NAME=PATH.")]
DetectorOption = Annotated[str, typer.Option(help="Detector: sift, or a network of kornia's, NAME[=PATH].")]
MaxKeypointsOption = Annotated[int, typer.Option(min=1, help="Keypoints of an image, the strongest.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, float32 or bfloat16, of the network.")]

#: The models in words, for people.
NAMES = {"homography": "homography", "fundamental": "fundamental matrix"}


def match(
    a: Annotated[Path, typer.Argument(help="Image 0.")],
    b: Annotated[Path, typer.Argument(help="Image 1.")],
    describer: DescriberOption = "pyramid",
    detector: DetectorOption = "sift",
    max_keypoints: MaxKeypointsOption = MAX_KEYPOINTS,
    save: Annotated[Path | None, typer.Option(help="Write the matches to this .npz file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the matches into this .png file.")] = None,
    align: Annotated[Path | None, typer.Option(help="Write image 0 warped into image 1, blended.")] = None,
    selection: SelectionOption = "soft",
    turn: TurnOption = "auto",
    scale: Annotated[
        str,
        typer.Option(
            help="Smaller sizes of the images: off, on, or auto: where they do not match as they are."
        ),
    ] = "auto",
    only: OnlyOption = [],  # noqa: B006
    forbid: ForbidOption = [],  # noqa: B006
    prior: PriorOption = [],  # noqa: B006
    ratio: RatioOption = None,
    model: Annotated[str, typer.Option(help="homography or fundamental.")] = "homography",
    threshold: Annotated[float, typer.Option(help="Inlier distance in pixels.")] = 2.0,
    refine: Annotated[str, typer.Option(help="Matches to sub-pixels: off, on or auto.")] = "auto",
    guided: Annotated[
        bool | None,
        typer.Option("--guided/--no-guided", help="Match again under the model; auto by default."),
    ] = None,
    frames: Annotated[
        str, typer.Option(help="Scales and orientations as evidence: off, on or auto.")
    ] = "auto",
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "auto",
    json: JsonOption = False,
) -> None:
    """Match two images, say why they matched, and verify the geometry."""
    if model not in ("homography", "fundamental"):
        raise InputError(f"--model is {model!r}; use homography or fundamental")
    policy = build_policy(selection, turn, only, forbid, prior, ratio)
    steps = Steps(frames, refine, {None: "auto", True: "on", False: "off"}[guided])  # type: ignore[arg-type]
    images = as_image(a), as_image(b)
    lisrd = LISRD.from_pretrained(describer, detector, device, precision)  # type: ignore[arg-type]
    watch = Stopwatch()
    pair = _matched(lisrd, images, policy, max_keypoints, watch)
    features = pair.features0, pair.features1
    how = cast(Kind, model), steps, policy, threshold, cast(Switch, scale)
    verified = verify_at_any_scale(lisrd.describer, images, features, pair.matches, *how)
    watch.lap("verify")
    if save:
        _save(save, pair, verified)
    if align:
        _align(align, images, verified.geometry)
    if picture:
        _draw(picture, images, pair, verified)
    document = document_of(pair, verified, picture, watch.seconds)
    answer(document, json, text_of(document))


def _matched(
    lisrd: LISRD, images: tuple[Tensor, Tensor], policy: Policy, max_keypoints: int, watch: Stopwatch
) -> MatchedPair:
    keypoints = [lisrd.detector(image, max_keypoints) for image in images]
    watch.lap("detect")
    features = lisrd.describe_pair(images, keypoints)
    watch.lap("describe")
    matches = lisrd.match(*features, policy)
    watch.lap("match")
    return MatchedPair(*features, matches)


def _save(path: Path, pair: MatchedPair, verified: VerifiedPair) -> None:
    tensors = {
        "keypoints0": pair.features0.keypoints[0],
        "keypoints1": pair.features1.keypoints[0],
        "matches": verified.matches.matches,
        "scores": verified.matches.scores,
        "invariance_weights": verified.matches.invariance_weights,
    }
    arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    arrays |= {"invariances": np.array(pair.matches.invariances), "inliers": verified.geometry.inliers}
    arrays |= {
        name: getattr(verified, name) for name in ("points0", "points1", "uncertainty", "refined", "guided")
    }
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _draw(path: Path, images: tuple[Tensor, Tensor], pair: MatchedPair, verified: VerifiedPair) -> None:
    from lisrd.view.plot import draw_matches

    geometry = verified.geometry
    name = NAMES[geometry.kind] if geometry else ""
    features = pair.features0, pair.features1
    draw_matches(*images, *features, verified.matches, geometry.inliers, path, name)


def _align(path: Path, images: tuple[Tensor, Tensor], geometry: Geometry) -> None:
    if geometry.model is None or geometry.kind != "homography":
        words.print(
            f"no homography to align by{': ' + geometry.reason if geometry.reason else ''}", markup=False
        )
        return
    write_image(path, align_images(*images, geometry.model))
