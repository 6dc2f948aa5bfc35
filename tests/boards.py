"""Photographs of a small scene whose cameras are known exactly: a wall, and a tilted board before it."""

from __future__ import annotations

import cv2
import numpy as np
import skimage.data

WIDTH, HEIGHT = 480, 360
K = np.array([[600.0, 0, 239.5], [0, 600.0, 179.5], [0, 0, 1]])

Seen = tuple[np.ndarray, np.ndarray]


def view(T: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) of a camera whose frame is T (4 x 4) of the world's, metres."""
    wall, _ = _board(skimage.data.astronaut(), ([6.4, 0, 0.4], [0, 6.4, 0], [-3.2, -3.2, 5]), T)
    picture, before = _board(skimage.data.coffee(), ([1.8, 0, 0.5], [0, 1.3, -0.3], [-0.9, -0.7, 3]), T)
    return np.where(before[..., None], picture, wall)


def camera(shift: tuple[float, float, float], degrees: tuple[float, float, float]) -> np.ndarray:
    """World to camera: a rotation (about x, y and z) and then a translation."""
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(np.radians(degrees))[0]
    T[:3, 3] = shift
    return T


def _board(texture: np.ndarray, sides: tuple[list[float], list[float], list[float]], T: np.ndarray) -> Seen:
    """A texture on a board given by its right and down sides and its top-left corner, and which pixels show it."""
    to_unit = np.diag([1 / texture.shape[1], 1 / texture.shape[0], 1])
    H = K @ (T[:3, :3] @ np.array(sides).T + np.outer(T[:3, 3], [0, 0, 1])) @ to_unit
    seen = cv2.warpPerspective(texture, H, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
    return seen, cv2.warpPerspective(np.ones(texture.shape[:2], np.uint8), H, (WIDTH, HEIGHT)) > 0
