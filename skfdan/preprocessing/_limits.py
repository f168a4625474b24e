"""How much of the machine one file may take: bounds that are checked before memory is spent."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, fields

from ._source import MediaError

__all__ = ["DecodeLimits", "as_limits"]


@dataclass(frozen=True)
class DecodeLimits:
    """Bounds on what is decoded from one file.

    A file of a few hundred kB may unfold into hours of silence or a picture of
    gigabytes. What a header claims is held against these bounds before anything
    is decoded, and what comes out is counted while decoding, as headers may be
    wrong. A file beyond a bound is refused with a :class:`MediaError` that names
    the bound. All defaults were chosen here: far above any clip of speech, and
    such that one clip fits in a gigabyte.

    Parameters
    ----------
    max_bytes : float, default=2**31
        Size of the file.
    max_seconds : float, default=600
        Length of the sound in seconds.
    max_samples : float, default=100_000_000
        Samples of the sound over all channels; each takes 4 bytes.
    max_channels : float, default=64
        Channels of the sound.
    min_rate : float, default=100
        Lowest sampling rate in Hz.
    max_rate : float, default=1_000_000
        Highest sampling rate in Hz.
    max_frames : float, default=100_000
        Frames of a video, or entries of a folder of pictures.
    max_pixels : float, default=50_000_000
        Pixels of a picture or of one frame; each takes 3 bytes.

    Raises
    ------
    ValueError
        If a bound is not a number above 0. ``float("inf")`` is no bound.

    Examples
    --------
    >>> from skfdan.preprocessing import DecodeLimits, MelSpectrogram
    >>> DecodeLimits(max_seconds=3600).max_seconds
    3600
    >>> mel = MelSpectrogram(limits=DecodeLimits(max_seconds=3600))
    """

    max_bytes: float = 2**31
    max_seconds: float = 600
    max_samples: float = 100_000_000
    max_channels: float = 64
    min_rate: float = 100
    max_rate: float = 1_000_000
    max_frames: float = 100_000
    max_pixels: float = 50_000_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            # numpy's numbers count as numbers; True does not.
            if not isinstance(value, numbers.Real) or isinstance(value, bool) or not value > 0:
                raise ValueError(
                    f"DecodeLimits: {field.name}={value!r} must be a number above 0; "
                    'float("inf") is no bound.'
                )

    def _check(self, source: str, bound: str, found: float, what: str) -> None:
        """Raise a MediaError if what was found exceeds a bound."""
        limit = getattr(self, bound)
        if not found <= limit:
            raise MediaError(
                source,
                f"{what}, beyond the limit {bound}={limit:,}; if this is meant, set "
                f"limits=DecodeLimits({bound}=...) to more",
                stage="limits",
            )

    def _check_rate(self, source: str, rate: float) -> None:
        """Raise a MediaError for a sampling rate that cannot be meant."""
        if not self.min_rate <= rate <= self.max_rate:
            raise MediaError(
                source,
                f"has a sampling rate of {rate:,} Hz, outside of min_rate={self.min_rate:,} to "
                f"max_rate={self.max_rate:,}; repair the header, or set limits=DecodeLimits("
                "min_rate=..., max_rate=...)",
                stage="limits",
            )

    def _check_sound(self, source: str, n: float, rate: float, channels: int) -> None:
        """Raise a MediaError if n samples of so many channels are too many."""
        self._check_rate(source, rate)
        if not channels >= 1:
            raise MediaError(source, "has a sound stream of no channels")
        self._check(source, "max_channels", channels, f"has {channels} channels")
        seconds = n / rate
        lasts = f"has {math.ceil(seconds):,} s of sound or more"
        self._check(source, "max_seconds", seconds, lasts)
        many = f"has {math.ceil(n * channels):,} samples or more"
        self._check(source, "max_samples", n * channels, many)

    def _check_picture(self, source: str, width: int, height: int) -> None:
        """Raise a MediaError for a picture that is too large or has no area."""
        if not (width > 0 and height > 0):
            raise MediaError(source, f"has a picture of {width} x {height} pixels")
        size = f"has a picture of {width:,} x {height:,} pixels"
        self._check(source, "max_pixels", width * height, size)


DEFAULT = DecodeLimits()


def as_limits(limits: DecodeLimits | None) -> DecodeLimits:
    """Return the limits, or the defaults for None."""
    return DEFAULT if limits is None else limits
