"""MELD: utterances of the series Friends, voice, face and transcript."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from sklearn.utils import Bunch

from ._base import (
    AUDIO_SUFFIXES,
    Report,
    canonical_emotion,
    check_option,
    check_root,
    check_rows,
    index_takes,
    make_bunch,
    read_csv,
    walk,
)

SPLITS = ("train", "dev", "test")
LABELS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
#: Folder names of the media, official and simple.
SPLIT_FOLDERS = {
    "train_splits": "train",
    "dev_splits_complete": "dev",
    "output_repeated_splits_test": "test",
    **{split: split for split in SPLITS},
}
#: Column of the frame -> column of the csv files.
COLUMNS = {
    "speaker": "Speaker",
    "emotion": "Emotion",
    "dialogue": "Dialogue_ID",
    "utterance": "Utterance_ID",
    "text": "Utterance",
    "sentiment": "Sentiment",
    "season": "Season",
    "episode": "Episode",
    "start": "StartTime",
    "end": "EndTime",
}
KNOWN_DEFECTS = {
    "train_dia125_utt3": "the video is corrupt",
    "test_dia220_utt0": "the video is minutes long, wrongly cut",
    "test_dia38_utt4": "the video is minutes long, wrongly cut",
}
KNOWN_MISSING = {"dev_dia110_utt7": "the corpus itself lacks this video"}

_CSV = re.compile(r"(train|dev|test)_sent_emo")
_MEDIA = re.compile(r"dia(\d+)_utt(\d+)")

DESCR = """\
Multimodal EmotionLines Dataset (MELD)
======================================
Utterances of the TV series Friends with speaker, emotion, sentiment and transcript:
9,989 of training (1,038 dialogues), 1,109 of development, 2,610 of test.

Reference: S. Poria, D. Hazarika, N. Majumder, G. Naik, E. Cambria and R. Mihalcea, "MELD:
A Multimodal Multi-Party Dataset for Emotion Recognition in Conversations", Proc. ACL, 2019.
Source: https://affective-meld.github.io. Licence of the annotations: GPL-3.0; the media are
excerpts of a copyrighted series.

Files: {train,dev,test}_sent_emo.csv, and dia{D}_utt{U}.mp4 in the folders train_splits,
dev_splits_complete and output_repeated_splits_test, or train, dev and test.
Emotions: anger, disgust, fear, joy, neutral, sadness, surprise; joy is called happiness here.

One row is one annotated utterance, in the order of the csv files; the mp4 is both its visual
and its audio cell (a sound file of the same name is preferred for the audio cell), and the
transcript is its text cell. With media="require" an utterance without media is left out and
reported; with media="optional" it stays, with its transcript alone. The clip id is
split_diaD_uttU: dialogue numbers start anew in every split.

Groups are speaker names. The official split is in the frame's column `split`; it is not
speaker-independent, since the six main speakers are in every part. A minor name ("Waitress")
may be several people, and a joint one ("Ross and Joey") is a group of its own.

Known defects: train dia125_utt3 is corrupt, dev dia110_utt7 is missing, test dia220_utt0 and
test dia38_utt4 are minutes long (left out unless keep_defective=True); some files have no
annotation (left out); alignment with the transcript is automatic and sometimes wrong. Some
copies of the csv files hold the control characters U+0080 to U+009F in the place of
punctuation, an apostrophe as U+0092: they are read as the Windows-1252 characters that they
were, so that every copy gives the same transcripts.
"""

#: The control characters that Windows-1252 bytes become when they are taken for Latin-1.
_CONTROLS = {
    code: bytes([code]).decode("cp1252")
    for code in range(0x80, 0xA0)
    if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)  # Windows-1252 has no character there.
}


def _parse(path: PurePosixPath) -> tuple[str, str, dict[str, Any]] | str | None:
    suffix = path.suffix.lower()
    if suffix == ".csv" and _CSV.fullmatch(path.stem):
        return None
    if suffix != ".mp4" and suffix not in AUDIO_SUFFIXES:
        return "neither an mp4, nor a sound file, nor a file of annotations"
    match = _MEDIA.fullmatch(path.stem)
    if not match:
        return "the name is not dia{D}_utt{U}"
    folders = [part.lower() for part in path.parts]
    split = next((SPLIT_FOLDERS[p] for p in reversed(folders) if p in SPLIT_FOLDERS), None)
    if split is None:
        return f"no folder says which split it is; known are {list(SPLIT_FOLDERS)}"
    dialogue, utterance = map(int, match.groups())
    return f"{split}_dia{dialogue}_utt{utterance}", "video" if suffix == ".mp4" else "audio", {}


def _find_csvs(root: Path, split: str | Sequence[str] | None) -> dict[str, Path]:
    wanted = SPLITS if split is None else [split] if isinstance(split, str) else list(split)
    for name in wanted:
        check_option("split", name, SPLITS)
    found: dict[str, Path] = {}
    report = Report()
    for path in map(root.joinpath, walk(root, report)):
        match = _CSV.fullmatch(path.stem)
        if not match or path.suffix.lower() != ".csv" or match[1] not in wanted:
            continue
        if match[1] in found:
            raise ValueError(
                f"MELD: the annotations of {match[1]!r} are there twice, as "
                f"{str(found[match[1]])!r} and {str(path)!r}. Remove one, or pass the folder "
                "that holds only one."
            )
        found[match[1]] = path
    missing = [name for name in wanted if name not in found]
    if not found or (missing and split is not None):
        raise FileNotFoundError(
            f"MELD: no {', '.join(f'{n}_sent_emo.csv' for n in missing)} below {str(root)!r}; "
            f"found {sorted(p.name for p in root.iterdir())[:5]}. Pass the folder that holds "
            f"the corpus's csv files.{report.unreadable()}"
        )
    return {name: found[name] for name in SPLITS if name in found}


def _read_annotations(path: Path, split: str) -> pd.DataFrame:
    frame = read_csv(path, COLUMNS.values(), "MELD")
    rows = frame[list(COLUMNS.values())].set_axis(list(COLUMNS), axis=1)
    numbers = ["dialogue", "utterance", "season", "episode"]
    rows[numbers] = rows[numbers].apply(pd.to_numeric, errors="coerce")
    rows["emotion"] = rows["emotion"].fillna("").map(canonical_emotion)
    check = partial(check_rows, frame=frame, path=path, corpus="MELD")
    check(rows[numbers].isna().any(axis=1), f"no number in one of {numbers}")
    check(rows["speaker"].isna(), "no speaker")
    check(~rows["emotion"].isin(LABELS), f"an emotion that is not in {LABELS}")
    rows = rows.astype(dict.fromkeys(numbers, int))
    rows["text"] = rows["text"].str.translate(_CONTROLS)
    rows["speaker"] = "meld-" + rows["speaker"].str.strip()
    pairs = zip(rows["dialogue"], rows["utterance"], strict=True)
    rows = rows.assign(clip=[f"{split}_dia{d}_utt{u}" for d, u in pairs], split=split)
    check(rows["clip"].duplicated(), "an utterance that is there already")
    return rows


def load_meld(
    root: str | os.PathLike,
    *,
    emotions: Iterable[str] | Mapping[str, str | None] | None = None,
    split: str | Sequence[str] | None = None,
    media: str = "require",
    keep_defective: bool = False,
) -> Bunch:
    r"""Index the annotations and media of MELD, one row an utterance.

    Parameters
    ----------
    root : path-like
        Folder that holds the csv files and the folders of media, at any depth.
    emotions : list of str, dict of str to (str or None), or None, default=None
        None keeps all. A list keeps those emotions. A dict renames emotions, drops those
        whose value is None and keeps the others.
    split : {"train", "dev", "test"}, list of these, or None, default=None
        Parts to load; None loads those whose csv file is there.
    media : {"require", "optional"}, default="require"
        Whether an utterance without media is left out, or kept with its transcript alone.
    keep_defective : bool, default=False
        Whether to use the media that are known to be corrupt or wrongly cut, for a copy in
        which they are repaired.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        table : DataFrame of shape (n_utterances, 3)
            Modality table: ``visual`` and ``audio`` hold paths, ``text`` transcripts, None
            where one is missing. ``table[["visual", "audio"]]`` is voice and face alone, as
            for :func:`skfdan.unpair` before the training of a classifier that reads no text.
        target : ndarray of shape (n_utterances,)
            Emotion names.
        groups : ndarray of shape (n_utterances,)
            Speakers.
        speakers_known : bool
            Whether the groups are speakers.
        frame : DataFrame of shape (n_utterances, 13)
            clip, corpus, speaker, emotion, dialogue, utterance, text, sentiment, season,
            episode, start, end, split.
        report : DataFrame
            file, stage and reason of everything left out.
        DESCR : str
            The corpus, its files, labels and defects.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist, holds no csv file of the wanted parts, or no media
        although they are required.
    ValueError
        If a csv file lacks a column or has a bad row, a file is there twice, an emotion or
        option is unknown, or nothing is left.

    References
    ----------
    S. Poria, D. Hazarika, N. Majumder, G. Naik, E. Cambria and R. Mihalcea, "MELD: A
    Multimodal Multi-Party Dataset for Emotion Recognition in Conversations", Proc. ACL, 2019.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skfdan.datasets import load_meld
    >>> columns = ("Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,"
    ...            "Season,Episode,StartTime,EndTime")
    >>> with tempfile.TemporaryDirectory() as root:
    ...     _ = Path(root, "dev_sent_emo.csv").write_text(
    ...         columns + "\nHey!,Ross,joy,positive,0,0,4,7,0:20:57,0:21:00\n")
    ...     data = load_meld(root, media="optional")
    >>> data.frame["clip"].tolist(), data.target.tolist(), data.groups.tolist()
    (['dev_dia0_utt0'], ['happiness'], ['meld-Ross'])
    >>> data.table
      visual audio  text
    0   None  None  Hey!
    """
    check_option("media", media, ("require", "optional"))
    root = check_root(root, "MELD")
    csvs = _find_csvs(root, split)
    report = Report()
    rows = pd.concat([_read_annotations(p, s) for s, p in csvs.items()], ignore_index=True)
    defects = {(c, role): why for c, why in KNOWN_DEFECTS.items() for role in ("video", "audio")}
    files = index_takes(
        root,
        _parse,
        report,
        corpus="MELD",
        visual=("video",),
        audio=("audio", "video"),
        defects=None if keep_defective else defects,
    )
    extra = files[~files["clip"].isin(rows["clip"])]
    for clip, file in zip(extra["clip"], extra["visual"].fillna(extra["audio"]), strict=True):
        loaded = clip.split("_")[0] in csvs
        report.add(file, "annotation", "no annotation" if loaded else "its split is not loaded")
    rows = rows.merge(files, on="clip", how="left", validate="one_to_one")
    bare = rows["visual"].isna() & rows["audio"].isna()
    if media == "require" and bare.all():
        raise FileNotFoundError(
            f"MELD: {len(rows)} utterances are annotated, but there are no media such as "
            f"train_splits/dia0_utt0.mp4 below {str(root)!r}. Unpack the media there, or pass "
            f"media='optional' to load the transcripts alone.{report.unreadable()}"
        )
    if media == "require":
        for clip in rows.loc[bare, "clip"]:
            why = KNOWN_MISSING.get(clip, KNOWN_DEFECTS.get(clip, "there is no file"))
            report.add(clip, "media", f"the utterance has no media: {why}")
        rows = rows[~bare]
    elif bare.any():
        report.add(root, "media", f"{bare.sum()} utterance(s) are kept without media")
    return make_bunch(
        rows,
        root=root,
        corpus="meld",
        labels=LABELS,
        emotions=emotions,
        report=report,
        descr=DESCR,
        text="text",
    )
