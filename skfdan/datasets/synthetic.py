"""Made-up clips of talking, feeling cartoon people, for demonstrations and tests."""

from __future__ import annotations

import atexit
import json
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.utils import Bunch, check_random_state

from ..table import make_table
from ..utils.progress import progress_bar
from . import _faces, _speech, _words

__all__ = ["make_emotion_clips"]

EMOTIONS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
KNOWN_EMOTIONS = tuple(_speech.EMOTION_VOICES)
SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
PARAMETERS = "make_emotion_clips.json"
# Raised when the same parameters begin to mean other clips.
VERSION = 1
# Streams of random numbers under one seed.
SPEAKER, STYLE, CLIP, SPEECH, FILM, WORDS = range(6)

DESCR = """\
Toy clips of emotional speech, made by skfdan.datasets.make_emotion_clips

They are synthetic: no person was filmed or recorded. They serve demonstrations,
documentation and tests. Scores on them say nothing about people, and nothing about
how a method does on a real corpus.

Speech is a glottal pulse train sent through moving formants (source and filter):
random syllables whose pitch, range, tempo, loudness, tilt, jitter and breath follow
emotion and speaker. Faces are drawings whose brows, lids and mouth follow the action
units of each emotion; the mouth opens with the speech. Speakers differ in voice and
looks and have their own way of showing an emotion; clips differ by chance.

Transcripts (text=True) are invented sentences of everyday words, some of which go with
the emotion. They are not what is heard: speech is random syllables.

Clips: {n_clips} of {duration} s, {n_speakers} speakers, {n_emotions} emotions ({emotions}).
Separation: {separation} (0 is chance, 1 is the default).
"""


def make_emotion_clips(
    n_clips: int = 112,
    n_speakers: int = 8,
    *,
    emotions: Sequence[str] = EMOTIONS,
    root: str | os.PathLike | None = None,
    duration: float = 2.0,
    frame_size: int = 112,
    fps: int = 10,
    sample_rate: int = 16000,
    sound_in_video: bool = True,
    separation: float = 1.0,
    text: bool = False,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> Bunch:
    """Make a toy corpus of emotional speech: one wav and one mp4 file a clip.

    The clips are synthetic. They serve demonstrations, documentation and tests; scores
    on them say nothing about people.

    Parameters
    ----------
    n_clips : int, default=112
        Number of clips, at least the number of emotions and of speakers. Emotions are
        balanced and crossed with speakers as evenly as the number allows; the default
        is two clips of each emotion by each speaker.
    n_speakers : int, default=8
        Number of speakers, at least 1. Speakers of even number have a low voice, the
        others a high one.
    emotions : sequence of str, default=("anger", "disgust", "fear", "happiness", \
"neutral", "sadness", "surprise")
        Emotions shown; ``"boredom"`` and ``"calm"`` are known too.
    root : path-like or None, default=None
        Folder the files go to; it is made if need be. None takes a new temporary
        folder, which is removed when the process ends.
    duration : float, default=2.0
        Length of a clip in seconds, at least 0.5.
    frame_size : int, default=112
        Height and width of the video in pixels, even and at least 32.
    fps : int, default=10
        Video frames a second.
    sample_rate : {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000}, \
default=16000
        Sound samples a second.
    sound_in_video : bool, default=True
        Whether the mp4 holds the sound too (AAC), beside the wav.
    separation : float, default=1.0
        How far emotions lie apart, 0 to 3; 0 leaves nothing to be recognised.
    text : bool, default=False
        Whether there are transcripts too: an invented sentence a clip, whose words carry
        part of the emotion. The files are the same with and without.
    random_state : int, RandomState instance or None, default=None
        Seeds everything. An int gives the same clips again; None gives new ones.
    n_jobs : int or None, default=None
        Number of processes that make clips; each takes some seconds to start. The clips
        do not depend on it.
    verbose : int, default=0
        0 shows no progress bar.

    Returns
    -------
    Bunch
        table : DataFrame of shape (n_clips, 2) or (n_clips, 3)
            Modality table of paths: ``visual`` holds the mp4, ``audio`` the wav. With
            ``text=True`` the column ``text`` holds transcripts.
        target : ndarray of shape (n_clips,)
            Emotion of each clip.
        groups : ndarray of shape (n_clips,)
            Speaker of each clip.
        speakers_known : bool
            Whether the groups are speakers.
        frame : DataFrame of shape (n_clips, 6) or (n_clips, 7)
            Columns clip, corpus, speaker, emotion, visual, audio, and text if asked for.
        report : DataFrame of shape (0, 3)
            Columns file, stage, reason. Empty: no file of a toy corpus is broken.
        DESCR : str
            What the clips are and are not.

    Raises
    ------
    ValueError
        If an argument is out of its range, an emotion is unknown, or ``root`` already
        holds clips made with other parameters.

    Notes
    -----
    Speech is source-filter synthesis [1]_: a glottal pulse train with an F0 contour,
    and noise for fricatives, filtered by the formants of a random sequence of syllables.
    Faces are drawings moved by action units [2]_. Each clip has its own seed: clip i is
    the same however many clips are asked for, so a second call with the same parameters
    and ``root`` keeps the files that are there and makes only those that are missing. The
    parameters lie beside the clips in ``make_emotion_clips.json``.

    As in real corpora, speakers differ in voice and looks and in how they show an emotion,
    so folds that share speakers between training and test flatter. With the default
    parameters, 280 clips and log-Mel means and deviations, a logistic regression reaches
    an unweighted average recall of about 0.6 on speakers it has not seen, of about 0.8 on
    those it has.

    A transcript has seven words. With the default separation each goes with the emotion with
    a probability of 0.15, and with any emotion of the corpus with another 0.15; the others are
    everyday words. So a third of the sentences have no word that was chosen for their emotion.

    References
    ----------
    .. [1] G. Fant, "Acoustic Theory of Speech Production", Mouton, 1960.
    .. [2] P. Ekman and W. V. Friesen, "Facial Action Coding System", Consulting
       Psychologists Press, 1978.

    Examples
    --------
    >>> from skfdan.datasets import make_emotion_clips
    >>> clips = make_emotion_clips(n_clips=4, n_speakers=2, emotions=["anger", "sadness"],
    ...                            duration=0.5, frame_size=64, random_state=0)
    >>> clips.table.shape
    (4, 2)
    >>> clips.frame[["speaker", "emotion"]].drop_duplicates().shape
    (4, 2)
    >>> words = make_emotion_clips(n_clips=2, n_speakers=1, emotions=["anger", "sadness"],
    ...                            duration=0.5, frame_size=32, text=True, random_state=0)
    >>> [len(sentence.split()) for sentence in words.table["text"]]
    [7, 7]
    """
    emotions = _check(
        n_clips, n_speakers, emotions, duration, frame_size, fps, sample_rate, separation
    )
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    parameters = {
        "version": VERSION,
        "n_speakers": int(n_speakers),
        "emotions": list(emotions),
        "duration": float(duration),
        "frame_size": int(frame_size),
        "fps": int(fps),
        "sample_rate": int(sample_rate),
        "sound_in_video": bool(sound_in_video),
        "separation": float(separation),
        "random_state": None if random_state is None else seed,
        "seed": seed,
    }
    folder, parameters, fresh = _claim(root, parameters)

    clips = []
    for i in range(n_clips):
        # Both balanced, and crossed in full after every n_emotions * n_speakers clips.
        block = i // math.lcm(len(emotions), n_speakers)
        emotion, speaker = emotions[i % len(emotions)], (i + block) % n_speakers
        clips.append((f"{i:05d}_{emotion}_speaker{speaker:02d}", emotion, speaker))
    missing = [
        (i, emotion, speaker, str(folder / name))
        for i, (name, emotion, speaker) in enumerate(clips)
        if fresh or not all((folder / f"{name}{end}").exists() for end in (".wav", ".mp4"))
    ]
    made = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(_make_clip)(*clip, parameters) for clip in missing
    )
    for _ in progress_bar(
        made, total=len(missing), desc="make_emotion_clips", unit="clip", verbose=verbose
    ):
        pass

    names = [name for name, _, _ in clips]
    frame = pd.DataFrame(
        {
            "clip": names,
            "corpus": "synthetic",
            "speaker": [f"speaker{speaker:02d}" for _, _, speaker in clips],
            "emotion": [emotion for _, emotion, _ in clips],
            "visual": [str(folder / f"{name}.mp4") for name in names],
            "audio": [str(folder / f"{name}.wav") for name in names],
        }
    )
    if text:
        frame["text"] = [
            _words.say(
                emotion,
                emotions,
                float(separation),
                np.random.default_rng([parameters["seed"], WORDS, i]),
            )
            for i, (_, emotion, _) in enumerate(clips)
        ]
    return Bunch(
        table=make_table(visual=frame["visual"], audio=frame["audio"], text=frame.get("text")),
        target=np.array(frame["emotion"].tolist()),
        groups=np.array(frame["speaker"].tolist()),
        speakers_known=True,
        frame=frame,
        report=pd.DataFrame(columns=["file", "stage", "reason"]),
        DESCR=DESCR.format(
            n_clips=n_clips,
            n_speakers=n_speakers,
            n_emotions=len(emotions),
            emotions=", ".join(emotions),
            duration=duration,
            separation=separation,
        ),
    )


def _check(n_clips, n_speakers, emotions, duration, frame_size, fps, sample_rate, separation):
    """Return the emotions as a tuple, or say what is wrong."""
    if isinstance(emotions, str):
        raise ValueError(
            f"make_emotion_clips: emotions={emotions!r} is a single name; give a list, "
            f"[{emotions!r}]."
        )
    emotions = tuple(emotions)
    unknown = [e for e in emotions if e not in KNOWN_EMOTIONS]
    if unknown:
        raise ValueError(
            f"make_emotion_clips: unknown emotions {unknown}; known are {list(KNOWN_EMOTIONS)}."
        )
    if not emotions or len(set(emotions)) < len(emotions):
        raise ValueError(
            f"make_emotion_clips: emotions={list(emotions)} must name at least one emotion, "
            "and each once."
        )
    whole = {
        "n_clips": (n_clips, 1),
        "n_speakers": (n_speakers, 1),
        "frame_size": (frame_size, 32),
        "fps": (fps, 2),
    }
    for name, (value, least) in whole.items():
        if not isinstance(value, Integral) or value < least:
            raise ValueError(
                f"make_emotion_clips: {name}={value!r} must be a whole number, at least {least}."
            )
    if n_clips < max(len(emotions), n_speakers):
        raise ValueError(
            f"make_emotion_clips: n_clips={n_clips} is too few; {len(emotions)} emotions and "
            f"{n_speakers} speakers need at least {max(len(emotions), n_speakers)}."
        )
    if not 0.5 <= duration < math.inf:
        raise ValueError(f"make_emotion_clips: duration={duration} must be at least 0.5 seconds.")
    if frame_size % 2:
        raise ValueError(f"make_emotion_clips: frame_size={frame_size} must be even for H.264.")
    if sample_rate not in SAMPLE_RATES:
        raise ValueError(
            f"make_emotion_clips: sample_rate={sample_rate} must be one of {list(SAMPLE_RATES)}."
        )
    if not 0 <= separation <= 3:
        raise ValueError(f"make_emotion_clips: separation={separation} must lie between 0 and 3.")
    return emotions


def _claim(root, parameters):
    """Make the folder and write the parameters into it, or check those it holds.

    Returns the folder, the parameters and whether they were written now.
    """
    if root is None:
        root = tempfile.mkdtemp(prefix="skfdan-")
        atexit.register(shutil.rmtree, root, ignore_errors=True)
    root = Path(root).absolute()
    root.mkdir(parents=True, exist_ok=True)
    note = root / PARAMETERS
    fresh = not note.exists()
    if not fresh:
        there = json.loads(note.read_text(encoding="utf-8"))
        if parameters["random_state"] is None:
            # None stands for whatever seed the folder began with.
            parameters = {**parameters, "seed": there.get("seed")}
        other = [
            f"{name}={there.get(name)!r} there, {value!r} asked for"
            for name, value in parameters.items()
            if there.get(name) != value
        ]
        if other:
            raise ValueError(
                f"make_emotion_clips: {root} holds clips made with other parameters "
                f"({'; '.join(other)}). Give another root, or delete that folder."
            )
    else:
        _put(note, lambda path: path.write_text(json.dumps(parameters, indent=1), encoding="utf-8"))
    return root, parameters, fresh


def _put(path, write):
    """Write under another name first: what bears the right name is complete."""
    path = Path(path)
    part = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _make_clip(i: int, emotion: str, speaker: int, stem: str, parameters: dict[str, Any]) -> None:
    """Write ``stem.wav`` and ``stem.mp4``."""
    import soundfile

    def rng(*key):
        return np.random.default_rng([parameters["seed"], *key])

    def mix(room, who, part):
        """Put emotion on a neutral voice or face; the style stays with speaker and emotion."""
        style = rng(STYLE, speaker, KNOWN_EMOTIONS.index(emotion), part)
        return room(who, emotion, parameters["separation"], style, rng(CLIP, i, part))

    rate, fps, duration = (parameters[k] for k in ("sample_rate", "fps", "duration"))
    low = speaker % 2 == 0
    voice = _speech.draw_voice(rng(SPEAKER, speaker, 0), high=not low)
    voice = mix(_speech.mix_voice, voice, 0)
    sound = _speech.speak(voice, rng(SPEECH, i), duration, rate)

    person = _faces.draw_person(rng(SPEAKER, speaker, 1), speaker, beard=low)
    face = mix(_faces.mix_face, person, 1)
    loudness = _loudness(sound, round(duration * fps))
    frames = _faces.film(person, face, loudness, rng(FILM, i), fps, parameters["frame_size"])

    pcm = np.round(sound * 32767).astype(np.int16)
    _put(f"{stem}.wav", lambda path: soundfile.write(path, pcm, rate))
    pcm = pcm if parameters["sound_in_video"] else None
    _put(f"{stem}.mp4", lambda path: _write_video(path, frames, fps, pcm, rate))


def _loudness(sound: np.ndarray, n_frames: int) -> np.ndarray:
    """Return the envelope at the video's frames; 1 is the clip's loud syllables."""
    edges = np.linspace(0, len(sound), n_frames + 1).astype(int)
    energy = np.sqrt(np.add.reduceat(sound.astype(float) ** 2, edges[:-1]) / np.diff(edges))
    return energy / np.percentile(energy, 95)


def _write_video(path, frames, fps, pcm, sample_rate):
    import av

    # x264's macroblock tree over B-frames gives other bytes from call to call.
    options = {"preset": "veryfast", "crf": "20", "threads": "1", "bf": "0", "mbtree": "0"}
    with av.open(str(path), "w", format="mp4") as container:
        picture = container.add_stream("libx264", rate=fps, options=options)
        picture.height, picture.width = frames.shape[1:3]
        picture.pix_fmt = "yuv420p"
        if pcm is not None:
            sound = container.add_stream("aac", rate=sample_rate, layout="mono")
        for image in frames:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode())
        if pcm is not None:
            block = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
            block.sample_rate = sample_rate
            # With a time stamp, the container can undo the codec's delay.
            block.pts, block.time_base = 0, Fraction(1, sample_rate)
            container.mux(sound.encode(block))
            container.mux(sound.encode())
