"""What users pass as X and y, brought to samples and labels."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import issparse
from sklearn.utils import assert_all_finite, check_array
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from skfdan.classifiers._forms import (
    check_rows,
    holds_paths,
    is_table,
    missing_cells,
    n_dim,
    path_rows,
    read_table,
)
from skfdan.classifiers._paths import (
    REPORT_COLUMNS,
    Decoder,
    default_transformer,
    first_of,
    join_reports,
    unreadable,
)
from skfdan.classifiers._samples import ModalitySamples, Samples, array_samples, table_samples
from skfdan.nn.fdan import FUSED
from skfdan.preprocessing._failures import empty_report
from skfdan.table import MODALITIES, SKIP, TEXT, as_cells, as_labels, is_missing, make_table


class InputMixin:
    """Reading X and y, in every form that ``fit`` and ``predict`` take."""

    @property
    def _columns(self) -> tuple[str, ...]:
        """The columns in which a row may have a cell; text is one for those who read it."""
        return (*MODALITIES, TEXT) if TEXT in self._chosen else MODALITIES

    @property
    def _chosen(self) -> tuple[str, ...]:
        """The modalities that are read, whatever ``modalities`` was set to after the fit."""
        chosen = self._as_read("modalities")
        return self._modalities if chosen is None else tuple(chosen)

    def _as_read(self, name: str) -> Any:
        """Return a parameter that says what is read of X, as the fit has known it."""
        return vars(self).get("_reads", vars(self)).get(name)

    def _read_X(self, X: Any, *, reset: bool) -> tuple[Samples, int]:
        """Return the samples of each modality that training reads, and the rows of X."""
        table = self._as_table(X)
        if table is not None:
            if reset:
                vars(self).pop("feature_names_in_", None)
                self.n_features_in_ = len(self._columns)
            return self._training_samples(table), len(table)
        return self._array_samples(X, reset=reset)

    def _as_table(self, X: Any) -> pd.DataFrame | None:
        """Return X as a modality table, or None if it is an array of samples or numbers."""
        if X is None:
            raise ValueError("X is None; give a modality table, an array, or X_vis= and X_aud=.")
        if isinstance(X, (str, os.PathLike)):
            raise ValueError(f"X is a single path, {os.fspath(X)!r}; give a list, [{X!r}].")
        if isinstance(X, tuple) and len(X) == 2 and all(n_dim(p) > 1 or holds_paths(p) for p in X):
            X = dict(zip(MODALITIES, X, strict=True))
        elif holds_paths(X):
            X = {self._only_one(): X}
        if issparse(X) or not is_table(X):
            return None
        table = read_table(X, self._single(), self._columns)
        return table.reindex(columns=list(self._columns)).astype(object)

    def _single(self) -> str:
        """Return the modality that X belongs to where it holds just one."""
        if self.predict_modality != FUSED:
            return self.predict_modality
        return "audio" if "audio" in self._chosen else self._chosen[0]

    def _fitted_on_matrix(self) -> bool:
        """Tell whether training saw a flat matrix; otherwise a matrix is one modality's vectors."""
        if any(self._as_read(m) is not None for m in self._columns):
            return True
        return [spec.n_features for spec in self._specs.values()] == [self.n_features_in_]

    def _only_one(self) -> str:
        """Return the modality of an X of cells that is no table."""
        if self.predict_modality == FUSED and len(self._chosen) > 1:
            cells = ", ".join(f"{m}=..." for m in self._chosen)
            number = "both" if len(self._chosen) == 2 else "all"
            raise ValueError(
                f'predict_modality="fused" needs {number} modalities: give a modality table, '
                f"make_table({cells}), not one array."
            )
        return self._single()

    def _array_samples(self, X: Any, *, reset: bool) -> tuple[Samples, int]:
        """Return the samples of an array of cells or of a flat matrix, and its rows."""
        if len(getattr(X, "shape", ())) == 1 and hasattr(X, "to_numpy") and not hasattr(X, "iloc"):
            X = X.to_numpy()  # a column of polars, whose types are its own
        if isinstance(X, (list, tuple)):
            cells = any(is_missing(cell) for cell in X)
        else:
            cells = getattr(X, "ndim", 0) == 1 and getattr(X, "dtype", None) is np.dtype(object)
        if not (reset or cells) and n_dim(X) == 2 and not self._fitted_on_matrix():
            X = self._check_vectors(X)
            cells = True
        if cells or n_dim(X) > 2:
            single = self._only_one()
            samples = array_samples(X, single, "X", self._embedded_as)
            if reset:
                vars(self).pop("feature_names_in_", None)
                self.n_features_in_ = 1
            return {single: samples}, int(samples.rows[-1]) + 1
        X = validate_data(self, X, dtype=np.float32, reset=reset)
        return self._matrix_samples(X, self._single()), len(X)

    def _check_vectors(self, X: Any) -> np.ndarray:
        """Return a matrix as one modality's vectors, which a training on cells may have seen."""
        X = check_array(X, dtype=np.float32, estimator=self, input_name="X")
        spec = self._specs.get(self._only_one())
        if spec is not None and spec.kind == "image":
            raise ValueError(
                f"X is one matrix of shape {X.shape}, but this classifier was fitted on images, "
                "such as spectrograms. A single one is a list: [X]."
            )
        return X

    # ------------------------------------------------------------------ tables

    def _decoders(self, columns: dict[str, np.ndarray]) -> dict[str, Decoder]:
        """Return what decodes the columns of paths, if this classifier takes any."""
        found = {}
        for modality, cells in columns.items():
            name = f"{modality}_transformer"
            # Paths that a classifier does not take are refused, with a hint, where they are read.
            if path_rows(cells, modality) and name in self._get_param_names():
                given = getattr(self, name)
                found[modality] = Decoder(default_transformer(modality) if given is None else given)
        return found

    def _training_samples(self, table: pd.DataFrame) -> Samples:
        """Return the samples of a table; what can't be used goes as ``on_error`` says."""
        if not len(table):
            raise ValueError("X has no rows: it is an empty table.")
        columns = {m: table[m].to_numpy(dtype=object, copy=True) for m in self._columns}
        skipped = np.any([[cell is SKIP for cell in c] for c in columns.values()], axis=0)
        decoders = self._decoders({m: columns[m] for m in self._chosen})
        report = empty_report()
        if self.on_error != "raise":
            for modality, decoder in decoders.items():
                cells = columns[modality]
                rows = np.flatnonzero(~missing_cells(cells))
                bad = unreadable(
                    cells[rows], rows, decoder, what=f"Reading {modality}", verbose=self.verbose
                )
                cells[bad["row"]] = None
                if self.on_error == "skip":
                    skipped[bad["row"]] = True
                report = join_reports([report, bad])
        # Rows of other modalities belong into a table where the class says what is read (other
        # people's faces beside voices); where the user says it, they are an oversight.
        read = self._chosen if hasattr(self, "modalities") else self._columns
        empty = np.all([missing_cells(columns[m]) for m in read], axis=0)
        if self.on_error == "raise":
            check_rows(empty & ~skipped, read)
        self._left_out = skipped if self.on_error == "raise" else skipped | empty
        rows = np.setdiff1d(np.flatnonzero(self._left_out), report["row"])
        unusable = [(int(row), "", "row", "has no usable cell") for row in rows]
        self.report_ = join_reports([report, pd.DataFrame(unusable, columns=REPORT_COLUMNS)])
        if len(self.report_):
            warnings.warn(
                f"{type(self).__name__}: of {len(table)} rows {int(self._left_out.sum())} are left "
                f"out of the training, and {len(report)} files could not be read; see report_. "
                f"{first_of(self.report_)}",
                UserWarning,
                stacklevel=6,
            )
        for cells in columns.values():
            cells[self._left_out] = None
        return table_samples(columns, self._chosen, decoders, self._embedded_as)

    def _matrix_samples(self, X: np.ndarray, single: str) -> Samples:
        """Take the columns of a flat matrix that each modality is made of."""
        specs = {m: self._as_read(m) for m in self._columns if self._as_read(m) is not None}
        if not specs:
            specs = {single: slice(None)}
        rows = np.arange(len(X))
        samples = {}
        for modality, spec in specs.items():
            if isinstance(spec, slice):
                columns = spec  # which copies nothing
            elif not hasattr(spec, "__len__") or isinstance(spec, str):
                raise ValueError(
                    f"{modality}={spec!r} must be a slice, or a list of positions or names of "
                    "columns."
                )
            elif len(spec) and all(isinstance(c, str) for c in spec):
                names = list(getattr(self, "feature_names_in_", ()))
                unknown = [c for c in spec if c not in names]
                if unknown:
                    there = f"X has the columns {names}" if names else "X has columns without names"
                    raise ValueError(f"{modality}= names the column {unknown[0]!r}, but {there}.")
                columns = [names.index(c) for c in spec]
            else:
                try:
                    columns = np.arange(X.shape[1])[np.asarray(spec)]
                except IndexError as error:
                    raise ValueError(
                        f"{modality}={spec!r} does not select columns of X {X.shape}: {error}."
                    ) from None
            cells = X[:, columns]
            if cells.shape[1] == 0:
                raise ValueError(f"{modality}={spec!r} selects no column of X {X.shape}.")
            sequences = self._embedded_as.get(modality) == "sequence"
            samples[modality] = ModalitySamples(cells[:, None] if sequences else cells, rows)
        return samples

    def _read_y(self, y: Any, n: int, name: str = "y") -> np.ndarray:
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None."
            )
        y = column_or_1d(as_labels(y), warn=True)
        if len(y) != n:
            raise ValueError(
                f"{name} has {len(y)} labels but X has {n} rows; every row needs one label."
            )
        missing = np.array([is_missing(v) for v in y], dtype=bool)
        if missing.any() and not self._takes_unlabelled():
            raise ValueError(
                f"{name} is missing (NaN or None) in row {int(np.argmax(missing))}"
                f"{self._unlabelled_hint()}."
            )
        labelled = y[~missing] if missing.any() else y
        if y.dtype == object and (missing.any() or self._takes_unlabelled()):
            labelled = np.array(labelled.tolist())
        if len(labelled) or not len(y):
            assert_all_finite(labelled, input_name=name)
            check_classification_targets(labelled)
        if missing.any():
            y = y.astype(object)
            y[missing] = None
        return y

    def _takes_unlabelled(self) -> bool:
        """Tell whether rows without a label may train."""
        return False

    def _unlabelled_hint(self) -> str:
        """Return how rows without a label could train, to end an error message with."""
        return ""

    def _read_training(self, *args, classes=None, **kwargs) -> tuple[Samples, np.ndarray]:
        """Bring the four forms of ``fit`` to samples and one label a row."""
        samples, y = self._read_forms(*args, **kwargs)
        if self._takes_unlabelled():
            y = hide_minus_one(y, classes)
        read = {m: s for m, s in samples.items() if m in self._chosen}
        if not read:
            raise ValueError(
                f"X has no {' or '.join(self._chosen)} cell, which {type(self).__name__} "
                "learns from."
            )
        return read, y

    def _read_forms(self, X, y, y_true, X_vis, X_aud, y_vis, y_aud, reset):
        self._left_out = None
        self.report_ = empty_report()
        if X_vis is None and X_aud is None and y_true is None and y_vis is None and y_aud is None:
            samples, n = self._read_X(X, reset=reset)
            labels = self._read_y(y, n)
        else:
            if X_vis is None and X_aud is None:
                X_vis, X_aud, y = X, y, y_true
            elif X is not None:
                raise ValueError("Give X or X_vis= and X_aud=, not both.")
            samples, labels = self._read_two(X_vis, X_aud, y, y_vis, y_aud, reset)
        left_out = vars(self).pop("_left_out")
        if left_out is not None and left_out.any():
            labels = labels.astype(object)
            labels[left_out] = None
        return samples, labels

    def _read_two(self, X_vis, X_aud, y, y_vis, y_aud, reset) -> tuple[Samples, np.ndarray]:
        """Return the samples of two arrays, paired or not, and one label a row."""
        if X_vis is None or X_aud is None:
            name, given = ("X_vis", X_aud) if X_vis is None else ("X_aud", X_vis)
            raise ValueError(
                f"{name} is missing: with two arrays both are needed. For one modality alone "
                f"use fit(make_table(...), y); got {type(given).__name__}."
            )
        if isinstance(y, tuple) and len(y) == 2:
            y_vis, y_aud, y = *y, None
        paired = y_vis is None and y_aud is None
        if not paired and (y_vis is None or y_aud is None or y is not None):
            raise ValueError("Unpaired modalities need y_vis= and y_aud=, and no y.")
        on_disk = holds_paths(X_vis) or holds_paths(X_aud)
        if on_disk:
            visual, audio = as_cells(X_vis), as_cells(X_aud)
            n_vis, n_aud = len(visual), len(audio)
        else:
            visual = array_samples(X_vis, "visual", "X_vis", self._embedded_as)
            audio = array_samples(X_aud, "audio", "X_aud", self._embedded_as)
            n_vis, n_aud = int(visual.rows[-1]) + 1, int(audio.rows[-1]) + 1
        if paired and n_vis != n_aud:
            raise ValueError(
                f"X_vis has {n_vis} rows and X_aud {n_aud}. Rows of unpaired modalities have "
                "labels of their own: fit(X_vis, X_aud, y_vis=..., y_aud=...)."
            )
        if on_disk:
            # A table knows what to do with a file that can't be read.
            if not paired:
                visual, audio = [*visual, *[None] * n_aud], [*[None] * n_vis, *audio]
            samples, _ = self._read_X(make_table(visual=visual, audio=audio), reset=reset)
        else:
            if reset:
                vars(self).pop("feature_names_in_", None)
                self.n_features_in_ = len(self._columns)
            if not paired:
                audio.rows = audio.rows + n_vis
            samples = {"visual": visual, "audio": audio}
        if paired:
            return samples, self._read_y(y, n_aud)
        labels = [self._read_y(y_vis, n_vis, "y_vis"), self._read_y(y_aud, n_aud, "y_aud")]
        none = (None, -1) if self._takes_unlabelled() else (None,)
        kinds = [{isinstance(v, str) for v in y.tolist() if v not in none} for y in labels]
        if len(set.union(*kinds)) > 1:
            raise ValueError(
                "y_vis and y_aud are strings and numbers, so no class of one would be one of the "
                f"other; got y_vis[0]={plain(labels[0][0])!r}, y_aud[0]={plain(labels[1][0])!r}: "
                "name the emotions alike in both."
            )
        if self._takes_unlabelled() and len({y.dtype.kind for y in labels}) > 1:
            # Strings beside integers, which may all be -1.
            labels = [y.astype(object) if y.dtype.kind == "i" else y for y in labels]
        return samples, np.concatenate(labels)

    def _know_cells(self, samples: Samples) -> None:
        """Remember what the cells of the training look like, and whether they were files."""
        self._specs = self._measure(samples)
        self._read_files = {m: s.on_disk for m, s in samples.items()}
        self._know_reads()

    def _know_reads(self) -> None:
        """Remember what is read of X: a parameter that is set now is of the next fit."""
        names = (*MODALITIES, TEXT, "modalities")
        self._reads = {name: vars(self)[name] for name in names if name in vars(self)}

    def _check_cells(self, samples: Samples) -> None:
        """Refuse cells of another kind than those of the training."""
        for modality, s in samples.items():
            spec = self._specs.get(modality)
            if spec is None:
                raise ValueError(
                    f"X has {modality} cells, but this classifier was fitted without any; it knows "
                    f"{' and '.join(self._specs)}."
                )
            n = None if s.kind == "image" else s.cells[0].shape[-1]
            if (s.kind, s.kind == "image" and s.uint8, n) != (
                spec.kind,
                spec.uint8,
                spec.n_features,
            ):
                raise ValueError(
                    f"The {modality} cells are {s.cells[0].dtype} of shape {s.cells[0].shape}, but "
                    f"this classifier was fitted on "
                    f"{'bytes' if spec.uint8 else 'floats'} of kind {spec.kind}"
                    f"{'' if spec.n_features is None else f' with {spec.n_features} features'}. "
                    "Send them through the same transformer as in fit."
                )


def hide_minus_one(y: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
    """Return y with None for -1 among integers, where -1 stands for a missing label.

    It is a class if it is among the ``classes``; without them, if y holds just
    one other label, an integer: -1 and 1 are a usual binary pair.
    """
    if y.dtype.kind not in "iO":
        return y
    hidden = y.astype(object)
    integer = np.array([isinstance(label, (int, np.integer)) for label in hidden], dtype=bool)
    missing = integer & (hidden == -1)
    if classes is not None:
        is_class, others = -1 in np.asarray(classes).tolist(), set()
    else:
        others = {label for label in hidden[~missing] if label is not None}
        is_class = len(others) == 1 and bool(integer[hidden == next(iter(others))].all())
    if is_class or not missing.any():
        return y
    numbers = [label for label in others if isinstance(label, (int, np.integer))]
    if others == {0, 1} or min(numbers, default=0) < -1:
        warnings.warn(
            f"y holds -1 in {missing.sum()} of {len(y)} rows, which this adaptation takes for "
            "rows without a label. If -1 is a class, such as negative valence, name the classes "
            "in words; if it is none, None says so without this warning.",
            UserWarning,
            stacklevel=5,
        )
    hidden[missing] = None
    return hidden


def encode(y: np.ndarray, classes: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted classes and a class index a row, -1 where there is no label (None)."""
    labelled = np.ones(len(y), dtype=bool)
    labels = y
    if y.dtype == object:
        labelled = np.array([label is not None for label in y], dtype=bool)
        if not labelled.all():
            labels = np.array(y[labelled].tolist())
    if classes is None:
        classes = np.unique(labels)
    unknown = np.setdiff1d(labels, classes)
    if len(unknown):
        raise ValueError(
            f"y holds the label {plain(unknown[0])!r}, which is not among the classes "
            f"{np.asarray(classes).tolist()}; give the first partial_fit all of them as classes=."
        )
    encoded = np.full(len(y), -1)
    encoded[labelled] = np.searchsorted(classes, labels)
    return classes, encoded


def plain(label: Any) -> Any:
    """Return a label as the user wrote it, not as a NumPy scalar."""
    return label.item() if isinstance(label, np.generic) else label
