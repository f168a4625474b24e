"""The command ``skfdan``. What a command needs is imported when it runs."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.utils import Bunch

    from skfdan.datasets import CorpusCheck

__all__ = ["main"]

#: Exit codes.
OK, PROBLEMS, USAGE, INTERRUPTED = 0, 1, 2, 130

CORPORA = ("folder", "ravdess", "savee", "meld", "crema_d", "emodb")

CHECK = """\
Open and decode every file of a corpus once, change nothing, and report what is
broken, silent, clipped, too short or too long, there twice, or without a label,
and how many clips each speaker has of each emotion.

FOLDER holds sub-folders named after emotions (anger/clip1.wav), or is a csv file
with the columns emotion, visual and/or audio, and speaker. Loose files are checked
too, and listed as unlabelled."""
CHECK_END = """\
example:
  skfdan check clips --speaker-pattern "(spk[0-9]+)_" --csv problems.csv

exit codes:
  0 no errors (there may be warnings), 1 errors found, 2 wrong usage or unreadable
  folder, 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str or None, default=None
        Arguments without the program's name; None takes those of the process.

    Returns
    -------
    int
        Exit code: 0 without errors, 1 if a check found some, 2 if the command could not
        run, 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        By argparse: 0 after ``--help`` and ``--version``, 2 for arguments it does not know.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     main(["check", folder])
    2
    """
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        print("\nskfdan: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (OSError, ValueError) as error:
        print(_encodable(f"skfdan: error: {error}", sys.stderr), file=sys.stderr)
        return USAGE


def _parser() -> argparse.ArgumentParser:
    from skfdan import __version__

    parser = argparse.ArgumentParser(
        prog="skfdan", description="Speech emotion recognition from voice and face."
    )
    parser.add_argument("--version", action="version", version=f"skfdan {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_check(commands)
    return parser


def _add_check(commands: argparse._SubParsersAction) -> None:
    check = commands.add_parser(
        "check",
        help="find broken, silent, doubled and unlabelled clips before training",
        description=CHECK,
        epilog=CHECK_END,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.set_defaults(run=_check)
    check.add_argument("folder", metavar="FOLDER", help="the corpus: a folder or a csv file")
    check.add_argument(
        "--corpus",
        choices=CORPORA,
        default="folder",
        help="official tree of a known corpus (default: %(default)s, emotion folders or csv)",
    )
    check.add_argument(
        "--speaker-pattern",
        metavar="REGEX",
        type=_regex,
        help="finds the speaker in a file's path: its first group, or all it matches",
    )
    check.add_argument(
        "--min-seconds",
        metavar="S",
        type=float,
        default=0.3,
        help="shorter clips are too short (default: %(default)s)",
    )
    check.add_argument(
        "--max-seconds",
        metavar="S",
        type=float,
        default=30.0,
        help="longer clips are too long (default: %(default)s)",
    )
    check.add_argument(
        "--timeout",
        metavar="S",
        type=float,
        default=60.0,
        help="seconds that one file may take (default: %(default)s)",
    )
    check.add_argument(
        "--jobs",
        metavar="N",
        type=_jobs,
        default=-1,
        help="files decoded at a time (default: one a processor)",
    )
    check.add_argument("--csv", metavar="OUT.csv", type=_output, help="write all problems there")
    check.add_argument("--json", action="store_true", help="print JSON instead of text")


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None
    return text


def _jobs(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _output(text: str) -> Path:
    # Told before hours of decoding, not after.
    path = Path(text).expanduser()
    if not path.is_dir() and not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}")
    return path


def _check(arguments: argparse.Namespace) -> int:
    from skfdan.datasets import check_corpus

    pattern = arguments.speaker_pattern
    if pattern is not None and arguments.corpus != "folder":
        raise ValueError(
            f"--speaker-pattern is for emotion folders; the names of {arguments.corpus} tell "
            "the speaker."
        )
    check = check_corpus(
        _load(arguments.folder, arguments.corpus, pattern),
        min_seconds=arguments.min_seconds,
        max_seconds=arguments.max_seconds,
        timeout=arguments.timeout,
        n_jobs=arguments.jobs,
    )
    _print(_as_json(check) if arguments.json else str(check))
    if arguments.csv is not None:
        check.to_csv(arguments.csv)
    return OK if check.ok else PROBLEMS


def _load(folder: str, corpus: str, pattern: str | None) -> Bunch:
    from skfdan import datasets
    from skfdan.datasets._check_items import index_loose

    if corpus != "folder":
        return getattr(datasets, f"load_{corpus}")(folder)
    try:
        return datasets.load_folder(folder, speaker_pattern=pattern)
    except FileNotFoundError:
        loose = index_loose(folder) if pattern is None and os.path.isdir(folder) else None
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


def _print(text: str) -> None:
    try:
        print(_encodable(text, sys.stdout), flush=True)
    except BrokenPipeError:
        # Whoever read has seen enough (`| head`). Nothing is left to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _encodable(text: str, stream) -> str:
    """Escape what the stream can't take: file names may hold bytes that are no text."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
