"""Whole collections of images: features, pairs and matches in files that resume and survive being killed."""

from lisrd.scale.extract import ExtractReport, extract
from lisrd.scale.layout import names_to_pair, read_features, read_matches
from lisrd.scale.match_pairs import MatchReport, match_pairs
from lisrd.scale.pairs import (
    exhaustive_pairs,
    image_names,
    read_pairs,
    sequential_pairs,
    similar_pairs,
    write_pairs,
)
from lisrd.scale.ray_engine import RayEngine
from lisrd.scale.work import LocalEngine

__all__ = [
    "ExtractReport",
    "LocalEngine",
    "MatchReport",
    "RayEngine",
    "exhaustive_pairs",
    "extract",
    "image_names",
    "match_pairs",
    "names_to_pair",
    "read_features",
    "read_matches",
    "read_pairs",
    "sequential_pairs",
    "similar_pairs",
    "write_pairs",
]
