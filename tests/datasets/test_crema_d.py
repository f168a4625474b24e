import os
from pathlib import Path

import pytest

from skfdan.datasets import load_crema_d
from skfdan.datasets.crema_d import KNOWN_DEFECTS


def touch(root, *names):
    for path in (root / name for name in names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def suffixes(data):
    return [[None if p is None else Path(p).suffix for p in row] for row in data.table.to_numpy()]


def test_fields(tmp_path):
    touch(tmp_path, "AudioWAV/1001_IEO_HAP_LO.wav", "AudioWAV/1040_ITH_SAD_X.wav")
    (tmp_path / "VideoDemographics.csv").write_text(
        '"ActorID","Age","Sex","Race","Ethnicity"\n1001,51,"Male","Caucasian","Not Hispanic"\n'
    )
    data = load_crema_d(tmp_path)
    first, second = data.frame.to_dict("records")
    assert first == {
        "clip": "1001_IEO_HAP_LO",
        "corpus": "crema-d",
        "speaker": "crema-d-1001",
        "emotion": "happiness",
        "intensity": "low",
        "statement": "IEO",
        "text": "It's eleven o'clock",
        "sex": "male",
        "age": 51,
    }
    assert second["intensity"] == "unspecified"
    assert data.frame["age"].isna().tolist() == [False, True]
    assert data.report.empty


def test_without_demographics(tmp_path):
    touch(tmp_path, "1001_IEO_HAP_LO.wav")
    assert load_crema_d(tmp_path).frame[["sex", "age"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1001,51,Male\n1001,51,Male\n", "data row 2 of .* has an ActorID that is there already"),
        ("1001,51,Male\n1002,old,Male\n", "data row 2 of .* Age that is no whole number.*'old'"),
        ("1001,51.5,Male\n", "data row 1 of .* Age that is no whole number"),
    ],
)
def test_demographics_that_cannot_be_right(tmp_path, rows, message):
    touch(tmp_path, "1001_IEO_HAP_LO.wav")
    (tmp_path / "VideoDemographics.csv").write_text(f"ActorID,Age,Sex\n{rows}")
    with pytest.raises(ValueError, match=rf"CREMA-D: {message}") as error:
        load_crema_d(tmp_path)
    assert repr(str(tmp_path / "VideoDemographics.csv")) in str(error.value)


def test_all_emotions(tmp_path):
    codes = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
    touch(tmp_path, *(f"1091_DFA_{c}_XX.wav" for c in codes))
    assert load_crema_d(tmp_path).target.tolist() == [
        "anger",
        "disgust",
        "fear",
        "happiness",
        "neutral",
        "sadness",
    ]


def test_preferred_files(tmp_path):
    for clip, kinds in {
        "1001_DFA_ANG_XX": ("wav", "mp3", "flv", "mp4"),
        "1002_DFA_ANG_XX": ("mp3", "flv"),
        "1003_DFA_ANG_XX": ("flv",),
        "1004_DFA_ANG_XX": ("wav",),
    }.items():
        folders = {"wav": "AudioWAV", "mp3": "AudioMP3", "flv": "VideoFlash", "mp4": "VideoMP4"}
        touch(tmp_path, *(f"{folders[k]}/{clip}.{k}" for k in kinds))
    data = load_crema_d(tmp_path)
    assert suffixes(data) == [
        [".mp4", ".wav"],
        [".flv", ".mp3"],
        [".flv", ".flv"],
        [None, ".wav"],
    ]
    assert data.report["stage"].tolist() == ["unused", "unused"]
    assert data.report["reason"].str.contains("1 file").all()


def test_known_defects(tmp_path):
    for clip in (*KNOWN_DEFECTS, "1001_DFA_ANG_XX"):
        touch(tmp_path, *(f"{clip}.{kind}" for kind in ("wav", "mp3", "flv")))
    data = load_crema_d(tmp_path)
    # Only the wav files of three of the four are right.
    assert data.frame["clip"].tolist() == [
        "1001_DFA_ANG_XX",
        "1064_IEO_DIS_MD",
        "1064_TIE_SAD_XX",
        "1076_MTI_NEU_XX",
    ]
    assert suffixes(data) == [[".flv", ".wav"]] + [[None, ".wav"]] * 3
    media = data.report[data.report["stage"] == "media"]
    assert len(media) == 3 * 2 + 3
    assert media["reason"].str.contains("known defect").all()
    assert len(load_crema_d(tmp_path, keep_defective=True).table) == 5


def test_git_lfs_pointer(tmp_path):
    (tmp_path / "1001_DFA_ANG_XX.wav").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    with pytest.raises(ValueError, match=r"1001_DFA_ANG_XX\.wav' is a Git LFS pointer.*lfs pull"):
        load_crema_d(tmp_path)


@pytest.mark.parametrize(
    "bad",
    [
        "1000_DFA_ANG_XX.txt",
        "1092_DFA_ANG_XX.wav",
        "2001_DFA_ANG_XX.wav",
        "1001_ABC_ANG_XX.wav",
        "1001_DFA_SUR_XX.wav",
        "1001_DFA_ANG_ZZ.wav",
        "docs/VideoDemographics.csv",
    ],
)
def test_names_off_the_scheme(tmp_path, bad):
    touch(tmp_path, "1001_DFA_ANG_XX.wav", bad)
    data = load_crema_d(tmp_path)
    assert len(data.table) == 1
    assert data.report["file"].tolist() == [str(tmp_path / bad)]


def test_a_clone_whose_files_were_not_fetched(tmp_path):
    (tmp_path / "AudioWAV").mkdir()
    for name in ("1001_DFA_ANG_XX.wav", "1002_DFA_ANG_XX.wav"):
        os.symlink("../.git/annex/objects/gone", tmp_path / "AudioWAV" / name)
    with pytest.raises(FileNotFoundError, match=r"2 of its files .*1001_DFA.*`git annex get`"):
        load_crema_d(tmp_path)
    (tmp_path / "AudioWAV/1003_DFA_ANG_XX.wav").touch()
    data = load_crema_d(tmp_path)
    assert data.groups.tolist() == ["crema-d-1003"]
    assert data.report["stage"].tolist() == ["open", "open"]
