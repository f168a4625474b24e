"""A saved model that predicts files, and says which it could not read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import _safe_indexing

from skfdan.classifiers._paths import default_transformer
from skfdan.classifiers.base import ModalityClassifier
from skfdan.cli._shared import NOUNS
from skfdan.datasets._base import AUDIO_SUFFIXES, IMAGE_SUFFIXES
from skfdan.persistence import ModelError, load_pretrained
from skfdan.preprocessing._base import CellTransformer
from skfdan.preprocessing.mel import AudioTransformer
from skfdan.table import MODALITIES, make_table

#: Files that are decoded before any of them is predicted.
CHUNK = 256
#: So many files are worth the start of processes that may crash or be stopped; the rule of the
#: transformers themselves.
_MANY, _SECONDS = 100, 60.0


class Predictor:
    """A model, and what of a clip it reads.

    Parameters
    ----------
    folder : str
        The model.
    modality : {"audio", "visual", "fused"} or None
        None is what the model was saved with.
    jobs : int
        Files decoded at a time.
    """

    def __init__(self, folder: str, modality: str | None, jobs: int):
        where = folder if folder.startswith("hf://") else Path(folder).expanduser()
        model = load_pretrained(where)
        *steps, self.classifier = (
            [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]
        )
        if not isinstance(self.classifier, ModalityClassifier):
            raise ModelError(
                f"{folder!r} holds a {type(model).__name__} and no classifier at its end."
            )
        if not steps:
            # It decoded paths itself, or never saw any.
            own = vars(self.classifier)
            columns = [
                (m, own.get(f"{m}_transformer") or default_transformer(m), [m]) for m in MODALITIES
            ]
            steps = [ColumnTransformer(columns).fit(make_table(visual=[None], audio=[None]))]
        self.prepare = make_pipeline(*steps)
        self.transformers = list(_cell_transformers(self.prepare))
        for transformer in self.transformers:
            transformer.set_params(on_error="missing", n_jobs=jobs)
        first = steps[0]
        self._column = None
        if isinstance(first, CellTransformer):
            self._column = "audio" if isinstance(first, AudioTransformer) else "visual"
        self._choose(modality)

    def _choose(self, modality: str | None) -> None:
        clf = self.classifier
        if modality is not None and modality != clf.predict_modality:
            if "predict_modality" not in clf.get_params():
                raise ValueError(f"--modality {modality}: a {type(clf).__name__} has no choice.")
            clf.set_params(predict_modality=modality)
        self.modality = clf.predict_modality
        wanted = MODALITIES if self.modality == "fused" else (self.modality,)
        known = tuple(clf._specs)
        self.wanted = tuple(m for m in wanted if m in known)
        if not self.wanted or (modality is not None and len(self.wanted) < len(wanted)):
            raise ValueError(
                f"--modality {self.modality}: the model has learned from {known[0]} cells "
                f"alone; give --modality {known[0]}."
            )

    @property
    def noun(self) -> str:
        """What it reads of a clip."""
        return " or ".join(NOUNS[m] for m in self.wanted)

    @property
    def classes(self) -> list[str]:
        """Emotions."""
        return [str(label) for label in self.classifier.classes_]

    def files(self, files: Sequence[str]) -> tuple[np.ndarray, list[str | None]]:
        """Predict some files; see :meth:`table`."""
        visual, audio = list(files), list(files)
        if self.modality == "fused":
            # A file that can be but one of both shall not be refused as the other.
            suffixes = [Path(file).suffix.lower() for file in files]
            pairs = list(zip(files, suffixes, strict=True))
            visual = [None if suffix in AUDIO_SUFFIXES else file for file, suffix in pairs]
            audio = [None if suffix in IMAGE_SUFFIXES else file for file, suffix in pairs]
        return self.table(make_table(visual=visual, audio=audio))

    def table(self, table: pd.DataFrame) -> tuple[np.ndarray, list[str | None]]:
        """Predict the rows of a table of paths, at most ``CHUNK`` at a time.

        Parameters
        ----------
        table : DataFrame of shape (n, 2)
            Modality table.

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes)
            NaN in the rows that could not be read.
        errors : list of length n
            What is wrong with a row, or None.
        """
        table = table.reset_index(drop=True)
        for m in MODALITIES:
            if m not in self.wanted:
                table[m] = None
        n_cells = table.notna().sum(axis=1)
        for transformer in self.transformers:
            transformer.set_params(timeout=_SECONDS if len(table) >= _MANY else None)
        with warnings.catch_warnings():
            # What they warn of is in their reports, which end up in the errors here.
            warnings.simplefilter("ignore", UserWarning)
            X = table if self._column is None else table[[self._column]]
            prepared = self.prepare.transform(X)
        reasons: dict[int, list[str]] = {}
        for transformer in self.transformers:
            for row, reason in transformer.report_[["row", "reason"]].itertuples(index=False):
                reasons.setdefault(row, []).append(reason)
        errors: list[str | None] = []
        for row in range(len(table)):
            found = reasons.get(row, [])
            if not n_cells[row]:
                found = [f"the clip has no {self.noun}"]
            errors.append("; ".join(found) if len(found) >= max(1, n_cells[row]) else None)
        good = np.array([i for i, error in enumerate(errors) if error is None], dtype=int)
        probabilities = np.full((len(table), len(self.classes)), np.nan)
        if len(good):
            probabilities[good] = self.classifier.predict_proba(_safe_indexing(prepared, good))
        return probabilities, errors


def _cell_transformers(estimator: Any) -> Iterator[CellTransformer]:
    """Find what decodes cells, as far as it was fitted."""
    if isinstance(estimator, CellTransformer):
        yield estimator
    elif isinstance(estimator, Pipeline):
        for _, step in estimator.steps:
            yield from _cell_transformers(step)
    elif isinstance(estimator, ColumnTransformer):
        for _, transformer, _ in estimator.transformers_:
            yield from _cell_transformers(transformer)


def chunks(items: Iterator[str]) -> Iterator[list[str]]:
    """Collect what comes, some hundred at a time."""
    chunk: list[str] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
