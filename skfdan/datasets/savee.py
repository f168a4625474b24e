"""SAVEE: acted emotional speech, four male speakers, voice and face."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from sklearn.utils import Bunch

from ._base import (
    AUDIO_SUFFIXES,
    VIDEO_SUFFIXES,
    Report,
    check_found,
    check_root,
    index_takes,
    make_bunch,
)

EMOTION_CODES = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}
SPEAKERS = ("DC", "JE", "JK", "KL")

SCHEME = "the SAVEE file names, e.g. AudioData/DC/a01.wav or DC_a01.wav"

_NAME = re.compile(r"(?:(DC|JE|JK|KL)_)?(a|d|f|h|n|sa|su)(\d{1,2})")

DESCR = """\
Surrey Audio-Visual Expressed Emotion (SAVEE)
=============================================
Four male native English speakers (DC, JE, JK, KL), 120 TIMIT sentences each: 15 in each of
six emotions and 30 neutral, 480 takes in all.

Reference: S. Haq and P. J. B. Jackson, "Speaker-dependent audio-visual emotion
recognition", Proc. Int. Conf. on Auditory-Visual Speech Processing (AVSP), 2009.
Source: http://kahlan.eps.surrey.ac.uk/savee/ (free for research after registration).

File names: the emotion's letters and the sentence number, with the speaker as a folder
(AudioData/DC/a01.wav, AudioVisualClip/DC/a1.avi) or as a prefix (DC_a01.wav).
a anger, d disgust, f fear, h happiness, n neutral, sa sadness, su surprise; sentences 1 to
15, neutral 1 to 30.

One row is one take. The visual cell is the video, or else the folder of its frames (a folder
named like a take, with images in it); the audio cell is the sound file, or else the video.
The clip id is speaker, letters and two-digit number, e.g. DC_a01.

Groups are speakers. There is no official split: split by groups.

Known defects: all speakers are male, and neutral has twice as many takes as any emotion.
"""


def _parse(path: PurePosixPath, root: Path) -> tuple[str, str, dict[str, Any]] | str:
    suffix = path.suffix.lower()
    if suffix in AUDIO_SUFFIXES:
        role = "audio"
    elif suffix in VIDEO_SUFFIXES:
        role = "video"
    elif (root / path).is_dir():
        role = "frames"
    else:
        return "neither sound, nor video, nor a folder of frames"
    match = _NAME.fullmatch(path.stem)
    if not match:
        return "the name is not SAVEE's emotion letters and sentence number"
    speaker, code, number = match.group(1), match.group(2), int(match.group(3))
    folders = [part.upper() for part in path.parts[:-1]]
    speaker = speaker or next((p for p in reversed(folders) if p in SPEAKERS), None)
    if speaker is None:
        return f"neither a prefix nor a folder names a speaker of {list(SPEAKERS)}"
    if not 1 <= number <= (30 if code == "n" else 15):
        return f"there is no sentence {number} of {EMOTION_CODES[code]}"
    fields = {
        "speaker": f"savee-{speaker}",
        "emotion": EMOTION_CODES[code],
        "sex": "male",
        "statement": f"{number:02d}",
    }
    return f"{speaker}_{code}{number:02d}", role, fields


def load_savee(
    root: str | os.PathLike,
    *,
    emotions: Iterable[str] | Mapping[str, str | None] | None = None,
) -> Bunch:
    """Index a folder of SAVEE files, one row a take.

    Parameters
    ----------
    root : path-like
        Folder that holds ``AudioData`` and ``AudioVisualClip``, or files with the speaker
        as a prefix.
    emotions : list of str, dict of str to (str or None), or None, default=None
        None keeps all. A list keeps those emotions. A dict renames emotions, drops those
        whose value is None and keeps the others.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        table : DataFrame of shape (n_takes, 2)
            Modality table; cells are paths, None where a modality is missing.
        target : ndarray of shape (n_takes,)
            Emotion names.
        groups : ndarray of shape (n_takes,)
            Speakers.
        speakers_known : bool
            Whether the groups are speakers.
        frame : DataFrame of shape (n_takes, 6)
            clip, corpus, speaker, emotion, sex, statement.
        report : DataFrame
            file, stage and reason of everything left out.
        DESCR : str
            The corpus, its file names, labels and defects.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist or holds no SAVEE file.
    ValueError
        If a take is there twice, an emotion is unknown or nothing is left.

    References
    ----------
    S. Haq and P. J. B. Jackson, "Speaker-dependent audio-visual emotion recognition",
    Proc. Int. Conf. on Auditory-Visual Speech Processing (AVSP), 2009.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skfdan.datasets import load_savee
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("DC_a01.wav", "KL_su15.wav"):
    ...         Path(root, name).touch()
    ...     data = load_savee(root)
    >>> data.target.tolist(), data.groups.tolist()
    (['anger', 'surprise'], ['savee-DC', 'savee-KL'])
    """
    root = check_root(root, "SAVEE")
    report = Report()
    rows = index_takes(
        root,
        partial(_parse, root=root),
        report,
        corpus="SAVEE",
        visual=("video", "frames"),
        audio=("audio", "video"),
        frame_folders=True,
    )
    check_found(rows, root, report, SCHEME)
    return make_bunch(
        rows,
        root=root,
        corpus="savee",
        labels=EMOTION_CODES.values(),
        emotions=emotions,
        report=report,
        descr=DESCR,
    )
