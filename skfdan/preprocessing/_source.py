"""What a file is, before anything decodes it: its kind, its size, and how to open it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._limits import DecodeLimits

__all__ = ["MediaError", "check_source", "opened", "sniff"]

# (offset, first bytes, name, what it is)
_SIGNATURES = (
    (8, b"WAVE", "WAV", "sound"),
    (0, b"fLaC", "FLAC", "sound"),
    (0, b"OggS", "Ogg", "sound"),
    (8, b"AIF", "AIFF", "sound"),
    (0, b"caff", "Core Audio", "sound"),
    (0, b".snd", "AU", "sound"),
    (0, b"NIST_1A", "NIST SPHERE", "sound"),
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
    (0, b"II+\0", "TIFF", "picture"),
    (0, b"MM\0+", "TIFF", "picture"),
    (0, b"P5", "PGM", "picture"),
    (0, b"P6", "PPM", "picture"),
    (4, b"ftyp", "MP4 or QuickTime", "video"),
    (4, b"moov", "QuickTime", "video"),
    (4, b"mdat", "QuickTime", "video"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM", "video"),
    (8, b"AVI ", "AVI", "video"),
    (0, b"FLV", "FLV", "video"),
    (0, b"0&\xb2u", "ASF or WMV", "video"),
    (0, b"#EXTM3U", "text, a play list", "text"),
    (0, b"ffconcat", "text, a play list", "text"),
    (0, b"version https://git-lfs", "a Git LFS pointer (run `git lfs pull`)", "text"),
    (0, b"/annex/objects/", "a git-annex pointer (run `git annex get`)", "text"),
    (0, b"PK\x03\x04", "a zip archive", "archive"),
    (0, b"\x1f\x8b", "a gzip archive", "archive"),
)

# What FFmpeg may take a file for. Others of its formats are lists that name
# further files and addresses, which it would open.
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,dv,eac3,flac,flv,gsm,h264,"  # codespell:ignore caf
    "hevc,ivf,live_flv,m4v,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,mpegvideo,mxf,nut,"
    "ogg,rm,tta,voc,w64,wav,wv"
)

# What FFmpeg calls the containers that the first bytes tell for sure. Left to itself it goes by
# the name too, and takes a video called "clip%02d.png" for a list of pictures.
_DEMUXERS = {
    "ASF or WMV": "asf",
    "AVI": "avi",
    "FLV": "flv",
    "MP4 or QuickTime": "mov",
    "Matroska or WebM": "matroska",
    "QuickTime": "mov",
}


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
    stage : {"open", "limits", "decode", "time limit", "crash", "no face"}, default="decode"
        Where it failed: the file is not there or is no media file, it exceeds
        :class:`DecodeLimits`, what it holds cannot be decoded or used, decoding
        took too long, the decoder crashed, or no face was found.

    Examples
    --------
    >>> print(MediaError("a.wav", "is empty (0 bytes)", row=3))
    row 3 (a.wav): is empty (0 bytes)
    """

    def __init__(
        self, source: str, problem: str, row: int | None = None, stage: str = "decode"
    ) -> None:
        super().__init__(source, problem, row, stage)  # as args, so that it can be pickled
        self.source, self.problem, self.row, self.stage = source, problem, row, stage

    def __str__(self) -> str:
        place = self.source if self.row is None else f"row {self.row} ({self.source})"
        return f"{place}: {self.problem}"


def check_source(path: str | os.PathLike, limits: DecodeLimits) -> bool:
    """Refuse from its directory entry alone what cannot be read; tell whether it is a folder.

    Nothing is opened, as opening a named pipe or a device may wait for ever.
    """
    source = os.fspath(path)
    try:
        status = os.stat(source)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(errno.ENOENT, "no such file or folder", source) from None
    except ValueError as error:  # a zero byte in the name
        raise MediaError(source, f"is no path: {error}", stage="open") from None
    if stat.S_ISDIR(status.st_mode):
        with os.scandir(source) as entries:
            for count, _ in enumerate(entries, start=1):
                limits._check(
                    source, "max_frames", count, f"is a folder of {count:,} or more files"
                )
        return True
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(
            source, "is neither a file nor a folder, but a device or pipe", stage="open"
        )
    if not status.st_size:
        raise MediaError(source, "is empty (0 bytes); copy or download it again", stage="open")
    limits._check(source, "max_bytes", status.st_size, f"has {status.st_size:,} bytes")
    return False


def sniff(path: str | os.PathLike, limits: DecodeLimits) -> tuple[str, str]:
    """Return (format name, kind) from a file's first bytes; refuse what is no media file."""
    source = os.fspath(path)
    if check_source(source, limits):
        raise MediaError(source, "is a folder; a file is needed here", stage="open")
    with open(source, "rb") as file:
        head = file.read(512)
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
        problem = f"is not a media file: its header says {name}"
        raise MediaError(source, problem, stage="open")
    return name, kind


class FrameNumberError(IndexError):
    """A frame was asked for that a video does not have."""


@contextlib.contextmanager
def opened(path: str, kind: str, limits: DecodeLimits) -> Iterator[tuple[Any, Any]]:
    """Open a file with FFmpeg and give its (container, stream of that kind)."""
    import av

    header = sniff(path, limits)[0]
    remedy = (
        f"(its header says {header}); it is cut short, damaged or of a kind FFmpeg does not know"
    )
    try:
        with av.open(
            # Nothing but this file, even where its content or name asks for more.
            f"file:{path}",
            format=_DEMUXERS.get(header),
            options={"protocol_whitelist": "file", "format_whitelist": _CONTAINERS},
            metadata_errors="ignore",  # titles may be in any encoding, and are of no interest
        ) as container:
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
            if streams[0].codec_context is None:
                raise MediaError(path, f"cannot be decoded: no decoder is known {remedy}")
            yield container, streams[0]
    except av.error.FFmpegError as error:
        # Also where it has no memory for what a header claims.
        raise MediaError(path, f"cannot be decoded: {error.strerror} {remedy}") from error
    except (MediaError, FrameNumberError, MemoryError):
        raise
    except Exception as error:
        # What a header may say that nobody thought of when the bindings were written.
        raise MediaError(path, f"cannot be decoded: {error} {remedy}") from error
