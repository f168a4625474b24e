import numpy as np
import pandas as pd
import pytest
import soundfile
from sklearn.model_selection import LeaveOneGroupOut

from skfdan.datasets import check_corpus, load_iemocap
from skfdan.datasets.iemocap import CODES

HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
VOTES = "C-E2:\tNeutral;\t()\nC-F1:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
TEN = tuple(CODES)


def write_dialogue(root, session, name, turns):
    """Write labels, transcripts and sounds of turns (letter and number, label)."""
    dialogue = f"Ses0{session}{name}"
    folder = root / f"Session{session}"
    labels, transcripts = HEADER, ""
    for i, (turn, code) in enumerate(turns):
        clip, start, end = f"{dialogue}_{turn}", 6.5 + 3 * i, 8.25 + 3 * i
        labels += f"[{start:.4f} - {end:.4f}]\t{clip}\t{code}\t[2.5000, 3.0000, 1.5000]\n{VOTES}"
        transcripts += f"{clip} [{start:08.4f}-{end:08.4f}]: I say {i}.\nM: Mhm.\n"
        wav = folder / "sentences" / "wav" / dialogue / f"{clip}.wav"
        wav.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng([session, i]).normal(0, 0.1, 8000)
        soundfile.write(wav, noise, 16000)
    for kind, content in (("EmoEvaluation", labels), ("transcriptions", transcripts)):
        path = folder / "dialog" / kind / f"{dialogue}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return dialogue


@pytest.fixture
def release(tmp_path):
    """Five sessions; an improvised dialogue of each label, and a scripted one in the first."""
    root = tmp_path / "IEMOCAP_full_release"
    for session in range(1, 6):
        turns = [(f"{'FM'[i % 2]}{i // 2:03d}", code) for i, code in enumerate(TEN)]
        write_dialogue(root, session, "F_impro01", turns)
    write_dialogue(root, 1, "M_script01_1b", [("M000", "sad"), ("FXX0", "ang")])
    return root


@pytest.mark.parametrize(
    ("label_map", "names"),
    [
        (4, ["anger", "happiness", "happiness", "sadness", "neutral"]),
        (6, ["anger", "happiness", "excitement", "sadness", "neutral", "frustration"]),
        ({"fru": "bad", "fea": "bad", "ang": None}, ["bad", "bad"]),
    ],
)
def test_label_maps(release, label_map, names):
    data = load_iemocap(release, label_map)
    second = data.frame["session"] == 2
    assert data.target[second].tolist() == names
    dropped = len(TEN) - len(names)
    assert data.report["stage"].eq("emotions").sum() == dropped


def test_table_and_frame(release):
    data = load_iemocap(release)
    assert list(data.table.columns) == ["visual", "audio", "text"]
    assert data.table["visual"].isna().all()
    wav = release / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    assert data.table.loc[0].tolist() == [None, str(wav), "I say 0."]
    assert data.frame.loc[0].to_dict() == {
        "clip": "Ses01F_impro01_F000",
        "corpus": "iemocap",
        "speaker": "iemocap-1F",
        "emotion": "anger",
        "session": 1,
        "dialogue": "Ses01F_impro01",
        "utterance": 0,
        "text": "I say 0.",
        "start": 6.5,
        "end": 8.25,
        "label": "ang",
        "valence": 2.5,
        "activation": 3.0,
        "dominance": 1.5,
        "sex": "female",
        "style": "improvised",
    }
    script = data.frame[data.frame["dialogue"] == "Ses01M_script01_1b"]
    assert script["speaker"].tolist() == ["iemocap-1M", "iemocap-1F"]
    assert script["style"].tolist() == ["scripted"] * 2
    assert check_corpus(data, timeout=None).summary["rows"] == 27


def test_sessions_are_folds_that_share_no_speaker(release):
    data = load_iemocap(release)
    folds = list(LeaveOneGroupOut().split(data.table, data.target, data.frame["session"]))
    assert len(folds) == 5
    for train, test in folds:
        assert not set(data.groups[train]) & set(data.groups[test])
        assert len(set(data.groups[test])) == 2


def test_one_session_and_a_folder_above(release):
    whole = load_iemocap(release.parent)
    assert len(whole.table) == 27
    one = load_iemocap(release / "Session3")
    assert set(one.groups) == {"iemocap-3F", "iemocap-3M"}
    pd.testing.assert_frame_equal(
        one.frame, whole.frame[whole.frame["session"] == 3].reset_index(drop=True)
    )


def test_utterances_are_in_the_order_of_time(release):
    path = release / "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt"
    first = load_iemocap(release, 6).frame
    path.write_text("\n".join(reversed(path.read_text().splitlines())))
    pd.testing.assert_frame_equal(load_iemocap(release, 6).frame, first)
    second = first[first["session"] == 2]
    assert second["start"].is_monotonic_increasing
    assert second["utterance"].tolist() == [TEN.index(code) for code in second["label"]]


def test_other_files_of_the_release_are_counted_only(release):
    for name in (
        "dialog/EmoEvaluation/Categorical/Ses01F_impro01_e2_cat.txt",
        "dialog/wav/Ses01F_impro01.wav",
        "sentences/ForcedAlignment/Ses01F_impro01/Ses01F_impro01_F000.wdseg",
        "dialog/EmoEvaluation/._Ses01F_impro01.txt",
    ):
        path = release / "Session1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"[\xff")
    report = load_iemocap(release).report
    assert "3 file(s) that are no labels" in report["reason"][report["stage"] == "unused"].item()
    assert report["reason"].str.contains("hidden file").sum() == 1


def test_missing_transcripts_are_missing_cells_with_one_warning(release):
    (release / "Session2/dialog/transcriptions/Ses02F_impro01.txt").unlink()
    path = release / "Session3/dialog/transcriptions/Ses03F_impro01.txt"
    path.write_text(path.read_text().replace("I say 0.", " "))
    with pytest.warns(UserWarning, match=r"6 of 27 utterances have no transcript.*Ses02F") as seen:
        data = load_iemocap(release)
    assert len(seen) == 1
    assert data.table["text"].isna().sum() == 6
    assert data.table["text"][data.frame["session"] == 2].tolist() == [None] * 5
    assert data.table["audio"].notna().all()


def test_transcripts_of_another_encoding(release):
    path = release / "Session1/dialog/transcriptions/Ses01F_impro01.txt"
    path.write_bytes(path.read_bytes().replace(b"I say 0.", b"It\x92s 0."))
    assert load_iemocap(release).table["text"][0] == "It\u2019s 0."


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("EmoEvaluation", "\tang\t[2.5000, 3.0000", "\tang\t[2.5000; 3.0000"),
        ("EmoEvaluation", "[6.5000 - 8.2500]", "6.5000 - 8.2500"),
        ("EmoEvaluation", "[6.5000 -", "[6.5.00 -"),
        ("EmoEvaluation", "Ses04F_impro01_F000", "Ses07F_impro01_F000"),
        ("transcriptions", "[006.5000-008.2500]:", "[006.5000]"),
    ],
)
def test_malformed_line_names_file_and_line(release, kind, old, new):
    path = release / "Session4/dialog" / kind / "Ses04F_impro01.txt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    line = 3 if kind == "EmoEvaluation" else 1
    with pytest.raises(ValueError, match=rf"line {line} of '.*Ses04F_impro01.txt'.*not of the"):
        load_iemocap(release)


def test_unknown_label_names_file_and_line(release):
    path = release / "Session4/dialog/EmoEvaluation/Ses04F_impro01.txt"
    path.write_text(path.read_text().replace("\tang\t", "\tabc\t", 1))
    with pytest.raises(ValueError, match=r"line 3 of '.*Ses04F_impro01.txt' has the label 'abc'"):
        load_iemocap(release)


def test_missing_sound(release):
    gone = release / "Session5/sentences/wav/Ses05F_impro01/Ses05F_impro01_F000.wav"
    gone.unlink()
    data = load_iemocap(release)
    assert len(data.table) == 26
    assert "Ses05F_impro01_F000" in data.report["file"].tolist()
    data = load_iemocap(release, media="optional")
    assert len(data.table) == 27
    assert data.table["audio"].isna().sum() == 1
    assert data.table["text"].notna().all()
    for wav in release.glob("*/sentences/wav/*/*.wav"):
        wav.unlink()
    with pytest.raises(FileNotFoundError, match=r"27 utterances are labelled.*media='optional'"):
        load_iemocap(release)
    assert load_iemocap(release, media="optional").table["audio"].tolist() == [None] * 27


def test_what_is_there_twice(release):
    path = release / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    copy = release / "copy/Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    copy.parent.mkdir(parents=True)
    copy.write_text(path.read_text())
    with pytest.raises(ValueError, match=r"'Ses01F_impro01' is there twice"):
        load_iemocap(release)
    copy.unlink()
    path.write_text(path.read_text() * 2)
    with pytest.raises(ValueError, match=r"'Ses01F_impro01_F000' is labelled twice"):
        load_iemocap(release)


def test_options(release):
    assert set(load_iemocap(release, emotions={"anger": None}).target) == {
        "happiness",
        "neutral",
        "sadness",
    }
    for label_map, message in (
        (5, r"label_map=5 is not known; it must be one of \[4, 6\]"),
        ({"joy": "joy"}, r"label_map= has the labels \['joy'\]"),
        ({"ang": 1}, "map a label to a name"),
        ({}, r"label_map=\{\} leaves no utterance"),
    ):
        with pytest.raises(ValueError, match=message):
            load_iemocap(release, label_map)
    with pytest.raises(ValueError, match="media='none' is not known"):
        load_iemocap(release, media="none")


def test_folder_without_labels(tmp_path):
    (tmp_path / "a.wav").touch()
    with pytest.raises(FileNotFoundError, match="fits the IEMOCAP labels"):
        load_iemocap(tmp_path)
