import numpy as np
import pytest

from skfdan.preprocessing.tqwt import itqwt, max_tqwt_levels, tqwt

PARAMETERS = [(1.0, 3.0), (1.0, 1.5), (2.0, 3.0), (4.0, 5.0)]


def noise(n, seed=0):
    return np.random.default_rng(seed).standard_normal(n)


@pytest.mark.parametrize("n", [64, 65, 998, 4001])
@pytest.mark.parametrize(("q", "r"), PARAMETERS)
def test_energy_and_reconstruction(n, q, r):
    x = noise(n)
    n_levels = min(7, max_tqwt_levels(n, q, r))
    bands = tqwt(x, q, r, n_levels)
    assert len(bands) == n_levels + 1
    assert sum(band @ band for band in bands) == pytest.approx(x @ x)
    np.testing.assert_allclose(itqwt(bands, n, q, r), x, atol=1e-12)


def slow_response(w, alpha, beta):
    """H0 and H1 of Selesnick (2011), equations of section III, at one frequency in [0, pi]."""

    def theta(v):
        return 0.5 * (1 + np.cos(v)) * np.sqrt(2 - np.cos(v))

    if w <= (1 - beta) * np.pi:
        return 1.0, 0.0
    if w >= alpha * np.pi:
        return 0.0, 1.0
    scale = alpha + beta - 1
    return theta((w + (beta - 1) * np.pi) / scale), theta((alpha * np.pi - w) / scale)


@pytest.mark.parametrize(("q", "r", "n"), [(1.0, 3.0, 600), (3.0, 2.0, 800), (1.0, 2.0, 512)])
def test_one_level_is_the_published_filter_bank(q, r, n):
    # Lengths at which alpha n and beta n are even, so that nothing is rounded.
    beta = 2 / (q + 1)
    alpha = 1 - beta / r
    x = noise(n)
    spectrum = np.fft.fft(x)
    low, high = np.zeros(round(alpha * n), complex), np.zeros(round(beta * n), complex)
    for k in range(n // 2):
        h0, h1 = slow_response(2 * np.pi * k / n, alpha, beta)
        for sign in (1, -1) if k else (1,):
            if h0:
                low[sign * k] = h0 * spectrum[sign * k]
            if h1:
                # High-pass scaling: half the sampling rate stays where it is.
                high[sign * (k - (n - len(high)) // 2)] = h1 * spectrum[sign * k]
    high[len(high) // 2] = spectrum[n // 2]
    wavelet, rest = tqwt(x, q, r, 1)
    np.testing.assert_allclose(wavelet, np.fft.ifft(high).real * np.sqrt(len(high) / n), atol=1e-12)
    np.testing.assert_allclose(rest, np.fft.ifft(low).real * np.sqrt(len(low) / n), atol=1e-12)


@pytest.mark.parametrize(("q", "r"), [(1.0, 3.0), (3.0, 3.0)])
@pytest.mark.parametrize("level", range(1, 7))
def test_a_tone_at_the_centre_of_a_subband(q, r, level):
    # Centre of the band of level j: alpha^j (2 - beta) / (4 alpha) of the sampling rate.
    beta = 2 / (q + 1)
    alpha = 1 - beta / r
    centre = alpha**level * (2 - beta) / (4 * alpha)
    bands = tqwt(np.cos(2 * np.pi * centre * np.arange(8192)), q, r, 8)
    shares = [band @ band / 4096 for band in bands]
    # A level's low-pass channel stretches frequencies by 1 / alpha for the next.
    expected, passed, w = [], 1.0, 2 * np.pi * centre
    for _ in range(8):
        h0, h1 = slow_response(min(w, np.pi), alpha, beta)
        expected.append(passed * h1**2)
        passed *= h0**2
        w /= alpha
    np.testing.assert_allclose(shares, [*expected, passed], atol=0.02)
    if q > 1:
        assert int(np.argmax(shares)) == level - 1


def test_redundancy():
    x = noise(20000)
    assert sum(map(len, tqwt(x, 2.0, 3.0, 20))) / len(x) == pytest.approx(3.0, abs=0.05)


def test_number_of_levels():
    # alpha = 2/3, beta = 1: J levels need 8 * 1.5^J samples.
    assert [max_tqwt_levels(n) for n in (7, 8, 11, 12, 18)] == [0, 0, 0, 1, 2]
    tqwt(noise(18), n_levels=2)
    with pytest.raises(ValueError, match=r"18 samples allows 2 levels.*n_levels=3"):
        tqwt(noise(18), n_levels=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"q": 0.5}, "q=0.5 must be at least 1"),
        ({"r": 1.0}, "r=1.0 must be greater than 1"),
        ({"n_levels": 0}, "n_levels=0 must be a whole number"),
        ({"n_levels": 2.5}, "n_levels=2.5 must be a whole number"),
        ({"x": np.zeros((3, 100))}, r"shape \(3, 100\)"),
        ({"x": np.full(100, np.nan)}, "finite"),
        ({"x": noise(200), "q": 4.0, "r": 1.01, "n_levels": 1}, "do not overlap"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tqwt(**{"x": noise(100), **arguments})


def test_inverse_refuses_bands_of_other_lengths():
    with pytest.raises(ValueError, match="do not make 90 samples"):
        itqwt(tqwt(noise(100), n_levels=2), 90)
