"""Reading sound, pictures and video frames, with errors that name the file.

Sound files go through libsndfile, everything else (mp4, m4a, avi, flv, mkv)
through FFmpeg's libraries; both come inside Python wheels.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["MediaError", "is_picture", "read_audio", "read_frames", "read_image", "sample_indices"]

_PICTURES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}

# (offset, first bytes, name, what it is)
_SIGNATURES = (
    (8, b"WAVE", "WAV", "sound"),
    (0, b"fLaC", "FLAC", "sound"),
    (0, b"OggS", "Ogg", "sound"),
    (8, b"AIF", "AIFF", "sound"),
    (0, b"caff", "Core Audio", "sound"),
    (0, b".snd", "AU", "sound"),
    (0, b"ID3", "MP3", "sound"),
    (0, b"\xff\xfb", "MP3", "sound"),
    (0, b"\xff\xf3", "MP3", "sound"),
    (0, b"\xff\xf2", "MP3", "sound"),
    (0, b"\xff\xd8\xff", "JPEG", "picture"),
    (0, b"\x89PNG", "PNG", "picture"),
    (0, b"BM", "BMP", "picture"),
    (8, b"WEBP", "WebP", "picture"),
    (0, b"GIF8", "GIF", "picture"),
    (0, b"II*\0", "TIFF", "picture"),
    (0, b"MM\0*", "TIFF", "picture"),
    (0, b"P5", "PGM", "picture"),
    (0, b"P6", "PPM", "picture"),
    (4, b"ftyp", "MP4 or QuickTime", "video"),
    (4, b"moov", "QuickTime", "video"),
    (4, b"mdat", "QuickTime", "video"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM", "video"),
    (8, b"AVI ", "AVI", "video"),
    (0, b"FLV", "FLV", "video"),
    (0, b"0&\xb2u", "ASF or WMV", "video"),
    (0, b"version https://git-lfs", "a Git LFS pointer (run `git lfs pull`)", "text"),
    (0, b"PK\x03\x04", "a zip archive", "archive"),
    (0, b"\x1f\x8b", "a gzip archive", "archive"),
)


class MediaError(ValueError):
    """A file or array that holds no usable sound or picture.

    Parameters
    ----------
    source : str
        The file, or a description of the array.
    problem : str
        What was found and what to do.
    row : int or None, default=None
        Position in X, from 0, when a transformer met it.

    Examples
    --------
    >>> print(MediaError("a.wav", "is empty (0 bytes)", row=3))
    row 3 (a.wav): is empty (0 bytes)
    """

    def __init__(self, source: str, problem: str, row: int | None = None) -> None:
        super().__init__(source, problem, row)  # as args, so that it can be pickled
        self.source, self.problem, self.row = source, problem, row

    def __str__(self) -> str:
        place = self.source if self.row is None else f"row {self.row} ({self.source})"
        return f"{place}: {self.problem}"


def _sniff(path: str | os.PathLike) -> tuple[str, str]:
    """Return (format name, kind) from a file's first bytes; refuse what is no media file."""
    source = os.fspath(path)
    if not os.path.exists(source):
        raise FileNotFoundError(errno.ENOENT, "no such file or folder", source)
    if os.path.isdir(source):
        raise MediaError(source, "is a folder; a file is needed here")
    with open(source, "rb") as file:
        head = file.read(512)
    if not head:
        raise MediaError(source, "is empty (0 bytes); copy or download it again")
    name, kind = f"unknown (first bytes {head[:8]!r})", "unknown"
    for offset, magic, format_name, format_kind in _SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            name, kind = format_name, format_kind
            break
    else:
        # Text never reaches FFmpeg: it would take a play list for one, and
        # open whatever files and addresses the list names.
        if b"\0" not in head and not re.search(rb"[\x01-\x08\x0e-\x1f]", head):
            name, kind = f"text, starting {head[:24]!r}", "text"
    if kind in ("text", "archive"):
        raise MediaError(source, f"is not a media file: its header says {name}")
    return name, kind


def is_picture(path: str | os.PathLike) -> bool:
    """Tell from a file's first bytes whether it is a still picture.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    bool
        True for JPEG, PNG, BMP, WebP, TIFF, PPM and GIF (of which the first
        frame counts).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    MediaError
        If it is empty, text, an archive or a folder.
    """
    return _sniff(path)[1] == "picture"


@contextlib.contextmanager
def _opened(path: str, kind: str) -> Iterator[tuple[Any, Any]]:
    """Open a file with FFmpeg and give its (container, stream of that kind)."""
    import av

    header = _sniff(path)[0]
    try:
        # Titles and comments may be in any encoding, and are of no interest.
        with av.open(path, metadata_errors="ignore") as container:
            streams = [
                stream
                for stream in container.streams
                # A cover picture inside a sound file is no video.
                if stream.type == kind
                and not stream.disposition & av.stream.Disposition.attached_pic
            ]
            if not streams:
                found = sorted({s.type for s in container.streams}) or ["nothing"]
                wanted = {"audio": "sound", "video": "picture"}[kind]
                raise MediaError(
                    path, f"has no {wanted} stream ({header} file with {', '.join(found)} only)"
                )
            yield container, streams[0]
    except av.error.FFmpegError as error:
        raise MediaError(
            path,
            f"cannot be decoded: {error.strerror} (its header says {header}); it is cut short, "
            "damaged or of a kind FFmpeg does not know",
        ) from error


def read_audio(
    path: str | os.PathLike, sample_rate: int | None = None, *, mono: bool = True
) -> tuple[np.ndarray, int]:
    """Read the sound of a sound or video file.

    WAV, FLAC, Ogg, MP3, AIFF, Core Audio and AU are read by libsndfile; the
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
        decoded, or holds no samples or samples that are not finite.

    Examples
    --------
    >>> import tempfile, soundfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/a.wav", np.zeros((8000, 2)), 8000)
    ...     samples, rate = read_audio(f"{folder}/a.wav", sample_rate=16000)
    >>> samples.shape, rate
    ((16000,), 16000)
    """
    source = os.fspath(path)
    name, kind = _sniff(source)
    if kind == "picture":
        raise MediaError(source, f"has no sound: it is a {name} picture")
    decoded = _decode_sndfile(source) if kind == "sound" else None
    samples, rate = _decode_sound_stream(source) if decoded is None else decoded
    if mono:
        one = samples.shape[1] == 1
        samples = samples[:, 0] if one else samples.mean(axis=1, dtype=np.float32)
    check_samples(samples, source)
    return resample(samples, rate, sample_rate or rate), sample_rate or rate


def _decode_sndfile(path: str) -> tuple[np.ndarray, int] | None:
    """Decode with libsndfile; None for a codec it does not know."""
    import soundfile

    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError:
        return None  # such as AC-3 in a WAV: FFmpeg's turn, and its error if any
    with file:
        try:
            return file.read(dtype="float32", always_2d=True), file.samplerate
        except soundfile.LibsndfileError as error:
            raise MediaError(path, f"cannot be decoded: {error.error_string}") from error


def _decode_sound_stream(path: str) -> tuple[np.ndarray, int]:
    """Decode the first sound stream with FFmpeg to (samples, channels)."""
    import av

    blocks, rate = [], 0
    with _opened(path, "audio") as (container, stream):
        to_float = av.AudioResampler(format="fltp")
        try:
            for frame in container.decode(stream):
                rate = frame.sample_rate
                blocks += [part.to_ndarray() for part in to_float.resample(frame)]
            if blocks:
                blocks += [part.to_ndarray() for part in to_float.resample(None)]
        except av.error.FFmpegError:
            raise
        except ValueError as error:
            raise MediaError(path, f"changes its rate or channels on the way: {error}") from error
    if not blocks:
        raise MediaError(path, "has a sound stream without any samples")
    return np.concatenate(blocks, axis=1).T, rate


def check_samples(samples: np.ndarray, source: str) -> None:
    """Raise a MediaError unless there are samples and all of them are finite."""
    if not len(samples):
        raise MediaError(source, "holds no samples (length 0)")
    # One pass for the usual case: a sum is finite only if every term is.
    if not np.isfinite(samples.sum(dtype=np.float64)):
        bad = np.flatnonzero(~np.isfinite(samples.reshape(len(samples), -1)).all(axis=1))
        raise MediaError(
            source,
            f"has {len(bad)} of {len(samples)} samples that are NaN or infinite, the first at "
            f"{bad[0]}; repair or leave out the clip",
        )


def resample(samples: np.ndarray, rate: float, target: float) -> np.ndarray:
    """Resample along the first axis at soxr's high quality."""
    if rate == target:
        return samples
    import soxr

    return soxr.resample(samples, rate, target, quality="HQ")


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read a still picture, upright, in colour.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    ndarray of shape (H, W, 3), dtype uint8
        RGB; the rotation a camera noted is applied, 16-bit grey is reduced.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    MediaError
        If it is no picture or is damaged.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (4, 2), 7).save(f"{folder}/a.png")
    ...     read_image(f"{folder}/a.png").shape
    (2, 4, 3)
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    source = os.fspath(path)
    name, _ = _sniff(source)
    try:
        with Image.open(source) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise MediaError(
            source, f"cannot be read as a picture (its header says {name}): {error}"
        ) from error


def sample_indices(n_total: int, n_frames: int) -> list[int]:
    """Spread a number of frames evenly over a clip.

    Parameters
    ----------
    n_total : int
        Frames of the clip.
    n_frames : int
        Frames wanted.

    Returns
    -------
    list of int
        The middle of each of ``n_frames`` equal parts; a clip with fewer
        frames than that repeats some.

    Examples
    --------
    >>> sample_indices(90, 3), sample_indices(1, 3)
    ([15, 45, 75], [0, 0, 0])
    """
    return [(2 * k + 1) * n_total // (2 * n_frames) for k in range(n_frames)]


def read_frames(
    path: str | os.PathLike,
    n_frames: int | None = None,
    *,
    indices: Sequence[int] | None = None,
) -> list[np.ndarray]:
    """Read some frames of a video, or of a folder of pictures.

    Frames are numbered in the order they are shown, and are the same as if the
    whole video had been decoded; only what they depend on is decoded. A video
    that is cut short counts as long as it is; damage within a frame that the
    decoder can hide, as a player does, is not reported.

    Parameters
    ----------
    path : path-like
        A video file, or a folder of pictures in the order of their names
        (numbers count as numbers: ``f2.jpg`` comes before ``f10.jpg``).
    n_frames : int or None, default=None
        Read that many, evenly spread; see :func:`sample_indices`.
    indices : sequence of int or None, default=None
        Read these instead. Give exactly one of the two.

    Returns
    -------
    list of ndarray of shape (H, W, 3), dtype uint8
        RGB frames, upright.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    IndexError
        If an index is not below the number of frames.
    MediaError
        If there is no picture stream, nothing can be decoded, or the folder
        holds no pictures.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i in range(12):
    ...         Image.new("L", (4, 2), i).save(f"{folder}/{i}.png")
    ...     [int(frame[0, 0, 0]) for frame in read_frames(folder, 3)]
    [2, 6, 10]
    """
    if (n_frames is None) == (indices is None):
        raise ValueError("read_frames needs n_frames or indices, and not both.")
    source = os.fspath(path)
    if os.path.isdir(source):
        pictures = _folder_pictures(source)
        chosen = _choose(source, len(pictures), n_frames, indices)
        read = {i: read_image(pictures[i]) for i in set(chosen)}
        return [read[i] for i in chosen]
    with _opened(source, "video") as (container, stream):
        packets = [
            (p.pts, p.is_keyframe)
            for p in container.demux(stream)
            if p.size and not (p.is_discard or p.is_corrupt)
        ]
        n_packets = len(packets)
        stored = [time for time, _ in packets if time is not None]
        keys = sorted(time for time, is_key in packets if is_key and time is not None)
        times = sorted(stored)
        # Frames stored out of order whose times are in order: the container
        # (AVI) keeps no time of showing, and what it gives is a guess.
        guessed = stream.codec_context.has_b_frames and times == stored
        if len(set(times)) == n_packets and not guessed:
            chosen = _choose(source, n_packets, n_frames, indices)
            wanted = sorted({times[i] for i in chosen})
            by_time = _decode_forward(container, stream, wanted, keys)
            if by_time is not None:
                return [by_time[times[i]] for i in chosen]
    # Times that cannot be trusted, or packets that did not become frames as counted.
    chosen = _choose(source, n_packets, n_frames, indices)
    read, count = _decode_all(source, set(chosen))
    if count != n_packets:
        chosen = _choose(source, count, n_frames, indices)
        read, _ = _decode_all(source, set(chosen))
    return [read[i] for i in chosen]


def _choose(
    source: str, n_total: int, n_frames: int | None, indices: Sequence[int] | None
) -> list[int]:
    if not n_total:
        raise MediaError(source, "has a picture stream, but not one frame can be decoded")
    if n_frames is not None:
        return sample_indices(n_total, n_frames)
    for i in indices:
        if not 0 <= i < n_total:
            raise IndexError(f"{source}: frame {i} asked for, but it has {n_total} frames")
    return list(indices)


def _folder_pictures(folder: str) -> list[Path]:
    """List the pictures of a folder, numbers in their names read as numbers."""
    pictures = [
        p
        for p in Path(folder).iterdir()
        if p.suffix.lower() in _PICTURES and not p.name.startswith(".")
    ]
    if not pictures:
        raise MediaError(folder, f"is a folder without pictures ({', '.join(sorted(_PICTURES))})")
    return sorted(pictures, key=lambda p: [t.zfill(12) for t in re.split(r"(\d+)", p.name)])


def _decode_forward(
    container: Any, stream: Any, wanted: list[int], keys: list[int]
) -> dict[int, np.ndarray] | None:
    """Decode the frames shown at given times; None where that cannot be done exactly.

    Each seek goes to a key frame and starts decoding there, so it pays only if
    that key frame lies ahead: with one key frame a video, seeking for every
    frame would decode the beginning again and again.
    """
    found: dict[int, np.ndarray] = {}
    missing = list(wanted)
    while missing:
        i = bisect.bisect_right(keys, missing[0])
        if not i:
            return None
        key, later_keys = keys[i - 1], keys[i:]
        container.seek(key, stream=stream)
        at_start = True
        for packet in container.demux(stream):
            if at_start and not (packet.is_keyframe and packet.pts in keys[:i]):
                return None  # where decoding has to begin was missed
            at_start = False
            if stream.codec_context.name == "h264":
                # In H.264, and only there, a frame marked as no reference is
                # one that no other frame needs.
                unneeded = packet.size and packet.pts not in missing
                stream.codec_context.skip_frame = "NONREF" if unneeded else "DEFAULT"
            for frame in packet.decode():
                if frame.pts in missing:
                    found[frame.pts] = _upright(frame)
                    missing.remove(frame.pts)
            if not missing or (later_keys and later_keys[0] <= missing[0]):
                break
        else:
            return None
    return found


def _decode_all(path: str, wanted: set[int]) -> tuple[dict[int, np.ndarray], int]:
    """Decode a whole video, keep the frames of the given numbers, and count."""
    found, count = {}, 0
    with _opened(path, "video") as (container, stream):
        for count, frame in enumerate(container.decode(stream), start=1):
            if count - 1 in wanted:
                found[count - 1] = _upright(frame)
    return found, count


def _upright(frame: Any) -> np.ndarray:
    """Convert a decoded frame to RGB, turned as the file says it is to be shown."""
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
