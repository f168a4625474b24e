"""Dialogues: which rows of X are one conversation, in which order, and who speaks in them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import coo_array, issparse
from scipy.sparse.csgraph import connected_components

from skfdan.classifiers._batches import (
    JointBatch,
    gather,
    ignored_at_random,
    load_each,
    n_rows,
)
from skfdan.classifiers._samples import Samples
from skfdan.nn.fdan import FUSED
from skfdan.table import check_groups, is_missing


@dataclass
class Dialogues:
    """The dialogue, place and speaker of every row.

    ``numbers`` and ``places`` are integers (n,), or None where each row is a dialogue of its
    own; ``speakers`` names (n,), None where nobody is known, or None altogether. ``groups``
    are those that ``fit`` was given.
    """

    numbers: np.ndarray | None = None
    places: np.ndarray | None = None
    speakers: np.ndarray | None = None
    groups: Any = None

    def of(self, n: int) -> np.ndarray:
        """Return the dialogue of each of n rows."""
        return np.arange(n) if self.numbers is None else self.numbers

    def runs(self, rows: np.ndarray, n: int) -> list[np.ndarray]:
        """Return some of n rows by dialogue, those of each in their order."""
        numbers = self.of(n)[rows]
        places = rows if self.places is None else self.places[rows]
        order = np.lexsort((places, numbers))
        ends = np.flatnonzero(np.diff(numbers[order])) + 1
        return np.split(rows[order], ends)

    def apart(self, n: int) -> Any:
        """Return groups of n rows that keep both the dialogues and the given groups whole."""
        if self.numbers is None or self.groups is None:
            return self.groups if self.numbers is None else self.numbers
        given = check_groups(self.groups)
        if len(given) != n:
            raise ValueError(f"groups has {len(given)} entries but X has {n} rows.")
        given = pd.factorize(given)[0]
        # Rows are joined where they share a dialogue or a group.
        start = int(self.numbers.max()) + 1
        size = start + int(given.max()) + 1
        shared = coo_array((np.ones(n), (self.numbers, start + given)), shape=(size, size))
        return connected_components(shared, directed=False)[1][self.numbers]

    def identity(self) -> np.ndarray | None:
        """Return what a fit depends on beside cells and labels."""
        parts = (self.numbers, self.places, self.speakers, self.groups)
        if all(part is None for part in parts):
            return None
        values = np.empty(len(parts), dtype=object)
        for i, part in enumerate(parts):
            values[i] = None if part is None else np.asarray(part).tolist()
        return values


#: What belongs to the rows that are being read, beside their cells. Neither parameters nor
#: what is learned, it has no place in an estimator, which several threads may predict with.
CURRENT: ContextVar[Dialogues] = ContextVar("dialogues", default=Dialogues())  # noqa: B039


@contextmanager
def reading(dialogues: Dialogues) -> Iterator[None]:
    """Let the rows that are read meanwhile belong to these dialogues."""
    token = CURRENT.set(dialogues)
    try:
        yield
    finally:
        CURRENT.reset(token)


def take_dialogues(
    X: Any, dialogue: str | None, speaker: str | None, order: str | None
) -> tuple[Any, Dialogues]:
    """Split the columns that are named off a frame or mapping.

    As the modalities, they may have the name of a step of a ColumnTransformer before
    theirs. Columns that are not there are no error. Of what is None, the column that has it by
    default is no part of X either: a dialogue's number is no feature.
    """
    # One kind of sparse matrix is a dict in older versions of SciPy.
    if not isinstance(X, (pd.DataFrame, Mapping)) or issparse(X):
        return X, Dialogues()
    wanted = {"dialogue": dialogue, "speaker": speaker, "order": order}
    found: dict[str, Any] = {}
    unused = []
    for column in X:
        name = str(column).rsplit("__", 1)[-1]
        for what in (w for w, given in wanted.items() if given in (name, str(column))):
            if what in found:
                raise ValueError(
                    f"Both columns {found[what]!r} and {column!r} are the {what}; keep one of them."
                )
            found[what] = column
        if column not in found.values() and name in wanted and wanted[name] is None:
            unused.append(column)
    taken = [*found.values(), *unused]
    if not taken:
        return X, Dialogues()
    columns = {what: np.asarray(X[column], dtype=object) for what, column in found.items()}
    if isinstance(X, pd.DataFrame):
        X = X.drop(columns=taken)
    else:
        X = {name: cells for name, cells in X.items() if name not in taken}
    out = Dialogues()
    if "dialogue" in columns:
        missing = [i for i, cell in enumerate(columns["dialogue"]) if is_missing(cell)]
        if missing:
            more = f" ({len(missing)} such rows)" if len(missing) > 1 else ""
            raise ValueError(
                f"Row {missing[0]} has no value in the column {found['dialogue']!r}{more}. Give "
                "each row the dialogue that it belongs to; an utterance without others is a "
                "dialogue of its own."
            )
        names = [_name(cell) for cell in columns["dialogue"]]
        # By first appearance: the names need not be of a kind that can be sorted.
        out.numbers = pd.factorize(np.array(names, dtype=object))[0].astype(np.int64)
        if "order" in columns:
            out.places = _places(columns["order"], out.numbers, found["order"])
    if "speaker" in columns:
        names = [None if is_missing(cell) else _name(cell) for cell in columns["speaker"]]
        out.speakers = np.array(names, dtype=object)
    return X, out


def _name(cell: Any) -> str:
    # A column of integers in which one was missing has become one of floats.
    whole = isinstance(cell, (float, np.floating)) and float(cell).is_integer()
    return str(int(cell)) if whole else str(cell)


def _places(cells: np.ndarray, numbers: np.ndarray, column: Any) -> np.ndarray:
    """Return the rank of every row in its dialogue."""
    places = pd.to_numeric(pd.Series(cells), errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(places).all():
        row = int(np.argmin(np.isfinite(places)))
        raise ValueError(
            f"Row {row} has {cells[row]!r} in the column {column!r}; a number is needed, by which "
            "the utterances of a dialogue are put in order."
        )
    order = np.lexsort((places, numbers))
    same = (np.diff(numbers[order]) == 0) & (np.diff(places[order]) == 0)
    if same.any():
        first, second = sorted(order[[np.argmax(same), np.argmax(same) + 1]].tolist())
        raise ValueError(
            f"Rows {first} and {second} of one dialogue have the same {column!r}, "
            f"{cells[first]!r}; it has to tell which of them comes first."
        )
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


class DialogueBatch(JointBatch):
    """Whole dialogues one after another; the length counts their utterances.

    ``lengths`` says how many each has, ``speaker`` the number of who speaks, -1 if not known.
    """

    def __init__(self, cells, index, ignored, origin, lengths: torch.Tensor, speaker: torch.Tensor):
        super().__init__(cells, index, ignored, origin)
        self.lengths = lengths
        self.speaker = speaker

    def pin_memory(self) -> DialogueBatch:
        """Move all tensors to memory from which a GPU copies by itself, while others work."""
        super().pin_memory()
        self.speaker = self.speaker.pin_memory()
        return self


class DialogueReader:
    """Puts dialogues of samples, of which a row has one a modality at most, into batches."""

    def __init__(self, samples: Samples, n: int, known: np.ndarray, dialogues: Dialogues):
        self.samples = samples
        self.index = {}
        for m, s in samples.items():
            self.index[m] = np.full(n, -1)
            self.index[m][s.rows] = np.arange(len(s))
        filled = np.any([i >= 0 for i in self.index.values()], axis=0)
        self.runs = dialogues.runs(np.flatnonzero(filled), n)
        numbers = {name: i for i, name in enumerate(known)}
        self.speaker = np.full(n, -1)
        if dialogues.speakers is not None:
            self.speaker = np.array([numbers.get(s, -1) for s in dialogues.speakers])

    def plan(self, chosen: np.ndarray) -> tuple:
        """Return what makes some of the dialogues: samples, lengths, speakers, and the rows."""
        runs = [self.runs[i] for i in chosen]
        rows = np.concatenate(runs)
        lengths = torch.tensor([len(run) for run in runs])
        index = {m: i[rows] for m, i in self.index.items()}
        return index, lengths, torch.from_numpy(self.speaker[rows]), rows


class DialogueBatches:
    """Batches of whole dialogues; an epoch is one pass through them.

    ``labels`` are those of every row. With probability ``modality_dropout`` an utterance that
    has several modalities is to be read by one of them alone, whichever. ``pinned`` is as in
    :class:`skfdan.classifiers._batches.Batches`.
    """

    def __init__(
        self,
        samples: Samples,
        labels: dict[str, np.ndarray],
        batch_size: int,
        rng: np.random.RandomState,
        known: np.ndarray,
        dialogues: Dialogues,
        modality_dropout: float = 0.0,
        pinned: bool = False,
    ):
        n = n_rows(samples) if dialogues.numbers is None else len(dialogues.numbers)
        self.reader = DialogueReader(samples, n, known, dialogues)
        self.samples = samples
        self.batch_size = batch_size
        self.rng = rng
        self.modality_dropout = modality_dropout
        self.pinned = pinned
        self._labels = np.full(n, -1)
        for m, s in samples.items():
            self._labels[s.rows] = labels[m]
        self.labels = self._labels[np.concatenate(self.reader.runs)]

    def __iter__(self) -> Iterator[tuple[DialogueBatch, dict[str, torch.Tensor]]]:
        return load_each(self.samples, self._plans(), self._load, self.pinned)

    def _plans(self) -> Iterator[tuple]:
        n = len(self.reader.runs)
        for chosen in np.array_split(self.rng.permutation(n), math.ceil(n / self.batch_size)):
            plan = self.reader.plan(chosen)
            yield plan, ignored_at_random(plan[0], self.modality_dropout, self.rng)

    def _load(self, planned: tuple) -> tuple[DialogueBatch, dict[str, torch.Tensor]]:
        (index, lengths, speaker, rows), ignored = planned
        cells, places = gather(self.samples, index, None)
        origin = self.samples, index
        batch = DialogueBatch(cells, places, ignored, origin, lengths, speaker)
        return batch, {FUSED: torch.from_numpy(self._labels[rows])}

    def state(self) -> dict[str, np.ndarray]:
        """Return what the next epoch depends on, beside the generator: nothing."""
        return {}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take up a state."""
