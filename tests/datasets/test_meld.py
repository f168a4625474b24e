from pathlib import Path

import pytest

from skfdan.datasets import load_meld
from skfdan.datasets.meld import KNOWN_DEFECTS


def touch(root, *names):
    for path in (root / name for name in names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


HEADER = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,"
    "StartTime,EndTime"
)
FOLDERS = {
    "train": "train_splits",
    "dev": "dev_splits_complete",
    "test": "output_repeated_splits_test",
}


def write_csv(root, split, *rows):
    """Write rows of (dialogue, utterance, speaker, emotion)."""
    lines = [
        f'{i},"Well, hello",{s},{e},neutral,{d},{u},4,7,"00:20:57,256","00:21:00,049"'
        for i, (d, u, s, e) in enumerate(rows)
    ]
    text = "\r\n".join([HEADER, *lines]) + "\r\n"
    (root / f"{split}_sent_emo.csv").write_text(text, encoding="utf-8", newline="")


@pytest.fixture
def meld(tmp_path):
    """Two utterances a split; in every split dia0_utt0 and dia0_utt1."""
    for split in FOLDERS:
        write_csv(tmp_path, split, (0, 0, "Ross", "joy"), (0, 1, "Rachel ", "anger"))
    return tmp_path


@pytest.mark.parametrize("layout", ["{split}", "{folder}", "{split}/{folder}", "test/{folder}"])
def test_media_of_official_and_simple_folders(meld, layout):
    for split, folder in FOLDERS.items():
        folder = layout.format(split=split, folder=folder)
        touch(meld, f"{folder}/dia0_utt0.mp4", f"{folder}/dia0_utt1.mp4")
    data = load_meld(meld)
    assert data.frame["clip"].tolist() == [
        f"{split}_dia0_utt{u}" for split in FOLDERS for u in (0, 1)
    ]
    assert data.table["visual"].tolist() == data.table["audio"].tolist()
    assert data.table["visual"].tolist() == [
        str(meld / layout.format(split=split, folder=folder) / f"dia0_utt{u}.mp4")
        for split, folder in FOLDERS.items()
        for u in (0, 1)
    ]
    assert data.target.tolist() == ["happiness", "anger"] * 3
    assert data.groups.tolist() == ["meld-Ross", "meld-Rachel"] * 3
    assert data.report.empty
    first = data.frame.loc[0].to_dict()
    assert first == {
        "clip": "train_dia0_utt0",
        "corpus": "meld",
        "speaker": "meld-Ross",
        "emotion": "happiness",
        "dialogue": 0,
        "utterance": 0,
        "text": "Well, hello",
        "sentiment": "neutral",
        "season": 4,
        "episode": 7,
        "start": "00:20:57,256",
        "end": "00:21:00,049",
        "split": "train",
    }


def test_sound_file_is_preferred_for_the_audio_cell(meld):
    touch(meld, "train/dia0_utt0.mp4", "train/dia0_utt0.wav", "train/dia0_utt1.wav")
    data = load_meld(meld, split="train")
    cells = data.table[["visual", "audio"]].to_numpy()
    names = [[p and Path(p).suffix for p in row] for row in cells]
    assert names == [[".mp4", ".wav"], [None, ".wav"]]


def test_missing_media_are_reported(meld):
    touch(meld, "train_splits/dia0_utt1.mp4")
    data = load_meld(meld, split="train")
    assert data.frame["clip"].tolist() == ["train_dia0_utt1"]
    assert data.table.index.tolist() == [0]
    assert data.report[["file", "stage"]].to_numpy().tolist() == [["train_dia0_utt0", "media"]]


def test_optional_media_keep_the_rows(meld):
    touch(meld, "train_splits/dia0_utt1.mp4")
    data = load_meld(meld, media="optional")
    assert len(data.table) == 6
    assert data.table["visual"].notna().tolist() == [False, True] + [False] * 4
    assert data.table["audio"][0] is None
    assert "5 utterance(s) are kept without media" in data.report["reason"].iloc[0]


def test_no_media_at_all(meld):
    with pytest.raises(FileNotFoundError, match=r"6 utterances.*media='optional'"):
        load_meld(meld)


def test_known_defects(tmp_path):
    write_csv(tmp_path, "train", (125, 3, "Ross", "neutral"), (0, 0, "Ross", "neutral"))
    write_csv(tmp_path, "dev", (110, 7, "Ross", "neutral"), (125, 3, "Ross", "neutral"))
    write_csv(tmp_path, "test", (220, 0, "Ross", "fear"), (38, 4, "Ross", "fear"))
    touch(tmp_path, "train/dia125_utt3.mp4", "train/dia0_utt0.mp4", "dev/dia125_utt3.mp4")
    touch(tmp_path, "test/dia220_utt0.mp4", "test/dia38_utt4.mp4", "test/dia38_utt4.wav")
    data = load_meld(tmp_path)
    assert data.frame["clip"].tolist() == ["train_dia0_utt0", "dev_dia125_utt3"]
    reasons = data.report.set_index("file")["reason"]
    assert "corrupt" in reasons[str(tmp_path / "train/dia125_utt3.mp4")]
    assert "minutes long" in reasons[str(tmp_path / "test/dia38_utt4.wav")]
    assert "itself lacks" in reasons["dev_dia110_utt7"]
    kept = load_meld(tmp_path, keep_defective=True)
    assert set(kept.frame["clip"]) >= set(KNOWN_DEFECTS)
    assert len(load_meld(tmp_path, media="optional").table) == 6


def test_extra_files_are_reported(meld):
    touch(meld, "dev/dia0_utt0.mp4", "dev/dia66_utt9.mp4", "dev/._dia0_utt1.mp4")
    touch(meld, "dev/final_videos_testdia101_utt0.mp4", "elsewhere/dia0_utt0.mp4", "README.txt")
    touch(meld, "train/dia0_utt0.mp4")
    data = load_meld(meld, split=["dev"])
    assert len(data.table) == 1
    stages = {Path(f).name: s for f, s in data.report[["file", "stage"]].to_numpy()}
    assert stages == {
        "dia66_utt9.mp4": "annotation",
        "._dia0_utt1.mp4": "name",
        "final_videos_testdia101_utt0.mp4": "name",
        "dia0_utt0.mp4": "annotation",
        "README.txt": "name",
        "dev_dia0_utt1": "media",
    }
    reasons = data.report.set_index("file")["reason"]
    assert "not loaded" in reasons[str(meld / "train/dia0_utt0.mp4")]
    assert "no folder says" in reasons[str(meld / "elsewhere/dia0_utt0.mp4")]


def test_splits(meld):
    data = load_meld(meld, split=["test", "dev"], media="optional")
    assert data.frame["split"].tolist() == ["dev", "dev", "test", "test"]
    (meld / "test_sent_emo.csv").unlink()
    assert set(load_meld(meld, media="optional").frame["split"]) == {"train", "dev"}
    with pytest.raises(FileNotFoundError, match=r"no test_sent_emo\.csv.*dev_sent_emo\.csv"):
        load_meld(meld, split="test", media="optional")
    with pytest.raises(ValueError, match="split='valid'"):
        load_meld(meld, split="valid")
    with pytest.raises(ValueError, match="media='some'"):
        load_meld(meld, media="some")


def test_no_csv(tmp_path):
    touch(tmp_path, "train/dia0_utt0.mp4")
    with pytest.raises(FileNotFoundError, match=r"train_sent_emo\.csv.*found \['train'\]"):
        load_meld(tmp_path)


def test_csv_twice(meld):
    (meld / "copy").mkdir()
    write_csv(meld / "copy", "dev", (0, 0, "Ross", "joy"))
    with pytest.raises(ValueError, match=r"annotations of 'dev' are there twice.*copy"):
        load_meld(meld, media="optional")


def test_column_missing(tmp_path):
    (tmp_path / "dev_sent_emo.csv").write_text("Utterance,Speaker\nHey,Ross\n")
    with pytest.raises(ValueError, match=r"lacks the column\(s\) \['Emotion'.*has \['Utterance'"):
        load_meld(tmp_path, media="optional")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ((0, 1, "Ross", "bliss"), "an emotion that is not in"),
        ((0, 1, "Ross", ""), "an emotion that is not in"),
        ((0, 1, "", "joy"), "no speaker"),
        ((0, "x", "Ross", "joy"), "no number"),
        ((0, 0, "Ross", "joy"), "an utterance that is there already"),
    ],
)
def test_bad_row_is_named(tmp_path, row, problem):
    write_csv(tmp_path, "dev", (0, 0, "Ross", "joy"), row)
    with pytest.raises(ValueError, match=rf"data row 2 of .*dev_sent_emo\.csv' has {problem}"):
        load_meld(tmp_path, media="optional")


def test_transcript_that_reads_like_a_missing_value(tmp_path):
    write_csv(tmp_path, "dev", (0, 0, "None", "joy"))
    assert load_meld(tmp_path, media="optional").groups.tolist() == ["meld-None"]


def test_unreadable_csv(tmp_path):
    (tmp_path / "dev_sent_emo.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"dev_sent_emo\.csv' cannot be read as a UTF-8 csv"):
        load_meld(tmp_path, media="optional")


def test_real_corpus(real_data):
    data = load_meld(real_data / "meld", media="optional")
    assert data.frame["split"].value_counts().to_dict() == {
        "train": 9989,
        "dev": 1109,
        "test": 2610,
    }
    assert data.frame["clip"].is_unique
    assert data.frame["emotion"].value_counts().to_dict() == {
        "neutral": 6436,
        "happiness": 2308,
        "surprise": 1636,
        "anger": 1607,
        "sadness": 1002,
        "disgust": 361,
        "fear": 358,
    }
    assert data.table[["visual", "audio"]].isna().all(axis=None)
    assert set(KNOWN_DEFECTS) < set(data.frame["clip"])


def test_transcripts_are_text_cells_with_media_and_without(meld):
    touch(meld, "train_splits/dia0_utt1.mp4")
    data = load_meld(meld, split="train")
    assert list(data.table.columns) == ["visual", "audio", "text"]
    assert data.table["text"].tolist() == ["Well, hello"]
    data = load_meld(meld, media="optional")
    assert data.table["text"].tolist() == data.frame["text"].tolist() == ["Well, hello"] * 6


def test_windows_punctuation_is_repaired(tmp_path):
    write_csv(tmp_path, "dev", (0, 0, "Ross", "joy"))
    path = tmp_path / "dev_sent_emo.csv"
    content = path.read_text(encoding="utf-8")
    broken = content.replace("Well, hello", "It\x92s \x93fine\x94\x85 \xe9t\xe9\x81")
    path.write_text(broken, encoding="utf-8", newline="")
    data = load_meld(tmp_path, split="dev", media="optional")
    assert data.table["text"].tolist() == ["It\u2019s \u201cfine\u201d\u2026 \xe9t\xe9\x81"]


def test_blank_transcript_is_a_missing_cell(tmp_path):
    write_csv(tmp_path, "dev", (0, 0, "Ross", "joy"), (0, 1, "Ross", "joy"))
    path = tmp_path / "dev_sent_emo.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:2], lines[2].replace("Well, hello", " ")]))
    assert load_meld(tmp_path, media="optional").table["text"].tolist() == ["Well, hello", None]


def test_transcripts_of_the_real_corpus(real_data):
    data = load_meld(real_data / "meld", media="optional")
    assert data.frame["split"].value_counts().to_dict() == {
        "train": 9989,
        "test": 2610,
        "dev": 1109,
    }
    assert data.table["text"].map(type).eq(str).all()
    assert data.table["text"][0].startswith("also I was the point person on my company\u2019s")
    assert not data.table["text"].str.contains("[\x80-\x9f]").any()


def test_case_of_folders_and_suffixes_does_not_count(meld):
    touch(meld, "Train_Splits/dia0_utt0.mp4", "Train_Splits/dia0_utt1.mp4")
    (meld / "train_sent_emo.csv").rename(meld / "train_sent_emo.CSV")
    assert load_meld(meld, split="train").frame["split"].tolist() == ["train"] * 2
