"""EmoDB: acted emotional speech in German, ten speakers, voice only."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from sklearn.utils import Bunch

from ._base import Report, check_found, check_root, index_takes, make_bunch

EMOTION_CODES = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}
MALE = ("03", "10", "11", "12", "15")
STATEMENTS = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",  # codespell:ignore
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",  # codespell:ignore
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen "  # codespell:ignore
    "sie wieder runter.",  # codespell:ignore
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",  # codespell:ignore
}

SCHEME = "the EmoDB file names, e.g. wav/03a01Fa.wav"

_NAME = re.compile(r"(03|08|09|1[0-6])([ab]\d\d)([WLEAFTN])([a-z]?)")

DESCR = """\
Berlin Database of Emotional Speech (EmoDB)
===========================================
Ten German actors (five female, five male) speak ten sentences in seven emotions; 535
utterances that listeners recognised: anger 127, boredom 81, disgust 46, fear 69,
happiness 71, sadness 62, neutral 79. Voice only: the visual column is missing.

Reference: F. Burkhardt, A. Paeschke, M. Rolfes, W. Sendlmeier and B. Weiss, "A database of
German emotional speech", Proc. Interspeech, 2005.
Source: http://emodb.bilderbar.info (free of charge).

File names: speaker (two digits), sentence (a or b and two digits), emotion (a letter of the
German word) and version, e.g. 03a01Fa.wav.
W Wut, anger; L Langeweile, boredom; E Ekel, disgust; A Angst, fear; F Freude, happiness;
T Trauer, sadness; N neutral. Speakers 03, 10, 11, 12 and 15 are male; 08, 09, 13, 14 and 16
are female.

Groups are speakers. There is no official split: split by groups, since a speaker may have
several versions of one sentence in one emotion.

Known defects: the emotions are unbalanced, and not every speaker has every emotion.
"""


def _parse(path: PurePosixPath) -> tuple[str, str, dict[str, Any]] | str:
    if path.suffix.lower() not in (".wav", ".flac"):
        return "not a wav or flac file"
    match = _NAME.fullmatch(path.stem)
    if not match:
        return "the name is not EmoDB's speaker, sentence, emotion letter and version"
    speaker, statement, code, version = match.groups()
    if statement not in STATEMENTS:
        return f"there is no sentence {statement}; EmoDB has {list(STATEMENTS)}"
    fields = {
        "speaker": f"emodb-{speaker}",
        "emotion": EMOTION_CODES[code],
        "sex": "male" if speaker in MALE else "female",
        "statement": statement,
        "text": STATEMENTS[statement],
        "repetition": version,
    }
    return path.stem, "audio", fields


def load_emodb(
    root: str | os.PathLike,
    *,
    emotions: Iterable[str] | Mapping[str, str | None] | None = None,
) -> Bunch:
    """Index a folder of EmoDB files, one row an utterance.

    Parameters
    ----------
    root : path-like
        Folder that holds the sound files, directly or in ``wav``.
    emotions : list of str, dict of str to (str or None), or None, default=None
        None keeps all. A list keeps those emotions. A dict renames emotions, drops those
        whose value is None and keeps the others.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        table : DataFrame of shape (n_utterances, 2)
            Modality table; audio cells are paths, visual cells are None.
        target : ndarray of shape (n_utterances,)
            Emotion names.
        groups : ndarray of shape (n_utterances,)
            Speakers.
        speakers_known : bool
            Whether the groups are speakers.
        frame : DataFrame of shape (n_utterances, 8)
            clip, corpus, speaker, emotion, sex, statement, text, repetition.
        report : DataFrame
            file, stage and reason of everything left out.
        DESCR : str
            The corpus, its file names, labels and defects.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist or holds no EmoDB file.
    ValueError
        If an utterance is there twice, an emotion is unknown or nothing is left.

    References
    ----------
    F. Burkhardt, A. Paeschke, M. Rolfes, W. Sendlmeier and B. Weiss, "A database of German
    emotional speech", Proc. Interspeech, 2005.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skfdan.datasets import load_emodb
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("03a01Fa.wav", "16b10Wb.wav"):
    ...         Path(root, name).touch()
    ...     data = load_emodb(root)
    >>> data.target.tolist(), data.groups.tolist()
    (['happiness', 'anger'], ['emodb-03', 'emodb-16'])
    """
    root = check_root(root, "EmoDB")
    report = Report()
    rows = index_takes(root, _parse, report, corpus="EmoDB", visual=(), audio=("audio",))
    check_found(rows, root, report, SCHEME)
    return make_bunch(
        rows,
        root=root,
        corpus="emodb",
        labels=EMOTION_CODES.values(),
        emotions=emotions,
        report=report,
        descr=DESCR,
    )
