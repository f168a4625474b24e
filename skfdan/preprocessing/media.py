"""Reading sound, with errors that name the file.

Sound files go through libsndfile, everything else (mp4, m4a, avi, flv, mkv)
through FFmpeg's libraries; both come inside Python wheels.
"""

from __future__ import annotations

import os

import numpy as np

from ._frames import is_picture, read_frames, read_image, sample_indices
from ._limits import DecodeLimits, as_limits
from ._source import MediaError, opened, sniff

__all__ = ["MediaError", "is_picture", "read_audio", "read_frames", "read_image", "sample_indices"]

# Full scale is 1. What is beyond is no sound, and its power would overflow.
_LOUDEST = 1e9

# From here on libsndfile means that the header gives no length.
_UNKNOWN = 2**62


def read_audio(
    path: str | os.PathLike,
    sample_rate: int | None = None,
    *,
    mono: bool = True,
    limits: DecodeLimits | None = None,
) -> tuple[np.ndarray, int]:
    """Read the sound of a sound or video file.

    WAV, FLAC, Ogg, MP3, AIFF, Core Audio, AU and NIST SPHERE are read by libsndfile; the
    sound of anything else (MP4, M4A, AVI, FLV, MKV) by FFmpeg, from its first
    sound stream. A file shorter than its header promises gives what is there.

    Parameters
    ----------
    path : path-like
        The file. Its format is told from its content, not its name.
    sample_rate : int or None, default=None
        Resample to this rate in Hz (soxr, high quality); None keeps the rate
        of the file.
    mono : bool, default=True
        Whether to average the channels.
    limits : DecodeLimits or None, default=None
        Bounds on what is decoded; None is ``DecodeLimits()``.

    Returns
    -------
    samples : ndarray of shape (n,), or (n, channels) if not mono, dtype float32
        Samples; full scale is -1 to 1.
    rate : int
        Sampling rate in Hz.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    MediaError
        If it is empty, is no media file, has no sound stream, cannot be
        decoded, exceeds the limits, or holds no samples or samples that are not
        finite.

    Examples
    --------
    >>> import tempfile, soundfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/a.wav", np.zeros((8000, 2)), 8000)
    ...     samples, rate = read_audio(f"{folder}/a.wav", sample_rate=16000)
    >>> samples.shape, rate
    ((16000,), 16000)
    """
    source, limits = os.fspath(path), as_limits(limits)
    name, kind = sniff(source, limits)
    if kind == "picture":
        raise MediaError(source, f"has no sound: it is a {name} picture")
    decoded = _decode_sndfile(source, name, limits) if kind == "sound" else None
    samples, rate = _decode_sound_stream(source, limits) if decoded is None else decoded
    if mono:
        one = samples.shape[1] == 1
        samples = samples[:, 0] if one else samples.mean(axis=1, dtype=np.float32)
    check_samples(samples, source)
    return resample(samples, rate, sample_rate or rate, source), sample_rate or rate


def _decode_sndfile(path: str, header: str, limits: DecodeLimits) -> tuple[np.ndarray, int] | None:
    """Decode with libsndfile; None for a codec it does not know, or a length it does not."""
    import soundfile

    try:
        # As bytes, where file names are bytes: they need not be text.
        file = soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else path)
    except soundfile.LibsndfileError:
        return None  # such as AC-3 in a WAV: FFmpeg's turn, and its error if any
    with file:
        if file.frames >= _UNKNOWN:
            return None  # a stream; FFmpeg counts as it goes
        # No more is ever read than the header says, so one check will do.
        limits._check_sound(path, file.frames, file.samplerate, file.channels)
        # Told how many, soundfile also reads codecs that it cannot seek in, such as GSM.
        how = {"frames": file.frames, "always_2d": True}
        try:
            if file.subtype == "PCM_16":
                # The same numbers, for a third of the time that libsndfile takes for floats.
                whole = file.read(dtype="int16", **how)
                return np.multiply(whole, np.float32(2.0**-15), dtype=np.float32), file.samplerate
            return file.read(dtype="float32", **how), file.samplerate
        except soundfile.LibsndfileError as error:
            raise MediaError(
                path,
                f"cannot be decoded: {error.error_string} (its header says {header}); it is cut "
                "short or damaged: copy it again, or leave it out",
            ) from error


def _decode_sound_stream(path: str, limits: DecodeLimits) -> tuple[np.ndarray, int]:
    """Decode the first sound stream with FFmpeg to (samples, channels)."""
    import av

    blocks, n, rate = [], 0, 0
    with opened(path, "audio", limits) as (container, stream):
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
            lasts = f"has {seconds:,.0f} s of sound by its header"
            limits._check(path, "max_seconds", seconds, lasts)
        to_float = av.AudioResampler(format="fltp")
        try:
            for frame in container.decode(stream):
                rate, n = frame.sample_rate, n + frame.samples
                limits._check_sound(path, n, rate, frame.layout.nb_channels)
                blocks += [part.to_ndarray() for part in to_float.resample(frame)]
            if blocks:
                blocks += [part.to_ndarray() for part in to_float.resample(None)]
        except (MediaError, av.error.FFmpegError):
            raise
        except ValueError as error:
            raise MediaError(path, f"changes its rate or channels on the way: {error}") from error
    if not blocks:
        raise MediaError(path, "has a sound stream without any samples")
    return np.concatenate(blocks, axis=1).T, rate


def full_scale(samples: np.ndarray, source: str) -> np.ndarray:
    """Bring integer samples, as WAV files store them, to -1 to 1; floats are there already."""
    if samples.dtype.kind == "f":
        return samples
    if samples.dtype.itemsize > 4:
        raise MediaError(
            source,
            f"holds {samples.dtype} samples, and no sound has that full scale; give them in the "
            "type that the file has, such as int16, or divided to floats between -1 and 1",
        )
    full = 2.0 ** (8 * samples.dtype.itemsize - 1)
    offset = full if samples.dtype.kind == "u" else 0  # 8 bits are unsigned in a WAV
    return (samples - offset) / full


def check_samples(samples: np.ndarray, source: str) -> None:
    """Raise a MediaError unless there are samples, finite and of a sane size."""
    if not len(samples):
        raise MediaError(source, "holds no samples (length 0)")
    # One look for the usual case: a NaN is both the least and the greatest.
    lowest, highest = samples.min(), samples.max()
    if lowest >= -_LOUDEST and highest <= _LOUDEST:
        return
    bad = np.flatnonzero(~np.isfinite(samples.reshape(len(samples), -1)).all(axis=1))
    if len(bad):
        raise MediaError(
            source,
            f"has {len(bad)} of {len(samples)} samples that are NaN or infinite, the first at "
            f"{bad[0]}; repair or leave out the clip",
        )
    raise MediaError(
        source,
        f"has samples from {lowest:.3g} to {highest:.3g}, where full scale is 1; scale it, or "
        "leave out the clip",
    )


def resample(samples: np.ndarray, rate: float, target: float, source: str = "sound") -> np.ndarray:
    """Resample along the first axis at soxr's high quality."""
    if rate == target:
        return samples
    import soxr

    resampled = soxr.resample(samples, rate, target, quality="HQ")
    if not len(resampled):
        raise MediaError(
            source,
            f"is too short: {len(samples)} samples at {rate:,} Hz are none at {target:,} Hz",
        )
    return resampled
