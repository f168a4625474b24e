"""Cells that could not be used: how they are named, raised, reported and summarised."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ._source import MediaError

__all__ = [
    "Failure",
    "describe_cell",
    "empty_report",
    "make_report",
    "say_failures",
    "with_row",
]


class Failure(NamedTuple):
    """Why there is no result for a row; a row of ``report_``.

    Attributes
    ----------
    row : int
        Position in X, from 0.
    file : str
        The path, or what array it is.
    stage : str
        What failed; see :class:`MediaError`. Also "memory" if there was not
        enough of it, and "error" for any other error, of a detector for instance.
    reason : str
        What was found, and what to do.
    """

    row: int
    file: str
    stage: str
    reason: str

    @classmethod
    def of(cls, error: BaseException, row: int, cell: Any) -> Failure:
        """Put an error into words."""
        if isinstance(error, MediaError):
            stage, reason = error.stage, error.problem
        elif isinstance(error, OSError):
            stage, reason = "open", f"cannot be read: {error.strerror or error}"
        elif isinstance(error, MemoryError):
            stage, reason = "memory", f"not enough memory: {error}"
        else:
            stage, reason = "error", f"{type(error).__name__}: {error}"
        return cls(row, _printable(describe_cell(cell)), stage, _printable(reason))


def _printable(text: str) -> str:
    # Names of files need not be text, and a table of them could not be saved.
    return text.encode("utf-8", "backslashreplace").decode()


def make_report(failures: Sequence[Failure]) -> pd.DataFrame:
    """Make the DataFrame of columns row, file, stage and reason, in the order of the rows."""
    if not failures:
        return empty_report()
    return pd.DataFrame(sorted(failures), columns=Failure._fields).astype({"row": np.int64})


_EMPTY = pd.DataFrame({"row": np.empty(0, np.int64), **{c: [] for c in Failure._fields[1:]}})


def empty_report() -> pd.DataFrame:
    """Return a report of nothing."""
    return _EMPTY.copy()  # to make one takes as long as a spectrogram


def say_failures(transformer: Any, failures: Sequence[Failure], n_cells: int) -> None:
    """Warn once of all cells that could not be read."""
    if not failures:
        return
    unread = sorted(failures)
    fate = "rows to skip" if transformer.on_error == "skip" else "missing"
    named = "; ".join(f"row {f.row} ({f.file}): {f.reason}" for f in unread[:3])
    more = "" if len(unread) <= 3 else f"; and {len(unread) - 3} more"
    warnings.warn(
        f"{type(transformer).__name__}: {len(unread)} of {n_cells} cells could not be read and are "
        f"now {fate}; see report_. {named}{more}.",
        UserWarning,
        stacklevel=6,  # the caller of transform, beyond scikit-learn's wrapper
    )


def with_row(error: BaseException, row: int, cell: Any) -> BaseException:
    """Return an error that names the row."""
    if isinstance(error, MediaError):
        named = MediaError(error.source, error.problem, row, error.stage)
        named.__cause__ = error.__cause__
        return named
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        # Of the kind that the number stands for: FileNotFoundError, PermissionError, ...
        return OSError(error.errno, f"row {row}: {error.strerror}", error.filename)
    error.add_note(f"This happened at row {row} ({describe_cell(cell)}).")
    return error


def describe_cell(cell: Any) -> str:
    """Name a cell in an error message: its path, or what array it is."""
    if isinstance(cell, (str, os.PathLike)):
        return os.fspath(cell)
    if isinstance(cell, tuple):
        return f"tuple ({', '.join(map(describe_cell, cell))})"
    if hasattr(cell, "__array__"):
        array = np.asarray(cell)
        return f"array of shape {array.shape}, {array.dtype}"
    return f"{type(cell).__name__} {cell!r:.40}"
