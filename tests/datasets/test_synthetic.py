import itertools
import json
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from skfdan.datasets import _faces, _speech, make_emotion_clips
from skfdan.datasets._base import EMOTIONS as CANONICAL
from skfdan.table import MODALITIES

SMALL = {"duration": 0.6, "frame_size": 48, "fps": 10, "random_state": 0}


def decode(path):
    with av.open(path) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def pitch(sound, rate):
    """Median F0 by autocorrelation over the frames that are clearly periodic."""
    size = round(0.05 * rate)
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[:: size // 4]
    frames = frames[frames.std(axis=1) > 0.3 * sound.std()]
    power = abs(np.fft.rfft(frames * np.hanning(size), 4 * size)) ** 2
    correlation = np.fft.irfft(power)[:, :size]
    # The window's own autocorrelation would favour short lags.
    own = np.fft.irfft(abs(np.fft.rfft(np.hanning(size), 4 * size)) ** 2)[:size]
    correlation = correlation / correlation[:, :1] / (own / own[0]).clip(0.05)
    lags = np.arange(rate // 600, rate // 60)
    best = correlation[:, lags].argmax(axis=1)
    periodic = correlation[np.arange(len(frames)), lags[best]] > 0.6
    return np.median(rate / lags[best[periodic]])


def files(folder):
    return {p.name: p.read_bytes() for p in sorted(Path(folder).iterdir())}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_emotion_clips(14, 2, root=tmp_path_factory.mktemp("clips"), **SMALL)


def test_bunch(clips):
    assert list(clips.table.columns) == list(MODALITIES)
    assert clips.table.shape == (14, 2)
    assert clips.target.shape == clips.groups.shape == (14,)
    assert set(clips.groups) == {"speaker00", "speaker01"}
    assert list(clips.frame.columns) == [
        "clip",
        "corpus",
        "speaker",
        "emotion",
        "visual",
        "audio",
    ]
    assert clips.frame["clip"].is_unique
    assert (clips.frame["emotion"].to_numpy() == clips.target).all()
    assert list(clips.report.columns) == ["file", "stage", "reason"]
    assert clips.report.empty
    assert "synthetic" in clips.DESCR
    assert "say nothing about people" in clips.DESCR
    assert all(isinstance(cell, str) for cell in clips.table.to_numpy().ravel())


def test_media(clips):
    for visual, audio in clips.table.itertuples(index=False):
        sound, rate = soundfile.read(audio)
        assert rate == 16000
        assert sound.shape == (9600,)
        assert 0.01 < abs(sound).max() < 0.99
        with av.open(visual) as container:
            video, track = container.streams.video[0], container.streams.audio[0]
            assert (video.codec_context.name, video.pix_fmt) == ("h264", "yuv420p")
            assert (video.average_rate, video.height, video.width) == (10, 48, 48)
            assert (track.codec_context.name, track.rate, track.channels) == ("aac", 16000, 1)
        assert decode(visual).shape == (6, 48, 48, 3)


def test_the_sound_in_the_video_is_that_of_the_wav(tmp_path):
    clips = make_emotion_clips(1, 1, emotions=["anger"], duration=1.5, root=tmp_path)
    wav, _ = soundfile.read(clips.table.audio[0])
    with av.open(clips.table.visual[0]) as container:
        parts = [f.to_ndarray()[0] for f in container.decode(audio=0)]
    # Sample by sample: the codec's delay is made good.
    assert np.corrcoef(wav, np.concatenate(parts)[: len(wav)])[0, 1] > 0.9


def test_a_video_without_sound(tmp_path):
    clips = make_emotion_clips(7, 1, root=tmp_path, sound_in_video=False, **SMALL)
    with av.open(clips.table.visual[0]) as container:
        assert not container.streams.audio
        assert len(container.streams.video) == 1


@pytest.mark.parametrize(("fps", "sample_rate"), [(12, 8000), (25, 22050), (30, 44100)])
def test_other_rates(tmp_path, fps, sample_rate):
    kwargs = {**SMALL, "fps": fps}
    clips = make_emotion_clips(
        1, 1, emotions=["fear"], root=tmp_path, sample_rate=sample_rate, **kwargs
    )
    sound, rate = soundfile.read(clips.table.audio[0])
    assert rate == sample_rate
    assert len(sound) == round(0.6 * sample_rate)
    assert len(decode(clips.table.visual[0])) == round(0.6 * fps)


def test_the_same_seed_gives_the_same_files(clips, tmp_path):
    again = make_emotion_clips(14, 2, root=tmp_path, **SMALL)
    assert files(tmp_path) == files(Path(clips.table.audio[0]).parent)
    assert again.target.tolist() == clips.target.tolist()


@pytest.mark.slow
def test_files_do_not_depend_on_the_number_of_processes(clips, tmp_path):
    make_emotion_clips(14, 2, root=tmp_path, n_jobs=2, **SMALL)
    assert files(tmp_path) == files(Path(clips.table.audio[0]).parent)


def test_another_seed_gives_other_files(clips, tmp_path):
    make_emotion_clips(7, 2, root=tmp_path, **{**SMALL, "random_state": 1})
    here = files(Path(clips.table.audio[0]).parent)
    assert not any(here[name] == content for name, content in files(tmp_path).items())


def test_files_are_reused_and_more_may_be_asked_for(tmp_path):
    first = make_emotion_clips(7, 2, root=tmp_path, **SMALL)
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    again = make_emotion_clips(7, 2, root=tmp_path, **SMALL)
    assert again.table.equals(first.table)
    more = make_emotion_clips(9, 2, root=tmp_path, **SMALL)
    assert more.table[:7].equals(first.table)
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert len(list(tmp_path.iterdir())) == 2 * 9 + 1


def test_a_missing_file_is_made_again(clips):
    path = Path(clips.table.visual[3])
    content = path.read_bytes()
    path.unlink()
    make_emotion_clips(14, 2, root=path.parent, **SMALL)
    assert path.read_bytes() == content


def test_clips_without_their_parameters_are_not_trusted(tmp_path):
    first = make_emotion_clips(7, 1, root=tmp_path, **SMALL)
    wav = Path(first.table.audio[0])
    content = wav.read_bytes()
    (tmp_path / "make_emotion_clips.json").unlink()
    make_emotion_clips(7, 1, root=tmp_path, **{**SMALL, "random_state": 1})
    assert wav.read_bytes() != content


def test_other_parameters_in_the_same_folder_are_an_error(clips):
    folder = Path(clips.table.audio[0]).parent
    with pytest.raises(ValueError, match=r"separation=1\.0 there, 0\.5 asked for.*another root"):
        make_emotion_clips(14, 2, root=folder, separation=0.5, **SMALL)


def test_no_seed_goes_on_with_the_folders_own(tmp_path):
    kwargs = {**SMALL, "random_state": None}
    make_emotion_clips(7, 1, root=tmp_path / "a", **kwargs)
    before = files(tmp_path / "a")
    make_emotion_clips(8, 1, root=tmp_path / "a", **kwargs)
    after = files(tmp_path / "a")
    assert before.items() <= after.items()
    make_emotion_clips(7, 1, root=tmp_path / "b", **kwargs)
    assert files(tmp_path / "b").keys() == before.keys()
    assert files(tmp_path / "b") != before


def test_parameters_are_plain_json(tmp_path):
    whole = {k: np.int64(v) for k, v in SMALL.items() if isinstance(v, int)}
    kwargs = {**SMALL, **whole, "random_state": np.random.RandomState(0)}
    make_emotion_clips(np.int64(7), np.int64(1), root=str(tmp_path), **kwargs)
    note = json.loads((tmp_path / "make_emotion_clips.json").read_text())
    assert note["frame_size"] == 48
    assert note["random_state"] == note["seed"]


def test_the_temporary_folder_ends_with_the_process(monkeypatch):
    at_exit = []
    monkeypatch.setattr("atexit.register", lambda *args, **kwargs: at_exit.append((args, kwargs)))
    clips = make_emotion_clips(1, 1, emotions=["calm"], **SMALL)
    folder = Path(clips.table.audio[0]).parent
    assert len(files(folder)) == 3
    [((remove, *args), kwargs)] = at_exit
    remove(*args, **kwargs)
    assert not folder.exists()


@pytest.mark.parametrize(("n_emotions", "n_speakers"), [(7, 8), (7, 7), (4, 6), (2, 4), (3, 1)])
def test_emotions_are_balanced_and_crossed_with_speakers(monkeypatch, n_emotions, n_speakers):
    monkeypatch.setattr("skfdan.datasets.synthetic._make_clip", lambda *args: None)
    emotions = CANONICAL[:n_emotions]
    for n_clips in (2 * n_emotions * n_speakers, 2 * n_emotions * n_speakers - 3):
        clips = make_emotion_clips(n_clips, n_speakers, emotions=emotions)
        for part in (
            clips.target,
            clips.groups,
            list(zip(clips.target, clips.groups, strict=True)),
        ):
            counts = Counter(map(tuple, part)) if part is not clips.target else Counter(part)
            assert max(counts.values()) - min(counts.values()) <= 1
        assert len(set(zip(clips.target, clips.groups, strict=True))) == n_emotions * n_speakers


def test_all_canonical_emotions_are_known():
    assert set(_speech.EMOTION_VOICES) == set(_faces.EMOTION_FACES) == set(CANONICAL)
    for table, neutral in (
        (_speech.EMOTION_VOICES, _speech.NEUTRAL_VOICE),
        (_faces.EMOTION_FACES, _faces.NEUTRAL_FACE),
    ):
        assert all(list(row) == list(neutral) for row in table.values())
        assert set(table["neutral"].values()) == {0.0}


def test_emotion_and_speaker_are_heard(tmp_path):
    clips = make_emotion_clips(
        24, 2, emotions=["anger", "sadness"], root=tmp_path, **{**SMALL, "duration": 1.2}
    )
    sounds = [soundfile.read(path)[0] for path in clips.table.audio]
    frame = clips.frame.assign(
        f0=[pitch(sound, 16000) for sound in sounds], level=[sound.std() for sound in sounds]
    )
    mean = frame.groupby(["speaker", "emotion"])[["f0", "level"]].mean()
    for speaker in ("speaker00", "speaker01"):
        loud, soft = mean.loc[speaker, "anger"], mean.loc[speaker, "sadness"]
        assert loud.f0 > 1.2 * soft.f0
        assert loud.level > 2 * soft.level
    for emotion in ("anger", "sadness"):
        assert mean.loc[("speaker01", emotion), "f0"] > 1.3 * mean.loc[("speaker00", emotion), "f0"]


@pytest.mark.parametrize("emotion", CANONICAL)
@pytest.mark.parametrize("high", [False, True])
def test_the_pitch_is_the_one_asked_for(emotion, high):
    voice = dict(_speech.NEUTRAL_VOICE, pitch=14.0 if high else 3.0, range=0.2, slope=0.0)
    voice["pitch"] += _speech.EMOTION_VOICES[emotion]["pitch"]
    sound = _speech.speak(voice, np.random.default_rng(0), 1.5, 16000)
    assert pitch(sound, 16000) == pytest.approx(100 * 2 ** (voice["pitch"] / 12), rel=0.05)


@pytest.mark.parametrize("separation", [0.0, 3.0])
def test_extreme_voices_are_still_sound(separation):
    rng = np.random.default_rng
    for emotion, seed in itertools.product(CANONICAL, range(5)):
        voice = _speech.draw_voice(rng(seed), high=seed % 2 == 0)
        voice = _speech.mix_voice(voice, emotion, separation, rng(seed), rng(seed))
        sound = _speech.speak(voice, rng(seed), 0.5, 8000)
        assert np.isfinite(sound).all()
        assert 0 < abs(sound).max() <= 1


def test_no_separation_leaves_no_emotion():
    rng = np.random.default_rng
    voice, person = _speech.draw_voice(rng(0), high=True), _faces.draw_person(rng(0), 0, beard=True)
    for mix, who in ((_speech.mix_voice, voice), (_faces.mix_face, person)):
        same = [mix(who, e, 0.0, rng(i), rng(5)) for i, e in enumerate(CANONICAL)]
        assert all(one == same[0] for one in same)
        apart = [mix(who, e, 1.0, rng(i), rng(5)) for i, e in enumerate(CANONICAL)]
        assert all(a != b for a, b in itertools.combinations(apart, 2))


@pytest.mark.parametrize("number", range(8))
def test_emotion_is_seen(number):
    rng = np.random.default_rng
    person = _faces.draw_person(rng(number), number, beard=number % 2 == 0)

    def film(emotion):
        frames = _faces.film(person, _faces.EMOTION_FACES[emotion], np.zeros(20), rng(1), 10, 64)
        assert frames.shape == (20, 64, 64, 3)
        assert frames.dtype == np.uint8
        return frames.astype(float)

    # Calm looks much as neutral does.
    clips = {e: film(e) for e in CANONICAL if e != "calm"}
    # A median over frames has no blinks, a mean has.
    noise = max(abs(f.mean(0) - np.median(f, axis=0)).mean() for f in clips.values())
    for a, b in itertools.combinations(clips, 2):
        assert abs(clips[a].mean(0) - clips[b].mean(0)).mean() > noise, (a, b)


def test_speech_opens_the_mouth():
    rng = np.random.default_rng
    person = _faces.draw_person(rng(0), 0, beard=False)
    loudness = np.array([0.0, 1.0])
    frames = _faces.film(person, _faces.NEUTRAL_FACE, loudness, rng(0), 10, 128)
    inside = (frames[:, 80:120, 40:88] < (120, 75, 75)).all(axis=-1).sum(axis=(1, 2))
    assert inside[0] == 0
    assert inside[1] > 5


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_speakers": 0}, r"n_speakers=0 must be a whole number, at least 1"),
        ({"n_clips": 10.5}, r"n_clips=10\.5 must be a whole number"),
        ({"n_clips": 6}, r"n_clips=6 is too few; 7 emotions and 8 speakers need at least 8"),
        ({"emotions": ["anger", "hunger"]}, r"unknown emotions \['hunger'\]; known are \['anger'"),
        ({"emotions": "anger"}, r"is a single name; give a list"),
        ({"emotions": []}, r"at least one emotion"),
        ({"emotions": ["anger", "anger"]}, r"each once"),
        ({"separation": -1}, r"separation=-1 must lie between 0 and 3"),
        ({"separation": float("nan")}, r"separation=nan"),
        ({"duration": 0.1}, r"duration=0\.1 must be at least 0\.5 seconds"),
        ({"frame_size": 65}, r"frame_size=65 must be even"),
        ({"frame_size": 16}, r"frame_size=16 must be a whole number, at least 32"),
        ({"fps": 7.5}, r"fps=7\.5 must be a whole number"),
        ({"sample_rate": 10}, r"sample_rate=10 must be one of \[8000, "),
    ],
)
def test_bad_arguments(kwargs, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_emotion_clips(root=tmp_path / "clips", **kwargs)
    assert not (tmp_path / "clips").exists()
