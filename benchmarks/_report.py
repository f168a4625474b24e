"""Tables: our numbers beside the published ones, with sources and caveats."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _cells import hash_ids, read_cell
from _corpora import COMPANIONS
from _methods import ROWS, Row
from _plan import Line

from skfdan.metrics import SCORES

#: The corpora of the papers' tables, as load_published_results names them.
PAPER_CORPORA = {"savee": "SAVEE", "meld": "MELD", "iemocap": "IEMOCAP"}
#: Table -> whose numbers stand beside ours, and from which of that paper's tables.
PAPERS = {
    **{name: ("FDAN", (int(name),)) for name in ("1", "2", "3", "4")},
    "fdrl": ("FDRL", (1, 2)),
    "wavfusion": ("WavFusion", (1, 2, 3, 4, 5, 6)),
}
#: What the papers call our metrics.
METRICS = {"ACC": "WAR", "WF1": "wF1"}
#: Rows that the others of a table are compared with, fold by fold and seed by seed.
REFERENCES = {
    "4": "FDAN",
    "questions": "voices only",
    "adaptation": "no adaptation",
    "fdrl": "FDRL",
    "wavfusion": "WavFusion",
}
TITLES = {
    "1": "FDAN Table 1 (methods, SAVEE in the paper)",
    "2": "FDAN Table 2 (methods, MELD in the paper)",
    "3": "FDAN Table 3 (faces of several corpora)",
    "4": "FDAN Table 4 (ablation)",
    "questions": "What do the faces add?",
    "adaptation": "Which adaptation loss?",
    "fdrl": "FDRL Tables 1 and 2 (voice and words; IEMOCAP, 4 emotions, in the paper)",
    "wavfusion": "WavFusion Tables 1 to 6 (voice, words and faces; IEMOCAP, 6 emotions, and "
    "MELD in the paper)",
}
FIDELITY = {
    "exact": "every fact of the method is public",
    "partial": "the method is public, some settings are not",
    "reconstructed": "details of the method had to be guessed",
    "style": "only the idea is public",
}


@dataclass
class Published:
    """Numbers of one row on one corpus, in percent, and what to know about them."""

    corpus: str
    values: dict[str, float]
    source: str
    notes: list[str]
    available: str


@dataclass
class Scores:
    """Scores of a line under one protocol, one a run."""

    #: Fold and seed of each finished run, and of all that are planned.
    keys: list[tuple[int, int]] = field(default_factory=list)
    planned: list[tuple[int, int]] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)
    warned: int = 0
    #: Whether the method has seeds, or one run a fold.
    seeded: bool = True

    @property
    def n(self) -> int:
        return len(self.keys)

    @property
    def missing(self) -> int:
        return len(self.planned) - len(self.keys)

    def by_run(self, metric: str) -> dict:
        return dict(zip(self.keys, self.values[metric], strict=True))

    def by_fold(self, metric: str) -> dict:
        folds: dict[int, list[float]] = {}
        for (fold, _), value in self.by_run(metric).items():
            folds.setdefault(fold, []).append(value)
        return {fold: np.mean(values) for fold, values in folds.items()}

    def mean_sd(self, metric: str) -> tuple[float, float]:
        values = np.array(self.values[metric])
        return 100 * values.mean(), 100 * values.std()


def scores_of(line: Line, protocol: str, out: Path) -> Scores:
    """Read the finished cells of a line."""
    found = Scores(values={metric: [] for metric in SCORES}, seeded=line.seeded)
    for cell in line.cells.get(protocol, []):
        found.planned.append((cell.fold, cell.seed))
        record = read_cell(cell, out)
        if record is None:
            continue
        found.keys.append((cell.fold, cell.seed))
        found.warned += bool(record["warnings"])
        for metric, value in record["scores"][line.row.variant].items():
            found.values[metric].append(value)
    return found


# ---------------------------------------------------------------- published numbers


def load_published(table: str) -> dict[str, list[Published]]:
    """Published numbers of a table, by row; several corpora may have one row."""
    from skfdan.datasets import load_published_results

    paper, numbers = PAPERS[table]
    frame = load_published_results(paper)
    frame = frame[frame["table"].isin(numbers)].replace({"metric": METRICS})
    rows: dict[str, list[Published]] = {}
    for (name, corpus), part in frame.groupby(["row", "corpus"], sort=False):
        published = Published(
            corpus,
            dict(zip(part["metric"], part["value"], strict=True)),
            "; ".join(dict.fromkeys(part["source"])),
            _notes(part),
            part["available"].iloc[0],
        )
        rows.setdefault(paper if name == "Ours" else name, []).append(published)
    return rows


def _notes(part) -> list[str]:
    """Task, split and caveats, each said once."""
    first = part.iloc[0]
    notes = [f"{first['task']}, split: {first['split']}"]
    pieces: dict[str, list[str]] = {}
    for metric, caveat in zip(part["metric"], part["caveat"], strict=True):
        for piece in filter(None, caveat.split("; ")):
            pieces.setdefault(piece, []).append(metric)
    for piece, metrics in pieces.items():
        which = "" if len(metrics) == len(part) else f" {' and '.join(metrics)}:"
        notes.append(f"{first['corpus']}:{which} {piece}")
    return notes


def published_of(line: Line, table: str, tables: dict[str, dict]) -> list[Published]:
    """Published numbers that stand beside a line."""
    name = line.row.published
    if name is None or table not in PAPERS:
        return []
    if table != "3":
        return tables[table].get(name, [])
    if len(line.faces) != 1:
        return tables["3"].get(name, [])
    # Table 3's rows are compared with the one-corpus rows of Tables 1 and 2.
    return [*tables["1"].get(name, []), *tables["2"].get(name, [])]


# ---------------------------------------------------------------- one table


@dataclass
class Report:
    """A table in both forms, before it is written."""

    columns: list[str]
    rows: list[list[str]]
    records: list[dict[str, Any]]
    notes: list[str]
    common: list[str]


def build(table: str, lines: list[Line], protocols: list[str], corpus: str, out: Path) -> Report:
    """Put our numbers and the published ones side by side, in percent."""
    tables = {name: load_published(name) for name in PAPERS}
    rows = [(line, published_of(line, table, tables)) for line in lines]
    corpora = list(dict.fromkeys(p.corpus for _, found in rows for p in found))
    own = PAPER_CORPORA.get(corpus)
    others = corpora
    if own in corpora:
        others = [own]
        # WavFusion's ablations are published on IEMOCAP alone, and stand beside MELD's too.
        alone = any(found and own not in {p.corpus for p in found} for _, found in rows)
        corpora = [own, *(c for c in corpora if c != own)] if alone else [own]
    rows += [(_never_run(*pair), [pair[1]]) for pair in _not_ours(table, tables, lines, others)]
    rows = [(line, [p for p in found if p.corpus in corpora]) for line, found in rows]
    common = _common_notes([p for _, found in rows for p in found])
    reference = next((line for line in lines if line.name == REFERENCES.get(table)), None)
    scored = [{p: scores_of(line, p, out) for p in protocols} for line, _ in rows]
    compared = scored[lines.index(reference)] if reference is not None else None

    notes: dict[str, int] = {}
    printed, records = [], []
    for (line, found), scores in zip(rows, scored, strict=True):
        cells = [line.name, line.fidelity]
        record: dict[str, Any] = {"method": line.name, "fidelity": line.fidelity}
        remarks = [line.row.note] if line.row.note else []
        for protocol in protocols:
            cells += _score_cells(scores[protocol], protocol, record)
            if compared is not None:
                other = None if line is reference else compared[protocol]
                gain, remark = _gain(scores[protocol], other, protocol, record)
                cells.append(gain)
                remarks += remark
            remarks += _run_notes(scores[protocol], protocol, line)
        if line.problem:
            remarks.append(f"not run: {line.problem}")
            record["not run"] = line.problem
        for name in corpora:
            cell = next((p for p in found if p.corpus == name), None)
            cells.append(_published_cell(cell))
            for metric in SCORES:
                record[f"published {name} {metric}"] = cell and cell.values.get(metric)
        if corpora:
            cells.append("; ".join(dict.fromkeys(p.source for p in found)))
            record["published source"] = cells[-1]
        remarks += [note for p in found for note in p.notes]
        record["notes"] = " | ".join(remarks)
        numbers = [
            notes.setdefault(remark, len(notes) + 1)
            for remark in dict.fromkeys(remarks)
            if remark not in common
        ]
        printed.append([*cells, ", ".join(map(str, numbers))])
        records.append(record)
    columns = _columns(protocols, reference, corpora, own)
    return Report(columns, printed, records, list(notes), common)


def _columns(protocols, reference: Line | None, corpora: list[str], own: str | None) -> list[str]:
    columns = ["method", "fidelity"]
    for protocol in protocols:
        columns += [*(f"{protocol}: {metric}" for metric in SCORES), f"{protocol}: n"]
        if reference is not None:
            columns.append(f"{protocol}: UAR minus that of “{reference.name}”")
    for name in corpora:
        elsewhere = "" if name == own else " (another corpus)"
        columns.append(f"published on {name}{elsewhere}: WAR / UAR / wF1")
    return [*columns, *(["source of the published numbers"] if corpora else []), "notes"]


def _not_ours(table: str, tables, lines: list[Line], corpora) -> Iterable[tuple[str, Published]]:
    """Rows of the paper that the toolkit has no method for."""
    if table not in PAPERS or table == "3":
        return
    for name, found in tables[table].items():
        for published in found:
            elsewhere = _companion_of(name) not in ("", table)
            if published.corpus in corpora and (published.available != "yes" or elsewhere):
                yield name, published


def _never_run(name: str, published: Published) -> Line:
    reason = "not in skfdan: " + published.available.removeprefix("no: ")
    if published.available == "not yet":
        reason = "not in skfdan yet"
    elif published.available == "yes":
        reason = f"reads what these tables have not; see --table {_companion_of(name)}"
    return Line(name, Row(name, "", ()), problem=reason)


def _companion_of(published: str) -> str:
    """Return the table of whole utterances that alone has a method, or an empty string."""
    tables = [t for row in ROWS if row.published == published for t in row.tables]
    return tables[0] if tables and set(tables) <= set(COMPANIONS) else ""


def _common_notes(found: list[Published]) -> list[str]:
    """What is to be said of every published number of a corpus that has several."""
    common = []
    for corpus in dict.fromkeys(p.corpus for p in found):
        notes = [p.notes for p in found if p.corpus == corpus]
        if len(notes) > 1:
            common += [note for note in notes[0] if all(note in other for other in notes)]
    return common


def _score_cells(scores: Scores, protocol: str, record: dict[str, Any]) -> list[str]:
    cells = []
    for metric in SCORES:
        if not scores.n:
            cells.append("")
            continue
        mean, sd = scores.mean_sd(metric)
        cells.append(f"{mean:.1f} ± {sd:.1f}" if scores.n > 1 else f"{mean:.1f}")
        record[f"{protocol} {metric} mean"] = round(mean, 3)
        record[f"{protocol} {metric} sd"] = round(sd, 3)
    record[f"{protocol} n"] = scores.n
    return [*cells, str(scores.n) if scores.n else ""]


def _gain(
    scores: Scores, other: Scores | None, protocol: str, record: dict[str, Any]
) -> tuple[str, list[str]]:
    """Difference in UAR, and a note if not all runs of both are there.

    It is paired by fold and seed; by fold if one of the two has no seeds.
    """
    if other is None or not scores.n or not other.n:
        return "", []
    planned = {*scores.planned, *other.planned}
    if scores.seeded == other.seeded:
        ours, theirs = scores.by_run("UAR"), other.by_run("UAR")
    else:
        ours, theirs = scores.by_fold("UAR"), other.by_fold("UAR")
        planned = {fold for fold, _ in planned}
    both = [key for key in ours if key in theirs]
    notes = []
    if len(both) < len(planned):
        notes.append(f"{protocol}: difference over {len(both)} of {len(planned)} pairs")
    if not both:
        return "", notes
    gains = 100 * np.array([ours[key] - theirs[key] for key in both])
    record[f"{protocol} UAR gain mean"] = round(gains.mean(), 3)
    record[f"{protocol} UAR gain sd"] = round(gains.std(), 3)
    sd = f" ± {gains.std():.1f}" if len(both) > 1 else ""
    return f"{gains.mean():+.1f}{sd}", notes


def _run_notes(scores: Scores, protocol: str, line: Line) -> list[str]:
    notes = []
    if scores.missing and not line.problem:
        notes.append(
            f"{protocol}: {scores.missing} of {scores.n + scores.missing} runs are not finished"
        )
    if scores.warned:
        notes.append(f"{protocol}: {scores.warned} runs warned; results.csv says of what")
    chosen = line.chosen.get(protocol)
    if chosen:
        values = ", ".join(str(v) for choice in chosen for v in choice.values())
        notes.append(f"{protocol}: chosen α of each fold: {values}")
    return notes


def _published_cell(found: Published | None) -> str:
    if found is None:
        return ""
    return " / ".join(f"{found.values[m]:.2f}" if m in found.values else "–" for m in SCORES)


# ---------------------------------------------------------------- writing


def markdown(table: str, report: Report, header: list[str]) -> str:
    """Write a table with what must be known to read it."""
    text = [f"# {TITLES[table]}", ""]
    if header:
        text += [*(f"- {line}" for line in header), ""]
    text.append("| " + " | ".join(report.columns) + " |")
    text.append("|" + "---|" * len(report.columns))
    text += ["| " + " | ".join(_escape(cell) for cell in row) + " |" for row in report.rows]
    if report.notes:
        text += ["", "Notes:", ""]
        text += [f"{i}. {_escape(note)}" for i, note in enumerate(report.notes, start=1)]
    if report.common:
        text += ["", "All published numbers here:", ""]
        text += [f"- {_escape(note)}" for note in report.common]
    used = dict.fromkeys(row[1] for row in report.rows if row[1])
    if used:
        text += ["", "Fidelity: " + "; ".join(f"{name}: {FIDELITY[name]}" for name in used) + "."]
    return "\n".join(text) + "\n"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def write_csv(path: Path, records: list[dict[str, Any]]) -> None:
    """Write records with whatever columns any of them has."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(records)


def result_records(out: Path) -> list[dict[str, Any]]:
    """One record for every finished cell and evaluation in the folder; scores from 0 to 1."""
    partitions = _partitions(out)
    records = []
    for path in sorted((Path(out) / "cells").glob("[!.]*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        spec = cell["cell"]
        for variant, scores in cell["scores"].items():
            records.append(
                {
                    "cell": path.stem,
                    "corpus": spec["corpus"],
                    "protocol": spec["protocol"],
                    "role": spec["role"],
                    "fold": spec["fold"],
                    "seed": spec["seed"],
                    "method": cell["method"],
                    "variant": variant,
                    "faces": "+".join(spec["faces"]),
                    **scores,
                    "n_test": len(cell["y_true"]),
                    "n_voices": cell["n_voices"],
                    "n_faces": cell["n_faces"],
                    # Of the sorted row ids: the same hash, the same rows.
                    "train_ids": spec["train"],
                    "test_ids": spec["test"],
                    # Which files of folds have these test rows as theirs.
                    "splits": "+".join(
                        partitions.get((spec["protocol"], spec["fold"], spec["test"]), [])
                    ),
                    "fit_s": cell["fit_s"],
                    "predict_s": cell["predict_s"],
                    "finished": cell["finished"],
                    "warnings": " | ".join(cell["warnings"]),
                    "parameters": json.dumps(spec["estimator"], sort_keys=True),
                    "front_end": json.dumps(spec["front_end"], sort_keys=True),
                }
            )
    return records


def _partitions(out: Path) -> dict[tuple[str, int, str], list[str]]:
    """Return the names of the files in which a protocol's fold has these test rows."""
    found: dict[tuple[str, int, str], list[str]] = {}
    for path in sorted((Path(out) / "splits").glob("[!.]*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        for i, fold in enumerate(document["folds"]):
            key = document["protocol"]["name"], i, hash_ids(fold["test"])
            found.setdefault(key, []).append(path.stem)
    return found
