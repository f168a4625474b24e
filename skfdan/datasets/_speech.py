"""Toy speech: a glottal pulse train sent through moving formants (source and filter)."""

from __future__ import annotations

import numpy as np

__all__ = ["EMOTION_VOICES", "NEUTRAL_VOICE", "draw_voice", "mix_voice", "speak"]

#: What a voice is made of. Everything is on a scale on which deviations add up.
NEUTRAL_VOICE = {
    "pitch": 0.0,  # semitones above 100 Hz
    "range": 1.3,  # semitones, standard deviation of the syllables' accents
    "slope": -3.0,  # semitones from the first to the last syllable
    "rate": 2.2,  # log2 of syllables a second
    "level": -27.0,  # dB full scale, root mean square while speaking
    "tilt": 0.0,  # dB an octave, on top of the glottal pulse's own
    "jitter": -7.0,  # log2 of the relative deviation of F0
    "breath": -24.0,  # dB, aspiration noise against voicing
    "formants": 0.0,  # log2 of the vocal tract's scale
    "pause": -0.6,  # log2 of the pauses' scale
}

#: Deviations from the speaker's neutral voice; directions after Banse & Scherer
#: (1996) and Juslin & Laukka (2003).
EMOTION_VOICES = {
    name: dict(zip(NEUTRAL_VOICE, values, strict=True))
    for name, values in {
        #           pitch range slope  rate level  tilt jitter breath formants pause
        "anger": (4.0, 0.9, -1.5, 0.25, 8.0, 3.0, 0.6, -4.0, 0.02, -0.8),
        "boredom": (-2.5, -0.9, -0.5, -0.45, -4.0, -1.0, 0.0, 2.0, -0.02, 0.8),
        "calm": (-1.0, -0.5, 0.0, -0.25, -3.0, -1.2, -0.3, 4.0, 0.0, 0.4),
        "disgust": (-1.5, 0.2, -2.0, -0.35, 0.5, 0.8, 1.6, 1.0, -0.12, 0.5),
        "fear": (6.5, -0.4, 1.5, 0.45, -0.5, 0.6, 2.0, 9.0, 0.04, 0.2),
        "happiness": (4.5, 1.4, 1.0, 0.15, 4.0, 2.0, 0.0, -3.0, 0.11, -0.4),
        "neutral": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        "sadness": (-2.0, -0.7, -1.0, -0.45, -7.0, -2.6, 0.5, 6.0, -0.03, 1.2),
        "surprise": (6.5, 2.0, 10.0, -0.15, 3.0, -1.2, 0.2, 4.0, -0.02, 0.0),
    }.items()
}

# Standard deviations: of speakers about the neutral voice, of one speaker's way of
# showing one emotion, of clips about that.
SPEAKER_SPREAD = (1.2, 0.25, 1.0, 0.1, 1.2, 0.5, 0.3, 1.5, 0.03, 0.25)
STYLE_SPREAD = (0.8, 0.2, 0.8, 0.06, 0.8, 0.3, 0.3, 1.2, 0.01, 0.2)
CLIP_SPREAD = (0.8, 0.2, 1.0, 0.08, 1.0, 0.3, 0.3, 1.2, 0.01, 0.25)

# F1, F2, F3 (Hz) of eight vowels of an adult male (after Peterson & Barney 1952).
VOWELS = np.array(
    [
        (270, 2290, 3010),  # i
        (390, 1990, 2550),  # ɪ
        (530, 1840, 2480),  # ɛ
        (660, 1720, 2410),  # æ
        (730, 1090, 2440),  # ɑ
        (570, 840, 2410),  # ɔ
        (300, 870, 2240),  # u
        (640, 1190, 2390),  # ʌ
    ],
    dtype=float,
)
# Onsets of a syllable: voicing, frication, centre of the frication (Hz).
ONSETS = np.array(
    [
        (0.8, 0.0, 4000),  # no consonant
        (0.35, 0.0, 4000),  # nasal or liquid
        (0.0, 0.0, 4000),  # stop
        (0.0, 0.25, 6200),  # s
        (0.0, 0.3, 3100),  # sh
        (0.0, 0.1, 5000),  # f
        (0.3, 0.15, 5200),  # z
    ]
)
HOP = 0.008  # seconds between two shapes of the vocal tract, about


def draw_voice(rng: np.random.Generator, *, high: bool) -> dict[str, float]:
    """Draw a speaker's neutral voice; ``high`` is a short vocal tract and a high F0."""
    voice = _jittered(NEUTRAL_VOICE, SPEAKER_SPREAD, rng)
    voice["pitch"] += 12.0 if high else 2.5
    voice["formants"] += 0.22 if high else 0.0
    return voice


def mix_voice(
    speaker: dict[str, float],
    emotion: str,
    separation: float,
    style_rng: np.random.Generator,
    clip_rng: np.random.Generator,
) -> dict[str, float]:
    """Put emotion, the speaker's way of showing it and the clip's chance on a neutral voice."""
    deviation = _jittered(EMOTION_VOICES[emotion], STYLE_SPREAD, style_rng)
    return _jittered(
        {name: value + separation * deviation[name] for name, value in speaker.items()},
        CLIP_SPREAD,
        clip_rng,
    )


def speak(
    voice: dict[str, float], rng: np.random.Generator, duration: float, sample_rate: int
) -> np.ndarray:
    """Utter a random sentence.

    Parameters
    ----------
    voice : dict
        The keys of `NEUTRAL_VOICE`.
    rng : Generator
        Draws the sentence, the accents and the noise.
    duration : float
        Length in seconds.
    sample_rate : int
        Samples a second.

    Returns
    -------
    ndarray of shape (round(duration * sample_rate),), dtype float32
        Sound between -1 and 1.
    """
    n = round(duration * sample_rate)
    hop = round(HOP * sample_rate)
    frames = np.arange(n // hop + 2) * hop / sample_rate
    tracks = _sentence(voice, rng, duration, frames)
    time = np.arange(n) / sample_rate

    f0 = 100 * 2 ** (np.interp(time, frames, tracks["semitones"]) / 12)
    # One deviation a hop is about one a glottal cycle.
    jitter = min(2 ** voice["jitter"], 0.08) * rng.standard_normal(len(frames))
    phase = np.cumsum(f0 * (1 + np.interp(time, frames, jitter))) / sample_rate
    cycle = np.floor(phase).astype(int)
    opening = (phase - cycle) / 0.6
    # Derivative of the KLGLOTT88 flow: the glottis is open for 60 % of the cycle.
    pulse = np.where(opening < 1, 2 * opening - 3 * opening**2, 0.0)
    pulse *= 1 + 2 * 2 ** voice["jitter"] * rng.standard_normal(cycle[-1] + 1)[cycle]
    aspiration = 10 ** (voice["breath"] / 20) * rng.standard_normal(n) * (0.5 + (opening < 1))
    voiced = np.interp(time, frames, tracks["voicing"]) * (pulse + aspiration)
    hiss = np.interp(time, frames, tracks["frication"]) * rng.standard_normal(n)

    n_fft = 8 * hop
    hertz = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    colour = (np.maximum(hertz, 100) / 500) ** (voice["tilt"] / 6.02)
    # Chance of the recording: the microphone's tilt, its gain, the room's noise.
    colour *= (np.maximum(hertz, 100) / 1000) ** (rng.normal(0, 0.5) / 6.02)
    speech = _filter(
        voiced, _formants(hertz, tracks["formants"], 2 ** voice["formants"]) * colour, hop, n_fft
    )
    speech += _filter(hiss, _bump(hertz, tracks["centre"]) * colour, hop, n_fft)
    loud = np.sqrt(np.mean(speech**2 * (tracks["voicing"].mean() ** -1)))
    gain = 10 ** ((voice["level"] + rng.normal(0, 1)) / 20) / loud
    room = rng.standard_normal(n) * 10 ** (rng.uniform(-66, -60) / 20)
    # The limiter only bends what would be cut off.
    return np.tanh(gain * speech + room).astype(np.float32)


def _jittered(values, spread, rng):
    chance = rng.standard_normal(len(values)) * spread
    return {name: value + d for (name, value), d in zip(values.items(), chance, strict=True)}


def _sentence(voice, rng, duration, frames):
    """Draw syllables and pauses; return what the mouth does at every hop."""
    rate = 2 ** voice["rate"]
    n = int(np.ceil(4 * rate * duration)) + 2
    length = rng.lognormal(0, 0.22, n) / rate
    gap = np.where(rng.random(n) < 0.2, rng.uniform(0.06, 0.3, n), 0) * 2 ** voice["pause"]
    onset = ONSETS[rng.choice(len(ONSETS), n, p=[0.15, 0.25, 0.25, 0.12, 0.07, 0.08, 0.08])]
    vowel = VOWELS[rng.integers(len(VOWELS), size=n)] * 2 ** voice["formants"]
    stress = rng.normal(0, 1, n)
    silence = rng.uniform(0.05, 0.15, 2) * min(1, duration)

    start = silence[0] + np.cumsum(length + gap) - length - gap
    # Syllables that do not fit are never begun, but the first always is.
    fits = start + length < duration - silence[1]
    fits[0] = True
    n = np.count_nonzero(fits)
    start, length, onset, vowel, stress = (a[:n] for a in (start, length, onset, vowel, stress))

    def track(where, what):
        """Join the corners of all syllables; `where` counts in syllable lengths."""
        corners = start[:, None] + np.asarray(where) * length[:, None]
        values = np.stack(np.broadcast_arrays(*what), axis=1)
        return np.interp(frames, corners.ravel(), values.ravel())

    strength = 10 ** (1.5 * stress / 20)
    zero = np.zeros(n)
    position = np.linspace(0, 1, n) - 0.5
    return {
        "voicing": track(
            (0, 0.03, 0.28, 0.4, 0.8, 0.999),
            (zero, onset[:, 0], onset[:, 0], strength, strength, zero),
        ),
        "frication": track(
            (0, 0.05, 0.28, 0.36, 0.999), (zero, onset[:, 1], onset[:, 1], zero, zero)
        ),
        "centre": track((0, 0.4), (onset[:, 2], onset[:, 2])),
        "formants": np.stack(
            [track((0.15, 0.4, 0.8), (0.8 * f + 0.2 * f.mean(), f, f)) for f in vowel.T], axis=1
        ),
        "semitones": track(
            (0.5,),
            (voice["pitch"] + voice["slope"] * position + max(voice["range"], 0.1) * stress,),
        ),
    }


def _formants(hertz, formants, scale):
    """Response of the vocal tract, a cascade of resonances, shape (hops, bins)."""

    def resonance(f, bandwidth):
        return f**2 / (f**2 - hertz**2 + 1j * hertz * bandwidth)

    # F4 and above stay where the length of the tract puts them.
    higher = scale * np.arange(3500.0, 8000.0, 1000.0)[:, None]
    response = np.prod(resonance(higher, 0.05 * higher), axis=0)
    for f, bandwidth in zip(formants.T, (70, 90, 130), strict=True):
        response = response * resonance(f[:, None], bandwidth)
    return response


def _bump(hertz, centre):
    return 1 / (1 + ((hertz - centre[:, None]) / 1200) ** 2)


def _filter(sound, response, hop, n_fft):
    """Filter by a response that changes from hop to hop: window, multiply, overlap, add."""
    n_frames = len(sound) // hop + 1
    padded = np.pad(sound, (hop, 2 * hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 2 * hop)[::hop][:n_frames]
    window = np.hanning(2 * hop + 1)[:-1]
    spectra = np.fft.rfft(frames * window, n_fft) * response[:n_frames]
    pieces = np.fft.irfft(spectra, n_fft).reshape(n_frames, n_fft // hop, hop)
    out = np.zeros((n_frames + n_fft // hop, hop))
    for k in range(n_fft // hop):
        out[k : k + n_frames] += pieces[:, k]
    return out.ravel()[hop : hop + len(sound)]
