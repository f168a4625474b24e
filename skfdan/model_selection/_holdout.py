"""A splitter for unpaired modalities: voices are tested, faces only train."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import BaseCrossValidator, check_cv
from sklearn.utils import indexable

from skfdan.table import as_labels, as_numbers, check_groups, is_missing

__all__ = ["AudioHoldout", "audio_rows"]


class AudioHoldout(BaseCrossValidator):
    """Hold out voices with any scikit-learn splitter; faces never are tested.

    Works on a modality table with one filled cell a row (see
    :func:`skfdan.unpair`). The inner splitter divides the audio rows that have a label.
    Visual rows join the training part:

    - ``visual="all"``, all of them: the paper's protocol (8/10 of the voices
      and all faces train, 2/10 of the voices test). When voices and faces come
      from the same people, the faces of the test speakers are seen in training.
    - ``visual="disjoint"``: those whose group has no audio row in the test
      part. With a speaker splitter inside, nothing of a test speaker is seen.

    Voices whose label is missing (None or NaN) can't be tested. They join the training
    part, but those of test speakers only where labelled voices of these train too, and
    with ``visual="disjoint"`` never. The classifier must have a use for them, such as
    ``FDANClassifier(adaptation="dsan")``. -1 is a class here, as codes of sentiment
    are -1, 0 and 1.

    Parameters
    ----------
    inner_cv : int, splitter or iterable
        Anything that scikit-learn takes as ``cv``; an integer is a stratified
        k-fold. Positions that an iterable gives count the voices that have a label.
    visual : {"all", "disjoint"}, default="all"
        Which visual rows train.

    Raises
    ------
    ValueError
        If ``visual`` is unknown, if a row fills both cells (``unpair`` it
        first), if there is no audio row or none with a label, if an iterable names
        more voices than have one, or if ``"disjoint"`` gets no groups, or a row has none.

    Notes
    -----
    The training rows hold faces without a voice, which a classifier that predicts from
    voices (``predict_modality="audio"``) refuses. So scores of the training rows
    (``return_train_score=True``, ``learning_curve``) are NaN, and with
    ``on_error="missing"`` they would count guesses for the faces. A scorer that leaves
    rows without a voice out gives those of the voices.

    Examples
    --------
    >>> from sklearn.model_selection import LeaveOneGroupOut
    >>> from skfdan import make_table, unpair
    >>> table, y, groups = unpair(make_table(visual=list("abcd"), audio=list("abcd")),
    ...                           [0, 1, 0, 1], groups=[1, 1, 2, 2])
    >>> for train, test in AudioHoldout(LeaveOneGroupOut(), "disjoint").split(table, y, groups):
    ...     print(train, test)
    [2 3 6 7] [4 5]
    [0 1 4 5] [6 7]
    """

    # With metadata routing, searches hand over what a splitter says that it reads.
    __metadata_request__split: ClassVar = {"groups": True}

    def __init__(self, inner_cv, visual: str = "all"):
        # A search counts the splits before it uses them, which would empty an iterator.
        self.inner_cv = list(inner_cv) if isinstance(inner_cv, Iterator) else inner_cv
        self.visual = visual

    def split(self, X, y=None, groups=None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield training and test rows.

        Parameters
        ----------
        X : DataFrame or object ndarray of shape (n, 2)
            Modality table, or its cells.
        y : array-like of shape (n,), default=None
            Labels; None or NaN where there is none.
        groups : array-like of shape (n,), default=None
            Speakers.

        Yields
        ------
        train, test : ndarray of int
            Row positions; ``test`` holds audio rows with a label only.
        """
        X, y, groups = indexable(X, y, groups)
        audio, unlabelled, y_audio = self._rows(X, y)
        groups = self._groups(groups)
        if self.visual == "disjoint" and groups is None:
            raise ValueError(
                'AudioHoldout(visual="disjoint") leaves out the faces of test speakers; give '
                "split(X, y, groups=speakers)."
            )
        # Compared as numbers: that takes time in proportion to the rows, whatever they are. -1 is
        # an unknown speaker.
        speakers = np.zeros(0, int) if groups is None else pd.factorize(groups)[0]
        visual = np.setdiff1d(np.arange(len(X)), np.concatenate([audio, unlabelled]))
        groups_audio = None if groups is None else groups[audio]
        with warnings.catch_warnings():
            # Groups are for visual="disjoint" too; an inner splitter may have no use for them.
            warnings.filterwarnings("ignore", "The groups parameter is ignored")
            splits = list(self._inner(y_audio).split(audio, y_audio, groups_audio))
        for train, test in splits:
            train, test = self._voices(audio, train), self._voices(audio, test)
            faces, others = visual, unlabelled
            if groups is not None:
                tested = speakers[test][speakers[test] >= 0]
                if self.visual == "disjoint":
                    faces = visual[~np.isin(speakers[visual], tested)]
                else:
                    # Speakers that train anyway are not held out, whatever was tested.
                    tested = tested[~np.isin(tested, speakers[train])]
                others = unlabelled[~np.isin(speakers[unlabelled], tested)]
            yield np.sort(np.concatenate([faces, others, train])), test

    def get_n_splits(self, X=None, y=None, groups=None) -> int:
        """Return the number of splits.

        Parameters
        ----------
        X : DataFrame or object ndarray of shape (n, 2), default=None
            Modality table; needed by inner splitters that count groups.
        y, groups : array-like of shape (n,), default=None
            Labels and speakers.

        Returns
        -------
        int
            The inner splitter's number of splits on the audio rows with a label.
        """
        if X is None:
            return self._inner(None).get_n_splits()
        audio, _, y = self._rows(X, y)
        groups = None if groups is None else self._groups(groups)[audio]
        return self._inner(y).get_n_splits(audio, y, groups)

    def _inner(self, y):
        inner = self.inner_cv
        if hasattr(inner, "get_params"):
            inner = clone(inner)
        return check_cv(inner, y, classifier=y is not None)

    def _groups(self, groups) -> np.ndarray | None:
        if groups is None:
            return None
        # NaN is no speaker: it equals nothing, so no face of a test clip would be found by it.
        return check_groups(groups) if self.visual == "disjoint" else np.asarray(as_labels(groups))

    def _rows(self, X, y) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return the voices with a label, those without, and the labels of the first."""
        if self.visual not in ("all", "disjoint"):
            raise ValueError(f'visual={self.visual!r} is unknown; choose "all" or "disjoint".')
        audio = audio_rows(X, "AudioHoldout")
        labelled = labelled_voices(y, audio, "AudioHoldout")
        unlabelled, audio = audio[~labelled], audio[labelled]
        if y is not None:
            # Of objects an inner splitter would not know that they are classes.
            y = as_numbers(np.asarray(as_labels(y))[audio])
        return audio, unlabelled, y

    def _voices(self, audio: np.ndarray, positions) -> np.ndarray:
        """Return the rows of the voices that an inner splitter names."""
        given = np.asarray(positions)
        if given.dtype.kind in "iu" and given.size and given.max() >= len(audio):
            raise ValueError(
                f"AudioHoldout: inner_cv names voice {given.max()}, but the voices that have a "
                f"label are 0 to {len(audio) - 1}, and only they are divided; count among them."
            )
        return audio[positions]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner_cv!r}, visual={self.visual!r})"


def audio_rows(X, who: str) -> np.ndarray:
    """Return the rows of a modality table, or of its cells, that hold a voice and no face.

    A row that holds both, or a table with no voice, is a ValueError of ``who``.
    """
    if hasattr(X, "columns"):
        if "audio" not in X.columns:
            raise ValueError(f"{who} needs a column 'audio'; X has {list(X.columns)}.")
        cells_audio = list(X["audio"])
        cells_visual = list(X["visual"]) if "visual" in X.columns else [None] * len(X)
    else:
        cells = np.asarray(X, dtype=object)
        if cells.ndim != 2 or cells.shape[1] != 2:
            raise ValueError(
                f"{who} needs a modality table (see make_table); got an array of shape "
                f"{cells.shape}."
            )
        cells_visual, cells_audio = list(cells[:, 0]), list(cells[:, 1])
    heard = np.array([not is_missing(cell) for cell in cells_audio], dtype=bool)
    seen = np.array([not is_missing(cell) for cell in cells_visual], dtype=bool)
    both = np.flatnonzero(heard & seen)
    if len(both):
        raise ValueError(
            f"Row {both[0]} holds a face and a voice ({len(both)} such rows): it can't train "
            "and be tested at once. Give each a row of its own: table, y, groups = "
            "unpair(table, y, groups)."
        )
    if not heard.any():
        raise ValueError(f"{who}: no row has an audio cell, so nothing can be tested.")
    return np.flatnonzero(heard)


def labelled_voices(y, audio: np.ndarray, who: str) -> np.ndarray:
    """Tell which of the voices have a label; all of them where there are no labels at all.

    Labels that are all missing are a ValueError of ``who``.
    """
    if y is None:
        return np.ones(len(audio), dtype=bool)
    labels = np.asarray(as_labels(y))[audio]
    labelled = np.array([not is_missing(label) for label in labels], dtype=bool)
    if not labelled.any():
        raise ValueError(
            f"{who}: none of the {len(audio)} voices has a label (all are NaN or None), so nothing "
            "can be tested; give some of them one."
        )
    return labelled
