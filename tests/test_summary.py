import copy
import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch

from skfdan import make_table, stack_modalities, summarize_table
from skfdan.datasets import load_fer2013, load_folder
from skfdan.preprocessing import MelSpectrogram
from skfdan.summary import TableSummary
from skfdan.table import SKIP


def corpus(n=300, n_speakers=7, seed=0):
    """A table with every kind of cell, labels and speakers, some of them missing."""
    rng = np.random.default_rng(seed)

    def column(make):
        kinds = rng.choice(
            ["array", "path", "missing", "nan", "skip"], n, p=[0.4, 0.2, 0.2, 0.1, 0.1]
        )
        other = {"path": "a.WAV", "missing": None, "nan": float("nan"), "skip": SKIP}
        cells = np.empty(n, dtype=object)
        for i, kind in enumerate(kinds):
            cells[i] = make() if kind == "array" else other[kind]
        # Not make_table, which turns NaN into None.
        return pd.Series(cells, dtype=object)

    table = pd.DataFrame(
        {
            "visual": column(lambda: np.zeros((3, 4, 4), np.uint8)),
            "audio": column(lambda: np.zeros((5, rng.integers(2, 9)), np.float32)),
        }
    )
    y = rng.choice(["anger", "fear", "joy", None], n, p=[0.5, 0.2, 0.2, 0.1])
    groups = rng.choice(np.array([*range(n_speakers - 1), None], dtype=object), n)
    return table, y, groups


@pytest.fixture
def five():
    """Five rows, one of each kind."""
    face, voice = np.zeros((3, 2, 2), np.uint8), np.zeros((4, 6), np.float32)
    table = make_table(
        visual=[face, "face.png", None, None, face.copy()], audio=[voice, None, "a.wav", None, SKIP]
    )
    return table, ["joy", "fear", "joy", "fear", "joy"], ["Ada", "Ada", "Bo", "Bo", "Bo"]


# counts


def test_counts_of_classes_are_those_of_pandas():
    table, y, groups = corpus()
    flat = table.map(lambda c: isinstance(c, (str, np.ndarray))).assign(
        y=pd.Series(y).fillna("(unlabelled)"), rows=1
    )
    flat["paired"] = flat["visual"] & flat["audio"]
    expected = flat.groupby("y")[["rows", "visual", "audio", "paired"]].sum()
    found = summarize_table(table, y, groups).classes
    assert list(found.index) == ["anger", "fear", "joy", "(unlabelled)"]
    np.testing.assert_array_equal(
        found[list(expected.columns)].to_numpy(), expected.loc[found.index].to_numpy()
    )
    shares = flat["y"].value_counts(normalize=True)
    np.testing.assert_allclose(found["share"], shares.loc[found.index])


def test_counts_of_speakers_are_those_of_pandas():
    table, y, groups = corpus()
    expected = pd.crosstab(
        pd.Series(groups).map(lambda g: "(unknown)" if g is None else g),
        pd.Series(y).fillna("(unlabelled)"),
    )
    found = summarize_table(table, y, groups).speakers
    assert list(found.index) == [0, 1, 2, 3, 4, 5, "(unknown)"]
    assert found.to_numpy().sum() == len(table)
    for speaker in found.index:
        for label in found.columns:
            assert found.loc[speaker, label] == expected.loc[speaker, label]


def test_counts_of_cells_are_those_of_pandas():
    table, y, _ = corpus()
    found = summarize_table(table, y)
    for modality in ("visual", "audio"):
        column = table[modality]
        skipped = int((column.map(id) == id(SKIP)).sum())
        arrays = column[column.map(lambda c: isinstance(c, np.ndarray))]
        line = found.modalities.loc[modality]
        assert line["missing"] == column.isna().sum()
        assert line["skipped"] == skipped
        assert line["filled"] == len(table) - column.isna().sum() - skipped
        assert line["nbytes"] == sum(a.size * a.itemsize for a in arrays)
        kinds = found.cells[found.cells["modality"] == modality].set_index("kind")
        assert kinds["cells"].sum() == len(table)
        assert kinds.loc["array", "cells"] == len(arrays)
        assert kinds.loc["path", "cells"] == (column.map(str) == "a.WAV").sum()
        assert kinds["nbytes"].sum() == line["nbytes"]


def test_every_row_is_in_one_place(five):
    summary = summarize_table(*five)
    assert summary.rows.to_dict() == {
        "paired": 1,
        "visual only": 1,
        "audio only": 1,
        "empty": 1,
        "skipped": 1,
    }
    table, y, _ = corpus()
    rows = summarize_table(table, y).rows
    assert rows.sum() == summarize_table(table, y).n_rows == len(table)
    skipped = (table.map(id) == id(SKIP)).any(axis=1)
    assert rows["skipped"] == skipped.sum()
    assert rows["empty"] == (table.isna().all(axis=1) & ~skipped).sum()
    assert rows["paired"] == (table.notna().all(axis=1) & ~skipped).sum()


def test_kinds_of_cells(five):
    cells = summarize_table(*five).cells
    assert cells.to_numpy().tolist() == [
        ["visual", "array", "uint8", "(3, 2, 2)", 2, 24],
        ["visual", "missing", "", "", 2, 0],
        ["visual", "path", ".png", "", 1, 0],
        ["audio", "missing", "", "", 2, 0],
        ["audio", "array", "float32", "(4, 6)", 1, 96],
        ["audio", "path", ".wav", "", 1, 0],
        ["audio", "skip", "", "", 1, 0],
    ]


def test_shapes_that_vary_and_odd_cells():
    arrays = [np.zeros((8, n)) for n in (30, 7, 200)] + [np.zeros(5), np.zeros(())]
    table = make_table(audio=[*arrays, Path("x/clip"), [1.0, 2.0], 3.5, pd.NA, np.float32("nan")])
    cells = summarize_table(table).cells
    cells = cells[cells["modality"] == "audio"].iloc[:, 1:5].to_numpy().tolist()
    assert cells == [
        ["array", "float64", "(8, 7-200)", 3],
        ["missing", "", "", 2],
        ["array", "float64", "(5,)", 1],
        ["array", "float64", "()", 1],
        ["path", "(no suffix)", "", 1],
        ["other", "list", "", 1],
        ["other", "float", "", 1],
    ]


def test_an_array_in_several_cells_is_in_memory_once():
    face, block = np.zeros((3, 8, 8), np.uint8), np.zeros((4, 3, 8, 8), np.uint8)
    assert summarize_table(make_table(visual=[face] * 6)).modalities.loc["visual", "nbytes"] == 192
    table = make_table(visual=block)
    assert summarize_table(table).modalities.loc["visual", "nbytes"] == block.nbytes


# labels and speakers


def test_without_labels_and_speakers(five):
    summary = summarize_table(five[0])
    assert summary.classes.index.tolist() == ["(unlabelled)"]
    assert summary.classes["rows"].tolist() == [5]
    assert summary.speakers is None
    assert "5 rows without a label" in summary.notes
    assert repr(summary).startswith("Modality table: 5 rows, 0 classes, 120 B of arrays\n")


@pytest.mark.parametrize("y", [[], np.array([]), pd.Series([], dtype=str), None])
def test_no_row(y):
    summary = summarize_table(make_table(audio=[]), y, None if y is None else [])
    assert summary.n_rows == 0
    assert summary.classes.empty
    assert list(summary.classes.columns) == ["rows", "share", "visual", "audio", "paired"]
    assert summary.rows.sum() == 0
    assert summary.cells.empty
    assert summary.notes == []
    assert "0 rows, 0 classes" in repr(summary)
    assert "0 rows, 0 classes" in summary._repr_html_()


@pytest.mark.parametrize(
    "y",
    [
        ["b", None, "", float("nan"), "a"],
        np.array(["b", None, " ", np.nan, "a"], dtype=object),
        pd.Series(["b", pd.NA, None, pd.NA, "a"], index=[7, 7, 3, 0, 1], dtype="string"),
        pd.Series(["b", None, None, None, "a"], dtype="category"),
    ],
    ids=["list", "array", "string", "category"],
)
def test_missing_labels(five, y):
    classes = summarize_table(five[0], y).classes
    assert classes["rows"].to_dict() == {"a": 1, "b": 1, "(unlabelled)": 3}


@pytest.mark.parametrize(
    "y",
    [
        [10, 9, 9, -1, 10],
        np.array([10, 9, 9, -1, 10], np.int8),
        torch.tensor([10, 9, 9, -1, 10]),
        [np.int64(v) for v in (10, 9, 9, -1, 10)],
    ],
    ids=["list", "array", "tensor", "scalars"],
)
def test_numbers_are_in_their_order(five, y):
    assert summarize_table(five[0], y).classes["rows"].to_dict() == {-1: 1, 9: 2, 10: 2}


def test_names_that_look_alike_stay_apart(five):
    classes = summarize_table(five[0], [1, "1", "1", ("a", 1), 2]).classes
    assert classes["rows"].tolist() == [1, 1, 1, 2]
    assert classes.index.tolist() == [1, 2, ("a", 1), "1"]


def test_rows_that_are_groups_of_their_own_tell_no_speaker(five):
    summary = summarize_table(five[0], five[1], range(5))
    assert summary.speakers is None
    assert any("speakers are not known" in note for note in summary.notes)


# notes


def test_notes(five):
    assert summarize_table(*five).notes == [
        "1 row with neither a visual nor an audio cell",
        "paths and arrays in the visual column, of which classifiers take one or the other",
        "no audio cell in class fear",
        "paths and arrays in the audio column, of which classifiers take one or the other",
    ]
    assert summarize_table(five[0], [1, 1, 2, 2, 2], [3, 3, 3, 4, 4]).notes[-1] == (
        "1 of 2 speakers lack a class"
    )


def test_nothing_to_note():
    table = make_table(visual=["a.png"] * 4, audio=["a.wav"] * 4)
    assert summarize_table(table, [0, 1, 0, 1], [1, 1, 2, 2]).notes == []
    notes = summarize_table(table, [0, 1, 1, 1], [1, 1, 1, 1]).notes
    assert notes == ["the largest class, 1, has 3.0 times the rows of the smallest, 0"]


# what it is given


def test_the_table_stays_as_it_was(five):
    table, y, groups = five
    before, cells = copy.deepcopy(five), table.to_numpy().ravel().tolist()
    summary = summarize_table(table, y, groups)
    summary._repr_html_()
    repr(summary)
    assert type(table) is pd.DataFrame
    assert joblib.hash((table, y, groups)) == joblib.hash(before)
    assert all(a is b or a == b for a, b in zip(table.to_numpy().ravel(), cells, strict=True))


def test_a_bunch(five):
    table, y, groups = five
    bunch = Bunch(table=table, target=np.array(y), groups=np.array(groups))
    assert repr(summarize_table(bunch)) == repr(summarize_table(table, y, groups))
    assert summarize_table(bunch, y=[1] * 5).classes.index.tolist() == [1]
    assert summarize_table(bunch, groups=["Cy"] * 5).speakers.index.tolist() == ["Cy"]


def test_a_loader(tmp_path):
    for name in ("anger/a.wav", "anger/b.wav", "joy/c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    summary = summarize_table(load_folder(tmp_path))
    assert summary.classes["audio"].to_dict() == {"anger": 2, "happiness": 1}
    assert summary.cells["format"].tolist() == ["", ".wav"]


def test_a_loader_of_arrays(tmp_path):
    np.savez(
        tmp_path / "fer.npz",
        images=np.arange(4 * 48 * 48).reshape(4, 48, 48).astype(np.uint8),
        labels=np.array([0, 0, 3, 3], np.int8),
        classes=["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"],
        split=["Training"] * 4,
    )
    summary = summarize_table(load_fer2013(tmp_path / "fer.npz"))
    # Views of one block; and FER2013 tells no person, so that every picture is a group.
    assert summary.modalities.loc["visual", "nbytes"] == 4 * 48 * 48
    assert summary.classes["visual"].to_dict() == {"anger": 2, "happiness": 2}
    assert summary.speakers is None


def test_splits_and_transformed_tables():
    table, y, _ = stack_modalities(
        visual=(np.zeros((4, 3, 6, 6), np.uint8), ["joy", "fear"] * 2),
        audio=(np.ones((4, 2000), np.float32), ["joy", "fear"] * 2),
    )
    train, test, y_train, _ = train_test_split(table, y, random_state=0)
    summary = summarize_table(train, y_train)
    assert summary.n_rows == 6
    assert summary.classes["rows"].sum() == 6
    assert summarize_table(test).n_rows == 2
    mel = MelSpectrogram(sample_rate=2000, n_fft=64, hop_length=64, n_mels=8, verbose=0)
    prepare = ColumnTransformer([("mel", mel, ["audio"])], remainder="passthrough")
    made = prepare.set_output(transform="pandas").fit_transform(table)
    assert list(made.columns) == ["mel__audio", "remainder__visual"]
    cells = summarize_table(made, y).cells.query("modality == 'audio' and kind == 'array'")
    assert cells["cells"].tolist() == [4]
    assert cells["shape"].str.startswith("(8, ").all()


def test_a_column_that_is_absent_and_others():
    table = pd.DataFrame({"audio": ["a.wav", None], "note": ["x", "y"]})
    summary = summarize_table(table)
    assert summary.modalities.loc["visual", "missing"] == 2
    assert summary.rows["audio only"] == summary.rows["empty"] == 1


@pytest.mark.parametrize("y", ["joy", 5, np.zeros((5, 1)), np.array("joy"), iter("abcde")])
def test_labels_of_a_wrong_form(five, y):
    with pytest.raises(ValueError, match="y must hold one name or number a row; got"):
        summarize_table(five[0], y)


# what it says


def test_text_of_many_speakers():
    table = make_table(audio=["a.wav"] * 600)
    text = repr(summarize_table(table, ["joy"] * 600, np.arange(600) % 300))
    assert "600 rows, 1 class, 300 speakers" in text
    assert "... and 288 more speakers" in text
    assert len(text.splitlines()) < 50


def test_labels_cannot_steer_the_terminal():
    table = make_table(audio=["a.wav"] * 2)
    text = repr(summarize_table(table, ["joy\x1b[31m\n", "joy\u202e"], ["\udcff", "\udcff"]))
    assert "\x1b" not in text
    assert "joy\\x1b[31m\\n" in text
    assert "\\u202e" in text
    assert "\\udcff" in text
    text.encode()


def test_it_can_be_pickled(five):
    summary = summarize_table(*five)
    again = pickle.loads(pickle.dumps(summary))
    assert isinstance(again, TableSummary)
    assert repr(again) == repr(summary)
    assert again._repr_html_() == summary._repr_html_()


def test_it_needs_no_torch():
    code = (
        "import sys; from skfdan import make_table, summarize_table;"
        "summarize_table(make_table(audio=['a.wav']), ['joy'])._repr_html_();"
        "assert not {'torch', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_texts_are_counted():
    table = make_table(
        audio=["a.wav", None, None, None],
        text=["Hello.", "No!", np.zeros((3, 4), dtype=np.float32), None],
    )
    table.loc[3, "text"] = " "
    summary = summarize_table(table, ["joy", "joy", "joy", "fear"])
    assert summary.rows.to_dict() == {
        **{"paired": 0, "visual only": 0, "audio only": 1, "text only": 2},
        **{"empty": 1, "skipped": 0},
    }
    assert summary.classes["text"].to_dict() == {"fear": 0, "joy": 3}
    assert summary.modalities.loc["text"].tolist() == [3, 1, 0, 48]
    cells = summary.cells[summary.cells["modality"] == "text"]
    assert dict(zip(cells["kind"], cells["cells"], strict=True)) == {
        "transcript": 2,
        "array": 1,
        "missing": 1,
    }
    assert "1 row with no visual, audio or text cell" in summary.notes
    assert "no text cell in class fear" in summary.notes
    assert any(note.startswith("transcripts and arrays in the text") for note in summary.notes)
    assert "text only" in repr(summary)
    assert "transcript" in summary._repr_html_()


def test_a_skipped_text_leaves_its_row_out():
    table = make_table(audio=["a.wav", "b.wav"], text=["Hello.", SKIP])
    assert summarize_table(table).rows[["audio only", "skipped"]].tolist() == [1, 1]


def test_table_without_texts_has_no_line_of_them():
    summary = summarize_table(make_table(audio=["a.wav"]), ["joy"])
    assert "text only" not in summary.rows
    assert summary.modalities.index.tolist() == ["visual", "audio"]
    assert list(summary.classes.columns) == ["rows", "share", "visual", "audio", "paired"]
