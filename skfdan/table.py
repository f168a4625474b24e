"""The modality table: a sample is a row, a modality is a column, missing is missing.

A modality table is a :class:`pandas.DataFrame` with the object columns
``visual`` and ``audio``, and ``text`` where there are transcripts. A cell is a
path, an array, or missing (``None``, ``NaN`` or ``pd.NA``); in ``text`` a string
is the words themselves, never a path. Paired clips fill both cells of a row; unpaired sources
(faces of one corpus, voices of another) fill one cell a row. The table goes
through cross-validation splits, ``ColumnTransformer``, ``Pipeline`` and
``n_jobs`` as any other frame does, and a split copies references, not pixels.
"""

from __future__ import annotations

import enum
import numbers
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

__all__ = [
    "MODALITIES",
    "SKIP",
    "TEXT",
    "as_cells",
    "is_missing",
    "make_table",
    "modality_columns",
    "stack_modalities",
    "unpair",
]

#: The two columns that every table has, in this order; ``text`` is none of them, as not every
#: table has it (:func:`modality_columns` names those that one table has).
MODALITIES = ("visual", "audio")

#: The column of transcripts, or of what an encoder made of them; not every table has it.
TEXT = "text"


class _Marker(enum.Enum):
    """A cell that stands for itself, in every process: members of an enum pickle by name."""

    SKIP = "skip"

    def __repr__(self) -> str:
        return self.name


#: A cell that can't be used and whose whole row is to be left out of a training.
#: Transformers put it in the place of an unreadable file with ``on_error="skip"``.
SKIP = _Marker.SKIP


def is_missing(cell: Any) -> bool:
    """Tell whether one cell of a modality table is missing.

    Parameters
    ----------
    cell : object
        A path, an array, ``None``, a float ``NaN`` or ``pd.NA``.

    Returns
    -------
    bool
        True for ``None``, scalar ``NaN`` and ``pd.NA``; an array is never missing.

    Examples
    --------
    >>> is_missing(None), is_missing(float("nan")), is_missing("a.wav")
    (True, True, False)
    """
    if cell is None or cell is pd.NA or cell is pd.NaT:
        return True
    return isinstance(cell, (float, np.floating)) and bool(np.isnan(cell))


def as_cells(cells: Iterable[Any]) -> np.ndarray:
    """Put cells into a one-dimensional object array, one by one.

    ``np.asarray`` would stack arrays of equal shape into one block, and a split
    would then copy pixels.

    Parameters
    ----------
    cells : iterable of object
        Paths, arrays or missing values. An array of shape (n, ...) is a
        sequence of n cells.

    Returns
    -------
    ndarray of shape (n,), dtype object
        The cells; every missing value is ``None``.

    Examples
    --------
    >>> as_cells([np.zeros((3, 2)), np.zeros((3, 2)), None]).shape
    (3,)
    """
    cells = list(cells)
    column = np.empty(len(cells), dtype=object)
    for i, cell in enumerate(cells):
        column[i] = None if is_missing(cell) else cell
    return column


def as_labels(values: Any) -> Any:
    """Return a list of words as an array if any is missing, other labels or groups as they are.

    NumPy would make the word "nan" of what is missing, a class or speaker as any other.
    """
    if not isinstance(values, (list, tuple)):
        return values
    cells = np.asarray(values, dtype=object)
    words = any(isinstance(cell, (str, bytes)) for cell in cells.flat)
    return cells if words and any(is_missing(cell) for cell in cells.flat) else values


def as_numbers(labels: np.ndarray) -> np.ndarray:
    """Return numbers in an array of objects, which scikit-learn does not take, as numbers."""
    if labels.dtype != object or not all(isinstance(v, (numbers.Number, np.bool_)) for v in labels):
        return labels
    return np.array(labels.tolist())


def check_groups(groups: Any) -> np.ndarray:
    """Return groups as an array; refuse one that is missing."""
    groups = np.asarray(as_labels(groups))
    lacking = np.flatnonzero([is_missing(group) for group in groups])
    if len(lacking):
        raise ValueError(
            f"groups is missing (NaN or None) in row {lacking[0]}; give every row one."
        )
    return groups


def is_blank(cell: Any) -> bool:
    """Tell whether a cell of the column text is missing, or a transcript without a word."""
    return is_missing(cell) or (isinstance(cell, str) and not cell.strip())


def as_frame(table: Any) -> Any:
    """Return a table of polars or pyarrow as one of pandas, anything else as it is."""
    if isinstance(table, pd.DataFrame) or not hasattr(table, "to_pandas"):
        return table
    return table.to_pandas() if hasattr(table, "columns") else table  # a column stays one


def modality_columns(table: pd.DataFrame) -> tuple[str, ...]:
    """Return the modalities of which a table has a column.

    Parameters
    ----------
    table : DataFrame of shape (n, n_columns)
        Modality table; other columns may stand between.

    Returns
    -------
    tuple of str
        Those of ``"visual"``, ``"audio"`` and ``"text"`` that are columns, in this order
        whatever the table's own is.

    Raises
    ------
    TypeError
        If the table is no DataFrame.

    Examples
    --------
    >>> modality_columns(make_table(audio=["a.wav"]))
    ('visual', 'audio')
    >>> modality_columns(make_table(audio=["a.wav"], text=["I am fine."]))
    ('visual', 'audio', 'text')
    """
    table = as_frame(table)
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"modality_columns takes a modality table, a DataFrame, not {type(table).__name__}; "
            "make_table(visual=..., audio=...) builds one."
        )
    return tuple(m for m in (*MODALITIES, TEXT) if m in table.columns)


def make_table(
    visual: Iterable[Any] | None = None,
    audio: Iterable[Any] | None = None,
    text: Iterable[Any] | None = None,
) -> pd.DataFrame:
    """Build a modality table from columns of cells.

    Parameters
    ----------
    visual : iterable of length n or None, default=None
        Video paths, frame folders, image paths, uint8 face arrays of shape
        (3, H, W) or (frames, 3, H, W), or missing values. An array of shape
        (n, 3, H, W) is taken as n cells. None leaves the whole column missing.
    audio : iterable of length n or None, default=None
        Sound or video paths, float32 log-Mel arrays of shape (n_mels, T), or
        missing values. None leaves the whole column missing.
    text : iterable of length n or None, default=None
        Transcripts, float arrays of shape (d,) or (T, d) of an encoder, or
        missing values; a blank transcript is missing. None leaves the column out.

    Returns
    -------
    DataFrame of shape (n, 2) or (n, 3)
        Object columns ``visual`` and ``audio``; both are always there, so that
        a fitted ``ColumnTransformer`` finds them at prediction too. Column
        ``text`` if it was given.

    Raises
    ------
    TypeError
        If a column is no sequence.
    ValueError
        If all columns are None or their lengths differ.

    Examples
    --------
    >>> make_table(audio=["a.wav", "b.wav"])
      visual  audio
    0   None  a.wav
    1   None  b.wav
    >>> make_table(audio=["a.wav"], text=["I am fine."])
      visual  audio        text
    0   None  a.wav  I am fine.
    """
    given = {"visual": visual, "audio": audio, TEXT: text}
    if all(cells is None for cells in given.values()):
        raise ValueError("make_table needs visual=, audio=, text= or several; got none.")
    for name, cells in given.items():
        if isinstance(cells, (str, bytes, os.PathLike)):
            what = "transcript" if name == TEXT else "path"
            raise ValueError(
                f"make_table: {name}={cells!r} is a single {what}; give a list, {name}=[{cells!r}]."
            )
        if isinstance(as_frame(cells), pd.DataFrame):
            raise ValueError(
                f"make_table: {name}= takes one column, not a frame; give {name}=frame[{name!r}]."
            )
        if cells is not None and not isinstance(cells, Iterable):
            raise TypeError(
                f"make_table: {name}={cells!r:.60} is no column of cells; give a list, an array or "
                "a Series."
            )
    columns = {
        name: None if cells is None else as_cells(cells)
        for name, cells in given.items()
        if name != TEXT or cells is not None
    }
    if TEXT in columns:
        columns[TEXT][[is_blank(cell) for cell in columns[TEXT]]] = None
    lengths = {name: len(cells) for name, cells in columns.items() if cells is not None}
    if len(set(lengths.values())) > 1:
        found = " and ".join(
            f"{name} has {n}{' cells' if i == 0 else ''}"
            for i, (name, n) in enumerate(lengths.items())
        )
        raise ValueError(
            f"make_table: {found}. A row holds all modalities of one clip; put None where one is "
            "missing, or use stack_modalities for sources that are not paired."
        )
    n = next(iter(lengths.values()))
    return pd.DataFrame(
        {
            name: pd.Series(
                as_cells([None] * n) if cells is None else cells, dtype=object, name=name
            )
            for name, cells in columns.items()
        }
    )


def stack_modalities(
    visual: Sequence | None = None, audio: Sequence | None = None, text: Sequence | None = None
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray | None]:
    """Put unpaired sources under one another in one modality table.

    Parameters
    ----------
    visual, audio, text : tuple (X, y) or (X, y, groups), or None
        The cells, labels and groups (speakers) of one modality. Lengths and
        corpora may differ between them.

    Returns
    -------
    table : DataFrame of shape (n, 2) or (n, 3)
        One filled cell a row, visual rows first, then audio, then text.
    y : ndarray of shape (n,)
        Labels.
    groups : ndarray of shape (n,) or None
        Groups, or None if no source gives any.

    Raises
    ------
    TypeError
        If a source is no tuple.
    ValueError
        If no source is given, lengths within a source differ, or one source
        has groups and the other has not.

    Examples
    --------
    >>> faces = [np.zeros((3, 8, 8), np.uint8)] * 3
    >>> table, y, groups = stack_modalities(
    ...     visual=(faces, ["joy", "joy", "anger"]), audio=(["a.wav"], ["anger"]))
    >>> table.shape, y.tolist(), groups
    ((4, 2), ['joy', 'joy', 'anger', 'anger'], None)
    """
    given = {"visual": visual, "audio": audio, TEXT: text}
    sources = [(name, s) for name, s in given.items() if s is not None]
    if not sources:
        raise ValueError(
            "stack_modalities needs visual=(X, y), audio=(X, y), text=(X, y) or several; got none."
        )
    tables, labels, groups = [], [], []
    for name, source in sources:
        if not isinstance(source, (tuple, list)):
            raise TypeError(
                f"stack_modalities: {name} must be a tuple (X, y) or (X, y, groups); got "
                f"{type(source).__name__}."
            )
        if len(source) not in (2, 3):
            raise ValueError(
                f"stack_modalities: {name} must be (X, y) or (X, y, groups); "
                f"got {len(source)} elements."
            )
        cells, y, *rest = source
        if y is None:
            raise ValueError(f"stack_modalities: {name} has no labels; give {name}=(X, y).")
        table = make_table(**{name: cells})
        for what, values in (("y", y), *(("groups", g) for g in rest if g is not None)):
            if len(values) != len(table):
                raise ValueError(
                    f"stack_modalities: {name} has {len(table)} cells but {what} has "
                    f"{len(values)} entries; they must be equal in number."
                )
        tables.append(table)
        labels.append(np.asarray(as_labels(y)))
        if (labels[0].dtype.kind in "UOST") != (labels[-1].dtype.kind in "UOST"):
            raise ValueError(
                f"stack_modalities: {sources[0][0]} labels are {labels[0].dtype} and {name} labels "
                f"{labels[-1].dtype}; name the emotions alike in both."
            )
        groups.append(None if not rest or rest[0] is None else np.asarray(as_labels(rest[0])))
        kinds = {g.dtype.kind in "UOST" for g in groups if g is not None}
        if len(kinds) > 1:
            raise ValueError(
                f"stack_modalities: {sources[0][0]} groups are {groups[0].dtype} and {name} groups "
                f"{groups[-1].dtype}; name the speakers alike in both, as 1 and '1' would become "
                "one."
            )
    if any(g is None for g in groups) and any(g is not None for g in groups):
        without = [name for (name, _), g in zip(sources, groups, strict=True) if g is None]
        raise ValueError(
            f"stack_modalities: groups are missing for {without[0]}; give all or none."
        )
    if text is not None:
        # Rows of other sources have no cell there, as None and not as NaN.
        tables = [t if TEXT in t else t.assign(**{TEXT: as_cells([None] * len(t))}) for t in tables]
    return (
        pd.concat(tables, ignore_index=True),
        np.concatenate(labels),
        None if groups[0] is None else np.concatenate(groups),
    )


def unpair(
    table: pd.DataFrame, y: Sequence, groups: Sequence | None = None
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray | None]:
    """Give every modality of every clip a row of its own.

    A paired table cannot express the paper's protocol, in which all faces train
    while some voices are held out: a row would have to be half in the training
    set. Frames V1..V3 of a clip (a visual cell of shape (frames, 3, H, W))
    become as many visual rows, which share its label and group.

    Parameters
    ----------
    table : DataFrame of shape (n, 2) or (n, 3)
        Modality table.
    y : array-like of shape (n,)
        Labels.
    groups : array-like of shape (n,) or None, default=None
        Groups (speakers).

    Returns
    -------
    table : DataFrame of shape (m, 2) or (m, 3)
        Visual rows first, then audio rows, then text; missing cells give no row. A
        classifier of voice and face can use no row of text alone: give
        ``table[["visual", "audio"]]`` where it is to train on the rest.
    y : ndarray of shape (m,)
        Labels.
    groups : ndarray of shape (m,) or None
        Groups, None if none were given.

    Raises
    ------
    TypeError
        If the table is no DataFrame.
    ValueError
        If the table has no modality column or one twice, or lengths differ.

    Examples
    --------
    >>> table, y, groups = unpair(make_table(visual=["a.mp4", None], audio=["a.wav", "b.wav"]),
    ...                           ["joy", "fear"], groups=[1, 2])
    >>> table.shape, y.tolist(), groups.tolist()
    ((3, 2), ['joy', 'joy', 'fear'], [1, 1, 2])
    """
    from sklearn.utils import column_or_1d  # here, so that `import skfdan` stays quick

    table = as_frame(table)
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"unpair: the table must be a modality table, a DataFrame, not {type(table).__name__}; "
            "make_table(visual=..., audio=...) builds one."
        )
    if y is None:
        raise ValueError("unpair: y is None; give a label a row.")
    present = modality_columns(table)
    if not present:
        raise ValueError(
            f"unpair: the table has columns {list(table.columns)}; it needs 'visual', 'audio' "
            "or 'text'."
        )
    for modality in present:
        if list(table.columns).count(modality) > 1:
            raise ValueError(f"unpair: the table has several columns {modality!r}; keep one.")
    y = column_or_1d(np.asarray(as_labels(y)))
    groups = None if groups is None else column_or_1d(np.asarray(as_labels(groups)))
    for what, values in (("y", y), ("groups", groups)):
        if values is not None and len(values) != len(table):
            raise ValueError(
                f"unpair: the table has {len(table)} rows but {what} has {len(values)} entries."
            )
    columns = (*MODALITIES, TEXT) if TEXT in present else MODALITIES
    cells: dict[str, list] = {m: [] for m in columns}
    rows: list[int] = []
    for modality in present:
        for i, cell in enumerate(table[modality]):
            if is_blank(cell) if modality == TEXT else is_missing(cell):
                continue
            frames = modality == "visual" and isinstance(cell, np.ndarray) and cell.ndim == 4
            parts = list(cell) if frames else [cell]
            for m in columns:
                cells[m] += parts if m == modality else [None] * len(parts)
            rows += [i] * len(parts)
    if not rows:
        raise ValueError("unpair: every cell of the table is missing.")
    return make_table(**cells), y[rows], None if groups is None else groups[rows]
