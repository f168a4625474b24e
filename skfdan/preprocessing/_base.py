"""What the transformers of one column of cells have in common."""

from __future__ import annotations

import numbers
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs

from ..table import SKIP
from ..utils.progress import progress_bar
from ._column import OneColumn
from ._failures import Failure, make_report, say_failures, with_row
from ._limits import DEFAULT, DecodeLimits, as_limits
from ._networks import NetworkError
from ._source import check_source
from ._workers import Isolated, WorkerError
from .cache import FileCache, cache_key

# Without a word from the user, a worker process is worth its start from so many
# files on, and a file that is not decoded by then never will be.
_MANY_FILES = 100
_SECONDS = 60.0


class Recipe(NamedTuple):
    """How one cell becomes one result.

    Attributes
    ----------
    kind : str
        What ``load`` computes, with the version of its code.
    parameters : mapping
        The parameters on which the result of ``load`` depends.
    load : callable
        Cell to array, or None if the result is missing; may be cached.
    finish : callable
        (array or None, cell, draw) to result: what comes after the first random
        step and is never cached. ``draw`` is a number in [0, 1) that belongs to
        the row, or None.
    """

    kind: str
    parameters: Mapping[str, Any]
    load: Callable[[Any], np.ndarray | None]
    finish: Callable[[np.ndarray | None, Any, float | None], Any]


class CellTransformer(OneColumn):
    """Base of the transformers that turn one column of cells into another.

    A subclass has the parameters ``n_jobs``, ``cache_dir`` and ``verbose``, and
    should have those that have defaults here. It gives ``_check_parameters()``,
    ``_recipe(training)`` and, if it takes matrices of numbers too,
    ``_transform_matrix(X, training)``. Nothing is learned from the data, so
    ``transform`` works without ``fit``, which only remembers the form of X.
    """

    on_error = "raise"
    timeout = "auto"
    limits = None

    _unit = "file"

    def fit(self, X, y=None):
        """Check the parameters and remember the form of X; nothing is decoded.

        Parameters
        ----------
        X : {DataFrame, Series, array-like} of shape (n, 1) or (n,)
            One column of cells.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The transformer.
        """
        self._check_parameters()
        self._check_robustness()
        cells, _ = self._read(X, reset=True)
        self.input_is_cells_ = cells is not None
        return self

    def transform(self, X):
        """Transform each cell by itself.

        Parameters
        ----------
        X : {DataFrame, Series, array-like} of shape (n, 1) or (n,)
            One column of cells.

        Returns
        -------
        ndarray of shape (n, 1), dtype object
            The results; None where a cell is missing, SKIP where it is
            :data:`skfdan.table.SKIP`. With ``set_output(transform="pandas")`` a
            DataFrame of one column.

        Raises
        ------
        FileNotFoundError
            If a path leads nowhere; names it and the row. Like the next, only
            with ``on_error="raise"``.
        MediaError
            If a file or array holds nothing usable; names it and the row.
        """
        return self._transform(X, training=False)

    def fit_transform(self, X, y=None):
        """Fit, then transform as at training; same as both unless a step is random.

        Parameters
        ----------
        X : {DataFrame, Series, array-like} of shape (n, 1) or (n,)
            One column of cells.
        y : None
            Ignored.

        Returns
        -------
        ndarray of shape (n, 1), dtype object
            As :meth:`transform` returns.
        """
        return self.fit(X, y)._transform(X, training=True)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags

    def _draws(self, n: int, training: bool) -> list[float] | list[None]:
        """Return one random number a row, whatever the row holds, or none at all."""
        return [None] * n

    def _check_robustness(self) -> None:
        name = type(self).__name__
        if self.on_error not in ("raise", "missing", "skip"):
            raise ValueError(
                f'{name}: on_error must be "raise", "missing" or "skip"; got {self.on_error!r}.'
            )
        number = is_number(self.timeout)
        if self.timeout not in ("auto", None) and not (number and self.timeout > 0):
            raise ValueError(
                f'{name}: timeout={self.timeout!r} must be seconds above 0, "auto" or None.'
            )
        if not isinstance(self.limits, DecodeLimits | None):
            raise ValueError(f"{name}: limits must be a DecodeLimits or None; got {self.limits!r}.")

    def _warm_up(self) -> None:
        """Import and compile what decoding needs, so that no file is charged with it."""

    def _transform(self, X: Any, *, training: bool) -> np.ndarray:
        self._check_parameters()
        self._check_robustness()
        cells, matrix = self._read(X, reset=False)
        if cells is None:
            return self._transform_matrix(matrix, training=training)
        out = np.empty((len(cells), 1), dtype=object)
        out[[cell is SKIP for cell in cells]] = SKIP
        instead = SKIP if self.on_error == "skip" else None
        failures = self._fill(out[:, 0], cells, training, instead)
        failures += self._report(cells, out[:, 0], failures)
        self.report_ = make_report(failures)
        return out

    def _fill(
        self, out: np.ndarray, cells: np.ndarray, training: bool, instead: Any
    ) -> list[Failure]:
        """Put a result into ``out`` for every cell that there is, or ``instead``; warn of those."""
        failures = []
        for row, result in self._run(cells, training):
            failed = isinstance(result, Failure)
            out[row] = instead if failed else result
            if failed:
                failures.append(result)
        say_failures(self, failures, len(cells))
        return failures

    def _report(
        self, cells: np.ndarray, results: np.ndarray, failures: list[Failure]
    ) -> list[Failure]:
        """Say once what else is worth saying, and return what more is to be reported."""
        return []

    def _decoder(self, recipe: Recipe, cells: np.ndarray, rows: list[int]) -> Isolated | None:
        """Return what decodes in worker processes, or None where that is not wanted."""
        seconds = self.timeout
        if seconds == "auto":
            n_files = sum(isinstance(cells[row], (str, os.PathLike)) for row in rows)
            seconds = _SECONDS if self.on_error != "raise" or n_files >= _MANY_FILES else None
        if seconds is None:
            return None
        return Isolated(recipe.load, self._warm_up, seconds, effective_n_jobs(self.n_jobs))

    def _run(self, cells: np.ndarray, training: bool):
        """Yield (row, result or Failure) for every cell that there is."""
        recipe = self._recipe(training)
        draws = self._draws(len(cells), training)
        rows = [i for i, cell in enumerate(cells) if cell is not None and cell is not SKIP]
        job = _Job(
            recipe,
            None if self.cache_dir is None else FileCache(self.cache_dir),
            as_limits(self.limits),
            self._decoder(recipe, cells, rows),
            raises=self.on_error == "raise",
            insists=self.timeout != "auto",
        )

        def results():
            # First round: leave alone what another process is decoding.
            # Second round: wait for it, and find its work in the cache.
            pending = rows
            for wait in (False, True):
                # Threads: decoders, resampling, FFT and detectors let go of the
                # interpreter, worker processes are waited for, and results need
                # no copying between processes. A generator, so that a progress
                # bar can follow.
                jobs = Parallel(n_jobs=self.n_jobs, prefer="threads", return_as="generator")(
                    delayed(job)(row, cells[row], draws[row], wait) for row in pending
                )
                postponed = []
                for row, (done, result) in zip(pending, jobs, strict=True):
                    if done:
                        yield row, result
                    else:
                        postponed.append(row)
                pending = postponed
                if not pending:
                    break
            if job.unavailable:
                warnings.warn(
                    f"{type(self).__name__}: files are decoded without a time limit, and a crash "
                    f"would end the session: {job.unavailable}. timeout=None does so without "
                    "this warning.",
                    UserWarning,
                    stacklevel=2,
                )

        return progress_bar(
            results(),
            total=len(rows),
            desc=type(self).__name__,
            unit=self._unit,
            verbose=self.verbose,
        )


def is_number(value: Any, *, whole: bool = False) -> bool:
    """Tell whether a parameter is a number; NumPy's are, True is none."""
    kind = numbers.Integral if whole else numbers.Real
    return isinstance(value, kind) and not isinstance(value, bool)


def check_numbers(
    transformer: Any, *names: str, whole: bool = False, optional: bool = False
) -> None:
    """Raise a ValueError for a parameter that is no (whole) number, or None where it may be."""
    for name in names:
        value = getattr(transformer, name)
        if not (is_number(value, whole=whole) or (optional and value is None)):
            raise ValueError(
                f"{type(transformer).__name__}: {name}={value!r} must be a "
                f"{'whole ' if whole else ''}number{' or None' if optional else ''}."
            )


class _CellError(Exception):
    """What went wrong with a cell, apart from what goes wrong with the cache."""


class _Job:
    """What is done with one cell."""

    def __init__(
        self,
        recipe: Recipe,
        cache: FileCache | None,
        limits: DecodeLimits,
        decoder: Isolated | None,
        *,
        raises: bool,
        insists: bool,
    ) -> None:
        self.recipe, self.cache, self.limits, self.decoder = recipe, cache, limits, decoder
        self.raises, self.insists = raises, insists
        self.unavailable = ""
        # What was decoded within other bounds might be beyond these; those of the file itself
        # are looked at in any case.
        bounds = dict(asdict(limits).items() - asdict(DEFAULT).items())
        bounds.pop("max_bytes", None)
        self.parameters = recipe.parameters | ({"limits": bounds} if bounds else {})

    def __call__(self, row: int, cell: Any, draw: float | None, wait: bool) -> tuple[bool, Any]:
        """Do one row: (False, None) if it has to be postponed; errors name the row."""
        try:
            return self._do(cell, draw, wait)
        except _CellError as wrapper:
            error = wrapper.__cause__
        if self.raises or isinstance(error, (ImportError, NetworkError, WorkerError)):
            raise with_row(error, row, cell)
        return True, Failure.of(error, row, cell)

    def _do(self, cell: Any, draw: float | None, wait: bool) -> tuple[bool, Any]:
        done, value = True, None
        if isinstance(cell, (str, os.PathLike)):
            self._try(check_source, cell, self.limits)
        if self.cache is None:
            value = self._try(self._load, cell)
        else:
            key = self._try(cache_key, self.recipe.kind, self.parameters, cell)
            done, value = self.cache.fetch(key, lambda: self._try(self._load, cell), wait=wait)
        return done, self._try(self.recipe.finish, value, cell, draw) if done else None

    def _load(self, cell: Any) -> np.ndarray | None:
        is_file = isinstance(cell, (str, os.PathLike))
        if self.decoder is not None and is_file and not self.unavailable:
            try:
                return self.decoder(cell)
            except WorkerError as error:
                if self.insists:
                    raise
                self.unavailable = str(error)
        return self.recipe.load(cell)

    def _try(self, function: Callable, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            raise _CellError from error
