import subprocess
import sys

import librosa
import numpy as np
import pytest

from skfdan.preprocessing import SpeechFeatures

RATE = 22050
ROWS = {"mfcc": 20, "mel": 64, "zcr": 1, "chroma": 12, "rms": 1}


def of_librosa(samples, rate=RATE, n_fft=2048, hop_length=512, n_mels=64, n_mfcc=20):
    frame = {"n_fft": n_fft, "hop_length": hop_length}
    mel = librosa.feature.melspectrogram(y=samples, sr=rate, n_mels=n_mels, **frame)
    return {
        "mfcc": librosa.feature.mfcc(y=samples, sr=rate, n_mfcc=n_mfcc, n_mels=n_mels, **frame),
        "mel": librosa.power_to_db(mel),
        "zcr": librosa.feature.zero_crossing_rate(
            samples, frame_length=n_fft, hop_length=hop_length
        ),
        "chroma": librosa.feature.chroma_stft(y=samples, sr=rate, tuning=0.0, **frame),
        "rms": librosa.feature.rms(y=samples, frame_length=n_fft, hop_length=hop_length),
    }


def tone(frequency=440.0, seconds=1.0):
    t = np.arange(int(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * frequency * t)).astype(np.float32)


def peak(samples):
    """Frequency of the largest peak, between bins."""
    size = 2**18
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), size))
    return spectrum.argmax() * RATE / size


def copies(samples, **parameters):
    """Rows (1 + n_augment, n_features, T) of one clip at training."""
    parameters = {"duration": None, "random_state": 0} | parameters
    return SpeechFeatures(**parameters).fit_transform([samples])[0, 0][:, 0]


@pytest.mark.parametrize("seconds", [2.0, 6.0])
def test_rows_equal_librosa(seconds, sweep):
    samples = sweep(seconds, RATE)
    size = 4 * RATE
    fixed = (
        librosa.util.pad_center(samples, size=size)
        if len(samples) < size
        else samples[(len(samples) - size) // 2 :][:size]
    )
    ours = SpeechFeatures().transform([samples])[0, 0]
    theirs = of_librosa(fixed)
    assert ours.shape == (98, 173)
    assert ours.dtype == np.float32
    assert {name: len(rows) for name, rows in theirs.items()} == ROWS
    start = 0
    for rows in theirs.values():
        part = ours[start : start + len(rows)]
        np.testing.assert_allclose(part, rows, atol=1e-5 * max(1, np.abs(rows).max()), rtol=0)
        start += len(rows)


def test_other_parameters_and_a_choice_of_features(sweep):
    samples = sweep(1.3, 16000)
    frame = {"n_fft": 800, "hop_length": 200, "n_mels": 40, "n_mfcc": 13}
    features = SpeechFeatures(
        features=("rms", "mfcc", "chroma"), sample_rate=16000, duration=None, **frame
    )
    theirs = of_librosa(samples, rate=16000, **frame)
    expected = np.concatenate([theirs[name] for name in ("rms", "mfcc", "chroma")])
    ours = features.transform([samples])[0, 0]
    np.testing.assert_allclose(ours, expected, atol=1e-2, rtol=0)
    # Cepstra reach hundreds; the other rows are held to their own scale.
    np.testing.assert_allclose(ours[0], expected[0], atol=1e-6, rtol=0)
    np.testing.assert_allclose(ours[-12:], expected[-12:], atol=1e-4, rtol=0)


def test_only_fit_transform_augments(sweep, write_wav):
    path = write_wav("a.wav", sweep(1.0, RATE), RATE)
    features = SpeechFeatures(duration=1.0, random_state=0)
    trained = features.fit_transform([path, None])
    assert trained[1, 0] is None
    assert trained[0, 0].shape == (4, 1, 98, 44)
    assert trained[0, 0].dtype == np.float32
    plain = features.transform([path, None])
    assert plain[1, 0] is None
    assert plain[0, 0].shape == (98, 44)
    np.testing.assert_array_equal(trained[0, 0][0, 0], plain[0, 0])
    for copy in trained[0, 0][1:, 0]:
        assert not np.allclose(copy, plain[0, 0], atol=0.1)
    np.testing.assert_array_equal(features.fit([path]).transform([path])[0, 0], plain[0, 0])
    without = SpeechFeatures(duration=1.0, augment=())
    np.testing.assert_array_equal(without.fit_transform([path])[0, 0], plain[0, 0])


@pytest.mark.parametrize("crop", ["center", "random"])
def test_copies_depend_on_the_seed_and_the_row_alone(crop, sweep):
    clip = sweep(0.7, RATE)
    features = SpeechFeatures(duration=0.5, crop=crop, random_state=3)
    first = features.fit_transform([clip, clip, clip])[:, 0]
    again = features.set_params(n_jobs=2).fit_transform([clip, None, clip])[:, 0]
    for row in (0, 2):
        np.testing.assert_array_equal(again[row], first[row])
    other = SpeechFeatures(duration=0.5, crop=crop, random_state=4).fit_transform([clip])[0, 0]
    for stranger in (first[1], other):
        same = [np.array_equal(a, b) for a, b in zip(first[0], stranger, strict=True)]
        # The clip itself differs only where another part of it was taken.
        assert same == [crop == "center", False, False, False]


def test_noise_has_the_stated_ratio():
    # A tone, then silence, where the noise is alone.
    clip = np.concatenate([tone(), np.zeros(RATE, np.float32)])
    for snr in (0.0, 20.0):
        before, after = copies(clip, features=("rms",), augment=("noise",), snr=snr)
        quiet = slice(50, None)
        assert before[0, quiet].max() == 0
        noise = np.mean(after[0, quiet] ** 2)
        assert 10 * np.log10(np.mean(clip**2) / noise) == pytest.approx(snr, abs=0.3)
    features = SpeechFeatures(snr=(10.0, 20.0))
    ratios = []
    for seed in range(40):
        noise = features._add_noise(clip, np.random.default_rng(seed)) - clip
        ratios.append(10 * np.log10(np.mean(clip**2) / np.mean(noise**2)))
    assert 10 - 1e-3 < min(ratios) < 11
    assert 18.5 < max(ratios) < 20 + 1e-3
    silent = features._add_noise(np.zeros(9, np.float32), np.random.default_rng(0))
    assert not silent.any()


@pytest.mark.parametrize("semitones", [-2.0, 0.5, 3.0])
def test_pitch_moves_by_the_stated_semitones_and_tempo_stays(semitones):
    clip = np.concatenate([tone(), np.zeros(RATE, np.float32)])
    features = SpeechFeatures(semitones=semitones)
    shifted = features._shift_pitch(clip, np.random.default_rng(0))
    assert len(shifted) == len(clip)
    assert 12 * np.log2(peak(shifted) / 440) == pytest.approx(semitones, abs=0.05)
    before, after = copies(
        clip, features=("chroma", "rms"), augment=("pitch",), semitones=semitones
    )
    assert before[:12, 20].argmax() == 9  # A
    if semitones != 0.5:
        assert after[:12, 20].argmax() == (9 + semitones) % 12
    assert np.sum(after[12] > 0.1) == pytest.approx(np.sum(before[12] > 0.1), abs=2)


@pytest.mark.parametrize("rate", [0.8, 1.5])
def test_stretch_changes_the_tempo_and_keeps_the_pitch(rate):
    clip = np.concatenate([tone(), np.zeros(RATE, np.float32)])
    stretched = SpeechFeatures(rate=rate)._stretch(clip, np.random.default_rng(0))
    assert len(stretched) == round(len(clip) / rate)
    assert 12 * np.log2(peak(stretched) / 440) == pytest.approx(0, abs=0.05)
    before, after = copies(clip, features=("chroma", "rms"), augment=("stretch",), rate=rate)
    assert after.shape == before.shape  # padded or cropped to the clip's own length
    assert after[:12, 35].argmax() == 9
    # What a longer copy loses at its beginning, where the tone is: half the surplus.
    lost = max(0, len(stretched) - len(clip)) // 2
    expected = (RATE / rate - lost) / 512
    assert np.sum(after[12] > 0.1) == pytest.approx(expected, abs=3)


def test_amounts_are_drawn_between_the_ends(sweep):
    features = SpeechFeatures(rate=(0.8, 1.25))
    clip = sweep(0.3, RATE)
    rates = [
        len(clip) / len(features._stretch(clip, np.random.default_rng(seed))) for seed in range(30)
    ]
    assert 0.8 - 1e-3 < min(rates) < 0.85
    assert 1.2 < max(rates) < 1.25 + 1e-3


class Counting(SpeechFeatures):
    """Notes what is decoded and what is computed."""

    def _waveform(self, cell):
        self.calls_.append("decode")
        return super()._waveform(cell)

    def _features(self, samples):
        self.calls_.append("compute")
        return super()._features(samples)


def test_cache_keeps_sound_where_copies_are_random_and_features_where_not(
    tmp_path, write_wav, sweep
):
    path = write_wav("a.wav", sweep(0.3, RATE), RATE)
    features = Counting(duration=0.3, cache_dir=tmp_path / "cache")
    features.calls_ = []
    first, second = (features.fit_transform([path])[0, 0] for _ in range(2))
    assert features.calls_ == ["decode"] + ["compute"] * 8
    np.testing.assert_array_equal(first[0], second[0])
    for one, other in zip(first[1:], second[1:], strict=True):
        assert not np.array_equal(one, other)  # no seed: drawn anew
    features.calls_ = []
    plain = features.transform([path])[0, 0]
    assert features.calls_ == ["compute"]
    features.set_params(augment=()).calls_ = []
    for method in (features.fit_transform, features.transform):
        np.testing.assert_array_equal(method([path])[0, 0], plain)
    assert features.calls_ == ["decode", "compute"]
    # Another choice of features is another entry.
    assert features.set_params(features=("mel",)).transform([path])[0, 0].shape == (64, 13)


def test_matrix_is_flat_and_never_augmented(sweep):
    matrix = np.stack([sweep(0.2, RATE, seed=i) for i in range(2)])
    features = SpeechFeatures(random_state=0, n_mfcc=2, n_mels=3)
    flat = features.fit_transform(matrix)
    assert flat.dtype == np.float32
    np.testing.assert_array_equal(features.transform(matrix), flat)
    cells = SpeechFeatures(duration=None, n_mfcc=2, n_mels=3).transform(list(matrix))[:, 0]
    for row, cell in zip(flat, cells, strict=True):
        np.testing.assert_array_equal(row.reshape(19, -1), cell)
    names = features.get_feature_names_out()
    assert len(names) == flat.shape[1]
    assert [name for name in names if name.endswith("frame0")] == (
        ["mfcc0_frame0", "mfcc1_frame0", "mel0_frame0", "mel1_frame0", "mel2_frame0", "zcr_frame0"]
        + [f"chroma{i}_frame0" for i in range(12)]
        + ["rms_frame0"]
    )
    # The crop of a matrix is the same at training, too, unless it is random.
    short = SpeechFeatures(duration=0.1, random_state=0).fit_transform(matrix)
    np.testing.assert_array_equal(short, SpeechFeatures(duration=0.1, augment=()).transform(matrix))


@pytest.mark.parametrize("samples", [np.zeros(1000), np.array([0.5]), np.array([0.5, -0.5, 0.1])])
def test_short_and_silent_clips(samples):
    for duration in (None, 0.5):
        cell = copies(samples.astype(np.float32), duration=duration)
        assert cell.shape[:2] == (4, 98)
        assert np.isfinite(cell).all()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"n_mfcc": 65}, r"n_mfcc=65.*n_mels=64"),
        ({"features": ()}, "nothing to compute"),
        ({"features": "mel"}, r"features='mel'.*tuple"),
        ({"features": ("mel", "pitch")}, "features=.*'pitch'"),
        ({"features": ("mel", "mel")}, "different names"),
        ({"augment": ("echo",)}, r"augment=\('echo',\).*'stretch'"),
        ({"augment": "noise"}, "augment='noise'"),
        ({"augment": None}, "augment=None"),
        ({"rate": 0.0}, "rate=0.0.*above 0"),
        ({"rate": (1.2, 0.9)}, r"rate=\(1.2, 0.9\).*pair"),
        ({"snr": (1, 2, 3)}, "snr="),
        ({"semitones": "up"}, "semitones='up'"),
        ({"semitones": np.nan}, "semitones=nan"),
        ({"n_fft": 0}, "n_fft=0"),
    ],
    ids=str,
)
def test_parameters_that_make_no_sense(parameters, words):
    for method in ("fit", "transform"):
        with pytest.raises(ValueError, match=words):
            getattr(SpeechFeatures(**parameters), method)([None])


def test_librosa_is_loaded_at_use():
    code = (
        "import sys, skfdan.preprocessing as p; p.SpeechFeatures().fit([None])\n"
        "assert not {'librosa', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
