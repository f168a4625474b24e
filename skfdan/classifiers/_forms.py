"""The forms in which users pass X: tables, columns of cells or paths, matrices."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skfdan.table import MODALITIES, SKIP, TEXT, as_cells, is_missing, make_table

#: All that a column of X can be.
_COLUMNS = (*MODALITIES, TEXT)


def is_table(X: Any) -> bool:
    """Tell a modality table (or what a transformer makes of one) from numbers."""
    if isinstance(X, Mapping):
        return True
    if _modality_columns(X):
        return True
    if hasattr(X, "iloc") and getattr(X, "ndim", 0) == 2 and len(X):
        _refuse_strange(X)
        return False
    if isinstance(X, np.ndarray) and X.dtype.kind in "OUT" and X.ndim == 2:
        # Strings in more columns, or nothing, are numbers gone wrong; arrays are cells.
        few = X.shape[1] <= 2
        return any(
            isinstance(cell, np.ndarray)
            or (few and (cell is None or cell is pd.NA or isinstance(cell, (str, Path))))
            for cell in X.ravel()
        )
    return False


def _refuse_strange(X: pd.DataFrame) -> None:
    """Raise a ValueError if a frame without modalities has a column of no numbers."""
    for i, column in enumerate(X.columns):
        cells = X.iloc[:, i]
        if pd.api.types.is_numeric_dtype(cells.dtype):
            continue
        cell = next((cell for cell in cells if not is_missing(cell)), None)
        if isinstance(cell, str) and not os.path.dirname(cell) and not Path(cell).suffix:
            raise ValueError(
                f"X has the column {column!r} of words, such as {cell!r}: make numbers of them, as "
                "OneHotEncoder does in a ColumnTransformer, or drop the column. (In a modality "
                f'table, a column of what is said has the name "{TEXT}".)'
            )
        if isinstance(cell, (np.ndarray, str, Path)):
            raise ValueError(
                f"X has the column {column!r} of paths or arrays, which is no modality; a "
                f"modality table has the columns {', '.join(map(repr, _COLUMNS))}."
            )


def _modality_columns(X: Any) -> dict[str, Any]:
    """Map modalities to column names; ``audio__audio`` counts as ``audio``."""
    found: dict[str, Any] = {}
    for column in getattr(X, "columns", ()):
        name = str(column).rsplit("__", 1)[-1]
        if name in _COLUMNS:
            if name in found:
                raise ValueError(
                    f"Both columns {found[name]!r} and {column!r} are {name}; keep one of them."
                )
            found[name] = column
    return found


def _refuse_misspelt(X: Any, columns: dict[str, Any], known: Collection[str]) -> None:
    """Raise a ValueError for a column that is a modality but for capitals or blanks."""
    for column in X.columns:
        name = str(column).rsplit("__", 1)[-1].strip().casefold()
        if name in known and column not in columns.values():
            raise ValueError(
                f"X has the column {column!r}, which would be left alone: call it {name!r}, or "
                "drop it."
            )


def read_table(X: Any, default: str, known: Collection[str] = MODALITIES) -> pd.DataFrame:
    """Turn a mapping, frame or object array into a modality table.

    ``default`` is the modality of a single unnamed column, ``known`` are those that a
    classifier reads.
    """
    if isinstance(X, Mapping):
        unknown = [k for k in X if k not in _COLUMNS]
        if unknown:
            raise ValueError(
                f"Unknown modality {unknown[0]!r}: X as a mapping may hold "
                f"{', '.join(map(repr, _COLUMNS))}."
            )
        return make_table(**{k: v for k, v in X.items() if v is not None})
    columns = _modality_columns(X)
    if columns:
        _refuse_misspelt(X, columns, known)
        cells = {m: as_cells(X[column]) for m, column in columns.items()}
    elif X.shape[1] > 2 or (X.shape[1] == 2 and TEXT in known):
        raise ValueError(
            f"X has {X.shape[1]} columns of cells without names, so nothing tells which of them is "
            f"{' or '.join(map(repr, known))}. Give the ColumnTransformer "
            'set_output(transform="pandas"), or build X with make_table.'
        )
    elif X.shape[1] == 2:
        cells = {m: as_cells(X[:, i]) for i, m in enumerate(MODALITIES)}
        _refuse_swapped(cells)
        _warn_of_two_sounds(cells)
    else:
        cells = {default: as_cells(X[:, 0])}
    return make_table(**cells)


def _refuse_swapped(cells: dict[str, np.ndarray]) -> None:
    """Notice unnamed columns in the order audio, visual, as far as cells tell."""
    first = {
        m: next((c for c in column if isinstance(c, np.ndarray)), None)
        for m, column in cells.items()
    }
    looks_audio = first["visual"] is not None and first["visual"].dtype.kind == "f"
    looks_visual = first["audio"] is not None and first["audio"].dtype == np.uint8
    if looks_visual and (looks_audio or first["visual"] is None):
        raise ValueError(
            "Of two columns without names the first is taken as visual and the second as audio, "
            f"but the second holds bytes of shape {first['audio'].shape}, as faces do. Put "
            '"visual" first in the ColumnTransformer, or give it set_output(transform="pandas").'
        )


def _warn_of_two_sounds(cells: dict[str, np.ndarray]) -> None:
    """Notice two kinds of sound features in two unnamed columns, as far as cells tell."""
    first = [
        next((c for c in column if isinstance(c, np.ndarray)), None) for column in cells.values()
    ]
    if any(c is None or c.ndim != 2 or c.dtype.kind != "f" for c in first):
        return
    # A face in shades of grey may be such an array too, but is hardly oblong and below 0.
    rows, columns = first[0].shape
    if rows != columns and (first[0] < 0).any():
        warnings.warn(
            "Of two columns without names the first is taken as visual and the second as audio, "
            f"but the first holds numbers below 0 of shape {first[0].shape}, as spectrograms do. "
            "Features of one voice belong in one column, in one array; if these are faces, give "
            'the ColumnTransformer set_output(transform="pandas").',
            UserWarning,
            stacklevel=2,
        )


def check_rows(empty: np.ndarray, columns: Collection[str] = MODALITIES) -> None:
    """Raise a ValueError if a row is empty."""
    rows = np.flatnonzero(empty).tolist()
    if rows:
        none = "neither a visual nor an audio cell"
        if set(columns) != set(MODALITIES):
            *first, last = (m for m in (*MODALITIES, TEXT) if m in columns)
            none = f"no {' or '.join([*([', '.join(first)] if first else []), last])} cell"
        raise ValueError(
            f"Row {rows[0]} has {none}{and_more(rows)}; drop it, fill "
            'one of them, or leave such rows out with on_error="missing". If FaceFrames found no '
            'face there, on_no_face="center" takes the middle of the picture instead.'
        )


def missing_cells(cells: Any) -> np.ndarray:
    """Return where a column has no cell; a cell to be skipped is none either."""
    return np.array([cell is SKIP or is_missing(cell) for cell in cells], dtype=bool)


def n_dim(X: Any) -> int:
    """Count dimensions as NumPy does, but of a list look at one element alone.

    What a list holds need not be of one shape.
    """
    if isinstance(X, (list, tuple)):
        return 1 + next((n_dim(cell) for cell in X if not is_missing(cell)), 0)
    return X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim


def holds_paths(X: Any) -> bool:
    """Tell whether X is a sequence of cells of which any is a path."""
    if isinstance(X, np.ndarray):
        one_column = X.ndim == 1 and X.dtype.kind in "OUT"
    else:
        one_column = isinstance(X, (list, tuple)) or getattr(X, "ndim", 0) == 1
    return one_column and any(isinstance(cell, (str, os.PathLike)) for cell in X)


def path_rows(cells: np.ndarray, modality: str) -> list[int]:
    """Return the rows of a column that hold paths; arrays must not stand beside them."""
    rows = [i for i, cell in enumerate(cells) if isinstance(cell, (str, os.PathLike))]
    if rows and len(rows) < (~missing_cells(cells)).sum():
        other = next(
            i
            for i, cell in enumerate(cells)
            if not (cell is SKIP or is_missing(cell) or isinstance(cell, (str, os.PathLike)))
        )
        raise ValueError(
            f"The {modality} column holds paths (row {rows[0]}) and arrays (row {other}); give it "
            "one or the other."
        )
    return rows


def and_more(rows: list[int]) -> str:
    return f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
