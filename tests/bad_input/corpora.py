"""Loaders, downloads, made-up clips and the check of a corpus."""

import os
import socket

from bad_input.shared import Case
from skfdan.datasets import (
    check_corpus,
    fetch_ravdess,
    load_crema_d,
    load_emodb,
    load_fer2013,
    load_folder,
    load_iemocap,
    load_meld,
    load_published_results,
    load_ravdess,
    load_savee,
    make_emotion_clips,
)


def _tree(c: Case, *names: str) -> str:
    """Make a corpus of files that a loader, which decodes none, takes for sound."""
    for name in names:
        c.written(f"corpus/{name}", b"some bytes")
    return str(c.tmp / "corpus")


def _corpus(c: Case) -> str:
    return _tree(c, "anger/a.wav", "joy/b.wav", "joy/c.wav")


def _unreachable(c: Case):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    c.monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    fetch_ravdess(c.tmp, base_url=f"http://127.0.0.1:{port}/record", progress=False)


def _pointer(c: Case):
    words = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 10\n"
    c.written("corpus/AudioWAV/1001_DFA_ANG_XX.wav", words)
    load_crema_d(c.tmp / "corpus")


def _actor_twice(c: Case):
    c.written("corpus/1001_DFA_ANG_XX.wav", b"x")
    people = "ActorID,Age,Sex\n1001,51,Male\n1001,51,Male\n"
    c.written("corpus/VideoDemographics.csv", people)
    load_crema_d(c.tmp / "corpus")


def _fer_pixels(c: Case):
    load_fer2013(c.written("fer2013.csv", "emotion,pixels,Usage\n0,1 2 3,Training\n"))


def _twice(c: Case):
    os.makedirs(c.tmp / "corpus")
    c.written("corpus/a.wav", b"x")
    load_folder(c.written("corpus/list.csv", "audio,emotion\na.wav,joy\na.wav,fear\n"))


def _listed(c: Case, *lines: str, **options):
    for name in ("a.wav", "b.wav", "a.mp4", "ann_1.wav", "bob_1.mp4", "clips/c.wav"):
        c.written(f"corpus/{name}", b"x")
    load_folder(c.written("corpus/list.csv", "\n".join([*lines, ""])), **options)


def _unfetched(c: Case):
    os.makedirs(c.tmp / "corpus")
    os.symlink(c.tmp / "gone", c.tmp / "corpus/1001_DFA_ANG_XX.wav")
    load_crema_d(c.tmp / "corpus")


def _folder_of_a_list(c: Case):
    c.written("corpus/list.csv", "audio,emotion\na.wav,joy\n")
    load_folder(_tree(c, "a.wav"))


def _other_clips(c: Case):
    few = {"root": c.tmp / "made", "emotions": ("happiness", "fear"), "duration": 0.5}
    few |= {"frame_size": 32, "sample_rate": 8000, "random_state": 0}
    make_emotion_clips(2, 2, **few)
    make_emotion_clips(2, 2, **few | {"separation": 0.5})


def _no_media(c: Case):
    header = "Dialogue_ID,Utterance_ID,Speaker,Emotion,Utterance,Sentiment,Season,Episode"
    for part in ("train", "dev", "test"):
        row = '0,0,Ross,joy,Hi.,positive,1,1,"00:00:01,000","00:00:02,000"'
        c.written(f"meld/{part}_sent_emo.csv", f"{header},StartTime,EndTime\n{row}\n")
    load_meld(c.tmp / "meld")


def _damaged_line(c: Case):
    line = "[6.2901 - 8.2357] Ses01F_impro01_F000 neu"
    c.written(f"i/Session1/dialog/EmoEvaluation/{line[18:32]}.txt", f"% header\n{line}\n")
    load_iemocap(c.tmp / "i")


CASES = {
    "`load_folder` of a folder that is not there": lambda c: load_folder(c.tmp / "none"),
    "`load_folder` of a csv file that is not there": lambda c: load_folder(c.tmp / "none.csv"),
    "`load_folder` of a file that is no csv": lambda c: load_folder(c.written("list.txt", b"x")),
    "`load_folder` of an empty folder": lambda c: load_folder(c.tmp),
    '`load_folder(root, emotions="joy")`': lambda c: load_folder(_corpus(c), emotions="joy"),
    "`load_folder` with an emotion that is not there": lambda c: load_folder(
        _corpus(c), emotions=["joy", "envy"]
    ),
    "`load_folder` with `emotions=` that drop everything": lambda c: load_folder(
        _corpus(c), emotions={"happiness": None, "anger": None}
    ),
    "`load_folder` with a `speaker_pattern` that is no regular expression": lambda c: load_folder(
        _corpus(c), speaker_pattern="(spk"
    ),
    "`load_folder` with a `speaker_pattern` that no file has": lambda c: load_folder(
        _corpus(c), speaker_pattern="(spk[0-9]+)"
    ),
    "`load_folder` of a csv file without the column emotion": lambda c: load_folder(
        c.written("list.csv", "audio,label\na.wav,joy\n")
    ),
    "`load_folder` of a csv file without paths": lambda c: load_folder(
        c.written("list.csv", "sound,emotion\na.wav,joy\n")
    ),
    "`load_folder` with a column of transcripts that is not there": lambda c: load_folder(
        c.written("list.csv", "audio,emotion\na.wav,joy\n"), text="words"
    ),
    "`load_folder` of a csv file with an empty emotion": lambda c: load_folder(
        c.written("list.csv", "audio,emotion\na.wav,joy\nb.wav,\n")
    ),
    "`load_folder` of a csv file whose rows are longer than its header": lambda c: load_folder(
        c.written("list.csv", "audio,emotion\na.wav,joy,ann\n")
    ),
    "`load_folder` of a csv file with two columns of one name": lambda c: load_folder(
        c.written("list.csv", "audio,emotion,emotion \na.wav,joy,joy\n")
    ),
    "`load_folder` of a csv file with two separators in its header": lambda c: _listed(
        c, "emotion;audio,age", "joy;a.wav,30"
    ),
    "`load_folder` of a csv file whose speakers have another header": lambda c: _listed(
        c, "emotion,audio,Actor", "joy,a.wav,ann"
    ),
    "`load_folder` of the folder of a csv file": _folder_of_a_list,
    "`load_folder` of emotions that are not the first folders": lambda c: load_folder(
        _tree(c, "dev/joy/a.wav", "train/joy/b.wav")
    ),
    "`load_folder` of one folder that is no emotion": lambda c: load_folder(
        _tree(c, "clips/a.wav", "clips/b.wav")
    ),
    "`load_folder` of a csv file with a folder as sound": lambda c: _listed(
        c, "emotion,audio", "joy,clips"
    ),
    "`load_folder` with a `speaker_pattern` that finds two speakers in a row": lambda c: _listed(
        c, "emotion,visual,audio", "joy,bob_1.mp4,ann_1.wav", speaker_pattern="([a-z]+)_"
    ),
    "`load_folder` of a csv file with a video as face and voice of two rows": lambda c: _listed(
        c, "emotion,visual,audio", "joy,a.mp4,", "joy,,a.mp4"
    ),
    "`load_folder` of a csv file without rows": lambda c: load_folder(
        c.written("list.csv", "audio,emotion\n")
    ),
    "`load_folder` with a `speaker_pattern` and a column of speakers": lambda c: load_folder(
        c.written("list.csv", "audio,emotion,speaker\na.wav,joy,ann\n"), speaker_pattern="(a)"
    ),
    "`load_folder` of a csv file that names a file twice": _twice,
    "`load_folder` of a csv file whose files are not there": lambda c: load_folder(
        c.written("list.csv", "audio,emotion\na.wav,joy\n")
    ),
    "`load_ravdess` of a folder that is not there": lambda c: load_ravdess(c.tmp / "none"),
    "`load_ravdess` of a file": lambda c: load_ravdess(c.written("ravdess.zip", b"PK")),
    "`load_ravdess` of a folder without its files": lambda c: load_ravdess(_corpus(c)),
    "`load_ravdess` with an unknown channel": lambda c: load_ravdess(c.tmp, channel="singing"),
    "`load_ravdess` of a take that is there twice": lambda c: load_ravdess(
        _tree(c, "a/03-01-05-01-01-01-01.wav", "b/03-01-05-01-01-01-01.wav")
    ),
    '`load_ravdess(root, channel="song")` of spoken takes': lambda c: load_ravdess(
        _tree(c, "Actor_01/03-01-05-01-01-01-01.wav"), channel="song"
    ),
    "`load_savee` of a folder without its files": lambda c: load_savee(_corpus(c)),
    "`load_emodb` of a folder without its files": lambda c: load_emodb(_corpus(c)),
    "`load_crema_d` of a folder without its files": lambda c: load_crema_d(_corpus(c)),
    "`load_crema_d` of a checkout without its Git LFS files": _pointer,
    "`load_crema_d` of a clone whose files were not fetched": _unfetched,
    "`load_crema_d` with an actor twice in `VideoDemographics.csv`": _actor_twice,
    "`load_fer2013` of a folder without its file": lambda c: load_fer2013(_corpus(c)),
    "`load_fer2013` of another file": lambda c: load_fer2013(c.written("faces.zip", b"PK")),
    "`load_fer2013` of a picture with too few pixels": _fer_pixels,
    "`load_meld` with an unknown part": lambda c: load_meld(c.tmp, split="validation"),
    "`load_meld` of a folder without its media": _no_media,
    "`load_iemocap` of a folder without its files": lambda c: load_iemocap(_corpus(c)),
    "`load_iemocap` with an unknown set of classes": lambda c: load_iemocap(c.tmp, label_map=5),
    "`load_iemocap` of a file with a damaged line": _damaged_line,
    "`load_published_results` of an unknown paper": lambda c: load_published_results(paper="ours"),
    "`fetch_ravdess` with an unknown part": lambda c: fetch_ravdess(c.tmp, parts=["speech"]),
    "`fetch_ravdess` without a connection": _unreachable,
    '`make_emotion_clips(emotions="joy")`': lambda c: make_emotion_clips(emotions="joy"),
    "`make_emotion_clips` with an unknown emotion": lambda c: make_emotion_clips(
        emotions=["happiness", "envy"]
    ),
    "`make_emotion_clips` with fewer clips than emotions": lambda c: make_emotion_clips(2),
    "`make_emotion_clips` into a folder of other clips": _other_clips,
    "`check_corpus(path)`": lambda c: check_corpus("clips"),
    "`check_corpus` of a frame without modality columns": lambda c: check_corpus(
        c.table.rename(columns={"visual": "face", "audio": "voice"})
    ),
    "`check_corpus` with too few labels": lambda c: check_corpus(c.voices, ["joy"]),
    "`check_corpus` of no row": lambda c: check_corpus(c.voices.iloc[:0]),
    "`check_corpus` with thresholds in the wrong order": lambda c: check_corpus(
        c.voices, min_seconds=5, max_seconds=1
    ),
    '`check_corpus(min_seconds="x")`': lambda c: check_corpus(c.voices, min_seconds="x"),
    '`check_corpus(timeout="x")`': lambda c: check_corpus(c.voices, timeout="x"),
    "`check_corpus(limits=5)`": lambda c: check_corpus(c.voices, limits=5),
}
