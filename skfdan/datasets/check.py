"""A dry run over a corpus: every file is opened and decoded before anything is trained."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.utils import Bunch

from ..preprocessing import DecodeLimits
from ..preprocessing._base import is_number
from ..summary import UNLABELLED, in_order
from ..utils.progress import progress_bar
from ._check_items import Item, read_arguments, table_items
from ._check_problems import Problems, check_labels, compare
from ._check_text import describe
from ._examine import Examiner, Facts, Failure

__all__ = ["CorpusCheck", "check_corpus"]

ALL_SPEAKERS, TOTAL = "(all)", "total"


@dataclass(frozen=True)
class CorpusCheck:
    """What :func:`check_corpus` found.

    Attributes
    ----------
    problems : DataFrame
        One row a problem, errors first: file (empty where it is not about one), row (position
        in the table from 0, missing for a file that is in no row), stage (``"loader"``,
        ``"read"``, ``"content"``, ``"compare"`` or ``"label"``), kind, detail, severity
        (``"error"`` or ``"warning"``).
    balance : DataFrame of shape (n_speakers + 1, n_emotions + 1)
        Rows of the table by speaker and emotion, with totals; 0 is an emotion that a speaker
        lacks. Without speakers (none given, or every row a group of its own), one line for all.
        Rows without label have a column ``"(unlabelled)"`` if there are any.
    summary : dict
        rows, files (opened, each once), unlabelled_files (in no row), hours_of_sound,
        hours_of_video, sample_rates (Hz to number of files), frame_sizes ("WxH" to number of
        files), speakers (None if unknown), emotions, errors, warnings.

    Examples
    --------
    >>> from skfdan.datasets import check_corpus, make_emotion_clips
    >>> clips = make_emotion_clips(n_clips=4, n_speakers=2, emotions=["anger", "sadness"],
    ...                            duration=0.5, frame_size=64, random_state=0)
    >>> check_corpus(clips, timeout=None).balance
              anger  sadness  total
    speaker00     1        1      2
    speaker01     1        1      2
    total         2        2      4
    """

    problems: pd.DataFrame
    balance: pd.DataFrame
    summary: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether there is no error; there may be warnings."""
        return not self.summary["errors"]

    def to_csv(self, path: str | os.PathLike) -> None:
        """Write the problems to a csv file, or, given a folder, problems and balance into it.

        Parameters
        ----------
        path : path-like
            A file, or a folder that exists, for ``problems.csv`` and ``balance.csv``.
        """
        path = Path(path)
        # Linux file names may hold bytes that are no text.
        text = {"encoding": "utf-8", "errors": "backslashreplace"}
        if path.is_dir():
            self.balance.to_csv(path / "balance.csv", index_label="speaker", **text)
            path = path / "problems.csv"
        self.problems.to_csv(path, index=False, **text)

    def __str__(self) -> str:
        return describe(self.problems, self.balance, self.summary)


def check_corpus(
    corpus: Bunch | pd.DataFrame,
    y: Sequence | None = None,
    groups: Sequence | None = None,
    *,
    split: Sequence | None = None,
    report: pd.DataFrame | None = None,
    min_seconds: float = 0.3,
    max_seconds: float = 30.0,
    silence_db: float = -60.0,
    quiet_db: float = -50.0,
    clipped_share: float = 0.001,
    limits: DecodeLimits | None = None,
    timeout: float | None = 60.0,
    n_jobs: int | None = None,
    verbose: int = 1,
) -> CorpusCheck:
    """Open and decode every file of a corpus once, and report what is wrong with it.

    Nothing is changed and nothing is learned. Facts of a few hundred bytes are kept of each
    file, so memory does not grow with the length of the clips, and one file never ends the
    check of the others.

    Parameters
    ----------
    corpus : Bunch or DataFrame of shape (n, 2)
        What a loader returned, or a modality table. Cells are paths or arrays.
    y : array-like of shape (n,) or None, default=None
        Labels; None takes the Bunch's ``target``. None, NaN and "" are missing.
    groups : array-like of shape (n,) or None, default=None
        Speakers; None takes the Bunch's ``groups``.
    split : array-like of shape (n,) or None, default=None
        Part of the corpus a row belongs to, such as train or test; None takes the column
        ``split`` of the Bunch's ``frame`` if there is one.
    report : DataFrame or None, default=None
        Columns file, stage, reason: what a loader left out; None takes the Bunch's. Sound and
        video files that were left out for their name or for want of an annotation are opened
        too.
    min_seconds : float, default=0.3
        Shorter clips are too short: a syllable takes about 0.2 s, so less holds hardly a
        word, and a spectrogram of it is padding for the most part.
    max_seconds : float, default=30.0
        Longer clips are too long: acted and cut utterances last 1 to 15 s, so more is
        mostly an uncut recording, in which one label cannot hold throughout.
    silence_db : float, default=-60.0
        A sound is silent if no sample of the mean of its channels, which is what the
        transformers hear, comes above this level in dBFS, its own mean taken off. -60 dBFS are
        33 steps of 16 bits: the noise of a recording without speech.
    quiet_db : float, default=-50.0
        Likewise for quiet sounds. The quietest of RAVDESS's 1,440 takes peaks at -47 dBFS.
    clipped_share : float, default=0.001
        A sound is clipped if at least this share of a channel's samples lies in runs of three
        or more at full scale (0.999 and above, of one sign). One such run is a single loud
        peak, which cannot be heard; RAVDESS's worst take has 0.0001. Loud emotions clip
        first, so clipping tells a model the label by the recording level.
    limits : DecodeLimits or None, default=None
        Bounds on what is decoded of one file, as the transformers have them; None is
        ``DecodeLimits()``.
    timeout : float or None, default=60.0
        Seconds that one file may take. Files are decoded in worker processes, which are
        killed then; a decoder that crashes costs its worker, not the check. A worker takes
        some seconds to start. None decodes in this process, without limit.
    n_jobs : int or None, default=None
        Number of files decoded at a time; -1 uses all processors.
    verbose : int, default=1
        0 shows no progress bar.

    Returns
    -------
    CorpusCheck
        problems, balance, summary; ``print`` it to read it.

    Raises
    ------
    TypeError
        If corpus is neither a Bunch with a table nor a DataFrame.
    ValueError
        If the table has no modality column, lengths differ, a threshold is no number or out
        of order, or there is nothing to check.

    Notes
    -----
    =============  ========  ==============================================================
    kind           severity  when
    =============  ========  ==============================================================
    missing        error     there is no such file, or a row has no cell at all
    broken         error     it cannot be decoded (in time), or holds samples that are not
                             finite; a folder that cannot be read
    too large      error     it exceeds ``limits``, so that the transformers refuse it
    no sound       error     the file of an audio cell holds none
    no pictures    error     the file of a visual cell holds none
    truncated      error     it holds less than its header promises (WAV, MP3, AIFF, AU; a
                             video that lacks a tenth of its frames)
    silent         error     see ``silence_db``
    duplicate      error     two rows hold the same sound, or the same pictures, and differ
                             in speaker, label or split; a warning if they do not. One file
                             as voice and face of two rows, only if they differ
    quiet          warning   see ``quiet_db``
    clipped        warning   see ``clipped_share``
    too short      warning   see ``min_seconds``
    too long       warning   see ``max_seconds``
    unlabelled     warning   no label: a row's is missing, or the loader found none
    left out       warning   the loader left it out for another reason
    rare emotion   warning   one row alone: it cannot be trained and tested on
    alike names    warning   emotions, or speakers, whose names differ in case, spaces, hyphens,
                             underscores or the Unicode form of accents alone, and so may be one
    mixed rates    warning   sound files differ in their sampling rate, which tells a model
                             where a clip comes from, even after resampling
    =============  ========  ==============================================================

    Copies are told by digests (SHA-256) of the file's bytes and of what was decoded: mono
    samples with their rate, or all pictures in grey. So a FLAC copy of a WAV file, the sound of
    a video stored without loss, and a stereo copy of a mono file are found; a copy that was
    resampled, cut or compressed again is not. A video and a sound file in one row are one
    take. Silent files are not compared.

    Examples
    --------
    >>> import soundfile, tempfile
    >>> from skfdan import make_table
    >>> from skfdan.datasets import check_corpus
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sound = np.sin(np.arange(16000) / 9)
    ...     soundfile.write(f"{folder}/a.wav", sound, 16000)
    ...     soundfile.write(f"{folder}/b.flac", 0 * sound, 16000)
    ...     table = make_table(audio=[f"{folder}/a.wav", f"{folder}/b.flac", f"{folder}/c.wav"])
    ...     check = check_corpus(table, ["anger", "anger", "anger"], timeout=None)
    >>> check.problems[["row", "kind", "severity"]]
       row     kind severity
    0    2  missing    error
    1    1   silent    error
    >>> check.ok
    False
    """
    for name, value in (
        ("min_seconds", min_seconds),
        ("max_seconds", max_seconds),
        ("silence_db", silence_db),
        ("quiet_db", quiet_db),
        ("clipped_share", clipped_share),
    ):
        if not is_number(value):
            raise ValueError(f"check_corpus: {name}={value!r} must be a number.")
    if not isinstance(limits, DecodeLimits | None):
        raise ValueError(f"check_corpus: limits must be a DecodeLimits or None; got {limits!r}.")
    if not 0 <= min_seconds < max_seconds:
        raise ValueError(
            f"check_corpus: min_seconds={min_seconds} must be at least 0 and below "
            f"max_seconds={max_seconds}."
        )
    if timeout is not None and not (is_number(timeout) and timeout > 0):
        raise ValueError(f"check_corpus: timeout={timeout!r} must be seconds above 0, or None.")
    if not silence_db <= quiet_db <= 0:
        raise ValueError(
            f"check_corpus: silence_db={silence_db} must not be above quiet_db={quiet_db}, and "
            "both are levels below full scale, so at most 0."
        )
    if not 0 < clipped_share <= 1:
        raise ValueError(
            f"check_corpus: clipped_share={clipped_share} must be above 0 and at most 1."
        )
    told = corpus.get("speakers_known") if groups is None and isinstance(corpus, Mapping) else None
    table, y, groups, split, report = read_arguments(corpus, y, groups, split, report)
    speakers = _speakers(groups, len(table), told)
    found = Problems()
    items, empty = table_items(table, y, groups, split)
    for row in empty:
        found.add("read", "missing", "the row has neither a face, a voice nor words", row=row)
    loose = found.add_report(report)
    items += loose
    if not items and not len(table):
        raise ValueError("check_corpus: the corpus has no row, and its report names no media.")
    decoded = []
    facts = _examine_all(items, limits, timeout, n_jobs, verbose)
    for item, fact in zip(items, facts, strict=True):
        if isinstance(fact, Failure):
            found.add("read", fact.kind, fact.reason, **item.place)
        else:
            decoded.append((item, fact))
    sounding = []
    for item, fact in decoded:
        # The length of a take is told once.
        seconds = fact.seconds if item.modality == "audio" or item.alone else None
        if fact.truncated:
            found.add("read", "truncated", f"{fact.truncated}; copy it again", **item.place)
        if seconds is not None and seconds < min_seconds:
            detail = f"{seconds:.3f} s, below {min_seconds} s"
            found.add("content", "too short", detail, **item.place)
        if seconds is not None and seconds > max_seconds:
            detail = f"{seconds:.1f} s, above {max_seconds} s"
            found.add("content", "too long", detail, **item.place)
        if fact.clipped >= clipped_share:
            detail = f"{fact.clipped:.2%} of the samples are cut off"
            found.add("content", "clipped", detail, **item.place)
        if fact.peak is not None and fact.peak < quiet_db:
            kind = "silent" if fact.peak < silence_db else "quiet"
            level = "digital silence" if np.isinf(fact.peak) else f"peak {fact.peak:.1f} dBFS"
            # A channel beside an empty one loses 6 dB.
            if fact.channel_peak > fact.peak + 20:
                level += (
                    f"; its channels, with a peak of {fact.channel_peak:.1f} dBFS, cancel each "
                    "other when they are mixed: keep one"
                )
            found.add("content", kind, level, **item.place)
        if fact.peak is None or fact.peak >= silence_db:
            sounding.append((item, fact))
    compare(sounding, found)
    check_labels(y, speakers, found)
    summary = _summarise(table, y, speakers, decoded)
    rates = summary["sample_rates"]
    if len(rates) > 1:
        counts = ", ".join(f"{rate} Hz in {n} file(s)" for rate, n in rates.items())
        odd = next(item for item, fact in decoded if fact.rate == min(rates, key=rates.get))
        found.add("content", "mixed rates", f"{counts}; e.g. {odd.file}")
    problems = found.to_frame()
    severities = problems["severity"].value_counts()
    summary |= {
        "files": len({i.file for i in items if i.file}),
        "unlabelled_files": len({i.file for i in loose}),
        "errors": int(severities.get("error", 0)),
        "warnings": int(severities.get("warning", 0)),
    }
    return CorpusCheck(problems, _balance(y, speakers, len(table)), summary)


def _examine_all(
    items: list[Item],
    limits: DecodeLimits | None,
    timeout: float | None,
    n_jobs: int | None,
    verbose: int,
) -> list[Facts | Failure]:
    """Examine every file once, whatever the number of cells that name it."""
    jobs: dict[Hashable, tuple[Any, set[str]]] = {}
    keys = [item.file or i for i, item in enumerate(items)]
    for key, item in zip(keys, items, strict=True):
        jobs.setdefault(key, (item.cell, set()))[1].add(item.modality)
    examiner = Examiner(limits, timeout, effective_n_jobs(n_jobs))
    # Threads: decoders and digests let go of the interpreter, worker processes are waited
    # for. A generator, so that a bar can follow.
    results = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(
        delayed(examiner)(cell, modalities) for cell, modalities in jobs.values()
    )
    results = progress_bar(
        results, total=len(jobs), desc="check_corpus", unit="file", verbose=verbose
    )
    known = dict(zip(jobs, results, strict=True))
    if examiner.unavailable:
        warnings.warn(
            f"check_corpus: files were decoded without a time limit, and a crash would have "
            f"ended the check: {examiner.unavailable}. timeout=None does so without this warning.",
            UserWarning,
            stacklevel=3,
        )
    return [known[key][item.modality] for key, item in zip(keys, items, strict=True)]


def _speakers(groups: list | None, n: int, known: bool | None) -> list | None:
    """Return the speakers; None if they are not known, or nothing tells and all groups differ."""
    if known is None:
        known = n < 2 or len(set(groups or ())) < n
    if groups is None or not known:
        return None
    return ["(unknown)" if g is None else g for g in groups]


def _balance(y: list | None, speakers: list | None, n: int) -> pd.DataFrame:
    speakers = speakers or [ALL_SPEAKERS] * n
    labels = [UNLABELLED if v is None else v for v in y or [None] * n]
    counts = Counter(zip(speakers, labels, strict=True))
    columns = sorted(set(labels), key=in_order)
    rows = sorted(set(speakers), key=in_order)
    frame = pd.DataFrame(
        [[counts[s, c] for c in columns] for s in rows],
        index=pd.Index(rows, dtype=object),
        columns=pd.Index(columns, dtype=object),
        dtype=int,
    )
    frame[TOTAL] = frame.sum(axis=1)
    frame.loc[TOTAL] = frame.sum(axis=0)
    return frame.astype(int)


def _summarise(table, y, speakers, decoded) -> dict[str, Any]:
    # By file, since a file may stand in several rows.
    files = {(i.modality, i.file or i.row): fact for i, fact in decoded}

    def hours(modality):
        return sum(f.seconds or 0 for (m, _), f in files.items() if m == modality) / 3600

    rates = Counter(f.rate for f in files.values() if f.rate)
    sizes = Counter(f"{f.size[0]}x{f.size[1]}" for f in files.values() if f.size)
    return {
        "rows": len(table),
        "hours_of_sound": hours("audio"),
        "hours_of_video": hours("visual"),
        "sample_rates": dict(sorted(rates.items())),
        "frame_sizes": dict(sizes.most_common()),
        "speakers": None if speakers is None else len(set(speakers)),
        "emotions": len(set(y or []) - {None}),
    }
