"""Estimators from JSON and tensors: by public name, from a fixed list."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from skfdan.classifiers.base import ModalityClassifier
from skfdan.persistence._checks import check_params, is_n_jobs
from skfdan.persistence._format import ModelError, check_keys
from skfdan.persistence._known import (
    CELLS,
    COLUMNS,
    FLOATS,
    LEARNED,
    NODE,
    PIPELINE,
    WORDS,
    form,
    known_classes,
)
from skfdan.persistence._network import decode_network
from skfdan.persistence._state import decode_state
from skfdan.persistence._tensorfile import TensorFile
from skfdan.persistence._values import decode

_MAX_FEATURES = 2**20
#: What a transformer of scikit-learn may have been fitted on.
_DTYPE = re.compile(r"<f[248]|[|<][iu][1248]|\|O", re.ASCII)


class Reader:
    """Turns JSON into estimators.

    Parameters
    ----------
    file : TensorFile
        Their tensors.
    overrides : dict
        Parameters in the place of those stored, by their double-underscore names.
    """

    def __init__(self, file: TensorFile, overrides: dict[str, Any]):
        self._file = file
        self._overrides = overrides
        self.unused = set(overrides)

    def estimator(self, node: Any, path: str = "") -> Any:
        """Return the fitted estimator that a node describes."""
        check_keys(node, NODE, f"the estimator {path.removesuffix('__')!r}")
        name = node["class"]
        cls = known_classes().get(name) if isinstance(name, str) else None
        if cls is None:
            raise ModelError(f"it asks for {name!r:.60}, which is no class that can be stored")
        if cls is Pipeline:
            estimator = self._pipeline(node, path)
        elif cls is ColumnTransformer:
            estimator = self._columns(node, path)
        else:
            estimator = self._single(cls, node, path)
        if node["output"] is not None:
            if node["output"] not in ("default", "pandas", "polars"):
                raise ModelError(f"{name} has the output {node['output']!r:.60}")
            if cls is not ColumnTransformer:
                estimator.set_output(transform=node["output"])
        return estimator

    def _single(self, cls: type, node: dict, path: str) -> Any:
        signature = inspect.signature(cls).parameters
        defaults = {name: p.default for name, p in signature.items()}
        params, given = self._params(cls.__name__, node["params"], tuple(defaults), path)
        if cls not in LEARNED:  # scikit-learn's own check theirs when they are fitted
            check_params(cls.__name__, params, defaults, given)
        estimator, state = cls(**params), node["state"]
        prefix = path.replace("__", ".")
        if isinstance(estimator, ModalityClassifier):
            estimator._check_params()
            if "device" not in given and not _has(estimator.device):
                estimator.device = "auto"
            own_code = {"backbone", "arch"} & given
            decode_network(estimator, state, prefix, self._file, trusted=bool(own_code))
            return estimator
        if isinstance(estimator, CELLS):
            estimator._check_parameters()
            if state is None:
                return estimator
            learned = ("cells",)
        else:
            if isinstance(state, dict):
                state = {"dtype": FLOATS} | state
            learned = ("dtype", *LEARNED[cls])
        check_keys(state, ("n_features_in", "names", *learned), f"the state of {cls.__name__}")
        if learned == ("cells",) and type(state["cells"]) is not bool:
            raise ModelError(f"{cls.__name__} was fitted on {state['cells']!r:.60}")
        # Of a column without any value scikit-learn has learned NaN.
        values = {
            name: decode_state(state[name], f"{prefix}{name}", self._file, finite=False)
            for name in LEARNED.get(cls, ())
        }
        # Before an example of so many columns is fitted, which may take long.
        for name, value in values.items():
            if np.ndim(value) and np.shape(value) != (state["n_features_in"],):
                raise ModelError(f"the {name} of {cls.__name__} has the shape {np.shape(value)}")
        estimator.fit(_example(state, state.get("cells", False)))
        if isinstance(estimator, CELLS):
            if form(estimator) != state:
                raise ModelError(f"{cls.__name__} can't have been fitted on what it says")
            return estimator
        _take_learned(estimator, values)
        return estimator

    def _params(self, name: str, stored: Any, names: tuple, path: str) -> tuple[dict, set]:
        """Return the parameters of an estimator, and which of them whoever loads has given."""
        check_keys(stored, names, f"{name}'s parameters")
        given = {n for n in names if path + n in self._overrides}
        self.unused -= {path + n for n in given}
        missing = [
            f"{path}{n}=... (it was {stored[n]['@omitted']!s:.60})"
            for n in names
            if n not in given and isinstance(stored[n], dict) and list(stored[n]) == ["@omitted"]
        ]
        if missing:
            raise ModelError(
                f"{name} had functions or classes of its user, which are not stored. Give them "
                f"again: load_pretrained(folder, {', '.join(missing)})"
            )
        params = {}
        for n in names:
            value = stored[n]
            if n in given:
                params[n] = self._overrides[path + n]
            elif isinstance(value, dict) and list(value) == ["@estimator"]:
                params[n] = self.estimator(value["@estimator"], f"{path}{n}__")
            else:
                params[n] = decode(value)
        return params, given

    def _pipeline(self, node: dict, path: str) -> Pipeline:
        if node["state"] is not None:
            raise ModelError("a Pipeline has no state of its own")
        check_keys(node["params"], PIPELINE, "Pipeline's parameters")
        steps = []
        for name, step in _named(node["params"]["steps"], 2):
            if not (step is None or step in WORDS):
                step = self.estimator(step, f"{path}{name}__")
            steps.append((name, step))
        rest, _ = self._params(
            "Pipeline", {n: node["params"][n] for n in PIPELINE[1:]}, PIPELINE[1:], path
        )
        if not isinstance(rest["verbose"], (bool, int)) or isinstance(rest["transform_input"], str):
            raise ModelError(f"Pipeline has the parameters {rest!r:.100}")
        return Pipeline(steps, **rest)

    def _columns(self, node: dict, path: str) -> ColumnTransformer:
        params, state = node["params"], node["state"]
        check_keys(params, COLUMNS, "ColumnTransformer's parameters")
        check_keys(state, ("n_features_in", "names"), "the state of ColumnTransformer")

        def child(name: str, value: Any) -> Any:
            return value if value in WORDS else _Fitted(self.estimator(value, f"{path}{name}__"))

        steps = [
            (name, child(name, step), decode(chosen))
            for name, step, chosen in _named(params["transformers"], 3)
        ]
        remainder = child("remainder", params["remainder"])
        rest, given = self._params(
            "ColumnTransformer", {n: params[n] for n in COLUMNS[2:]}, COLUMNS[2:], path
        )
        names = "verbose_feature_names_out"
        if names not in given and not isinstance(rest[names], bool):
            raise ModelError(f"ColumnTransformer({names}={rest[names]!r:.60}) is not possible")
        if "n_jobs" not in given and not is_n_jobs(rest["n_jobs"]):
            raise ModelError(f"ColumnTransformer(n_jobs={rest['n_jobs']!r:.60}) is not possible")
        # No process is started while loading.
        n_jobs = rest.pop("n_jobs")
        columns = ColumnTransformer(steps, remainder=remainder, **rest)
        if node["output"] is not None:
            columns.set_output(transform=node["output"])
        columns.fit(_example(state, False))
        columns.transformers_ = [
            (n, _bare(step), chosen) for n, step, chosen in columns.transformers_
        ]
        columns.transformers = [(n, _template(step), chosen) for n, step, chosen in steps]
        columns.remainder = _template(remainder)
        columns.n_jobs = n_jobs
        return columns


class _Fitted(TransformerMixin, BaseEstimator):
    """Stands in for a fitted transformer while a ColumnTransformer is told its columns.

    Fitted again, the transformer would forget what it has learned, and some read no
    missing cell.
    """

    def __init__(self, fitted):
        self.fitted = fitted

    def __sklearn_clone__(self):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.zeros((len(X), len(self.get_feature_names_out())))

    def get_feature_names_out(self, input_features=None):
        return self.fitted.get_feature_names_out()


def _bare(step: Any) -> Any:
    return step.fitted if isinstance(step, _Fitted) else step


def _template(step: Any) -> Any:
    return clone(step.fitted) if isinstance(step, _Fitted) else step


def _named(entries: Any, n: int) -> list:
    if not isinstance(entries, list) or not entries:
        raise ModelError(f"{entries!r:.60} are no steps")
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != n or not isinstance(entry[0], str):
            raise ModelError(f"{entry!r:.60} is no named step")
    names = [name for name, *_ in entries]
    if len(set(names)) < len(names) or any("__" in name for name in names):
        raise ModelError(f"the steps have the names {names!r:.100}")
    return entries


def _take_learned(estimator: Any, values: dict[str, Any]) -> None:
    """Give a transformer of scikit-learn what it has learned, in the place of an example's."""
    who = type(estimator).__name__
    for name, value in values.items():
        found, own = np.asarray(value), np.asarray(getattr(estimator, name))
        # Of data that lack values, each column may have seen another number of rows.
        several = name == "n_samples_seen_" and found.shape == (estimator.n_features_in_,)
        if found.shape != own.shape and not several:
            raise ModelError(f"the {name} of {who} has the shape {found.shape}")
        kinds = {found.dtype.kind, own.dtype.kind}
        if len(kinds) > 1 and not kinds <= {"i", "u", "f"}:
            raise ModelError(f"the {name} of {who} has the type {found.dtype}")
        # Objects may be numbers too.
        floats = found if found.dtype.kind == "f" else [v for v in found.flat if type(v) is float]
        if np.isinf(floats).any():
            raise ModelError(f"the {name} of {who} holds infinite values")
        setattr(estimator, name, value)


def _example(state: dict, cells: bool) -> Any:
    """Return input of the form that an estimator was fitted on; what it holds says nothing."""
    n, names = state["n_features_in"], state["names"]
    limit = 1 if cells else _MAX_FEATURES
    if type(n) is not int or not 1 <= n <= limit:
        raise ModelError(f"an estimator was fitted on {n!r:.60} columns")
    dtype = state.get("dtype", FLOATS)
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise ModelError(f"an estimator was fitted on the type {dtype!r:.60}")
    if names is None:
        return [None] if cells else np.zeros((2, n), dtype)
    if not isinstance(names, list) or len(names) != n or not all(isinstance(s, str) for s in names):
        raise ModelError(f"an estimator was fitted on the columns {names!r:.60}")
    if cells:
        return pd.DataFrame({names[0]: pd.Series([None], dtype=object)})
    return pd.DataFrame(np.zeros((2, n), dtype), columns=names)


def _has(device: str) -> bool:
    """Tell whether this machine has a device."""
    kind, _, number = device.partition(":")
    if kind in ("auto", "cpu"):
        return True
    if kind == "mps":
        return torch.backends.mps.is_available()
    backend = getattr(torch, kind)
    return backend.is_available() and int(number or 0) < backend.device_count()
