"""The estimators that can be stored, and what of scikit-learn's is."""

from __future__ import annotations

from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import skfdan.classifiers
import skfdan.preprocessing
from skfdan.classifiers.base import ModalityClassifier
from skfdan.preprocessing import TextEmbedding
from skfdan.preprocessing._base import CellTransformer

#: scikit-learn's transformers whose few learned arrays are stored.
LEARNED = {
    StandardScaler: ("mean_", "var_", "scale_", "n_samples_seen_"),
    MinMaxScaler: ("min_", "scale_", "data_min_", "data_max_", "data_range_", "n_samples_seen_"),
    SimpleImputer: ("statistics_",),
}
#: The type of the data that they were fitted on, unless it is stored.
FLOATS = "<f8"
#: Parameters of compositions; ``memory`` and others that may come are left at their defaults.
PIPELINE = ("steps", "transform_input", "verbose")
COLUMNS = (
    "transformers",
    "remainder",
    "sparse_threshold",
    "n_jobs",
    "transformer_weights",
    "verbose",
    "verbose_feature_names_out",
)
WORDS = ("drop", "passthrough")
#: Parameters that belong to a machine or a session and not to a model.
LOCAL = ("cache_dir", "checkpoint_dir", "callbacks")
#: Transformers of cells, which learn nothing but the form of their input.
CELLS = (CellTransformer, TextEmbedding)
NODE = ("class", "params", "state", "output")


def known_classes() -> dict[str, type]:
    """Return the classes that can be stored, by name."""
    found = {cls.__name__: cls for cls in (Pipeline, ColumnTransformer, *LEARNED)}
    for package in (skfdan.classifiers, skfdan.preprocessing):
        for name in package.__all__:
            cls = getattr(package, name)
            if isinstance(cls, type) and issubclass(cls, (ModalityClassifier, *CELLS)):
                found[name] = cls
    return found


def form(estimator: Any) -> dict:
    """Return what a fitted estimator knows of its input."""
    names = getattr(estimator, "feature_names_in_", None)
    known = {
        "n_features_in": int(estimator.n_features_in_),
        "names": None if names is None else names.tolist(),
    }
    if isinstance(estimator, CELLS):
        # Those that take no matrix do not say so.
        known["cells"] = getattr(estimator, "input_is_cells_", True)
    return known
