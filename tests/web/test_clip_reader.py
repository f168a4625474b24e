import inspect
import threading
import time

import numpy as np
import pytest
import soundfile
from PIL import Image
from sklearn.base import clone

from skfdan import load_pretrained, save_pretrained
from skfdan.datasets import check_corpus
from skfdan.preprocessing import DecodeLimits, FaceFrames
from skfdan.web import _reader
from skfdan.web._reader import ClipReader


@pytest.fixture(scope="module")
def reader(model):
    return ClipReader(model)


@pytest.fixture
def sound(tmp_path):
    """Write a sound file of 16 kHz."""

    def write(name, samples):
        soundfile.write(tmp_path / name, samples, 16000, subtype="PCM_16")
        return str(tmp_path / name)

    return write


def tone(seconds):
    return 0.3 * np.sin(np.arange(int(seconds * 16000)) * 0.1)


def test_voice(reader, clips, predicted):
    wav = clips["audio"][0]
    clip = reader.read(wav)
    expected = predicted(wav)
    assert clip.error is None
    assert clip.probabilities == pytest.approx(expected["probabilities"], rel=1e-9)
    assert next(iter(clip.probabilities)) == expected["emotion"]
    assert list(clip.probabilities.values()) == sorted(clip.probabilities.values(), reverse=True)
    assert clip.name == wav.rsplit("/", 1)[-1]
    assert clip.used == ("audio",)
    assert clip.warnings == []
    assert clip.faces is None
    np.testing.assert_allclose(clip.sound.waveform, soundfile.read(wav)[0], atol=1e-6)
    # Of the quick model, which hears 3.5 s.
    assert clip.sound.mel.n_mels == 64
    assert clip.sound.window is None


@pytest.mark.parametrize("modality", ["audio", "visual", "fused"])
def test_video(model, reader, clips, predicted, modality):
    mp4 = clips["visual"][0]
    clip = reader.read(mp4, modality)
    expected = predicted(mp4, "--modality", modality)
    assert clip.probabilities == pytest.approx(expected["probabilities"], rel=1e-9)
    assert clip.used == (("visual", "audio") if modality == "fused" else (modality,))
    assert clip.warnings == []
    assert (clip.sound is None) == (modality == "visual")
    assert (clip.faces is None) == (modality == "audio")
    if clip.faces is not None:
        faces = clone(load_pretrained(model)[0].named_transformers_["visual"])
        crops = faces.set_params(verbose=0).transform([mp4])[0, 0]
        np.testing.assert_array_equal(np.moveaxis(clip.faces.crops, -1, 1), crops)
        # Three frames at 5 a second: 0.6 s.
        assert clip.faces.times == pytest.approx([0.1, 0.3, 0.5], abs=0.05)


def test_a_choice_is_not_remembered(reader, clips):
    mp4 = clips["visual"][0]
    first = reader.read(mp4).probabilities
    assert reader.read(mp4, "fused").probabilities != first
    assert reader.read(mp4).probabilities == first
    assert reader.choices == ["audio", "visual", "fused"]


def test_both_of_a_sound_file(reader, clips, predicted):
    wav = clips["audio"][0]
    clip = reader.read(wav, "fused")
    assert clip.probabilities == pytest.approx(predicted(wav)["probabilities"], rel=1e-9)
    assert clip.used == ("audio",)
    assert clip.warnings == ["The file has no face; the model goes by the voice alone."]


def test_both_of_a_video_without_sound(reader, clips, tmp_path):
    import av

    path = str(tmp_path / "mute.mp4")
    with av.open(clips["visual"][0]) as old, av.open(path, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    clip = reader.read(path, "fused")
    assert clip.error is None
    assert clip.used == ("visual",)
    assert clip.sound is None
    (warning,) = clip.warnings
    assert warning.startswith("The voice was left out: has no sound stream")


def test_broken(reader, predicted, tmp_path):
    file = tmp_path / "notes.wav"
    file.write_text("These are words.\n" * 20)
    clip = reader.read(str(file))
    assert clip.error == predicted(file)["error"]
    assert clip.error.startswith("is not a media file")
    assert (clip.probabilities, clip.used, clip.sound, clip.faces) == ({}, (), None, None)


def test_silent(reader, sound, predicted):
    file = sound("silent.wav", np.zeros(16000))
    clip = reader.read(file)
    assert clip.probabilities == pytest.approx(predicted(file)["probabilities"], rel=1e-9)
    (warning,) = clip.warnings
    assert warning.startswith("The clip is silent")
    # A constant is none the louder for it; -40 dBFS is quiet, not silent.
    assert reader.read(sound("offset.wav", np.full(16000, 0.5))).warnings == [warning]
    assert reader.read(sound("quiet.wav", tone(1) / 30)).warnings == []


def test_too_short(reader, sound):
    (warning,) = reader.read(sound("short.wav", tone(0.1))).warnings
    assert warning.startswith("The clip is too short (0.10 s")
    assert reader.read(sound("word.wav", tone(0.4))).warnings == []


def test_long(reader, sound):
    clip = reader.read(sound("long.wav", tone(10)))
    assert clip.warnings == []
    assert clip.sound.seconds == 10
    assert clip.sound.window == pytest.approx((3.25, 6.75))


def test_no_face(reader, tmp_path, predicted):
    file = tmp_path / "grey.png"
    Image.fromarray(np.full((96, 96, 3), 120, np.uint8)).save(file)
    clip = reader.read(str(file), "visual")
    expected = predicted(file, "--modality", "visual")["probabilities"]
    assert clip.probabilities == pytest.approx(expected, rel=1e-9)
    assert clip.warnings == [
        "No face was found: the model looks at the middle of the picture instead."
    ]
    assert [crop.shape for crop in clip.faces.crops] == [(48, 48, 3)]
    assert clip.faces.times is None


def nobody(image):
    """Find no face, whatever is in the picture."""


def test_no_face_with_a_model_that_insists(model, clips):
    strict = ClipReader(model)
    faces = next(t for t in strict.predictor.transformers if isinstance(t, FaceFrames))
    faces.set_params(on_no_face="missing", detector=nobody)
    mp4 = clips["visual"][0]
    assert strict.read(mp4, "visual").error == "no face was found"
    clip = strict.read(mp4, "fused")
    assert clip.used == ("audio",)
    assert clip.faces is None
    assert clip.warnings == ["The face was left out: no face was found."]


def test_gone(reader):
    assert "no longer there" in reader.read("nowhere.wav").error


def test_limits(model, sound):
    assert DecodeLimits().max_seconds == 600
    file = sound("hours.flac", np.zeros(16000 * 601))
    assert "beyond the limit max_seconds=600" in ClipReader(model).read(file).error


def test_time_limit(model, sound):
    # Long, so that it is not read before the time is looked at.
    clip = ClipReader(model, seconds=1e-9).read(sound("long.wav", tone(300)))
    assert clip.error.startswith("took longer than 1e-09 s")


def test_time_limit_of_the_pictures(model, sound):
    long = sound("long.wav", tone(300))
    reader = ClipReader(model)
    real = reader.predictor.file

    def file(path):
        answer = real(path)
        reader.predictor.seconds = 1e-9  # from now on
        return answer

    reader.predictor.file = file
    assert reader.read(long).error.startswith("took longer than 1e-09 s")


def test_one_at_a_time(reader, clips, monkeypatch):
    """Visitors who ask for different things at the same time get each their own."""
    mp4 = clips["visual"][0]
    expected = {m: reader.read(mp4, m).probabilities for m in reader.choices}
    real, busy, most, wrong = reader.predictor.file, [], [], []

    def file(path):
        busy.append(None)
        most.append(len(busy))
        time.sleep(0.02)
        answer = real(path)
        busy.pop()
        return answer

    monkeypatch.setattr(reader.predictor, "file", file)

    def visit(modality):
        if reader.read(mp4, modality).probabilities != expected[modality]:
            wrong.append(modality)

    visitors = [threading.Thread(target=visit, args=(m,)) for m in reader.choices * 2]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert wrong == []
    assert most == [1] * 6


def test_a_model_of_voices(clips, tmp_path):
    from sklearn.pipeline import make_pipeline

    from skfdan.classifiers import GMTCNetClassifier
    from skfdan.preprocessing import MFCC

    mfcc = MFCC(duration=0.5, hop_length=256, verbose=0)
    net = GMTCNetClassifier(max_epochs=1, random_state=0, n_filters=4, verbose=0)
    pipe = make_pipeline(mfcc, net).fit(clips[["audio"]], ["b", "a"] * 6)
    voices = ClipReader(save_pretrained(pipe, tmp_path / "model"))
    assert voices.choices == ["audio"]
    clip = voices.read(clips["audio"][0], "audio")
    expected = dict(zip(["a", "b"], pipe.predict_proba(clips[["audio"]][:1])[0], strict=True))
    assert clip.probabilities == pytest.approx(expected, rel=1e-9)
    # Its bands are no picture; the half second in the middle is what it hears.
    assert clip.sound.mel.n_mels == 128
    assert clip.sound.window == pytest.approx((0.05, 0.55), abs=0.01)


def test_thresholds_are_those_of_the_check():
    parameters = inspect.signature(check_corpus).parameters
    assert parameters["silence_db"].default == _reader.SILENCE_DB
    assert parameters["min_seconds"].default == _reader.MIN_SECONDS
    assert parameters["timeout"].default == _reader.SECONDS
