"""Local descriptors with a choice of invariance, made online while two images are matched."""

__version__ = "0.1.0"
