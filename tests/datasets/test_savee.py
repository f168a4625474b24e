from pathlib import Path, PurePosixPath

import pytest

from skfdan.datasets import load_savee
from skfdan.datasets.savee import _parse


def touch(root, *names):
    for path in (root / name for name in names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_folders_and_prefixes_give_the_same(tmp_path):
    codes = ("a", "d", "f", "h", "n", "sa", "su")
    touch(tmp_path / "a", *(f"AudioData/{s}/{c}01.wav" for s in ("DC", "KL") for c in codes))
    touch(tmp_path / "b", *(f"{s}_{c}01.wav" for s in ("DC", "KL") for c in codes))
    a, b = load_savee(tmp_path / "a"), load_savee(tmp_path / "b")
    assert a.frame.equals(b.frame)
    assert (
        a.target.tolist()
        == [
            "anger",
            "disgust",
            "fear",
            "happiness",
            "neutral",
            "sadness",
            "surprise",
        ]
        * 2
    )
    assert a.groups.tolist() == ["savee-DC"] * 7 + ["savee-KL"] * 7
    assert a.frame.loc[0].to_dict() == {
        "clip": "DC_a01",
        "corpus": "savee",
        "speaker": "savee-DC",
        "emotion": "anger",
        "sex": "male",
        "statement": "01",
    }


def test_video_pairs_with_sound_in_spite_of_the_number_form(tmp_path):
    touch(tmp_path, "AudioData/JE/sa3.wav", "AudioVisualClip/JE/sa03.avi")
    touch(tmp_path, "AudioVisualClip/JE/n30.avi")
    data = load_savee(tmp_path)
    assert data.frame["clip"].tolist() == ["JE_n30", "JE_sa03"]
    names = data.table.map(lambda p: Path(p).name).to_numpy().tolist()
    assert names == [["n30.avi", "n30.avi"], ["sa03.avi", "sa3.wav"]]


@pytest.mark.parametrize("folder", ["Frames/JK/su15", "Frames/JK_su15"])
def test_folder_of_frames(tmp_path, folder):
    touch(tmp_path, "AudioData/JK/su15.wav", f"{folder}/001.jpg", f"{folder}/002.jpg")
    touch(tmp_path, f"{folder}/Thumbs.db", "logo/logo.png")
    data = load_savee(tmp_path)
    assert data.table["visual"].tolist() == [str(tmp_path / folder)]
    assert data.table["audio"].tolist() == [str(tmp_path / "AudioData/JK/su15.wav")]
    assert sorted(data.report["file"]) == [
        str(tmp_path / folder / "Thumbs.db"),
        str(tmp_path / "logo"),
    ]


def test_video_is_preferred_to_frames(tmp_path):
    touch(tmp_path, "DC/a01/1.jpg", "DC/a01.avi")
    data = load_savee(tmp_path)
    assert data.table["visual"].tolist() == [str(tmp_path / "DC/a01.avi")]
    assert "of kind 'frames'" in data.report["reason"][0]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("AudioData/Info.txt", "neither"),
        ("a01.wav", "speaker"),
        ("XX/a01.wav", "speaker"),
        ("DC/x01.wav", "letters"),
        ("DC/a16.wav", "no sentence 16"),
        ("DC/n31.wav", "no sentence 31"),
        ("DC/a00.wav", "no sentence 0"),
        ("DC/a01", "neither"),
    ],
)
def test_names_off_the_scheme(tmp_path, bad, reason):
    touch(tmp_path, "KL/n30.wav", bad)
    data = load_savee(tmp_path)
    assert data.groups.tolist() == ["savee-KL"]
    assert data.report["file"].tolist() == [str(tmp_path / bad)]
    assert reason in data.report["reason"][0]


def test_both_layouts_at_once_are_a_duplicate(tmp_path):
    touch(tmp_path, "AudioData/DC/a01.wav", "ALL/DC_a01.wav")
    with pytest.raises(ValueError, match=r"'DC_a01' is there twice"):
        load_savee(tmp_path)


def test_case_of_a_speakers_folder_does_not_count(tmp_path):
    touch(tmp_path, "audiodata/dc/a01.wav")
    assert load_savee(tmp_path).groups.tolist() == ["savee-DC"]


def test_the_innermost_folder_names_the_speaker():
    clip, _, fields = _parse(PurePosixPath("KL/copies/DC/a01.wav"), Path())
    assert clip == "DC_a01"
    assert fields["speaker"] == "savee-DC"
