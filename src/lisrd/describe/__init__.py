"""Describing keypoints: networks, SIFT and banks behind one protocol."""

from lisrd.describe.describer import DESCRIBERS, Describer, build_describer

__all__ = ["DESCRIBERS", "Describer", "build_describer"]
