"""Named protocols: which voices are tested, and what trains."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from sklearn.model_selection import BaseCrossValidator, GroupKFold, KFold, StratifiedShuffleSplit
from sklearn.utils import indexable

from skfdan.table import is_missing

from ._holdout import AudioHoldout, audio_rows, labelled_voices

__all__ = ["PROTOCOLS", "Protocol", "make_protocol"]

#: The names that :func:`make_protocol` knows.
PROTOCOLS = ("paper", "disjoint", "meld-official", "gmtcnet")

_DESCRIPTIONS = {
    "paper": (
        "Two tenths of the voices of every class, drawn at random, are tested; all faces train, "
        "so the faces of the test utterances and other voices of the test speakers are seen in "
        "training."
    ),
    "disjoint": (
        "The voices of whole speakers are tested, every speaker in one fold; no voice and no face "
        "of a test speaker trains, and only sentences that several speakers say may recur."
    ),
    "gmtcnet": (
        "Ten random folds of the voices, stratified by neither class nor speaker, are tested in "
        "turn; all faces train, so the faces of the test utterances and other voices of the test "
        "speakers are seen in training."
    ),
}
#: What becomes of MELD's dev part -> parts that train, part that is tested, description.
_OFFICIAL = {
    "train": (
        ("train", "dev"),
        "test",
        "The voices of MELD's test part are tested and its train and dev parts train; no face of "
        "a test utterance trains, but other voices and faces of nearly all test speakers do.",
    ),
    "leave-out": (
        ("train",),
        "test",
        "The voices of MELD's test part are tested, its train part trains and its dev part is "
        "left out; no face of a test utterance trains, but other voices and faces of nearly all "
        "test speakers do.",
    ),
    "test": (
        ("train",),
        "dev",
        "The voices of MELD's dev part are tested, its train part trains and its test part is "
        "left out; no face of a dev utterance trains, but other voices and faces of nearly all "
        "its speakers do.",
    ),
}


class Protocol(BaseCrossValidator):
    """A splitter that has a name and says what it holds out and what leaks.

    Goes wherever scikit-learn takes ``cv=``. :func:`make_protocol` makes the
    named ones; a protocol of your own is made from any splitter.

    Parameters
    ----------
    name : str
        Short name, for tables and files.
    cv : splitter
        What divides the rows: an object with ``split(X, y, groups)`` and
        ``get_n_splits(X, y, groups)``.
    description : str
        One sentence: what is tested, and what of it is seen in training.
    parameters : mapping of str to object, default=None
        What the splits depend on, such as the seed, in types that JSON knows.
        None is an empty mapping.

    Examples
    --------
    >>> from sklearn.model_selection import LeaveOneGroupOut
    >>> loso = Protocol("loso", AudioHoldout(LeaveOneGroupOut(), "disjoint"),
    ...                 "The voices of one speaker are tested; nothing else of them is seen.")
    >>> loso
    Protocol('loso', AudioHoldout(LeaveOneGroupOut(), visual='disjoint'))
    """

    __metadata_request__split: ClassVar = {"groups": True}

    def __init__(
        self, name: str, cv, description: str, parameters: Mapping[str, Any] | None = None
    ):
        self.name = name
        self.cv = cv
        self.description = description
        self.parameters = dict(parameters or {})

    def split(self, X, y=None, groups=None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield training and test rows, as the splitter inside does.

        Parameters
        ----------
        X : DataFrame or object ndarray of shape (n, 2)
            Modality table with one filled cell a row, or its cells.
        y, groups : array-like of shape (n,), default=None
            Labels and speakers.

        Yields
        ------
        train, test : ndarray of int
            Row positions. The named protocols test no voice whose label is missing.
        """
        yield from self.cv.split(X, y, groups)

    def get_n_splits(self, X=None, y=None, groups=None) -> int:
        """Return the number of splits.

        Parameters
        ----------
        X : DataFrame or object ndarray of shape (n, 2), default=None
            Modality table.
        y, groups : array-like of shape (n,), default=None
            Labels and speakers.

        Returns
        -------
        int
            The number of splits.
        """
        return self.cv.get_n_splits(X, y, groups)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.cv!r})"


class TwoTenths(StratifiedShuffleSplit):
    """Draw two tenths of the voices of every class, and tell where that cannot be."""

    def split(self, X, y=None, groups=None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the positions of training and test voices."""
        if y is None:
            raise ValueError(
                "Protocol 'paper' draws from the voices of every class; give split(X, y)."
            )
        classes, counts = (found.tolist() for found in np.unique(y, return_counts=True))
        fewest = int(np.argmin(counts))
        if counts[fewest] < 2:
            raise ValueError(
                f"Protocol 'paper' divides the voices of every class, but the class "
                f"{classes[fewest]!r} has only one; leave that voice out, or add others of its "
                "class."
            )
        n_test = int(np.ceil(self.test_size * len(y)))
        if n_test < len(classes):
            raise ValueError(
                f"Protocol 'paper' would test {n_test} of {len(y)} voices, fewer than the "
                f"{len(classes)} classes; add voices, or leave rare classes out."
            )
        splits = list(super().split(X, y, groups))
        for label, count in zip(classes, counts, strict=True):
            lacking = [i for i, (_, test) in enumerate(splits) if not (y[test] == label).any()]
            if lacking:
                warnings.warn(
                    f"Protocol 'paper' tests no voice of the class {label!r}, which has {count}, "
                    f"in {len(lacking)} of {len(splits)} folds (first {lacking[0]}): their UAR is "
                    "the mean over the other classes. Leave the class out, or add voices.",
                    UserWarning,
                    stacklevel=2,
                )
        yield from splits


class OfficialParts:
    """Train and test on the parts that a corpus itself names; one split.

    A face goes with the part of its utterance: those of tested utterances do
    not train, unlike in :class:`AudioHoldout` with ``visual="all"``, and
    neither do those of a part that is left out. A row without a part (a face
    of another corpus) trains. A voice without a label trains if its part does,
    and is not tested.
    """

    def __init__(self, parts, train: tuple[str, ...], test: str):
        self.parts = parts
        self.train = train
        self.test = test

    def split(self, X, y=None, groups=None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the training and the test rows."""
        X, y = indexable(X, y)
        audio = audio_rows(X, "The official split")
        labelled = audio[labelled_voices(y, audio, "The official split")]
        if len(self.parts) != len(X):
            raise ValueError(
                f"The official split has {len(self.parts)} parts for {len(X)} rows. Give the part "
                "of every row of the table that is split: table, row, _ = unpair(data.table, "
                "np.arange(len(data.table))); parts = data.frame['split'].to_numpy()[row]."
            )
        bare = audio[self.parts[audio] == ""]
        if len(bare):
            raise ValueError(
                f"Row {bare[0]} is a voice without a part ({len(bare)} such rows); only faces of "
                "another corpus have none."
            )
        test = labelled[self.parts[labelled] == self.test]
        train = np.flatnonzero(np.isin(self.parts, [*self.train, ""]))
        for role, rows, wanted in (("tested", test, [self.test]), ("trains", train, self.train)):
            if not np.isin(rows, audio).any():
                raise ValueError(
                    f"No {'labelled ' if role == 'tested' else ''}voice of the part "
                    f"{' or '.join(map(repr, wanted))} is there, so nothing "
                    f"{'is ' if role == 'tested' else ''}{role}; the voices' parts are "
                    f"{sorted(set(self.parts[audio].tolist()))}."
                )
        yield train, test

    def get_n_splits(self, X=None, y=None, groups=None) -> int:
        """Return 1."""
        return 1

    def __repr__(self) -> str:
        return f"{type(self).__name__}(train={self.train!r}, test={self.test!r})"


def make_protocol(
    name: str,
    *,
    n_splits: int | None = None,
    random_state: int | None = None,
    parts=None,
    dev: str | None = None,
) -> Protocol:
    """Make one of the protocols that results of this toolkit are reported under.

    All of them test voices alone, and work on a modality table with one filled
    cell a row (:func:`skfdan.unpair`), with faces or without. A voice whose label is
    missing (None or NaN, not -1) is never tested. It trains, but not where its speaker
    ("disjoint") or its part ("meld-official") is held out.

    =============  ==========================================================
    paper          FDAN's: 8/10 of the voices of every class and all faces
                   train, 2/10 of the voices are tested. The number of draws
                   is ours; the paper does not speak of any.
    disjoint       The honest twin: folds of whole speakers, of whom neither
                   voice nor face trains. ``split`` needs ``groups``.
    meld-official  MELD's own parts, as most publications on MELD report.
                   Faces train by the part of their utterance. The parts
                   share their main speakers.
    gmtcnet        That of GM-TCNet's released code: ``KFold(10,
                   shuffle=True, random_state=32)``. All faces train.
    =============  ==========================================================

    Parameters
    ----------
    name : {"paper", "disjoint", "meld-official", "gmtcnet"}
        The protocol.
    n_splits : int or None, default=None
        Random draws of "paper" (at least 1) or folds of "disjoint" (at least
        2); None is 5. The others have a fixed number.
    random_state : int or None, default=None
        Seed of "paper" and "disjoint"; None is 0, as a protocol's splits must
        be repeatable. "gmtcnet" has the seed 32, "meld-official" draws nothing.
    parts : array-like of shape (n,) or None, default=None
        For "meld-official" only, which needs it: "train", "dev" or "test" for
        every row of the table that will be split. A face of another corpus
        has a missing part, or "", and trains.
    dev : {"train", "leave-out", "test"} or None, default=None
        For "meld-official" only: whether the dev part trains too, is left out,
        or is tested instead of the test part, which is then left out: do that
        to choose a parameter. None is "train".

    Returns
    -------
    Protocol
        A splitter, with ``name``, ``description`` (one sentence on what is
        held out and what leaks) and ``parameters``.

    Raises
    ------
    ValueError
        If the name is unknown, or an argument is not the protocol's.

    References
    ----------
    S. Li, Y. Ji, P. Song, H. Sun and W. Zheng, "Multi-modal Speech Emotion
    Recognition via Feature Distribution Adaptation Network", Section 3.2.

    S. Poria, D. Hazarika, N. Majumder, G. Naik, E. Cambria and R. Mihalcea,
    "MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in
    Conversations", Proc. ACL, 2019.

    J.-X. Ye et al., "GM-TCNet: Gated Multi-scale Temporal Convolutional Network
    using Emotion Causality for Speech Emotion Recognition", Speech
    Communication 145, 2022.

    Examples
    --------
    >>> from skfdan import make_table, unpair
    >>> clips = make_table(visual=list("abcdefghij"), audio=list("abcdefghij"))
    >>> table, y, speakers = unpair(clips, [0, 1] * 5, groups=[1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
    >>> protocol = make_protocol("disjoint", n_splits=5, random_state=1)
    >>> train, test = next(protocol.split(table, y, speakers))
    >>> set(speakers[train]) & set(speakers[test])
    set()

    MELD's clips hold a face and a voice; ``unpair`` tells which clip a row is of:

    >>> part_of_clip = np.array(["train"] * 7 + ["dev"] + ["test"] * 2)
    >>> table, row, _ = unpair(clips, np.arange(len(clips)))
    >>> protocol = make_protocol("meld-official", parts=part_of_clip[row])
    >>> train, test = next(protocol.split(table))
    >>> row[test].tolist(), sorted(set(row[train].tolist()))
    ([8, 9], [0, 1, 2, 3, 4, 5, 6, 7])
    """
    if name not in PROTOCOLS:
        raise ValueError(f"The protocol {name!r} is not known; it must be one of {PROTOCOLS}.")
    if name != "meld-official":
        for argument, value in (("parts", parts), ("dev", dev)):
            _check(value is None, name, argument, value, "is of 'meld-official' alone")
    if name == "meld-official":
        _check(n_splits in (None, 1), name, "n_splits", n_splits, "must be 1: the split is MELD's")
        _check(random_state is None, name, "random_state", random_state, "draws nothing")
        dev = "train" if dev is None else dev
        _check(dev in _OFFICIAL, name, "dev", dev, f"must be one of {list(_OFFICIAL)}")
        train, test, description = _OFFICIAL[dev]
        cv = OfficialParts(_as_parts(parts), train, test)
        return Protocol(name, cv, description, {"dev": dev})
    if name == "gmtcnet":
        _check(n_splits in (None, 10), name, "n_splits", n_splits, "must be 10, as in its code")
        _check(
            random_state in (None, 32), name, "random_state", random_state, "must be 32, as there"
        )
        cv = AudioHoldout(KFold(10, shuffle=True, random_state=32), visual="all")
        return Protocol(
            name, cv, _DESCRIPTIONS[name], {"n_splits": 10, "random_state": 32, "visual": "all"}
        )
    fewest = 1 if name == "paper" else 2
    n_splits = 5 if n_splits is None else n_splits
    random_state = 0 if random_state is None else random_state
    whole = isinstance(n_splits, Integral) and n_splits >= fewest
    _check(whole, name, "n_splits", n_splits, f"must be an integer of at least {fewest}")
    seed = isinstance(random_state, Integral) and random_state >= 0
    _check(seed, name, "random_state", random_state, "must be an integer of at least 0")
    parameters: dict[str, Any] = {"n_splits": int(n_splits), "random_state": int(random_state)}
    if name == "paper":
        inner = TwoTenths(test_size=0.2, **parameters)
        parameters = {**parameters, "test_size": 0.2, "visual": "all"}
    else:
        inner = GroupKFold(shuffle=True, **parameters)
        parameters = {**parameters, "visual": "disjoint"}
    cv = AudioHoldout(inner, visual=parameters["visual"])
    return Protocol(name, cv, _DESCRIPTIONS[name], parameters)


def _check(good: bool, name: str, argument: str, value: Any, why: str) -> None:
    if not good:
        raise ValueError(f"Protocol {name!r}: {argument}={value!r}: {argument} {why}.")


def _as_parts(parts) -> np.ndarray:
    if parts is None:
        raise ValueError(
            "Protocol 'meld-official' needs parts=: 'train', 'dev' or 'test' for every row of the "
            "table that is split, from the column `split` of load_meld(...).frame."
        )
    array = np.array(["" if is_missing(part) else part for part in parts], dtype=object)
    for row, part in enumerate(array):
        if part not in ("", "train", "dev", "test"):
            raise ValueError(
                f"Protocol 'meld-official': the part of row {row} is {part!r}; it must be 'train', "
                "'dev' or 'test', or missing for a face of another corpus."
            )
    return array.astype(str)
