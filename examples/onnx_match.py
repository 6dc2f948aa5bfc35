"""Match two photographs with the files of `lisrd export-onnx`: numpy, onnxruntime and OpenCV, no torch.

python onnx_match.py DESCRIBER.onnx MATCHER.onnx IMAGE0 IMAGE1 [--picture OUT.png]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import onnxruntime


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit(f"{path} is no image that OpenCV can read")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def detect(image: np.ndarray, max_keypoints: int) -> tuple[np.ndarray, np.ndarray]:
    """SIFT keypoints, the strongest first: (1, N, 2) pixels, (0, 0) a pixel's centre; (1, N) scores."""
    sift = cv2.SIFT.create(contrastThreshold=0.01, enable_precise_upscale=True)
    found = sift.detect(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    first: dict[tuple[float, float], cv2.KeyPoint] = {}
    for keypoint in sorted(found, key=lambda keypoint: -keypoint.response):
        first.setdefault(
            keypoint.pt, keypoint
        )  # a position with several orientations gives several keypoints
    kept = list(first.values())[:max_keypoints]
    xy = np.array([keypoint.pt for keypoint in kept], np.float32).reshape(1, -1, 2)
    return xy, np.array([[keypoint.response for keypoint in kept]], np.float32)


def describe(
    session: onnxruntime.InferenceSession, image: np.ndarray, max_keypoints: int
) -> dict[str, np.ndarray]:
    """Everything that the matcher asks of an image, by name."""
    keypoints, scores = detect(image, max_keypoints)
    images = image.transpose(2, 0, 1)[None].astype(np.float32) / 255
    outputs = session.run(None, {"images": images, "keypoints": keypoints})
    names = [output.name for output in session.get_outputs()]
    return {"keypoints": keypoints, "keypoint_scores": scores, **dict(zip(names, outputs, strict=True))}


def match(
    session: onnxruntime.InferenceSession, features0: dict[str, np.ndarray], features1: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """`matches` (S, 2), `scores` (S,), `invariance_weights` (S, V), and the quarter `turn` of image 1."""
    both = {f"{name}0": value for name, value in features0.items()}
    both |= {f"{name}1": value for name, value in features1.items()}
    wanted = [argument.name for argument in session.get_inputs()]
    outputs = session.run(None, {name: both[name] for name in wanted})
    return dict(zip([output.name for output in session.get_outputs()], outputs, strict=True))


def verify(points0: np.ndarray, points1: np.ndarray) -> tuple[np.ndarray | None, int]:
    """The homography from image 0 to image 1, None without one, and its inliers."""
    if len(points0) < 4:
        return None, 0
    homography, mask = cv2.findHomography(points0, points1, cv2.USAC_MAGSAC, 2.0)
    return homography, 0 if homography is None else int(mask.sum())


def draw(path: Path, images: list[np.ndarray], points0: np.ndarray, points1: np.ndarray) -> None:
    """The images side by side, a line for each match."""
    canvas = np.zeros((max(len(i) for i in images), sum(i.shape[1] for i in images), 3), np.uint8)
    left = images[0].shape[1]
    canvas[: len(images[0]), :left], canvas[: len(images[1]), left:] = images
    for (x0, y0), (x1, y1) in zip(points0.astype(int), points1.astype(int), strict=True):
        cv2.line(canvas, (int(x0), int(y0)), (int(x1) + left, int(y1)), (90, 220, 90), 1, cv2.LINE_AA)
    cv2.imwrite(str(path), cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("describer", type=Path)
    parser.add_argument("matcher", type=Path)
    parser.add_argument("images", type=Path, nargs=2, metavar="IMAGE")
    parser.add_argument("--max-keypoints", type=int, default=2048)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    describer, matcher = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in (options.describer, options.matcher)
    )
    images = [read_image(path) for path in options.images]
    features0, features1 = (describe(describer, image, options.max_keypoints) for image in images)
    found = match(matcher, features0, features1)
    index0, index1 = found["matches"].T
    points0, points1 = features0["keypoints"][0, index0], features1["keypoints"][0, index1]
    homography, inliers = verify(points0, points1)
    if options.picture:
        draw(options.picture, images, points0, points1)
    invariances = json.loads(matcher.get_modelmeta().custom_metadata_map["selection"])["invariances"]
    means = found["invariance_weights"].mean(0) if len(points0) else np.zeros(len(invariances))
    answer = {
        "keypoints0": features0["keypoints"].shape[1],
        "keypoints1": features1["keypoints"].shape[1],
        "matches": len(points0),
        "inliers": inliers,
        "turn": found["turn"].item(),
        "invariance_weights": dict(zip(invariances, means.tolist(), strict=True)),
        "homography": None if homography is None else homography.tolist(),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
