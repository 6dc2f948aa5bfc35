"""Matching: online selection of the invariance, exact mutual nearest neighbours."""

from lisrd.match.matcher import match, match_batch
from lisrd.match.policy import Policy

__all__ = ["Policy", "match", "match_batch"]
