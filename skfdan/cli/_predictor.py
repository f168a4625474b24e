"""A saved model that predicts files, and says which it could not read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import _safe_indexing

from skfdan.classifiers._paths import default_transformer
from skfdan.classifiers.base import ModalityClassifier
from skfdan.cli._shared import NOUNS
from skfdan.datasets._base import AUDIO_SUFFIXES, IMAGE_SUFFIXES
from skfdan.nn.fdan import FUSED
from skfdan.persistence import ModelError, load_pretrained
from skfdan.preprocessing._base import _MANY_FILES, _SECONDS, CellTransformer
from skfdan.preprocessing.mel import SoundTransformer
from skfdan.table import MODALITIES, make_table

#: Files that are decoded before any of them is predicted.
CHUNK = 256


class Answer(NamedTuple):
    """What a model makes of one clip.

    Attributes
    ----------
    probabilities : ndarray of shape (n_classes,)
        NaN if nothing of the clip could be read.
    error : str or None
        Why nothing could be read.
    used : tuple of str
        The cells that were read: "visual", "audio" or both.
    left_out : dict of str to str
        Why a cell of the clip was not read.
    """

    probabilities: np.ndarray
    error: str | None
    used: tuple[str, ...]
    left_out: dict[str, str]


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
    seconds : float or None
        Time that each file may take; None limits it where there are many.
    """

    def __init__(self, folder: str, modality: str | None, jobs: int, seconds: float | None = None):
        self.seconds = seconds
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
            columns = [(m, _decoder(self.classifier, m, folder), [m]) for m in MODALITIES]
            steps = [ColumnTransformer(columns).fit(make_table(visual=[None], audio=[None]))]
        self.prepare = make_pipeline(*steps)
        self.transformers = list(_cell_transformers(self.prepare))
        for transformer in self.transformers:
            transformer.set_params(on_error="missing", n_jobs=jobs)
        first = steps[0]
        self._column = None
        if isinstance(first, CellTransformer):
            self._column = _modality(first)
        self.choose(modality)

    def choose(self, modality: str | None) -> None:
        """Read these cells from now on; None stays with those of before.

        Raises
        ------
        ValueError
            If the model can't.
        """
        clf = self.classifier
        if modality is not None and modality != clf.predict_modality:
            if "predict_modality" not in clf.get_params():
                raise ValueError(f"--modality {modality}: a {type(clf).__name__} has no choice.")
            clf.set_params(predict_modality=modality)
        self.modality = clf.predict_modality
        wanted = MODALITIES if self.modality == FUSED else (self.modality,)
        known = tuple(clf._specs)
        self.wanted = tuple(m for m in wanted if m in known)
        if not self.wanted or (modality is not None and len(self.wanted) < len(wanted)):
            raise ValueError(
                f"--modality {self.modality}: the model has learned from {known[0]} cells "
                f"alone; give --modality {known[0]}."
            )

    @property
    def choices(self) -> list[str]:
        """What :meth:`choose` takes."""
        clf = self.classifier
        if "predict_modality" not in clf.get_params():
            return [clf.predict_modality]
        known = [m for m in ("audio", "visual") if m in clf._specs]
        return [*known, FUSED] if len(known) == 2 else known

    @property
    def noun(self) -> str:
        """What it reads of a clip."""
        return " or ".join(NOUNS[m] for m in self.wanted)

    @property
    def classes(self) -> list[str]:
        """Emotions."""
        return [str(label) for label in self.classifier.classes_]

    def files(
        self, files: Sequence[str]
    ) -> tuple[np.ndarray, list[str | None], dict[tuple[str, int], str]]:
        """Predict some files; see :meth:`table`."""
        return self.table(self._as_table(files))

    def file(self, file: str) -> Answer:
        """Predict one file as :meth:`files` does, and tell what was read of it."""
        table = self._as_table([file])
        p, [error], reports = self._predict(table)
        left_out = {m: "; ".join(found[0]) for m, found in reports.items() if found}
        used = tuple(m for m in self.wanted if table[m][0] is not None and m not in left_out)
        return Answer(p[0], error, () if error else used, left_out)

    def _as_table(self, files: Sequence[str]) -> pd.DataFrame:
        visual, audio = list(files), list(files)
        if self.modality == FUSED:
            # A file that can be but one of both shall not be refused as the other.
            suffixes = [Path(file).suffix.lower() for file in files]
            pairs = list(zip(files, suffixes, strict=True))
            visual = [None if suffix in AUDIO_SUFFIXES else file for file, suffix in pairs]
            audio = [None if suffix in IMAGE_SUFFIXES else file for file, suffix in pairs]
        return make_table(visual=visual, audio=audio)

    def table(
        self, table: pd.DataFrame
    ) -> tuple[np.ndarray, list[str | None], dict[tuple[str, int], str]]:
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
        left_out : dict of (modality, row) to str
            What is wrong with single cells of rows that the other cell was enough for.
        """
        probabilities, errors, reports = self._predict(table)
        left_out = {
            (modality, row): "; ".join(reasons)
            for modality, rows in reports.items()
            for row, reasons in rows.items()
            if errors[row] is None
        }
        return probabilities, errors, left_out

    def _predict(
        self, table: pd.DataFrame
    ) -> tuple[np.ndarray, list[str | None], dict[str, dict[int, list[str]]]]:
        """Predict the rows, and tell for each modality what is wrong with which rows."""
        table = table.reset_index(drop=True)
        for m in MODALITIES:
            if m not in self.wanted:
                table[m] = None
        n_cells = table.notna().sum(axis=1)
        seconds = self.seconds
        if seconds is None and len(table) >= _MANY_FILES:
            seconds = _SECONDS
        for transformer in self.transformers:
            transformer.set_params(timeout=seconds)
        with warnings.catch_warnings():
            # What they warn of is in their reports, which end up in the errors here.
            warnings.simplefilter("ignore", UserWarning)
            X = table if self._column is None else table[[self._column]]
            prepared = self.prepare.transform(X)
        reports: dict[str, dict[int, list[str]]] = {}
        for transformer in self.transformers:
            reasons = reports.setdefault(_modality(transformer), {})
            for row, reason in transformer.report_[["row", "reason"]].itertuples(index=False):
                reasons.setdefault(row, []).append(reason)
        errors: list[str | None] = []
        for row in range(len(table)):
            found = [reason for reasons in reports.values() for reason in reasons.get(row, [])]
            if not n_cells[row]:
                found = [f"the clip has no {self.noun}"]
            errors.append("; ".join(found) if len(found) >= max(1, n_cells[row]) else None)
        good = np.array([i for i, error in enumerate(errors) if error is None], dtype=int)
        probabilities = np.full((len(table), len(self.classes)), np.nan)
        if len(good):
            probabilities[good] = self.classifier.predict_proba(_safe_indexing(prepared, good))
        return probabilities, errors, reports


def _decoder(clf: ModalityClassifier, modality: str, folder: str) -> Any:
    """Return what a classifier that was saved alone decodes files with, as far as that is known."""
    params, spec = clf.get_params(deep=False), clf._specs.get(modality)
    name, default = f"{modality}_transformer", default_transformer(modality)
    if params.get(name) is not None:
        return params[name]
    if spec is None:
        return default
    remedy = (
        "Save the pipeline with its transformer, save_pretrained(make_pipeline(transformer, "
        f"classifier), folder), or fit the classifier on paths with {name}=..."
    )
    if not getattr(clf, "_read_files", {}).get(modality):
        raise ModelError(
            f"{folder!r} holds a {type(clf).__name__} alone, which was trained on arrays of "
            f"{modality} or does not say otherwise, and not what makes such arrays of files. "
            f"{remedy}"
        )
    return default


def _modality(transformer: CellTransformer) -> str:
    return "audio" if isinstance(transformer, SoundTransformer) else "visual"


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
