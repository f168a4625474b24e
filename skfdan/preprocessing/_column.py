"""Reading X as one column of cells."""

from __future__ import annotations

import numbers
import os
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from ..table import SKIP, as_cells, is_missing
from ._failures import describe_cell

__all__ = ["OneColumn"]


class OneColumn(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Base of all transformers that take one column of cells.

    A subclass says in ``_accepts`` what a cell may be, in ``_takes_matrix`` whether X
    may be a matrix of numbers instead, and in ``_usual`` which column it is mostly given.
    """

    _takes_matrix = False
    _accepts = "paths"
    _usual = None  # name of the column of a modality table that it is for

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self._takes_matrix
        tags.transformer_tags.preserves_dtype = ["float32"] if self._takes_matrix else []
        return tags

    def _read(self, X: Any, *, reset: bool) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return (cells, None) for a column of cells, (None, matrix) for numbers."""
        column = self._as_column(X)
        known = reset or hasattr(self, "n_features_in_")
        if column is None:
            if known:
                return None, validate_data(self, X, dtype=np.float32, reset=reset)
            return None, check_array(X, dtype=np.float32, estimator=self, input_name="X")
        if not len(column):
            raise ValueError(
                f"Found array with 0 sample(s) (shape={column.shape}) while a minimum of 1 is "
                f"required by {type(self).__name__}."
            )
        if known:
            validate_data(self, column, skip_check_array=True, reset=reset)
        return as_cells(column.iloc[:, 0]), None

    def _as_column(self, X: Any) -> pd.DataFrame | None:
        """Return X as a frame of one column of cells, or None if it is to be read as numbers."""
        name = type(self).__name__
        if isinstance(X, (str, os.PathLike)):
            what = "text" if self._accepts == "texts" else "path"
            raise ValueError(
                f"{name}: X={os.fspath(X)!r} is a single {what}; give a list, [{X!r}]."
            )
        frame = _as_frame(X, blocks=not self._takes_matrix)
        if frame is None or not (_all_missing(frame) or _holds_cells(frame)):
            if self._takes_matrix:
                if frame is not None and _is_no_matrix(X, frame):
                    raise ValueError(
                        f"{name} takes one column of cells ({self._accepts}) or a matrix of "
                        f"numbers, a waveform in each row; got {type(X).__name__} with the entry "
                        f"{describe_cell(_odd_entry(frame))}. Reshape your data: a list of arrays "
                        "is a column, a list of lists of numbers a matrix."
                    )
                return None
            raise ValueError(
                f"{name} takes one column of cells ({self._accepts}), not numbers; got "
                f"{type(X).__name__} of shape {np.shape(X)}. Reshape your data: put each of them "
                "into a cell of its own, in a list or an object array of shape (n, 1)."
            )
        if frame.shape[1] != 1:
            column = self._usual if self._usual in frame else frame.columns[0]
            raise ValueError(
                f"{name} takes one column of cells ({self._accepts}); got {frame.shape[1]} columns "
                f"({', '.join(map(str, frame.columns))}). Pick one: "
                f'ColumnTransformer([("cells", {name}(), [{column!r}])]).'
            )
        return frame


def _as_frame(X: Any, *, blocks: bool) -> pd.DataFrame | None:
    """Return X as a frame of objects; None for an array or list of numbers."""
    if isinstance(X, pd.DataFrame):
        return X
    if isinstance(X, pd.Series):
        return X.to_frame()
    if isinstance(X, (list, tuple)):
        rows = list(X)
        if not rows or not all(isinstance(row, list) for row in rows):
            return pd.DataFrame({0: pd.Series(as_cells(rows), dtype=object)})
        return pd.DataFrame(rows, dtype=object)
    if issparse(X):
        return None
    array = np.asarray(X)
    if blocks and array.ndim > 3:
        # A stack of pictures or clips; of fewer dimensions it could as well
        # be one picture, whose rows are no cells.
        return pd.DataFrame({0: pd.Series(as_cells(array), dtype=object)})
    if array.ndim not in (1, 2) or array.dtype.kind not in "OUST":
        return None
    # Frames of other libraries come through here, and bring their names.
    return pd.DataFrame(array, columns=getattr(X, "columns", None), dtype=object)


def _is_no_matrix(X: Any, frame: pd.DataFrame) -> bool:
    """Tell whether X, which holds no cell, is no matrix of numbers either.

    What is wrong with an array scikit-learn says.
    """
    if not isinstance(X, (list, tuple, pd.Series, pd.DataFrame)):
        return False
    flat = not isinstance(X, pd.DataFrame) and not isinstance(next(iter(X)), list)
    return flat or not isinstance(_odd_entry(frame), numbers.Number)


def _odd_entry(frame: pd.DataFrame) -> Any:
    """Return the first entry that is no number, or else the first."""
    entries = [entry for i in range(frame.shape[1]) for entry in frame.iloc[:, i]]
    return next((e for e in entries if not isinstance(e, numbers.Number)), entries[0])


def _all_missing(frame: pd.DataFrame) -> bool:
    # A column without one entry is read from a file as float NaN.
    return frame.shape[1] == 1 and all(is_missing(cell) for cell in frame.iloc[:, 0])


def _holds_cells(frame: pd.DataFrame) -> bool:
    """Tell whether any entry is a path, an array or missing among objects."""
    columns = (frame.iloc[:, i] for i in range(frame.shape[1]))
    return any(
        isinstance(cell, (str, os.PathLike, tuple))
        or cell is None
        or cell is SKIP
        or np.ndim(cell) > 0
        for column in columns
        if column.dtype.kind not in "biufc"
        for cell in column
    )
