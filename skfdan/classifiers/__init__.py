"""Classifiers on the modality table, one file a published method."""

from skfdan.classifiers.fdan import ALPHA_GRID, WEIGHT_DECAY_GRID, FDANClassifier

__all__ = ["ALPHA_GRID", "WEIGHT_DECAY_GRID", "FDANClassifier"]
