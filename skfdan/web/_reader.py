"""What the page shows of a clip, before it becomes a page."""

from __future__ import annotations

import os
import threading
import warnings
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.base import clone

from skfdan.cli._predictor import Answer, Predictor
from skfdan.cli._shared import NOUNS
from skfdan.preprocessing import FaceFrames, MelSpectrogram
from skfdan.preprocessing._source import MediaError
from skfdan.preprocessing._workers import Isolated
from skfdan.preprocessing.mel import AudioTransformer
from skfdan.web._look import look, warm_up

__all__ = ["Clip", "ClipReader", "Faces", "Sound"]

#: Seconds that reading a file may take.
SECONDS = 60.0
#: As check_corpus has them: below this peak a sound is silent, below this length too short.
SILENCE_DB, MIN_SECONDS = -60.0, 0.3


class Sound(NamedTuple):
    """What the model heard.

    Attributes
    ----------
    waveform : ndarray of shape (n,)
        All of the clip's sound.
    mel : MelSpectrogram
        Spectrograms as the model has them, as far as it has any.
    window : tuple of float or None
        Beginning and end in seconds of what the model hears; None is all.
    """

    waveform: np.ndarray
    mel: MelSpectrogram
    window: tuple[float, float] | None

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return len(self.waveform) / self.mel.sample_rate


class Faces(NamedTuple):
    """What the model saw.

    Attributes
    ----------
    crops : list of ndarray of shape (size, size, 3), uint8
        Faces.
    times : list of float or None
        When they are shown, in seconds.
    """

    crops: list[np.ndarray]
    times: list[float] | None


class Clip(NamedTuple):
    """A clip, and what the model makes of it.

    Attributes
    ----------
    name : str
        Name of its file.
    error : str or None
        Why there is nothing else.
    probabilities : dict of str to float
        From high to low.
    used : tuple of str
        What the model went by: "visual", "audio" or both.
    warnings : list of str
        What visitors should know before they believe it.
    sound, faces : Sound, Faces or None
        What is shown of it.
    """

    name: str
    error: str | None = None
    probabilities: dict[str, float] = {}  # noqa: RUF012, never changed
    used: tuple[str, ...] = ()
    warnings: list[str] = []  # noqa: RUF012
    sound: Sound | None = None
    faces: Faces | None = None


class ClipReader:
    """Predicts clips one at a time, as ``skfdan predict`` does, and collects what to show.

    Parameters
    ----------
    model : path-like
        Folder of a model, or ``hf://user/model``.
    modality : {"audio", "visual", "fused"} or None, default=None
        None is what the model was saved with.
    seconds : float, default=60
        Time that reading a file may take.
    """

    def __init__(self, model, modality: str | None = None, seconds: float = SECONDS):
        where = Path(os.fspath(model))
        # Many are called "model".
        self.name = "/".join(part for part in where.parts[-2:] if part != where.anchor)
        self.predictor = Predictor(os.fspath(model), modality, 1, seconds)
        self.modality = self.predictor.modality
        self._lock = threading.Lock()

    @property
    def classes(self) -> list[str]:
        """Emotions."""
        return self.predictor.classes

    @property
    def choices(self) -> list[str]:
        """What `modality` of :meth:`read` may be."""
        return self.predictor.choices

    def read(self, path: str, modality: str | None = None) -> Clip:
        """Predict a clip.

        Parameters
        ----------
        path : str
            Its file.
        modality : {"audio", "visual", "fused"} or None, default=None
            None is what the page started with.

        Returns
        -------
        Clip
            What to show.
        """
        name = os.path.basename(path)
        if not os.path.exists(path):
            return Clip(name, "the clip is no longer there; choose or record it again")
        # The network, and what it is told to read, are there once.
        with self._lock:
            self.predictor.choose(modality or self.modality)
            answer = self.predictor.file(path)
            if answer.error is not None:
                return Clip(name, answer.error)
            hears, sees = self._find(AudioTransformer), self._find(FaceFrames)
            try:
                sound, seconds = self._look(path, hears, answer)
                faces, found = None, True
                if "visual" in answer.used:
                    faces, found = _faces(path, sees, seconds)
            except MediaError as error:
                # It is decoded once more for the pictures, which may take longer than before.
                return Clip(name, error.problem)
        ranked = sorted(
            zip(self.classes, answer.probabilities.tolist(), strict=True),
            key=lambda pair: -pair[1],
        )
        told = [*_left_out(answer, self.predictor.wanted), *_about_sound(sound)]
        if not found:
            told.append("No face was found: the model looks at the middle of the picture instead.")
        return Clip(name, None, dict(ranked), answer.used, told, sound, faces)

    def _find(self, kind: type):
        return next((t for t in self.predictor.transformers if isinstance(t, kind)), None)

    def _look(
        self, path: str, hears: AudioTransformer | None, answer: Answer
    ) -> tuple[Sound | None, float | None]:
        mel = hears if isinstance(hears, MelSpectrogram) else MelSpectrogram()
        rate = mel.sample_rate if "audio" in answer.used else None
        limits = getattr(hears, "limits", None)
        task = partial(look, rate=rate, limits=limits)
        waveform, seconds = Isolated(task, warm_up, self.predictor.seconds, 1)(path)
        if waveform is None:
            return None, seconds
        return Sound(waveform, mel, _window(hears, len(waveform) / rate)), seconds


def _window(hears: AudioTransformer | None, seconds: float) -> tuple[float, float] | None:
    """Return which part of a clip the model hears, if it is not all."""
    duration = getattr(hears, "duration", None)
    if duration is None or hears.trim is not False or seconds <= duration + 0.01:
        return None
    return (seconds - duration) / 2, (seconds + duration) / 2


def _faces(path: str, sees: FaceFrames | None, seconds: float | None) -> tuple[Faces | None, bool]:
    """Return what the model sees, and whether that is a face."""
    if sees is None:
        return None, True
    found = True
    crops = _crops(path, sees, "missing")
    if crops is None:
        found, crops = False, _crops(path, sees, sees.on_no_face)
    crops = crops if crops.ndim == 4 else crops[None]
    n = len(crops)
    times = None if seconds is None else [(2 * k + 1) / (2 * n) * seconds for k in range(n)]
    return Faces([np.moveaxis(crop, 0, -1) for crop in crops], times), found


def _crops(path: str, sees: FaceFrames, on_no_face: str) -> np.ndarray | None:
    again = clone(sees).set_params(on_no_face=on_no_face, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said on the page
        return again.transform([path])[0, 0]


def _left_out(answer: Answer, wanted: tuple[str, ...]) -> list[str]:
    """Say why the model went by less than it was to."""
    return [
        f"The {NOUNS[m]} was left out: {answer.left_out[m]}."
        if m in answer.left_out
        else f"The file has no {NOUNS[m]}; the model goes by the {NOUNS[answer.used[0]]} alone."
        for m in wanted
        if m not in answer.used
    ]


def _about_sound(sound: Sound | None) -> list[str]:
    if sound is None:
        return []
    told = []
    with np.errstate(divide="ignore"):
        peak = 20 * np.log10(np.abs(sound.waveform - sound.waveform.mean()).max())
    if peak < SILENCE_DB:
        told.append("The clip is silent: what the model makes of its voice means nothing.")
    if sound.seconds < MIN_SECONDS:
        told.append(
            f"The clip is too short ({sound.seconds:.2f} s, less than a word): what the model "
            "makes of it means little."
        )
    return told
