"""Your own clips: folders named after emotions, or a csv manifest."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from ..table import TEXT, is_blank
from ._base import (
    AUDIO_SUFFIXES,
    DANGLING,
    EMOTIONS,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Report,
    canonical_emotion,
    check_found,
    check_root,
    composed,
    index_takes,
    make_bunch,
    read_csv,
)

ROLES = {
    **dict.fromkeys(AUDIO_SUFFIXES, "audio"),
    **dict.fromkeys(VIDEO_SUFFIXES, "video"),
    **dict.fromkeys(IMAGE_SUFFIXES, "image"),
}

#: Columns of a manifest that have a meaning.
COLUMNS = ("visual", "audio", "emotion", "speaker", "clip", "corpus", "split", TEXT)
#: What a column of speakers may be called by others.
_SPEAKERS = re.compile(r"(speakers?|spk|actor|subject|participant|person|talker)(id|name|no|nr)?")

SCHEME = "emotion folders, e.g. anger/clip1.wav"

DESCR = """\
Clips of your own
=================
{form}

Emotions: {emotions}. Common words are mapped to the toolkit's names (angry to anger, happy
and joy to happiness, sad to sadness, and so on); any other name is kept as it is.

Groups: {groups}
"""
TREE = """\
Folders named after emotions. Files of one folder that differ only in their extension, such as
anger/clip1.mp4 and anger/clip1.wav, are one clip. A video is the visual cell, and also the
audio cell if the clip has no sound file."""
MANIFEST = """\
A csv manifest, one row a clip; its paths are relative to its own folder."""
TEXTS = """
The column {text!r} of the manifest holds transcripts, which are the text cells."""
SPEAKERS = "speakers, as given."
NO_SPEAKERS = """\
speakers are not given, so every clip is a group of its own, and no split of these
clips can be called speaker-independent."""


def _parse(
    path: PurePosixPath, pattern: re.Pattern | None
) -> tuple[str, str, dict[str, Any]] | str:
    role = ROLES.get(path.suffix.lower())
    if role is None:
        return "neither sound, nor video, nor an image"
    if len(path.parts) < 2:
        return "not in an emotion's folder"
    clip = composed(path.with_suffix("").as_posix())
    speaker = clip
    if pattern is not None:
        speaker = _find_speaker(composed(path.as_posix()), pattern)
        if speaker is None:
            return f"speaker_pattern={pattern.pattern!r} finds no speaker in it"
    return clip, role, {"speaker": speaker, "emotion": canonical_emotion(path.parts[0])}


def _find_speaker(name: str, pattern: re.Pattern) -> str | None:
    """Return the first group that holds something, or the whole match without groups."""
    match = pattern.search(name)
    if match is None:
        return None
    return next((found for found in match.groups() or [match[0]] if found), None)


def _speakers_of_rows(rows: pd.DataFrame, modalities: list[str], path: Path, pattern) -> list[str]:
    """Find the speakers of a manifest without a column of them in the names of its files."""
    speakers = []
    for i, cells in enumerate(rows[modalities].itertuples(index=False)):
        names = [composed(c).replace("\\", "/") for c in cells if isinstance(c, str)]
        found = [s for name in names if (s := _find_speaker(name, pattern)) is not None]
        if not found:
            raise ValueError(
                f"folder: speaker_pattern={pattern.pattern!r} finds no speaker in the files of "
                f"data row {i + 1} of {str(path)!r}: {names}. Mend it, or give a column 'speaker'."
            )
        if len(set(found)) > 1:
            raise ValueError(
                f"folder: speaker_pattern={pattern.pattern!r} finds the speakers {found[0]!r} and "
                f"{found[1]!r} in the files of data row {i + 1} of {str(path)!r}: {names}. A row "
                "is one clip of one speaker: mend the pattern, or make two rows of it."
            )
        speakers.append(found[0])
    return speakers


def _manifest_rows(
    path: Path, report: Report, text: str | None, pattern: re.Pattern | None
) -> tuple[pd.DataFrame, bool, str | None]:
    """Rows of a manifest, whether it names speakers, and its column of transcripts."""
    rows = read_csv(path, ["emotion"], "folder", COLUMNS if text is None else (*COLUMNS, text))
    if text is not None and text not in rows.columns:
        if text != TEXT:
            raise ValueError(
                f"folder: {str(path)!r} lacks the column {text!r}, which text= names; it has "
                f"{list(rows.columns)}. Pass the name of the column of transcripts, or None."
            )
        text = None
    modalities = [m for m in ("visual", "audio") if m in rows.columns]
    if not modalities and text is None:
        raise ValueError(
            f"folder: {str(path)!r} lacks both columns 'visual' and 'audio'; it has "
            f"{list(rows.columns)}. One of them must hold the paths."
        )
    if not len(rows):
        raise ValueError(f"folder: {str(path)!r} has a header but no data row.")
    for column in rows.columns.intersection(["emotion", "speaker", "clip"]):
        # One person with and without a space would be two, in training and in the test.
        rows[column] = rows[column].str.strip().str.normalize("NFC").replace("", None)
        if rows[column].isna().any():
            row = int(rows[column].isna().to_numpy().argmax())
            raise ValueError(
                f"folder: data row {row + 1} of {str(path)!r} has no {column}. Fill it in, or "
                "remove the row."
            )
    for column in modalities:
        # A blank cell would be the manifest's folder, and the faces in it.
        rows[column] = rows[column].where(~rows[column].map(is_blank), None)
    if "corpus" in rows:
        rows["corpus"] = rows["corpus"].str.strip().replace("", None)
    if "clip" not in rows:
        rows["clip"] = [f"{i:05d}" for i in range(len(rows))]
    names = rows[[c for c in ("corpus", "clip") if c in rows]].fillna("")
    if names.duplicated().any():
        second = int(names.duplicated().to_numpy().argmax())
        clip = rows["clip"].iloc[second]
        first = int((names == names.iloc[second]).all(axis=1).to_numpy().argmax())
        raise ValueError(
            f"folder: {str(path)!r} has the clip {clip!r} in the data rows {first + 1} and "
            f"{second + 1}. Give each row a name of its own, or leave out the column 'clip'."
        )
    known = "speaker" in rows
    if known and pattern is not None:
        raise ValueError(
            f"folder: {str(path)!r} has a column 'speaker', so speaker_pattern= has nothing to "
            "find; leave out one of them."
        )
    if not known:
        alike = [c for c in rows.columns if _SPEAKERS.fullmatch(re.sub(r"[\W_]", "", c).lower())]
        if alike and pattern is None:
            warnings.warn(
                f"folder: {str(path)!r} has no column 'speaker', so every clip is a group of its "
                f"own. If its column {alike[0]!r} tells who speaks, rename it 'speaker'.",
                UserWarning,
                stacklevel=3,
            )
        known = pattern is not None
        rows["speaker"] = (
            _speakers_of_rows(rows, modalities, path, pattern) if known else rows["clip"]
        )
    rows["emotion"] = rows["emotion"].map(canonical_emotion)
    named = rows[modalities].notna().any(axis=1)
    taken: dict[str, tuple[int, str]] = {}
    for modality in ("visual", "audio"):
        names = rows[modality] if modality in modalities else [None] * len(rows)
        rows[modality] = _existing_files(modality, names, path, report, taken)
    # A row that names no file may be words alone; one whose files are gone is damaged.
    wordless = pd.Series(True, index=rows.index)
    if text is not None:
        wordless = rows[text].map(is_blank) | named
    bare = rows["visual"].isna() & rows["audio"].isna() & wordless
    for row in np.flatnonzero(bare):
        report.add(path, "media", f"data row {row + 1} has no file and is left out")
    if bare.all():
        raise FileNotFoundError(
            f"folder: no file that {str(path)!r} names exists, e.g. {report.files[:3]}. Paths "
            "are relative to the manifest's folder."
        )
    return rows[~bare], known, text


def _beside(manifest: Path, name: str) -> str:
    """Return the path that a manifest names, as it is written there or as it is on disk.

    The spaces around a name belong to it where a file has them; other systems write
    slashes backwards, or accents in another Unicode form.
    """
    plain = name.strip()
    slashed = plain.replace("\\", "/")
    forms = (unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))
    for written in (name, plain, slashed, *forms):
        if os.path.exists(file := manifest.parent / written):
            return str(file)
    return str(manifest.parent / plain)


def _existing_files(
    modality: str,
    names: Iterable[Any],
    path: Path,
    report: Report,
    taken: dict[str, tuple[int, str]],
) -> list:
    """Return the files of a column that exist; ``taken`` holds whose they are, across columns."""
    files: list[str | None] = []
    for row, name in enumerate(names, start=1):
        if pd.isna(name):
            files.append(None)
            continue
        file = _beside(path, name)
        there = os.path.exists(file)
        # One row may take face and voice from one video.
        real = os.path.realpath(file) if there else file
        first, other = taken.setdefault(real, (row, modality))
        if first != row:
            what, how = f"the {modality} file", "Remove one row."
            if other != modality:
                what = "the file"
                how = f"One has it as {other}, one as {modality}; make them one row."
            raise ValueError(
                f"folder: {str(path)!r} names {what} {name!r} in the data rows {first} and {row}. "
                f"One recording in two rows ends up on both sides of a split. {how}"
            )
        if modality == "audio" and os.path.isdir(file):
            raise ValueError(
                f"folder: data row {row} of {str(path)!r} names the folder {name!r} as its audio. "
                "Name the sound file in it; only frames of a face may be a folder."
            )
        if not there:
            reason = DANGLING if os.path.islink(file) else "there is none"
            report.add(file, "media", f"data row {row} names this {modality} file; {reason}")
            file = None
        files.append(file)
    return files


def _check_levels(rows: pd.DataFrame, root: Path, report: Report) -> None:
    """Refuse a tree whose emotions are deeper folders; warn of one class that is no emotion."""
    folders = [PurePosixPath(clip).parts[:-1] for clip in rows["clip"]]
    first = sorted({names[0] for names in folders})

    def known(name: str) -> bool:
        return canonical_emotion(name) in EMOTIONS

    if any(map(known, first)):
        return
    deeper = next(((f, i) for f in folders for i, name in enumerate(f) if known(name)), None)
    if deeper is not None:
        names, depth = deeper
        raise ValueError(
            f"folder: {str(root)!r} has folders {first[:3]}, none of which is an emotion, but "
            f"{names[depth]!r} below {'/'.join(names[:depth])!r} is one. Emotions must be the "
            f"first folders: pass {str(root.joinpath(*names[:depth]))!r}, or write a csv manifest, "
            "which can name split and speaker too."
        )
    if len(first) == 1:
        csv = _manifest_in(report)
        warnings.warn(
            f"folder: all clips below {str(root)!r} are of one class, {first[0]!r}, after their "
            "only folder; a classifier needs two. "
            + (f"If {csv!r} lists them, pass it." if csv else "Sort them into emotion folders."),
            UserWarning,
            stacklevel=3,
        )


def _manifest_in(report: Report) -> str | None:
    """Return a csv file among those that were left out."""
    csvs = (f for f in report.files if f.lower().endswith(".csv"))
    return next((f for f in csvs if not os.path.basename(f).startswith(".")), None)


def load_folder(
    root: str | os.PathLike,
    *,
    emotions: Iterable[str] | Mapping[str, str | None] | None = None,
    speaker_pattern: str | None = None,
    corpus: str = "folder",
    text: str | None = "text",
) -> Bunch:
    r"""Index clips of your own: emotion folders, or a csv manifest.

    Parameters
    ----------
    root : path-like
        A folder whose sub-folders are named after emotions (``anger/clip1.wav``), or a csv
        manifest with the columns visual and/or audio (paths relative to the manifest's
        folder, empty where missing) and emotion; the columns speaker, clip, corpus, split and
        text have a meaning too, and any other column is carried along in the frame. Case does
        not count in these names. Fields are separated by commas, semicolons or tabs.
    emotions : list of str, dict of str to (str or None), or None, default=None
        None keeps all. A list keeps those emotions. A dict renames emotions, drops those
        whose value is None and keeps the others. Common words have been mapped before:
        the name of a folder ``happy`` is ``happiness``.
    speaker_pattern : str or None, default=None
        A regular expression that finds the speaker in a file's path (the first of its
        groups that holds something, if it has any), e.g. ``r"(spk\d+)_"``; for emotion
        folders, and manifests without a column ``speaker``. None makes every clip a group of
        its own.
    corpus : str, default="folder"
        Name of the corpus in the frame, for rows to which a manifest's column ``corpus`` gives
        none.
    text : str or None, default="text"
        For a manifest: its column of transcripts. They become the column ``text`` of the
        table, and stay in the frame. A row with words that names no file is kept. None, or
        no column of the default's name, leaves the column out of the table.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        table : DataFrame of shape (n_clips, 2) or (n_clips, 3)
            Modality table; cells are paths, and transcripts in the column ``text`` if there
            is one; None where a modality is missing.
        target : ndarray of shape (n_clips,)
            Emotion names.
        groups : ndarray of shape (n_clips,)
            Speakers; clip ids if no speaker is known. Speakers of one name are one person, in
            whatever corpus: give those of several manifests names of their own.
        speakers_known : bool
            Whether the groups are speakers.
        frame : DataFrame of shape (n_clips, 4 + n_columns)
            clip, corpus, speaker, emotion, and the manifest's other columns.
        report : DataFrame
            file, stage and reason of everything left out.
        DESCR : str
            What was found, the emotions and the groups.

    Raises
    ------
    FileNotFoundError
        If the path does not exist or nothing in it is a clip.
    NotADirectoryError
        If the path is a file, and its name does not end in ``.csv``.
    ValueError
        If a manifest lacks a column (that of ``text=`` too) or value, a file or clip is there
        twice, a row has two speakers, an emotion is unknown or nothing is left; if folders of
        emotions lie in others, such as ``train/happy``.

    Warns
    -----
    UserWarning
        If a manifest has no column speaker, but one such as ``actor`` or ``Speaker_ID``; if the
        only folder has no emotion's name.

    Notes
    -----
    In emotion folders, files are told apart by their suffix: sound (.wav, .flac, .mp3, .ogg, .oga,
    .opus, .m4a, .aac, .aif, .aiff, .au, .wma, .amr, .sph), video (.mp4, .m4v, .avi, .flv, .mkv,
    .mov, .webm, .mpg, .mpeg, .wmv, .3gp) and pictures (.jpg, .jpeg, .png, .bmp, .webp, .tif,
    .tiff, .pgm, .ppm). Others are in the report. A manifest may name files of any suffix.

    Every picture of an emotion folder is a clip of its own. A folder of a clip's frames is one
    row only where a manifest names it: otherwise frames of a clip train and are tested.

    Names of emotions, speakers and clips are put into Unicode's form NFC: macOS writes accents
    of file names in another.

    References
    ----------
    Emotion names follow P. Ekman, "An argument for basic emotions", Cognition and Emotion
    6(3-4): 169-200, 1992, with neutral, calm and boredom.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skfdan.datasets import load_folder
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("happy/ann_1.mp4", "happy/ann_1.wav", "sad/bob_1.wav"):
    ...         Path(root, name).parent.mkdir(exist_ok=True)
    ...         Path(root, name).touch()
    ...     data = load_folder(root, speaker_pattern=r"([a-z]+)_\d")
    >>> data.target.tolist(), data.groups.tolist(), data.table["visual"].isna().tolist()
    (['happiness', 'sadness'], ['ann', 'bob'], [False, True])
    """
    path = Path(root).expanduser()
    report = Report()
    is_csv = path.suffix.lower() == ".csv" and not path.is_dir()
    if is_csv and not path.exists():
        raise FileNotFoundError(f"folder: the csv file {str(path)!r} does not exist.")
    if path.is_file() and not is_csv:
        raise NotADirectoryError(
            f"folder: {str(path)!r} is a file, and not a .csv. Pass a csv manifest, or the folder "
            "into which the corpus was unpacked."
        )
    try:
        pattern = None if speaker_pattern is None else re.compile(speaker_pattern)
    except re.error as error:
        raise ValueError(
            f"folder: speaker_pattern={speaker_pattern!r} is no regular expression: {error}."
        ) from error
    if is_csv:
        rows, known, text = _manifest_rows(path, report, text, pattern)
    else:
        text = None
        path = check_root(path, "folder")
        rows = index_takes(
            path,
            partial(_parse, pattern=pattern),
            report,
            corpus="folder",
            visual=("video", "image"),
            audio=("audio", "video"),
        )
        known = pattern is not None
        if known and not len(rows):
            left_out = report.to_frame()
            unnamed = left_out["file"][left_out["reason"].str.contains("finds no speaker")]
            if len(unnamed):
                raise ValueError(
                    f"folder: speaker_pattern={speaker_pattern!r} finds no speaker in any clip, "
                    f"e.g. {unnamed.iloc[0]!r}. It is searched for in the path below the folder."
                )
        if len(rows):
            _check_levels(rows, path, report)
        elif (csv := _manifest_in(report)) is not None:
            raise FileNotFoundError(
                f"No file below {str(path)!r} fits {SCHEME}, but there is {csv!r}. If it is a "
                f"manifest, pass it: load_folder({csv!r}).{report.unreadable()}"
            )
    check_found(rows, path, report, SCHEME)
    labels = sorted(rows["emotion"].unique())
    descr = DESCR.format(
        form=(MANIFEST if is_csv else TREE) + ("" if text is None else TEXTS.format(text=text)),
        emotions=", ".join(labels),
        groups=SPEAKERS if known else NO_SPEAKERS,
    )
    return make_bunch(
        rows,
        root=path,
        corpus=corpus,
        labels=labels,
        emotions=emotions,
        report=report,
        descr=descr,
        text=text,
        speakers_known=known,
    )
