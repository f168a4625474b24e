"""What holds for any input: tables, labels, shapes of cells, splits, scores, the cache."""

import contextlib
import pickle
import re
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.model_selection import GroupKFold, KFold, LeaveOneGroupOut, ShuffleSplit

from skfdan import AudioHoldout, FDANClassifier, make_table, stack_modalities, unpair
from skfdan.classifiers._input import encode, hide_minus_one
from skfdan.metrics import uar_score, war_score, weighted_f1_score
from skfdan.model_selection import make_protocol
from skfdan.preprocessing.cache import FileCache, cache_key
from skfdan.table import SKIP, as_cells, is_missing


def examples(n):
    return settings(max_examples=n, deadline=None, derandomize=True)


# ------------------------------------------------------------------------------------ tables

missing = st.sampled_from([None, np.nan, float("nan"), np.float32("nan"), pd.NA, pd.NaT])
arrays = st.builds(
    lambda shape, dtype: np.ones(shape, dtype),
    hnp.array_shapes(min_dims=0, max_dims=3, max_side=3),
    st.sampled_from([np.uint8, np.float32, np.float64]),
)
filled = st.one_of(
    st.text(max_size=5),
    st.builds(Path, st.text("ab/.", min_size=1, max_size=5)),
    arrays,
    st.just(np.array([np.nan])),
    st.just(SKIP),
)
cells = st.one_of(missing, filled)
columns = st.lists(cells, max_size=8)
pairs = st.lists(st.tuples(cells, cells), min_size=1, max_size=8)


def same(left, right):
    """Tell whether two columns hold the very same objects, up to the sort of what is missing."""
    return len(left) == len(right) and all(
        (a is None) if is_missing(b) else a is b or (isinstance(b, str) and a == b)
        for a, b in zip(left, right, strict=True)
    )


def alike(left, right):
    """Tell whether two frames hold equal cells of equal type."""

    def equal(a, b):
        if not isinstance(a, np.ndarray):
            return a == b
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())

    both = zip(left.to_numpy().ravel(), right.to_numpy().ravel(), strict=True)
    return left.shape == right.shape and all(type(a) is type(b) and equal(a, b) for a, b in both)


@examples(100)
@given(columns)
def test_cells_keep_their_identity_and_a_missing_one_is_none(column):
    got = as_cells(column)
    assert got.dtype == object
    assert got.shape == (len(column),)
    assert same(got, column)
    assert same(as_cells(got), got)


@examples(60)
@given(pairs)
def test_a_table_holds_what_it_was_given(rows):
    visual, audio = zip(*rows, strict=True)
    table = make_table(visual=visual, audio=iter(audio))
    assert [str(t) for t in table.dtypes] == ["object", "object"]
    assert same(table["visual"], visual)
    assert same(table["audio"], audio)
    assert same(make_table(visual=visual)["audio"], [None] * len(rows))


@examples(60)
@given(pairs, st.data())
def test_a_table_survives_slices_concatenation_arrays_and_pickling(rows, data):
    table = make_table(*zip(*rows, strict=True))
    order = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10))
    taken = table.iloc[order]
    for name in table:
        assert same(taken[name], [table[name][i] for i in order])
    cut = data.draw(st.integers(0, len(rows)))
    again = pd.concat([table.iloc[:cut], table.iloc[cut:]])
    assert [str(t) for t in again.dtypes] == ["object", "object"]
    block = again.to_numpy()
    assert block.dtype == object
    for i, name in enumerate(table):
        assert same(again[name], table[name])
        assert same(make_table(**{name: block[:, i]})[name], table[name])
    back = pickle.loads(pickle.dumps(table))
    assert alike(back, table)
    assert [cell is SKIP for cell in back["audio"]] == [cell is SKIP for cell in table["audio"]]


labels_of_a_type = st.sampled_from(
    [
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
        st.sampled_from(["", " ", "nan", "None", "-1", "a\nb", "\u200b", "é", "e\u0301", "怒り"]),
        st.integers(-(2**63), 2**63 - 1),
        st.integers(-2, 2),
        st.booleans(),
        st.integers(-5, 5).map(float),
    ]
)


@st.composite
def sources(draw):
    """Cells, labels and groups of the faces and the voices."""
    label, group = draw(labels_of_a_type), draw(labels_of_a_type)
    grouped = draw(st.booleans())
    parts = []
    for _ in range(2):
        rows = draw(st.lists(st.tuples(cells, label, group), max_size=6))
        values = tuple(map(list, zip(*rows, strict=True))) or ([], [], [])
        parts.append(values if grouped else values[:2])
    assume(parts[0][0] and parts[1][0])
    return parts


@examples(100)
@given(sources())
def test_stacked_sources_keep_every_cell_label_and_group(parts):
    visual, audio = parts
    table, y, groups = stack_modalities(visual=visual, audio=audio)
    n = len(visual[0])
    assert len(table) == len(y) == n + len(audio[0])
    assert same(table["visual"], visual[0] + [None] * len(audio[0]))
    assert same(table["audio"], [None] * n + audio[0])
    assert y.tolist() == visual[1] + audio[1]
    assert (groups is None) if len(visual) == 2 else groups.tolist() == visual[2] + audio[2]


@examples(100)
@given(sources())
def test_unpair_leaves_what_has_one_cell_a_row_as_it_is(parts):
    stacked = stack_modalities(*parts)
    table, y, groups = stacked
    there = [not (is_missing(a) and is_missing(b)) for a, b in table.itertuples(index=False)]
    if not any(there):
        with pytest.raises(ValueError, match="missing"):
            unpair(table, y, groups)
        return
    for _ in range(2):
        table, y, groups = unpair(table, y, groups)
        for name in table:
            assert same(table[name], stacked[0][name][there])
        assert y.tolist() == stacked[1][there].tolist()
        assert y.dtype == stacked[1].dtype
        assert groups is None or groups.tolist() == stacked[2][there].tolist()


# ------------------------------------------------------------------------------------ labels


@examples(150)
@given(labels_of_a_type.flatmap(lambda label: st.lists(label, min_size=1, max_size=12)), st.data())
def test_encoded_labels_come_out_as_they_went_in(labels, data):
    hidden = data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    y = np.array(labels)
    if any(hidden):
        y = y.astype(object)
        y[np.array(hidden)] = None
    classes, code = encode(y)
    kept = {label for label, hide in zip(labels, hidden, strict=True) if not hide}
    assert classes.tolist() == sorted(kept)
    for label, hide, index in zip(labels, hidden, code, strict=True):
        if hide:
            assert index == -1
        else:
            assert classes.tolist()[index] == label
            assert type(classes.tolist()[index]) is type(label)


@examples(40)
@given(st.lists(st.text("abcä", max_size=3), min_size=2, max_size=8, unique=True))
def test_a_label_that_is_no_class_is_refused_by_name(labels):
    known, unknown = np.array(labels[:-1]), labels[-1]
    encode(known, np.unique(known))
    with pytest.raises(ValueError, match=re.escape(repr(unknown))):
        encode(np.array(labels), np.unique(known))


small = st.one_of(st.just(-1), st.integers(-2, 2), st.sampled_from(["-1", "a"]), st.none())


@examples(200)
@given(
    st.one_of(st.lists(st.integers(-2, 2), max_size=6), st.lists(small, max_size=6)),
    st.one_of(st.none(), st.lists(st.integers(-2, 2), min_size=1, unique=True)),
)
def test_minus_one_is_hidden_unless_it_is_a_class(labels, classes):
    y = np.array(labels, dtype=int if all(type(v) is int for v in labels) else object)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        got = hide_minus_one(y, None if classes is None else np.array(classes)).tolist()
    others = {repr(v): v for v in labels if v is not None and v != -1}
    if classes is None:
        is_class = len(others) == 1 and type(next(iter(others.values()))) is int
    else:
        is_class = -1 in classes
    assert got == [None if v == -1 and not is_class else v for v in labels]
    # What looks like a class is not hidden in silence.
    numbers = [v for v in others.values() if type(v) is int]
    looks = set(others.values()) == {0, 1} or min(numbers, default=0) < -1
    assert bool(told) == (-1 in labels and classes is None and not is_class and looks)


QUICK = {"bottleneck": 4, "random_state": 0, "verbose": 0, "device": "cpu", "lr": 0.01}


@examples(12)
@given(
    labels_of_a_type.flatmap(lambda label: st.lists(label, min_size=2, max_size=4, unique=True)),
    st.sampled_from(["list", "array", "object"]),
)
def test_a_classifier_gives_the_labels_back(labels, form):
    """Names of classes do not matter: the answers are those for 0, 1, 2, ... in their order."""
    rng = np.random.default_rng(0)
    code = np.arange(24) % len(labels)
    X = (rng.normal(size=(24, 5)) + 3 * np.eye(5)[code]).astype(np.float32)
    names = sorted(labels)
    y = [names[i] for i in code]
    if form != "list":
        y = np.array(y, dtype=object if form == "object" and isinstance(names[0], str) else None)
    ranked = FDANClassifier(**QUICK, max_epochs=4).fit(X, code)
    clf = FDANClassifier(**QUICK, max_epochs=4).fit(X, y)
    assert clf.classes_.tolist() == names
    np.testing.assert_array_equal(clf.predict_proba(X), ranked.predict_proba(X))
    assert clf.predict(X).tolist() == [names[i] for i in ranked.predict(X)]
    assert len(set(clf.predict(X).tolist())) > 1


@examples(15)
@given(st.lists(st.floats(-9, 9), min_size=3, max_size=6))
def test_continuous_labels_are_refused(values):
    assume(any(v != int(v) for v in values))
    X = np.arange(3.0 * len(values)).reshape(-1, 3)
    with pytest.raises(ValueError, match="continuous"):
        FDANClassifier(**QUICK).fit(X, values)


# ----------------------------------------------------------------------------- ragged cells


@st.composite
def odd_cells(draw):
    """A cell of any shape and type, mostly a picture or a spectrogram."""
    common = st.sampled_from([(8, 9), (7, 8), (1, 8, 8), (3, 6, 8), (5,), (4,), (2, 3, 8, 8)])
    any_shape = hnp.array_shapes(min_dims=0, max_dims=5, max_side=4)
    shape = draw(st.one_of(common, common, common, any_shape))
    usual = ["f4", "f4", "f4", "u1", "u1", "f8", "f2", "i2", "?"]
    dtype = draw(st.sampled_from([*usual, "c8", "O", "U2", "M8[s]"]))
    kind = draw(st.sampled_from(["array"] * 12 + ["empty", "nan", "huge", "large", "other"]))
    if kind == "other":
        return draw(st.one_of(missing, st.sampled_from(["a.wav", 7, 1.5, (1, 2), [1.0], {}, SKIP])))
    if kind == "empty":
        return np.empty((0, *shape[1:]), dtype)
    array = np.random.default_rng(len(shape)).integers(0, 200, shape)
    if kind == "nan":
        return np.where(array > 0, np.nan, 0.0)
    if kind == "large":
        return (array * 1e36).astype(np.float32)
    if kind == "huge":
        return array * 1e300
    return np.asarray(array).astype(dtype)


@st.composite
def ragged(draw):
    """Six cells of one kind, with up to three strangers among them."""
    usual = [np.ones((8, 9), np.float32), np.full((3, 8, 8), 7, np.uint8), np.ones(5)]
    column = [draw(st.sampled_from(usual))] * 6
    for _ in range(draw(st.integers(0, 3))):
        column[draw(st.integers(0, 5))] = draw(odd_cells())
    return column


NET = {**QUICK, "backbone": "cnn", "weights": None, "input_size": 32, "max_epochs": 1}


@examples(120)
@given(ragged(), st.one_of(st.none(), ragged()))
def test_cells_of_any_shape_fit_or_are_refused_with_their_row(audio, visual):
    table = make_table(visual=visual, audio=audio)
    message = proba = None
    try:
        with warnings.catch_warnings():
            # Rows left out, cells without differences, numbers too large for 32 bits.
            warnings.simplefilter("ignore")
            clf = FDANClassifier(**NET).fit(table, list("ababab"))
            proba = clf.predict_proba(table)
    except (ValueError, TypeError) as error:
        message = str(error)
    if message is None:
        assert proba.shape == (6, 2)
        assert np.isfinite(proba).all()
        np.testing.assert_allclose(proba.sum(1), 1)
    else:
        nothing_there = all(is_missing(cell) or cell is SKIP for cell in audio)
        assert re.search(r"\brows?\b", message.lower()) or nothing_there, message


# ------------------------------------------------------------------------------------ splits


@st.composite
def corpora(draw):
    """Voices of two emotions and some faces, mixed: table, labels, speakers."""
    n_speakers = draw(st.integers(2, 4))
    n_audio, n_visual = draw(st.integers(10, 20)), draw(st.integers(0, 10))
    voices = [(f"{i}.wav", i % 2, i % n_speakers) for i in range(n_audio)]
    who = draw(st.lists(st.integers(0, 6), min_size=n_visual, max_size=n_visual))
    faces = [(f"{i}.png", i % 2, speaker) for i, speaker in enumerate(who)]
    table, y, groups = stack_modalities(
        visual=tuple(map(list, zip(*faces, strict=True))) if faces else None,
        audio=tuple(map(list, zip(*voices, strict=True))),
    )
    order = np.random.default_rng(draw(st.integers(0, 999))).permutation(len(table))
    return table.iloc[order], y[order], groups[order]


INNER = [2, KFold(3), GroupKFold(2), LeaveOneGroupOut(), ShuffleSplit(2, random_state=0)]


@examples(80)
@given(corpora(), st.sampled_from(INNER), st.sampled_from(["all", "disjoint"]))
def test_a_holdout_never_leaks(corpus, inner, visual):
    table, y, groups = corpus
    voices = {i for i, cell in enumerate(table["audio"]) if cell is not None}
    faces = set(range(len(table))) - voices
    holdout = AudioHoldout(inner, visual)
    tested = []
    splits = list(holdout.split(table, y, groups))
    assert len(splits) == holdout.get_n_splits(table, y, groups) > 1
    for train, test in splits:
        train, test = train.tolist(), test.tolist()
        tested += test
        assert len(set(train)) == len(train)
        assert set(test) <= voices
        assert test
        assert not set(train) & set(test)
        assert set(train) & voices == voices - set(test) or isinstance(inner, ShuffleSplit)
        told = {groups[i] for i in test} if visual == "disjoint" else set()
        assert set(train) & faces == {i for i in faces if groups[i] not in told}
        if visual == "disjoint" and isinstance(inner, (GroupKFold, LeaveOneGroupOut)):
            assert not {groups[i] for i in train} & told
    if not isinstance(inner, ShuffleSplit):
        assert sorted(tested) == sorted(voices)


@examples(40)
@given(corpora(), st.sampled_from(["disjoint", "gmtcnet"]), st.integers(0, 9))
def test_protocols_of_folds_test_every_voice_once(corpus, name, seed):
    table, y, groups = corpus
    options = {"n_splits": 2, "random_state": seed} if name == "disjoint" else {}
    voices = [i for i, cell in enumerate(table["audio"]) if cell is not None]
    splits = list(make_protocol(name, **options).split(table, y, groups))
    assert sorted(i for _, test in splits for i in test) == voices


@examples(40)
@given(corpora(), st.sampled_from(["train", "leave-out", "test"]), st.data())
def test_official_parts_cover_what_they_say(corpus, dev, data):
    table, y, groups = corpus
    voices = np.array([cell is not None for cell in table["audio"]])
    names = st.sampled_from(["train", "dev", "test"])
    parts = np.array([data.draw(names) for _ in table.index])
    tested = "dev" if dev == "test" else "test"
    trained = {"train", "dev"} if dev == "train" else {"train"}
    assume(voices[parts == tested].any() and voices[np.isin(parts, list(trained))].any())
    splits = list(make_protocol("meld-official", parts=parts, dev=dev).split(table, y, groups))
    assert len(splits) == 1
    train, test = map(set, map(np.ndarray.tolist, splits[0]))
    for i, (part, voice) in enumerate(zip(parts, voices, strict=True)):
        assert (i in test) == (part == tested and voice)
        assert (i in train) == (part in trained)


# ------------------------------------------------------------------------------------ scores


@examples(150)
@given(
    st.one_of(
        st.lists(st.tuples(st.integers(-2, 3), st.integers(-2, 3)), min_size=1, max_size=20),
        st.lists(st.tuples(st.text("aé ", max_size=2), st.text("aé ", max_size=2)), min_size=1),
        st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1),
    )
)
def test_scores_are_what_counting_says(rows):
    truth, told = map(list, zip(*rows, strict=True))
    right = sum(t == p for t, p in rows)
    assert war_score(truth, told) == pytest.approx(right / len(rows))
    recalls, f1 = [], 0
    for label in set(truth):
        hits = sum(t == p == label for t, p in rows)
        recalls.append(hits / truth.count(label))
        f1 += truth.count(label) / len(rows) * 2 * hits / (truth.count(label) + told.count(label))
    assert uar_score(truth, told) == pytest.approx(np.mean(recalls))
    assert weighted_f1_score(truth, told) == pytest.approx(f1)
    assert uar_score(np.array(truth), np.array(told)) == uar_score(truth, told)
    assert 0 <= uar_score(truth, told) <= 1
    assert uar_score(truth, truth) == war_score(truth, truth) == 1


# ------------------------------------------------------------------------------------- cache

dtypes = st.one_of(
    hnp.scalar_dtypes(),
    hnp.unicode_string_dtypes(max_len=3),
    hnp.byte_string_dtypes(max_len=3),
)
entries = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=4, max_side=4))


@contextlib.contextmanager
def cache_with(value):
    with tempfile.TemporaryDirectory() as folder:
        cache, key = FileCache(folder), cache_key("property/1", {}, np.zeros(1))
        assert cache.fetch(key, lambda: value)[0]
        (entry,) = Path(folder).glob("*/*.npy")
        yield cache, key, entry


@examples(80)
@given(entries, st.booleans())
def test_an_array_comes_back_from_the_cache_to_the_bit(value, transpose):
    value = value.T if transpose else value
    with cache_with(value) as (cache, key, _):
        done, found = cache.fetch(key, None)
        assert done
        assert isinstance(found, np.ndarray)
        assert found.dtype == value.dtype
        assert found.shape == value.shape
        assert found.tobytes() == value.tobytes()


@examples(80)
@given(entries, st.data())
def test_a_damaged_entry_is_never_returned(value, data):
    with cache_with(value) as (cache, key, entry):
        content = bytearray(entry.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] ^= data.draw(st.integers(1, 255))
        else:
            del content[place:]
        entry.write_bytes(content)
        asked = []
        done, found = cache.fetch(key, lambda: asked.append(1) or value)
        assert asked == [1]
        assert done
        assert found is value or found.tobytes() == value.tobytes()
        assert cache.fetch(key, None)[0]  # it is mended
