"""What the loaders share; RAVDESS stands for all of them where a corpus is needed."""

import inspect
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.utils import Bunch

from skfdan import datasets
from skfdan.datasets import load_emodb, load_folder, load_ravdess, load_savee
from skfdan.datasets._base import EMOTIONS, Report, canonical_emotion, map_emotions, walk

LABELS = ("anger", "calm", "neutral")


def touch(root, *names):
    for path in (root / name for name in names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.fixture
def ravdess(tmp_path):
    """One neutral, one calm and one angry take."""
    return touch(
        tmp_path,
        "Actor_02/03-01-05-02-01-01-02.wav",
        "Actor_01/03-01-01-01-01-01-01.wav",
        "Actor_01/03-01-02-01-01-01-01.wav",
    )


def test_bunch(ravdess):
    data = load_ravdess(ravdess)
    assert isinstance(data, Bunch)
    assert set(data) == {"table", "target", "groups", "frame", "report", "DESCR", "speakers_known"}
    assert data.speakers_known
    assert list(data.table.columns) == ["visual", "audio"]
    assert list(data.table.dtypes) == [object, object]
    assert data.table.index.equals(pd.RangeIndex(3))
    assert data.frame.index.equals(data.table.index)
    assert list(data.frame.columns[:4]) == ["clip", "corpus", "speaker", "emotion"]
    assert data.target.dtype.kind == data.groups.dtype.kind == "U"
    assert data.target.tolist() == data.frame["emotion"].tolist() == ["neutral", "calm", "anger"]
    assert data.groups.tolist() == data.frame["speaker"].tolist()
    assert data.table["visual"].tolist() == [None] * 3
    assert data.table["audio"].map(type).eq(str).all()
    assert list(data.report.columns) == ["file", "stage", "reason"]
    assert data.report.empty
    pickle.loads(pickle.dumps(data))


def test_table_survives_selection_and_drop_keeps_range_index(ravdess):
    data = load_ravdess(ravdess, emotions=["anger"])
    assert data.table.index.equals(pd.RangeIndex(1))
    assert data.frame.index.equals(pd.RangeIndex(1))
    assert data.table["audio"][0].endswith("03-01-05-02-01-01-02.wav")


def test_emotions_list_keeps_those_and_reports_the_rest(ravdess):
    data = load_ravdess(ravdess, emotions=["anger", "neutral"])
    assert data.target.tolist() == ["neutral", "anger"]
    assert data.report["stage"].tolist() == ["emotions"]
    assert "1 row(s) of the emotion 'calm'" in data.report["reason"][0]
    assert data.report["file"][0] == str(ravdess)


def test_emotions_dict_renames_drops_and_keeps_the_others(ravdess):
    data = load_ravdess(ravdess, emotions={"calm": "neutral", "anger": None})
    assert data.target.tolist() == ["neutral", "neutral"]
    assert data.frame["emotion"].tolist() == ["neutral", "neutral"]
    assert "'anger'" in data.report["reason"][0]


@pytest.mark.parametrize(
    ("emotions", "expected"),
    [
        (None, ["anger", "calm", "neutral"]),
        ((), [None, None, None]),
        ({"calm"}, [None, "calm", None]),
        (iter(["calm"]), [None, "calm", None]),
        ({}, ["anger", "calm", "neutral"]),
        ({"anger": "negative", "calm": None}, ["negative", None, "neutral"]),
    ],
)
def test_map_emotions(emotions, expected):
    got = map_emotions(pd.Series(LABELS), emotions, labels=LABELS, corpus="X")
    assert got.tolist() == expected


@pytest.mark.parametrize("emotions", [["angry"], {"angry": "anger"}])
def test_unknown_emotion_lists_the_corpus_names(ravdess, emotions):
    with pytest.raises(ValueError, match=r"\['angry'\] are not in ravdess.*'anger', 'calm'"):
        load_ravdess(ravdess, emotions=emotions)


def test_emotion_of_the_corpus_that_is_not_on_disk_is_known(ravdess):
    assert len(load_ravdess(ravdess, emotions=["surprise", "anger"]).table) == 1


def test_single_name_and_odd_value_are_refused(ravdess):
    with pytest.raises(ValueError, match=r"give a list, \['anger'\]"):
        load_ravdess(ravdess, emotions="anger")
    with pytest.raises(ValueError, match="map a name to a name"):
        load_ravdess(ravdess, emotions={"anger": 1})


def test_nothing_left(ravdess):
    with pytest.raises(ValueError, match=r"leaves no row.*\['anger', 'calm', 'neutral'\]"):
        load_ravdess(ravdess, emotions=["surprise"])


def test_missing_root(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"RAVDESS: the folder '.*nowhere' does not exist"):
        load_ravdess(tmp_path / "nowhere")
    touch(tmp_path, "file.txt")
    with pytest.raises(NotADirectoryError, match="is a file"):
        load_ravdess(tmp_path / "file.txt")


def test_home_is_expanded(ravdess, monkeypatch):
    monkeypatch.setenv("HOME", str(ravdess.parent))
    monkeypatch.setenv("USERPROFILE", str(ravdess.parent))
    assert len(load_ravdess(f"~/{ravdess.name}").table) == 3


def test_nothing_fits_gives_examples(tmp_path):
    with pytest.raises(FileNotFoundError, match="the folder is empty"):
        load_emodb(tmp_path)
    touch(tmp_path, "notes.txt", "x/happy.wav")
    with pytest.raises(FileNotFoundError, match=r"EmoDB file names.*notes\.txt.*happy\.wav"):
        load_emodb(tmp_path)


def test_files_off_the_scheme_are_reported(ravdess):
    touch(ravdess, "README.md", "Actor_01/03-01-99-01-01-01-01.wav", "._03.wav")
    touch(ravdess, ".git/config", "__MACOSX/Actor_01/03-01-08-01-01-01-01.wav")
    data = load_ravdess(ravdess)
    assert len(data.table) == 3
    assert data.report["stage"].eq("name").all()
    found = {Path(file).relative_to(ravdess).as_posix() for file in data.report["file"]}
    assert found == {
        "README.md",
        "Actor_01/03-01-99-01-01-01-01.wav",
        "._03.wav",
        ".git",
        "__MACOSX",
    }


def test_duplicate_take_names_both_files(ravdess):
    touch(ravdess, "copy/Actor_01/03-01-01-01-01-01-01.wav")
    touch(ravdess, "copy/Actor_01/03-01-02-01-01-01-01.wav")
    with pytest.raises(ValueError, match=r"there twice.*Actor_01.*copy.*\(1 more takes"):
        load_ravdess(ravdess)


def test_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    names = [f"{s}a01{e}a.wav" for s in ("03", "08", "16") for e in "WLN"]
    touch(tmp_path, *(f"{i % 2}/{n}" for i, n in enumerate([*names, "x.txt", "y.txt", "z.txt"])))
    first = load_emodb(tmp_path)
    walk_of_os = os.walk

    def backwards(top, **options):
        for folder, subfolders, files in walk_of_os(top, **options):
            subfolders.sort(reverse=True)
            yield folder, subfolders, sorted(files, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    second = load_emodb(tmp_path)
    assert first.frame["clip"].is_monotonic_increasing
    pd.testing.assert_frame_equal(first.table, second.table)
    pd.testing.assert_frame_equal(first.report, second.report)


def test_linked_folders_are_followed_once(tmp_path):
    real = touch(tmp_path / "disk", "03a01Wa.wav")
    root = tmp_path / "corpus"
    root.mkdir()
    try:
        (root / "wav").symlink_to(real, target_is_directory=True)
        (root / "wav2").symlink_to(real, target_is_directory=True)
        (real / "loop").symlink_to(root, target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    report = Report()
    assert [p.as_posix() for p in walk(root, report)] == ["wav/03a01Wa.wav"]
    assert report.to_frame()["reason"].str.contains("already indexed").all()
    assert len(report.files) == 2


def test_canonical_emotion():
    assert [canonical_emotion(e) for e in EMOTIONS] == list(EMOTIONS)
    assert canonical_emotion(" Happy ") == canonical_emotion("joy") == "happiness"
    assert canonical_emotion("Contempt") == "Contempt"


def test_loaders_never_open_a_media_file(ravdess, tmp_path, monkeypatch):
    touch(tmp_path / "s", "DC_a01.wav", "DC_a01.avi")
    touch(tmp_path / "f", "happy/a.mp4")

    def refuse(*args, **kwargs):
        raise AssertionError("a loader opened a file")

    monkeypatch.setattr("builtins.open", refuse)
    load_ravdess(ravdess)
    load_savee(tmp_path / "s")
    load_folder(tmp_path / "f")


# The published results are a frame of numbers, not a corpus.
LOADERS = [
    name
    for name in datasets.__all__
    if name.startswith("load_") and name != "load_published_results"
]


@pytest.mark.parametrize("name", [*LOADERS, "fetch_ravdess"])
def test_docstring_has_all_sections(name):
    doc = inspect.getdoc(getattr(datasets, name))
    for section in ("Parameters", "Returns", "Raises", "References", "Examples"):
        assert f"\n{section}\n---" in doc


@pytest.mark.parametrize("name", LOADERS)
def test_descr_is_complete(name):
    if name == "load_folder":
        return
    module = inspect.getmodule(getattr(datasets, name))
    for word in ("Reference:", "Source:", "icence", "Groups", "Known defects"):
        if word == "icence" and name in ("load_savee", "load_emodb"):
            continue
        assert word in module.DESCR, word


def test_speakers_of_two_corpora_never_coincide(tmp_path):
    touch(tmp_path / "r", "03-01-01-01-01-01-03.wav")
    touch(tmp_path / "e", "03a01Na.wav")
    a, b = load_ravdess(tmp_path / "r"), load_emodb(tmp_path / "e")
    assert not set(a.groups) & set(b.groups)
    both = pd.concat([a.table, b.table], ignore_index=True)
    assert both["visual"].tolist() == [None, None]
    assert len(np.concatenate([a.target, b.target])) == len(both)


def test_an_emotion_with_its_accents_apart():
    assert canonical_emotion("tra\u0308ge") == canonical_emotion(" tr\u00e4ge ") == "tr\u00e4ge"
