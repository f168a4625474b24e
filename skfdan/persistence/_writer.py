"""Estimators as JSON and tensors."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skfdan.classifiers.base import ModalityClassifier
from skfdan.persistence._known import (
    CELLS,
    COLUMNS,
    FLOATS,
    LEARNED,
    LOCAL,
    PIPELINE,
    WORDS,
    form,
    known_classes,
)
from skfdan.persistence._network import encode_network
from skfdan.persistence._state import Tensors, encode_state
from skfdan.persistence._values import Unstorable, encode
from skfdan.preprocessing import BackboneEmbedding, FrameEmbedding


class Writer:
    """Turns estimators into JSON, and collects their tensors."""

    def __init__(self):
        self.tensors: Tensors = {}
        #: Values that have to be given again, by their double-underscore names.
        self.omitted: dict[str, Any] = {}

    def estimator(self, estimator: Any, path: str = "") -> dict:
        """Return an estimator as JSON; ``path`` is how ``set_params`` names its parameters."""
        cls = type(estimator)
        if known_classes().get(cls.__name__) is not cls:
            raise TypeError(_refusal(estimator, path))
        if cls is Pipeline:
            params, state = self._pipeline(estimator, path), None
        elif cls is ColumnTransformer:
            params, state = self._columns(estimator, path)
        else:
            if not issubclass(cls, CELLS):
                check_is_fitted(estimator)
            params = {
                name: self._param(cls, name, value, path)
                for name, value in estimator.get_params(deep=False).items()
            }
            state = self._state(estimator, path)
        output = getattr(estimator, "_sklearn_output_config", {}).get("transform")
        return {"class": cls.__name__, "params": params, "state": state, "output": output}

    def _param(self, cls: type, name: str, value: Any, path: str) -> Any:
        if name in LOCAL:
            return None
        if name == "random_state" and isinstance(
            value, (np.random.RandomState, np.random.Generator)
        ):
            return None
        if name == "weights" and value not in (None, "DEFAULT"):
            warnings.warn(
                f"{cls.__name__}: weights={os.fspath(value)!r} is a file of this machine and is "
                "not stored. Predictions and partial_fit of the loaded classifier do not need it; "
                "its fit would start from random weights (weights=None).",
                UserWarning,
                stacklevel=2,
            )
            return None
        if name == "device":
            return str(value)
        if isinstance(value, BaseEstimator):
            return {"@estimator": self.estimator(value, f"{path}{name}__")}
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        try:
            return encode(value)
        except Unstorable as error:
            if not callable(value):
                raise TypeError(
                    f"{cls.__name__}({name}=...) is {error}, which can't be stored without pickle; "
                    "set it to None, numbers, strings, or lists and dicts of these."
                ) from None
        self.omitted[path + name] = value
        return {"@omitted": str(getattr(value, "__name__", type(value).__name__))}

    def _state(self, estimator: Any, path: str) -> dict | None:
        prefix = path.replace("__", ".")
        if isinstance(estimator, ModalityClassifier):
            return encode_network(estimator, prefix, self.tensors)
        if not hasattr(estimator, "n_features_in_"):
            return None
        shape = form(estimator)
        if isinstance(estimator, CELLS):
            return shape
        if getattr(estimator, "add_indicator", False):
            raise TypeError("SimpleImputer(add_indicator=True) can't be stored.")
        learned = {
            name: encode_state(getattr(estimator, name), f"{prefix}{name}", self.tensors)
            for name in LEARNED[type(estimator)]
        }
        # An imputer goes by the type that it was fitted on; scalers know none, and need none.
        dtype = getattr(estimator, "_fit_dtype", np.dtype(float)).newbyteorder("<").str
        return shape | learned | ({} if dtype == FLOATS else {"dtype": dtype})

    def _pipeline(self, pipeline: Pipeline, path: str) -> dict:
        check_is_fitted(pipeline)
        steps = [
            [
                name,
                step if step is None or step in WORDS else self.estimator(step, f"{path}{name}__"),
            ]
            for name, step in pipeline.steps
        ]
        return {"steps": steps} | {
            name: self._param(Pipeline, name, getattr(pipeline, name), path)
            for name in PIPELINE[1:]
        }

    def _columns(self, columns: ColumnTransformer, path: str) -> tuple[dict, dict]:
        check_is_fitted(columns)
        fitted = {name: (step, chosen) for name, step, chosen in columns.transformers_}

        def child(name: str, given: Any) -> Any:
            if isinstance(given, str):
                return given
            return self.estimator(fitted[name][0], f"{path}{name}__")

        transformers = []
        for name, given, chosen in columns.transformers:
            chosen = fitted[name][1] if callable(chosen) else chosen
            transformers.append(
                [name, child(name, given), self._param(ColumnTransformer, "columns", chosen, path)]
            )
        remainder = columns.remainder
        if not isinstance(remainder, str) and "remainder" not in fitted:
            remainder = "drop"  # there was no other column
        params = {"transformers": transformers, "remainder": child("remainder", remainder)}
        params |= {
            name: self._param(ColumnTransformer, name, getattr(columns, name), path)
            for name in COLUMNS[2:]
        }
        return params, form(columns)


def _refusal(estimator: Any, path: str) -> str:
    name = type(estimator).__name__
    where = f"The step {path.removesuffix('__')!r} is {name}, which" if path else name
    if hasattr(estimator, "best_estimator_") or hasattr(estimator, "param_grid"):
        return f"{where} is a search; save its best_estimator_."
    if isinstance(estimator, BackboneEmbedding):
        remedy = (
            "Save the classifier alone, and keep the parameters of the step."
            if isinstance(estimator, FrameEmbedding)
            else "Leave it out and set backbone_trainable=False in the classifier, which is saved "
            "with its backbone."
        )
        return f"{where} can't be saved: the format has no place for its weights. {remedy}"
    return (
        f"{where} can't be saved without pickle. What can: {', '.join(sorted(known_classes()))}, "
        "with parameters that JSON can hold; no subclasses of them."
    )
