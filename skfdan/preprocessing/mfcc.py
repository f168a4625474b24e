"""Mel-frequency cepstral coefficients."""

from __future__ import annotations

import numpy as np
import scipy.fft

from ._base import check_numbers
from .mel import AudioTransformer

__all__ = ["MFCC"]


class MFCC(AudioTransformer):
    """Static Mel-frequency cepstral coefficients of sound files or waveforms.

    The cosine transform (type II, orthonormal) of the log-Mel spectrogram along
    frequency, of which the first coefficients are kept. The defaults are the
    input of GM-TCNet [1]_: 39 coefficients of 96,000 samples at 22,050 Hz, which
    makes 188 frames. Numbers equal those of ``librosa.feature.mfcc``.

    Parameters
    ----------
    n_mfcc : int, default=39
        Number of coefficients, at most ``n_mels``.
    sample_rate : int, default=22050
        Sampling rate in Hz; files of another rate are resampled.
    n_fft : int, default=2048
        Length of a frame in samples.
    win_length : int or None, default=None
        Length of the window in samples, at most ``n_fft``; None is ``n_fft``.
    hop_length : int, default=512
        Samples from one frame to the next.
    n_mels : int, default=128
        Number of Mel bands.
    fmin : float, default=0.0
        Lowest frequency in Hz.
    fmax : float or None, default=None
        Highest frequency in Hz; None is half of ``sample_rate``.
    duration : float or None, default=96000 / 22050
        Seconds to which a clip is cropped, or padded with zeros on both sides;
        None keeps each clip's own length.
    crop : {"center", "random"}, default="center"
        Which part of a longer clip is kept. "random" takes a random part in
        ``fit_transform``, that is at training, and the centre in ``transform``.
    trim : False or float, default=False
        Before cropping, cut off both ends where they are quieter by this many
        decibels than the loudest part (as ``librosa.effects.trim``).
    top_db : float or None, default=80.0
        Range of the log-Mel spectrogram below a clip's maximum in dB.
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
    MelSpectrogram : The spectrogram before the cosine transform. Its notes say
        what cells and matrices may be.

    References
    ----------
    .. [1] Ye, J. et al. (2022). GM-TCNet: Gated multi-scale temporal
       convolutional network using emotion causality for speech emotion
       recognition. Speech Communication 145, 21-35.

    Examples
    --------
    >>> import numpy as np
    >>> from skfdan.preprocessing import MFCC
    >>> second = np.sin(np.arange(22050) * 0.2)
    >>> MFCC().fit_transform([second])[0, 0].shape
    (39, 188)
    """

    _band = "mfcc"

    def __init__(
        self,
        *,
        n_mfcc=39,
        sample_rate=22050,
        n_fft=2048,
        win_length=None,
        hop_length=512,
        n_mels=128,
        fmin=0.0,
        fmax=None,
        duration=96000 / 22050,
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

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_numbers(self, "n_mfcc", whole=True)
        if not 1 <= self.n_mfcc <= self.n_mels:
            raise ValueError(
                f"MFCC: n_mfcc={self.n_mfcc!r} must lie between 1 and n_mels={self.n_mels}."
            )

    def _height(self) -> int:
        return self.n_mfcc

    def _from_log_mel(self, log_mel: np.ndarray) -> np.ndarray:
        cosines = scipy.fft.dct(log_mel, type=2, norm="ortho", axis=0)
        return np.ascontiguousarray(cosines[: self.n_mfcc])
