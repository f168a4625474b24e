"""IEMOCAP: dialogues of ten actors, voice and transcript."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.utils import Bunch

from ._base import Report, check_found, check_option, check_root, make_bunch, walk

#: The labels of the release, in words.
CODES = {
    "ang": "anger",
    "hap": "happiness",
    "exc": "excitement",
    "sad": "sadness",
    "neu": "neutral",
    "fru": "frustration",
    "fea": "fear",
    "sur": "surprise",
    "dis": "disgust",
    "oth": "other",
    "xxx": "no agreement",
}
#: The two sets of classes that are common in publications.
LABEL_MAPS = {
    4: {
        "ang": "anger",
        "hap": "happiness",
        "exc": "happiness",
        "sad": "sadness",
        "neu": "neutral",
    },
    6: {code: CODES[code] for code in ("ang", "hap", "exc", "sad", "neu", "fru")},
}

#: The frame's own columns.
COLUMNS = (
    *("session", "dialogue", "utterance", "text", "start", "end", "label"),
    *("valence", "activation", "dominance", "sex", "style"),
)
FORMS = {
    "labels": "'[6.2901 - 8.2357] Ses01F_impro01_F000 neu [2.5000, 2.5000, 2.5000]'",
    "transcripts": "'Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.'",
}
SCHEME = "the IEMOCAP labels, e.g. Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"

_SESSION = re.compile(r"Session([1-5])")
_ID = r"(Ses(0[1-5])[FM]_\w+_([FM])\w*)"
_LABEL = re.compile(
    rf"\[\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*\]\s+{_ID}\s+([a-z]{{3}})"
    r"\s+\[\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*\]"
)
_TRANSCRIPT = re.compile(rf"{_ID}\s*\[\s*[\d.]+\s*-\s*[\d.]+\s*\]\s*:(.*)")

DESCR = """\
Interactive Emotional Dyadic Motion Capture Database (IEMOCAP)
==============================================================
Ten actors in five sessions, a woman and a man in each, play scripted and improvised
dialogues in English; 10,039 utterances with a label of three listeners: anger (ang) 1,103,
happiness (hap) 595, excitement (exc) 1,041, sadness (sad) 1,084, neutral (neu) 1,708,
frustration (fru) 1,849, surprise (sur) 107, fear (fea) 40, other (oth) 3, disgust (dis) 2,
and 2,507 on which no two of three agreed (xxx).

Reference: C. Busso, M. Bulut, C.-C. Lee, A. Kazemzadeh, E. Mower, S. Kim, J. N. Chang, S. Lee
and S. S. Narayanan, "IEMOCAP: interactive emotional dyadic motion capture database", Language
Resources and Evaluation 42: 335-359, 2008.
Source: https://sail.usc.edu/iemocap. Licence: research use, on request.

Files, in IEMOCAP_full_release/Session1 to Session5: labels in dialog/EmoEvaluation/<dialogue>.txt,
transcripts in dialog/transcriptions/<dialogue>.txt, sound in
sentences/wav/<dialogue>/<utterance>.wav.

label_map=4: anger, happiness (with excitement), sadness, neutral: 5,531 utterances.
label_map=6: anger, happiness, excitement, sadness, neutral, frustration: 7,380.

One row is one utterance, in the order of sessions, dialogues and time. Its wav is the audio
cell, its transcript the text cell; the visual column is missing, since the videos show both
actors of a whole dialogue.

Groups are speakers, session and gender (iemocap-1F). There is no official split. The usual
one leaves a session out: LeaveOneGroupOut with the frame's column `session` as groups, five
folds whose two test speakers do not train. Actors read the same scripts in every session, so
the words of scripted dialogues (column `style`) are known from training.

Known defects: the classes are unbalanced; the other actor is heard at the edges of some
utterances; a label is a majority of three, not what was asked of the actor.
"""


def _find(root: Path, report: Report) -> dict[str, dict[str, Path]]:
    """Return the files of labels and of transcripts by dialogue, and those of sound by utterance.

    A release holds much else (videos, motion capture, phones), which is counted only.
    """
    found: dict[str, dict[str, Path]] = {"labels": {}, "transcripts": {}, "sounds": {}}
    unused = 0
    # The folder that is passed may be that of one session.
    above = root.resolve().name
    for path in walk(root, report):
        parts, suffix = (above, *path.parts), path.suffix.lower()
        if suffix == ".txt" and parts[-3:-1] == ("dialog", "EmoEvaluation"):
            known = len(parts) > 3 and _SESSION.fullmatch(parts[-4])
            kind = "labels" if known else None
        elif suffix == ".txt" and parts[-3:-1] == ("dialog", "transcriptions"):
            kind = "transcripts"
        elif suffix in (".wav", ".flac") and parts[-4:-2] == ("sentences", "wav"):
            kind = "sounds"
        else:
            kind = None
        if kind is None:
            unused += 1
        elif path.stem in found[kind]:
            raise ValueError(
                f"IEMOCAP: {path.stem!r} is there twice, as {str(found[kind][path.stem])!r} and "
                f"{str(root / path)!r}. Remove one copy, or pass the folder that holds only one."
            )
        else:
            found[kind][path.stem] = root / path
    if unused:
        report.add(root, "unused", f"{unused} file(s) that are no labels, transcripts or sentences")
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        yield number, line.strip()


def _bad_line(path: Path, number: int, line: str, form: str) -> ValueError:
    return ValueError(
        f"IEMOCAP: line {number} of {str(path)!r} is {line!r:.120}, not of the form {form}. "
        "Restore the file from the release."
    )


def _read_labels(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the utterances of a dialogue; the votes of single listeners are passed over."""
    for number, line in _lines(path):
        if line.startswith("%") or not (line.startswith("[") or "Ses0" in line):
            continue
        match = _LABEL.fullmatch(line)
        if not match:
            raise _bad_line(path, number, line, FORMS["labels"])
        start, end, clip, session, sex, code, *ratings = match.groups()
        if code not in CODES:
            raise ValueError(
                f"IEMOCAP: line {number} of {str(path)!r} has the label {code!r}; known are "
                f"{list(CODES)}. Restore the file from the release."
            )
        yield {
            "clip": clip,
            "speaker": f"iemocap-{session[1]}{sex}",
            "label": code,
            "session": int(session),
            "dialogue": path.stem,
            "start": float(start),
            "end": float(end),
            **dict(zip(("valence", "activation", "dominance"), map(float, ratings), strict=True)),
            "sex": "female" if sex == "F" else "male",
            "style": "improvised" if "_impro" in clip else "scripted",
        }


def _read_transcripts(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in _lines(path):
        # What the actors say between utterances has the letter of the actor alone.
        if not line.startswith("Ses0"):
            continue
        match = _TRANSCRIPT.fullmatch(line)
        if not match:
            raise _bad_line(path, number, line, FORMS["transcripts"])
        yield match[1], match[4].strip()


def _label_names(label_map: int | Mapping[str, str | None]) -> dict[str, str]:
    """Return the name of every label that is kept."""
    if not isinstance(label_map, Mapping):
        check_option("label_map", label_map, [*LABEL_MAPS])
        return LABEL_MAPS[label_map]
    unknown = [code for code in label_map if code not in CODES]
    if unknown:
        raise ValueError(f"label_map= has the labels {unknown}; IEMOCAP's are {list(CODES)}.")
    odd = [name for name in label_map.values() if name is not None and not isinstance(name, str)]
    if odd:
        raise ValueError(
            f"label_map= must map a label to a name, or to None to drop it; got {odd[0]!r}."
        )
    return {code: name for code, name in label_map.items() if name is not None}


def load_iemocap(
    root: str | os.PathLike,
    label_map: int | Mapping[str, str | None] = 4,
    *,
    emotions: Iterable[str] | Mapping[str, str | None] | None = None,
    media: str = "require",
) -> Bunch:
    r"""Index a release of IEMOCAP, one row an utterance: voice and transcript.

    Parameters
    ----------
    root : path-like
        Folder that holds ``Session1`` to ``Session5``, at any depth, or one of them.
    label_map : {4, 6} or dict of str to (str or None), default=4
        Which labels are kept, and as what. 4: anger, happiness (of ``hap`` and ``exc``),
        sadness and neutral, 5,531 utterances of the release. 6: anger, happiness, excitement,
        sadness, neutral and frustration, 7,380. A dict maps labels of the release (``"ang"``,
        ``"hap"``, ``"exc"``, ``"sad"``, ``"neu"``, ``"fru"``, ``"fea"``, ``"sur"``, ``"dis"``,
        ``"oth"``, ``"xxx"``) to names; what is not in it, or is None, is left out.
    emotions : list of str, dict of str to (str or None), or None, default=None
        What is done with the names of ``label_map``. None keeps all. A list keeps those
        emotions. A dict renames emotions, drops those whose value is None and keeps the others.
    media : {"require", "optional"}, default="require"
        Whether an utterance without its sound file is left out, or kept with its transcript
        alone.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        table : DataFrame of shape (n_utterances, 3)
            Modality table: ``audio`` holds paths, ``text`` transcripts, None where one is
            missing; ``visual`` is missing throughout.
        target : ndarray of shape (n_utterances,)
            Emotion names.
        groups : ndarray of shape (n_utterances,)
            Speakers, by session and gender: ``iemocap-1F``.
        speakers_known : bool
            Whether the groups are speakers.
        frame : DataFrame of shape (n_utterances, 16)
            clip, corpus, speaker, emotion, session (1 to 5), dialogue, utterance (its number in
            the dialogue, from 0, utterances of all labels counted), text, start, end (seconds
            in the dialogue), label (of the release), valence, activation, dominance, sex, style.
        report : DataFrame
            file, stage and reason of everything left out.
        DESCR : str
            The corpus, its files, labels and defects.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist, holds no labels, or no sound although it is required.
    NotADirectoryError
        If the path is a file.
    ValueError
        If a line of labels or transcripts is malformed, a file or an utterance is there twice,
        a label, emotion or option is unknown, or nothing is left.

    Warns
    -----
    UserWarning
        If utterances have no transcript; once, with their number.

    See Also
    --------
    load_meld : Dialogues of a series, with faces too.

    References
    ----------
    C. Busso, M. Bulut, C.-C. Lee, A. Kazemzadeh, E. Mower, S. Kim, J. N. Chang, S. Lee and
    S. S. Narayanan, "IEMOCAP: interactive emotional dyadic motion capture database", Language
    Resources and Evaluation 42: 335-359, 2008.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skfdan.datasets import load_iemocap
    >>> clip = "Ses01F_impro01_F000"
    >>> files = {
    ...     "dialog/EmoEvaluation/Ses01F_impro01.txt":
    ...         f"[6.2901 - 8.2357]\t{clip}\tneu\t[2.5000, 2.5000, 2.5000]\n",
    ...     "dialog/transcriptions/Ses01F_impro01.txt":
    ...         f"{clip} [006.2901-008.2357]: Excuse me.\n",
    ...     f"sentences/wav/Ses01F_impro01/{clip}.wav": "",
    ... }
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name, content in files.items():
    ...         Path(root, "Session1", name).parent.mkdir(parents=True, exist_ok=True)
    ...         _ = Path(root, "Session1", name).write_text(content)
    ...     data = load_iemocap(root, label_map=6)
    >>> data.table["text"].tolist(), data.target.tolist(), data.groups.tolist()
    (['Excuse me.'], ['neutral'], ['iemocap-1F'])
    """
    check_option("media", media, ("require", "optional"))
    names = _label_names(label_map)
    root = check_root(root, "IEMOCAP")
    report = Report()
    found = _find(root, report)
    rows = pd.DataFrame([row for path in found["labels"].values() for row in _read_labels(path)])
    check_found(rows, root, report, SCHEME)
    twice = rows.loc[rows["clip"].duplicated(), ["clip", "dialogue"]]
    if len(twice):
        clip, dialogue = twice.iloc[0]
        raise ValueError(
            f"IEMOCAP: the utterance {clip!r} is labelled twice, the second time in "
            f"{str(found['labels'][dialogue])!r}. Restore the file from the release."
        )
    # Files list utterances in time already, but nothing says that they must.
    rows = rows.sort_values(["session", "dialogue", "start", "clip"], ignore_index=True)
    rows["utterance"] = rows.groupby("dialogue").cumcount()
    rows["emotion"] = rows["label"].map(names)
    dropped = rows["label"][rows["emotion"].isna()]
    for code, n in dropped.value_counts().sort_index().items():
        reason = f"{n} utterance(s) of the label {code!r} ({CODES[code]}), which label_map= drops"
        report.add(root, "emotions", reason)
    rows = rows[rows["emotion"].notna()]
    if rows.empty:
        raise ValueError(
            f"IEMOCAP: label_map={label_map!r} leaves no utterance; the labels found in "
            f"{str(root)!r} are {sorted(dropped.unique())}."
        )
    rows = rows.assign(visual=None, audio=[found["sounds"].get(clip) for clip in rows["clip"]])
    silent = rows["audio"].isna()
    if media == "require" and silent.all():
        raise FileNotFoundError(
            f"IEMOCAP: {len(rows)} utterances are labelled, but there is no sound such as "
            f"Session1/sentences/wav/<dialogue>/{rows['clip'].iloc[0]}.wav below {str(root)!r}. "
            "Unpack it there, or pass media='optional' to load the transcripts alone."
            f"{report.unreadable()}"
        )
    if media == "require":
        for clip in rows["clip"][silent]:
            report.add(clip, "media", "the utterance has no sound: there is no file")
        rows = rows[~silent]
    elif silent.any():
        report.add(root, "media", f"{silent.sum()} utterance(s) are kept without sound")
    texts = dict(pair for path in found["transcripts"].values() for pair in _read_transcripts(path))
    rows = rows.assign(
        audio=[None if file is None else str(file) for file in rows["audio"]],
        text=[texts.get(clip) or None for clip in rows["clip"]],
    )
    wordless = rows["clip"][rows["text"].isna()]
    if len(wordless):
        warnings.warn(
            f"IEMOCAP: {len(wordless)} of {len(rows)} utterances have no transcript in "
            f"dialog/transcriptions, e.g. {wordless.iloc[0]!r}; their text cells are missing.",
            UserWarning,
            stacklevel=2,
        )
    return make_bunch(
        rows[["clip", "speaker", "emotion", "visual", "audio", *COLUMNS]],
        root=root,
        corpus="iemocap",
        labels=names.values(),
        emotions=emotions,
        report=report,
        descr=DESCR,
        text="text",
    )
