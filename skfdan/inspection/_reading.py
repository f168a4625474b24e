"""What displays read: labels, fitted estimators, and the features of each modality."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skfdan.table import MODALITIES, TEXT, is_missing, stack_modalities

if TYPE_CHECKING:
    from skfdan.classifiers.base import ModalityClassifier

__all__ = [
    "check_known",
    "check_labels",
    "features_by_modality",
    "network_classifier",
    "pick_features",
]

Arrays = dict[str, np.ndarray]

#: In the order in which they are shown.
KNOWN = (*MODALITIES, TEXT)


def check_labels(who: str, n: int | None = None, of: str = "X", **columns: Any) -> list[np.ndarray]:
    """Return columns of equal length (or of length n, that ``of`` has) as arrays.

    Raises
    ------
    ValueError
        If a column has another length or shape, is empty, or lacks a value.
    """
    out: list[np.ndarray] = []
    for name, values in columns.items():
        if values is None or isinstance(values, (str, bytes)) or not np.ndim(values):
            raise ValueError(f"{who}: {name} must hold one label a row; got {values!r:.60}.")
        array = np.asarray(values)
        if array.ndim != 1:
            raise ValueError(
                f"{who}: {name} must hold one label a row; it has shape {array.shape}."
            )
        first = next(iter(columns))
        expected, what = (len(out[0]), first) if n is None and out else (n, of)
        if expected is not None and len(array) != expected:
            raise ValueError(f"{who}: {name} has {len(array)} rows, but {what} has {expected}.")
        missing = np.flatnonzero([is_missing(value) for value in array.tolist()])
        if len(missing):
            raise ValueError(
                f"{who}: {name} is missing (NaN or None) in row {missing[0]}; leave out such rows."
            )
        out.append(np.array(array.tolist()) if array.dtype == object else array)
    if out and not len(out[0]):
        raise ValueError(f"{who}: {next(iter(columns))} has no rows.")
    return out


def check_known(who: str, name: str, labels: np.ndarray, known: np.ndarray, whose: str) -> None:
    """Raise a ValueError if a label is not among those known."""
    unknown = sorted(set(labels.tolist()) - set(np.asarray(known).tolist()), key=str)
    if unknown:
        raise ValueError(
            f"{who}: {name} holds {unknown[0]!r}, which is not among {whose} "
            f"{np.asarray(known).tolist()}."
        )


def network_classifier(who: str, estimator: Any) -> tuple[Any, ModalityClassifier]:
    """Return what prepares X (or None) and the fitted network classifier of an estimator."""
    from skfdan.classifiers.base import ModalityClassifier

    estimator = getattr(estimator, "best_estimator_", estimator)
    prepare, clf = None, estimator
    if isinstance(estimator, Pipeline):
        prepare, clf = estimator[:-1], estimator[-1]
        prepare = prepare if len(prepare) else None
    if not isinstance(clf, ModalityClassifier):
        raise TypeError(
            f"{who} takes a classifier of skfdan.classifiers, or a pipeline that ends in one; got "
            f"{type(clf).__name__}."
        )
    check_is_fitted(clf)
    return prepare, clf


def features_by_modality(who: str, estimator: Any, X: Any, y: Any) -> tuple[Arrays, Arrays]:
    """Return features of each modality that X holds, in one space, and their labels.

    They are those of ``transform``. What a joint classifier transforms may hold each modality in
    columns of its own; of such a one, those that its network brings together.
    """
    from skfdan.classifiers._forms import missing_cells, n_dim
    from skfdan.classifiers.joint import JointClassifier

    prepare, clf = network_classifier(who, estimator)
    if "predict_modality" not in clf.get_params(deep=False):
        raise TypeError(
            f"{who}: {type(clf).__name__} gives no features of each modality on its own (it has "
            "no predict_modality); use from_features."
        )
    if isinstance(y, tuple) and len(y) == 2 and all(np.ndim(part) == 1 for part in y):
        cells = [X[m] for m in MODALITIES] if isinstance(X, Mapping) else list(X)
        for modality, part, labels in zip(MODALITIES, cells, y, strict=True):
            check_labels(who, len(part), f"X of {modality}", **{f"y of {modality}": labels})
        visual, audio = zip(cells, y, strict=True)
        X, y, _ = stack_modalities(visual=visual, audio=audio)
    if prepare is not None:
        X = prepare.transform(X)
    # A copy shares the network, and what is to be predicted can be changed on it.
    reader = copy.copy(clf)
    if isinstance(clf, JointClassifier):
        reader._features_of = lambda out, _: _common(who, reader, out)
    table = reader._as_table(X)
    (y,) = check_labels(who, len(X) if table is None else len(table), y=y)
    check_known(who, "y", y, clf.classes_, f"the classes of the {type(clf).__name__}:")
    if table is not None:
        rows = {m: np.flatnonzero(~missing_cells(table[m])) for m in KNOWN if m in clf._specs}
    else:
        matrix = [m for m in KNOWN if clf._as_read(m) is not None] if n_dim(X) == 2 else []
        rows = {m: np.arange(len(y)) for m in matrix or [clf._single()]}
    features, labels = {}, {}
    for modality, chosen in rows.items():
        if not len(chosen):
            continue
        reader.predict_modality = modality
        # Not of the table, where X is one: it lacks the columns of dialogues.
        part = X if table is None else (X if hasattr(X, "iloc") else table).iloc[chosen]
        if isinstance(clf, JointClassifier):
            values = reader._outputs(part)[1]
        else:
            # An array, whatever sklearn.set_config says.
            values = np.asarray(reader.transform(part))
        # Files that could not be read have no features; the classifier has warned of them.
        usable = np.isfinite(values).all(axis=1)
        if usable.any():
            features[modality], labels[modality] = values[usable], y[chosen][usable]
    if not features:
        raise ValueError(
            f"{who}: X has no usable {' or '.join(clf._specs)} cell, of which the "
            f"{type(clf).__name__} could give features."
        )
    return features, labels


def _common(who: str, reader: Any, output: Any) -> Any:
    """Return the features that a display compares, of what the network gave."""
    features = reader._common_features(output, reader.predict_modality)
    if features is None:
        raise TypeError(
            f"{who}: {type(reader).__name__} has no space that its modalities share: each has "
            "columns of its own. Compare features of your choice by from_features."
        )
    return features


def pick_features(
    who: str, features: Any, labels: Any, max_samples: int | None, random_state: Any
) -> tuple[Arrays, Arrays]:
    """Check given features and labels, and take some samples of each modality at random."""
    for name, value in (("features", features), ("labels", labels)):
        if not isinstance(value, Mapping) or not value:
            raise TypeError(
                f"{who}: {name} must map a modality to an array, "
                f'{{"visual": ..., "audio": ...}}; got {type(value).__name__}.'
            )
    unknown = [m for m in features if m not in KNOWN]
    if unknown:
        raise ValueError(
            f"{who}: the modality {unknown[0]!r} is unknown; it is one of {', '.join(KNOWN)}."
        )
    if set(features) != set(labels):
        raise ValueError(
            f"{who}: features are of {', '.join(sorted(features))}, but labels of "
            f"{', '.join(sorted(labels))}."
        )
    if max_samples is not None and max_samples < 1:
        raise ValueError(f"{who}: max_samples={max_samples!r} must be at least 1, or None.")
    rng = check_random_state(random_state)
    out: Arrays = {}
    kept: Arrays = {}
    for modality in (m for m in KNOWN if m in features):
        values = np.asarray(features[modality], dtype=np.float64)
        if values.ndim != 2:
            raise ValueError(
                f"{who}: {modality} features must be a matrix (n, d); they have shape "
                f"{values.shape}."
            )
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values).all(axis=1)))
            raise ValueError(f"{who}: {modality} features of row {row} are NaN or infinite.")
        named = {f"labels of {modality}": labels[modality]}
        (y,) = check_labels(who, len(values), "features", **named)
        if max_samples is not None and len(y) > max_samples:
            chosen = np.sort(rng.choice(len(y), max_samples, replace=False))
            values, y = values[chosen], y[chosen]
        out[modality], kept[modality] = values, y
    widths = {m: values.shape[1] for m, values in out.items()}
    if len(set(widths.values())) > 1:
        have = ", ".join(f"{m} features {width}" for m, width in widths.items())
        raise ValueError(f"{who}: they must lie in one space, but columns differ: {have}.")
    return out, kept
