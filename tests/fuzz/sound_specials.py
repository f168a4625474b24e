"""Sound files that are broken, or odd, on purpose, and the list that all such files go to.

``SPECIALS`` maps a kind to (ending, make, audio, visual, expected): ``make(path, sources)``
writes the file, ``audio`` and ``visual`` say what a reader may hope to find in it, and
``expected`` is "good" (must be read, the same with and without care), "bad" (must be
reported) or "either" (must not do harm).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from media_sources import RATE, Source, ogg_page, ogg_pages, tone

Sources = dict[str, Source]


class Special(NamedTuple):
    ending: str
    make: Callable[[Path, Sources], object]
    audio: bool
    visual: bool
    expected: str


SPECIALS: dict[str, Special] = {}


def add(kind, ending, make, expected, *, audio=True, visual=True):
    SPECIALS[kind] = Special(ending, make, audio, visual, expected)


def content(data: bytes):
    return lambda path, sources: path.write_bytes(data)


# ------------------------------------------------------------------------------ sound headers


def wav(*, code=1, channels=1, rate=RATE, bits=16, align=None, size=None, data=None) -> bytes:
    """Return a WAV file whose header says whatever is wanted."""
    if data is None:
        data = np.round(32767 * tone(0.1, RATE)[:, 0]).astype("<i2").tobytes()
    align = channels * bits // 8 if align is None else align
    form = struct.pack(
        "<HHIIHH", code, channels, rate, min(rate * align, 2**32 - 1), align % 65536, bits
    )
    size = len(data) if size is None else size
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", min(len(body), 2**32 - 1)) + body


for value in (0, 1, 2**31, 2**32 - 1):
    add(
        f"wav rate {value}",
        ".wav",
        content(wav(rate=value)),
        "either" if value else "bad",
        visual=False,
    )
for value in (0, 255, 1025, 65535):
    add(
        f"wav {value} channels",
        ".wav",
        content(wav(channels=value)),
        "either" if value else "bad",
        visual=False,
    )
for value in (0, 1, 7, 255):
    add(f"wav {value} bits", ".wav", content(wav(bits=value)), "either", visual=False)
for value in (0, 1, 65535):
    add(f"wav align {value}", ".wav", content(wav(align=value)), "either", visual=False)
for value in (0x7777, 0xFFFE, 0xFFFF):
    add(f"wav code {value:x}", ".wav", content(wav(code=value)), "either", visual=False)
# What a program writes that does not know the length yet.
add("wav size unknown", ".wav", content(wav(size=2**32 - 1)), "good", visual=False)
add("wav days promised", ".wav", content(wav(rate=8000, size=2**32 - 2)), "either", visual=False)
add("wav no sample", ".wav", content(wav(data=b"")), "bad", visual=False)
add("wav one sample", ".wav", content(wav(data=b"\x00\x10")), "good", visual=False)
add("wav half sample", ".wav", content(wav(data=b"\x10")), "bad", visual=False)
add("wav header only", ".wav", content(wav()[:36]), "bad", visual=False)
# A short file that is days of sound when it is brought to 16 kHz.
add("wav 1 Hz, days", ".wav", content(wav(rate=1, data=bytes(600_000))), "either", visual=False)
add("wav 7 Hz, hour", ".wav", content(wav(rate=7, data=bytes(50_000))), "either", visual=False)
add(
    "rf64 endless",
    ".wav",
    content(
        b"RF64\xff\xff\xff\xffWAVEds64"
        + struct.pack("<IQQQI", 28, 2**62, 2**62, 2**61, 0)
        + wav(size=2**32 - 1)[12:]
    ),
    "either",
    visual=False,
)
for value in (11, 4000, 12345, 192000, 768000):
    expected = "good" if value > 1000 else "either"
    add(f"wav {value} Hz", ".wav", content(wav(rate=value)), expected, visual=False)


def float_wav(fill: float, part: slice):
    samples = tone(0.1, RATE)[:, 0]
    samples[part] = fill
    return content(wav(code=3, bits=32, data=samples.astype("<f4").tobytes()))


add("wav all nan", ".wav", float_wav(np.nan, slice(None)), "bad", visual=False)
add("wav one nan", ".wav", float_wav(np.nan, slice(7, 8)), "bad", visual=False)
add("wav inf", ".wav", float_wav(np.inf, slice(5, 9)), "bad", visual=False)
add("wav huge", ".wav", float_wav(3e38, slice(None)), "either", visual=False)
add("wav tiny", ".wav", float_wav(1e-42, slice(None)), "good", visual=False)


def many_channels(channels: int):
    def make(path, sources):
        import soundfile

        soundfile.write(path, tone(0.1, RATE, channels), RATE)

    return make


for value in (3, 6, 16):
    add(f"wav {value} good channels", ".wav", many_channels(value), "good", visual=False)


def silence(hours: float):
    """FLAC needs some 14 bytes for 4096 samples of silence."""

    def make(path, sources):
        import soundfile

        with soundfile.SoundFile(path, "w", RATE, 1) as file:
            block = np.zeros(600 * RATE, np.int16)
            for _ in range(round(6 * hours)):
                file.write(block)

    return make


add("flac 3 h of silence", ".flac", silence(3), "either", visual=False)


def empty_flac(path, sources):
    import soundfile

    soundfile.write(path, np.zeros(0), RATE)


add("flac no sample", ".flac", empty_flac, "bad", visual=False)


def patched(name: str, offset: int, new: bytes):
    """Overwrite bytes of a good file."""

    def make(path, sources):
        data = bytearray(sources[name].path.read_bytes())
        data[offset : offset + len(new)] = new
        path.write_bytes(data)

    return make


def streaminfo(rate: int, total: int) -> bytes:
    """Bytes 18 to 25 of a FLAC file: rate, one channel, 16 bits, samples in all."""
    return (rate << 44 | 0 << 41 | 15 << 36 | total).to_bytes(8, "big")


for kind, rate, total, expected in (
    ("days", RATE, 48 * 3600 * RATE, "either"),
    ("endless", RATE, 2**36 - 1, "either"),
    # As an encoder writes it that can't go back to the header.
    ("unknown", RATE, 0, "good"),
    ("rate 0", 0, 6400, "either"),
    ("rate 1", 1, 6400, "either"),
):
    make = patched("pcm16.flac", 18, streaminfo(rate, total))
    add(f"flac says {kind}", ".flac", make, expected, visual=False)
for kind, name, offset, new in (
    ("flac block 0", "pcm16.flac", 8, bytes(4)),
    ("flac metadata huge", "pcm16.flac", 5, b"\xff\xff\xff"),
    ("aiff endless", "sound.aiff", 22, b"\xff" * 4),
    ("aiff rate", "sound.aiff", 28, b"\x7f\xff" + b"\xff" * 8),
    ("au endless", "sound.au", 8, b"\xff" * 4),
    ("au rate 1", "sound.au", 16, b"\0\0\0\1"),
    ("au channels", "sound.au", 20, b"\xff" * 4),
    ("caf rate nan", "sound.caf", 20, b"\x7f\xf8" + bytes(6)),  # codespell:ignore caf
    ("caf rate inf", "sound.caf", 20, b"\x7f\xf0" + bytes(6)),  # codespell:ignore caf
    ("caf rate tiny", "sound.caf", 20, struct.pack(">d", 1e-3)),  # codespell:ignore caf
    ("ogg segments", "vorbis.ogg", 26, b"\xff"),
    ("ogg rate 1", "vorbis.ogg", 40, b"\1\0\0\0"),
):
    add(kind, name[-5:].lstrip("."), patched(name, offset, new), "either", visual=False)


def ogg_endless(path, sources):
    """Put the last page's position at the end of all time, with its checksum right."""
    *pages, last = ogg_pages(sources["vorbis.ogg"].path.read_bytes())
    path.write_bytes(b"".join(pages) + ogg_page(last, position=2**62))


add("ogg endless", ".ogg", ogg_endless, "either", visual=False)
