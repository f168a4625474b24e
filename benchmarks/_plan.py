"""From tables to cells: which rows, faces, protocols, folds and seeds."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _cells import Cell, make_cell, read_cell
from _corpora import OWN, Corpus, Source
from _methods import METHODS, Row, rows_of
from _setting import Setting
from sklearn.model_selection import GroupShuffleSplit, StratifiedShuffleSplit

from skfdan import AudioHoldout
from skfdan.model_selection import PROTOCOLS, Protocol, make_protocol, save_splits

#: Leave-one-session-out, of the companion tables on IEMOCAP.
SESSIONS = "sessions"
CHOICES = (*PROTOCOLS, "both", SESSIONS)
#: What the companion tables are run under unless they are told: the papers' own.
COMPANION_PROTOCOLS = {"iemocap": SESSIONS, "meld": "meld-official"}
#: Share of the training voices (or speakers) that a choice is validated on.
_VALIDATION = 0.2


@dataclass(frozen=True, eq=False)
class Split:
    protocol: str
    fold: int
    train: np.ndarray
    test: np.ndarray


@dataclass
class Line:
    """A printed row: its cells of each protocol, or why there are none."""

    name: str
    row: Row
    faces: tuple[str, ...] = ()
    cells: dict[str, list[Cell]] = field(default_factory=dict)
    candidates: dict[str, list[Cell]] = field(default_factory=dict)
    chosen: dict[str, list] = field(default_factory=dict)
    problem: str = ""

    @property
    def fidelity(self) -> str:
        return METHODS[self.row.method].fidelity if self.row.method in METHODS else ""

    @property
    def seeded(self) -> bool:
        return self.row.method not in METHODS or METHODS[self.row.method].seeded


class LastSessions:
    """Test whole sessions, the last ones of a corpus, each once; all others train."""

    def __init__(self, sessions: np.ndarray, n_splits: int):
        self.sessions = sessions
        known = sorted(set(sessions))
        if len(known) < 2:
            raise ValueError(
                f"--protocol {SESSIONS} needs at least two sessions; {known} are here."
            )
        self.tested = known[-n_splits:]

    def split(self, X, y=None, groups=None):
        """Yield the training and the test rows."""
        for session in self.tested:
            tested = self.sessions == session
            yield np.flatnonzero(~tested), np.flatnonzero(tested)

    def get_n_splits(self, X=None, y=None, groups=None) -> int:
        """Return the number of sessions that are tested."""
        return len(self.tested)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tested})"


def protocols_of(names: list[str] | None, corpus: str, companion: str = "") -> list[str]:
    """Check protocol names; ``both`` is paper and disjoint."""
    names = names or [COMPANION_PROTOCOLS[corpus] if companion else "both"]
    for name in names:
        if name not in CHOICES:
            raise ValueError(f"--protocol {name!r} is unknown; choose from {', '.join(CHOICES)}.")
        if name == "meld-official" and corpus != "meld":
            raise ValueError("--protocol meld-official is MELD's; it needs --corpus meld.")
        if name == SESSIONS and not (companion and corpus == "iemocap"):
            raise ValueError(
                f"--protocol {SESSIONS} is of IEMOCAP in the companion tables; it needs "
                "--corpus iemocap and --table fdrl or wavfusion."
            )
        if companion and name not in (SESSIONS, "meld-official", "disjoint"):
            raise ValueError(
                f"--protocol {name} divides voices and faces apart; --table {companion} reads "
                f"whole utterances: choose from {SESSIONS}, meld-official, disjoint."
            )
    wide = ["paper", "disjoint"] if "both" in names else []
    return list(dict.fromkeys([*wide, *(name for name in names if name != "both")]))


def named_protocol(corpus: Corpus, name: str, folds: int) -> Protocol:
    """Make a protocol for the rows of a corpus, with as many folds as it can have."""
    if name == "disjoint":
        if not corpus.speakers_known:
            raise ValueError(
                f"--protocol disjoint keeps speakers apart; who speaks in {corpus.title} is not "
                "known here. Choose --protocol paper."
            )
        speakers = len(set(corpus.groups[corpus.heard]))
        if speakers < 2:
            raise ValueError(
                f"--protocol disjoint needs at least two speakers; {corpus.title} has {speakers} "
                "here. Choose --protocol paper."
            )
        return make_protocol(name, n_splits=max(2, min(folds, speakers)))
    if name == SESSIONS:
        cv = LastSessions(corpus.parts, folds)
        return Protocol(
            name,
            cv,
            "All utterances of one session are tested and those of the others train, so the two "
            "speakers tested are not heard in training, but the scripts that they read are: "
            f"session {', '.join(cv.tested)} in turn.",
            {"tested": cv.tested},
        )
    if name == "paper":
        return make_protocol(name, n_splits=folds)
    if name == "meld-official":
        return make_protocol(name, parts=corpus.parts)
    return make_protocol(name)


def make_splits(corpus: Corpus, protocol: Protocol, out: Path) -> list[Split]:
    """Divide the voices, and keep the ids of every fold in a file.

    Other folds of that protocol in the folder keep their file; these get one whose name
    bears their hash.
    """
    target = Path(out) / "splits" / f"{protocol.name}.json"
    written = target.with_name(f".{os.getpid()}-{target.name}")
    saved = save_splits(
        written,
        protocol,
        corpus.ids.tolist(),
        # The protocols divide voices; an utterance goes with its voice.
        X=corpus.table.assign(visual=None) if "text" in corpus.table else corpus.table,
        y=corpus.y,
        groups=corpus.groups,
    )
    digest = _digest_of_folds(written)
    if target.exists() and _digest_of_folds(target) != digest:
        target = target.with_name(f"{protocol.name}-{digest}.json")
    os.replace(written, target)
    return [Split(protocol.name, fold, *rows) for fold, rows in enumerate(saved)]


def _digest_of_folds(path: Path) -> str:
    folds = json.loads(path.read_text(encoding="utf-8"))["folds"]
    return hashlib.sha256("".join(fold["sha256"] for fold in folds).encode()).hexdigest()[:8]


def inner_split(corpus: Corpus, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Divide the training rows of a fold as the fold itself was divided."""
    if split.protocol == "meld-official":
        inner = make_protocol(split.protocol, parts=corpus.parts, dev="test")
        return next(inner.split(corpus.table))
    if split.protocol == "disjoint":
        holdout = AudioHoldout(
            GroupShuffleSplit(1, test_size=_VALIDATION, random_state=0), visual="disjoint"
        )
    else:
        holdout = AudioHoldout(
            StratifiedShuffleSplit(1, test_size=_VALIDATION, random_state=0), visual="all"
        )
    rows = split.train
    parts = holdout.split(corpus.table.iloc[rows], corpus.y[rows], corpus.groups[rows])
    train, valid = next(parts)
    return rows[train], rows[valid]


def face_sets(corpus: Corpus, source: Source, table: str) -> list[tuple[str, ...]]:
    """Return the faces of each row of a table: more than one set in Table 3 only."""
    others = [name for name, _ in source.faces]
    names = [OWN, *others] if (corpus.origin == OWN).any() else others
    if not names:
        return []
    base, more = (names[0],), names[1:]
    if table != "3":
        return [base]
    sets = [base, *((*base, name) for name in more)]
    return [*sets, tuple(names)] if len(more) > 1 else sets


def plan_lines(
    corpus: Corpus,
    source: Source,
    setting: Setting,
    splits: list[Split],
    table: str,
    estimators: list[str] | None,
) -> list[Line]:
    """Lay out the lines of one table with their cells."""
    sets = face_sets(corpus, source, table)
    lines = []
    for row in rows_of(table, estimators):
        if row.slow and setting.quick and not estimators:
            reason = "too slow for --quick; name it in --estimators"
            lines.append(Line(row.name, row, problem=reason))
            continue
        how = METHODS[row.method]
        if how.faces and not sets:
            reason = "needs faces: the corpus has no video here, and no --faces is given"
            lines.append(Line(row.name, row, problem=reason))
            continue
        lacking = set(how.modalities) - corpus.modalities
        if lacking:
            reason = f"reads {' and '.join(how.modalities)}; {corpus.title} has no "
            lines.append(Line(row.name, row, problem=reason + f"{' and '.join(lacking)} here"))
            continue
        for faces in sets if how.faces else [()]:
            line = Line(_name(row, table, corpus, faces), row, faces)
            lines.append(line)
            try:
                _fill(line, corpus, source, setting, splits)
            except (ImportError, AttributeError, TypeError, ValueError) as error:
                line.cells, line.candidates = {}, {}
                line.problem = f"{type(error).__name__}: {error}"
    if table == "3" and lines:
        lines += _missing_faces(lines[0].row, corpus, source)
    return lines


def _missing_faces(row: Row, corpus: Corpus, source: Source) -> list[Line]:
    """Say which rows of Table 3 there could be with other data."""
    found = []
    if not (corpus.origin == OWN).any():
        name = f"{row.name}: {corpus.title} voices, faces of {corpus.title}"
        found.append(Line(name, row, (OWN,), problem="the corpus has no video here"))
    if len(face_sets(corpus, source, "3")) < 2:
        name = f"{row.name}: {corpus.title} voices, faces of several corpora"
        found.append(Line(name, row, problem="one source of faces only: give another --faces"))
    return found


def _name(row: Row, table: str, corpus: Corpus, faces: tuple[str, ...]) -> str:
    if table != "3":
        return row.name
    return (
        f"{row.name}: {corpus.title} voices, faces of {' + '.join(map(corpus.face_title, faces))}"
    )


def _fill(line: Line, corpus, source, setting: Setting, splits: list[Split]) -> None:
    how = METHODS[line.row.method]
    for split in splits:
        common = {"protocol": split.protocol, "fold": split.fold}
        arguments = (corpus, source, setting, line.row.method, line.faces)
        if how.grid:
            train, valid = inner_split(corpus, split)
            line.candidates.setdefault(split.protocol, []).extend(
                make_cell(
                    *arguments, train, valid, **common, seed=0, role="selection", overrides=choice
                )
                for choice in how.grid
            )
            continue
        line.cells.setdefault(split.protocol, []).extend(
            make_cell(*arguments, split.train, split.test, **common, seed=seed)
            for seed in range(setting.seeds if how.seeded else 1)
        )


def choose(
    line: Line,
    corpus,
    source,
    setting: Setting,
    splits: list[Split],
    out: Path,
    failed: Collection[str],
) -> None:
    """Turn the candidates of a line into its cells: the best validation UAR of every fold.

    ``failed`` has the keys of the cells that were run and failed.
    """
    for split in splits:
        scored = []
        for cell in line.candidates[split.protocol]:
            if cell.fold != split.fold:
                continue
            record = read_cell(cell, out)
            if record is None:
                if cell.key in failed:
                    line.problem = "a candidate of the selection failed"
                    return
                line.problem = "the selection is not finished; the same command goes on"
                continue
            scores = next(iter(record["scores"].values()))
            scored.append((scores["UAR"], cell.overrides))
        if line.problem:
            continue
        # The first of equals: the grid begins with the smallest values.
        best = max(scored, key=lambda pair: pair[0])[1]
        line.chosen.setdefault(split.protocol, []).append(best)
        line.cells.setdefault(split.protocol, []).extend(
            make_cell(
                corpus,
                source,
                setting,
                line.row.method,
                line.faces,
                split.train,
                split.test,
                protocol=split.protocol,
                fold=split.fold,
                seed=seed,
                overrides=best,
            )
            for seed in range(setting.seeds)
        )
