"""Files that would take up all memory or wait for ever are refused, and say which limit did it."""

import contextlib
import os
import struct
import subprocess
import sys
import warnings

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from skfdan.preprocessing import DecodeLimits, FaceFrames, MediaError, MelSpectrogram
from skfdan.preprocessing._frames import _decode_all, _upright
from skfdan.preprocessing.media import is_picture, read_audio, read_frames, read_image


def refused(function, path, words, stage="limits", **limits):
    """Check the error of one file with limits, and that it reads without them."""
    with pytest.raises(MediaError, match=words) as caught:
        function(path, limits=DecodeLimits(**limits))
    assert (caught.value.source, caught.value.stage) == (os.fspath(path), stage)
    return function(path)


def silent_flac(path, seconds, rate=16000):
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16", format="FLAC") as file:
        block = np.zeros(60 * rate, np.int16)
        for _ in range(seconds // 60):
            file.write(block)
    return path


def with_total_samples(path, total):
    """Write into a FLAC header how many samples it is to claim: 36 bits, 21 bytes into the file."""
    content = bytearray(path.read_bytes())
    content[21] = (content[21] & 0xF0) | (total >> 32)
    content[22:26] = struct.pack(">I", total & 0xFFFFFFFF)
    changed = path.with_name(f"{total}.flac")
    changed.write_bytes(content)
    return changed


@pytest.mark.parametrize("value", [0, -1, float("nan"), None, "much", True])
def test_a_limit_is_a_number_above_zero(value):
    with pytest.raises(ValueError, match=r"DecodeLimits: max_frames=.*must be a number above 0"):
        DecodeLimits(max_frames=value)


def test_limits_are_plain_values():
    assert DecodeLimits(max_seconds=np.float64(3)) == DecodeLimits(max_seconds=3)
    assert DecodeLimits(max_seconds=float("inf")).max_seconds > 1e300
    with pytest.raises(AttributeError):
        DecodeLimits().max_seconds = 3
    for wrong in (600, {"max_seconds": 3}):
        with pytest.raises(ValueError, match="limits must be a DecodeLimits or None; got"):
            MelSpectrogram(limits=wrong).fit([None])


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_sound_files_beyond_a_limit(name, tmp_path, sweep):
    path = tmp_path / name
    soundfile.write(path, np.stack([sweep(2.0)] * 3, axis=1)[:, : 2 if "mp3" in name else 3], 16000)
    channels = 2 if "mp3" in name else 3
    words = (
        r"[23] s of sound or more, beyond the limit max_seconds=1\.9; if this is meant, set "
        r"limits=DecodeLimits\(max_seconds=\.\.\.\) to more"
    )
    samples, _ = refused(read_audio, path, words, max_seconds=1.9)
    refused(read_audio, path, "bytes, beyond the limit max_bytes=999", max_bytes=999)
    refused(read_audio, path, f"has {channels} channels, beyond", max_channels=channels - 1)
    refused(read_audio, path, "samples or more, beyond", max_samples=len(samples) * channels - 1)
    refused(read_audio, path, r"16,000 Hz, outside of min_rate=100 to max_rate=8,000", max_rate=8e3)
    exact = DecodeLimits(max_samples=len(samples) * channels, max_channels=channels)
    np.testing.assert_array_equal(read_audio(path, limits=exact)[0], samples)


def test_sound_of_videos_beyond_a_limit(write_video, moving_frames):
    path = write_video("a.mp4", moving_frames(3), seconds=1.0)
    refused(read_audio, path, "1 s of sound by its header, beyond", max_seconds=0.5)
    refused(read_audio, path, "48,000 Hz, outside", max_rate=44_100)
    # Matroska's streams give no length: it shows while decoding.
    path = write_video("a.mkv", moving_frames(3), seconds=1.0)
    refused(read_audio, path, "1 s of sound or more, beyond", max_seconds=0.5)


def test_header_that_claims_another_length(tmp_path, sweep):
    path = tmp_path / "a.flac"
    soundfile.write(path, sweep(2.0), 16000)
    whole, _ = read_audio(path)
    # No length, as in a stream: all of it is read, and counted.
    stream = with_total_samples(path, 0)
    samples, _ = refused(read_audio, stream, "1 s of sound or more", max_seconds=0.5)
    np.testing.assert_array_equal(samples, whole)
    np.testing.assert_array_equal(read_audio(with_total_samples(path, 8000))[0], whole[:8000])
    with pytest.raises(MediaError, match="cannot be decoded"):
        read_audio(with_total_samples(path, 64_000))
    with pytest.raises(MediaError, match=r"4,294,967 s of sound or more.*max_seconds=600"):
        read_audio(with_total_samples(path, 16_000 * 4_294_967))


@pytest.mark.parametrize("rate", [1, 99, 4_000_000_000])
def test_sampling_rate_that_cannot_be_meant(rate, write_wav, sweep):
    path = write_wav("a.wav", sweep(0.1))
    content = bytearray(path.read_bytes())
    at = content.index(b"fmt ") + 12
    content[at : at + 4] = struct.pack("<I", rate)
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"row 0.*sampling rate of .* Hz, outside|cannot be deco"):
        MelSpectrogram().transform([path])


@pytest.mark.parametrize("rate", [0, -16000, 1e-3, float("nan"), float("inf"), 1e9, True])
def test_rate_of_an_array_that_cannot_be_meant(rate):
    with pytest.raises(MediaError, match=r"row 0 \(tuple.*sampling rate of .* Hz, outside"):
        MelSpectrogram().transform([(np.zeros(1000, np.float32), rate)])


def test_sound_of_one_sample(write_wav):
    one = np.array([0.5], np.float32)
    path = write_wav("a.wav", one, 48000)
    for cell in (path, (one, 48000)):
        with pytest.raises(MediaError, match="is too short: 1 samples at 48,000 Hz are none"):
            MelSpectrogram(sample_rate=16000).transform([cell])
        for duration in (None, 1.0):
            mel = MelSpectrogram(sample_rate=48000, duration=duration, n_fft=2048)
            assert np.isfinite(mel.transform([cell])[0, 0]).all()


def test_samples_that_are_no_sound(write_wav):
    path = write_wav("a.wav", np.array([0.0, -3e30, 1.0]))
    with pytest.raises(MediaError, match=r"samples from -3e\+30 to 1, where full scale is 1"):
        MelSpectrogram().transform([path])
    for bad, place in ((np.nan, 2), (-np.inf, 2)):
        samples = np.array([0.0, 1.0, bad], np.float32)
        with pytest.raises(MediaError, match=f"1 of 3 samples that are NaN.*first at {place}"):
            MelSpectrogram().transform([samples])


def test_pictures_beyond_a_limit(tmp_path, monkeypatch):
    for name in ("a.png", "a.jpg", "a.bmp", "a.webp", "a.gif", "a.tiff", "a.ppm", "a.pgm"):
        path = tmp_path / name
        Image.new("L" if "pgm" in name else "RGB", (30, 20)).save(path)
        words = "picture of 30 x 20 pixels, beyond the limit max_pixels=599"
        assert refused(read_image, path, words, max_pixels=599).shape == (20, 30, 3)
        refused(is_picture, path, "beyond the limit max_bytes=9", max_bytes=9)
        refused(
            lambda p, limits=None: FaceFrames(detector=None, limits=limits)._crops(p),
            path,
            words,
            max_pixels=599,
        )
    # Pillow's own idea of too large neither warns nor raises where the limits allow it.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (20, 30, 3)


def test_pictures_of_several_frames_give_the_first(tmp_path):
    frames = [Image.new("RGB", (8, 6), (i, 0, 0)) for i in (200, 20, 30)]
    for name in ("a.gif", "a.tiff", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert read_image(tmp_path / name)[0, 0, 0] == 200


def test_pictures_that_need_a_program_are_refused(tmp_path):
    """Pillow hands PostScript to Ghostscript, which runs it."""
    path = tmp_path / "a.png"
    path.write_bytes(b"\xc5\xd0\xd3\xc6\x1e\0\0\0" + bytes(22) + b"%!PS-Adobe-3.0 EPSF-3.0\n")
    with pytest.raises(MediaError, match="cannot be read as a picture"):
        read_image(path)


def test_videos_beyond_a_limit(write_video, moving_frames):
    path = write_video("a.mp4", moving_frames(20))

    def read(path, limits=None):
        return read_frames(path, 2, limits=limits)

    assert (
        len(refused(read, path, "11 frames or more, beyond the limit max_frames=10", max_frames=10))
        == 2
    )
    refused(read, path, "picture of 96 x 64 pixels, beyond", max_pixels=96 * 64 - 1)
    refused(read, path, "bytes, beyond", max_bytes=100)
    with pytest.raises(MediaError, match="11 frames or more"):  # of packets that hold several
        _decode_all(os.fspath(path), {0}, DecodeLimits(max_frames=10))
    large = av.VideoFrame(96, 64, "rgb24")  # whatever the header says
    with pytest.raises(MediaError, match="picture of 96 x 64 pixels"):
        _upright(large, "a.mp4", DecodeLimits(max_pixels=1000))


def test_folder_of_too_many_files(tmp_path):
    for i in range(6):
        Image.new("L", (4, 4), i).save(tmp_path / f"{i}.png")

    def read(path, limits=None):
        return FaceFrames(detector=None, n_frames=2, size=4, limits=limits)._crops(path)

    refused(read, tmp_path, "is a folder of 6 or more files, beyond", max_frames=5)
    limits = DecodeLimits(max_frames=5)
    faces = FaceFrames(detector=None, limits=limits, cache_dir=tmp_path / "cache")
    with pytest.raises(MediaError, match=r"row 0 .*6 or more"):
        faces.transform([tmp_path])


MEMORY = """
import resource, sys
from skfdan.preprocessing import FaceFrames, MediaError, MelSpectrogram
mel, faces = MelSpectrogram(verbose=0), FaceFrames(detector=None, verbose=0)
mel._warm_up(), faces._warm_up()
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
for path in sys.argv[1:]:
    try:
        (faces if path.endswith("g") else mel).transform([path])
    except MediaError as error:
        assert error.stage == "limits", error
    else:
        raise AssertionError(f"{path} was read")
    print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_bombs_are_refused_before_they_go_off(tmp_path):
    """Two hours of silence (460 MB), a picture of 1.2 GB, and one that claims 10 GB."""
    silence = silent_flac(tmp_path / "silence.flac", 7200)
    Image.new("1", (20_000, 20_000)).save(tmp_path / "black.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "16.jpg")
    content = bytearray((tmp_path / "16.jpg").read_bytes())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    (tmp_path / "claims.jpg").write_bytes(content)
    stream = with_total_samples(silence, 0)
    assert max(os.path.getsize(p) for p in (silence, tmp_path / "black.png")) < 500_000
    paths = [silence, tmp_path / "black.png", tmp_path / "claims.jpg", stream]
    command = [sys.executable, "-c", MEMORY, *map(str, paths)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    growth = [int(line) for line in out.split()]
    # Nothing at all where the header is honest; no more than the limit where it is silent.
    assert growth[2] < 20, growth
    assert growth[3] < 100, growth


def test_what_is_no_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    cells = {
        str(tmp_path / "pipe.wav"): (MediaError, "row 0.*neither a file nor a folder"),
        "/dev/zero": (MediaError, "row 0.*neither a file nor a folder"),
        str(tmp_path / "loop.wav"): (OSError, "row 0: .*loop.wav"),
        "a\0b.wav": (MediaError, "row 0.*is no path"),
        str(tmp_path / ("x" * 300)): (OSError, "row 0: File name too long"),
        "/dev/null/a.wav": (FileNotFoundError, "row 0: no such file"),
    }
    for cell, (kind, words) in cells.items():
        for transformer in (
            MelSpectrogram(),
            FaceFrames(detector=None),
            MelSpectrogram(cache_dir=tmp_path / "cache"),
        ):
            with pytest.raises(kind, match=words):
                transformer.transform([cell])
    (tmp_path / "frames").mkdir()
    os.mkfifo(tmp_path / "frames" / "0.png")
    with pytest.raises(MediaError, match="neither a file nor a folder"):
        read_frames(tmp_path / "frames", 1)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_files_that_may_not_be_read(write_wav, sweep):
    path = write_wav("a.wav", sweep(0.1))
    path.chmod(0)
    with pytest.raises(PermissionError, match="row 0: Permission denied"):
        MelSpectrogram().transform([path])


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there")
def test_names_that_are_no_text(tmp_path, write_wav, write_video, moving_frames, sweep):
    sources = [
        write_wav("a.wav", sweep(0.1)),
        write_video("a.m4a", [], seconds=0.2),
        write_video("a.mp4", moving_frames(3)),
    ]
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    for path in [*sources, tmp_path / "a.png"]:
        name = os.fsdecode(os.fsencode(path.parent) + b"/\xff\xe9" + os.fsencode(path.name))
        os.rename(path, name)
        for cache in (None, tmp_path / "cache"):
            if path.suffix in (".wav", ".m4a"):
                cell = MelSpectrogram(cache_dir=cache).transform([name])[0, 0]
            else:
                cell = FaceFrames(detector=None, cache_dir=cache).transform([name])[0, 0]
            assert cell is not None


def test_names_that_mean_something_else_to_ffmpeg(
    tmp_path, write_video, moving_frames, monkeypatch
):
    path = write_video("a.mp4", moving_frames(3))
    monkeypatch.chdir(tmp_path)
    for name in ("http:a.mp4", "concat:a.mp4|b.mp4", "subfile,,start,0:a.mp4", "-", "%d.mp4"):
        path = path.rename(tmp_path / name)
        assert len(read_frames(name, 1)) == 1


def test_lists_of_other_files_are_refused(tmp_path, write_video, moving_frames):
    """A zero byte makes no media file of a play list."""
    video = write_video("a.mp4", moving_frames(3))
    for start in (b"#EXTM3U\n#EXTINF:1,\n", b"ffconcat version 1.0\nfile "):
        path = tmp_path / "list.mp4"
        path.write_bytes(start + os.fsencode(video) + b"\n\0")
        with pytest.raises(MediaError, match=r"is not a media file.*play list"):
            read_frames(path, 1)
    # One that begins like nothing known is FFmpeg's, which is told to know no lists.
    path.write_bytes(b"v=0\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n\0")
    with pytest.raises(MediaError, match="cannot be decoded"):
        read_audio(path)


@pytest.mark.parametrize("seed", range(24))
def test_damage_anywhere_is_a_media_error_or_none(seed, tmp_path, write_video, moving_frames):
    """Random bytes over the header, where sizes, counts and times are kept."""
    rng = np.random.default_rng(seed)
    name = ["a.mp4", "a.mkv", "a.avi", "a.flv"][seed % 4]
    codec = {"a.flv": "flv", "a.avi": "mpeg4"}.get(name, "libx264")
    path = write_video(name, moving_frames(8), codec=codec, seconds=0 if "flv" in name else 0.3)
    content = bytearray(path.read_bytes())
    header = content.index(b"moov") if name == "a.mp4" else 0
    for _ in range(6):
        damaged = bytearray(content)
        for at in rng.integers(header, min(header + 2000, len(content)), 5):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        for read in (read_audio, lambda p: read_frames(p, 2)):
            with contextlib.suppress(MediaError):
                read(path)
