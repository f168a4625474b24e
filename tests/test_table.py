import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GroupKFold, KFold, train_test_split

from skfdan import FDANClassifier, make_table, stack_modalities, summarize_table, unpair
from skfdan.datasets import check_corpus
from skfdan.table import MODALITIES, as_cells, is_missing, modality_columns


def faces(n, size=4):
    return [np.full((3, size, size), i, np.uint8) for i in range(n)]


def voices(n):
    return [np.full((5, 7), i, np.float32) for i in range(n)]


@pytest.fixture
def table():
    """Eight rows: paired, visual only and audio only; arrays and paths."""
    v, a = faces(6), voices(6)
    return make_table(
        visual=[v[0], v[1], None, "face.png", v[4], None, None, v[5]],
        audio=[a[0], None, a[2], "voice.wav", a[4], a[5], a[1], None],
    )


def same_cells(left, right):
    """Tell whether two frames hold the very same objects (strings may be copied)."""
    return left.shape == right.shape and all(
        x is y or (isinstance(x, str) and x == y)
        for x, y in zip(left.to_numpy().ravel(), right.to_numpy().ravel(), strict=True)
    )


# cells


@pytest.mark.parametrize(
    "cell", [None, float("nan"), np.nan, np.float64("nan"), np.float32("nan"), np.float16("nan")]
)
def test_missing_scalars(cell):
    assert is_missing(cell) is True


def test_pandas_missing_value_is_missing():
    assert is_missing(pd.NA) is True


@pytest.mark.parametrize(
    "cell",
    ["", "nan", "a.wav", 0, 0.0, np.float32(1.5), np.inf, False, [], (), np.zeros(0)],
    ids=repr,
)
def test_values_are_not_missing(cell):
    assert is_missing(cell) is False


@pytest.mark.parametrize("shape", [(), (1,), (2, 2)])
def test_an_array_is_never_missing_even_if_it_holds_nan(shape):
    assert is_missing(np.full(shape, np.nan)) is False


def test_as_cells_does_not_stack_equal_arrays():
    cells = voices(3)
    column = as_cells(cells)
    assert column.shape == (3,)
    assert column.dtype == object
    assert all(got is cell for got, cell in zip(column, cells, strict=True))


def test_as_cells_takes_the_first_axis_of_an_array_without_copying():
    block = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    column = as_cells(block)
    assert column.shape == (2,)
    assert all(np.shares_memory(cell, block) for cell in column)
    np.testing.assert_array_equal(column[1], block[1])


def test_as_cells_writes_every_missing_value_as_none():
    column = as_cells([None, np.nan, pd.NA, np.float32("nan"), "a.wav"])
    assert column.tolist() == [None, None, None, None, "a.wav"]


def test_as_cells_takes_iterators_and_series():
    assert as_cells(iter(["a", "b"])).tolist() == ["a", "b"]
    assert as_cells(pd.Series(["a", None, "b"], index=[7, 8, 9])).tolist() == ["a", None, "b"]
    assert as_cells([]).shape == (0,)


# make_table


def test_make_table_has_both_object_columns_in_order():
    for table in (
        make_table(visual=faces(2)),
        make_table(audio=["a", "b"]),
        make_table(visual=faces(2), audio=["a", "b"]),
    ):
        assert tuple(table.columns) == MODALITIES == ("visual", "audio")
        assert table.dtypes.map(str).eq("object").all()
        assert table.index.tolist() == [0, 1]


def test_make_table_fills_the_column_that_is_not_given():
    assert make_table(audio=["a", "b"])["visual"].tolist() == [None, None]
    assert make_table(visual=["a", "b"])["audio"].tolist() == [None, None]


def test_make_table_ignores_the_index_of_a_series():
    table = make_table(
        visual=pd.Series(["a", "b"], index=[5, 6]), audio=pd.Series(["c", "d"], index=[6, 5])
    )
    assert table.to_numpy().tolist() == [["a", "c"], ["b", "d"]]


def test_make_table_keeps_references():
    v, a = faces(3), voices(3)
    table = make_table(visual=v, audio=a)
    assert all(table.loc[i, "visual"] is v[i] and table.loc[i, "audio"] is a[i] for i in range(3))


def test_make_table_takes_blocks_of_faces_of_any_size():
    block = np.zeros((4, 3, 6, 6), np.uint8)
    table = make_table(visual=block, audio=voices(4))
    assert table["visual"].map(np.shape).tolist() == [(3, 6, 6)] * 4


@pytest.mark.parametrize("kwargs", [{}, {"visual": None, "audio": None}])
def test_make_table_needs_a_column(kwargs):
    with pytest.raises(ValueError, match=r"needs visual=, audio=, text= or several; got none"):
        make_table(**kwargs)


@pytest.mark.parametrize("name", MODALITIES)
@pytest.mark.parametrize("path", ["a.wav", b"a.wav"])
def test_make_table_refuses_a_bare_path(name, path):
    with pytest.raises(ValueError, match=rf"{name}=b?'a.wav' is a single path; give a list"):
        make_table(**{name: path})


def test_make_table_names_both_lengths_and_the_way_out():
    with pytest.raises(ValueError, match=r"visual has 2 cells and audio has 3.*stack_modalities"):
        make_table(visual=["a", "b"], audio=["c", "d", "e"])


# stack_modalities


def test_stack_puts_visual_rows_first_and_allows_unequal_lengths():
    v, a = faces(3), voices(2)
    table, y, _ = stack_modalities(
        audio=(a, [7, 8], ["p", "q"]), visual=(v, [1, 2, 3], list("abc"))
    )
    assert [is_missing(cell) for cell in table["visual"]] == [False] * 3 + [True] * 2
    assert [is_missing(cell) for cell in table["audio"]] == [True] * 3 + [False] * 2
    assert all(table["visual"][i] is v[i] for i in range(3))
    assert all(table["audio"][3 + i] is a[i] for i in range(2))
    assert y.tolist() == [1, 2, 3, 7, 8]
    assert table.index.tolist() == list(range(5))


def test_stack_joins_groups_and_gives_none_without_any():
    *_, groups = stack_modalities(
        visual=(["f"], [0], np.array(["anna"])), audio=(["v", "w"], [0, 1], ["bert", "cleo"])
    )
    assert groups.tolist() == ["anna", "bert", "cleo"]
    assert stack_modalities(visual=(["f"], [0]), audio=(["v"], [1]))[2] is None
    assert stack_modalities(visual=(["f"], [0], None), audio=(["v"], [1]))[2] is None


def test_stack_of_one_modality():
    table, y, groups = stack_modalities(audio=(["a", "b"], ["joy", "fear"], [1, 2]))
    assert table["visual"].tolist() == [None, None]
    assert y.tolist() == ["joy", "fear"]
    assert groups.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "got none"),
        ({"visual": (["a"],)}, r"visual must be \(X, y\) or \(X, y, groups\); got 1 elements"),
        ({"audio": (["a"], [0], [0], [0])}, "audio must be .* got 4 elements"),
        ({"audio": (["a", "b"], [0])}, "audio has 2 cells but y has 1 entries"),
        ({"visual": (["a"], [0], [1, 2])}, "visual has 1 cells but groups has 2 entries"),
        (
            {"visual": (["a"], [0]), "audio": (["b"], [0], [1])},
            "groups are missing for visual; give all or none",
        ),
        (
            {"visual": (["a"], [0], [1]), "audio": (["b"], [0], None)},
            "groups are missing for audio; give all or none",
        ),
    ],
)
def test_stack_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        stack_modalities(**kwargs)


# unpair


def test_unpair_gives_each_cell_its_row_visual_first(table):
    y = np.array(list("abcdefgh"))
    groups = np.arange(8) // 2
    rows, labels, speakers = unpair(table, y, groups)
    expected = [
        (modality, table.loc[i, modality], y[i], groups[i])
        for modality in ("visual", "audio")
        for i in range(8)
        if table.loc[i, modality] is not None
    ]
    assert len(rows) == len(expected) == 11
    for i, (modality, cell, label, group) in enumerate(expected):
        other = "audio" if modality == "visual" else "visual"
        assert rows.loc[i, modality] is cell
        assert rows.loc[i, other] is None
        assert labels[i] == label
        assert speakers[i] == group


def test_unpair_turns_frames_into_rows_that_share_label_and_group():
    frames = np.arange(3 * 3 * 2 * 2, dtype=np.uint8).reshape(3, 3, 2, 2)
    single = np.zeros((3, 2, 2), np.uint8)
    table = make_table(visual=[frames, single], audio=["a.wav", "b.wav"])
    rows, y, groups = unpair(table, ["joy", "fear"], [10, 20])
    assert y.tolist() == ["joy"] * 3 + ["fear", "joy", "fear"]
    assert groups.tolist() == [10] * 3 + [20, 10, 20]
    for i in range(3):
        np.testing.assert_array_equal(rows.loc[i, "visual"], frames[i])
        assert np.shares_memory(rows.loc[i, "visual"], frames)
    assert rows.loc[3, "visual"] is single
    assert rows["audio"].tolist() == [None] * 4 + ["a.wav", "b.wav"]


def test_unpair_does_not_split_voices_or_flat_faces():
    voice = np.zeros((2, 3, 4, 5), np.float32)
    face = np.zeros((3, 4, 5), np.uint8)
    rows, *_ = unpair(make_table(visual=[face], audio=[voice]), [0])
    assert rows.loc[0, "visual"] is face
    assert rows.loc[1, "audio"] is voice


def test_unpair_without_groups_and_with_one_column_and_any_index():
    frame = pd.DataFrame({"audio": ["a", None, "b"]}, index=[4, 4, 9], dtype=object)
    rows, y, groups = unpair(frame, [1, 2, 3])
    assert tuple(rows.columns) == MODALITIES
    assert rows["audio"].tolist() == ["a", "b"]
    assert y.tolist() == [1, 3]
    assert groups is None


def test_unpair_of_an_unpaired_table_changes_nothing():
    table, y, groups = stack_modalities(
        visual=(faces(2), [0, 1], [5, 6]), audio=(voices(3), [1, 1, 0], [6, 7, 8])
    )
    rows, labels, speakers = unpair(table, y, groups)
    assert same_cells(rows, table)
    assert labels.tolist() == y.tolist()
    assert speakers.tolist() == groups.tolist()


@pytest.mark.parametrize(
    ("frame", "y", "groups", "message"),
    [
        (pd.DataFrame({"path": ["a"]}), [0], None, r"has columns \['path'\]; it needs 'visual'"),
        (make_table(audio=["a", "b"]), [0], None, "the table has 2 rows but y has 1 entries"),
        (make_table(audio=["a"]), [0], [1, 2], "the table has 1 rows but groups has 2 entries"),
        (make_table(audio=[None, np.nan]), [0, 1], None, "every cell of the table is missing"),
        (make_table(audio=["a"])[["audio", "audio"]], [0], None, "several columns 'audio'"),
        (make_table(audio=["a"]), 0, None, "should be a 1d array"),
        (make_table(audio=["a"]), [0], [[1, 2]], "should be a 1d array"),
    ],
)
def test_unpair_errors(frame, y, groups, message):
    with pytest.raises(ValueError, match=message):
        unpair(frame, y, groups)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 2), st.integers(0, 3)),
        min_size=1,
        max_size=12,
    )
)
def test_unpair_keeps_every_cell_label_group_triple_exactly_once(rows):
    """Visual cells: 0 is missing, 1 a single face, 2 and 3 that many frames."""
    visual, audio, expected = [], [], []
    for i, (frames, voice, label, group) in enumerate(rows):
        pixels = [np.full((3, 1, 1), 10 * i + k, np.uint8) for k in range(frames)]
        visual.append([None, pixels[0] if frames else None, np.array(pixels)][min(frames, 2)])
        audio.append(f"{i}.wav" if voice else None)
        expected += [("face", 10 * i + k, label, group) for k in range(frames)]
        expected += [("voice", f"{i}.wav", label, group)] * voice
    if not expected:
        return
    labels, groups = [r[2] for r in rows], [r[3] for r in rows]
    table, y, speakers = unpair(make_table(visual=visual, audio=audio), labels, groups)
    found = []
    for i in range(len(table)):
        face, voice = table.loc[i, "visual"], table.loc[i, "audio"]
        assert (face is None) != (voice is None)
        cell = ("voice", voice) if face is None else ("face", int(face[0, 0, 0]))
        found.append((*cell, y[i], speakers[i]))
    assert sorted(found, key=repr) == sorted(expected, key=repr)


# the rest of the scientific stack


def test_train_test_split_copies_references(table):
    y = np.arange(8)
    train, test, y_train, y_test = train_test_split(table, y, test_size=3, random_state=0)
    assert same_cells(train, table.iloc[y_train])
    assert same_cells(test, table.iloc[y_test])
    assert train.dtypes.map(str).eq("object").all()


def test_group_k_fold_slices_copy_references(table):
    for rows in GroupKFold(4).split(table, groups=np.arange(8) // 2):
        for part in rows:
            part_of = table.iloc[part]
            for i, row in enumerate(part):
                for j in range(2):
                    assert part_of.iat[i, j] is table.iat[row, j]


def test_column_transformer_passes_cells_through(table):
    transformer = ColumnTransformer(
        [("visual", "passthrough", ["visual"]), ("audio", "passthrough", ["audio"])]
    )
    cells = transformer.fit_transform(table)
    assert cells.shape == (8, 2)
    assert cells.dtype == object
    assert same_cells(pd.DataFrame(cells), table)
    # Prediction on voices alone finds the visual column too.
    assert transformer.transform(make_table(audio=["me.wav"])).tolist() == [[None, "me.wav"]]


def test_column_transformer_with_pandas_output_stays_a_modality_table(table):
    transformer = ColumnTransformer(
        [("visual", "passthrough", ["visual"]), ("audio", "passthrough", ["audio"])],
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    got = transformer.fit_transform(table)
    assert tuple(got.columns) == MODALITIES
    assert same_cells(got, table)


def test_pickle_round_trip(table):
    again = pickle.loads(pickle.dumps(table))
    assert again.dtypes.map(str).eq("object").all()
    for before, after in zip(table.to_numpy().ravel(), again.to_numpy().ravel(), strict=True):
        assert type(before) is type(after)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


def test_concat_copies_references(table):
    other = make_table(audio=voices(2))
    both = pd.concat([table, other], ignore_index=True)
    assert both.dtypes.map(str).eq("object").all()
    assert same_cells(both.iloc[:8], table)
    assert same_cells(both.iloc[8:], other)


def test_a_reindexed_row_is_missing_for_the_helpers(table):
    grown = table.reindex(range(9))
    assert is_missing(grown.loc[8, "visual"])
    assert is_missing(grown.loc[8, "audio"])
    assert len(unpair(grown, np.arange(9))[0]) == len(unpair(table, np.arange(8))[0])


def test_groups_of_two_types_are_refused():
    with pytest.raises(ValueError, match="visual groups are int64 and audio groups <U1"):
        stack_modalities(visual=(["a.png"], ["joy"], [1]), audio=(["a.wav"], ["joy"], ["1"]))


# ------------------------------------------------------------------------ text


def test_text_is_a_column_only_where_it_is_given():
    assert list(make_table(audio=["a.wav"]).columns) == ["visual", "audio"]
    table = make_table(audio=["a.wav", "b.wav", "c.wav"], text=["I am fine.", " ", None])
    assert list(table.columns) == ["visual", "audio", "text"]
    assert table["text"].tolist() == ["I am fine.", None, None]
    assert table.dtypes.tolist() == [object] * 3


def test_text_may_be_vectors_or_sequences():
    cells = make_table(text=[np.zeros(4), np.zeros((3, 4))])["text"]
    assert [cell.shape for cell in cells] == [(4,), (3, 4)]


def test_single_transcript_is_refused():
    with pytest.raises(ValueError, match=r"text='I am fine.' is a single transcript; give a list"):
        make_table(text="I am fine.")


def test_texts_must_be_as_many_as_the_other_cells():
    with pytest.raises(ValueError, match="audio has 1 cells and text has 2"):
        make_table(audio=["a.wav"], text=["one", "two"])


def test_stack_puts_texts_under_the_rest():
    table, y, groups = stack_modalities(
        audio=(["a.wav"], ["joy"], ["ann"]),
        text=(["Hello.", "No!"], ["joy", "anger"], ["bo", "bo"]),
    )
    assert table["audio"].tolist() == ["a.wav", None, None]
    assert table["text"].tolist() == [None, "Hello.", "No!"]
    assert y.tolist() == ["joy", "joy", "anger"]
    assert groups.tolist() == ["ann", "bo", "bo"]
    with pytest.raises(ValueError, match=r"audio labels are .* and text labels int64"):
        stack_modalities(audio=(["a.wav"], ["joy"]), text=(["Hello."], [1]))


def test_unpair_gives_texts_rows_of_their_own():
    table = make_table(visual=["a.mp4", None], audio=["a.wav", None], text=[None, "Hello."])
    apart, y, groups = unpair(table, ["joy", "anger"])
    assert apart["visual"].tolist() == ["a.mp4", None, None]
    assert apart["audio"].tolist() == [None, "a.wav", None]
    assert apart["text"].tolist() == [None, None, "Hello."]
    assert y.tolist() == ["joy", "joy", "anger"]
    assert groups is None


def test_modality_columns_in_order():
    table = make_table(audio=["a.wav"], text=["Hello."])
    assert modality_columns(table) == ("visual", "audio", "text")
    assert modality_columns(table[["text", "audio"]].assign(age=3)) == ("audio", "text")
    assert modality_columns(make_table(audio=["a.wav"])) == ("visual", "audio")
    with pytest.raises(TypeError, match=r"modality table, a DataFrame, not list"):
        modality_columns(["a.wav"])


def test_unpair_gives_blank_texts_no_row():
    # Frames that others made may hold what make_table takes for missing.
    table = pd.DataFrame({"audio": ["a.wav", None], "text": [" ", "Hello."]}, dtype=object)
    apart, y, _ = unpair(table, ["joy", "anger"])
    assert apart["text"].tolist() == [None, "Hello."]
    assert y.tolist() == ["joy", "anger"]


def test_splits_and_column_transformers_carry_text():
    texts = [f"Word {i}." for i in range(6)]
    table = make_table(audio=[np.full(2, i) for i in range(6)], text=texts)
    _, test = next(KFold(3).split(table))
    assert table.iloc[test]["text"].tolist() == texts[:2]
    columns = ColumnTransformer(
        [("audio", "passthrough", ["audio"]), ("text", "passthrough", ["text"])]
    ).set_output(transform="pandas")
    out = columns.fit_transform(table)
    assert out["text__text"].tolist() == texts
    assert summarize_table(out).modalities.loc["text", "filled"] == 6


def test_classifier_of_voice_and_face_ignores_text():
    rng = np.random.default_rng(0)
    y = np.array(["anger", "joy"] * 6)
    cells = {m: list(rng.normal(size=(12, 4)).astype(np.float32)) for m in ("visual", "audio")}
    few = {"max_epochs": 1, "random_state": 0, "device": "cpu"}
    plain = FDANClassifier(**few).fit(make_table(**cells), y)
    texts = make_table(**cells, text=["I am fine."] * 11 + [None])
    told = FDANClassifier(**few).fit(texts, y)
    np.testing.assert_array_equal(told.predict_proba(texts), plain.predict_proba(texts))
    np.testing.assert_array_equal(
        plain.predict_proba(texts), plain.predict_proba(texts[["visual", "audio"]])
    )


class Foreign:
    """A table or column of another library, as polars and pyarrow have them."""

    def __init__(self, data, columns=None):
        self.data = data
        if columns:
            self.columns = columns

    def __iter__(self):
        return iter(self.data)

    def to_pandas(self):
        return pd.DataFrame(self.data) if isinstance(self.data, dict) else pd.Series(self.data)


def test_tables_of_other_libraries():
    cells = {"visual": ["a.mp4", None], "audio": ["a.wav", "b.wav"]}
    table = Foreign(cells, columns=["visual", "audio"])
    assert modality_columns(table) == ("visual", "audio")
    assert summarize_table(table).rows["paired"] == 1
    rows, y, _ = unpair(table, ["joy", "fear"])
    assert rows["audio"].tolist() == [None, "a.wav", "b.wav"]
    assert y.tolist() == ["joy", "joy", "fear"]
    problems = check_corpus(table, timeout=None, verbose=0).problems
    assert problems["kind"].tolist() == ["missing"] * 3
    with pytest.raises(ValueError, match="takes one column, not a frame"):
        make_table(audio=table)
    assert make_table(audio=Foreign(["a.wav"]))["audio"].tolist() == ["a.wav"]


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("missing", [np.nan, None, pd.NA])
def test_what_is_missing_beside_words_becomes_no_word(kind, missing):
    y, groups = kind(["joy", missing]), kind([missing, "Ada"])
    _, labels, speakers = unpair(make_table(visual=["a", "b"], audio=["c", "d"]), y, groups)
    assert [is_missing(v) for v in labels] == [False, True] * 2
    assert [is_missing(v) for v in speakers] == [True, False] * 2
    _, labels, speakers = stack_modalities(
        visual=(["a"], ["fear"], ["Bob"]), audio=(["c", "d"], y, groups)
    )
    assert labels[:2].tolist() == ["fear", "joy"]
    assert speakers[[0, 2]].tolist() == ["Bob", "Ada"]
    assert is_missing(labels[2])
    assert is_missing(speakers[1])


def test_labels_of_which_none_is_missing_stay_what_numpy_makes_of_them():
    table = make_table(audio=["c", "d"])
    for y in (["joy", "fear"], [1, 2], [1.0, np.nan], [True, False]):
        assert unpair(table, y)[1].dtype == np.asarray(y).dtype
