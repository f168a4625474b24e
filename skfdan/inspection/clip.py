"""One clip: what is heard, what is seen, and what a model makes of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skfdan.preprocessing import FaceFrames, MediaError, MelSpectrogram
from skfdan.preprocessing._limits import as_limits
from skfdan.preprocessing._source import opened, sniff
from skfdan.preprocessing.media import read_audio
from skfdan.table import make_table

from ._clip_axes import draw_frames, draw_mel, draw_probabilities, draw_waveform, place_axes
from ._figure import import_pyplot

__all__ = ["ClipDisplay"]


class ClipDisplay:
    """Waveform, Mel spectrogram, face frames and predicted emotions of one clip.

    Make one with :meth:`from_file` or :meth:`from_arrays`; what a clip does not have is
    left out.

    Parameters
    ----------
    waveform : ndarray of shape (n,) or None, default=None
        Sound; full scale is 1.
    sample_rate : float or None, default=None
        Its sampling rate in Hz.
    log_mel : ndarray of shape (n_mels, T) or None, default=None
        Mel spectrogram in dB.
    mel_times : ndarray of shape (T,) or None, default=None
        Middle of its columns in seconds.
    mel_range : tuple (fmin, fmax) or None, default=None
        Lowest and highest frequency in Hz.
    frames : list of ndarray of shape (H, W, 3), uint8, or None, default=None
        Faces.
    frame_times : sequence of float or None, default=None
        When they are shown, in seconds.
    probabilities : ndarray of shape (n_classes,) or None, default=None
        Predicted probabilities.
    classes : array-like of shape (n_classes,) or None, default=None
        Their emotions.
    title : str or None, default=None
        Title of the picture.

    Attributes
    ----------
    figure_ : Figure
        The figure.
    axes_ : dict of str to Axes
        ``"waveform"``, ``"mel"``, ``"frame0"``, ``"frame1"``, ... and
        ``"probabilities"``, as far as they are drawn.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from skfdan.inspection import ClipDisplay
    >>> sound = np.sin(2 * np.pi * 440 * np.arange(8000) / 16000)
    >>> display = ClipDisplay.from_arrays(sound, probabilities={"joy": 0.7, "fear": 0.3})
    >>> list(display.axes_)
    ['waveform', 'mel', 'probabilities']
    >>> plt.close(display.figure_)
    """

    def __init__(
        self,
        *,
        waveform=None,
        sample_rate=None,
        log_mel=None,
        mel_times=None,
        mel_range=None,
        frames=None,
        frame_times=None,
        probabilities=None,
        classes=None,
        title=None,
    ):
        self.waveform = waveform
        self.sample_rate = sample_rate
        self.log_mel = log_mel
        self.mel_times = mel_times
        self.mel_range = mel_range
        self.frames = frames
        self.frame_times = frame_times
        self.probabilities = probabilities
        self.classes = classes
        self.title = title

    @classmethod
    def from_file(
        cls, path, estimator=None, *, n_frames=3, mel=None, faces=None, ax=None, **plot_kw
    ):
        """Read a clip and draw it.

        Parameters
        ----------
        path : path-like
            A sound or video file, a picture, or a folder of pictures.
        estimator : classifier, Pipeline or None, default=None
            A fitted classifier that takes a modality table of paths and has
            ``predict_proba``. It is given a table of one row: the path as ``audio`` if the
            clip has sound, and as ``visual`` if it has pictures.
        n_frames : int, default=3
            Frames to show, evenly spread.
        mel : MelSpectrogram or None, default=None
            How the spectrogram is computed, but for ``duration``, ``crop`` and ``trim``: the
            whole clip is shown. None is ``MelSpectrogram()``.
        faces : FaceFrames or None, default=None
            How faces are found, but for ``n_frames``. None is
            ``FaceFrames(on_no_face="center")``.
        ax : Axes or None, default=None
            Where to draw; the axes is divided.
        **plot_kw : dict
            Further arguments of :meth:`plot`.

        Returns
        -------
        ClipDisplay
            The display, drawn.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ImportError
            If matplotlib is not installed.
        MediaError
            If the file can't be decoded.
        NotFittedError
            If the estimator is not fitted.
        TypeError
            If the estimator has no ``predict_proba``.
        """
        who = f"{cls.__name__}.from_file"
        import_pyplot(who)
        if estimator is not None:
            check_is_fitted(estimator)
            if not hasattr(estimator, "predict_proba"):
                raise TypeError(f"{who}: {type(estimator).__name__} has no predict_proba.")
        path = os.fspath(path)
        sounds, shows, seconds = _contents(path)
        parts: dict = {"title": os.path.basename(os.path.normpath(path))}
        if sounds:
            parts["waveform"], parts["sample_rate"] = read_audio(path)
        if shows:
            faces = FaceFrames(on_no_face="center") if faces is None else clone(faces)
            faces.set_params(n_frames=n_frames, n_jobs=None, verbose=0)
            found = faces.fit_transform(make_table(visual=[path])[["visual"]])
            parts["frames"] = np.asarray(found, dtype=object)[0, 0]
            if seconds is not None:
                parts["frame_times"] = [
                    (2 * k + 1) / (2 * n_frames) * seconds for k in range(n_frames)
                ]
        if estimator is not None:
            cells = {"visual": [path] if shows else None, "audio": [path] if sounds else None}
            parts["probabilities"] = estimator.predict_proba(make_table(**cells))[0]
            parts["classes"] = estimator.classes_
        return cls.from_arrays(mel=mel, ax=ax, **parts, **plot_kw)

    @classmethod
    def from_arrays(
        cls,
        waveform=None,
        sample_rate=16000,
        *,
        frames=None,
        frame_times=None,
        probabilities=None,
        classes=None,
        mel=None,
        title=None,
        ax=None,
        **plot_kw,
    ):
        """Draw a clip that is in memory.

        Parameters
        ----------
        waveform : array-like of shape (n,) or None, default=None
            Sound; floats of full scale 1.
        sample_rate : float, default=16000
            Its sampling rate in Hz.
        frames : array-like of shape (n_frames, 3, H, W), or of pictures, or None, default=None
            uint8 faces as :class:`skfdan.preprocessing.FaceFrames` gives them; one picture
            (3, H, W) or pictures (H, W, 3) will do too.
        frame_times : sequence of float or None, default=None
            When the frames are shown, in seconds.
        probabilities : array-like of shape (n_classes,), dict of class to float, or None, \
default=None
            Probabilities of the emotions.
        classes : array-like of shape (n_classes,) or None, default=None
            The emotions, if ``probabilities`` is no dict.
        mel : MelSpectrogram or None, default=None
            As in :meth:`from_file`.
        title : str or None, default=None
            Title of the picture.
        ax : Axes or None, default=None
            Where to draw; the axes is divided.
        **plot_kw : dict
            Further arguments of :meth:`plot`.

        Returns
        -------
        ClipDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If there is nothing to draw, or shapes or lengths do not fit.
        """
        who = f"{cls.__name__}.from_arrays"
        import_pyplot(who)
        parts: dict = {"title": title}
        if waveform is not None:
            parts |= _sound(waveform, sample_rate, mel)
        if frames is not None:
            pictures = _pictures(who, frames)
            if not (frame_times is None or len(frame_times) == len(pictures)):
                raise ValueError(
                    f"{who}: {len(frame_times)} frame_times, but {len(pictures)} frames."
                )
            parts |= {"frames": pictures, "frame_times": frame_times}
        if probabilities is not None:
            parts |= _chances(who, probabilities, classes)
        if len(parts) == 1:
            raise ValueError(f"{who} needs a waveform, frames or probabilities; got none of them.")
        return cls(**parts).plot(ax=ax, **plot_kw)

    def plot(self, *, ax=None, cmap="magma"):
        """Draw the clip.

        Parameters
        ----------
        ax : Axes or None, default=None
            Where to draw; the axes is divided.
        cmap : str or Colormap, default="magma"
            Colours of the spectrogram.

        Returns
        -------
        ClipDisplay
            The display.
        """
        plt = import_pyplot(f"{type(self).__name__}.plot")
        figure, axes = place_axes(
            plt,
            ax,
            sound=self.waveform is not None,
            n_frames=0 if self.frames is None else len(self.frames),
            n_classes=0 if self.probabilities is None else len(self.probabilities),
            title=self.title,
        )
        if self.waveform is not None:
            draw_waveform(axes["waveform"], self.waveform, self.sample_rate, self.frame_times)
            draw_mel(axes["mel"], self.log_mel, self.mel_times, self.mel_range, cmap)
            axes["mel"].set_xlim(axes["waveform"].get_xlim())
        if self.frames is not None:
            draw_frames(axes, self.frames, self.frame_times)
        if self.probabilities is not None:
            draw_probabilities(axes["probabilities"], self.probabilities, self.classes)
        self.figure_, self.axes_ = figure, axes
        return self


def _seconds(container: Any, stream: Any) -> float | None:
    """Return how long the pictures last, of which the sound may last longer."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # Matroska and WebM tell it of each stream in words.
    told = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if told:
        hours, minutes, seconds = map(float, told.groups())
        return 3600 * hours + 60 * minutes + seconds
    return container.duration / 1e6 if container.duration else None


def _contents(path: str) -> tuple[bool, bool, float | None]:
    """Tell whether a file has sound, whether it has pictures, and how long these last."""
    limits = as_limits(None)
    if os.path.isdir(path):
        return False, True, None
    _, kind = sniff(path, limits)
    if kind in ("picture", "sound"):
        return kind == "sound", kind == "picture", None
    try:
        with opened(path, "video", limits) as (container, stream):
            seconds = _seconds(container, stream)
            return any(s.type == "audio" for s in container.streams), True, seconds
    except MediaError:
        return True, False, None  # sound only, or reading it will say what is wrong


def _sound(waveform, sample_rate: float, mel: MelSpectrogram | None) -> dict:
    """Return the sound, its spectrogram, and where in time and frequency that lies."""
    waveform = np.asarray(waveform)
    mel = MelSpectrogram() if mel is None else clone(mel)
    mel.set_params(duration=None, crop="center", trim=False, verbose=0, cache_dir=None)
    cells = mel.fit_transform([(waveform, sample_rate)])
    log_mel = np.asarray(cells, dtype=object)[0, 0]
    return {
        "waveform": waveform,
        "sample_rate": sample_rate,
        "log_mel": log_mel,
        "mel_times": np.arange(log_mel.shape[1]) * mel.hop_length / mel.sample_rate,
        "mel_range": (mel.fmin, mel.sample_rate / 2 if mel.fmax is None else mel.fmax),
    }


def _pictures(who: str, frames) -> list[np.ndarray]:
    """Bring frames to pictures (H, W, 3)."""
    if isinstance(frames, np.ndarray) and frames.dtype != object and frames.ndim == 3:
        frames = [frames]
    pictures = []
    for i, frame in enumerate(frames):
        frame = np.asarray(frame)
        if frame.ndim == 3 and frame.shape[0] in (1, 3) and frame.shape[-1] not in (1, 3):
            frame = np.moveaxis(frame, 0, -1)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] not in (1, 3):
            raise ValueError(
                f"{who}: frame {i} must be uint8 of shape (3, H, W) or (H, W, 3); it is "
                f"{frame.dtype} of shape {frame.shape}."
            )
        pictures.append(np.broadcast_to(frame, (*frame.shape[:2], 3)))
    if not pictures:
        raise ValueError(f"{who}: frames holds no frame.")
    return pictures


def _chances(who: str, probabilities, classes: Sequence | None) -> dict:
    """Return probabilities and their classes as arrays."""
    if isinstance(probabilities, Mapping):
        classes, probabilities = list(probabilities), list(probabilities.values())
    values = np.asarray(probabilities, dtype=float)
    if classes is None:
        raise ValueError(f"{who}: give classes=, or probabilities as a dict of class to number.")
    if values.ndim != 1 or len(values) != len(classes):
        raise ValueError(
            f"{who}: probabilities have shape {values.shape}, but there are {len(classes)} classes."
        )
    return {"probabilities": values, "classes": np.asarray(classes)}
