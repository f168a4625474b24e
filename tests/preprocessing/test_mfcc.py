import librosa
import numpy as np
import pytest

from skfdan.preprocessing import MFCC


@pytest.mark.parametrize("seconds", [2.0, 6.0])
def test_defaults_are_those_of_gm_tcnet(seconds, sweep):
    samples = sweep(seconds, 22050)
    size = 96000
    fixed = (
        librosa.util.pad_center(samples, size=size)
        if len(samples) < size
        else samples[(len(samples) - size) // 2 :][:size]
    )
    ours = MFCC().transform([samples])[0, 0]
    assert ours.shape == (39, 188)
    assert ours.dtype == np.float32
    theirs = librosa.feature.mfcc(y=fixed, sr=22050, n_mfcc=39)
    np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_mfcc": 13, "n_mels": 40, "n_fft": 512, "hop_length": 160, "sample_rate": 16000},
        {"n_mfcc": 20, "n_mels": 64, "fmin": 50.0, "fmax": 8000.0, "win_length": 1200},
    ],
    ids=str,
)
def test_other_parameters_equal_librosa(parameters, sweep):
    rate = parameters.get("sample_rate", 22050)
    samples = sweep(1.5, rate)
    ours = MFCC(duration=None, **parameters).transform([samples])[0, 0]
    theirs = librosa.feature.mfcc(
        y=samples, sr=rate, **{k: v for k, v in parameters.items() if k != "sample_rate"}
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=0)


def test_file_and_matrix(write_wav, sweep, librosa_load):
    samples = sweep(1.0, 44100)
    path = write_wav("a.wav", samples, 44100)
    resampled = librosa_load(path, sr=22050)
    theirs = librosa.feature.mfcc(y=resampled, sr=22050, n_mfcc=39)
    ours = MFCC(duration=None).transform([path])[0, 0]
    np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=0)
    mfcc = MFCC().fit(resampled[None])
    flat = mfcc.transform(resampled[None])
    np.testing.assert_array_equal(flat.reshape(39, -1), ours)
    assert mfcc.get_feature_names_out()[-1] == f"mfcc38_frame{theirs.shape[1] - 1}"


def test_more_coefficients_than_bands():
    with pytest.raises(ValueError, match=r"n_mfcc=50.*n_mels=40"):
        MFCC(n_mfcc=50, n_mels=40).fit([None])
