"""RAVDESS: acted emotional speech and song, 24 actors, voice and face."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from sklearn.utils import Bunch

from ._base import Report, check_found, check_option, check_root, index_takes, make_bunch

EMOTION_CODES = {
    "01": "neutral",
    "02": "calm",
    "03": "happiness",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
CHANNELS = {"01": "speech", "02": "song"}
INTENSITIES = {"01": "normal", "02": "strong"}
STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
SUFFIXES = {"01": {".mp4"}, "02": {".mp4"}, "03": {".wav", ".flac"}}

SCHEME = "the RAVDESS file names, e.g. Actor_12/03-01-06-01-02-01-12.wav"

_NAME = re.compile(r"(0[1-3])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])")

DESCR = """\
Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS)
====================================================================
24 professional actors (12 female, 12 male) speak, and 23 of them sing, two neutral
statements in North American English, each in several emotions, at two intensities
(neutral: one) and twice. Speech has 1,440 takes: 192 of each emotion, 96 neutral.

Reference: S. R. Livingstone and F. A. Russo, "The Ryerson Audio-Visual Database of
Emotional Speech and Song (RAVDESS)", PLoS ONE 13(5): e0196391, 2018.
Source: https://zenodo.org/records/1188976. Licence: CC BY-NC-SA 4.0.

File names: modality-channel-emotion-intensity-statement-repetition-actor, two digits each.
modality    01 sound and picture, 02 picture only, 03 sound only
channel     01 speech, 02 song
emotion     01 neutral, 02 calm, 03 happy, 04 sad, 05 angry, 06 fearful, 07 disgust,
            08 surprised; here neutral, calm, happiness, sadness, anger, fear, disgust, surprise
intensity   01 normal, 02 strong
statement   01 "Kids are talking by the door", 02 "Dogs are sitting by the door"
repetition  01, 02
actor       01 to 24; odd numbers are male, even numbers are female

One row is one take. The sound-only, picture-only and full files of a take hold the same
performance, so they share a row and cannot end up on both sides of a split. The visual
cell is the 01 file, or else the 02 file; the audio cell is the 03 file, or else the 01 file.
The clip id is the file name without the modality field.

Groups are actors. There is no official split: split by groups, since actors repeat both
statements in every emotion.

Known defects: the takes 01-03-01-02-01-07 and 01-03-01-02-02-07 hold identical sound (one
actor, one emotion). Actor 18 has no song files. Song has no disgust and no surprise.
"""


def _parse(path: PurePosixPath) -> tuple[str, str, dict[str, Any]] | str:
    match = _NAME.fullmatch(path.stem)
    if not match:
        return "the name is not seven two-digit RAVDESS fields within their ranges"
    modality, channel, emotion, intensity, statement, repetition, actor = match.groups()
    if path.suffix.lower() not in SUFFIXES[modality]:
        return f"modality {modality} is expected as {' or '.join(sorted(SUFFIXES[modality]))}"
    fields = {
        "speaker": f"ravdess-{actor}",
        "emotion": EMOTION_CODES[emotion],
        "sex": "male" if int(actor) % 2 else "female",
        "channel": CHANNELS[channel],
        "intensity": INTENSITIES[intensity],
        "statement": statement,
        "text": STATEMENTS[statement],
        "repetition": int(repetition),
    }
    return path.stem[3:], modality, fields


def load_ravdess(
    root: str | os.PathLike,
    *,
    emotions: Iterable[str] | Mapping[str, str | None] | None = None,
    channel: str = "speech",
) -> Bunch:
    """Index a folder of RAVDESS files, one row a take.

    Parameters
    ----------
    root : path-like
        Folder of the unpacked archives; files may lie in ``Actor_NN`` folders, in the
        archives' own folders or flat.
    emotions : list of str, dict of str to (str or None), or None, default=None
        None keeps all. A list keeps those emotions. A dict renames emotions, drops those
        whose value is None and keeps the others, e.g. ``{"calm": "neutral"}``.
    channel : {"speech", "song", "all"}, default="speech"
        Which vocal channel to keep.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        table : DataFrame of shape (n_takes, 2)
            Modality table; cells are paths, None where a modality is missing.
        target : ndarray of shape (n_takes,)
            Emotion names.
        groups : ndarray of shape (n_takes,)
            Actors.
        speakers_known : bool
            Whether the groups are speakers.
        frame : DataFrame of shape (n_takes, 10)
            clip, corpus, speaker, emotion, sex, channel, intensity, statement, text,
            repetition.
        report : DataFrame
            file, stage and reason of everything left out.
        DESCR : str
            The corpus, its file names, labels and defects.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist or holds no RAVDESS file.
    ValueError
        If a take is there twice, an emotion is unknown or nothing is left.

    References
    ----------
    S. R. Livingstone and F. A. Russo, "The Ryerson Audio-Visual Database of Emotional
    Speech and Song (RAVDESS)", PLoS ONE 13(5): e0196391, 2018.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skfdan.datasets import load_ravdess
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("03-01-06-01-02-01-12.wav", "01-01-06-01-02-01-12.mp4"):
    ...         Path(root, name).touch()
    ...     data = load_ravdess(root)
    >>> data.table.shape, data.target.tolist(), data.groups.tolist()
    ((1, 2), ['fear'], ['ravdess-12'])
    """
    check_option("channel", channel, [*CHANNELS.values(), "all"])
    root = check_root(root, "RAVDESS")
    report = Report()
    rows = index_takes(
        root, _parse, report, corpus="RAVDESS", visual=("01", "02"), audio=("03", "01")
    )
    check_found(rows, root, report, SCHEME)
    other = rows["channel"].ne(channel) & (channel != "all")
    if other.any():
        report.add(root, "channel", f"{other.sum()} take(s) of another channel than {channel!r}")
    rows = rows[~other]
    if rows.empty:
        raise ValueError(
            f"RAVDESS: {str(root)!r} holds no take of channel={channel!r}, only "
            f"{other.sum()} of the other channel. Pass channel='all' or the other name."
        )
    return make_bunch(
        rows,
        root=root,
        corpus="ravdess",
        labels=EMOTION_CODES.values(),
        emotions=emotions,
        report=report,
        descr=DESCR,
    )
