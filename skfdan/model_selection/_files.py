"""Splits in files: which clips trained and which were tested, checked when read again."""

from __future__ import annotations

import hashlib
import json
import numbers
import os
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import check_cv

from skfdan.table import MODALITIES, TEXT, is_blank, is_missing

from ._protocols import Protocol

__all__ = ["load_splits", "make_row_ids", "save_splits"]

_FORMAT, _FORMAT_VERSION = "skfdan-splits", 1
TRAIN_TEST = ("train", "test")


def make_row_ids(table: pd.DataFrame, clips: Sequence[str]) -> list[str]:
    """Name the rows of a modality table by clip and modality, each once.

    A clip has several rows in an unpaired table: its voice and its face, or
    frames of its face. Their names are ``clip#audio``, ``clip#visual``, and
    ``clip#visual:2``, ``clip#visual:3`` for further frames in the order of the
    table. A row that holds both modalities is ``clip#visual+audio``.

    Parameters
    ----------
    table : DataFrame of shape (n, 2)
        Modality table, or one that lacks a column.
    clips : sequence of str of length n
        The clip that each row is of.

    Returns
    -------
    list of str of length n
        The names.

    Raises
    ------
    TypeError
        If a clip is not a string.
    ValueError
        If lengths differ, or a row has no cell.

    Examples
    --------
    >>> from skfdan import make_table, unpair
    >>> clips = np.array(["DC_a01", "DC_a02"])
    >>> table, row, _ = unpair(make_table(visual=["1.avi", None], audio=["1.wav", "2.wav"]),
    ...                        np.arange(2))
    >>> make_row_ids(table, clips[row])
    ['DC_a01#visual', 'DC_a01#audio', 'DC_a02#audio']
    """
    if len(clips) != len(table):
        raise ValueError(
            f"make_row_ids: the table has {len(table)} rows, but there are {len(clips)} clips; "
            "give the clip of every row."
        )
    columns = [m for m in MODALITIES if m in table.columns]
    counts: Counter[str] = Counter()
    ids = []
    for i, (clip, *cells) in enumerate(zip(clips, *(table[m] for m in columns), strict=True)):
        if not isinstance(clip, str):
            raise TypeError(f"make_row_ids: clip {i} is {clip!r}; clips are strings.")
        held = [m for m, cell in zip(columns, cells, strict=True) if not is_missing(cell)]
        # Only words alone are named, so that a clip has one id with its words and without.
        if not held and TEXT in table and not is_blank(table[TEXT].iloc[i]):
            held = [TEXT]
        if not held:
            raise ValueError(f"make_row_ids: row {i} (clip {clip!r}) has no cell.")
        name = f"{clip}#{'+'.join(held)}"
        counts[name] += 1
        ids.append(name if counts[name] == 1 else f"{name}:{counts[name]}")
    return ids


def save_splits(
    path: str | os.PathLike, cv, ids: Sequence[str], *, X=None, y=None, groups=None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Write the splits of a corpus to a JSON file, by the names of the rows.

    The file holds, for every fold, the names of its training and test rows in
    their order; the protocol with its parameters and seed; the versions that
    made it; and SHA-256 sums over the names, each fold and the whole. It is
    complete or not there: it is written under another name first. A file of
    that name is replaced.

    Parameters
    ----------
    path : path-like
        The file; missing folders are made.
    cv : Protocol, splitter, int or iterable of (train, test)
        What divides the rows. A splitter needs ``X``; an integer is a number of folds, as
        everywhere in scikit-learn; an iterable gives row positions.
    ids : sequence of str of length n
        Names of the rows, each once: clips, or :func:`make_row_ids` where a
        clip has several rows.
    X : DataFrame or object ndarray of shape (n, 2), default=None
        Modality table.
    y, groups : array-like of shape (n,), default=None
        Labels and speakers, for splitters that need them.

    Returns
    -------
    list of (train, test)
        The row positions that were saved, for ``cv=``: a splitter without a
        seed would give others when asked again.

    Raises
    ------
    TypeError
        If a name is not a string, or a part is not an array of integers.
    ValueError
        If names repeat, lengths differ, a splitter gets no table, there is no
        fold, or a fold has an empty part, a row twice, or a row that is not there.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.model_selection import KFold
    >>> ids = ["DC_a01", "DC_a02", "JE_a01", "JE_a02"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved = save_splits(f"{folder}/splits.json", KFold(2), ids, X=ids)
    ...     again = load_splits(f"{folder}/splits.json", ids[::-1])
    >>> saved[0], again[0]
    ((array([2, 3]), array([0, 1])), (array([1, 0]), array([3, 2])))
    """
    ids = _check_ids(ids, "save_splits")
    if isinstance(cv, numbers.Integral):
        cv = check_cv(cv, y, classifier=y is not None)
    if hasattr(cv, "split"):
        if X is None:
            raise ValueError("save_splits: a splitter needs the table; give X=.")
        if len(X) != len(ids):
            raise ValueError(f"save_splits: X has {len(X)} rows, but there are {len(ids)} ids.")
        splits = list(cv.split(X, y, groups))
    else:
        splits = list(cv)
    if not splits:
        raise ValueError("save_splits: there is no fold to save.")
    splits = [_check_fold(i, pair, ids) for i, pair in enumerate(splits)]
    folds = []
    for parts in splits:
        fold = {k: [ids[i] for i in part] for k, part in zip(TRAIN_TEST, parts, strict=True)}
        folds.append({**fold, "sha256": _digest(fold)})
    used = {i for pair in splits for part in pair for i in part.tolist()}
    protocol = _describe(cv)
    document = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "protocol": protocol,
        "seed": protocol["parameters"].get("random_state"),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("skfdan", "scikit-learn", "numpy")},
        },
        "n_ids": len(ids),
        "ids_sha256": _digest(sorted(ids)),
        "folds": folds,
        # Names that no fold uses; with those of the folds they are the corpus.
        "left_out": [name for i, name in enumerate(ids) if i not in used],
    }
    _write(Path(path), json.dumps({**document, "sha256": _digest(document)}, indent=1) + "\n")
    return splits


def load_splits(
    path: str | os.PathLike, ids: Sequence[str], *, allow_extra: bool = False
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read splits that :func:`save_splits` wrote, for the corpus at hand.

    Rows are found by name, so their order may be another one than when the
    splits were saved. All sums are checked.

    Parameters
    ----------
    path : path-like
        The file.
    ids : sequence of str of length n
        Names of the rows at hand, each once.
    allow_extra : bool, default=False
        Whether rows may be there that the file does not know; they are in no
        fold then.

    Returns
    -------
    list of (train, test)
        Row positions as integer arrays, in the order of the file, for ``cv=``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If a name is not a string.
    ValueError
        If the file is no split file, is of a later format, or was changed
        since it was written; if names repeat; if a row of a fold is not at
        hand, or a row at hand not in the file. The message names the row.

    Examples
    --------
    >>> import tempfile
    >>> ids = ["DC_a01", "DC_a02", "JE_a01"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save_splits(f"{folder}/splits.json", [([0, 1], [2])], ids)
    ...     load_splits(f"{folder}/splits.json", ids[:2])
    Traceback (most recent call last):
    ValueError: ... 1 of the 3 rows ... not at hand, first 'JE_a01' (fold 0, test)...
    """
    path = Path(path)
    ids = _check_ids(ids, "load_splits")
    document = _read(path)
    at = {name: i for i, name in enumerate(ids)}
    missing: dict[str, str] = {}
    known = set(document["left_out"])
    for i, fold in enumerate(document["folds"]):
        for part in TRAIN_TEST:
            known.update(fold[part])
            for name in fold[part]:
                if name not in at:
                    missing.setdefault(name, f"fold {i}, {part}")
    if missing:
        name, where = next(iter(missing.items()))
        raise ValueError(
            f"{str(path)!r}: {len(missing)} of the {document['n_ids']} rows of the splits are not "
            f"at hand, first {name!r} ({where}). Load the corpus as it was when they were saved "
            "(the same files, emotions and options), and name the rows in the same way."
        )
    extra = [name for name in ids if name not in known]
    if extra and not allow_extra:
        raise ValueError(
            f"{str(path)!r}: {len(extra)} of the {len(ids)} rows at hand are not in the splits, "
            f"first {extra[0]!r}. Load the corpus as it was when they were saved, or pass "
            "allow_extra=True to leave such rows out of every fold."
        )
    return [
        tuple(np.array([at[name] for name in fold[part]], dtype=np.intp) for part in TRAIN_TEST)
        for fold in document["folds"]
    ]


def _check_ids(ids: Sequence[str], who: str) -> list[str]:
    if isinstance(ids, str):
        raise TypeError(f"{who}: ids={ids!r} is one string; give a name a row.")
    ids = list(ids)
    for i, name in enumerate(ids):
        if not isinstance(name, str):
            raise TypeError(
                f"{who}: id {i} is {name!r}; ids are strings, such as the column `clip` of a "
                "loader's frame."
            )
    if not ids:
        raise ValueError(f"{who}: ids is empty; give a name a row.")
    name, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise ValueError(
            f"{who}: the id {name!r} is there {count} times, so it names no row. If a clip has "
            "several rows (voice, face, frames), use make_row_ids(table, clips)."
        )
    # np.str_ is a str, but a plain one is what json gives back.
    return [str(name) for name in ids]


def _check_fold(i: int, pair: Iterable, ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    parts = [np.asarray(part) for part in pair]
    if len(parts) != 2:
        raise ValueError(f"save_splits: fold {i} has {len(parts)} parts, not (train, test).")
    for name, part in zip(TRAIN_TEST, parts, strict=True):
        where = f"save_splits: the {name} part of fold {i}"
        if part.ndim != 1 or part.size == 0:
            raise ValueError(f"{where} must be a list of rows, not of shape {part.shape}.")
        if part.dtype.kind not in "iu":
            raise TypeError(f"{where} must be integers, not {part.dtype} (np.flatnonzero(mask)).")
        if part.min() < 0 or part.max() >= len(ids):
            wrong = part.min() if part.min() < 0 else part.max()
            raise ValueError(f"{where} has row {wrong}, but there are {len(ids)} ids.")
        rows, counts = np.unique(part, return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"{where} has {ids[rows[counts.argmax()]]!r} more than once.")
    both = np.intersect1d(*parts)
    if len(both):
        raise ValueError(
            f"save_splits: {ids[both[0]]!r} is in both parts of fold {i} ({len(both)} such rows): "
            "what trains can't be tested."
        )
    train, test = (part.astype(np.intp) for part in parts)
    return train, test


def _describe(cv) -> dict[str, Any]:
    if isinstance(cv, Protocol):
        return {"name": cv.name, "description": cv.description, "parameters": cv.parameters}
    description = repr(cv) if hasattr(cv, "split") else "given row by row"
    return {"name": "custom", "description": description, "parameters": {}}


def _digest(value: Any) -> str:
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")
    ).hexdigest()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="ascii", newline="\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not JSON, so no split file: {error}") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError(f"{str(path)!r} is no split file; save_splits writes those.")
    if document.get("format_version") != _FORMAT_VERSION:
        raise ValueError(
            f"{str(path)!r} is a split file of format version {document.get('format_version')!r}; "
            f"this version of skfdan reads {_FORMAT_VERSION}. Update skfdan, or make the splits "
            "anew with save_splits."
        )
    changed = _find_change(document)
    if changed:
        raise ValueError(
            f"{str(path)!r} was changed after it was written: {changed}. Restore the file, or make "
            "the splits anew with save_splits."
        )
    return document


def _find_change(document: dict[str, Any]) -> str | None:
    try:
        names = set(document["left_out"])
        for i, fold in enumerate(document["folds"]):
            if fold["sha256"] != _digest({part: fold[part] for part in TRAIN_TEST}):
                return f"fold {i} does not have its SHA-256 sum"
            names.update(*(fold[part] for part in TRAIN_TEST))
        if document["ids_sha256"] != _digest(sorted(names)):
            return "the names of the rows do not have their SHA-256 sum"
        rest = {key: value for key, value in document.items() if key != "sha256"}
        if document["sha256"] != _digest(rest):
            return "the whole does not have its SHA-256 sum, so a fold, protocol or seed is another"
    except (KeyError, TypeError) as error:
        return f"a part is missing or of another kind ({error!r})"
    return None
