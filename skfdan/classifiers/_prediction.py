"""Predictions of single rows, from a fitted network."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch.func import functional_call

from skfdan.classifiers._forms import check_rows, missing_cells
from skfdan.classifiers._paths import (
    CHUNK,
    default_transformer,
    first_of,
    join_reports,
    unreadable_file,
)
from skfdan.classifiers._samples import ModalitySamples, Samples, table_samples
from skfdan.nn.fdan import FUSED
from skfdan.preprocessing._failures import empty_report
from skfdan.table import SKIP, as_cells
from skfdan.utils.threads import one_thread

#: Held while a network predicts: some of its weights are exchanged for others then, which a second
#: thread would take for its own, and leave in it for good. One for all networks, as torch's number
#: of threads is one for all too.
_PREDICTING = threading.RLock()

#: Parameters with such names stay in float32 at prediction.
_SINGLE_PRECISION = "backbone"


class PredictionMixin(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """The prediction methods; a row's result never depends on other rows."""

    def _modality_output(self, modality: str, samples: ModalitySamples):
        """Return log-probabilities (n, C) and features (n, d) of single samples."""

        def arguments(chosen: np.ndarray) -> dict:
            x = samples.batch(chosen, self._network_size).to(self.device_)
            return {modality: x, "reference": self._reference(modality)}

        return self._network_output(arguments, len(samples), modality)

    def _embedded_now(self, samples: Samples) -> Samples:
        """Move the network to the device of today, and embed what is frozen."""
        with _PREDICTING:
            self.device_ = self._resolve_device()
            self.module_.to(self.device_).eval()
            return self._embedded(samples)

    def _network_output(self, arguments: Callable[[np.ndarray], dict], n: int, key: str):
        """Return log-probabilities and features that the network gives for ``key``.

        ``arguments`` turns some of n positions into arguments of the network.
        """
        with _PREDICTING:
            return self._compute_output(arguments, n, key)

    def _compute_output(self, arguments: Callable[[np.ndarray], dict], n: int, key: str):
        self.module_.eval()
        # In float32 the sums of a matrix product depend on the number of rows;
        # above the backbone, float64 makes a row's result its own.
        head = {
            name: p.detach().double()
            for name, p in self.module_.named_parameters()
            if not name.startswith(_SINGLE_PRECISION)
        }
        log_proba, features = [], []
        start, size = 0, self.batch_size
        with torch.inference_mode(), one_thread(self._is_small()):
            while start < n:
                chosen = np.arange(start, min(start + size, n))
                try:
                    # Untied: a layer under two names would be exchanged twice, and come back
                    # in float64.
                    out = functional_call(
                        self.module_, head, kwargs=arguments(chosen), tie_weights=False
                    )
                except torch.OutOfMemoryError:
                    if len(chosen) == 1:
                        raise
                    # A row's result does not depend on the others: half of them will do too.
                    size = len(chosen) // 2
                    torch.cuda.empty_cache()
                    continue
                log_proba.append(out.logits[key].log_softmax(1).cpu().numpy())
                features.append(self._features_of(out, key).float().cpu().numpy())
                start += len(chosen)
        return np.concatenate(log_proba), np.concatenate(features)

    def _features_of(self, out, key: str) -> torch.Tensor:
        """Return what ``transform`` gives, of the network's output."""
        return out.layers[key][-1]

    def _outputs(self, X):
        """Average log-probabilities and features over frames and modalities."""
        check_is_fitted(self)
        self._check_choice("predict_modality", (*self._columns, FUSED))
        fused = self.predict_modality == FUSED
        wanted = self._chosen if fused else (self.predict_modality,)
        table = self._as_table(X)
        if table is not None:
            return self._table_outputs(table, wanted)
        samples, n = self._array_samples(X, reset=False)
        samples = {m: s for m, s in samples.items() if m in wanted}
        if not samples:
            raise ValueError(self._no_cell(np.arange(n), n, wanted))
        self._check_cells(samples)
        outputs = self._row_outputs(self._embedded_now(samples), n)
        return self._finite(outputs, np.ones(n, dtype=bool))

    def _table_outputs(self, table: pd.DataFrame, wanted: tuple[str, ...]):
        """Return the outputs of a table's rows, some hundred files at a time."""
        if not len(table):
            raise ValueError("X has no rows, so there is nothing to predict.")
        columns = {m: np.asarray(table[m], dtype=object) for m in self._columns}
        decoders = self._decoders({m: columns[m] for m in wanted})
        self._warn_of_paths(decoders)
        n = len(table)
        skipped = np.any([[cell is SKIP for cell in columns[m]] for m in wanted], axis=0)
        empty = np.all([missing_cells(columns[m]) for m in wanted], axis=0)
        if self.on_error == "raise":
            none = np.all([missing_cells(c) for c in columns.values()], axis=0)
            check_rows(none & ~skipped, self._columns)
            if (empty & ~skipped).any():
                raise ValueError(self._no_cell(np.flatnonzero(empty & ~skipped), n, wanted))
        known = ~empty
        outputs: list[np.ndarray] | None = None
        report = empty_report()
        for start in range(0, n, CHUNK if decoders else n):
            rows = np.arange(start, min(start + CHUNK, n)) if decoders else np.arange(n)
            cells = {m: columns[m][rows] for m in wanted}
            for modality, decoder in decoders.items():
                filled = np.flatnonzero(~missing_cells(cells[modality]))
                if len(filled):
                    arrays, bad = decoder.decode(cells[modality][filled], rows[filled])
                    cells[modality] = as_cells([None] * len(rows))
                    cells[modality][filled] = as_cells(arrays)
                    report = join_reports([report, bad])
            if len(report) and self.on_error == "raise":
                raise unreadable_file(report)
            samples = table_samples(cells, wanted, embedded=self._embedded_as)
            known[rows] = ~np.all([missing_cells(c) for c in cells.values()], axis=0)
            if not samples:
                continue
            self._check_cells(samples)
            parts = self._row_outputs(self._embedded_now(samples), len(rows))
            if outputs is None:
                outputs = [np.full((n, p.shape[1]), np.nan, dtype=p.dtype) for p in parts]
            for whole, part in zip(outputs, parts, strict=True):
                whole[rows] = part
        if outputs is None:
            outputs = [
                np.full((n, len(self.classes_)), np.nan),
                np.full((n, self._n_features_out), np.nan, dtype=np.float32),
            ]
        log_proba, features = self._finite(outputs, known)
        if not known.all():
            self._warn_of_unknown(np.flatnonzero(~known), n, wanted, report)
            counts = np.maximum(self.class_count_, 1e-12)
            log_proba[~known] = np.log(counts / counts.sum())
        return log_proba, features

    def _warn_of_paths(self, modalities) -> None:
        """Warn of files where arrays were learned from, and nobody said what makes such arrays."""
        files = getattr(self, "_read_files", {})  # models of before lack it
        for m in modalities:
            name = f"{m}_transformer"
            if not files.get(m, True) and getattr(self, name) is None:
                warnings.warn(
                    f"{type(self).__name__} was fitted on arrays of {m}, and is given files: they "
                    f"are decoded with {default_transformer(m)!r}. If that is not what made the "
                    "arrays, the predictions mean nothing: send the files through what did, or set "
                    f"{name}= to it.",
                    UserWarning,
                    stacklevel=5,
                )

    def _no_cell(self, rows: np.ndarray, n: int, wanted: tuple[str, ...]) -> str:
        return (
            f"Row {rows[0]} has no {' or '.join(wanted)} cell, which "
            f'predict_modality="{self.predict_modality}" needs ({len(rows)} of {n} rows). With '
            'on_error="missing" such rows get the shares of the classes in the training.'
        )

    def _warn_of_unknown(self, rows: np.ndarray, n: int, wanted, report: pd.DataFrame) -> None:
        what = first_of(report) if len(report) else f"row {rows[0]} is the first"
        warnings.warn(
            f"{type(self).__name__}: {len(rows)} of {n} rows have no usable "
            f"{' or '.join(wanted)} cell; their probabilities are the shares of the classes in the "
            f"training. {what}",
            UserWarning,
            stacklevel=5,
        )

    def _finite(self, outputs, known: np.ndarray):
        """Refuse results that are no numbers: a NaN would become some class unnoticed."""
        log_proba, features = outputs
        # A probability may be 0, its logarithm infinite.
        spoilt = known & np.isnan(log_proba).any(axis=1)
        if spoilt.any():
            raise ValueError(
                f"The network gives NaN for row {int(np.argmax(spoilt))} ({int(spoilt.sum())} of "
                f"{len(known)} rows): its weights or that row's values are beyond what float32 "
                "can hold."
            )
        return log_proba, features

    def _row_outputs(self, samples: Samples, n: int):
        """Return log-probabilities (n, C) and features (n, d) of rows; NaN where no sample is.

        A method that reads the modalities of a row together has its own.
        """
        results, rows = [], []
        for modality, s in samples.items():
            outputs = self._modality_output(modality, s)
            rows.append(np.unique(s.rows))
            results.append([mean_by_row(part, s.rows, n)[rows[-1]] for part in outputs])
        # Of the rows that there are: a NaN is the network's, and must not be taken for a lack.
        there = np.concatenate(rows)
        return tuple(
            mean_by_row(np.concatenate(parts), there, n) for parts in zip(*results, strict=True)
        )

    def decision_function(self, X) -> np.ndarray:
        """Return log-probabilities, averaged over a row's frames and modalities.

        Parameters
        ----------
        X : DataFrame, mapping, ndarray or list
            As in :meth:`fit`; only cells of ``predict_modality`` are read. After a
            training on cells a matrix of numbers is vectors of that modality.

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) with two classes
            With two classes the difference of both, positive for ``classes_[1]``.
        """
        scores, _ = self._outputs(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_log_proba(self, X) -> np.ndarray:
        """Return the logarithm of :meth:`predict_proba`.

        Parameters
        ----------
        X : DataFrame, mapping, ndarray or list
            As in :meth:`decision_function`.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Log-probabilities.
        """
        scores, _ = self._outputs(X)
        return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)

    def predict_proba(self, X) -> np.ndarray:
        """Return the probability of every class.

        Parameters
        ----------
        X : DataFrame, mapping, ndarray or list
            As in :meth:`decision_function`.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Probabilities in the order of ``classes_``.
        """
        return np.exp(self.predict_log_proba(X))

    def predict(self, X) -> np.ndarray:
        """Return the most probable label of every row.

        Parameters
        ----------
        X : DataFrame, mapping, ndarray or list
            As in :meth:`decision_function`.

        Returns
        -------
        ndarray of shape (n,)
            Labels, of the type that ``fit`` saw.
        """
        scores, _ = self._outputs(X)
        return self.classes_[scores.argmax(axis=1)]

    def transform(self, X) -> np.ndarray:
        """Return the features that the classifier layer sees.

        Parameters
        ----------
        X : DataFrame, mapping, ndarray or list
            As in :meth:`decision_function`.

        Returns
        -------
        ndarray of shape (n, bottleneck), float32
            Features of ``predict_modality``, averaged over a row's frames; of
            both modalities together if it is ``"fused"``.
        """
        return self._outputs(X)[1]


def mean_by_row(values: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Average the samples of each row; rows without a sample become NaN."""
    if len(rows) == n and np.array_equal(rows, np.arange(n)):
        return values
    counts = np.bincount(rows, minlength=n).astype(values.dtype)
    out = np.zeros((n, values.shape[1]), dtype=values.dtype)
    np.add.at(out, rows, values)
    out[counts == 0] = np.nan
    return out / np.maximum(counts, 1)[:, None]
