import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile

from skfdan.preprocessing import MediaError, MelSpectrogram
from skfdan.preprocessing.media import read_audio
from skfdan.preprocessing.mel import _window, mel_filterbank, power_to_db


def reference(samples, *, top_db=80.0, sample_rate=16000, **parameters):
    parameters = {"n_fft": 1024, "hop_length": 256, "n_mels": 128} | parameters
    power = librosa.feature.melspectrogram(y=samples, sr=sample_rate, **parameters)
    return librosa.power_to_db(power, top_db=top_db)


def one(transformer, cell):
    return transformer.transform([cell])[0, 0]


@pytest.mark.parametrize(
    ("rate", "n_fft", "n_mels", "fmin", "fmax"),
    [
        (16000, 1024, 128, 0.0, None),
        (22050, 2048, 128, 0.0, None),
        (8000, 256, 23, 60.0, 3400.0),
        (44100, 2048, 64, 1500.0, 16000.0),
        (16000, 401, 40, 0.0, 900.0),
    ],
)
def test_filterbank_equals_librosa(rate, n_fft, n_mels, fmin, fmax):
    ours = mel_filterbank(rate, n_fft, n_mels, fmin, fmax)
    theirs = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    # The largest weight is about 0.04: a bound of 1e-4 alone would say little.
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * theirs.max())


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"sample_rate": 22050, "n_fft": 2048, "hop_length": 512, "n_mels": 64},
        {"sample_rate": 8000, "n_fft": 256, "hop_length": 80, "n_mels": 23, "fmin": 60.0},
        {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 40, "fmax": 7600.0},
        {"n_fft": 801, "win_length": 700, "hop_length": 333, "n_mels": 40},
        {"top_db": None},
        {"top_db": 30.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("signal", ["sweep", "tone", "noise"])
def test_log_mel_equals_librosa(parameters, signal, sweep):
    rate = parameters.get("sample_rate", 16000)
    samples = {
        "sweep": sweep(2.0, rate),
        # A pure tone has the widest range between loud and quiet bands.
        "tone": np.sin(2 * np.pi * 437.3 * np.arange(2 * rate) / rate).astype(np.float32),
        "noise": np.random.default_rng(1).standard_normal(2 * rate).astype(np.float32),
    }[signal]
    ours = one(MelSpectrogram(duration=None, **parameters), samples)
    theirs = reference(samples, **parameters)
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    if parameters.get("top_db", 80.0) is None:
        # 200 dB below the loudest, single precision holds no digits to compare.
        audible = theirs > theirs.max() - 100
        ours, theirs = ours[audible], theirs[audible]
    np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=0)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_stereo_file_of_another_rate_equals_librosa(rate, write_wav, sweep, librosa_load):
    stereo = np.stack([sweep(1.5, rate), sweep(1.5, rate, seed=3)[::-1]], axis=1)
    path = write_wav("a.wav", stereo, rate)
    samples = librosa_load(path, sr=16000, mono=True)
    ours = one(MelSpectrogram(duration=None), path)
    np.testing.assert_allclose(ours, reference(samples), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["tone", "tone above a whisper", "noise"])
def test_quiet_bands_beside_loud_ones_equal_librosa(kind):
    # In single precision alone the first two would be off by up to 10 dB in quiet bands.
    t = np.arange(24000) / 16000
    rng = np.random.default_rng(0)
    samples = {
        "tone": np.sin(2 * np.pi * 440 * t),
        "tone above a whisper": np.sin(2 * np.pi * 3000 * t) + 1e-4 * rng.normal(size=t.size),
        "noise": 0.1 * rng.normal(size=t.size),
    }[kind].astype(np.float32)
    ours = one(MelSpectrogram(duration=None), samples)
    np.testing.assert_allclose(ours, reference(samples), atol=1e-3, rtol=0)


def test_sixteen_bits_are_read_as_libsndfile_reads_them(tmp_path, sweep):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([sweep(0.5, 16000), -sweep(0.5, 16000)], axis=1), 16000)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    found, _ = read_audio(path, mono=False)
    np.testing.assert_array_equal(found, expected)


def test_power_to_db_has_a_floor_and_a_range():
    power = np.array([1.0, 1e-4, 1e-30])
    assert power_to_db(power, top_db=None).tolist() == [0, -40, -100]
    assert power_to_db(power, top_db=30).tolist() == [0, -30, -30]


def test_power_to_db_in_single_precision():
    power = np.logspace(-12, 6, 1000)
    single = power_to_db(power.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, power_to_db(power), atol=2e-5, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 3, 700, 1024])
def test_window_is_that_of_scipy(length):
    expected = librosa.util.pad_center(scipy.signal.get_window("hann", length), size=1024)
    np.testing.assert_allclose(_window(length, 1024), expected, atol=1e-15)
    np.testing.assert_allclose(_window(length, 1024, np.float32), expected, atol=1e-7)


@pytest.mark.parametrize("kind", ["speech-like", "tone"])
def test_only_frames_with_doubtful_bands_are_done_again(kind, monkeypatch):
    rng, again = np.random.default_rng(0), []
    samples = {
        # 6 dB less an octave from 80 Hz on.
        "speech-like": scipy.signal.lfilter([0.01], [1, -0.97], rng.normal(size=24000)),
        "tone": np.sin(2 * np.pi * 440 * np.arange(24000) / 16000),
    }[kind].astype(np.float32)
    mel = MelSpectrogram(duration=None)
    power = MelSpectrogram._mel_power

    def counted(self, frames, dtype):
        if dtype == np.float64:
            again.append(len(frames))
        return power(self, frames, dtype)

    monkeypatch.setattr(MelSpectrogram, "_mel_power", counted)
    n_frames = one(mel, samples).shape[1]
    assert sum(again) > 0.9 * n_frames if kind == "tone" else not again


def test_duration_crops_and_pads_in_the_middle(sweep):
    samples = sweep(3.0)
    short = one(MelSpectrogram(duration=1.0), samples)
    np.testing.assert_array_equal(short, one(MelSpectrogram(duration=None), samples[16000:32000]))
    long = one(MelSpectrogram(duration=4.0), samples[:-1])  # an odd surplus
    padded = librosa.util.pad_center(samples[:-1], size=64000)
    np.testing.assert_array_equal(long, one(MelSpectrogram(duration=None), padded))
    assert long.shape == (128, 251)


def test_random_crop_only_at_training(sweep):
    samples = sweep(3.0)
    mel = MelSpectrogram(duration=1.0, crop="random", random_state=0, n_mels=16)
    first, second = (mel.fit_transform([samples, samples]) for _ in range(2))
    centre = one(MelSpectrogram(duration=1.0, n_mels=16), samples)
    for a, b in zip(first.flat, second.flat, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0, 0], first[1, 0])
    assert not np.array_equal(first[0, 0], centre)
    np.testing.assert_array_equal(mel.transform([samples])[0, 0], centre)
    other = mel.set_params(random_state=1).fit_transform([samples])
    assert not np.array_equal(other[0, 0], first[0, 0])
    short = samples[:8000]  # nothing to choose: padded in the middle
    np.testing.assert_array_equal(
        mel.fit_transform([short])[0, 0], one(MelSpectrogram(duration=1.0, n_mels=16), short)
    )


def test_random_crop_covers_the_whole_clip():
    ramp = np.arange(30, dtype=np.float32)
    mel = MelSpectrogram(sample_rate=10, duration=1.0, crop="random", n_fft=4, n_mels=2)
    starts = {int(mel._fit_length(ramp, draw=d)[0]) for d in np.linspace(0, 1, 500, endpoint=False)}
    assert starts == set(range(21))


def test_row_is_independent_of_other_rows(sweep):
    clips = [sweep(s, seed=i) for i, s in enumerate((1.0, 2.0, 3.0))]
    for crop in ("center", "random"):
        mel = MelSpectrogram(duration=0.5, n_mels=16, crop=crop, random_state=0)
        together = mel.fit_transform(clips)
        for row in range(3):
            others_missing = [c if i == row else None for i, c in enumerate(clips)]
            alone = mel.fit_transform(others_missing)
            np.testing.assert_array_equal(alone[row, 0], together[row, 0])
            assert [r is None for r in alone[:, 0]] == [i != row for i in range(3)]


@pytest.mark.parametrize("threshold", [20.0, 40.0, 60.0])
def test_trim_equals_librosa(threshold, sweep):
    quiet = 1e-4 * np.random.default_rng(2).standard_normal(7000).astype(np.float32)
    samples = np.concatenate([quiet, sweep(1.0), quiet])
    trimmed, _ = librosa.effects.trim(samples, top_db=threshold)
    assert len(trimmed) < len(samples)
    ours = one(MelSpectrogram(duration=None, trim=threshold), samples)
    np.testing.assert_allclose(ours, reference(trimmed), atol=1e-3, rtol=0)


@pytest.mark.parametrize("trim", [False, 30.0])
def test_silence_is_constant_and_finite(trim):
    mel = one(MelSpectrogram(trim=trim), np.zeros(16000))
    assert mel.shape == (128, 251)
    assert np.ptp(mel) == 0
    assert mel[0, 0] == pytest.approx(-100)


def test_integer_waveforms_have_the_scale_of_their_type(sweep):
    samples = sweep(1.0)
    mel = MelSpectrogram(n_mels=32, top_db=40.0)
    wide = one(mel, samples)
    np.testing.assert_allclose(one(mel, (samples * 2**15).astype(np.int16)), wide, atol=0.3)
    np.testing.assert_allclose(one(mel, (samples * 2.0**31).astype(np.int32)), wide, atol=1e-2)
    eight_bits = (samples * 127 + 128).round().astype(np.uint8)
    assert np.abs(one(mel, eight_bits) - wide).mean() < 3


def test_waveform_with_a_rate_equals_the_file(write_wav, sweep):
    samples = sweep(1.0, 44100)
    path = write_wav("a.wav", samples, 44100)
    np.testing.assert_array_equal(
        one(MelSpectrogram(), (samples, 44100)), one(MelSpectrogram(), path)
    )


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (np.zeros(0), "no samples"),
        (np.array([0.0, np.nan, 1.0]), "1 of 3 samples that are NaN or infinite, the first at 1"),
        (np.array([0.0, np.inf, 1.0]), "NaN or infinite"),
        (np.zeros((2, 5)), r"array of shape \(2, 5\), float64.*is no sound"),
        (np.array(["a"]), "is no sound"),
        ((np.zeros(3), np.zeros(3)), "is no sound"),
        ({"a": 1}, "is no sound"),
        (3.0, "is no sound"),
    ],
    ids=str,
)
def test_bad_waveforms_name_the_row(cell, words):
    with pytest.raises(MediaError, match=rf"row 1 \(.*{words}"):
        MelSpectrogram().transform([None, cell])


def test_matrix_of_waveforms_gives_a_flat_matrix(sweep):
    matrix = np.stack([sweep(1.0, seed=i) for i in range(3)])
    mel = MelSpectrogram(n_mels=16).fit(matrix)
    flat = mel.transform(matrix)
    assert flat.dtype == np.float32
    assert mel.n_features_in_ == 16000
    for row, samples in zip(flat, matrix, strict=True):
        cells = one(MelSpectrogram(n_mels=16, duration=None), samples)
        np.testing.assert_array_equal(row.reshape(16, -1), cells)
    names = mel.get_feature_names_out()
    assert len(names) == flat.shape[1]
    assert names[0] == "mel0_frame0"
    assert names[-1] == "mel15_frame62"
    # Longer rows are cropped; shorter ones, above, were not padded to 4 s.
    cropped = MelSpectrogram(n_mels=16, duration=0.5).fit_transform(matrix)
    np.testing.assert_array_equal(
        cropped, MelSpectrogram(n_mels=16).fit_transform(matrix[:, 4000:12000])
    )
    trimmed = MelSpectrogram(n_mels=16, trim=20.0).fit_transform(matrix)
    assert trimmed.shape == flat.shape


def test_filters_without_a_frequency_are_reported():
    with pytest.warns(UserWarning, match=r"of 128 Mel filters take in no frequency.*n_fft"):
        MelSpectrogram(n_fft=256).fit([None])


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"sample_rate": 0}, "sample_rate=0"),
        ({"n_fft": 0}, "n_fft=0"),
        ({"hop_length": -1}, "hop_length=-1"),
        ({"n_mels": 0}, "n_mels=0"),
        ({"win_length": 2000}, "win_length=2000"),
        ({"fmin": 9000.0}, "fmin=9000.0"),
        ({"fmax": 9000.0}, "fmax=9000.0"),
        ({"duration": 0.0}, "duration=0.0"),
        ({"crop": "left"}, "crop"),
        ({"trim": True}, "trim"),
        ({"trim": -3}, "trim"),
    ],
    ids=str,
)
def test_impossible_parameters(parameters, words):
    for method in ("fit", "transform"):
        with pytest.raises(ValueError, match=words):
            getattr(MelSpectrogram(**parameters), method)([None])


def test_real_clips_and_speech(real_data, librosa_load):
    clips = sorted((real_data / "clips").glob("*.mp4"))
    seconds = {"M003": 4.693, "M026": 4.693, "M030": 3.264, "W036": 3.008, "W040": 6.57}
    mel = MelSpectrogram(duration=None).fit_transform(clips)[:, 0]
    for path, array in zip(clips, mel, strict=True):
        assert array.shape[1] == pytest.approx(1 + seconds[path.name[:4]] * 16000 / 256, abs=1.5)
        assert array.max() - array.min() > 60
    speech = sorted((real_data / "ravdess").glob("Actor_0[12]/*.flac"))[::30]
    mel = MelSpectrogram(duration=None, n_jobs=2).fit_transform(speech)[:, 0]
    for path, array in zip(speech, mel, strict=True):
        samples = librosa_load(path, sr=16000)
        np.testing.assert_allclose(array, reference(samples), atol=1e-3, rtol=0)


def test_a_duration_of_whole_samples_has_as_many():
    """n / 16000 * 16000 lies just below n for some n, which cost the last sample if cut off."""
    below = [n for n in range(100, 2000) if n / 16000 * 16000 < n][:3]
    assert below
    wave = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    for n in below:
        mel = MelSpectrogram(duration=n / 16000, n_fft=16, hop_length=1, n_mels=1, verbose=0)
        assert mel.transform([wave])[0, 0].shape == (1, n + 1)
