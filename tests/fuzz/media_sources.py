"""Small good media files, from which the fuzzed ones are made."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np

RATE = 16000


@dataclasses.dataclass(frozen=True)
class Source:
    """A good file (or folder of pictures) and what it holds."""

    path: Path
    audio: bool
    visual: bool


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """Return a chirp with a little noise, float32 (n, channels)."""
    n = max(1, round(seconds * rate))
    t = np.arange(n) / rate
    noise = np.random.default_rng(n).standard_normal((n, channels))
    chirp = 0.5 * np.sin(2 * np.pi * (200 + 400 * t) * t)
    return (chirp[:, None] + 0.01 * noise).astype(np.float32)


def pictures(n: int, side: int = 64) -> list[np.ndarray]:
    """Return n frames of a round head with two eyes that moves, uint8 (side, side, 3)."""
    y, x = np.mgrid[:side, :side] / side
    frames = []
    for i in range(n):
        dx = 0.1 * np.sin(i)
        image = np.stack([x, y, (x + y + i / 7) % 1], axis=-1)
        image[(x - 0.5 - dx) ** 2 + (y - 0.5) ** 2 < 0.09] = (0.9, 0.7, 0.6)
        for eye in (0.4, 0.6):
            image[(x - eye - dx) ** 2 + (y - 0.45) ** 2 < 0.002] = 0.1
        frames.append((255 * image).astype(np.uint8))
    return frames


def write_video(
    path: Path,
    frames: list[np.ndarray],
    picture: str | None,
    sound: str | None,
    pixels: str = "yuv420p",
    seconds: float = 0.6,
) -> None:
    """Write frames and a tone with FFmpeg; None leaves one of them out."""
    import av

    # No random numbers, no times of writing: the same bytes again. (x264's macroblock tree
    # over B-frames gives others from call to call.)
    exact = {"fflags": "+bitexact"}
    with av.open(str(path), "w", options=exact) as container:
        if picture:
            single = {"threads": "1", "mbtree": "0"} if picture == "libx264" else {"threads": "1"}
            video = container.add_stream(picture, rate=10, options=single)
            video.height, video.width = frames[0].shape[:2]
            video.pix_fmt, video.gop_size = pixels, 4
        if sound:
            rate = 44100 if sound == "libmp3lame" else RATE
            audio = container.add_stream(sound, rate=rate, layout="mono")
        if picture:
            for image in frames:
                container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(video.encode())
        if sound:
            samples = np.round(32767 * tone(seconds, rate)[:, 0]).astype(np.int16)
            block = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = rate, 0, Fraction(1, rate)
            to_codec = av.AudioResampler(
                format=audio.format, layout="mono", rate=rate, frame_size=audio.frame_size or 1024
            )
            for part in [*to_codec.resample(block), *to_codec.resample(None)]:
                container.mux(audio.encode(part))
            container.mux(audio.encode())


def ogg_pages(data: bytes) -> list[bytes]:
    """Split an Ogg file into its pages."""
    return [b"OggS\0" + rest for rest in data.split(b"OggS\0")[1:]]


def ogg_page(page: bytes, position: int | None = None) -> bytes:
    """Return a page with the serial number 1, maybe another position, and the right checksum."""
    page = bytearray(page)
    if position is not None:
        page[6:14] = position.to_bytes(8, "little")
    page[14:18], page[22:26] = b"\1\0\0\0", bytes(4)
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 2**31 else crc << 1) & 0xFFFFFFFF
    page[22:26] = crc.to_bytes(4, "little")
    return bytes(page)


def write_folder(folder: Path, frames: list[np.ndarray]) -> None:
    """Write a folder of numbered PNG pictures."""
    from PIL import Image

    folder.mkdir()
    for i, image in enumerate(frames):
        Image.fromarray(image).save(folder / f"frame{i}.png")


def make_sources(folder: Path) -> dict[str, Source]:
    """Write one good file of every kind; the key is its name without the folder."""
    import soundfile
    from PIL import Image

    folder.mkdir(parents=True)
    sources: dict[str, Source] = {}

    def put(name: str, audio: bool, visual: bool) -> Path:
        sources[name] = Source(folder / name, audio, visual)
        return folder / name

    for name, rate, channels, subtype in (
        ("pcm16.wav", 16000, 1, "PCM_16"),
        ("float.wav", 22050, 2, "FLOAT"),
        ("pcm24.wav", 44100, 1, "PCM_24"),
        ("bytes.wav", 8000, 1, "PCM_U8"),
        ("adpcm.wav", 16000, 1, "IMA_ADPCM"),
        ("pcm16.flac", 16000, 1, "PCM_16"),
        ("pcm24.flac", 48000, 2, "PCM_24"),
        ("vorbis.ogg", 16000, 1, "VORBIS"),
        ("opus.ogg", 48000, 1, "OPUS"),
        ("sound.mp3", 16000, 1, "MPEG_LAYER_III"),
        ("sound.aiff", 16000, 1, "PCM_16"),
        ("sound.caf", 16000, 1, "PCM_16"),  # codespell:ignore caf
        ("sound.au", 16000, 1, "PCM_16"),
    ):
        soundfile.write(put(name, True, False), tone(0.4, rate, channels), rate, subtype=subtype)
    # The time and the random number that libsndfile writes.
    data = bytearray(sources["float.wav"].path.read_bytes())
    when = data.index(b"PEAK") + 12
    data[when : when + 4] = bytes(4)
    sources["float.wav"].path.write_bytes(data)
    for name in ("vorbis.ogg", "opus.ogg"):
        path = sources[name].path
        path.write_bytes(b"".join(map(ogg_page, ogg_pages(path.read_bytes()))))

    frames = pictures(6)
    for name, picture, sound, pixels in (
        ("both.mp4", "libx264", "aac", "yuv420p"),
        ("silent.mp4", "libx264", None, "yuv420p"),
        ("sound.m4a", None, "aac", ""),
        ("both.mkv", "libx264", "aac", "yuv420p"),
        ("both.avi", "mpeg4", "libmp3lame", "yuv420p"),
        ("pcm.avi", "mjpeg", "pcm_s16le", "yuvj420p"),
        ("both.mov", "libx264", "pcm_s16le", "yuv420p"),
        ("both.flv", "flv1", "libmp3lame", "yuv420p"),
    ):
        path = put(name, sound is not None, picture is not None)
        write_video(path, frames, picture, sound, pixels)

    images = [Image.fromarray(image) for image in frames]
    images[0].save(put("colour.png", False, True))
    deep = Image.fromarray(frames[1][..., 0].astype(np.uint16) * 257)
    deep.save(put("grey16.png", False, True))
    images[2].convert("P").save(put("palette.png", False, True))
    images[3].save(put("photo.jpg", False, True), quality=90)
    images[4].save(put("photo.webp", False, True))
    images[5].save(put("plain.bmp", False, True))
    images[0].save(put("packed.tiff", False, True), compression="tiff_lzw")
    images[0].save(put("moving.gif", False, True), save_all=True, append_images=images[1:])
    write_folder(put("frames", False, True), frames)
    return sources
