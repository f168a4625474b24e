"""Several hand-made features of speech, frame by frame, and augmented copies at training."""

from __future__ import annotations

import functools
import numbers
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from sklearn.utils import check_random_state

from ._base import Recipe, check_numbers
from .mel import AudioTransformer, _window, power_to_db

__all__ = ["SpeechFeatures"]

_FEATURES = ("mfcc", "mel", "zcr", "chroma", "rms")
_AUGMENTATIONS = ("noise", "pitch", "stretch")

# The frame of librosa's phase vocoder; it warns of sound that is shorter.
_VOCODER_FRAME = 2048


class SpeechFeatures(AudioTransformer):
    """Cepstra, log-Mel bands, zero crossings, chroma and energy, stacked frame by frame.

    Each cell of a column becomes an array of shape (n_features, frames), float32,
    whose rows are the features in the order of ``features``. In ``fit_transform``,
    that is at training, it becomes several samples of the same row instead: the
    clip itself and one altered copy for every name in ``augment``, an array of
    shape (1 + n_augment, 1, n_features, frames). ``transform`` never augments.

    This is the input of TF-Mix-style ensembles [1]_. Its paper says "audio data
    augmentation" and "multiple features" in what is public of it; the features
    and alterations taken here are those of an open relative [2]_. All numbers
    (librosa's defaults, but 64 Mel bands) and the amounts of each alteration
    were decided here.

    Parameters
    ----------
    features : tuple of {"mfcc", "mel", "zcr", "chroma", "rms"}, \
            default=("mfcc", "mel", "zcr", "chroma", "rms")
        Which features, from the first row to the last: ``n_mfcc`` cepstral
        coefficients, ``n_mels`` Mel bands in dB, the zero-crossing rate, 12
        pitch classes tuned to 440 Hz, and the root mean square.
    augment : tuple of {"noise", "pitch", "stretch"}, default=("noise", "pitch", "stretch")
        Altered copies that ``fit_transform`` adds to every clip, one a name:
        white Gaussian noise is added, the pitch is shifted at constant tempo,
        the tempo is changed at constant pitch. Empty adds none.
    snr : float or (float, float), default=(10.0, 20.0)
        Mean power of the clip over that of the noise in dB. Of two numbers,
        here and below, each row draws its own value evenly between them.
    semitones : float or (float, float), default=(-2.0, 2.0)
        By how many semitones the pitch is shifted, upwards.
    rate : float or (float, float), default=(0.8, 1.25)
        Tempo of the stretched copy; 2 is twice as fast and half as long.
    n_mfcc : int, default=20
        Number of cepstral coefficients, at most ``n_mels``.
    sample_rate : int, default=22050
        Sampling rate in Hz; files of another rate are resampled.
    n_fft : int, default=2048
        Length of a frame in samples.
    win_length : int or None, default=None
        Length of the window in samples, at most ``n_fft``; None is ``n_fft``.
    hop_length : int, default=512
        Samples from one frame to the next.
    n_mels : int, default=64
        Number of Mel bands, of the log-Mel rows and below the cepstra.
    fmin : float, default=0.0
        Lowest frequency of the Mel bands in Hz.
    fmax : float or None, default=None
        Highest frequency of the Mel bands in Hz; None is half of ``sample_rate``.
    duration : float or None, default=4.0
        Seconds to which a clip is cropped, or padded with zeros on both sides,
        after any alteration; None keeps each clip's own length.
    crop : {"center", "random"}, default="center"
        Which part of a longer clip is kept. "random" takes a random part in
        ``fit_transform``, that is at training, and the centre in ``transform``.
    trim : False or float, default=False
        Before all else, cut off both ends where they are quieter by this many
        decibels than the loudest part (as ``librosa.effects.trim``).
    top_db : float or None, default=80.0
        Range of the log-Mel spectrogram below a clip's maximum in dB.
    n_jobs : int or None, default=None
        Files decoded at the same time; None is 1 unless
        ``joblib.parallel_config`` says otherwise, -1 is one a processor.
    cache_dir : path-like or None, default=None
        Folder in which results are kept, per file, and found again by any
        process as long as file and parameters stay the same. With ``augment``
        or ``crop="random"`` it keeps the decoded sound, not the features.
    random_state : int, RandomState instance or None, default=None
        Seed of ``augment`` and ``crop="random"``. A row's copies depend on the
        seed and on the row's position, not on other rows.
    on_error : {"raise", "missing", "skip"}, default="raise"
        What to do about a cell that cannot be used: raise an error that names
        it, leave it missing (None), or mark it with ``skfdan.table.SKIP``, by
        which the classifiers leave its whole row out of the training. What is
        not raised is listed in ``report_`` and summarised in one warning.
    timeout : float, "auto" or None, default="auto"
        Seconds that one file may take. With a limit, files are decoded in
        worker processes, so that one that hangs or crashes its decoder is an
        error like any other; None decodes in threads of this process. "auto" is
        60 s with ``on_error`` other than "raise" or for 100 files or more, and
        None otherwise. Arrays are always handled in threads.
    limits : DecodeLimits or None, default=None
        Bounds on what is decoded from one file, so that none takes up all
        memory; None is ``DecodeLimits()``, which refuses sound of over 10 min.
    verbose : int, default=1
        0 shows no progress bar; others show one in a terminal or notebook.

    Attributes
    ----------
    n_features_in_ : int
        Columns of X at ``fit``: 1 for cells, samples of a waveform for a matrix.
    feature_names_in_ : ndarray of shape (n_features_in,)
        Column names of X at ``fit``; only if all are strings.
    input_is_cells_ : bool
        Whether X at ``fit`` was a column of cells rather than a matrix.
    report_ : DataFrame with the columns row, file, stage and reason
        Cells of the last transform that could not be used; see
        :class:`MediaError` for the stages, besides which there are "memory" and
        "error" (any other exception). Not there for a matrix of numbers.

    See Also
    --------
    MelSpectrogram : Its notes say what cells and matrices may be.
    skfdan.classifiers.TFMixClassifier : The ensemble that reads these features.

    Notes
    -----
    Numbers equal those of librosa's ``mfcc``, ``power_to_db`` of
    ``melspectrogram``, ``zero_crossing_rate``, ``chroma_stft`` (``tuning=0``) and
    ``rms``. Scales differ widely between rows; what reads them should
    standardise every row, as ``TFMixClassifier`` does.

    A matrix of waveforms gives a flat matrix (n, n_features * frames) and is
    never augmented: a row of numbers stays one row.

    The pitch is shifted, and the tempo changed, by a phase vocoder. A clip of 4 s
    with three copies takes about 45 ms on one processor, half of it for the
    vocoder, and 0.3 MB.

    References
    ----------
    .. [1] M. Wang, H. Ma, Y. Wang, X. Sun (2024). Design of smart home system
       speech emotion recognition model based on ensemble deep learning and
       feature fusion. Applied Acoustics 218, 109886.
    .. [2] M. R. Ahmed, S. Islam, A. K. M. M. Islam, S. Shatabda (2023). An
       ensemble 1D-CNN-LSTM-GRU model with data augmentation for speech emotion
       recognition. Expert Systems with Applications 218, 119633. arXiv:2112.05666.

    Examples
    --------
    >>> import numpy as np
    >>> from skfdan.preprocessing import SpeechFeatures
    >>> second = np.sin(np.arange(22050) * 0.2)
    >>> features = SpeechFeatures(random_state=0)
    >>> features.fit_transform([second])[0, 0].shape
    (4, 1, 98, 173)
    >>> features.transform([second])[0, 0].shape
    (98, 173)
    """

    def __init__(
        self,
        *,
        features=_FEATURES,
        augment=_AUGMENTATIONS,
        snr=(10.0, 20.0),
        semitones=(-2.0, 2.0),
        rate=(0.8, 1.25),
        n_mfcc=20,
        sample_rate=22050,
        n_fft=2048,
        win_length=None,
        hop_length=512,
        n_mels=64,
        fmin=0.0,
        fmax=None,
        duration=4.0,
        crop="center",
        trim=False,
        top_db=80.0,
        n_jobs=None,
        cache_dir=None,
        random_state=None,
        on_error="raise",
        timeout="auto",
        limits=None,
        verbose=1,
    ):
        self.features = features
        self.augment = augment
        self.snr = snr
        self.semitones = semitones
        self.rate = rate
        self.n_mfcc = n_mfcc
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.win_length = win_length
        self.hop_length = hop_length
        self.n_mels = n_mels
        self.fmin = fmin
        self.fmax = fmax
        self.duration = duration
        self.crop = crop
        self.trim = trim
        self.top_db = top_db
        self.n_jobs = n_jobs
        self.cache_dir = cache_dir
        self.random_state = random_state
        self.on_error = on_error
        self.timeout = timeout
        self.limits = limits
        self.verbose = verbose

    def get_feature_names_out(self, input_features=None):
        """Name the columns of the output.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the input columns.

        Returns
        -------
        ndarray of str
            The name of the input column for cells; ``mfcc0_frame0``,
            ``mfcc0_frame1``, ..., ``rms_frame0``, ... for a matrix.
        """
        names = super().get_feature_names_out(input_features)
        if self.input_is_cells_:
            return names
        n_frames = len(names) // self._height()
        rows = [
            f"{name}{i if size > 1 else ''}"
            for name, size in self._sizes().items()
            for i in range(size)
        ]
        return np.array([f"{row}_frame{t}" for row in rows for t in range(n_frames)], dtype=object)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_numbers(self, "n_mfcc", whole=True)
        if not 1 <= self.n_mfcc <= self.n_mels:
            raise ValueError(
                f"SpeechFeatures: n_mfcc={self.n_mfcc!r} must lie between 1 and "
                f"n_mels={self.n_mels}."
            )
        for parameter, known in (("features", _FEATURES), ("augment", _AUGMENTATIONS)):
            names = getattr(self, parameter)
            listed = isinstance(names, (tuple, list))
            if not listed or len({*names} & {*known}) < len(names):
                raise ValueError(
                    f"SpeechFeatures: {parameter}={names!r} must be a tuple of different names "
                    f"among {', '.join(map(repr, known))}."
                )
        if not self.features:
            raise ValueError("SpeechFeatures: features=() leaves nothing to compute; name some.")
        for parameter, least in (("snr", -np.inf), ("semitones", -np.inf), ("rate", 0.0)):
            value = getattr(self, parameter)
            ends = _ends(value)
            numeric = len(ends) == 2 and all(isinstance(end, numbers.Real) for end in ends)
            if not numeric or not least < ends[0] <= ends[1] < np.inf:
                raise ValueError(
                    f"SpeechFeatures: {parameter}={value!r} must be a number or a pair (low, "
                    f"high){', above 0' if least == 0 else ''}."
                )

    def _sizes(self) -> dict[str, int]:
        sizes = {"mfcc": self.n_mfcc, "mel": self.n_mels, "zcr": 1, "chroma": 12, "rms": 1}
        return {name: sizes[name] for name in self.features}

    def _height(self) -> int:
        return sum(self._sizes().values())

    def _recipe(self, training: bool) -> Recipe:
        if not self.augment:
            recipe = super()._recipe(training)
            if self.crop == "center":
                kept = {**recipe.parameters, "features": list(self.features)}
                recipe = recipe._replace(parameters=kept)
            return recipe
        # What is random cannot be cached, and a clip may be in a training fold
        # here and in a test fold there: only its decoded sound is kept.
        trim = self.trim if self.trim is False else float(self.trim)
        return Recipe(
            "waveform/1",
            {"sample_rate": float(self.sample_rate), "trim": trim},
            self._waveform,
            self._augmented if training else self._plain,
        )

    def _draws(self, n: int, training: bool) -> list:
        if training and self.augment:
            return check_random_state(self.random_state).random_sample(n).tolist()
        return super()._draws(n, training)

    def _fit_length(
        self, samples: np.ndarray, *, draw: float | None = None, length: int | None = None
    ) -> np.ndarray:
        # A row's number may be there for the alterations alone.
        return super()._fit_length(
            samples, draw=draw if self.crop == "random" else None, length=length
        )

    def _plain(self, samples: np.ndarray, cell: Any, draw: float | None) -> np.ndarray:
        return self._features(self._fit_length(samples))

    def _augmented(self, samples: np.ndarray, cell: Any, draw: float) -> np.ndarray:
        """Return the features of a clip and of its altered copies, as samples of one row."""
        rng = np.random.default_rng(int(draw * 2**53))
        alter = {"noise": self._add_noise, "pitch": self._shift_pitch, "stretch": self._stretch}
        copies = [samples, *(alter[name](samples, rng) for name in self.augment)]
        # Without a duration, all copies have the length of the clip.
        length = len(samples) if self.duration is None else None
        return np.stack(
            [self._features(self._fit_length(c, draw=draw, length=length)) for c in copies]
        )[:, None]

    def _add_noise(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noise = rng.standard_normal(len(samples), dtype=np.float32)
        wanted = np.mean(samples**2, dtype=np.float64) / 10 ** (rng.uniform(*_ends(self.snr)) / 10)
        # Scaled by what was drawn, not by its expectation: exact for short clips too.
        scale = np.sqrt(wanted / np.mean(noise**2, dtype=np.float64))
        return samples + np.float32(scale) * noise

    def _shift_pitch(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        shifted = _vocoder().pitch_shift(
            _lengthen(samples), sr=self.sample_rate, n_steps=rng.uniform(*_ends(self.semitones))
        )
        return shifted[: len(samples)]

    def _stretch(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rate = rng.uniform(*_ends(self.rate))
        stretched = _vocoder().time_stretch(_lengthen(samples), rate=rate)
        return stretched[: max(1, round(len(samples) / rate))]

    def _features(self, samples: np.ndarray) -> np.ndarray:
        """Compute (n_features, frames) of samples that have their final length."""
        import librosa

        n_fft, hop = self.n_fft, self.hop_length
        window = _window(n_fft if self.win_length is None else self.win_length, n_fft)
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, n_fft // 2), n_fft)
        power = np.abs(scipy.fft.rfft(frames[::hop] * window, axis=1).T) ** 2
        log_mel = power_to_db((self._filterbank() @ power).astype(np.float32), self.top_db)
        compute = {
            "mfcc": lambda: scipy.fft.dct(log_mel, norm="ortho", axis=0)[: self.n_mfcc],
            "mel": lambda: log_mel,
            "zcr": lambda: _zero_crossing_rate(samples, n_fft, hop),
            "chroma": lambda: librosa.feature.chroma_stft(
                S=power, sr=self.sample_rate, n_fft=n_fft, tuning=0.0
            ),
            "rms": lambda: librosa.feature.rms(y=samples, frame_length=n_fft, hop_length=hop),
        }
        return np.concatenate([compute[name]() for name in self.features]).astype(np.float32)


@functools.cache
def _vocoder():
    """Return ``librosa.effects``, with what it compiles compiled.

    It keeps what it compiles in files. Processes that do so at the same time can
    leave files that crash every process that reads them, so one goes first.
    """
    import librosa
    from filelock import FileLock

    # A name of its own for every user: others could not open the file.
    user = os.getuid() if hasattr(os, "getuid") else ""
    with FileLock(Path(tempfile.gettempdir()) / f"skfdan-librosa-{user}.lock"):
        librosa.effects.time_stretch(np.ones(2 * _VOCODER_FRAME, dtype=np.float32), rate=1.5)
    return librosa.effects


def _zero_crossing_rate(samples: np.ndarray, frame: int, hop: int) -> np.ndarray:
    """Compute what ``librosa.feature.zero_crossing_rate`` does, without compiling anything."""
    padded = np.pad(samples, frame // 2, mode="edge")
    # Zero, and what is as good as zero, counts as positive.
    negative = padded < -1e-10
    crossings = np.concatenate([[0], np.cumsum(negative[1:] != negative[:-1])])
    starts = np.arange(0, len(padded) - frame + 1, hop)
    return (crossings[starts + frame - 1] - crossings[starts])[None] / frame


def _ends(value: Any) -> tuple:
    """Return a pair of numbers as it is, and one number as a pair."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _lengthen(samples: np.ndarray) -> np.ndarray:
    return np.pad(samples, (0, max(0, _VOCODER_FRAME - len(samples))))
