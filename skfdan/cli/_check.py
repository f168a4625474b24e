"""``skfdan check``."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from skfdan.cli._shared import (
    OK,
    PROBLEMS,
    add_command,
    add_corpus,
    add_jobs,
    load_corpus,
    output,
    show,
)

if TYPE_CHECKING:
    from sklearn.utils import Bunch

    from skfdan.datasets import CorpusCheck

#: What the file of ``--csv`` begins with.
_HEADER = b"file,row,stage,"

DESCRIPTION = """\
Open and decode every file of a corpus once, change nothing, and report what is
broken, silent, clipped, too short or too long, there twice, or without a label,
and how many clips each speaker has of each emotion.

FOLDER holds sub-folders named after emotions (anger/clip1.wav), or is a csv file
with the columns emotion, visual and/or audio, and speaker. Loose files are checked
too, and listed as unlabelled."""
END = """\
example:
  skfdan check clips --speaker-pattern "(spk[0-9]+)_" --csv problems.csv

exit codes:
  0 no errors (there may be warnings), 1 errors found, 2 wrong usage or unreadable
  folder, 130 interrupted"""


def add(commands) -> None:
    """Add the command."""
    check = add_command(
        commands,
        "check",
        run,
        help="find broken, silent, doubled and unlabelled clips before training",
        description=DESCRIPTION,
        end=END,
    )
    add_corpus(check)
    for name, value, what in (
        ("min-seconds", 0.3, "shorter clips are too short"),
        ("max-seconds", 30.0, "longer clips are too long"),
        ("timeout", 60.0, "seconds that one file may take"),
    ):
        check.add_argument(
            f"--{name}",
            metavar="S",
            type=float,
            default=value,
            help=f"{what} (default: %(default)s)",
        )
    add_jobs(check)
    check.add_argument("--csv", metavar="OUT.csv", type=output, help="write all problems there")
    check.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from skfdan.datasets import check_corpus

    _spare_other_files(arguments.csv)
    check = check_corpus(
        _load(arguments),
        min_seconds=arguments.min_seconds,
        max_seconds=arguments.max_seconds,
        timeout=arguments.timeout,
        n_jobs=arguments.jobs,
    )
    show(_as_json(check) if arguments.json else str(check))
    if arguments.csv is not None:
        check.to_csv(arguments.csv)
    return OK if check.ok else PROBLEMS


def _spare_other_files(path: Path | None) -> None:
    """Refuse to overwrite what is no list of problems: a corpus may be a csv file too."""
    if path is None or not path.is_file():
        return
    with open(path, "rb") as file:
        start = file.read(len(_HEADER))
    if start not in (b"", _HEADER):
        raise ValueError(
            f"--csv {path}: there is a file that is no list of problems, and it would be "
            "overwritten; name another."
        )


def _load(arguments: argparse.Namespace) -> Bunch:
    from skfdan.datasets._check_items import index_loose

    try:
        return load_corpus(arguments)
    except FileNotFoundError:
        plain = arguments.corpus == "folder" and arguments.speaker_pattern is None
        loose = None
        if plain and os.path.isdir(arguments.folder):
            loose = index_loose(arguments.folder)
        if loose is None:
            raise
        return loose


def _as_json(check: CorpusCheck) -> str:
    problems = check.problems.astype(object)
    problems = problems.where(problems.notna(), None)
    return json.dumps(
        {
            "ok": check.ok,
            "summary": check.summary,
            "problems": problems.to_dict("records"),
            "balance": check.balance.to_dict("index"),
        },
        indent=1,
    )
