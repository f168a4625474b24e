"""What the commands share: exit codes, arguments, corpora, and how things are printed."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.utils import Bunch

#: Exit codes.
OK, PROBLEMS, USAGE, INTERRUPTED = 0, 1, 2, 130

CORPORA = ("folder", "ravdess", "savee", "meld", "crema_d", "emodb", "iemocap")

#: The cells of a table, in words.
NOUNS = {"audio": "voice", "visual": "face"}

FOLDER = """\
FOLDER holds sub-folders named after emotions (anger/clip1.wav), or is a csv file
with the columns emotion, visual and/or audio, and speaker; or it is the official
tree of a known corpus, with --corpus."""


def add_command(commands, name: str, run, *, help: str, description: str, end: str):
    """Add a sub-command, whose help keeps its lines as they are."""
    command = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=end,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def add_corpus(command: argparse.ArgumentParser) -> None:
    """Add what names a corpus."""
    command.add_argument("folder", metavar="FOLDER", help="the corpus: a folder or a csv file")
    command.add_argument(
        "--corpus",
        choices=CORPORA,
        default="folder",
        help="official tree of a known corpus (default: %(default)s, emotion folders or csv)",
    )
    command.add_argument(
        "--speaker-pattern",
        metavar="REGEX",
        type=regex,
        help="finds the speaker in a file's path: the first of its groups that holds something, or "
        "all it matches; for emotion folders, and csv files without a column speaker",
    )


def add_jobs(command: argparse.ArgumentParser) -> None:
    """Add how many files are decoded at a time."""
    command.add_argument(
        "--jobs",
        metavar="N",
        type=positive,
        default=-1,
        help="files decoded at a time (default: one a processor)",
    )


def load_corpus(arguments: argparse.Namespace) -> Bunch:
    """Load what the arguments of :func:`add_corpus` name."""
    from skfdan import datasets

    pattern = arguments.speaker_pattern
    if arguments.corpus == "folder":
        # No command reads words: a row of them alone would be one that nothing can be done with.
        return datasets.load_folder(arguments.folder, speaker_pattern=pattern, text=None)
    if pattern is not None:
        raise ValueError(
            f"--speaker-pattern is for emotion folders; the names of {arguments.corpus} tell "
            "the speaker."
        )
    return getattr(datasets, f"load_{arguments.corpus}")(arguments.folder)


def n_speakers(data: Bunch) -> int | None:
    """Count the speakers of a corpus; None if they are unknown."""
    return len(set(data.groups)) if data.speakers_known else None


def describe_corpus(data: Bunch) -> str:
    """Say in one line how much there is."""
    n = n_speakers(data)
    voices, faces = (int(data.table[m].notna().sum()) for m in ("audio", "visual"))
    return (
        f"{count(len(data.table), 'clip')} of {'unknown' if n is None else count(n)} "
        f"{'speaker' if n == 1 else 'speakers'} and {count(len(set(data.target)), 'emotion')}: "
        f"{count(voices, 'voice')}, {count(faces, 'face')}"
    )


def tell_left_out(data: Bunch) -> None:
    """Say that a loader has left out files."""
    if len(data.report):
        tell(f"{count(len(data.report), 'entry', 'entries')} left out; `skfdan check` lists them")


def count(n: int, singular: str = "", plural: str | None = None) -> str:
    """Put a number and what it counts into words."""
    word = singular if n == 1 else plural or f"{singular}s"
    return f"{n:,} {word}" if singular else f"{n:,}"


def regex(text: str) -> str:
    """Read a regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None
    return text


def positive(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def output(text: str) -> Path:
    """Read where to write to; told before hours of work, not after."""
    path = Path(text).expanduser()
    if not path.is_dir() and not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}")
    return path


def show(text: str) -> None:
    """Print a result."""
    try:
        print(encodable(text, sys.stdout), flush=True)
    except BrokenPipeError:
        # Whoever read has seen enough (`| head`). Nothing is left to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(text: str) -> None:
    """Print what is no result."""
    print(encodable(text, sys.stderr), file=sys.stderr, flush=True)


def encodable(text: str, stream) -> str:
    """Escape what the stream can't take: file names may hold bytes that are no text."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def as_text(frame: pd.DataFrame) -> str:
    """Print a table with its row names, and numbers of three digits behind the point."""
    return frame.to_string(float_format="{:.3f}".format)
