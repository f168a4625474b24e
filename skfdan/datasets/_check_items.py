"""The cells of a corpus under check: what a loader or a user gave, one by one."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from ..table import MODALITIES, SKIP, TEXT, as_frame, is_blank, is_missing, make_table
from ._base import AUDIO_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES, Report, check_root, walk


class Item(NamedTuple):
    """One cell: where it is, and what is known of its row."""

    row: int | None
    modality: str
    cell: Any
    label: Any
    group: Any
    split: Any
    alone: bool  # no other cell in its row

    @property
    def place(self) -> dict[str, Any]:
        """Return where it is, as a problem names it."""
        return {"file": self.file, "row": self.row}

    @property
    def file(self) -> str:
        return os.fspath(self.cell) if isinstance(self.cell, (str, os.PathLike)) else ""


def read_arguments(
    corpus: Any, y: Any, groups: Any, split: Any, report: Any
) -> tuple[pd.DataFrame, list | None, list | None, list | None, pd.DataFrame]:
    """Return (table, y, groups, split, report), from the Bunch where they are not given."""
    corpus = as_frame(corpus)
    if isinstance(corpus, Mapping) and "table" in corpus:
        table, frame = as_frame(corpus["table"]), corpus.get("frame")
        y = corpus.get("target") if y is None else y
        groups = corpus.get("groups") if groups is None else groups
        report = corpus.get("report") if report is None else report
        if split is None and frame is not None and "split" in frame:
            split = frame["split"]
    elif isinstance(corpus, pd.DataFrame):
        table = corpus
    else:
        raise TypeError(
            "check_corpus takes what a loader returned (a Bunch with a table) or a modality "
            f"table; got {type(corpus).__name__}. For a folder: check_corpus(load_folder(path))."
        )
    if not set(MODALITIES) & set(table.columns):
        raise ValueError(
            f"check_corpus: the table has columns {list(table.columns)}; it needs 'visual' or "
            "'audio'. skfdan.make_table builds one."
        )
    columns = {"y": y, "groups": groups, "split": split}
    for name, values in columns.items():
        if values is not None and len(values) != len(table):
            raise ValueError(
                f"check_corpus: the table has {len(table)} rows but {name} has {len(values)} "
                "entries; they must be equal in number."
            )
        columns[name] = None if values is None else [_plain(v) for v in values]
    if report is None:
        report = pd.DataFrame(columns=["file", "stage", "reason"])
    return table, *columns.values(), report


def _plain(value: Any) -> Any:
    """Return a label or group as a plain value; a missing one as None."""
    value = value.item() if isinstance(value, np.generic) else value
    blank = isinstance(value, str) and not value.strip()
    return None if blank or is_missing(value) else value


def table_items(
    table: pd.DataFrame, y: list | None, groups: list | None, split: list | None
) -> tuple[list[Item], list[int]]:
    """Return the cells that are not missing, and the rows that have none, nor words.

    Rows with a cell to skip are neither: classifiers leave them out.
    """
    words = table[TEXT] if TEXT in table.columns else [None] * len(table)
    items, empty = [], []
    for row, text in enumerate(words):
        known = [None if v is None else v[row] for v in (y, groups, split)]
        cells = {m: table[m].iloc[row] for m in MODALITIES if m in table.columns}
        if any(cell is SKIP for cell in (text, *cells.values())):
            continue
        cells = {m: cell for m, cell in cells.items() if not is_missing(cell)}
        if not cells and is_blank(text):
            empty.append(row)
        items += [Item(row, m, cell, *known, len(cells) == 1) for m, cell in cells.items()]
    return items, empty


def loose_items(files: Iterable[str]) -> list[Item]:
    """Make items of files that are in no row, as load_folder would make cells of them."""
    takes: dict[str, dict[str, str]] = defaultdict(dict)
    items = []
    for file in files:
        suffix = Path(file).suffix.lower()
        role = "audio" if suffix in AUDIO_SUFFIXES else "visual"
        if role in takes[os.path.splitext(file)[0]]:
            items.append(Item(None, role, file, None, None, None, True))
        else:
            takes[os.path.splitext(file)[0]][role] = file
    for cells in takes.values():
        visual = cells.get("visual")
        if visual is not None and Path(visual).suffix.lower() in VIDEO_SUFFIXES:
            cells.setdefault("audio", visual)
        items += [
            Item(None, m, file, None, None, None, len(cells) == 1) for m, file in cells.items()
        ]
    return items


def index_loose(root: str | os.PathLike) -> Bunch | None:
    """Index a folder of files that lie in no emotion's folder; None if there are none.

    Parameters
    ----------
    root : path-like
        The folder.

    Returns
    -------
    Bunch or None
        table, target and groups are empty, report names every file.
    """
    report = Report()
    root = check_root(root, "folder")
    found = False
    for path in walk(root, report):
        media = path.suffix.lower() in AUDIO_SUFFIXES | VIDEO_SUFFIXES | IMAGE_SUFFIXES
        found |= media
        reason = "not in an emotion's folder" if media else "neither sound, nor video, nor an image"
        report.add(root / path, "name", reason)
    if not found:
        return None
    return Bunch(table=make_table(audio=[]), target=[], groups=[], report=report.to_frame())
