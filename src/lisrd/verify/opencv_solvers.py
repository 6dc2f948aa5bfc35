"""Robust estimation by OpenCV: its plain RANSAC, and USAC with the MSAC or the MAGSAC++ score.

MAGSAC++: Barath et al., "MAGSAC++, a fast, reliable and accurate robust estimator", CVPR 2020.
PROSAC: Chum and Matas, "Matching with PROSAC - progressive sample consensus", CVPR 2005.
"""

from __future__ import annotations

import cv2
import numpy as np

from lisrd.verify.geometry import Kind, Problem

_SCORES = {"magsac": cv2.SCORE_METHOD_MAGSAC, "usac": cv2.SCORE_METHOD_MSAC}
_LOCAL = {"magsac": cv2.LOCAL_OPTIM_SIGMA, "usac": cv2.LOCAL_OPTIM_INNER_AND_ITER_LO}


def solve_usac(kind: Kind, method: str, problem: Problem) -> np.ndarray | None:
    """The model by USAC, `method` "magsac" or "usac"; samples by PROSAC when the problem is ordered."""
    try:
        return _usac(kind, problem, _parameters(method, problem))
    except cv2.error as error:
        # USAC asserts that its samples have a model; those of points that nearly coincide have none.
        if error.code != cv2.Error.StsAssert:
            raise
        return None


def _usac(kind: Kind, problem: Problem, parameters: cv2.UsacParams) -> np.ndarray | None:
    points0, points1 = problem.points0, problem.points1
    if kind == "homography":
        return _first(cv2.findHomography(points0, points1, parameters)[0])
    if kind == "fundamental":
        return _first(cv2.findFundamentalMat(points0, points1, parameters)[0])
    K0, K1 = _intrinsics(problem)
    if kind == "essential":
        return _first(cv2.findEssentialMat(points0, points1, K0, K1, None, None, parameters)[0])
    found, _, rotation, translation, _ = cv2.solvePnPRansac(points0, points1, K1, None, params=parameters)
    return _pose(rotation, translation) if found else None


def solve_ransac(kind: Kind, method: str, problem: Problem) -> np.ndarray | None:
    """The model by OpenCV's classic RANSAC, the baseline: no order of matches, a fixed seed of its own."""
    points0, points1, threshold = problem.points0, problem.points1, problem.threshold
    tries, sure = problem.max_iterations, problem.confidence
    K0, K1 = _intrinsics(problem)
    if kind == "homography":
        found = cv2.findHomography(points0, points1, cv2.RANSAC, threshold, maxIters=tries, confidence=sure)
        return _first(found[0])
    if kind == "fundamental":
        return _first(cv2.findFundamentalMat(points0, points1, cv2.FM_RANSAC, threshold, sure, tries)[0])
    if kind == "essential":
        return _first(
            cv2.findEssentialMat(points0, points1, K0, None, K1, None, cv2.RANSAC, sure, threshold)[0]
        )
    ok, rotation, translation, _ = cv2.solvePnPRansac(
        points0, points1, K1, None, iterationsCount=tries, reprojectionError=threshold, confidence=sure
    )
    return _pose(rotation, translation) if ok else None


def _intrinsics(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    nothing = np.eye(3)  # read by the essential matrix and the pose alone, for which `estimate` asks for them
    K0, K1 = problem.intrinsics0, problem.intrinsics1
    return nothing if K0 is None else K0, nothing if K1 is None else K1


def _parameters(method: str, problem: Problem) -> cv2.UsacParams:
    parameters = cv2.UsacParams()
    parameters.threshold = problem.threshold
    parameters.confidence = problem.confidence
    parameters.maxIterations = problem.max_iterations
    parameters.randomGeneratorState = problem.seed
    parameters.sampler = cv2.SAMPLING_PROSAC if problem.ordered else cv2.SAMPLING_UNIFORM
    parameters.score = _SCORES[method]
    parameters.loMethod = _LOCAL[method]
    return parameters


def _first(model: np.ndarray | None) -> np.ndarray | None:
    # Minimal input can give a stack of solutions, 3 rows each: all of them fit it, any is as good.
    return None if model is None or len(model) < 3 else model[:3]


def _pose(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    return np.hstack([cv2.Rodrigues(rotation)[0], translation.reshape(3, 1)])
