"""Describing keypoints: networks, SIFT and banks behind one protocol."""

from lisrd.describe.describer import DESCRIBERS, build_describer
from lisrd.describe.protocol import Describer

__all__ = ["DESCRIBERS", "Describer", "build_describer"]
