"""What the corpus loaders share: walking a folder, pairing files, labels, the Bunch."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from ..preprocessing._frames import _PICTURES
from ..table import is_blank, make_table

#: Emotion names that every corpus is mapped to.
EMOTIONS = (
    "anger",
    "disgust",
    "fear",
    "happiness",
    "neutral",
    "sadness",
    "surprise",
    "calm",
    "boredom",
)

#: Other words for the same emotions, as folders, csv files and corpora spell them.
SYNONYMS = {
    "angry": "anger",
    "disgusted": "disgust",
    "fearful": "fear",
    "happy": "happiness",
    "joy": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
    "bored": "boredom",
}

#: Suffixes by which files are told apart; what is in them is asked when they are read.
AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".au"}
    | {".wma", ".amr", ".sph"}
)
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".avi", ".flv", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp"}
)
IMAGE_SUFFIXES = frozenset(_PICTURES)  # in frame folders too

#: Why a link of a clone whose files were never fetched is left out.
DANGLING = (
    "is a link that leads nowhere: run `git annex get` in a clone of git-annex or DataLad, or "
    "copy what it names"
)

#: What a corpus makes of one path below its root: (clip id, role, fields) for a
#: file of the scheme, a sentence that says why it is none, or None for a file that
#: the loader reads by itself.
Parse = Callable[[PurePosixPath], tuple[str, str, dict[str, Any]] | str | None]


def composed(text: str) -> str:
    """Return a text in Unicode's form NFC: macOS stores accents of file names apart."""
    return unicodedata.normalize("NFC", text)


def canonical_emotion(name: str) -> str:
    """Return the toolkit's name of an emotion; an unknown word is returned as it is."""
    name = composed(name.strip())
    word = name.lower()
    return SYNONYMS.get(word, word if word in EMOTIONS else name)


class Report:
    """What was left out of a corpus, and why."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str]] = []

    def add(self, file: str | os.PathLike, stage: str, reason: str) -> None:
        """Add one row; a summary row carries the corpus folder as its file."""
        self._rows.append((str(file), stage, reason))

    @property
    def files(self) -> list[str]:
        """The files of the report, in the order of their addition."""
        return [file for file, _, _ in self._rows]

    def unreadable(self) -> str:
        """Say what could not be opened; empty if everything could."""
        found = [(file, reason) for file, stage, reason in self._rows if stage == "open"]
        if not found:
            return ""
        file, reason = found[0]
        return f" {len(found)} of its files or folders can't be read: {file!r} {reason}."

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a frame with the columns file, stage and reason."""
        return pd.DataFrame(self._rows, columns=["file", "stage", "reason"])


def check_option(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raise a ValueError that lists the allowed values unless value is one of them."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not known; it must be one of {list(allowed)}.")


def check_root(root: str | os.PathLike, corpus: str) -> Path:
    """Return the corpus folder, or raise an error that says what is wrong with it."""
    folder = Path(root).expanduser()
    if not folder.exists():
        raise FileNotFoundError(
            f"{corpus}: the folder {str(folder)!r} does not exist. Pass the folder into which "
            "the corpus was unpacked."
        )
    if not folder.is_dir():
        raise NotADirectoryError(
            f"{corpus}: {str(folder)!r} is a file. Pass the folder into which the corpus was "
            "unpacked."
        )
    return folder


def _dialect(path: Path) -> dict[str, Any]:
    """Tell what separates the fields: Excel in Europe takes semicolons, and may say so above."""
    with open(path, encoding="utf-8-sig") as file:
        first = file.readline()
        header = first if first.strip() else next(filter(str.strip, file), "")
    told = re.fullmatch(r'"?sep=(.)"?\n?', first)
    if told:
        return {"sep": told[1], "skiprows": 1}
    others = [mark for mark in ";\t" if mark in header]
    return {"sep": others[0] if len(others) == 1 and "," not in header else ","}


def check_rows(
    wrong: pd.Series, problem: str, frame: pd.DataFrame, path: Path, corpus: str
) -> None:
    """Raise a ValueError with the first row of a csv file that is wrong."""
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise ValueError(
            f"{corpus}: data row {row + 1} of {str(path)!r} has {problem}: "
            f"{frame.iloc[row].to_dict()}"
        )


def read_csv(
    path: Path, columns: Iterable[str], corpus: str, optional: Iterable[str] = ()
) -> pd.DataFrame:
    """Read a csv file as text and check its columns.

    Everything is read as text, and only an empty field is missing: a transcript
    may well be the word "None" or "NA". Names of ``columns``, which must be there, and of
    ``optional`` are matched without regard to case. Rows without any word are passed over.
    """
    columns = list(columns)
    unreadable = UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError
    try:
        dialect = _dialect(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # Where rows end in a comma, pandas would take the first column for an index.
            frame = pd.read_csv(
                path, dtype=str, keep_default_na=False, na_values=[""], index_col=False, **dialect
            )
            # As they stand there: of two equal ones pandas gives the second another name.
            names = pd.read_csv(
                path, header=None, nrows=1, dtype=str, keep_default_na=False, **dialect
            )
    except unreadable as error:
        raise ValueError(
            f"{corpus}: {str(path)!r} cannot be read as a UTF-8 csv file: {error}"
        ) from error
    except pd.errors.ParserWarning:
        raise ValueError(
            f"{corpus}: rows of {str(path)!r} have more fields than its header has names; name "
            "each column, and quote fields that hold commas."
        ) from None
    known = {name.casefold(): name for name in (*columns, *optional)}

    def name_of(column: Any) -> str:
        column = str(column).strip()
        return known.get(column.casefold(), column)

    frame.columns = [name_of(c) for c in frame.columns]
    names = names.iloc[0].map(name_of)
    twice = names[names.duplicated() & (names != "")].tolist()
    if twice:
        raise ValueError(
            f"{corpus}: {str(path)!r} has several columns {twice[0]!r}; rename them. Neither case "
            "nor spaces tell them apart."
        )
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        hint = " Its header must separate all names by one mark: commas, semicolons or tabs."
        raise ValueError(
            f"{corpus}: {str(path)!r} lacks the column(s) {missing}; it has "
            f"{list(frame.columns)}. Pass the corpus's own csv file, or rename the columns."
            + (hint if any(mark in name for name in frame.columns for mark in ";\t") else "")
        )
    return frame[~frame.map(is_blank).all(axis=1)].reset_index(drop=True)


def walk(root: Path, report: Report, frame_folders: bool = False) -> Iterator[PurePosixPath]:
    """Yield the files below a folder, sorted, and report what is hidden or can't be opened.

    With ``frame_folders``, a folder with images is one item instead of its images.
    """
    seen = set()

    def refused(error: OSError) -> None:
        if str(error.filename) == str(root):
            reason = f"{error.strerror}; mend its rights, or pass another folder"
            raise OSError(error.errno, reason, error.filename)
        report.add(error.filename, "open", f"is a folder that can't be read: {error.strerror}")

    # Corpora are often put together from links to several disks.
    for folder, subfolders, names in os.walk(root, onerror=refused, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            report.add(folder, "name", "a link to a folder that is already indexed")
            subfolders.clear()
            continue
        seen.add(real)
        here = PurePosixPath(Path(folder).relative_to(root).as_posix())
        for name in sorted(subfolders):
            if name.startswith(".") or name == "__MACOSX":
                report.add(root / here / name, "name", "hidden folder of a system or a tool")
                subfolders.remove(name)
        # os.walk visits what is left in this list, in this order.
        subfolders.sort()
        images = {n for n in names if frame_folders and _is_image(n)}
        if images:
            yield here
        for name in sorted(set(names) - images):
            file = root / here / name
            if name.startswith("."):
                report.add(file, "name", "hidden file of a system or a tool")
            elif os.path.exists(file):
                yield here / name
            elif os.path.islink(file):
                report.add(file, "open", DANGLING)
            else:
                report.add(file, "open", "can't be reached; mend the rights of its folder")


def _is_image(name: str) -> bool:
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def index_takes(
    root: Path,
    parse: Parse,
    report: Report,
    *,
    corpus: str,
    visual: Sequence[str],
    audio: Sequence[str],
    defects: Mapping[tuple[str, str], str] | None = None,
    frame_folders: bool = False,
) -> pd.DataFrame:
    """Index a folder: one row a take, however many files hold it.

    Parameters
    ----------
    root : Path
        The corpus folder.
    parse : callable
        What a path below the root is; see :data:`Parse`.
    report : Report
        Gets every file that is left out.
    corpus : str
        The corpus's name in error messages.
    visual, audio : sequence of str
        Roles whose file may fill the cell, the preferred one first.
    defects : mapping of (clip, role) to str or None, default=None
        Files to leave out, and why.
    frame_folders : bool, default=False
        Whether a folder with images is one item instead of its images.

    Returns
    -------
    DataFrame of shape (n_takes, 3 + n_fields)
        Columns clip, visual, audio and the fields of the scheme, sorted by clip.
    """
    takes: dict[str, dict[str, str]] = {}
    fields: dict[str, dict[str, Any]] = {}
    duplicates = []
    for path in walk(root, report, frame_folders):
        found = parse(path)
        if found is None:
            continue
        file = str(root / path)
        if isinstance(found, str):
            report.add(file, "name", found)
            continue
        clip, role, fields[clip] = found
        if (clip, role) in (defects or {}):
            report.add(file, "media", f"known defect of the corpus: {defects[clip, role]}")
        elif role in takes.setdefault(clip, {}):
            duplicates.append((clip, takes[clip][role], file))
        else:
            takes[clip][role] = file
    if duplicates:
        clip, first, second = duplicates[0]
        more = f" ({len(duplicates) - 1} more takes likewise.)" if len(duplicates) > 1 else ""
        raise ValueError(
            f"{corpus}: the take {clip!r} is there twice, as {first!r} and {second!r}.{more} "
            "One recording in two rows ends up on both sides of a split. Remove one copy, or "
            "pass the folder that holds only one."
        )
    rows = []
    unused: Counter[str] = Counter()
    for clip, files in sorted(takes.items()):
        cells = [next((files[r] for r in roles if r in files), None) for roles in (visual, audio)]
        rows.append({"clip": clip, "visual": cells[0], "audio": cells[1], **fields[clip]})
        unused.update(role for role, file in files.items() if file not in cells)
    for role, n in sorted(unused.items()):
        report.add(
            root, "unused", f"{n} file(s) of kind {role!r}: another file of the take is preferred"
        )
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["clip", "visual", "audio"])


def check_found(rows: Sequence | pd.DataFrame, root: Path, report: Report, scheme: str) -> None:
    """Raise an error with examples of what was found if no file fits the scheme."""
    if len(rows):
        return
    files = report.files
    found = f"found, for example, {files[:5]}" if files else "the folder is empty"
    raise FileNotFoundError(
        f"No file below {str(root)!r} fits {scheme}; {found}. Check that this is the corpus's "
        f"folder and that its archives are unpacked.{report.unreadable()}"
    )


def map_emotions(
    names: pd.Series,
    emotions: Iterable[str] | Mapping[str, str | None] | None,
    *,
    labels: Iterable[str],
    corpus: str,
) -> pd.Series:
    """Apply ``emotions=`` of a loader; a row to be dropped becomes None.

    None keeps all; an iterable keeps those names; a mapping renames, or drops where the new
    name is None, and keeps the names that are not in it.
    """
    labels = sorted(labels)
    if emotions is None:
        emotions = {}
    elif isinstance(emotions, str):
        raise ValueError(f"emotions={emotions!r} is a single name; give a list, [{emotions!r}].")
    elif not isinstance(emotions, Mapping):
        emotions = {**dict.fromkeys(labels), **{name: name for name in emotions}}
    unknown = [name for name in emotions if name not in labels]
    if unknown:
        raise ValueError(f"emotions={unknown} are not in {corpus}; its emotions are {labels}.")
    odd = [new for new in emotions.values() if new is not None and not isinstance(new, str)]
    if odd:
        raise ValueError(
            f"emotions= must map a name to a name, or to None to drop it; got {odd[0]!r}."
        )
    return pd.Series([emotions.get(n, n) for n in names], index=names.index, dtype=object)


def make_bunch(
    rows: pd.DataFrame,
    *,
    root: str | os.PathLike,
    corpus: str,
    labels: Iterable[str],
    emotions: Iterable[str] | Mapping[str, str | None] | None,
    report: Report,
    descr: str,
    text: str | None = None,
    speakers_known: bool = True,
) -> Bunch:
    """Turn indexed rows into the Bunch that every loader returns.

    ``rows`` has the columns clip, visual, audio, speaker, emotion and the corpus's own;
    ``labels`` are the emotions that ``emotions=`` may name. ``text`` is the column of
    transcripts that the table is to have. Corpora whose actors all read the same sentences
    give none: the words tell nothing of the emotion there.
    """
    mapped = map_emotions(rows["emotion"], emotions, labels=labels, corpus=corpus)
    dropped = rows["emotion"][mapped.isna()]
    for name, n in dropped.value_counts().sort_index().items():
        report.add(root, "emotions", f"{n} row(s) of the emotion {name!r}, which emotions= drops")
    rows = rows.assign(emotion=mapped)[mapped.notna()].reset_index(drop=True)
    if rows.empty:
        raise ValueError(
            f"{corpus}: emotions= leaves no row; the emotions found in {str(root)!r} are "
            f"{sorted(dropped.unique())}."
        )
    head = ["clip", "corpus", "speaker", "emotion"]
    frame = rows.drop(columns=["visual", "audio"])
    # A manifest may be of several.
    named = frame["corpus"].fillna(corpus) if "corpus" in frame else corpus
    frame = frame.assign(corpus=named, emotion=rows["emotion"].tolist())
    return Bunch(
        table=make_table(
            visual=rows["visual"],
            audio=rows["audio"],
            text=None if text is None else rows[text],
        ),
        target=np.array(rows["emotion"].tolist(), dtype=str),
        groups=np.array(rows["speaker"].tolist(), dtype=str),
        speakers_known=speakers_known,
        frame=frame[head + [c for c in frame.columns if c not in head]],
        report=report.to_frame(),
        DESCR=descr,
    )
