"""Selecting features: iterative neighborhood component analysis."""

from .inca import INCASelector
from .nca import nca_weights
from .pipeline import inca_leaky_cross_val_predict, make_inca_pipeline

__all__ = ["INCASelector", "inca_leaky_cross_val_predict", "make_inca_pipeline", "nca_weights"]
