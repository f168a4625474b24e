import hashlib
import json
import os
import stat

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_score,
)

import skfdan
from skfdan import AudioHoldout, make_table, unpair
from skfdan.model_selection import load_splits, make_protocol, make_row_ids, save_splits

IDS = [f"DC_a{i:02d}" for i in range(6)]
SPLITS = [([0, 1, 2], [4, 3]), ([5, 4], [0])]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "splits.json"


@pytest.fixture
def saved(path):
    save_splits(path, SPLITS, IDS)
    return path


def as_lists(splits):
    return [tuple(np.asarray(part).tolist() for part in pair) for pair in splits]


# Round trips


def test_round_trip(saved):
    splits = load_splits(saved, IDS)
    assert as_lists(splits) == SPLITS
    assert all(part.dtype == np.intp for pair in splits for part in pair)


def test_rows_are_found_by_name(saved):
    shuffled = [IDS[i] for i in (3, 5, 0, 1, 4, 2)]
    for (train, test), (one, other) in zip(load_splits(saved, shuffled), SPLITS, strict=True):
        assert [shuffled[i] for i in train] == [IDS[i] for i in one]
        assert [shuffled[i] for i in test] == [IDS[i] for i in other]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_round_trip_of_any_names_and_folds(tmp_path_factory, data):
    ids = data.draw(st.lists(st.text(max_size=6), min_size=2, max_size=9, unique=True))
    splits = []
    for _ in range(data.draw(st.integers(1, 3))):
        rows = data.draw(st.permutations(range(len(ids))))
        cut = data.draw(st.integers(1, len(ids) - 1))
        end = data.draw(st.integers(cut + 1, len(ids)))
        splits.append((rows[:cut], rows[cut:end]))
    path = tmp_path_factory.mktemp("splits") / "s.json"
    assert as_lists(save_splits(path, splits, ids)) == splits
    assert as_lists(load_splits(path, ids)) == splits
    order = data.draw(st.permutations(ids))
    named = [tuple([order[i] for i in part] for part in pair) for pair in load_splits(path, order)]
    assert named == [tuple([ids[i] for i in part] for part in pair) for pair in splits]


@pytest.mark.parametrize("name", ["paper", "disjoint", "gmtcnet", "meld-official"])
def test_round_trip_of_a_protocol(path, name):
    clips = np.array([f"clip{i}" for i in range(40)])
    faces = [np.zeros((3, 3, 2, 2), np.uint8)] * 40
    paired = make_table(visual=faces, audio=[f"{c}.wav" for c in clips])
    table, row, groups = unpair(paired, np.arange(40), np.arange(40) % 8)
    y = row % 2
    ids = make_row_ids(table, clips[row])
    parts = {"parts": np.resize(["train", "dev", "test", "test"], 40)[row]}
    protocol = make_protocol(name, **(parts if name == "meld-official" else {}))
    expected = as_lists(protocol.split(table, y, groups))
    assert as_lists(save_splits(path, protocol, ids, X=table, y=y, groups=groups)) == expected
    assert as_lists(load_splits(path, ids)) == expected


def test_as_cv_of_scikit_learn(path):
    from sklearn.dummy import DummyClassifier

    X, y = np.zeros((30, 1)), np.arange(30) % 2
    ids = [f"c{i}" for i in range(30)]
    # A splitter without a seed never gives the same splits again; those in the file stay.
    kept = save_splits(path, ShuffleSplit(4), ids, X=X, y=y)
    again = load_splits(path, ids)
    assert as_lists(kept) == as_lists(again)
    model = DummyClassifier(strategy="constant", constant=1)
    scores = cross_val_score(model, X, y, cv=again)
    np.testing.assert_allclose(scores, [y[test].mean() for _, test in kept])


def test_a_splitter_gets_labels_and_speakers(path):
    groups = ["a", "b", "c"] * 2
    saved = save_splits(path, GroupKFold(3), IDS, X=IDS, groups=groups)
    assert all({groups[i] for i in test} == {groups[test[0]]} for _, test in saved)


def test_series_and_numpy_strings_are_names(path):
    ids = pd.Series(IDS, index=range(10, 16))
    save_splits(path, SPLITS, ids)
    assert as_lists(load_splits(path, np.array(IDS))) == SPLITS


def test_rows_that_no_fold_uses_are_known(path):
    save_splits(path, [([0], [1])], IDS)
    assert json.loads(path.read_text())["left_out"] == IDS[2:]
    assert as_lists(load_splits(path, IDS)) == [([0], [1])]
    # They need not be there.
    assert as_lists(load_splits(path, IDS[:3])) == [([0], [1])]


# The file


def test_what_the_file_says(path):
    table = make_table(audio=IDS)
    save_splits(
        path, make_protocol("paper", n_splits=2, random_state=3), IDS, X=table, y=[0, 1] * 3
    )
    document = json.loads(path.read_text())
    assert document["format"] == "skfdan-splits"
    protocol = make_protocol("paper", n_splits=2, random_state=3)
    assert document["protocol"] == {
        "name": "paper",
        "description": protocol.description,
        "parameters": {"n_splits": 2, "random_state": 3, "test_size": 0.2, "visual": "all"},
    }
    assert document["seed"] == 3
    assert document["versions"]["skfdan"] == skfdan.__version__
    assert document["versions"]["scikit-learn"] == sklearn.__version__
    assert document["n_ids"] == 6
    assert len(document["folds"]) == 2
    for fold in document["folds"]:
        assert sorted(fold["train"] + fold["test"]) == IDS


def test_the_sums_are_sha_256_of_plain_json(saved):
    document = json.loads(saved.read_text())
    names = '["' + '","'.join(sorted(IDS)) + '"]'
    assert document["ids_sha256"] == hashlib.sha256(names.encode()).hexdigest()
    fold = '{"test":["DC_a04","DC_a03"],"train":["DC_a00","DC_a01","DC_a02"]}'
    assert document["folds"][0]["sha256"] == hashlib.sha256(fold.encode()).hexdigest()


def test_splits_and_splitters_that_are_no_protocol_are_told(path):
    save_splits(path, SPLITS, IDS)
    told = json.loads(path.read_text())
    assert told["protocol"]["name"] == "custom"
    assert told["seed"] is None
    save_splits(path, AudioHoldout(KFold(2)), IDS, X=make_table(audio=IDS))
    told = json.loads(path.read_text())["protocol"]
    assert told["description"] == repr(AudioHoldout(KFold(2)))


def test_the_same_splits_are_the_same_file(tmp_path):
    for name in "ab":
        save_splits(tmp_path / name, iter(SPLITS), IDS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert b"\r" not in (tmp_path / "a").read_bytes()


def test_folders_are_made_and_files_replaced(tmp_path):
    path = tmp_path / "a" / "b" / "s.json"
    save_splits(str(path), SPLITS, IDS)
    save_splits(path, SPLITS[:1], IDS)
    assert as_lists(load_splits(str(path), IDS)) == SPLITS[:1]
    assert [p.name for p in path.parent.iterdir()] == ["s.json"]


def test_a_write_that_fails_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_splits(saved, SPLITS[:1], IDS)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_others_may_read_the_file(saved):
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o666 & ~umask


# A corpus that is another


def test_a_missing_row_is_named(saved):
    message = r"splits\.json': 2 of the 6 rows .* first 'DC_a04' \(fold 0, test\)"
    with pytest.raises(ValueError, match=message):
        load_splits(saved, IDS[:4])


def test_a_row_too_many_is_named(saved):
    with pytest.raises(ValueError, match=r"2 of the 8 rows at hand .* first 'new1'.*allow_extra"):
        load_splits(saved, ["new1", *IDS, "new2"])
    splits = load_splits(saved, ["new1", *IDS, "new2"], allow_extra=True)
    assert as_lists(splits) == [tuple([i + 1 for i in part] for part in pair) for pair in SPLITS]


@pytest.mark.parametrize("call", [lambda p, ids: save_splits(p, SPLITS, ids), load_splits])
class TestNames:
    def test_repeated(self, saved, call):
        with pytest.raises(ValueError, match=r"'DC_a00' is there 2 times.*make_row_ids"):
            call(saved, [*IDS, IDS[0]])

    def test_no_strings(self, saved, call):
        with pytest.raises(TypeError, match="id 1 is 7; ids are strings"):
            call(saved, ["a", 7])

    def test_one_string(self, saved, call):
        with pytest.raises(TypeError, match="is one string"):
            call(saved, "abcdef")

    def test_none(self, saved, call):
        with pytest.raises(ValueError, match="ids is empty"):
            call(saved, [])


# A file that is another


def change(path, edit):
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["folds"][1]["train"].pop(), "fold 1 does not have its SHA-256"),
        (lambda d: d["folds"][0]["test"].reverse(), "fold 0 does not have its SHA-256"),
        (lambda d: d["folds"][0].update(sha256="0" * 64), "fold 0 does not have its SHA-256"),
        (lambda d: d["left_out"].append("x"), "names of the rows do not have their SHA-256"),
        (lambda d: d.update(ids_sha256=""), "names of the rows do not have their SHA-256"),
        (lambda d: d["folds"].reverse(), "the whole does not have its SHA-256"),
        (lambda d: d.update(seed=5), "the whole does not have its SHA-256"),
        (lambda d: d["protocol"].update(name="disjoint"), "the whole does not have its SHA-256"),
        (lambda d: d.update(sha256=None), "the whole does not have its SHA-256"),
        (lambda d: d.pop("folds"), r"a part is missing or of another kind \(KeyError"),
        (lambda d: d["folds"][0].pop("test"), "a part is missing or of another kind"),
        (lambda d: d.update(folds=3), r"a part is missing or of another kind \(TypeError"),
        (lambda d: d.update(left_out=[{}]), "a part is missing or of another kind"),
    ],
)
def test_a_changed_file_is_refused(saved, edit, message):
    change(saved, edit)
    with pytest.raises(ValueError, match=f"was changed after it was written: .*{message}"):
        load_splits(saved, IDS)


def test_a_fold_that_is_taken_out_is_noticed(path):
    """Even if all rows are still in the others."""
    save_splits(path, KFold(3), IDS, X=IDS)
    change(path, lambda d: d["folds"].pop())
    with pytest.raises(ValueError, match="the whole does not have its SHA-256"):
        load_splits(path, IDS)


def test_the_layout_of_the_json_does_not_matter(saved):
    change(saved, lambda d: None)
    assert as_lists(load_splits(saved, IDS)) == SPLITS


def test_what_is_no_split_file(path):
    with pytest.raises(FileNotFoundError):
        load_splits(path, IDS)
    for text in ("", "train,test\n", "\xff"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match="is not JSON, so no split file"):
            load_splits(path, IDS)
    for text in ("[1, 2]", '{"folds": []}', '"skfdan-splits"'):
        path.write_text(text)
        with pytest.raises(ValueError, match="is no split file; save_splits writes those"):
            load_splits(path, IDS)


def test_a_later_format_is_refused(saved):
    change(saved, lambda d: d.update(format_version=2))
    with pytest.raises(ValueError, match="format version 2; this version of skfdan reads 1"):
        load_splits(saved, IDS)


# Splits that are none


@pytest.mark.parametrize(
    ("splits", "error", "message"),
    [
        ([], ValueError, "there is no fold to save"),
        ([([0], [1], [2])], ValueError, "fold 0 has 3 parts"),
        ([([0], [1]), ([], [1])], ValueError, "train part of fold 1 must be a list of rows"),
        ([([0], [[1]])], ValueError, r"test part of fold 0 .* not of shape \(1, 1\)"),
        ([([0.0], [1])], TypeError, "train part of fold 0 must be integers, not float64"),
        ([([True, False], [1])], TypeError, r"must be integers, not bool \(np\.flatnonzero"),
        ([([0], [6])], ValueError, "test part of fold 0 has row 6, but there are 6 ids"),
        ([([-1], [0])], ValueError, "train part of fold 0 has row -1"),
        ([([0, 1, 0], [2])], ValueError, "train part of fold 0 has 'DC_a00' more than once"),
        ([([0, 1, 2], [2, 1])], ValueError, r"'DC_a01' is in both parts of fold 0 \(2 such rows"),
    ],
)
def test_splits_that_are_none_are_not_saved(path, splits, error, message):
    with pytest.raises(error, match=message):
        save_splits(path, splits, IDS)
    assert not path.exists()


def test_a_splitter_needs_the_table(path):
    with pytest.raises(ValueError, match="give X="):
        save_splits(path, KFold(2), IDS)
    with pytest.raises(ValueError, match="X has 5 rows, but there are 6 ids"):
        save_splits(path, KFold(2), IDS, X=IDS[:5])


# Names of rows


def test_rows_of_a_clip_have_names_of_their_own():
    paired = make_table(
        visual=[np.zeros((3, 3, 2, 2), np.uint8), None, "c.mp4"], audio=["a.wav", "b.wav", "c.mp4"]
    )
    clips = np.array(["a", "b", "c"])
    table, row, _ = unpair(paired, np.arange(3))
    assert make_row_ids(table, clips[row]) == [
        *("a#visual", "a#visual:2", "a#visual:3", "c#visual"),
        *("a#audio", "b#audio", "c#audio"),
    ]
    assert make_row_ids(paired, clips) == ["a#visual+audio", "b#audio", "c#visual+audio"]
    assert make_row_ids(paired[["audio"]], clips) == ["a#audio", "b#audio", "c#audio"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "a#visual", "a#visual:2", "", "#audio"]),
            st.sampled_from([("f", None), (None, "v"), ("f", "v")]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_names_are_unique_whatever_the_clips_are_called(rows):
    clips, cells = zip(*rows, strict=True)
    table = make_table(visual=[c[0] for c in cells], audio=[c[1] for c in cells])
    ids = make_row_ids(table, clips)
    assert len(set(ids)) == len(rows)


def test_rows_that_cannot_be_named():
    table = make_table(audio=["a.wav", None])
    with pytest.raises(ValueError, match="has 2 rows, but there are 1 clips"):
        make_row_ids(table, ["a"])
    with pytest.raises(ValueError, match=r"row 1 \(clip 'b'\) has no cell"):
        make_row_ids(table, ["a", "b"])
    with pytest.raises(TypeError, match="clip 0 is 3"):
        make_row_ids(table, [3, "b"])


def test_words_alone_have_an_id_and_change_no_other():
    table = make_table(audio=["a.wav", None, None], text=["Hello.", "No!", None])
    assert make_row_ids(table.iloc[:2], ["a", "b"]) == ["a#audio", "b#text"]
    with pytest.raises(ValueError, match=r"row 2 \(clip 'c'\) has no cell"):
        make_row_ids(table, ["a", "b", "c"])


def test_a_number_is_one_of_folds(tmp_path):
    labels = ["joy", "fear"] * (len(IDS) // 2)
    saved = save_splits(tmp_path / "s.json", 2, IDS[: len(labels)], X=labels, y=labels)
    expected = list(StratifiedKFold(2).split(labels, labels))
    assert as_lists(saved) == as_lists(expected)
