"""The list of problems that a corpus check finds, and how bad each is."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from pathlib import Path

import pandas as pd

from ._base import AUDIO_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES, composed
from ._check_items import Item, loose_items
from ._examine import Facts

#: What can be wrong, in the order of the report, and how bad it is. An error stops a training
#: or falsifies its scores; a warning is worth a look.
KINDS = {
    "missing": "error",
    "broken": "error",
    "too large": "error",
    "no sound": "error",
    "no pictures": "error",
    "truncated": "error",
    "silent": "error",
    "duplicate": "error",  # or a warning, if both copies stay on one side of any split
    "quiet": "warning",
    "clipped": "warning",
    "too short": "warning",
    "too long": "warning",
    "unlabelled": "warning",
    "left out": "warning",
    "rare emotion": "warning",
    "alike names": "warning",
    "mixed rates": "warning",
}
COLUMNS = ["file", "row", "stage", "kind", "detail", "severity"]


class Problems:
    """The list of problems as it grows."""

    def __init__(self) -> None:
        self._rows: list[tuple] = []

    def add(
        self,
        stage: str,
        kind: str,
        detail: str,
        *,
        file: str = "",
        row: int | None = None,
        severity: str | None = None,
    ) -> None:
        """Add a problem; its kind says how bad it is unless severity does."""
        self._rows.append((file, row, stage, kind, detail, severity or KINDS[kind]))

    def add_report(self, report: pd.DataFrame) -> list[Item]:
        """Add what a loader left out, and return the files worth opening all the same."""
        files = []
        for file, stage, reason in report[["file", "stage", "reason"]].itertuples(index=False):
            hidden = os.path.basename(file).startswith((".", "__MACOSX"))
            # Emotions and kinds of files that are not wanted are no problem.
            if stage in ("emotions", "unused") or hidden:
                continue
            media = Path(file).suffix.lower() in AUDIO_SUFFIXES | VIDEO_SUFFIXES | IMAGE_SUFFIXES
            kind, severity = "left out", None
            if stage in ("name", "annotation") and media and os.path.isfile(file):
                kind = "unlabelled"
                files.append(file)
            elif stage == "media" and not os.path.exists(file):
                # A path was named by somebody; a clip's id stands in the corpus's own list.
                kind, severity = "missing", None if os.path.dirname(file) else "warning"
            elif stage == "open":
                kind = "broken" if os.path.exists(file) else "missing"
            self.add("loader", kind, reason, file=file, severity=severity)
        return loose_items(files)

    def to_frame(self) -> pd.DataFrame:
        """Return the problems, errors first, then in the order of KINDS and rows."""
        order = {kind: i for i, kind in enumerate(KINDS)}
        rows = sorted(
            self._rows,
            key=lambda r: (r[5] != "error", order[r[3]], r[1] is None, r[1] or 0, r[0]),
        )
        frame = pd.DataFrame(rows, columns=COLUMNS, dtype=object)
        return frame.astype({"row": "Int64"})


def compare(decoded: list[tuple[Item, Facts]], found: Problems) -> None:
    """Report rows that hold the same sound or the same pictures as an earlier one."""
    copies: dict[tuple[str, str], list[tuple[Item, Facts]]] = defaultdict(list)
    files: dict[str, list[tuple[Item, Facts]]] = defaultdict(list)
    for item, fact in decoded:
        copies[item.modality, fact.content].append((item, fact))
        if fact.file is not None:
            files[fact.file].append((item, fact))
    _compare_across(files, found)
    for (modality, _), members in copies.items():
        if len(members) < 2:
            continue
        differ = _differences(members)
        first, known = members[0]
        what = "sound" if modality == "audio" else "pictures"
        for item, fact in members[1:]:
            same = f"the same {what}"
            if item.file and item.file == first.file:
                same = "the same file"
            elif fact.file is not None and fact.file == known.file:
                same = "the same bytes"
            where = first.file if first.row is None else f"row {first.row} {first.file}".strip()
            detail = f"{same} as {where}" + (f"; differs in {', '.join(differ)}" if differ else "")
            found.add(
                "compare",
                "duplicate",
                detail,
                file=item.file,
                row=item.row,
                severity="error" if differ else "warning",
            )


def _differences(members: list[tuple[Item, Facts]]) -> list[str]:
    """Say in what else than their content rows differ."""
    differ = []
    for name in ("label", "group", "split"):
        values = {getattr(item, name) for item, _ in members} - {None}
        if len(values) > 1:
            some = ", ".join(sorted(map(str, values))[:3])
            differ.append(f"{'speaker' if name == 'group' else name} ({some})")
    return differ


def _compare_across(files: dict[str, list[tuple[Item, Facts]]], found: Problems) -> None:
    """Report files that are the voice of one row and the face of another.

    Rows of one label, speaker and split are what ``unpair`` makes of a clip, and no problem.
    """
    for members in files.values():
        first, _ = members[0]
        other = next((m for m in members if m[0].modality != first.modality), None)
        if other is None or other[0].row == first.row:
            continue  # copies within a modality are compare's to tell
        item, differ = other[0], _differences([members[0], other])
        if differ:
            detail = (
                f"the same file is the {first.modality} cell of row {first.row} {first.file}; "
                f"differs in {', '.join(differ)}"
            )
            found.add("compare", "duplicate", detail, file=item.file, row=item.row)


def check_labels(y: list | None, speakers: list | None, found: Problems) -> None:
    """Report rows without label, labels of one row, and names that may mean the same."""
    for row, label in enumerate(y or []):
        if label is None:
            found.add("label", "unlabelled", "the row has no label", row=row)
    rows = _first_rows(y)
    for label, n in Counter(v for v in y or [] if v is not None).items():
        if n < 2:
            found.add("label", "rare emotion", f"{label!r} has {n} row", row=rows[label])
    for what, names in (("emotions", y), ("speakers", speakers)):
        alike, rows = defaultdict(Counter), _first_rows(names)
        for name in names or []:
            if isinstance(name, str):
                plain = composed(re.sub(r"[\s_-]+", " ", name).strip())
                alike[plain.casefold()][name] += 1
        for counts in alike.values():
            if len(counts) > 1:
                some = ", ".join(f"{name!r} ({n} rows)" for name, n in counts.items())
                detail = (
                    f"{what} that differ in case, spaces, hyphens, underscores or the Unicode form "
                    f"of accents alone: {some}"
                )
                rarest, _ = counts.most_common()[-1]  # the most likely slip
                found.add("label", "alike names", detail, row=rows[rarest])


def _first_rows(names: list | None) -> dict:
    """Return the first row of each name."""
    rows: dict = {}
    for row, name in enumerate(names or []):
        rows.setdefault(name, row)
    return rows
