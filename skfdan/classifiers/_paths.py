"""Path cells given straight to a classifier: decoded when a batch needs them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone

from skfdan.preprocessing import FaceFrames, MediaError, MelSpectrogram
from skfdan.preprocessing._base import _SECONDS, CellTransformer
from skfdan.preprocessing._failures import Failure, empty_report
from skfdan.table import as_cells, is_missing
from skfdan.utils.progress import progress_bar

#: Files decoded at a time where all of a table are gone through.
CHUNK = 256

REPORT_COLUMNS = list(Failure._fields)


def join_reports(reports: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Put reports under one another, in the order of the rows."""
    filled = [report for report in reports if len(report)]
    if not filled:
        return empty_report()
    return pd.concat(filled).sort_values("row", kind="stable", ignore_index=True)


def first_of(report: pd.DataFrame, n: int = 3) -> str:
    """Name the first rows of a report, to end a message with."""
    lines = [
        f"row {r.row} ({r.file}): {r.reason}" if r.file else f"row {r.row} {r.reason}"
        for r in report.head(n).itertuples()
    ]
    more = f"; and {len(report) - n} more" if len(report) > n else ""
    return "; ".join(lines) + more


def unreadable_file(report: pd.DataFrame) -> Exception:
    """Return an error that names the first row of a report."""
    row, file, stage, reason = report.iloc[0]
    if stage == "open" and not os.path.exists(file):
        # As the transformers do.
        return FileNotFoundError(errno.ENOENT, f"row {row}: no such file or folder", file)
    return MediaError(file, reason, int(row), stage)


Plan, Loaded = TypeVar("Plan"), TypeVar("Loaded")


class Decoder:
    """A transformer that turns path cells into array cells, and says what it could not read.

    Parameters
    ----------
    transformer : transformer
        It is cloned; errors are collected, not raised.
    """

    def __init__(self, transformer: Any):
        self.transformer = clone(transformer)
        if hasattr(self.transformer, "_check_parameters"):
            self.transformer._check_parameters()
        if hasattr(self.transformer, "set_output"):
            # A frame is of no use here, and a Pipeline that is not fitted can't make one.
            with suppress(ValueError):  # a step of the user's own may have no such method
                self.transformer.set_output(transform="default")
        own = self.transformer.get_params(deep=False)
        wanted = {"on_error": "missing", "verbose": 0}
        if own.get("timeout") == "auto":
            # A file that crashes or hangs its decoder must not do so to days of training.
            wanted["timeout"] = _SECONDS
        self.transformer.set_params(**{k: v for k, v in wanted.items() if k in own})

    def decode(self, paths: np.ndarray, rows: np.ndarray) -> tuple[list, pd.DataFrame]:
        """Return the arrays of some files, None for those in the report."""
        results, reasons = self._results(as_cells(paths))
        cells = [None if is_missing(c) else np.asarray(c) for c in results]
        lines = [
            (
                int(rows[i]),
                str(paths[i]),
                *reasons.get(i, ("decode", "gives nothing to learn from")),
            )
            for i, cell in enumerate(cells)
            if cell is None
        ]
        return cells, pd.DataFrame(lines, columns=REPORT_COLUMNS)

    def _results(self, paths: np.ndarray) -> tuple[Iterable, dict[int, tuple[str, str]]]:
        """Return a result or None for each file, and stage and reason of failures."""
        if not isinstance(self.transformer, CellTransformer):
            out = self.transformer.transform(pd.DataFrame({0: paths}))
            out = np.asarray(out)
            return (out[:, 0] if out.dtype == object else out), {}
        # Not transform, which would warn in every batch of what is reported here as a whole.
        out, reasons = np.empty(len(paths), dtype=object), {}
        for row, result in self.transformer._run(paths, False):
            if isinstance(result, Failure):
                reasons[row] = (result.stage, result.reason)
            else:
                out[row] = result
        return out, reasons


class PathCells:
    """The path cells of one modality; a position gives what the file decodes to.

    A clip of several frames counts as one sample, each of whose draws takes the
    next frame.
    """

    def __init__(self, paths: np.ndarray, rows: np.ndarray, decoder: Decoder, read: Callable):
        self.paths = paths
        self.rows = rows
        self.decoder = decoder
        self._read = read  # (cell, row) to the samples of the cell
        self._first: np.ndarray | None = None
        self.turns = np.zeros(len(paths), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> np.ndarray:
        if position == 0:
            if self._first is None:
                self._first = self.load(np.array([0]))[0]
            return self._first
        return self.load(np.array([position]))[0]

    def take(self, positions: np.ndarray) -> PathCells:
        """Return a subset."""
        return PathCells(self.paths[positions], self.rows[positions], self.decoder, self._read)

    def frames(self, positions: np.ndarray) -> list[list[np.ndarray]]:
        """Decode the files at some positions, each to all its frames."""
        cells, report = self.decoder.decode(self.paths[positions], self.rows[positions])
        if len(report):
            raise unreadable_file(report)
        rows = self.rows[positions]
        return [list(self._read(c, row=row)) for c, row in zip(cells, rows, strict=True)]

    def load(self, positions: np.ndarray, turn: bool = False) -> list[np.ndarray]:
        """Decode the files at some positions; with ``turn`` each takes its next frame."""
        frames = self.frames(positions)
        taken = [f[t % len(f)] for f, t in zip(frames, self.turns[positions], strict=True)]
        if turn:
            self.turns[positions] += 1
        return taken


def unreadable(
    paths: np.ndarray, rows: np.ndarray, decoder: Decoder, *, what: str, verbose: int
) -> pd.DataFrame:
    """Decode every file once and report those that can't be, before hours of training."""
    first = pd.Series(paths.astype(str)).drop_duplicates().index.to_numpy()
    parts = np.array_split(first, max(1, -(-len(first) // CHUNK)))
    bar = progress_bar(parts, total=len(parts), desc=what, unit="chunk", verbose=verbose)
    reports = [decoder.decode(paths[part], rows[part])[1] for part in bar]
    report = join_reports(reports)
    # A file that several rows name is as bad in each.
    others = pd.DataFrame({"row": rows, "file": paths.astype(str)})
    return others.merge(report.drop(columns="row"), on="file", how="inner")[REPORT_COLUMNS]


def ahead(plans: Iterable[Plan], load: Callable[[Plan], Loaded]) -> Iterator[Loaded]:
    """Load one plan in another thread while the caller works on what was loaded before."""
    with ThreadPoolExecutor(1, thread_name_prefix="skfdan-batches") as executor:
        pending = None
        for plan in plans:
            following = executor.submit(load, plan)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()


def default_transformer(modality: str) -> BaseEstimator:
    """Return what decodes the path cells of a modality unless the user says otherwise."""
    if modality == "audio":
        return MelSpectrogram()
    return FaceFrames(n_frames=1, on_no_face="center")
