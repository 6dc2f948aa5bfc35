"""One request from its photographs to its answer; runs in a worker process."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.coordinates import warp_points
from lisrd.image import as_image
from lisrd.model import LISRD, MatchedPair
from lisrd.scale_change import verify_at_any_scale
from lisrd.verify import Geometry, Steps, VerifiedPair, relative_rotation_scale
from lisrd.web.answer import Finding, as_document
from lisrd.web.limits import Limits
from lisrd.web.photograph import Photograph, read_photograph
from lisrd.web.request import MatchRequest

NAMES = ("photograph 1", "photograph 2")


class Models(Protocol):
    """Gives the model of a detector and a describer by their offered names."""

    def __call__(self, detector: str, describer: str) -> LISRD: ...


def answer(request: MatchRequest, models: Models, limits: Limits) -> dict[str, Any]:
    """The answer as plain values, see `lisrd.web.answer`. Every coordinate is a pixel of the upload.

    Raises:
        InputError: a photograph that cannot be used; the message names it.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "read"):
        photographs = tuple(
            read_photograph(path, name, limits) for path, name in zip(request.photographs, NAMES, strict=True)
        )
        model = models(request.detector, request.describer)
    images = as_image(photographs[0].pixels), as_image(photographs[1].pixels)
    pair = _matched(model, images, request, seconds)
    with _timed(seconds, "verify"):
        features = pair.features0, pair.features1
        how = request.model, Steps(), request.policy
        verified = verify_at_any_scale(model.describer, images, features, pair.matches, *how)
    finding = _finding(photographs, MatchedPair(*features, verified.matches), verified)
    return {**as_document(finding, request), "seconds": seconds}


def _matched(
    model: LISRD, images: tuple[Tensor, Tensor], request: MatchRequest, seconds: dict[str, float]
) -> MatchedPair:
    with _timed(seconds, "detect"):
        keypoints = [model.detector(image, request.max_keypoints) for image in images]
    with _timed(seconds, "describe"):
        features = model.describe_pair(images, keypoints)
    with _timed(seconds, "match"):
        matches = model.match(*features, request.policy)
    return MatchedPair(*features, matches)


def _finding(photographs: tuple[Photograph, ...], pair: MatchedPair, verified: VerifiedPair) -> Finding:
    """Keypoints and model are carried to the uploads; the verdict's numbers hold for the matched copies."""
    geometry = verified.geometry
    to0, to1 = (photograph.to_upload for photograph in photographs)
    keypoints0 = warp_points(pair.features0.keypoints[0].double().cpu(), to0).numpy()
    keypoints1 = warp_points(pair.features1.keypoints[0].double().cpu(), to1).numpy()
    refined0, refined1 = (torch.from_numpy(places) for places in (verified.points0, verified.points1))
    points = warp_points(refined0, to0).numpy(), warp_points(refined1, to1).numpy()
    model = None if geometry.model is None else _carried(geometry, to0, to1)
    return Finding(
        photographs=(photographs[0], photographs[1]),
        pair=pair,
        verified=verified,
        keypoints=(keypoints0, keypoints1),
        points=points,
        model=model,
        relation=_relation(model, geometry, points, photographs[0].size),
    )


def _carried(geometry: Geometry, to0: Tensor, to1: Tensor) -> Float[np.ndarray, "3 3"]:
    """The model between the uploads from the one between their copies."""
    model = torch.from_numpy(np.asarray(geometry.model))
    if geometry.kind == "homography":
        carried = to1 @ model @ torch.linalg.inv(to0)
        return (carried / carried[2, 2]).numpy()
    carried = torch.linalg.inv(to1).T @ model @ torch.linalg.inv(to0)
    return (carried / torch.linalg.norm(carried)).numpy()


def _relation(
    model: np.ndarray | None, geometry: Geometry, points: tuple[np.ndarray, np.ndarray], size: tuple[int, int]
) -> dict[str, float | None] | None:
    """Angle (degrees, clockwise) and scale of image 1 against image 0, where a homography tells."""
    if model is None or geometry.kind != "homography":
        return None
    points0, points1 = (one[geometry.inliers] for one in points)
    found = relative_rotation_scale(model, size, points0, points1)
    numbers = {
        "angle": found.angle,
        "angle_error": found.angle_error,
        "scale": found.scale,
        "scale_error": found.scale_error,
    }
    return {name: None if math.isnan(value) else value for name, value in numbers.items()}  # JSON has no NaN


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
