"""Predictions of single rows, from a fitted network."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch.func import functional_call

from skfdan.classifiers._samples import ModalitySamples, Samples
from skfdan.table import MODALITIES
from skfdan.utils.threads import one_thread

#: Parameters with such names stay in float32 at prediction.
_SINGLE_PRECISION = "backbone"


class PredictionMixin(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """The prediction methods; a row's result never depends on other rows."""

    def _modality_output(self, modality: str, samples: ModalitySamples):
        """Return log-probabilities (n, C) and features (n, d) of single samples."""

        def batches():
            reference = self._reference(modality)
            for start in range(0, len(samples), self.batch_size):
                chosen = np.arange(start, min(start + self.batch_size, len(samples)))
                x = samples.batch(chosen, self.input_size).to(self.device_)
                yield {modality: x, "reference": reference}

        return self._network_output(batches(), modality)

    def _network_output(self, batches: Iterable[dict], key: str):
        """Return log-probabilities and features that the network gives for ``key``.

        ``batches`` are arguments of the network.
        """
        self.device_ = self._resolve_device()
        self.module_.to(self.device_).eval()
        # In float32 the sums of a matrix product depend on the number of rows;
        # above the backbone, float64 makes a row's result its own.
        head = {
            name: p.detach().double()
            for name, p in self.module_.named_parameters()
            if not name.startswith(_SINGLE_PRECISION)
        }
        log_proba, features = [], []
        with torch.inference_mode(), one_thread(self._is_small()):
            for kwargs in batches:
                out = functional_call(self.module_, head, kwargs=kwargs)
                log_proba.append(out.logits[key].log_softmax(1).cpu().numpy())
                features.append(out.layers[key][-1].float().cpu().numpy())
        return np.concatenate(log_proba), np.concatenate(features)

    def _outputs(self, X):
        """Average log-probabilities and features over frames and modalities."""
        check_is_fitted(self)
        self._check_choice("predict_modality", (*MODALITIES, "fused"))
        samples, n = self._read_X(X, reset=False, training=False)
        fused = self.predict_modality == "fused"
        wanted = MODALITIES if fused else (self.predict_modality,)
        samples = {m: s for m, s in samples.items() if m in wanted}
        covered = np.zeros(n, dtype=bool)
        for s in samples.values():
            covered[s.rows] = True
        if not covered.all():
            raise ValueError(
                f"Row {int(np.argmin(covered))} has no {' or '.join(wanted)} cell, which "
                f'predict_modality="{self.predict_modality}" needs '
                f"({int((~covered).sum())} of {n} rows)."
            )
        self._check_cells(samples)
        return self._row_outputs(samples, n)

    def _row_outputs(self, samples: Samples, n: int):
        """Return log-probabilities (n, C) and features (n, d) of rows; NaN where no sample is.

        A method that reads the modalities of a row together has its own.
        """
        results = []
        for modality, s in samples.items():
            log_proba, features = self._modality_output(modality, s)
            results.append((mean_by_row(log_proba, s.rows, n), mean_by_row(features, s.rows, n)))
        if len(results) == 1:
            return results[0]
        # Rows that lack a modality are NaN there; every row has at least one.
        return tuple(np.nanmean(np.stack(part), axis=0) for part in zip(*results, strict=True))

    def decision_function(self, X) -> np.ndarray:
        """Return log-probabilities, averaged over a row's frames and modalities.

        Parameters
        ----------
        X : DataFrame, mapping, ndarray or list
            As in :meth:`fit`; only cells of ``predict_modality`` are read.

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
