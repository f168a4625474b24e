import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fuzz.media_sources import write_video
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.svm import LinearSVC

from skfdan import FDANClassifier
from skfdan.inspection import ClipDisplay
from skfdan.inspection._clip_axes import hertz_to_mel, outline
from skfdan.preprocessing import FaceFrames, MediaError, MelSpectrogram
from skfdan.preprocessing.mel import mel_filterbank
from skfdan.table import make_table

FACES = FaceFrames(detector=None, size=48)


def widths(display):
    return [bar.get_width() for bar in display.axes_["probabilities"].patches]


def test_video(files, model):
    path = files.table["visual"][0]
    display = ClipDisplay.from_file(path, model, faces=FACES)
    assert list(display.axes_) == [
        *("waveform", "mel", "frame0", "frame1", "frame2", "probabilities")
    ]
    crops = FACES.fit_transform(make_table(visual=[path])[["visual"]])
    crops = np.asarray(crops, dtype=object)[0, 0]
    for k in range(3):
        drawn = display.axes_[f"frame{k}"].images[0].get_array()
        np.testing.assert_array_equal(drawn, np.moveaxis(crops[k], 0, -1))
    # 4 frames at 5 a second: the middles of thirds.
    times = [display.axes_[f"frame{k}"].get_xlabel() for k in range(3)]
    assert times == ["0.13 s", "0.40 s", "0.67 s"]
    marks = [line.get_xdata()[0] for line in display.axes_["waveform"].lines[1:]]
    assert marks == pytest.approx([0.8 / 6, 0.4, 4 / 6], abs=0.03)
    expected = model.predict_proba(make_table(visual=[path], audio=[path]))[0]
    assert widths(display) == pytest.approx(expected.tolist())
    names = [t.get_text() for t in display.axes_["probabilities"].get_yticklabels()]
    assert names == ["anger", "sadness"]


def test_sound(files, model):
    path = files.table["audio"][1]
    display = ClipDisplay.from_file(path, model)
    assert list(display.axes_) == ["waveform", "mel", "probabilities"]
    samples, rate = soundfile.read(path)
    line = display.axes_["waveform"].lines[0]
    np.testing.assert_allclose(line.get_ydata(), samples, atol=1e-6)
    np.testing.assert_allclose(line.get_xdata(), np.arange(len(samples)) / rate)
    expected = model.predict_proba(make_table(audio=[path]))[0]
    assert widths(display) == pytest.approx(expected.tolist())
    assert display.axes_["waveform"].get_title(loc="left") == os.path.basename(path)


def test_without_a_model(files):
    display = ClipDisplay.from_file(files.table["visual"][0], n_frames=2, faces=FACES)
    assert list(display.axes_) == ["waveform", "mel", "frame0", "frame1"]
    assert list(ClipDisplay.from_file(files.table["audio"][0]).axes_) == ["waveform", "mel"]


def test_video_without_sound_and_pictures(tmp_path, files):
    import av

    path = str(tmp_path / "silent.mp4")
    with av.open(files.table["visual"][0]) as old, av.open(path, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    display = ClipDisplay.from_file(path, faces=FACES)
    assert list(display.axes_) == ["frame0", "frame1", "frame2"]
    Image.new("RGB", (64, 64), "red").save(tmp_path / "0.png")
    for source in (tmp_path / "0.png", tmp_path):
        if source is tmp_path:
            os.remove(path)
        display = ClipDisplay.from_file(source, n_frames=1, faces=FACES)
        assert list(display.axes_) == ["frame0"]
        assert display.axes_["frame0"].get_title(loc="left") == source.name


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_sound_that_outlasts_the_pictures(name, tmp_path):
    """Frames are told the times at which they are shown: those of the pictures' two seconds."""
    path = tmp_path / name
    shades = [np.full((32, 32, 3), 10 * i, dtype=np.uint8) for i in range(20)]
    write_video(path, shades, "libx264", "aac", seconds=6)
    faces = FaceFrames(detector=None, size=32)
    display = ClipDisplay.from_file(path, n_frames=3, faces=faces)
    assert display.frame_times == pytest.approx([1 / 3, 1, 5 / 3], abs=0.02)
    shown = [frame.mean() / 100 for frame in display.frames]  # ten frames a second
    assert display.frame_times == pytest.approx(shown, abs=0.1)


def test_sound_in_a_container_of_videos(tmp_path, files):
    import av

    path = str(tmp_path / "voice.m4a")
    with av.open(files.table["visual"][0]) as old, av.open(path, "w", format="mp4") as new:
        stream = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(old.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    assert list(ClipDisplay.from_file(path).axes_) == ["waveform", "mel"]


@pytest.mark.parametrize("band", [(0.0, None), (300.0, 6000.0)])
def test_spectrogram_is_where_it_belongs(band):
    """A tone of some frequency, for half a second, shows at that place and time."""
    rate, tone = 16000, 2500.0
    time = np.arange(rate) / rate
    sound = np.where((time > 0.25) & (time < 0.75), np.sin(2 * np.pi * tone * time), 0)
    mel = MelSpectrogram(fmin=band[0], fmax=band[1], n_mels=64, duration=0.1, crop="random")
    display = ClipDisplay.from_arrays(sound, rate, mel=mel)
    axis = display.axes_["mel"]
    picture = axis.images[0]
    left, right, low, high = picture.get_extent()
    values = picture.get_array()
    row, column = np.unravel_index(values.argmax(), values.shape)
    height = low + (row + 0.5) * (high - low) / values.shape[0]
    assert height == pytest.approx(float(hertz_to_mel(tone)), abs=(high - low) / 64)
    seconds = left + (np.arange(values.shape[1]) + 0.5) * (right - left) / values.shape[1]
    assert 0.25 < seconds[column] < 0.75
    loud = seconds[values[row] > values.max() - 10]
    assert loud[[0, -1]] == pytest.approx([0.25, 0.75], abs=0.04)
    assert axis.get_xlim() == display.axes_["waveform"].get_xlim() == (0, 1)
    for position, label in zip(axis.get_yticks(), axis.get_yticklabels(), strict=True):
        hertz = float(label.get_text().replace(",", ""))
        assert position == pytest.approx(float(hertz_to_mel(hertz)))
    assert mel.duration == 0.1


def test_mel_scale_is_that_of_the_filters():
    filters = mel_filterbank(16000, 2**15, 40)
    peaks = hertz_to_mel(filters.argmax(1) * 16000 / 2**15)
    expected = hertz_to_mel(8000) / 41 * np.arange(1, 41)
    np.testing.assert_allclose(peaks, expected, atol=0.02)


def test_a_long_sound_keeps_its_peaks():
    rng = np.random.default_rng(0)
    sound = rng.normal(size=1_000_003).astype(np.float32)
    sound[[123_456, 765_432]] = 9, -9
    times, values = outline(sound, 1000.0)
    assert len(times) == len(values) <= 11_000
    assert times[values.argmax()] == pytest.approx(123.456, abs=0.2)
    assert times[values.argmin()] == pytest.approx(765.432, abs=0.2)
    assert (np.diff(times) >= 0).all()
    for k in range(0, len(values), 1000):  # each pair spans the samples up to the next
        start, end = round(times[k] * 1000), round(times[k + 2] * 1000)
        part = sound[start:end]
        assert (values[k], values[k + 1]) == (part.min(), part.max())


def test_another_sampling_rate():
    sound = np.random.default_rng(0).normal(size=4000) * 0.1
    display = ClipDisplay.from_arrays(sound, 8000)
    assert display.axes_["waveform"].get_xlim() == (0, 0.5)
    left, right, *_ = display.axes_["mel"].images[0].get_extent()
    assert (left, right) == pytest.approx((-0.008, 0.504), abs=0.01)


def test_arrays_of_pictures():
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 255, (5, 3, 8, 9)).astype(np.uint8)
    shown = ClipDisplay.from_arrays(frames=stack, frame_times=[0, 1, 2, 3, 4]).axes_
    for k in range(5):
        np.testing.assert_array_equal(
            shown[f"frame{k}"].images[0].get_array(), stack[k].transpose(1, 2, 0)
        )
    one = ClipDisplay.from_arrays(frames=stack[0].transpose(1, 2, 0))
    np.testing.assert_array_equal(
        one.axes_["frame0"].images[0].get_array(), stack[0].transpose(1, 2, 0)
    )


def test_the_likeliest_emotion_stands_out():
    chances = {f"emotion {i}": p for i, p in enumerate([0.1, 0.2, 0.4, 0.05, 0.25])}
    display = ClipDisplay.from_arrays(probabilities=chances)
    bars = display.axes_["probabilities"].patches
    assert [bar.get_width() for bar in bars] == list(chances.values())
    assert [bool(bar.get_hatch()) for bar in bars] == [False, False, True, False, False]
    texts = [t.get_text() for t in display.axes_["probabilities"].texts]
    assert texts == ["0.10", "0.20", "0.40", "0.05", "0.25"]


def test_axes_are_divided():
    figure, axes = plt.subplots(1, 2)
    display = ClipDisplay.from_arrays(np.zeros(1000), probabilities={"joy": 1}, ax=axes[0])
    assert display.figure_ is figure
    inside = axes[0].get_position()
    for axis in display.axes_.values():
        box = axis.get_position()
        assert inside.x0 - 1e-6 <= box.x0 < box.x1 <= inside.x1 + 1e-6
    with pytest.raises(ValueError, match="divided by another plot"):
        display.plot(ax=axes[0])
    free = plt.figure().add_axes([0.5, 0.5, 0.4, 0.4])
    assert display.plot(ax=free).axes_["mel"].get_position().x0 >= 0.5


def test_errors_of_files(tmp_path, files):
    with pytest.raises(FileNotFoundError):
        ClipDisplay.from_file(tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(MediaError, match="is not a media file"):
        ClipDisplay.from_file(tmp_path / "text.wav")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(files.table["visual"][0]).read_bytes()[:900])
    with pytest.raises(MediaError, match=r"broken\.mp4"):
        ClipDisplay.from_file(broken)
    with pytest.raises(NotFittedError):
        ClipDisplay.from_file(files.table["audio"][0], FDANClassifier())
    svc = LinearSVC().fit(np.eye(2), [0, 1])
    with pytest.raises(TypeError, match="LinearSVC has no predict_proba"):
        ClipDisplay.from_file(files.table["audio"][0], svc)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs a waveform, frames or probabilities"),
        ({"probabilities": [1.0]}, "give classes="),
        ({"probabilities": [1.0], "classes": ["a", "b"]}, r"shape \(1,\), but there are 2"),
        ({"frames": []}, "holds no frame"),
        ({"frames": np.zeros((1, 3, 4, 4))}, "frame 0 must be uint8"),
        ({"frames": np.zeros((3, 4, 4), np.uint8), "frame_times": [1, 2]}, "2 frame_times, but 1"),
        ({"waveform": np.zeros((2, 3))}, "is no sound"),
    ],
)
def test_errors_of_arrays(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClipDisplay.from_arrays(**arguments)
