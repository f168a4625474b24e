"""Log-Mel spectrograms of waveforms and sound files, in numpy and scipy."""

from __future__ import annotations

import functools
import math
import numbers
import os
import warnings
from typing import Any

import numpy as np
import scipy.fft
import scipy.sparse
from sklearn.utils import check_random_state

from ._base import CellTransformer, Recipe, check_numbers, is_number
from ._failures import describe_cell
from ._limits import as_limits
from .media import MediaError, check_samples, full_scale, read_audio, resample

__all__ = [
    "AudioTransformer",
    "MelSpectrogram",
    "SoundTransformer",
    "mel_filterbank",
    "power_to_db",
]

# Frames transformed at a time: their spectra stay in the processor's cache.
_BLOCK = 128

# The rounding of a Fourier transform is about as loud in all its bins. In single precision
# it lies some 140 dB below their mean power, and moves a band by less than 1e-3 dB unless
# the band lies below the mean by more than this. Of speech, one frame in ten has such a
# band, of a pure tone nearly every frame.
_SINGLE_PRECISION = 1.6e-5


@functools.lru_cache(maxsize=32)
def mel_filterbank(
    sample_rate: float, n_fft: int, n_mels: int, fmin: float = 0.0, fmax: float | None = None
) -> np.ndarray:
    """Compute triangular filters, evenly spaced on Slaney's Mel scale, of equal area.

    Parameters
    ----------
    sample_rate : float
        Sampling rate in Hz.
    n_fft : int
        Length of the Fourier transform in samples.
    n_mels : int
        Number of filters.
    fmin : float, default=0.0
        Lower edge of the first filter in Hz.
    fmax : float or None, default=None
        Upper edge of the last filter in Hz; None is half the sampling rate.

    Returns
    -------
    ndarray of shape (n_mels, 1 + n_fft // 2), dtype float32
        One filter a row, read-only; the filters of ``librosa.filters.mel``.

    References
    ----------
    .. [1] Slaney, M. (1998). Auditory Toolbox, version 2. Interval Research
       Corporation, Technical Report 1998-010.

    Examples
    --------
    >>> mel_filterbank(16000, 1024, 128).shape
    (128, 513)
    """
    # The scale is linear to 1 kHz, 200/3 Hz a Mel, and logarithmic above,
    # 27 Mel to a factor of 6.4.
    width, corner, step = 200 / 3, 1000.0, np.log(6.4) / 27

    def to_mel(hertz: float) -> float:
        return hertz / width if hertz < corner else corner / width + np.log(hertz / corner) / step

    mels = np.linspace(to_mel(fmin), to_mel(sample_rate / 2 if fmax is None else fmax), n_mels + 2)
    edges = np.where(
        mels < corner / width, mels * width, corner * np.exp(step * (mels - corner / width))
    )
    frequencies = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    slopes = edges[:, None] - frequencies
    gaps = np.diff(edges)[:, None]
    filters = np.maximum(0, np.minimum(-slopes[:-2] / gaps[:-1], slopes[2:] / gaps[1:]))
    filters *= 2 / (edges[2:] - edges[:-2])[:, None]
    filters = filters.astype(np.float32)
    filters.flags.writeable = False
    return filters


@functools.lru_cache(maxsize=32)
def _sparse_filterbank(dtype: type, *arguments) -> scipy.sparse.csr_array:
    # At most two filters take in a frequency. A sparse product also keeps
    # clear of BLAS, whose threads would compete with those of n_jobs.
    return scipy.sparse.csr_array(mel_filterbank(*arguments), dtype=dtype)


@functools.lru_cache(maxsize=32)
def _gains(*arguments) -> np.ndarray:
    """Return what each filter makes of a spectrum of ones; (bands, 1)."""
    return mel_filterbank(*arguments).sum(axis=1)[:, None]


@functools.lru_cache(maxsize=32)
def _window(win_length: int, n_fft: int, dtype: type = np.float64) -> np.ndarray:
    window = np.zeros(n_fft, dtype)
    start = (n_fft - win_length) // 2
    # SciPy's periodic Hann window, which is 1 if it has one sample. Written out, as the import
    # of scipy.signal takes longer than a spectrogram.
    angles = 2 * np.pi * np.arange(win_length) / win_length
    hann = 0.5 - 0.5 * np.cos(angles) if win_length > 1 else 1
    window[start : start + win_length] = hann
    return window


def power_to_db(power: np.ndarray, top_db: float | None = 80.0) -> np.ndarray:
    """Convert power to decibels above 1, from 1e-10 upwards.

    Parameters
    ----------
    power : ndarray
        Power, not negative.
    top_db : float or None, default=80.0
        Raise everything to at least this far below the maximum; None keeps all.

    Returns
    -------
    ndarray
        Of the same shape and type.

    Examples
    --------
    >>> power_to_db(np.array([1.0, 1e-3, 0.0]), top_db=80).tolist()
    [0.0, -30.0, -80.0]
    """
    decibels = np.maximum(power, 1e-10)
    if decibels.dtype == np.float32:
        # Of single precision's logarithms, NumPy has vector code for the natural one only.
        decibels = np.log(decibels)
        decibels *= 10 / math.log(10)
    else:
        decibels = 10 * np.log10(decibels)
    return decibels if top_db is None else np.maximum(decibels, decibels.max() - top_db)


def _trim(samples: np.ndarray, threshold: float) -> np.ndarray:
    """Cut off both ends as far as frames lie ``threshold`` dB below the loudest."""
    frame, hop = 2048, 512
    padded = np.pad(samples.astype(np.float64), frame // 2)
    energy = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
    loudness = power_to_db(np.mean(energy**2, axis=1), top_db=None)
    kept = np.flatnonzero(loudness > loudness.max() - threshold)
    return samples[kept[0] * hop : (kept[-1] + 1) * hop]


class SoundTransformer(CellTransformer):
    """Base of the transformers that read sound."""

    _accepts = "paths of sound or video files, waveforms or (samples, rate) tuples"
    _usual = "audio"

    def _samples(self, cell: Any, sample_rate: float) -> np.ndarray:
        """Load one cell as finite mono samples at a sampling rate."""
        if isinstance(cell, (str, os.PathLike)):
            samples, _ = read_audio(cell, sample_rate, limits=self.limits)
        else:
            pair = isinstance(cell, tuple) and len(cell) == 2
            array, rate = cell if pair else (cell, sample_rate)
            source = describe_cell(cell)
            samples = np.asarray(array) if hasattr(array, "__array__") else np.empty(())
            numeric = samples.dtype.kind in "fiu" and isinstance(rate, numbers.Real)
            if samples.ndim != 1 or not numeric:
                raise MediaError(
                    source, f"is no sound; a cell is one of {self._accepts} (one channel, numbers)"
                )
            samples = full_scale(samples, source)
            check_samples(samples, source)
            if rate != sample_rate:
                as_limits(self.limits)._check_rate(source, rate)
            samples = samples.astype(np.float32, copy=False)
            samples = resample(samples, rate, sample_rate, source)
        return samples


class AudioTransformer(SoundTransformer):
    """Base of the transformers of sound: reading, trimming, cropping, log-Mel.

    A subclass has the constructor parameters that :class:`MelSpectrogram` has
    and may override ``_from_log_mel``, ``_height`` and ``_band``.
    """

    _takes_matrix = True
    _band = "mel"

    def get_feature_names_out(self, input_features=None):
        """Name the columns of the output.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the input columns.

        Returns
        -------
        ndarray of str
            The name of the input column for cells; ``mel0_frame0``,
            ``mel0_frame1``, ... for a matrix.
        """
        names = super().get_feature_names_out(input_features)
        if self.input_is_cells_:
            return names
        n_frames = self._n_frames(self._matrix_length(self.n_features_in_))
        return np.array(
            [f"{self._band}{m}_frame{t}" for m in range(self._height()) for t in range(n_frames)],
            dtype=object,
        )

    def _height(self) -> int:
        return self.n_mels

    def _from_log_mel(self, log_mel: np.ndarray) -> np.ndarray:
        return log_mel

    def _check_sound_parameters(self) -> None:
        """Check what decoding and cropping need."""
        name = type(self).__name__
        check_numbers(self, "sample_rate")
        check_numbers(self, "duration", optional=True)
        if not 1 <= self.sample_rate < np.inf:
            raise ValueError(f"{name}: sample_rate={self.sample_rate!r} must be at least 1.")
        # More than half a sample is rounded to one.
        if self.duration is not None and not 0.5 < self.duration * self.sample_rate < np.inf:
            raise ValueError(
                f"{name}: duration={self.duration!r} must be seconds: one sample or more, and not "
                "infinite."
            )
        if self.trim is not False and not (is_number(self.trim) and self.trim > 0):
            raise ValueError(f"{name}: trim must be False or a threshold in dB; got {self.trim!r}.")

    def _check_parameters(self) -> None:
        name = type(self).__name__
        self._check_sound_parameters()
        check_numbers(self, "n_fft", "hop_length", "n_mels", whole=True)
        check_numbers(self, "win_length", whole=True, optional=True)
        check_numbers(self, "fmin")
        check_numbers(self, "fmax", "top_db", optional=True)
        for parameter in ("n_fft", "hop_length", "n_mels"):
            value = getattr(self, parameter)
            if not value >= 1:
                raise ValueError(f"{name}: {parameter}={value!r} must be at least 1.")
        if self.win_length is not None and not 1 <= self.win_length <= self.n_fft:
            raise ValueError(
                f"{name}: win_length={self.win_length!r} must lie between 1 and n_fft={self.n_fft}."
            )
        fmax = self.sample_rate / 2 if self.fmax is None else self.fmax
        if not 0 <= self.fmin < fmax <= self.sample_rate / 2:
            raise ValueError(
                f"{name}: 0 <= fmin < fmax <= sample_rate / 2 must hold; got fmin={self.fmin!r}, "
                f"fmax={self.fmax!r}, sample_rate={self.sample_rate!r}."
            )
        if self.crop not in ("center", "random"):
            raise ValueError(f'{name}: crop must be "center" or "random"; got {self.crop!r}.')

    def fit(self, X, y=None):
        """Check the parameters and remember the form of X; nothing is decoded.

        Parameters
        ----------
        X : {DataFrame, Series, array-like} of shape (n, 1), (n,) or (n, T)
            One column of cells, or a matrix of waveforms.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The transformer.
        """
        super().fit(X, y)
        empty = int((self._filterbank().sum(axis=1) == 0).sum())
        if empty:
            warnings.warn(
                f"{type(self).__name__}: {empty} of {self.n_mels} Mel filters take in no frequency "
                f"at all and stay constant; use a longer n_fft (now {self.n_fft}) or fewer n_mels.",
                UserWarning,
                stacklevel=2,
            )
        return self

    def _filters(self) -> tuple:
        """Return the arguments of :func:`mel_filterbank`."""
        return self.sample_rate, self.n_fft, self.n_mels, self.fmin, self.fmax

    def _filterbank(self, dtype: type = np.float64) -> scipy.sparse.csr_array:
        return _sparse_filterbank(dtype, *self._filters())

    def _recipe(self, training: bool) -> Recipe:
        waveform = {
            "sample_rate": float(self.sample_rate),
            "trim": self.trim if self.trim is False else float(self.trim),
        }
        if self.crop == "random":
            # Only the decoded sound can be cached; for transform too, so that a
            # clip which is in a training fold here and a test fold there is
            # decoded once.
            return Recipe(
                "waveform/1",
                waveform,
                self._waveform,
                lambda samples, cell, draw: self._features(self._fit_length(samples, draw=draw)),
            )
        names = ("n_fft", "win_length", "hop_length", "n_mels", "fmin", "fmax", "top_db", "n_mfcc")
        features = {n: getattr(self, n) for n in (*names, "duration") if hasattr(self, n)}
        return Recipe(
            f"{type(self).__name__}/2",
            waveform | features,
            lambda cell: self._features(self._fit_length(self._waveform(cell))),
            lambda features, cell, draw: features,
        )

    def _draws(self, n: int, training: bool) -> list:
        if self.crop != "random" or not training:
            return super()._draws(n, training)
        return check_random_state(self.random_state).random_sample(n).tolist()

    def _warm_up(self) -> None:
        import av  # noqa: F401
        import soundfile  # noqa: F401
        import soxr  # noqa: F401

        self._recipe(training=False).load(np.zeros(int(self.sample_rate), np.float32))

    def _waveform(self, cell: Any) -> np.ndarray:
        """Load one cell as finite mono samples at the sampling rate."""
        samples = self._samples(cell, self.sample_rate)
        return samples if self.trim is False else _trim(samples, self.trim)

    def _fit_length(
        self, samples: np.ndarray, *, draw: float | None = None, length: int | None = None
    ) -> np.ndarray:
        """Crop or zero-pad to the duration, in the middle or where ``draw`` says."""
        if length is None:
            if self.duration is None:
                return samples
            length = round(self.duration * self.sample_rate)
        surplus = len(samples) - length
        if surplus < 0:
            return np.pad(samples, (-surplus // 2, -surplus - -surplus // 2))
        start = surplus // 2 if draw is None else int(draw * (surplus + 1))
        return samples[start : start + length]

    def _n_frames(self, length: int) -> int:
        return 1 + (length + 2 * (self.n_fft // 2) - self.n_fft) // self.hop_length

    def _features(self, samples: np.ndarray) -> np.ndarray:
        """Compute (bands, frames) of samples that have their final length."""
        half = self.n_fft // 2
        padded = np.zeros(len(samples) + 2 * half, np.float32)
        padded[half : half + len(samples)] = samples
        step = padded.itemsize
        frames = np.ndarray(  # they overlap; NumPy checks that they end in time
            (self._n_frames(len(samples)), self.n_fft),
            padded.dtype,
            padded,
            strides=(step * self.hop_length, step),
        )
        mel, mean = self._mel_power(frames, np.float32)
        audible = 0 if self.top_db is None else mel.max() * 10 ** (-self.top_db / 10)
        limit = _SINGLE_PRECISION * _gains(*self._filters())
        doubtful = (mel > audible) & (mel < limit * mean)
        again = np.flatnonzero(doubtful.any(axis=0))
        if len(again):
            mel[:, again], _ = self._mel_power(frames[again], np.float64)
        return self._from_log_mel(power_to_db(mel, self.top_db))

    def _mel_power(self, frames: np.ndarray, dtype: type) -> tuple[np.ndarray, np.ndarray]:
        """Compute the power of (bands, frames), and each frame's mean power over all bins."""
        n, n_fft = frames.shape
        window = _window(n_fft if self.win_length is None else self.win_length, n_fft, dtype)
        power = np.empty((n_fft // 2 + 1, n), dtype)
        mean = np.empty(n, np.float32)
        for i in range(0, n, _BLOCK):
            block = frames[i : i + _BLOCK] * window
            # By Parseval's theorem; as products of a row and a column, which take half the time.
            mean[i : i + _BLOCK] = (block[:, None] @ block[:, :, None])[:, 0, 0]
            spectrum = scipy.fft.rfft(block, axis=1, overwrite_x=True)
            squares = spectrum.view(dtype)  # real and imaginary parts in turn
            np.square(squares, out=squares)
            power[:, i : i + _BLOCK] = (squares[:, ::2] + squares[:, 1::2]).T
        mel = self._filterbank(dtype) @ power
        return mel.astype(np.float32, copy=False), mean

    def _matrix_length(self, width: int) -> int:
        if self.duration is None:
            return width
        return min(width, round(self.duration * self.sample_rate))

    def _transform_matrix(self, matrix: np.ndarray, *, training: bool) -> np.ndarray:
        length = self._matrix_length(matrix.shape[1])
        draws = self._draws(len(matrix), training)
        out = np.empty((len(matrix), self._height() * self._n_frames(length)), dtype=np.float32)
        for row, draw, samples in zip(out, draws, matrix, strict=True):
            if self.trim is not False:
                samples = _trim(samples, self.trim)
            row[:] = self._features(self._fit_length(samples, draw=draw, length=length)).ravel()
        return out


class MelSpectrogram(AudioTransformer):
    """Log-Mel spectrograms of sound files, the sound of videos, or waveforms.

    Each cell of a column becomes an array of shape (n_mels, frames): mixed down
    to one channel, resampled, brought to one length, then framed (periodic Hann
    window, frames centred, zeros beyond the ends), Fourier-transformed, filtered
    by Slaney's Mel filters and expressed in decibels. Numbers equal those of
    ``librosa.feature.melspectrogram`` and ``librosa.power_to_db``. Nothing is
    learned: a row's result depends on that row alone, and ``transform`` works
    without ``fit``.

    Parameters
    ----------
    sample_rate : int, default=16000
        Sampling rate in Hz; files of another rate are resampled.
    n_fft : int, default=1024
        Length of a frame in samples.
    win_length : int or None, default=None
        Length of the window in samples, at most ``n_fft``; None is ``n_fft``.
    hop_length : int, default=256
        Samples from one frame to the next.
    n_mels : int, default=128
        Number of Mel bands.
    fmin : float, default=0.0
        Lowest frequency in Hz.
    fmax : float or None, default=None
        Highest frequency in Hz; None is half of ``sample_rate``.
    duration : float or None, default=4.0
        Seconds to which a clip is cropped, or padded with zeros on both sides;
        None keeps each clip's own length.
    crop : {"center", "random"}, default="center"
        Which part of a longer clip is kept. "random" takes a random part in
        ``fit_transform``, that is at training, and the centre in ``transform``.
    trim : False or float, default=False
        Before cropping, cut off both ends where they are quieter by this many
        decibels than the loudest part (as ``librosa.effects.trim``).
    top_db : float or None, default=80.0
        Range below a clip's maximum in dB; what is below is raised to it. None
        keeps everything above -100 dB.
    n_jobs : int or None, default=None
        Files decoded at the same time; None is 1 unless
        ``joblib.parallel_config`` says otherwise, -1 is one a processor.
    cache_dir : path-like or None, default=None
        Folder in which results are kept, per file, and found again by any
        process as long as file and parameters stay the same.
    random_state : int, RandomState instance or None, default=None
        Seed of ``crop="random"``. A row's part depends on the seed and on the
        row's position, not on other rows.
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
    MFCC : Cepstral coefficients computed from it.

    Notes
    -----
    A cell is a path, a waveform (1-D array at ``sample_rate``; floats of full
    scale 1, or integers of the full scale of their type), a tuple
    ``(samples, rate)``, or missing; a missing cell gives None.

    X may also be a matrix of numbers of shape (n, T): n waveforms at
    ``sample_rate``, taken as they are. The result is then a flat float32 matrix
    of shape (n, n_mels * frames). Rows longer than ``duration`` are cropped;
    shorter ones are not padded, as they are of one length already. A matrix is
    not cached.

    References
    ----------
    .. [1] Slaney, M. (1998). Auditory Toolbox, version 2. Interval Research
       Corporation, Technical Report 1998-010.
    .. [2] McFee, B. et al. (2015). librosa: Audio and music signal analysis in
       Python. Proc. 14th Python in Science Conference.

    Examples
    --------
    >>> import numpy as np
    >>> from skfdan.preprocessing import MelSpectrogram
    >>> second = np.sin(np.arange(16000) * 0.2)
    >>> mel = MelSpectrogram().fit_transform([second, None, (second[::2], 8000)])
    >>> mel.shape, mel[0, 0].shape, mel[1, 0]
    ((3, 1), (128, 251), None)
    """

    def __init__(
        self,
        *,
        sample_rate=16000,
        n_fft=1024,
        win_length=None,
        hop_length=256,
        n_mels=128,
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
