"""Which part of a corpus is tested, and how that is told."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupShuffleSplit, StratifiedShuffleSplit
from sklearn.utils import Bunch

from skfdan.cli._shared import NOUNS, count, n_speakers
from skfdan.table import make_table


class Holdout(NamedTuple):
    """A corpus in two parts.

    Attributes
    ----------
    lead : str
        The modality that is tested: audio, or visual if there is no voice.
    table, y : DataFrame and ndarray
        What trains.
    rows : ndarray of int
        Rows of the corpus that are tested.
    test, y_test : DataFrame and ndarray
        Their cells of the leading modality, and labels.
    description : str
        The protocol, in words.
    speakers : list of str
        Those who are tested and do not train.
    """

    lead: str
    table: pd.DataFrame
    y: np.ndarray
    rows: np.ndarray
    test: pd.DataFrame
    y_test: np.ndarray
    description: str
    speakers: list[str]


def hold_out(data: Bunch, protocol: str | None, share: float, seed: int) -> Holdout:
    """Divide a corpus.

    Parameters
    ----------
    data : Bunch
        What a loader returned.
    protocol : {"disjoint", "paper", "none"} or None
        None is "disjoint" where speakers are known; where they are not, clips are drawn.
    share : float
        Of the speakers, voices or clips.
    seed : int
        Seed of the draw.

    Returns
    -------
    Holdout
        Both parts.
    """
    table, y = data.table, np.asarray(data.target)
    if len(set(y.tolist())) < 2:
        raise ValueError(
            f"There is one emotion alone, {str(y[0])!r}; a classifier needs at least two to tell "
            "apart."
        )
    lead = "audio" if table["audio"].notna().any() else "visual"
    noun = NOUNS[lead]
    known = n_speakers(data) is not None
    leading = np.flatnonzero(table[lead].notna())
    tested, trains, speakers = np.array([], dtype=int), table, []
    drawn = f"drawn at random (one draw, seed {seed})"
    if protocol == "none":
        description = "none: every clip trained, nothing was tested."
    elif protocol == "paper":
        if lead != "audio":
            raise ValueError("--protocol paper tests voices, and the corpus has none.")
        tested = leading[_stratified(y[leading], share, seed, "voices")]
        trains = table.assign(audio=table["audio"].where(~_mask(tested, len(table)), None))
        description = (
            f"paper: {len(tested):,} of {count(len(leading), 'voice')}, stratified by emotion and "
            f"{drawn}, were tested; all faces trained, so the faces of the test utterances and "
            "other voices of the test speakers were seen in training."
        )
    elif known:
        rows, speakers = _speakers(np.asarray(data.groups), leading, share, seed)
        tested = leading[np.isin(leading, rows)]
        trains = table[~_mask(rows, len(table))]
        n = len(set(np.asarray(data.groups)[leading].tolist()))
        description = (
            f"disjoint: the {count(len(tested), noun)} of {len(speakers)} of "
            f"{count(n, 'speaker')}, {drawn}, were tested; no voice and no face of a test "
            "speaker trained."
        )
    elif protocol == "disjoint":
        raise ValueError(
            "--protocol disjoint needs speakers, and they are unknown: give --speaker-pattern, or "
            "a column speaker in the csv file."
        )
    else:
        tested = leading[_stratified(y[leading], share, seed, "clips")]
        trains = table[~_mask(tested, len(table))]
        description = (
            f"clips: the {noun}s of {len(tested):,} of {count(len(leading), 'clip')}, stratified "
            f"by emotion and {drawn}, were tested; the speakers are unknown, so other clips of the "
            "test speakers may have trained: these scores are not speaker-independent."
        )
    trains = trains[trains.notna().any(axis=1)]
    y_train = y[trains.index.to_numpy()]
    _check_emotions(y_train, y)
    return Holdout(
        lead,
        trains.reset_index(drop=True),
        y_train,
        tested,
        make_table(**{lead: table[lead].iloc[tested]}),
        y[tested],
        description,
        speakers,
    )


def _mask(rows: np.ndarray, n: int) -> np.ndarray:
    return np.isin(np.arange(n), rows)


def _stratified(y: np.ndarray, share: float, seed: int, what: str) -> np.ndarray:
    emotions, counts = np.unique(y, return_counts=True)
    if counts.min() < 2:
        raise ValueError(
            f"There is one of the {what} alone for the emotion {str(emotions[counts.argmin()])!r}: "
            "it can't train and be tested. Add more, leave it out, or give --protocol none."
        )
    n = math.ceil(share * len(y))  # as scikit-learn does
    if not len(emotions) <= n <= len(y) - len(emotions):
        raise ValueError(
            f"--holdout {share:g} of {len(y):,} {what} is {n:,}: too few or too many for "
            f"{len(emotions)} emotions to train and be tested."
        )
    cv = StratifiedShuffleSplit(1, test_size=share, random_state=seed)
    return np.sort(next(cv.split(y, y))[1])


def _speakers(
    groups: np.ndarray, leading: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, list[str]]:
    """Return all rows of the speakers that are held out, and their names."""
    n = len(set(groups[leading].tolist()))
    if n < 2:
        raise ValueError(
            "There is one speaker alone, who can't train and be tested: give --protocol paper, "
            "which is not speaker-independent, or --protocol none."
        )
    n_test = min(max(1, round(share * n)), n - 1)
    cv = GroupShuffleSplit(1, test_size=n_test, random_state=seed)
    _, test = next(cv.split(leading, groups=groups[leading]))
    speakers = sorted(set(groups[leading[test]].tolist()))
    return np.flatnonzero(np.isin(groups, speakers)), speakers


def _check_emotions(trained: np.ndarray, y: np.ndarray) -> None:
    missing = sorted(set(y.tolist()) - set(trained.tolist()))
    if missing:
        raise ValueError(
            f"Nothing of the emotion {missing[0]!r} would train: all of it belongs to the part "
            "that is tested. Give another --seed or --holdout."
        )
