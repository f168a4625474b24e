"""Pictures, videos and other things that are broken, or odd, on purpose.

``SPECIALS`` has these and those of ``sound_specials``.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from media_sources import pictures, write_folder, write_video
from sound_specials import SPECIALS, add, content, patched

__all__ = ["SPECIALS"]

# ---------------------------------------------------------------------------------- pictures


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, *, depth=8, colour=0, data=b"", before=b"") -> bytes:
    """Return a PNG file whose header says whatever is wanted, with right checksums."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(data, 9))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


BOMB = b"a\0\0" + zlib.compress(bytes(2**26))
for kind, data, expected in (
    ("0 pixels", png(0, 0), "bad"),
    ("0 rows", png(64, 0), "bad"),
    ("largest", png(2**31 - 1, 2**31 - 1), "bad"),
    ("long row", png(2**31 - 1, 1), "bad"),
    ("20000 square", png(20000, 20000), "bad"),
    # 100 million grey pixels in 100 kB.
    ("bomb", png(10000, 10000, data=bytes(10001 * 10000)), "either"),
    ("no data", png(64, 64), "bad"),
    ("depth 17", png(8, 8, depth=17, data=bytes(80)), "bad"),
    ("colour 7", png(8, 8, colour=7, data=bytes(400)), "bad"),
    ("one pixel", png(1, 1, data=b"\0\x80"), "good"),
    ("thin", png(3000, 1, data=bytes(3001)), "good"),
    ("text bomb", png(8, 8, data=bytes(72), before=chunk(b"zTXt", BOMB)), "either"),
    ("profile bomb", png(8, 8, data=bytes(72), before=chunk(b"iCCP", BOMB)), "either"),
):  # fmt: skip
    add(f"png {kind}", ".png", content(data), expected, audio=False)
add("png one grey", ".png", content(png(8, 8, data=bytes(72))), "good", audio=False)

for kind, name, offset, new, expected in (
    ("gif screen", "moving.gif", 6, b"\xff" * 4, "bad"),
    ("gif 0 screen", "moving.gif", 6, bytes(4), "either"),
    ("bmp huge", "plain.bmp", 18, b"\xff\xff\xff\x7f" * 2, "bad"),
    ("bmp negative", "plain.bmp", 18, b"\xff\xff\xff\xff" * 2, "bad"),
    ("bmp 0", "plain.bmp", 18, bytes(8), "bad"),
    ("bmp bits", "plain.bmp", 28, b"\x07\0", "bad"),
    ("bmp offset", "plain.bmp", 10, b"\xff\xff\xff\x7f", "bad"),
    ("tiff directory", "packed.tiff", 4, b"\xf0\xff\xff\x7f", "bad"),
    ("tiff loop", "packed.tiff", 4, b"\4\0\0\0", "either"),
    ("webp size", "photo.webp", 26, b"\xff\x3f\xff\x3f", "either"),
):
    add(kind, Path(name).suffix, patched(name, offset, new), expected, audio=False)


def jpeg_size(value: int):
    def make(path, sources):
        data = bytearray(sources["photo.jpg"].path.read_bytes())
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = struct.pack(">HH", value, value)
        path.write_bytes(data)

    return make


add("jpg 65535 square", ".jpg", jpeg_size(65535), "bad", audio=False)
add("jpg 0 square", ".jpg", jpeg_size(0), "bad", audio=False)

# -------------------------------------------------------------------------------- containers


def atom(name: str, fourcc: bytes, offset: int, new: bytes):
    """Overwrite bytes behind (or, with a negative offset, before) the name of an MP4 box."""

    def make(path, sources):
        data = bytearray(sources[name].path.read_bytes())
        start = data.index(fourcc) + offset
        data[start : start + len(new)] = new
        path.write_bytes(data)

    return make


for box in (b"moov", b"mdat", b"trak", b"stbl", b"stsz"):
    for value in (0, 1, 2**31, 2**32 - 1):
        add(
            f"mp4 {box.decode()} size {value}",
            ".mp4",
            atom("both.mp4", box, -4, struct.pack(">I", value)),
            "either",
        )
for kind, box, offset in (
    ("movie timescale", b"mvhd", 16),
    ("track timescale", b"mdhd", 16),
    ("track duration", b"mdhd", 20),
    ("entries of stts", b"stts", 8),
    ("count in stts", b"stts", 12),
    ("step in stts", b"stts", 16),
    ("count in ctts", b"ctts", 12),
    ("samples of stsz", b"stsz", 12),
    ("size in stsz", b"stsz", 8),
    ("chunks of stco", b"stco", 8),
    ("first chunk of stsc", b"stsc", 12),
    ("entries of stsd", b"stsd", 8),
    ("width and height", b"avc1", 28),
    ("edit list", b"elst", 12),
):
    for value in (0, 2**31, 2**32 - 1):
        make = atom("both.mp4", box, offset, struct.pack(">I", value))
        add(f"mp4 {kind} {value}", ".mp4", make, "either")
for kind, offset in (("rate", 32), ("frames", 48), ("streams", 56), ("size", 64)):
    for value in (0, 2**32 - 1):
        make = patched("pcm.avi", offset, struct.pack("<I", value))
        add(f"avi {kind} {value}", ".avi", make, "either")


def endless_table(path, sources):
    """Say that a track has 2**31 - 1 samples of one byte, all in its one chunk."""
    data = bytearray(sources["both.mp4"].path.read_bytes())
    for box, offset, words in (
        (b"stsz", 8, (1, 2**31 - 1)),
        (b"stts", 12, (2**31 - 1, 1)),
        (b"stsc", 12, (1, 2**31 - 1)),
    ):
        start = data.index(box) + offset
        data[start : start + 8] = struct.pack(">II", *words)
    path.write_bytes(data)


add("mp4 2**31 samples", ".mp4", endless_table, "either")


def large_picture(path, sources):
    """One blank frame of 8192 x 8192, which H.264 stores in some kB."""
    write_video(path, [np.zeros((8192, 8192, 3), np.uint8)], "libx264", None)


add("mp4 8192 square", ".mp4", large_picture, "either", audio=False)

# ------------------------------------------------------------------------ not media files

LISTS = {
    "m3u of passwd": b"#EXTM3U\n#EXTINF:1,x\nfile:///etc/passwd\n",
    "m3u8 of net": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
    "ffconcat of passwd": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    "ffconcat of net": b"ffconcat version 1.0\nfile http://127.0.0.1:9/a.mp4\n",
    "text": b"this is no media file\n" * 20,
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    "sdp": b"v=0\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
}
for kind, data in LISTS.items():
    add(kind, ".wav" if "m3u" in kind else ".mp4", content(data), "bad")


def hidden_list(prefix: bytes, body: str):
    """Write a play list that looks like no text, and the good file beside it that it names."""

    def make(path, sources):
        part = path.with_name(f"part{path.stem}.mp4")
        part.write_bytes(sources["both.mp4"].path.read_bytes())
        path.write_bytes(prefix + body.format(part.name).encode())

    return make


CONCAT = "ffconcat version 1.0\n#\x01\nfile {}\n"
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#\x01\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
for kind, body in (("ffconcat", CONCAT), ("hls", HLS)):
    add(f"{kind} with odd bytes", ".mp4", hidden_list(b"", body), "bad")
    # FFmpeg looks for a format behind the tag.
    add(f"{kind} behind ID3", ".mp3", hidden_list(b"ID3\4\0\0\0\0\0\0", body), "bad")
    add(f"{kind}, .m3u8", ".m3u8", hidden_list(b"", body), "bad")


def zipped(path, sources):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.write(sources["pcm16.wav"].path, "a.wav")
    path.write_bytes(buffer.getvalue())


add("zip", ".wav", zipped, "bad")
add("0 bytes", ".wav", content(b""), "bad")
add("1 byte", ".mp4", content(b"\0"), "bad")
add("zeros", ".mp4", content(bytes(5000)), "bad")
add("magic only", ".mp4", content(b"\0\0\0\x20ftypisom"), "bad")
add("random", ".avi", content(np.random.default_rng(0).bytes(20000)), "either")
add("fifo", ".wav", lambda path, sources: os.mkfifo(path), "bad")
add("folder", ".wav", lambda path, sources: path.mkdir(), "bad")
add("dangling link", ".mp4", lambda path, sources: path.symlink_to("nowhere"), "bad")
add("link to itself", ".mp4", lambda path, sources: path.symlink_to(path.name), "bad")
for device in ("zero", "null", "urandom"):
    add(
        f"link to {device}",
        ".wav",
        lambda path, sources, device=device: path.symlink_to(f"/dev/{device}"),
        "bad",
    )
add("no such file", ".wav", lambda path, sources: None, "bad")


def unreadable(path, sources):
    path.write_bytes(sources["pcm16.wav"].path.read_bytes())
    path.chmod(0)


if getattr(os, "geteuid", lambda: 0)():  # nothing is unreadable to root
    add("unreadable", ".wav", unreadable, "bad")


def link(path, sources):
    path.symlink_to(sources["both.mp4"].path)


add("link to a good file", ".avi", link, "good")


def copied(path, sources):
    path.write_bytes(sources["both.mp4"].path.read_bytes())


# Names that FFmpeg reads more into.
add("name like a list of pictures", "-%03d.png", copied, "good")
add("name like a play list", ".m3u8", copied, "good")

# ---------------------------------------------------------------------------- frame folders


def folder_of(data: bytes | None, n_good: int = 0):
    """Fill a folder with n good pictures and one of the given content (None: a FIFO)."""

    def make(path, sources):
        write_folder(path, pictures(n_good))
        bad = path / "frame9.png"
        os.mkfifo(bad) if data is None else bad.write_bytes(data)

    return make


def sizes(path, sources):
    from PIL import Image

    path.mkdir()
    for i, side in enumerate((16, 64, 40)):
        Image.fromarray(pictures(1, side)[0]).save(path / f"{i}.png")


def only_folders(path, sources):
    (path / "a.png").mkdir(parents=True)


add("frames broken", "", folder_of(b"\x89PNG\r\n\x1a\n"), "bad", audio=False)
add("frames of text", "", folder_of(b"no picture"), "bad", audio=False)
add("frames fifo", "", folder_of(None), "bad", audio=False)
add("frames, last broken", "", folder_of(b"\x89PNG\r\n\x1a\n", 2), "bad", audio=False)
add("frames are folders", "", only_folders, "bad", audio=False)
add("frames of many sizes", "", sizes, "good", audio=False)
