"""CREMA-D: acted emotional speech, 91 actors, voice and face."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from sklearn.utils import Bunch

from ._base import Report, check_found, check_root, check_rows, index_takes, make_bunch, read_csv

EMOTION_CODES = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
# One file of the corpus, 1040_ITH_SAD_X, has a single X.
INTENSITIES = {
    "LO": "low",
    "MD": "medium",
    "HI": "high",
    "XX": "unspecified",
    "X": "unspecified",
}
STATEMENTS = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
AUDIO = ("wav", "flac", "mp3")
VIDEO = ("mp4", "flv")

_AS_PLAYED = ("mp3", *VIDEO)
#: Files that the corpus's own notes call defective: clip -> (what is wrong, kinds of file).
KNOWN_DEFECTS = {
    "1076_MTI_NEU_XX": ("very short, no sound", _AS_PLAYED),
    "1076_MTI_SAD_XX": ("very short, no sound, an error picture", (*AUDIO, *VIDEO)),
    "1064_TIE_SAD_XX": ("no duration", _AS_PLAYED),
    "1064_IEO_DIS_MD": ("a minute long, with this sentence in every emotion", _AS_PLAYED),
}

SCHEME = "the CREMA-D file names, e.g. AudioWAV/1001_DFA_ANG_XX.wav"

_NAME = re.compile(
    rf"(10[0-8]\d|109[01])_({'|'.join(STATEMENTS)})_({'|'.join(EMOTION_CODES)})_(LO|MD|HI|XX?)"
)

DESCR = """\
Crowd-sourced Emotional Multimodal Actors Dataset (CREMA-D)
===========================================================
91 actors (48 male, 43 female, aged 20 to 74) speak twelve sentences in six emotions; one
sentence (IEO) at three intensities. 7,442 clips.

Reference: H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova and R. Verma,
"CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset", IEEE Trans. Affective
Computing 5(4): 377-390, 2014.
Source: https://github.com/CheyneyComputerScience/CREMA-D.
Licence: Open Database License 1.0, contents under the Database Contents License 1.0.

File names: actor_sentence_emotion_intensity, e.g. 1001_DFA_ANG_XX.
actor 1001 to 1091; emotion ANG anger, DIS disgust, FEA fear, HAP happiness, NEU neutral,
SAD sadness; intensity LO low, MD medium, HI high, XX (once X) unspecified.
The emotion is the one that the actor was asked for, not the one that raters heard or saw.

One row is one clip. The visual cell is the mp4, or else the flv file; the audio cell is the
wav, flac or mp3 file, in this order, or else the video. Sex and age are those of
VideoDemographics.csv where it lies in the folder.

Groups are actors. There is no official split: split by groups.

Known defects, after the corpus's own notes; these files are left out unless
keep_defective=True: 1076_MTI_SAD_XX (all files: very short, no sound), and the flv and mp3
files of 1076_MTI_NEU_XX (very short, no sound), 1064_TIE_SAD_XX (no duration) and
1064_IEO_DIS_MD (a minute long, every emotion); the wav files of these three are right.
A copy of the repository without Git LFS holds pointers instead of media.
"""


def _parse(path: PurePosixPath) -> tuple[str, str, dict[str, Any]] | str | None:
    if path.as_posix() == "VideoDemographics.csv":
        return None
    kind = path.suffix.lower().lstrip(".")
    if kind not in AUDIO + VIDEO:
        return f"not one of {', '.join(AUDIO + VIDEO)}"
    match = _NAME.fullmatch(path.stem)
    if not match:
        return "the name is not CREMA-D's actor, sentence, emotion and intensity"
    actor, statement, code, intensity = match.groups()
    fields = {
        "speaker": f"crema-d-{actor}",
        "emotion": EMOTION_CODES[code],
        "intensity": INTENSITIES[intensity],
        "statement": statement,
        "text": STATEMENTS[statement],
    }
    return path.stem, kind, fields


def _check_not_pointer(file: str) -> None:
    with open(file, "rb") as stream:
        if stream.read(40).startswith(b"version https://git-lfs"):
            raise ValueError(
                f"CREMA-D: {file!r} is a Git LFS pointer, not a media file. Run `git lfs pull` "
                "in the corpus's folder."
            )


def _add_demographics(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    if not path.exists():
        return rows.assign(sex=None, age=None)
    people = read_csv(path, ["ActorID", "Age", "Sex"], "CREMA-D")
    age = pd.to_numeric(people["Age"], errors="coerce")
    check = partial(check_rows, frame=people, path=path, corpus="CREMA-D")
    check(people["ActorID"].duplicated(), "an ActorID that is there already")
    check(people["Age"].notna() & (age % 1 != 0), "an Age that is no whole number")
    actor = rows["speaker"].str.removeprefix("crema-d-")
    people = people.assign(Age=age).set_index("ActorID").reindex(actor)
    return rows.assign(sex=people["Sex"].str.lower().array, age=people["Age"].astype("Int64").array)


def load_crema_d(
    root: str | os.PathLike,
    *,
    emotions: Iterable[str] | Mapping[str, str | None] | None = None,
    keep_defective: bool = False,
) -> Bunch:
    """Index a folder of CREMA-D files, one row a clip.

    Parameters
    ----------
    root : path-like
        Folder that holds ``AudioWAV``, ``AudioMP3`` and ``VideoFlash``, or one of them.
    emotions : list of str, dict of str to (str or None), or None, default=None
        None keeps all. A list keeps those emotions. A dict renames emotions, drops those
        whose value is None and keeps the others.
    keep_defective : bool, default=False
        Whether to keep files that the corpus's own notes call defective, for a copy in
        which they are repaired.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        table : DataFrame of shape (n_clips, 2)
            Modality table; cells are paths, None where a modality is missing.
        target : ndarray of shape (n_clips,)
            Emotion names.
        groups : ndarray of shape (n_clips,)
            Actors.
        speakers_known : bool
            Whether the groups are speakers.
        frame : DataFrame of shape (n_clips, 9)
            clip, corpus, speaker, emotion, intensity, statement, text, sex, age.
        report : DataFrame
            file, stage and reason of everything left out.
        DESCR : str
            The corpus, its file names, labels and defects.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist or holds no CREMA-D file.
    ValueError
        If a clip is there twice, a file is a Git LFS pointer, ``VideoDemographics.csv`` has an
        actor twice or an age that is no whole number, an emotion is unknown or nothing is left.

    References
    ----------
    H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova and R. Verma, "CREMA-D:
    Crowd-sourced Emotional Multimodal Actors Dataset", IEEE Trans. Affective Computing
    5(4): 377-390, 2014.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skfdan.datasets import load_crema_d
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("1001_DFA_ANG_XX.wav", "1091_IEO_HAP_HI.wav"):
    ...         Path(root, name).touch()
    ...     data = load_crema_d(root)
    >>> data.target.tolist(), data.frame["intensity"].tolist()
    (['anger', 'happiness'], ['unspecified', 'high'])
    """
    root = check_root(root, "CREMA-D")
    report = Report()
    defects = {(c, kind): why for c, (why, kinds) in KNOWN_DEFECTS.items() for kind in kinds}
    rows = index_takes(
        root,
        _parse,
        report,
        corpus="CREMA-D",
        visual=VIDEO,
        audio=AUDIO + VIDEO,
        defects=None if keep_defective else defects,
    )
    check_found(rows, root, report, SCHEME)
    for column in ("visual", "audio"):
        for file in rows[column].dropna()[:1]:
            _check_not_pointer(file)
    return make_bunch(
        _add_demographics(rows, root / "VideoDemographics.csv"),
        root=root,
        corpus="crema-d",
        labels=EMOTION_CODES.values(),
        emotions=emotions,
        report=report,
        descr=DESCR,
    )
