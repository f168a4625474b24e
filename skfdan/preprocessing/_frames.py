"""Reading pictures and the frames of videos."""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._limits import DecodeLimits, as_limits
from ._source import FrameNumberError, MediaError, check_source, opened, sniff

__all__ = ["is_picture", "read_frames", "read_image", "sample_indices"]

_PICTURES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}

# The tag of a TIFF that says whether 0 is black or white.
_PHOTOMETRIC = 262

# Names of sniff, and what Pillow calls the format. It knows others that run
# programs (EPS) or are of no use here, and is not asked about them.
_PILLOW = {
    "BMP": "BMP",
    "GIF": "GIF",
    "JPEG": "JPEG",
    "PGM": "PPM",
    "PNG": "PNG",
    "PPM": "PPM",
    "TIFF": "TIFF",
    "WebP": "WEBP",
}


def is_picture(path: str | os.PathLike, *, limits: DecodeLimits | None = None) -> bool:
    """Tell from a file's first bytes whether it is a still picture.

    Parameters
    ----------
    path : path-like
        The file.
    limits : DecodeLimits or None, default=None
        Bounds on the file; None is ``DecodeLimits()``.

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
        If it is empty, text, an archive, a folder, a device or too large.
    """
    return sniff(path, as_limits(limits))[1] == "picture"


def read_image(path: str | os.PathLike, *, limits: DecodeLimits | None = None) -> np.ndarray:
    """Read a still picture, upright, in colour.

    Parameters
    ----------
    path : path-like
        The file.
    limits : DecodeLimits or None, default=None
        Bounds on what is decoded; None is ``DecodeLimits()``.

    Returns
    -------
    ndarray of shape (H, W, 3), dtype uint8
        RGB; the rotation a camera noted is applied, 16-bit grey is reduced.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    MediaError
        If it is no picture, is damaged or exceeds the limits.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (4, 2), 7).save(f"{folder}/a.png")
    ...     read_image(f"{folder}/a.png").shape
    (2, 4, 3)
    """
    from PIL import ImageOps

    source, limits = os.fspath(path), as_limits(limits)
    name, _ = sniff(source, limits)
    try:
        with open(source, "rb") as file, _open_picture(file, source, name) as picture:
            limits._check_picture(source, *picture.size)
            image = ImageOps.exif_transpose(picture)
            if image.mode.startswith(("I", "F")):
                values = np.asarray(image)
                # Modes of 16 bits, and what 16 bits are read as where Pillow has no mode for them.
                if image.mode == "F" or (image.mode == "I" and name == "TIFF"):
                    raise MediaError(
                        source,
                        f"holds {values.dtype} numbers, of which it does not say what is white; "
                        "save it with 8 or 16 bits",
                    )
                if name == "TIFF" and picture.tag_v2.get(_PHOTOMETRIC) == 0:
                    values = 65535 - values  # 0 is white, which Pillow sees to in 8 bits only
                grey = (values >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.array(image.convert("RGB"))
    except (MediaError, MemoryError):
        raise
    except Exception as error:
        # Pillow's readers meet damage with errors of a dozen kinds.
        raise MediaError(
            source, f"cannot be read as a picture (its header says {name}): {error}"
        ) from error


def _open_picture(file: Any, source: str, name: str) -> Any:
    """Open a picture as ``PIL.Image.open`` does, but for its own opinion about sizes.

    That warns of pictures that the limits allow, and filters of warnings belong
    to all threads.
    """
    from PIL import Image

    form = _PILLOW.get(name)
    if form is None:
        raise MediaError(source, f"cannot be read as a picture (its header says {name})")
    Image.preinit()
    if form not in Image.OPEN:
        Image.init()
    if form not in Image.OPEN:
        raise MediaError(
            source, f"cannot be read as a picture: this Pillow was built without {form}"
        )
    return Image.OPEN[form][0](file, source)


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
    limits: DecodeLimits | None = None,
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
    limits : DecodeLimits or None, default=None
        Bounds on what is decoded; None is ``DecodeLimits()``.

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
        If there is no picture stream, nothing can be decoded, the folder holds
        no pictures, or the limits are exceeded.

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
    source, limits = os.fspath(path), as_limits(limits)
    if check_source(source, limits):
        pictures = _folder_pictures(source)
        chosen = _choose(source, len(pictures), n_frames, indices)
        read = {i: read_image(pictures[i], limits=limits) for i in set(chosen)}
        return [read[i] for i in chosen]
    with opened(source, "video", limits) as (container, stream):
        codec = stream.codec_context
        if codec.width or codec.height:  # else the header is silent, and the frames will tell
            limits._check_picture(source, codec.width, codec.height)
        packets = []
        for packet in container.demux(stream):
            if packet.size and not (packet.is_discard or packet.is_corrupt):
                packets.append((packet.pts, packet.is_keyframe))
                _check_count(source, len(packets), limits)
        n_packets = len(packets)
        stored = [time for time, _ in packets if time is not None]
        keys = sorted(time for time, is_key in packets if is_key and time is not None)
        times = sorted(stored)
        # Frames stored out of order whose times are in order: the container
        # (AVI) keeps no time of showing, and what it gives is a guess.
        guessed = codec.has_b_frames and times == stored
        if len(set(times)) == n_packets and not guessed:
            chosen = _choose(source, n_packets, n_frames, indices)
            wanted = sorted({times[i] for i in chosen})
            by_time = _decode_forward(container, stream, wanted, keys, source, limits)
            if by_time is not None:
                return [by_time[times[i]] for i in chosen]
    # Times that cannot be trusted, or packets that did not become frames as counted.
    chosen = _choose(source, n_packets, n_frames, indices)
    read, count = _decode_all(source, set(chosen), limits)
    if count != n_packets:
        chosen = _choose(source, count, n_frames, indices)
        read, _ = _decode_all(source, set(chosen), limits)
    return [read[i] for i in chosen]


def _check_count(source: str, count: int, limits: DecodeLimits) -> None:
    limits._check(source, "max_frames", count, f"has {count:,} frames or more")


def _choose(
    source: str, n_total: int, n_frames: int | None, indices: Sequence[int] | None
) -> list[int]:
    if not n_total:
        raise MediaError(source, "has a picture stream, but not one frame can be decoded")
    if n_frames is not None:
        return sample_indices(n_total, n_frames)
    for i in indices:
        if not 0 <= i < n_total:
            raise FrameNumberError(f"{source}: frame {i} asked for, but it has {n_total} frames")
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
    return sorted(pictures, key=lambda p: (_by_number(p.name), p.name))


def _by_number(name: str) -> list[str | int]:
    """Return text and numbers in turn."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _decode_forward(
    container: Any,
    stream: Any,
    wanted: list[int],
    keys: list[int],
    source: str,
    limits: DecodeLimits,
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
                    found[frame.pts] = _upright(frame, source, limits)
                    missing.remove(frame.pts)
            if not missing or (later_keys and later_keys[0] <= missing[0]):
                break
        else:
            return None
    return found


def _decode_all(
    path: str, wanted: set[int], limits: DecodeLimits
) -> tuple[dict[int, np.ndarray], int]:
    """Decode a whole video, keep the frames of the given numbers, and count."""
    found, count = {}, 0
    with opened(path, "video", limits) as (container, stream):
        for count, frame in enumerate(container.decode(stream), start=1):
            _check_count(path, count, limits)
            if count - 1 in wanted:
                found[count - 1] = _upright(frame, path, limits)
    return found, count


def _upright(frame: Any, source: str, limits: DecodeLimits) -> np.ndarray:
    """Convert a decoded frame to RGB, turned as the file says it is to be shown."""
    limits._check_picture(source, frame.width, frame.height)
    image = frame.to_ndarray(format="rgb24")
    shown = frame.side_data.get("DISPLAYMATRIX")
    if shown is None:
        return image
    # (x, y) is shown at (a x + c y, b x + d y): a camera's front side mirrors, too.
    a, b, _, c, d = np.frombuffer(shown, np.int32, 5).tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
