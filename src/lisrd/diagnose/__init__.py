"""Which invariances does a collection need? Read from its features and matches, without looking at the images again."""

from lisrd.diagnose.advice import advice_on
from lisrd.diagnose.collection import Diagnosis, ImageFinding, WeightSummary, diagnose
from lisrd.diagnose.evidence import PairEvidence, pair_evidence
from lisrd.diagnose.rotation import image_angles

__all__ = [
    "Diagnosis",
    "ImageFinding",
    "PairEvidence",
    "WeightSummary",
    "advice_on",
    "diagnose",
    "image_angles",
    "pair_evidence",
]
