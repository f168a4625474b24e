import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skfdan import make_table
from skfdan.preprocessing import MediaError, TwineShufflePattern
from skfdan.preprocessing.tqwt import tqwt
from skfdan.preprocessing.twine import TWINE_SHUFFLE, twine_histogram


def slow_histogram(x):
    counts = [0] * 512
    for t in range(len(x) - 15):
        window = x[t : t + 16]
        bits = [1 if window[h] >= window[TWINE_SHUFFLE[h]] else 0 for h in range(16)]
        counts[sum(bit * 2**i for i, bit in enumerate(bits[:8]))] += 1
        counts[256 + sum(bit * 2**i for i, bit in enumerate(bits[8:]))] += 1
    return counts


def test_the_shuffle_is_that_of_the_cipher():
    assert sorted(TWINE_SHUFFLE) == list(range(16))
    inverse = [1, 2, 11, 6, 3, 0, 9, 4, 7, 10, 13, 14, 5, 8, 15, 12]
    assert [inverse[i] for i in TWINE_SHUFFLE] == list(range(16))


def test_one_window_by_hand():
    # A lone peak at entry 5: larger than entry 12 (bit 5); all else are ties but
    # entry 0, which is compared with entry 5, and loses.
    x = np.zeros(16)
    x[5] = 1
    assert np.flatnonzero(twine_histogram(x)).tolist() == [0b11111110, 256 + 255]
    assert np.flatnonzero(twine_histogram(-x)).tolist() == [0b11011111, 256 + 255]


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 300])
def test_histogram_equals_loops(n):
    x = np.random.default_rng(n).integers(-4, 4, n).astype(np.float32)
    assert twine_histogram(x).tolist() == slow_histogram(x)


@pytest.mark.parametrize("normalize", [True, False])
def test_bands_of_a_clip(normalize, sweep):
    samples = sweep(0.2)
    features = TwineShufflePattern(n_levels=3, normalize=normalize).fit_transform([samples])
    assert features.shape == (1, 5 * 512)
    assert features.dtype == np.float32
    for place, band in enumerate([samples, *tqwt(samples, 1.0, 3.0, 3)]):
        expected = np.array(slow_histogram(band)) / ((len(band) - 15) if normalize else 1)
        found = features[0, 512 * place : 512 * (place + 1)]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_loudness_does_not_matter(sweep):
    samples = sweep(0.5)
    features = TwineShufflePattern().fit_transform([samples, samples / 8])
    np.testing.assert_array_equal(features[0], features[1])


def test_short_clips_leave_zeros():
    # 40 samples: 3 levels of 40, 26, 18 samples and a rest of 12.
    features = TwineShufflePattern(normalize=False).fit_transform([np.arange(40.0), np.ones(3)])
    sums = features.reshape(2, 9, 512).sum(axis=2)
    assert sums[0].tolist() == [50, 50, 22, 6, 0, 0, 0, 0, 0]
    assert not sums[1].any()


def test_rest_has_its_place_whatever_the_length():
    # At q=3 a level shortens the rest to 5/6: 80 samples allow 8 levels and leave 18.
    features = TwineShufflePattern(q=3.0, n_levels=12, normalize=False).fit_transform(np.eye(1, 80))
    sums = features.reshape(14, 512).sum(axis=1)
    assert sums[-1] == 2 * 3
    assert not sums[9:13].any()


def test_files_waveforms_and_matrix_agree(write_wav, sweep):
    samples = sweep(0.3)
    path = write_wav("a.wav", samples)
    transformer = TwineShufflePattern(n_levels=2)
    of_path = transformer.fit_transform([path])
    np.testing.assert_array_equal(transformer.fit_transform([samples]), of_path)
    np.testing.assert_array_equal(transformer.fit_transform(samples[None]), of_path)
    assert transformer.input_is_cells_ is False


def test_duration_and_trim(sweep):
    samples = np.concatenate([np.zeros(8000, np.float32), sweep(0.5), np.zeros(8000, np.float32)])
    crop = TwineShufflePattern(duration=0.5).fit_transform([samples])
    np.testing.assert_array_equal(crop, TwineShufflePattern().fit_transform([samples[8000:16000]]))
    np.testing.assert_array_equal(
        TwineShufflePattern(duration=0.5).fit_transform(samples[None]), crop
    )
    trimmed = TwineShufflePattern(normalize=False, trim=60.0)
    assert trimmed.fit_transform([samples])[0, :256].sum() < 12000
    np.testing.assert_array_equal(
        trimmed.fit_transform(samples[None]), trimmed.fit_transform([samples])
    )


def test_modality_table_is_read_by_its_voices(sweep):
    voices = [sweep(0.2, seed=i) for i in range(3)]
    table = make_table(visual=["a.mp4", None, "c.mp4"], audio=voices)
    transformer = TwineShufflePattern(n_levels=2).fit(table)
    of_table = transformer.transform(table)
    np.testing.assert_array_equal(of_table, TwineShufflePattern(n_levels=2).transform(voices))
    np.testing.assert_array_equal(of_table, transformer.transform(table[["audio"]]))
    assert transformer.feature_names_in_.tolist() == ["audio"]


def test_missing_voice_is_refused(sweep):
    table = make_table(visual=["a.mp4"] * 3, audio=[sweep(0.1), None, None])
    with pytest.raises(ValueError, match=r"row 1 has no voice \(2 of 3 rows\).*notna"):
        TwineShufflePattern().fit_transform(table)


def test_bad_cell_is_named(sweep):
    with pytest.raises(MediaError, match="row 1"):
        TwineShufflePattern().fit_transform([sweep(0.1), np.zeros((2, 5))])


@pytest.mark.parametrize("n_levels", [1, 2])
def test_names(n_levels, sweep):
    transformer = TwineShufflePattern(n_levels=n_levels).set_output(transform="pandas")
    frame = transformer.fit_transform(pd.DataFrame({"voice": [sweep(0.1)]}))
    assert isinstance(frame, pd.DataFrame)
    assert frame.columns[0] == "signal_byte0_0"
    assert frame.columns[512 * n_levels + 256] == f"level{n_levels}_byte1_0"
    assert frame.columns[-1] == "rest_byte1_255"


def test_cache_knows_the_parameters(write_wav, sweep, tmp_path):
    path = write_wav("a.wav", sweep(0.2))
    cached = {"cache_dir": tmp_path / "cache", "verbose": 0}
    for parameters in ({}, {"q": 2.0}, {"r": 4.0}, {"n_levels": 3}, {"normalize": False}):
        expected = TwineShufflePattern(**parameters).fit_transform([path])
        for _ in range(2):
            found = TwineShufflePattern(**parameters, **cached).fit_transform([path])
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sample_rate": 0}, "sample_rate=0"),
        ({"duration": 0.0}, "duration=0.0"),
        ({"trim": True}, "trim must be False"),
        ({"q": 0}, "q=0 must be at least 1"),
        ({"n_levels": 0}, "n_levels=0"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        TwineShufflePattern(**parameters).fit(np.zeros((2, 100)))


def test_real_clips():
    folder = os.environ.get("SKFDAN_DATA")
    if not folder or not (Path(folder) / "ravdess").is_dir():
        pytest.skip("SKFDAN_DATA has no ravdess")
    clips = sorted((Path(folder) / "ravdess" / "Actor_01").glob("03-01-*"))[:2]
    features = TwineShufflePattern(normalize=True).fit_transform(clips)
    np.testing.assert_allclose(features.reshape(2, 18, 256).sum(axis=2), 1, rtol=1e-5)
