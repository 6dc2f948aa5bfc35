"""Local descriptors with a choice of invariance, made online while two images are matched."""

from lisrd.match import Policy, match
from lisrd.model import LISRD, MatchedPair
from lisrd.types import Keypoints, LocalFeatures, Matches

__version__ = "0.1.0"

__all__ = ["LISRD", "Keypoints", "LocalFeatures", "MatchedPair", "Matches", "Policy", "__version__", "match"]
