"""What is in one file: it is opened, decoded once, and only facts are kept."""

from __future__ import annotations

import hashlib
import numbers
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..preprocessing import media
from ..preprocessing._frames import _check_count, _folder_pictures
from ..preprocessing._limits import DecodeLimits, as_limits
from ..preprocessing._source import check_source, opened, sniff
from ..preprocessing._workers import Isolated, WorkerError

#: A run of this many samples at full scale, of one sign, counts as clipped: a true peak may
#: touch full scale in one sample or two, a cut one stays there.
CLIPPED_RUN = 3
#: Full scale. Files of 16 bits end at 32767/32768; FLAC, MP3 and AAC copies of a clipped
#: sound stay within a thousandth of it or leave it altogether.
FULL_SCALE = 0.999
#: Frames a video may lack of those its header counts: edit lists hide some on purpose.
MISSING_FRAMES = 0.1
#: RIFF sizes from here on stand for "unknown", written by programs that could not seek.
UNKNOWN_SIZE = 0x7FFF0000


@dataclass(frozen=True)
class Failure:
    """Why a cell gives no sound or no pictures."""

    kind: str
    reason: str


@dataclass(frozen=True)
class Facts:
    """What a cell's sound or pictures are.

    Attributes
    ----------
    content : str
        Digest of the decoded sound or pictures.
    file : str or None
        Digest of the file's bytes; None for an array or a folder.
    seconds : float or None
        Duration; None for still pictures and for arrays without a rate.
    rate : int or None
        Samples a second, of a sound file.
    size : tuple (width, height) or None
        Of the first picture.
    peak : float or None
        Highest level in dBFS of the mix of all channels, its mean taken off.
    channel_peak : float or None
        The same of the loudest channel.
    clipped : float
        Share of the samples that are cut off at full scale.
    truncated : str or None
        How much of what the header promises is there, if not all.
    """

    content: str
    file: str | None = None
    seconds: float | None = None
    rate: int | None = None
    size: tuple[int, int] | None = None
    peak: float | None = None
    channel_peak: float | None = None
    clipped: float = 0.0
    truncated: str | None = None


def examine(
    cell: Any, modalities: Iterable[str], limits: DecodeLimits | None = None
) -> dict[str, Facts | Failure]:
    """Decode a cell as each of the modalities; whatever goes wrong becomes a Failure.

    Parameters
    ----------
    cell : path or array
        The cell of a modality table.
    modalities : iterable of {"visual", "audio"}
        What it has to hold.
    limits : DecodeLimits or None, default=None
        Bounds on what is decoded; None is ``DecodeLimits()``.

    Returns
    -------
    dict of str to Facts or Failure
        By modality.
    """
    return {m: _examine_one(cell, m, as_limits(limits)) for m in modalities}


class Examiner:
    """Examines cells in worker processes, or here if there is no time limit.

    Parameters
    ----------
    limits : DecodeLimits or None
        Bounds on what is decoded.
    timeout : float or None
        Seconds that one file may take; None examines in this process.
    n_jobs : int
        How many cells are examined at a time.

    Attributes
    ----------
    unavailable : str
        Why no worker process could be had; empty if one could, or none was wanted.
    """

    def __init__(self, limits: DecodeLimits | None, timeout: float | None, n_jobs: int) -> None:
        self.limits, self.unavailable = limits, ""
        self._isolated = {}
        if timeout is not None:
            for modalities in (("audio",), ("visual",), ("audio", "visual")):
                task = partial(examine, modalities=modalities, limits=limits)
                self._isolated[modalities] = Isolated(task, _warm_up, timeout, n_jobs)

    def __call__(self, cell: Any, modalities: Iterable[str]) -> dict[str, Facts | Failure]:
        """Examine a cell; see :func:`examine`."""
        modalities = tuple(sorted(modalities))
        isolated = self._isolated.get(modalities)
        if isolated is None or self.unavailable or not isinstance(cell, (str, os.PathLike)):
            return examine(cell, modalities, self.limits)
        try:
            return isolated(cell)
        except WorkerError as error:
            self.unavailable = str(error)
            return examine(cell, modalities, self.limits)
        except media.MediaError as error:
            return dict.fromkeys(modalities, Failure("broken", error.problem))


def _warm_up() -> None:
    """Import what decoding needs, so that no file is charged with it."""
    import av
    import PIL.ImageOps
    import soundfile

    _ = av, PIL.ImageOps, soundfile


def _examine_one(cell: Any, modality: str, limits: DecodeLimits) -> Facts | Failure:
    try:
        if isinstance(cell, (str, os.PathLike)):
            return (_sound if modality == "audio" else _pictures)(os.fspath(cell), limits)
        return _array(cell, modality)
    except FileNotFoundError:
        return Failure("missing", "there is no such file")
    except media.MediaError as error:
        if error.stage == "limits":
            return Failure("too large", error.problem)
        for kind in ("no sound", "no pictures"):
            # "has no sound stream", "has no picture stream", "is a folder without pictures"
            if f"has {kind.removesuffix('s')}" in error.problem:
                return Failure(kind, error.problem)
        if "without pictures" in error.problem:
            return Failure("no pictures", error.problem)
        return Failure("broken", error.problem)
    # One strange file among ten thousand must not end the check of the others.
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or "no reason given"
        return Failure("broken", f"cannot be read ({type(error).__name__}: {reason})")


def clipped_share(samples: np.ndarray) -> float:
    """Return the share of samples in runs of three or more at full scale, of one sign.

    Parameters
    ----------
    samples : ndarray of shape (n, channels)
        Sound; full scale is -1 to 1.

    Returns
    -------
    float
        The channel with the most of them counts.

    Examples
    --------
    >>> clipped_share(np.array([[0, 1, 1, 1, 0, -1, -1, 1, 1, 0]]).T)
    0.3
    """
    shares = []
    for channel in samples.T:
        total = 0
        for high in (channel >= FULL_SCALE, channel <= -FULL_SCALE):
            # Most sounds are done here, without another look at each sample.
            if np.count_nonzero(high) < CLIPPED_RUN:
                continue
            edges = np.flatnonzero(np.diff(high, prepend=False, append=False))
            runs = edges[1::2] - edges[::2]
            total += int(runs[runs >= CLIPPED_RUN].sum())
        shares.append(total / len(channel))
    return max(shares)


def _sound(path: str, limits: DecodeLimits) -> Facts:
    samples, rate = media.read_audio(path, mono=False, limits=limits)
    # The mean of equal channels is each of them: a mono file and its stereo copy are the
    # same sound. Adding 0 makes -0 and 0 one.
    mono = samples.mean(axis=1, dtype=np.float32)
    mono += 0
    return Facts(
        content=_digest({"rate": rate}, mono),
        file=_file_digest(path),
        seconds=len(samples) / rate,
        rate=int(rate),
        truncated=_missing_sound(path, len(samples), limits),
        **_loudness(samples, mono),
    )


def _loudness(samples: np.ndarray, mono: np.ndarray) -> dict[str, float]:
    """Measure peaks and clipping of samples of shape (n, channels) and of their mix."""
    return {
        "peak": _peak(mono),
        "channel_peak": max(map(_peak, samples.T)),
        "clipped": clipped_share(samples),
    }


def _peak(samples: np.ndarray) -> float:
    """Return the highest level in dBFS, the mean taken off, without a copy of the samples."""
    mean = float(samples.mean(dtype=np.float64))
    peak = max(float(samples.max()) - mean, mean - float(samples.min()))
    return 20 * float(np.log10(peak)) if peak > 0 else -np.inf


def _missing_sound(path: str, n_samples: int, limits: DecodeLimits) -> str | None:
    """Say how much of a sound file is there, if its header promises more."""
    import soundfile

    with open(path, "rb") as file:
        head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        there, promised = os.path.getsize(path), int.from_bytes(head[4:8], "little") + 8
        # Some programs leave out the byte that pads a chunk of odd length.
        if there < promised - 1 and promised < UNKNOWN_SIZE:
            return f"{there} of the {promised} bytes that its header promises"
        return None
    if sniff(path, limits)[1] != "sound":
        return None
    try:
        # As bytes, where file names are bytes: they need not be text.
        promised = soundfile.info(os.fsencode(path) if os.name == "posix" else path).frames
    except soundfile.LibsndfileError:
        return None
    if n_samples < promised:
        return f"{n_samples} of the {promised} samples that its header promises"
    return None


def _pictures(path: str, limits: DecodeLimits) -> Facts:
    if check_source(path, limits):
        files = _folder_pictures(path)
        digests, size = [], None
        for file in files:
            image = media.read_image(file, limits=limits)
            size = size or (image.shape[1], image.shape[0])
            digests.append(_digest({}, image))
        return Facts(content=_digest({"pictures": digests}), size=size)
    if media.is_picture(path, limits=limits):
        image = media.read_image(path, limits=limits)
        size = (image.shape[1], image.shape[0])
        return Facts(content=_digest({}, image), file=_file_digest(path), size=size)
    return _video(path, limits)


def _video(path: str, limits: DecodeLimits) -> Facts:
    """Decode every frame, one at a time, to grey: colour costs time and tells nothing more."""
    digest, count, first, last, size = hashlib.sha256(), 0, None, None, None
    with opened(path, "video", limits) as (container, stream):
        promised = stream.frames
        rate = float(stream.average_rate or 0) or 25.0
        for frame in container.decode(stream):
            count += 1
            _check_count(path, count, limits)
            limits._check_picture(path, frame.width, frame.height)
            size = size or (frame.width, frame.height)
            first = frame.time if first is None else first
            last = frame.time if frame.time is not None else last
            digest.update(f"{frame.width}x{frame.height}".encode())
            digest.update(np.ascontiguousarray(frame.reformat(format="gray").to_ndarray()))
    if not count:
        raise media.MediaError(path, "has a picture stream, but not one frame can be decoded")
    lacking = count < (1 - MISSING_FRAMES) * promised
    return Facts(
        content=digest.hexdigest(),
        file=_file_digest(path),
        seconds=count / rate if last is None else last - first + 1 / rate,
        size=size,
        truncated=f"{count} of the {promised} frames that its header counts" if lacking else None,
    )


def _array(cell: Any, modality: str) -> Facts | Failure:
    """Take an array, or samples with their rate.

    Pictures are of shape (3, H, W), (H, W, 3) or (frames, 3, H, W) and so on.
    """
    rate = None
    if modality == "audio" and isinstance(cell, tuple) and len(cell) == 2:
        cell, rate = cell
        if not (isinstance(rate, numbers.Real) and 0 < rate < np.inf):
            return Failure("broken", f"is sound of the rate {rate!r:.60}, which is no number of Hz")
    array = np.asarray(cell)
    if array.dtype.kind not in "biuf":
        return Failure("broken", f"is neither a path nor an array of numbers: {cell!r:.60}")
    if not array.size:
        return Failure("broken", f"is an empty array of shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return Failure("broken", f"holds {np.sum(~np.isfinite(array))} values that are not finite")
    size = None
    if array.ndim > 2:
        # As FaceFrames reads them.
        last = array.shape[-1] in (1, 3) and array.shape[-3] not in (1, 3)
        height, width = array.shape[-3:-1] if last else array.shape[-2:]
        size = width, height
    if rate is None:
        return Facts(content=_digest({}, array), size=size)
    if array.ndim != 1 or array.dtype == bool:
        return Failure(
            "broken", f"is sound of shape {array.shape} and type {array.dtype}, not (n,)"
        )
    content = _digest({"rate": float(rate)}, array)
    try:
        samples = media.full_scale(array, "the cell")
    except media.MediaError as error:
        return Failure("broken", error.problem)
    samples = samples.astype(np.float32)
    return Facts(
        content=content,
        seconds=len(array) / float(rate),
        rate=int(rate),
        **_loudness(samples[:, None], samples),
    )


def _digest(facts: Mapping[str, Any], array: np.ndarray | None = None) -> str:
    digest = hashlib.sha256(repr(sorted(facts.items())).encode())
    if array is not None:
        digest.update(f"{array.shape} {array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def _file_digest(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
