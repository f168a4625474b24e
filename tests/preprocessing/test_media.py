import errno
import pickle
import struct

import numpy as np
import pytest
import soundfile
from PIL import Image

from skfdan.preprocessing import DecodeLimits, FaceFrames, MediaError, MelSpectrogram
from skfdan.preprocessing._frames import _decode_all
from skfdan.preprocessing.media import (
    is_picture,
    read_audio,
    read_frames,
    read_image,
    sample_indices,
)


def every_frame(path):
    frames, count = _decode_all(path, set(range(10_000)), DecodeLimits())
    return [frames[i] for i in range(count)]


VIDEOS = {
    "gop 12": ("a.mp4", "libx264", 12, {}),
    "one key frame": ("a.mp4", "libx264", 250, {}),
    "key frames only": ("a.mp4", "libx264", 1, {"bf": "0"}),
    "open groups": (
        "a.mkv",
        "libx264",
        12,
        {"x264-params": "bframes=5:b-pyramid=normal:open-gop=1:min-keyint=12:scenecut=0"},
    ),
    "no key frames after the first": (
        "a.mp4",
        "libx264",
        12,
        {"x264-params": "intra-refresh=1:scenecut=0"},
    ),
    "transport stream": ("a.ts", "libx264", 12, {}),
    "mpeg4": ("a.mp4", "mpeg4", 12, {}),
    "avi with frames out of order": ("a.avi", "libx264", 12, {}),
    "avi": ("a.avi", "mpeg4", 12, {}),
    "flv": ("a.flv", "flv", 12, {}),
    "vp9": ("a.webm", "libvpx-vp9", 12, {"deadline": "realtime"}),
}


@pytest.mark.parametrize("kind", VIDEOS)
def test_sought_frames_are_the_frames_of_decoding_all(kind, write_video, moving_frames):
    name, codec, gop, options = VIDEOS[kind]
    path = write_video(name, moving_frames(50), gop=gop, codec=codec, options=options)
    reference = every_frame(path)
    assert len(reference) == 50
    assert len({frame.tobytes() for frame in reference}) == 50
    wanted = [[i] for i in range(50)] + [sample_indices(50, n) for n in (1, 2, 3, 7, 50)]
    for indices in wanted:
        frames = read_frames(path, indices=indices)
        for i, frame in zip(indices, frames, strict=True):
            np.testing.assert_array_equal(frame, reference[i])


def test_few_frames_are_decoded(write_video, moving_frames, monkeypatch):
    """With key frames ahead, decoding restarts there; with none, it never starts again."""
    import skfdan.preprocessing._frames as media

    seeks = []
    forward = media._decode_forward

    class Spy:
        def __init__(self, container):
            self.container = container

        def seek(self, time, **kwargs):
            seeks.append(time)
            return self.container.seek(time, **kwargs)

        def demux(self, stream):
            return self.container.demux(stream)

    monkeypatch.setattr(
        media, "_decode_forward", lambda container, *rest: forward(Spy(container), *rest)
    )
    monkeypatch.setattr(media, "_decode_all", None)  # and the slow way is not taken
    for gop, expected in ((12, 3), (250, 1)):
        seeks.clear()
        read_frames(write_video(f"{gop}.mp4", moving_frames(60), gop=gop), 3)
        assert len(seeks) == expected


def test_seek_that_misses_the_key_frame_is_not_trusted(write_video, moving_frames, monkeypatch):
    """Decoding from the middle of a group would give frames, but wrong ones."""
    import skfdan.preprocessing._frames as media

    path = write_video("a.mp4", moving_frames(40), codec="mpeg4")
    reference = every_frame(path)
    forward, refused = media._decode_forward, []

    class Inaccurate:
        def __init__(self, container):
            self.container = container
            self.seek = container.seek

        def demux(self, stream):
            packets = self.container.demux(stream)
            next(packets)  # the key frame
            return packets

    def spy(container, *rest):
        frames = forward(Inaccurate(container), *rest)
        refused.append(frames is None)
        return frames

    monkeypatch.setattr(media, "_decode_forward", spy)
    np.testing.assert_array_equal(read_frames(path, indices=[30])[0], reference[30])
    assert refused == [True]


def test_frames_of_short_videos_repeat(write_video, moving_frames):
    path = write_video("a.mp4", moving_frames(1))
    frames = read_frames(path, 3)
    assert len(frames) == 3
    np.testing.assert_array_equal(frames[0], frames[2])
    assert sample_indices(2, 3) == [0, 1, 1]
    assert sample_indices(118, 3) == [19, 59, 98]


def test_frame_numbers_out_of_range(write_video, moving_frames):
    path = write_video("a.mp4", moving_frames(5))
    with pytest.raises(IndexError, match=r"a\.mp4: frame 5 asked for, but it has 5 frames"):
        read_frames(path, indices=[0, 5])
    with pytest.raises(ValueError, match="n_frames or indices"):
        read_frames(path)


@pytest.mark.parametrize(("degrees", "turns"), [(90, 3), (180, 2), (270, 1)])
def test_video_is_turned_as_shown(degrees, turns, write_video, moving_frames):
    """The matrix of a phone's MP4 says how far to turn clockwise for display."""
    path = write_video("a.mp4", moving_frames(4))
    upright = read_frames(path, 1)[0]
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of fields
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    numbers = (cos, sin, 0, -sin, cos, 0, 0, 0)
    content[at : at + 32] = b"".join((n * 65536).to_bytes(4, "big", signed=True) for n in numbers)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_frames(path, 1)[0], np.rot90(upright, turns))


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((-1, 0, 0, 1), lambda x: x[:, ::-1]),  # the mirror of a front camera
        ((1, 0, 0, -1), lambda x: x[::-1]),
        ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda x: np.rot90(x.swapaxes(0, 1), 2)),
    ],
    ids=["left and right", "top and bottom", "transposed", "about the other diagonal"],
)
def test_mirrored_video_is_shown_so(matrix, shown, write_video, moving_frames):
    path = write_video("a.mp4", moving_frames(4))
    upright = read_frames(path, 1)[0]
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    a, b, c, d = matrix
    numbers = (a, b, 0, c, d, 0, 0, 0)
    content[at : at + 32] = b"".join((n * 65536).to_bytes(4, "big", signed=True) for n in numbers)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_frames(path, 1)[0], shown(upright))


@pytest.mark.parametrize(
    "names",
    [
        ["aa2.png", "b1.png"],
        ["angry.png", "joy.png", "sad.png"],
        ["f001.png", "f01.png", "f1.png"],
        ["1.png", "a.png"],
    ],
)
def test_folder_order_is_that_of_names_and_numbers(names, tmp_path):
    for i in np.random.default_rng(0).permutation(len(names)):
        Image.new("L", (6, 4), 10 * int(i)).save(tmp_path / names[i])
    frames = read_frames(tmp_path, indices=range(len(names)))
    assert [int(f[0, 0, 0]) for f in frames] == [10 * i for i in range(len(names))]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pictures_of_numbers_without_a_white_are_refused(dtype, tmp_path):
    Image.fromarray(np.arange(24).reshape(4, 6).astype(dtype)).save(tmp_path / "a.tif")
    with pytest.raises(MediaError, match=rf"a\.tif.*{np.dtype(dtype)} numbers.*8 or 16 bits"):
        read_image(tmp_path / "a.tif")
    Image.fromarray(np.full((4, 6), 513, np.uint16)).save(tmp_path / "b.tif")
    assert (read_image(tmp_path / "b.tif") == 2).all()


def test_16_bit_pictures_whose_zero_is_white(tmp_path):
    grey = np.arange(24).reshape(4, 6) * 2500
    Image.fromarray(grey.astype(np.uint16)).save(tmp_path / "a.tif")
    expected = 255 - read_image(tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    at = content.index(struct.pack("<HHI", 262, 3, 1)) + 8
    assert content[at] == 1  # 0 is black
    content[at] = 0
    (tmp_path / "a.tif").write_bytes(content)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), expected)


def test_folder_order_is_by_number(tmp_path):
    for i in (1, 2, 10, 11, 100):
        Image.new("RGB", (6, 4), (i, 0, 0)).save(tmp_path / f"frame{i}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_bytes(b"")
    values = [int(f[0, 0, 0]) for f in read_frames(tmp_path, indices=range(5))]
    assert values == [1, 2, 10, 11, 100]
    assert [int(f[0, 0, 0]) for f in read_frames(tmp_path, 1)] == [10]


def test_pictures_of_all_kinds(tmp_path):
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 256).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([grey] * 4)).save(tmp_path / "alpha.png")
    for name in ("grey", "deep", "alpha"):
        picture = read_image(tmp_path / f"{name}.png")
        assert picture.dtype == np.uint8
        np.testing.assert_array_equal(picture, np.dstack([grey] * 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(grey).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png")[..., 0], np.rot90(grey, 3))
    assert is_picture(tmp_path / "grey.png")


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_sound_files(extension, tmp_path, sweep):
    stereo = np.stack([sweep(0.5)] * 2, axis=1)
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, stereo, 16000)
    samples, rate = read_audio(path)
    assert (samples.dtype, samples.ndim, rate) == (np.float32, 1, 16000)
    assert len(samples) == pytest.approx(8000, abs=2500 if extension == "mp3" else 0)
    assert read_audio(path, mono=False)[0].shape == (len(samples), 2)
    # The name does not matter, the content does.
    misnamed = tmp_path / "b.mp4"
    misnamed.write_bytes(path.read_bytes())
    np.testing.assert_array_equal(read_audio(misnamed)[0], samples)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.m4a"])
def test_sound_of_videos(name, write_video, moving_frames):
    frames = [] if name.endswith("m4a") else moving_frames(25)
    path = write_video(name, frames, seconds=1.0)
    samples, rate = read_audio(path, 16000)
    assert rate == 16000
    assert len(samples) == pytest.approx(16000, abs=700)  # AAC works in blocks of 1,024
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) * 16000 / len(samples) == pytest.approx(440, abs=2)


def test_titles_in_any_encoding(write_video, moving_frames):
    path = write_video("a.mp4", moving_frames(3), seconds=0.2, title="TITLE")
    content = path.read_bytes()
    assert b"TITLE" in content
    path.write_bytes(content.replace(b"TITLE", b"\xe9t\xe9\xff\xfe"))
    assert len(read_frames(path, 1)) == 1
    assert len(read_audio(path)[0])


def test_codec_that_libsndfile_does_not_know(tmp_path):
    """A WAV file may hold MP3 or AC-3; FFmpeg has its turn then."""
    import av

    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ac3", rate=48000, layout="mono")
        block = np.zeros((1, 1536), np.float32)
        for i in range(8):
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, 1536 * i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert len(read_audio(path)[0]) >= 1536 * 8


def test_wav_shorter_than_its_header_says_gives_what_is_there(write_wav, sweep):
    path = write_wav("a.wav", sweep(1.0))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    samples, _ = read_audio(path)
    assert 7900 < len(samples) < 8000


def bad_files(tmp_path, write_video, write_wav, moving_frames):
    """Return {name: (path, words for sound, words for picture)}."""

    def write(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    video = write_video("whole.mp4", moving_frames(40), seconds=1.6)
    content = bytearray(video.read_bytes())
    half = bytes(content[: len(content) // 2])
    start = content.index(b"mdat") + 200
    end = len(content) * 3 // 4  # so that the frames' own length fields are hit
    content[start:end] = np.random.default_rng(0).bytes(end - start)
    (tmp_path / "empty folder").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    jpeg = tmp_path / "whole.jpg"
    Image.fromarray(moving_frames(1)[0]).save(jpeg)
    flac = tmp_path / "whole.flac"
    soundfile.write(flac, np.random.default_rng(0).standard_normal(16000) * 0.1, 16000)
    return {
        "empty": (write("a.mp4", b""), "is empty", "is empty"),
        "text": (
            write("b.wav", b"not a sound"),
            "is not a media file.*header says text",
            "is not a media file.*header says text",
        ),
        "play list": (
            write("b.mp4", b"#EXTM3U\nhttp://localhost/a.ts\n"),
            "is not a media file.*header says text",
            "is not a media file.*header says text",
        ),
        "git lfs": (
            write("c.mp4", b"version https://git-lfs.github.com/spec/v1\n"),
            "is not a media file.*git lfs pull",
            "is not a media file.*git lfs pull",
        ),
        "git annex": (
            write("annex.wav", b"/annex/objects/SHA256E-s9--0.wav\n"),
            "is not a media file.*git annex get",
            "is not a media file.*git annex get",
        ),
        "zip": (
            write("d.mp4", b"PK\x03\x04" + bytes(50)),
            "is not a media file.*zip archive",
            "is not a media file.*zip archive",
        ),
        "noise": (write("e.mp4", b"\0\1\2\3" * 99), "cannot be decoded", "cannot be decoded"),
        "truncated mp4": (
            write("f.mp4", half),
            "cannot be decoded.*MP4 or QuickTime.*cut short",
            "cannot be decoded.*MP4 or QuickTime.*cut short",
        ),
        "damaged mp4": (write("g.mp4", bytes(content)), "cannot be decoded", "cannot be decoded"),
        "truncated flac": (
            write("h.flac", flac.read_bytes()[:9000]),
            "cannot be decoded",
            "no picture stream.*audio only",
        ),
        "truncated jpeg": (
            write("h.jpg", jpeg.read_bytes()[:900]),
            "has no sound: it is a JPEG picture",
            "cannot be read as a picture.*JPEG",
        ),
        "no samples": (write_wav("i.wav", np.zeros(0)), "holds no samples", "no picture stream"),
        "nan": (
            write_wav("j.wav", np.array([0, np.nan, 1])),
            "1 of 3 samples that are NaN or infinite, the first at 1",
            "no picture stream",
        ),
        "no sound": (
            write_video("k.mp4", moving_frames(5)),
            r"has no sound stream \(MP4 or QuickTime file with video only\)",
            None,
        ),
        "no picture": (
            write_video("l.m4a", [], seconds=0.5),
            None,
            r"has no picture stream \(MP4 or QuickTime file with audio only\)",
        ),
        "folder": (tmp_path / "empty folder", "is a folder", "is a folder without pictures"),
        "picture": (tmp_path / "picture.png", "no sound: it is a PNG picture", None),
    }


KINDS = [
    "empty",
    "text",
    "play list",
    "git lfs",
    "git annex",
    "zip",
    "noise",
    "truncated mp4",
    "damaged mp4",
    "truncated flac",
    "truncated jpeg",
    "no samples",
    "nan",
    "no sound",
    "no picture",
    "folder",
    "picture",
]


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_bad_media_are_named_with_their_row(
    kind, n_jobs, tmp_path, write_video, write_wav, moving_frames
):
    files = bad_files(tmp_path, write_video, write_wav, moving_frames)
    assert sorted(files) == sorted(KINDS)
    path, sound, picture = files[kind]
    faces = FaceFrames(detector=None, size=8, n_jobs=n_jobs)
    for transformer, words in ((MelSpectrogram(n_jobs=n_jobs), sound), (faces, picture)):
        if words is None:
            assert transformer.transform([path])[0, 0] is not None
            continue
        with pytest.raises(MediaError) as caught:
            transformer.transform([None, None, path])
        caught.match(words)
        assert str(caught.value).startswith(f"row 2 ({path}): ")


def test_picture_of_a_cover_is_no_video(tmp_path, write_video):
    import av

    sound, covered = write_video("a.m4a", [], seconds=0.3), tmp_path / "b.m4a"
    picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
    with av.open(sound) as source, av.open(str(covered), "w", format="mp4") as container:
        stream = container.add_stream_from_template(source.streams.audio[0])
        cover = container.add_stream("png", rate=1)
        cover.width = cover.height = 16
        cover.pix_fmt = "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic.value
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
        container.mux(cover.encode(picture))
        container.mux(cover.encode(None))
    with av.open(str(covered)) as container:
        assert container.streams.video, "the test has to have a cover"
    with pytest.raises(MediaError, match="has no picture stream"):
        read_frames(covered, 1)


def test_missing_files_are_named(tmp_path):
    path = str(tmp_path / "gone.wav")
    for transformer in (
        MelSpectrogram(),
        FaceFrames(),
        MelSpectrogram(cache_dir=tmp_path / "cache"),
        FaceFrames(cache_dir=tmp_path / "cache"),
    ):
        with pytest.raises(FileNotFoundError, match=r"row 1: no such file.*gone\.wav") as caught:
            transformer.transform([None, path])
        assert caught.value.errno == errno.ENOENT
        assert caught.value.filename == path
    with pytest.raises(FileNotFoundError, match=r"gone\.wav"):
        read_audio(path)


def test_errors_can_be_pickled():
    error = pickle.loads(pickle.dumps(MediaError("a.wav", "is empty", 3)))
    assert str(error) == "row 3 (a.wav): is empty"
    assert (error.source, error.problem, error.row) == ("a.wav", "is empty", 3)


def test_whole_numbers_of_64_bits_have_no_full_scale():
    samples = (1000 * np.sin(np.arange(4000))).astype(np.int64)
    with pytest.raises(MediaError, match="int64 samples, and no sound has that full scale"):
        MelSpectrogram(verbose=0).transform([(samples, 16000)])
    MelSpectrogram(verbose=0).transform([(samples.astype(np.int16), 16000)])


def test_nist_sphere(tmp_path):
    sound = np.random.default_rng(0).integers(-9999, 9999, 4000).astype(np.int16)
    # As NIST's own programs write it: a header of text, filled up with spaces.
    head = b"NIST_1A\n   1024\nsample_rate -i 8000\nchannel_count -i 1\nsample_n_bytes -i 2\n"
    head += b"sample_count -i 4000\nsample_byte_format -s2 01\nsample_coding -s3 pcm\n"
    head += b"sample_sig_bits -i 16\nend_head\n"
    (tmp_path / "a.sph").write_bytes(head.ljust(1024) + sound.tobytes())
    samples, rate = read_audio(tmp_path / "a.sph")
    assert rate == 8000
    np.testing.assert_array_equal(samples, sound / np.float32(2**15))


# What libsndfile says it writes, and doesn't.
BROKEN_CODECS = {"MPEG_LAYER_III", "DWVW_12", "DWVW_16", "DWVW_24"}


@pytest.mark.parametrize("container", ["WAV", "AIFF", "AU"])
def test_every_codec_that_libsndfile_writes(container, tmp_path):
    """Those of telephones, such as GSM, are ones that it cannot seek in."""
    wave = (0.5 * np.sin(np.arange(8000) * 0.3)).astype(np.float32)
    for codec in soundfile.available_subtypes(container).keys() - BROKEN_CODECS:
        soundfile.write(tmp_path / "a", wave, 8000, subtype=codec, format=container)
        samples, _ = read_audio(tmp_path / "a")
        assert 0 <= len(samples) - len(wave) < 400, codec  # whole blocks
        assert np.corrcoef(samples[: len(wave)], wave)[0, 1] > 0.99, codec
