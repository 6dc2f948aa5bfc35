"""From matches to geometry: robust models, sub-pixel refinement, guided matching, the verdict, alignment."""

from __future__ import annotations

from lisrd.verify.geometry import Geometry
from lisrd.verify.robust import estimate

__all__ = ["Geometry", "estimate"]
