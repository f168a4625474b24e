from pathlib import Path

import pytest

from skfdan.datasets import load_ravdess


def touch(root, *names):
    for path in (root / name for name in names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def name(path):
    return path and Path(path).name


def test_fields(tmp_path):
    touch(tmp_path, "Actor_12/03-01-06-02-02-01-12.wav")
    row = load_ravdess(tmp_path).frame.loc[0].to_dict()
    assert row == {
        "clip": "01-06-02-02-01-12",
        "corpus": "ravdess",
        "speaker": "ravdess-12",
        "emotion": "fear",
        "sex": "female",
        "channel": "speech",
        "intensity": "strong",
        "statement": "02",
        "text": "Dogs are sitting by the door",
        "repetition": 1,
    }


def test_all_emotion_codes_and_sexes(tmp_path):
    touch(tmp_path, *(f"03-01-0{e}-01-01-01-0{e}.wav" for e in range(1, 9)))
    data = load_ravdess(tmp_path)
    assert data.target.tolist() == [
        "neutral",
        "calm",
        "happiness",
        "sadness",
        "anger",
        "fear",
        "disgust",
        "surprise",
    ]
    assert data.frame["sex"].tolist() == ["male", "female"] * 4


@pytest.mark.parametrize(
    "folders",
    [
        ("Audio_Speech_Actors_01-24/Actor_05/", "Video_Speech_Actor_05/Actor_05/"),
        ("Actor_05/", "Actor_05/"),
        ("", ""),
    ],
)
def test_the_files_of_one_take_are_one_row(tmp_path, folders):
    sound, video = folders
    touch(
        tmp_path,
        f"{sound}03-01-03-01-01-01-05.wav",
        f"{video}01-01-03-01-01-01-05.mp4",
        f"{video}02-01-03-01-01-01-05.mp4",
        f"{video}02-01-03-01-01-02-05.mp4",
        f"{video}01-01-03-01-02-01-05.mp4",
    )
    data = load_ravdess(tmp_path)
    assert data.frame["clip"].tolist() == [
        "01-03-01-01-01-05",
        "01-03-01-01-02-05",
        "01-03-01-02-01-05",
    ]
    assert [[name(p) for p in row] for row in data.table.to_numpy()] == [
        ["01-01-03-01-01-01-05.mp4", "03-01-03-01-01-01-05.wav"],
        ["02-01-03-01-01-02-05.mp4", None],
        ["01-01-03-01-02-01-05.mp4", "01-01-03-01-02-01-05.mp4"],
    ]
    assert data.report["stage"].tolist() == ["unused"]
    assert "1 file(s) of kind '02'" in data.report["reason"][0]


def test_channel(tmp_path):
    touch(tmp_path, "03-01-01-01-01-01-01.wav", "03-02-01-01-01-01-01.wav")
    data = load_ravdess(tmp_path)
    assert data.frame["channel"].tolist() == ["speech"]
    assert data.report["stage"].tolist() == ["channel"]
    assert load_ravdess(tmp_path, channel="song").frame["clip"].tolist() == ["02-01-01-01-01-01"]
    both = load_ravdess(tmp_path, channel="all")
    assert both.frame["channel"].tolist() == ["speech", "song"]
    assert both.report.empty
    with pytest.raises(ValueError, match=r"channel='talk'.*\['speech', 'song', 'all'\]"):
        load_ravdess(tmp_path, channel="talk")


def test_channel_that_is_not_there(tmp_path):
    touch(tmp_path, "03-02-01-01-01-01-01.wav")
    with pytest.raises(ValueError, match="no take of channel='speech'"):
        load_ravdess(tmp_path)


@pytest.mark.parametrize(
    "bad",
    [
        "04-01-01-01-01-01-01.wav",
        "03-03-01-01-01-01-01.wav",
        "03-01-09-01-01-01-01.wav",
        "03-01-01-03-01-01-01.wav",
        "03-01-01-01-03-01-01.wav",
        "03-01-01-01-01-03-01.wav",
        "03-01-01-01-01-01-25.wav",
        "03-01-01-01-01-01-00.wav",
        "03-01-01-01-01-01.wav",
        "03-01-01-01-01-01-01 (1).wav",
        "03-01-01-01-01-01-01.mp4",
        "01-01-01-01-01-01-01.wav",
    ],
)
def test_names_off_the_scheme(tmp_path, bad):
    touch(tmp_path, "03-01-05-01-01-01-01.wav", bad)
    data = load_ravdess(tmp_path)
    assert len(data.table) == 1
    assert data.report["file"].tolist() == [str(tmp_path / bad)]


def test_two_forms_of_one_recording_are_a_duplicate(tmp_path):
    touch(tmp_path, "03-01-05-01-01-01-01.wav", "03-01-05-01-01-01-01.flac")
    with pytest.raises(ValueError, match="there twice"):
        load_ravdess(tmp_path)


def test_real_corpus(real_data):
    data = load_ravdess(real_data / "ravdess")
    assert len(data.table) == 1440
    assert len(set(data.groups)) == 24
    assert data.frame["emotion"].value_counts().to_dict() == {
        "neutral": 96,
        **dict.fromkeys(
            ["calm", "happiness", "sadness", "anger", "fear", "disgust", "surprise"], 192
        ),
    }
    assert data.frame["clip"].is_unique
    assert data.frame.groupby("speaker").size().eq(60).all()
    assert data.report.empty
    assert all(Path(file).is_file() for file in data.table["audio"])
