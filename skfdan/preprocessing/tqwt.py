"""The tunable Q-factor wavelet transform, in numpy."""

from __future__ import annotations

import functools
import numbers

import numpy as np
import scipy.fft

__all__ = ["itqwt", "max_tqwt_levels", "tqwt"]


def check_tqwt(q: float, r: float, n_levels: int = 1) -> None:
    """Raise a ValueError unless q >= 1, r > 1 and n_levels is a whole number >= 1."""
    if not q >= 1:
        raise ValueError(f"TQWT: q={q!r} must be at least 1.")
    if not r > 1:
        raise ValueError(f"TQWT: r={r!r} must be greater than 1; 3 or more localise well.")
    if not isinstance(n_levels, numbers.Integral) or n_levels < 1:
        raise ValueError(f"TQWT: n_levels={n_levels!r} must be a whole number of at least 1.")


def max_tqwt_levels(n_samples: int, q: float = 1.0, r: float = 3.0) -> int:
    """Count the levels that a signal is long enough for.

    Parameters
    ----------
    n_samples : int
        Length of the signal.
    q : float, default=1.0
        Q-factor.
    r : float, default=3.0
        Redundancy.

    Returns
    -------
    int
        The largest J with ``alpha ** J * beta * n_samples >= 8`` [1]_, where
        ``beta = 2 / (q + 1)`` and ``alpha = 1 - beta / r``; 0 if there is none.
        Deeper levels would have filters of fewer than four frequencies.

    References
    ----------
    .. [1] Selesnick, I. W. (2011). Wavelet transform with tunable Q-factor.
       IEEE Transactions on Signal Processing 59(8), 3560-3575.

    Examples
    --------
    >>> max_tqwt_levels(16000)
    18
    """
    check_tqwt(q, r)
    beta = 2 / (q + 1)
    if beta * n_samples < 8:
        return 0
    return int(np.log(beta * n_samples / 8) / -np.log(1 - beta / r))


def _lengths(n_samples: int, q: float, r: float, n_levels: int) -> list[tuple[int, int]]:
    """List the even lengths (low-pass, high-pass) of the two channels of every level."""
    beta = 2 / (q + 1)
    alpha = 1 - beta / r
    return [
        (2 * round(alpha**j * n_samples / 2), 2 * round(beta * alpha ** (j - 1) * n_samples / 2))
        for j in range(1, n_levels + 1)
    ]


@functools.lru_cache(maxsize=64)
def _transition(n: int, n_low: int, n_high: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Return the first bin that both channels pass, and both responses from there on.

    The response of the Daubechies filter with two vanishing moments,
    theta(w) = (1 + cos w) sqrt(2 - cos w) / 2, falls from 1 at w = 0 to 0 at
    w = pi, and theta(w)^2 + theta(pi - w)^2 = 1, which is what makes the energy
    of both channels add up to that of the signal.
    """
    start, stop = (n - n_high) // 2, n_low // 2
    if start >= stop:
        raise ValueError(
            f"TQWT: the channels of a level of {n} samples do not overlap; use a greater r or "
            "fewer levels."
        )
    cosine = np.cos(np.linspace(0, np.pi, stop - start + 1))
    low = (1 + cosine) * np.sqrt(2 - cosine) / 2
    high = low[::-1].copy()
    low.flags.writeable = high.flags.writeable = False
    return start, low, high


def _even(n_samples: int) -> int:
    return n_samples + n_samples % 2


def tqwt(x, q: float = 1.0, r: float = 3.0, n_levels: int = 7) -> list[np.ndarray]:
    """Decompose a signal with the tunable Q-factor wavelet transform.

    Each level splits the spectrum in two overlapping channels: the high-pass one
    holds the wavelet coefficients of the level, and the low-pass one is what the
    next level splits. Both are resampled by cutting and shifting the spectrum, to the
    fractions ``beta = 2 / (q + 1)`` and ``alpha = 1 - beta / r`` of the level's
    length ([1]_, sections III and IV).

    Parameters
    ----------
    x : array-like of shape (n_samples,)
        A real signal. An odd length is padded with one zero.
    q : float, default=1.0
        Q-factor: centre frequency over bandwidth of the wavelets; 1 suits
        signals that hardly oscillate.
    r : float, default=3.0
        Redundancy: number of coefficients per sample, for many levels.
    n_levels : int, default=7
        Number of levels J.

    Returns
    -------
    list of n_levels + 1 ndarrays, dtype float64
        The wavelet coefficients of level 1 (the highest frequencies) to level J,
        then the rest, the low-pass channel of level J. The band of level j
        reaches from ``(1 - beta) * alpha**(j-1)`` to ``alpha**(j-1)`` times half
        the sampling rate. Energies of all bands add up to that of the signal.

    Raises
    ------
    ValueError
        If x is no real, finite 1-D signal, a parameter is out of range, or the
        signal is too short for so many levels.

    See Also
    --------
    itqwt : The inverse.
    max_tqwt_levels : How many levels a length allows.

    References
    ----------
    .. [1] Selesnick, I. W. (2011). Wavelet transform with tunable Q-factor.
       IEEE Transactions on Signal Processing 59(8), 3560-3575.

    Examples
    --------
    >>> bands = tqwt(np.sin(np.arange(600)), n_levels=3)
    >>> [len(band) for band in bands]
    [600, 400, 266, 178]
    """
    check_tqwt(q, r, n_levels)
    x = np.asarray(x)
    if x.ndim != 1 or x.dtype.kind not in "fiu" or not np.isfinite(x).all():
        raise ValueError(
            f"TQWT takes one real, finite signal; got an array of shape {x.shape}, {x.dtype}."
        )
    limit = max_tqwt_levels(_even(len(x)), q, r)
    if n_levels > limit:
        raise ValueError(
            f"TQWT: a signal of {len(x)} samples allows {limit} levels at q={q!r}, r={r!r}; "
            f"got n_levels={n_levels!r}."
        )
    n = _even(len(x))
    spectrum = scipy.fft.rfft(x.astype(np.float64), n, norm="ortho")
    bands = []
    for n_low, n_high in _lengths(n, q, r, n_levels):
        start, low, high = _transition(n, n_low, n_high)
        channel = spectrum[start:].copy()
        channel[: len(high)] *= high
        bands.append(scipy.fft.irfft(channel, n_high, norm="ortho"))
        spectrum = spectrum[: n_low // 2 + 1].copy()
        spectrum[start:] *= low
        n = n_low
    return [*bands, scipy.fft.irfft(spectrum, n, norm="ortho")]


def itqwt(bands: list[np.ndarray], n_samples: int, q: float = 1.0, r: float = 3.0) -> np.ndarray:
    """Put a signal together again from its subbands.

    Parameters
    ----------
    bands : list of ndarrays
        What :func:`tqwt` returned.
    n_samples : int
        Length of the signal.
    q : float, default=1.0
        Q-factor of the decomposition.
    r : float, default=3.0
        Redundancy of the decomposition.

    Returns
    -------
    ndarray of shape (n_samples,), dtype float64
        The signal, exact but for rounding.

    Raises
    ------
    ValueError
        If the lengths of the bands are not those of such a decomposition.

    Examples
    --------
    >>> x = np.sin(np.arange(601))
    >>> bool(np.allclose(itqwt(tqwt(x, n_levels=3), 601), x))
    True
    """
    check_tqwt(q, r, len(bands) - 1)
    lengths = _lengths(_even(n_samples), q, r, len(bands) - 1)
    expected = [n_high for _, n_high in lengths] + [lengths[-1][0]]
    if [len(band) for band in bands] != expected:
        raise ValueError(
            f"TQWT: bands of lengths {[len(band) for band in bands]} do not make {n_samples} "
            f"samples at q={q!r}, r={r!r}; expected lengths {expected}."
        )
    spectrum = scipy.fft.rfft(bands[-1], norm="ortho")
    longer = [_even(n_samples), *(n_low for n_low, _ in lengths[:-1])]
    for n, (n_low, n_high), band in zip(longer[::-1], lengths[::-1], bands[-2::-1], strict=True):
        start, low, high = _transition(n, n_low, n_high)
        whole = np.zeros(n // 2 + 1, dtype=complex)
        whole[: len(spectrum)] = spectrum
        whole[start : start + len(low)] *= low
        channel = scipy.fft.rfft(band, norm="ortho")
        channel[: len(high)] *= high
        whole[start:] += channel
        spectrum = whole
    return scipy.fft.irfft(spectrum, _even(n_samples), norm="ortho")[:n_samples]
