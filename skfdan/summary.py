"""What is in a modality table, at a glance: classes, speakers, modalities, missing cells."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from skfdan.table import MODALITIES, SKIP, TEXT, as_frame, is_blank, is_missing
from skfdan.utils._table_html import bytes_text, label_text, summary_html

__all__ = ["TableSummary", "summarize_table"]

UNLABELLED, UNKNOWN = "(unlabelled)", "(unknown)"
#: Lines of a table in the text; the frames hold all, and HTML shows more.
LINES = 12


@dataclass(frozen=True, eq=False, repr=False)
class TableSummary:
    """What :func:`skfdan.summarize_table` found; a notebook shows it as HTML.

    A cell is *filled* if it is neither missing nor :data:`skfdan.table.SKIP`.

    Attributes
    ----------
    n_rows : int
        Rows of the table.
    rows : Series of int
        Rows by what they hold, each row in one place: ``"paired"`` (voice and face),
        ``"visual only"``, ``"audio only"``, ``"empty"`` (both cells missing) and ``"skipped"``
        (a cell is ``SKIP``, which leaves the whole row out of a training). A table with texts
        has ``"text only"`` too, and paired is still voice and face, with or without words.
    classes : DataFrame
        One line a class, ``"(unlabelled)"`` last: rows, share (of all rows), visual and audio
        (filled cells), paired (rows with both cells filled); text after audio, in a table that
        has that column.
    speakers : DataFrame or None
        Rows by speaker (index) and class (columns); ``"(unknown)"`` stands for a missing
        speaker. None if speakers are not known: no groups, or every row a group of its own.
    modalities : DataFrame
        Lines visual and audio, and text in a table that has that column: cells that are filled,
        missing, skipped; nbytes, the memory of the array cells in bytes. A blank transcript is
        missing.
    cells : DataFrame
        One line a kind of cell: modality; kind (``"path"``, ``"transcript"``, ``"array"``,
        ``"other"``, ``"missing"``, ``"skip"``); format (suffix of a path, dtype of an array,
        type of another object); shape (an axis that varies as "smallest-largest"); cells;
        nbytes. An array object that stands in several cells is counted once in nbytes; arrays
        that are views of one block are counted as what they show.
    notes : list of str
        What deserves a look, in words.

    Examples
    --------
    >>> from skfdan import make_table, summarize_table
    >>> table = make_table(visual=["a.mp4", None], audio=["a.wav", "b.wav"])
    >>> summarize_table(table, ["joy", "fear"]).classes
          rows  share  visual  audio  paired
    fear     1    0.5       0      1       0
    joy      1    0.5       1      1       1
    """

    n_rows: int
    rows: pd.Series
    classes: pd.DataFrame
    speakers: pd.DataFrame | None
    modalities: pd.DataFrame
    cells: pd.DataFrame
    notes: list[str] = field(default_factory=list)

    @property
    def headline(self) -> str:
        """Rows, classes, speakers and memory in one line."""
        classes = len(self.classes) - (UNLABELLED in self.classes.index)
        parts = [_count(self.n_rows, "row"), _count(classes, "class", "classes")]
        if self.speakers is not None:
            known = len(self.speakers) - (UNKNOWN in self.speakers.index)
            parts.append(_count(known, "speaker"))
        if self.modalities["nbytes"].any():
            parts.append(f"{bytes_text(int(self.modalities['nbytes'].sum()))} of arrays")
        return ", ".join(parts)

    def __repr__(self) -> str:
        lines = [f"Modality table: {self.headline}"]
        lines.append(", ".join(f"{n:,} {kind}" for kind, n in self.rows.items()))
        lines += [f"- {note}" for note in self.notes]
        if len(self.classes):
            share = [f"{v:.1%}" for v in self.classes["share"]]
            lines += ["", "by class", *_lines(self.classes.assign(share=share), "classes")]
        if self.speakers is not None:
            lines += ["", "rows by speaker and class", *_lines(self.speakers, "speakers")]
        lines += ["", "cells by modality", *_lines(self.modalities, "modalities")]
        if len(self.cells):
            cells = self.cells.set_index("modality")
            lines += ["", "kinds of cells", *_lines(cells, "kinds")]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return summary_html(self)


def summarize_table(
    table: pd.DataFrame | Mapping[str, Any],
    y: Sequence | None = None,
    groups: Sequence | None = None,
) -> TableSummary:
    """Count what a modality table holds: classes, speakers, modalities, missing cells.

    Only the table is looked at: no file is opened (:func:`skfdan.datasets.check_corpus` does
    that), and nothing is changed.

    Parameters
    ----------
    table : DataFrame of shape (n, 2) or (n, 3), or Bunch
        A modality table, or what a loader returned. A column ``visual`` or ``audio`` that is
        absent counts as missing throughout, and ``text`` not at all; columns that a
        ``ColumnTransformer`` has renamed (``audio__audio``) count, other columns do not.
    y : array-like of shape (n,) or None, default=None
        Labels; None takes the Bunch's ``target``, if a Bunch is given. None, NaN and ``""`` are
        missing labels; -1 is a label like any other, as it is for most classifiers.
    groups : array-like of shape (n,) or None, default=None
        Speakers; None takes the Bunch's ``groups``, if a Bunch is given.

    Returns
    -------
    TableSummary
        rows, classes, speakers, modalities, cells, notes; text in a terminal, HTML in a
        notebook.

    Raises
    ------
    TypeError
        If table is neither a DataFrame nor a Bunch with one.
    ValueError
        If the table has no modality column or one of them twice, or y or groups do not hold
        one name or number a row.

    Examples
    --------
    >>> from skfdan import make_table, summarize_table
    >>> table = make_table(visual=["a.mp4", None], audio=["a.wav", "b.wav"])
    >>> summarize_table(table, ["joy", "fear"], groups=["Ada", "Ada"])
    Modality table: 2 rows, 2 classes, 1 speaker
    1 paired, 0 visual only, 1 audio only, 0 empty, 0 skipped
    - no visual cell in class fear
    <BLANKLINE>
    by class
          rows  share  visual  audio  paired
    fear     1  50.0%       0      1       0
    joy      1  50.0%       1      1       1
    <BLANKLINE>
    rows by speaker and class
         fear  joy
    Ada     1    1
    <BLANKLINE>
    cells by modality
            filled  missing  skipped  nbytes
    visual       1        1        0       0
    audio        2        0        0       0
    <BLANKLINE>
    kinds of cells
               kind format shape  cells  nbytes
    visual     path   .mp4            1       0
    visual  missing                   1       0
    audio      path   .wav            2       0
    """
    if isinstance(table, Mapping) and "table" in table:
        y = table.get("target") if y is None else y
        groups = table.get("groups") if groups is None else groups
        table = table["table"]
    table = as_frame(table)
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            "summarize_table takes a modality table or what a loader returned (a Bunch with a "
            f"table); got {type(table).__name__}. make_table(visual=..., audio=...) builds one."
        )
    columns = _columns(table)
    modalities = (*MODALITIES, TEXT) if TEXT in columns else MODALITIES
    n = len(table)
    labels, speakers = _names(y, "y", n, UNLABELLED), _names(groups, "groups", n, UNKNOWN)
    cells = {m: list(columns.get(m, [None] * n)) for m in modalities}
    if TEXT in columns:
        cells[TEXT] = [None if is_blank(c) else c for c in cells[TEXT]]
    missing = {m: np.array([is_missing(c) for c in cells[m]], dtype=bool) for m in modalities}
    skipped = {m: np.array([c is SKIP for c in cells[m]], dtype=bool) for m in modalities}
    filled = {m: ~(missing[m] | skipped[m]) for m in modalities}
    rows = _rows(filled, skipped)
    labels = [UNLABELLED] * n if labels is None else labels
    classes = _classes(labels, filled)
    if speakers is not None and n > 1 and len(set(speakers)) == n:
        # As loaders do where a corpus tells no speaker.
        speakers = None
    by_speaker = None if speakers is None else _crossed(speakers, labels)
    kinds = pd.DataFrame(
        [line for m in modalities for line in _kinds(m, cells[m])],
        columns=["modality", "kind", "format", "shape", "cells", "nbytes"],
    ).astype({"cells": int, "nbytes": int})
    by_modality = pd.DataFrame(
        {
            "filled": [int(filled[m].sum()) for m in modalities],
            "missing": [int(missing[m].sum()) for m in modalities],
            "skipped": [int(skipped[m].sum()) for m in modalities],
            "nbytes": [int(kinds["nbytes"][kinds["modality"] == m].sum()) for m in modalities],
        },
        index=list(modalities),
    )
    notes = _notes(rows, classes, by_speaker, by_modality, kinds)
    return TableSummary(n, rows, classes, by_speaker, by_modality, kinds, notes)


def _columns(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the columns of cells by modality."""
    found: dict[str, pd.Series] = {}
    for i, column in enumerate(table.columns):
        modality = str(column).rsplit("__", 1)[-1]
        if modality in found:
            raise ValueError(
                f"summarize_table: the table has two columns that are {modality}; keep one of "
                f"them: {list(table.columns)}."
            )
        if modality in (*MODALITIES, TEXT):
            found[modality] = table.iloc[:, i]
    if not found:
        raise ValueError(
            f"summarize_table: the table has columns {list(table.columns)}; it needs 'visual', "
            "'audio' or 'text'. make_table builds one."
        )
    return found


def _names(values: Any, what: str, n: int, missing: str) -> list[Hashable] | None:
    """Return labels or groups as plain values, one a row."""
    if values is None:
        return None
    shape = np.shape(values) if hasattr(values, "shape") else None
    several = hasattr(values, "__len__") and not isinstance(values, (str, bytes))
    if not several or (shape is not None and len(shape) != 1):
        raise ValueError(
            f"summarize_table: {what} must hold one name or number a row; got "
            f"{type(values).__name__}{'' if shape is None else f' of shape {shape}'}."
        )
    if len(values) != n:
        raise ValueError(
            f"summarize_table: the table has {n} rows but {what} has {len(values)} entries; they "
            "must be equal in number."
        )
    names = []
    # tolist: the elements of a tensor are tensors, each of them a name of its own.
    for row, value in enumerate(values.tolist() if hasattr(values, "tolist") else values):
        value = value.item() if isinstance(value, np.generic) else value
        if not isinstance(value, Hashable):
            raise ValueError(
                f"summarize_table: {what} must hold one name or number a row; row {row} holds a "
                f"{type(value).__name__}."
            )
        blank = is_missing(value) or (isinstance(value, str) and not value.strip())
        names.append(missing if blank else value)
    return names


def in_order(name: Any) -> tuple:
    """Sort numbers as numbers, before words, and what stands for nothing last."""
    number = isinstance(name, (int, float))
    return name in (UNLABELLED, UNKNOWN), not number, name if number else 0, str(name)


def _index(names: list[Hashable]) -> pd.Index:
    # Object: numbers and words may stand beside one another, and tuples are names too.
    return pd.Index(sorted(set(names), key=in_order), dtype=object, tupleize_cols=False)


def _rows(filled: dict[str, np.ndarray], skipped: dict[str, np.ndarray]) -> pd.Series:
    left_out = np.any(list(skipped.values()), axis=0)
    visual, audio = filled["visual"] & ~left_out, filled["audio"] & ~left_out
    empty = ~visual & ~audio & ~left_out
    counts = {
        "paired": visual & audio,
        "visual only": visual & ~audio,
        "audio only": audio & ~visual,
    }
    if TEXT in filled:
        counts["text only"] = empty & filled[TEXT]
        empty = empty & ~filled[TEXT]
    counts |= {"empty": empty, "skipped": left_out}
    return pd.Series({kind: int(mask.sum()) for kind, mask in counts.items()}, name="rows")


def _classes(labels: list[Hashable], filled: dict[str, np.ndarray]) -> pd.DataFrame:
    index = _index(labels)
    place = {name: i for i, name in enumerate(index)}
    codes = np.array([place[label] for label in labels], dtype=int)
    columns = {
        "rows": np.ones(len(labels), dtype=bool),
        **filled,
        "paired": filled["visual"] & filled["audio"],
    }
    counts = {c: np.bincount(codes[mask], minlength=len(index)) for c, mask in columns.items()}
    frame = pd.DataFrame(counts, index=index)
    frame.insert(1, "share", frame["rows"] / max(len(labels), 1))
    return frame


def _crossed(speakers: list[Hashable], labels: list[Hashable]) -> pd.DataFrame:
    counts = Counter(zip(speakers, labels, strict=True))
    index, columns = _index(speakers), _index(labels)
    values = np.array([[counts[s, c] for c in columns] for s in index], dtype=int)
    return pd.DataFrame(values.reshape(len(index), len(columns)), index=index, columns=columns)


def _kinds(modality: str, cells: list[Any]) -> list[tuple]:
    """Return (modality, kind, format, shape, cells, nbytes) of each kind of cell."""
    counts: Counter[tuple] = Counter()
    shapes: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}
    nbytes: Counter[tuple] = Counter()
    seen: set[int] = set()
    for cell in cells:
        if cell is SKIP:
            key = ("skip", "", 0)
        elif is_missing(cell):
            key = ("missing", "", 0)
        elif modality == TEXT and isinstance(cell, str):
            key = ("transcript", "", 0)
        elif isinstance(cell, (str, os.PathLike)):
            suffix = os.path.splitext(os.fsdecode(cell))[1].lower()
            key = ("path", suffix or "(no suffix)", 0)
        elif isinstance(cell, np.ndarray):
            key = ("array", str(cell.dtype), cell.ndim)
            low, high = shapes.get(key, (cell.shape, cell.shape))
            shapes[key] = np.minimum(low, cell.shape), np.maximum(high, cell.shape)
            if id(cell) not in seen:
                nbytes[key] += cell.nbytes
                seen.add(id(cell))
        else:
            key = ("other", type(cell).__name__, 0)
        counts[key] += 1
    return [
        (modality, *key[:2], _shape(*shapes[key]) if key in shapes else "", number, nbytes[key])
        for key, number in counts.most_common()
    ]


def _shape(low: np.ndarray, high: np.ndarray) -> str:
    axes = [str(int(a)) if a == b else f"{int(a)}-{int(b)}" for a, b in zip(low, high, strict=True)]
    return f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"


def _notes(
    rows: pd.Series,
    classes: pd.DataFrame,
    speakers: pd.DataFrame | None,
    modalities: pd.DataFrame,
    kinds: pd.DataFrame,
) -> list[str]:
    notes = []
    labelled = classes.drop(index=UNLABELLED, errors="ignore")
    if rows["empty"]:
        none = "neither a visual nor an audio cell"
        if TEXT in modalities.index:
            none = "no visual, audio or text cell"
        notes.append(f"{_count(rows['empty'], 'row')} with {none}")
    if UNLABELLED in classes.index:
        notes.append(f"{_count(classes.loc[UNLABELLED, 'rows'], 'row')} without a label")
    if len(labelled) > 1 and labelled["rows"].max() >= 2 * labelled["rows"].min():
        ratio = labelled["rows"].max() / labelled["rows"].min()
        notes.append(
            f"the largest class, {label_text(labelled['rows'].idxmax())}, has {ratio:.1f} times "
            f"the rows of the smallest, {label_text(labelled['rows'].idxmin())}"
        )
    for modality in modalities.index:
        lacking = labelled.index[labelled[modality] == 0]
        if len(lacking) and modalities.loc[modality, "filled"]:
            names = ", ".join(map(label_text, lacking[:5])) + (", ..." if len(lacking) > 5 else "")
            word = "class" if len(lacking) == 1 else "classes"
            notes.append(f"no {modality} cell in {word} {names}")
        found = set(kinds["kind"][kinds["modality"] == modality])
        written = "transcript" if modality == TEXT else "path"
        if {written, "array"} <= found:
            notes.append(
                f"{written}s and arrays in the {modality} column, of which classifiers take one "
                "or the other"
            )
    if speakers is None and rows.sum():
        notes.append("speakers are not known: no split can be called speaker-independent")
    elif speakers is not None and len(labelled):
        known = speakers.drop(index=UNKNOWN, errors="ignore")[labelled.index]
        lacking = int((known == 0).any(axis=1).sum())
        if lacking:
            notes.append(f"{lacking:,} of {_count(len(known), 'speaker')} lack a class")
    return notes


def _count(n: int, one: str, several: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else several or one + 's'}"


def _lines(frame: pd.DataFrame, what: str) -> list[str]:
    shown = frame.head(LINES).copy()
    shown.index = pd.Index([label_text(name) for name in shown.index], dtype=object)
    shown.columns = pd.Index([label_text(name) for name in shown.columns], dtype=object)
    lines = shown.to_string(line_width=100).splitlines()
    if len(frame) > LINES:
        lines.append(f"... and {len(frame) - LINES:,} more {what}")
    return lines
