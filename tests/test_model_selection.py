import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    PredefinedSplit,
    ShuffleSplit,
    StratifiedKFold,
    StratifiedShuffleSplit,
    cross_validate,
)

from skfdan import AudioHoldout, make_table, stack_modalities, unpair
from skfdan.table import is_missing

N_CLASSES, N_SPEAKERS, N_TAKES = 3, 4, 5


@pytest.fixture(scope="module")
def corpus():
    """Voices: 3 classes x 4 speakers x 5 takes; faces: 20 more rows, one of them a stranger's."""
    rng = np.random.default_rng(0)
    y_audio = np.repeat(np.arange(N_CLASSES), N_SPEAKERS * N_TAKES)
    who_audio = np.tile(np.repeat(np.arange(N_SPEAKERS), N_TAKES), N_CLASSES)
    y_visual = rng.integers(0, N_CLASSES, 20)
    who_visual = np.arange(20) % N_SPEAKERS
    who_visual[7] = 99
    table, y, groups = stack_modalities(
        visual=([np.full((3, 2, 2), i, np.uint8) for i in range(20)], y_visual, who_visual),
        audio=([f"{i}.wav" for i in range(len(y_audio))], y_audio, who_audio),
    )
    # The two kinds of rows are mixed, as they may be in a user's table.
    order = rng.permutation(len(table))
    return table.iloc[order], y[order], groups[order]


def rows_of(table, modality):
    return np.flatnonzero([not is_missing(cell) for cell in table[modality]])


def make_inner(name, table, y, groups):
    """Return an inner splitter and the splits of the voices that it makes on its own."""
    audio = rows_of(table, "audio")
    half = np.arange(len(audio))
    inner = {
        "shuffle": StratifiedShuffleSplit(3, test_size=0.2, random_state=0),
        "group_kfold": GroupKFold(4),
        "logo": LeaveOneGroupOut(),
        "int": 5,
        "list": [(half[::2], half[1::2]), (half[1::2], half[::2]), (half[:50], half[55:])],
    }[name]
    if name == "list":
        splits = inner
    else:
        splitter = StratifiedKFold(5) if name == "int" else inner
        speakers = groups[audio] if name in ("group_kfold", "logo") else None
        splits = list(splitter.split(audio, y[audio], speakers))
    return inner, [(audio[train], audio[test]) for train, test in splits]


INNERS = ["shuffle", "group_kfold", "logo", "int", "list"]


@pytest.mark.parametrize("name", INNERS)
def test_paper_mode_trains_on_every_face_and_tests_voices_only(corpus, name):
    table, y, groups = corpus
    inner, expected = make_inner(name, table, y, groups)
    visual = rows_of(table, "visual")
    splits = list(AudioHoldout(inner).split(table, y, groups))
    assert len(splits) == len(expected)
    for (train, test), (audio_train, audio_test) in zip(splits, expected, strict=True):
        assert set(train) == set(visual) | set(audio_train)
        assert set(test) == set(audio_test)
        assert len(train) == len(set(train))
        assert table["visual"].iloc[test].map(is_missing).all()


@pytest.mark.parametrize("name", INNERS)
def test_disjoint_mode_drops_the_faces_of_test_voices_only(corpus, name):
    table, y, groups = corpus
    inner, expected = make_inner(name, table, y, groups)
    visual = rows_of(table, "visual")
    splits = list(AudioHoldout(inner, visual="disjoint").split(table, y, groups))
    assert len(splits) == len(expected)
    for (train, test), (audio_train, audio_test) in zip(splits, expected, strict=True):
        heard = set(groups[audio_test])
        assert set(test) == set(audio_test)
        assert set(train) == {i for i in visual if groups[i] not in heard} | set(audio_train)
        stranger = np.flatnonzero(groups == 99)
        assert set(stranger) <= set(train)


@pytest.mark.parametrize("inner", [LeaveOneGroupOut(), GroupKFold(2)], ids=["logo", "group_kfold"])
def test_disjoint_mode_with_a_speaker_splitter_shares_no_speaker(corpus, inner):
    table, y, groups = corpus
    for train, test in AudioHoldout(inner, visual="disjoint").split(table, y, groups):
        assert not set(groups[train]) & set(groups[test])
        assert not is_missing(table["audio"].iloc[test[0]])


def test_paper_mode_does_show_the_faces_of_test_speakers(corpus):
    table, y, groups = corpus
    for train, test in AudioHoldout(LeaveOneGroupOut()).split(table, y, groups):
        assert set(groups[train]) & set(groups[test])


def test_two_tenths_of_every_class_are_tested(corpus):
    table, y, _ = corpus
    splitter = AudioHoldout(StratifiedShuffleSplit(4, test_size=0.2, random_state=1))
    for train, test in splitter.split(table, y):
        # 20 voices a class
        assert np.bincount(y[test]).tolist() == [4] * N_CLASSES
        voices = np.intersect1d(train, rows_of(table, "audio"))
        assert np.bincount(y[voices]).tolist() == [16] * N_CLASSES


def test_an_integer_is_a_stratified_k_fold_for_labels_and_a_k_fold_without(corpus):
    table, y, _ = corpus
    audio = rows_of(table, "audio")
    plain = [set(test) for _, test in AudioHoldout(3).split(table)]
    assert plain == [set(audio[test]) for _, test in KFold(3).split(audio)]
    for _, test in AudioHoldout(4).split(table, y):
        assert np.bincount(y[test]).tolist() == [5] * N_CLASSES


def test_string_labels_series_and_foreign_indices(corpus):
    table, y, groups = corpus
    names = pd.Series(np.array(["anger", "fear", "joy"])[y], index=np.arange(len(y)) + 1000)
    speakers = pd.Series(groups, index=np.arange(len(y))[::-1])
    splitter = AudioHoldout(StratifiedKFold(3), visual="disjoint")
    for got, expected in zip(
        splitter.split(table, names, speakers), splitter.split(table, y, groups), strict=True
    ):
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])


@pytest.mark.parametrize("visual", ["all", "disjoint"])
def test_an_object_array_gives_the_splits_of_the_table(corpus, visual):
    table, y, groups = corpus
    splitter = AudioHoldout(GroupKFold(3), visual=visual)
    for got, expected in zip(
        splitter.split(table.to_numpy(), y, groups), splitter.split(table, y, groups), strict=True
    ):
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])
    assert splitter.get_n_splits(table.to_numpy(), y, groups) == 3


def test_a_table_of_voices_alone(corpus):
    table, y, _ = corpus
    audio = rows_of(table, "audio")
    voices = table[["audio"]].iloc[audio]
    for got, expected in zip(
        AudioHoldout(4).split(voices, y[audio]),
        StratifiedKFold(4).split(audio, y[audio]),
        strict=True,
    ):
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])


@pytest.mark.parametrize("visual", ["all", "disjoint"])
def test_no_warning_that_the_inner_splitter_has_no_use_for_groups(corpus, visual):
    table, y, groups = corpus
    audio = rows_of(table, "audio")
    with pytest.warns(UserWarning, match="groups parameter is ignored"):
        next(KFold(2).split(audio, y[audio], groups[audio]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splitter = AudioHoldout(KFold(2), visual=visual)
        assert len(list(splitter.split(table, y, groups))) == 2


def test_same_seed_same_splits(corpus):
    table, y, _ = corpus

    def splits(seed):
        inner = StratifiedShuffleSplit(2, test_size=0.2, random_state=seed)
        return [part for pair in AudioHoldout(inner).split(table, y) for part in pair]

    for one, other in zip(splits(3), splits(3), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(not np.array_equal(a, b) for a, b in zip(splits(3), splits(4), strict=True))


# voices without a label

MISSING = [
    pytest.param(lambda y: [None if c < 0 else c for c in y.tolist()], id="list"),
    pytest.param(lambda y: np.where(y < 0, None, y.astype(object)), id="object"),
    pytest.param(lambda y: np.where(y < 0, np.nan, y), id="nan"),
    pytest.param(lambda y: pd.Series(y).where(y >= 0).astype("Int64"), id="Int64"),
    pytest.param(lambda y: [None if c < 0 else "abc"[c] for c in y.tolist()], id="words"),
]


def without_some(table, y):
    """Take the label of every third voice."""
    missing = rows_of(table, "audio")[::3]
    y = y.copy()
    y[missing] = -1
    return y, missing


@pytest.mark.parametrize("kind", MISSING)
@pytest.mark.parametrize("visual", ["all", "disjoint"])
@pytest.mark.parametrize("inner", [StratifiedKFold(3), GroupKFold(4)], ids=["class", "group"])
def test_a_voice_without_a_label_trains_but_not_beside_its_test_speaker(
    corpus, kind, visual, inner
):
    table, y, groups = corpus
    y, missing = without_some(table, y)
    labelled = np.setdiff1d(rows_of(table, "audio"), missing)
    splitter = AudioHoldout(inner, visual=visual)
    speakers = groups[labelled] if isinstance(inner, GroupKFold) else None
    expected = inner.split(labelled, y[labelled], speakers)
    splits = list(splitter.split(table, kind(y), groups))
    assert len(splits) == splitter.get_n_splits(table, kind(y), groups)
    for (train, test), (audio_train, audio_test) in zip(splits, expected, strict=True):
        assert set(test) == set(labelled[audio_test])
        assert set(train) & set(labelled) == set(labelled[audio_train])
        tested = set(groups[test])
        if visual == "all":
            tested -= set(groups[labelled[audio_train]])
        assert set(train) & set(missing) == {i for i in missing if groups[i] not in tested}


def test_voices_without_a_label_all_train_where_no_speaker_is_known(corpus):
    table, y, _ = corpus
    y, missing = without_some(table, y)
    for train, _ in AudioHoldout(3).split(table, np.where(y < 0, None, y.astype(object))):
        assert set(missing) <= set(train)


def test_positions_count_the_voices_that_have_a_label(corpus):
    table = make_table(audio=list("abcd"))
    [(train, test)] = AudioHoldout([([0], [1])]).split(table, ["joy", None, None, "fear"])
    assert (train.tolist(), test.tolist()) == ([0, 1, 2], [3])
    with pytest.raises(ValueError, match=r"inner_cv names voice 3, but .* are 0 to 1.*count among"):
        next(AudioHoldout([([0], [3])]).split(table, ["joy", None, None, "fear"]))


@pytest.mark.parametrize("y", [[None] * 4, [np.nan] * 4])
def test_no_voice_has_a_label(y):
    with pytest.raises(ValueError, match="none of the 4 voices has a label"):
        next(AudioHoldout(2).split(make_table(audio=list("abcd")), y))


# number of splits


def test_number_of_splits(corpus):
    table, y, groups = corpus
    assert AudioHoldout(7).get_n_splits() == 7
    assert AudioHoldout(ShuffleSplit(9)).get_n_splits(table, y, groups) == 9
    assert AudioHoldout(StratifiedKFold(4)).get_n_splits(table, y) == 4
    # The stranger has no voice, so there are four speakers to leave out and not five.
    assert AudioHoldout(LeaveOneGroupOut()).get_n_splits(table, y, groups) == N_SPEAKERS
    assert AudioHoldout([([0], [1])]).get_n_splits() == 1
    n_audio = len(rows_of(table, "audio"))
    assert AudioHoldout(PredefinedSplit(np.arange(n_audio) % 6)).get_n_splits(table, y) == 6


def test_an_iterator_of_splits_serves_more_than_once(corpus):
    table, y, _ = corpus
    splitter = AudioHoldout(pair for pair in [([0, 1, 2], [3]), ([3, 4], [0])])
    assert splitter.get_n_splits(table, y) == 2
    assert len(list(splitter.split(table, y))) == 2
    assert len(list(splitter.split(table, y))) == 2


# scikit-learn's machinery


class Majority(ClassifierMixin, BaseEstimator):
    """Remembers what it was shown."""

    def __init__(self, shift=0):
        self.shift = shift

    def fit(self, X, y):
        self.classes_, counts = np.unique(y, return_counts=True)
        self.answer_ = self.classes_[(counts.argmax() + self.shift) % len(self.classes_)]
        self.faces_seen_ = sum(not is_missing(cell) for cell in X["visual"])
        return self

    def predict(self, X):
        # Training scores are not asked for, so every row that is predicted is a voice.
        assert X["visual"].map(is_missing).all()
        assert not X["audio"].map(is_missing).any()
        return np.full(len(X), self.answer_)


@pytest.mark.parametrize("visual", ["all", "disjoint"])
def test_cross_validate(corpus, visual):
    table, y, groups = corpus
    result = cross_validate(
        Majority(),
        table,
        y,
        groups=groups,
        cv=AudioHoldout(LeaveOneGroupOut(), visual=visual),
        return_estimator=True,
        error_score="raise",
    )
    assert len(result["test_score"]) == N_SPEAKERS
    # Every speaker has as many voices of one class as of another.
    np.testing.assert_allclose(result["test_score"], 1 / N_CLASSES)
    faces = [int((groups[rows_of(table, "visual")] != who).sum()) for who in range(N_SPEAKERS)]
    seen = [estimator.faces_seen_ for estimator in result["estimator"]]
    assert seen == ([20] * N_SPEAKERS if visual == "all" else faces)


def test_grid_search(corpus):
    table, y, groups = corpus
    search = GridSearchCV(
        Majority(),
        {"shift": [0, 1]},
        cv=AudioHoldout(GroupKFold(2), visual="disjoint"),
        error_score="raise",
    )
    # A search is cloned with its splitter inside, in nested cross-validation for one.
    clone(search).fit(table, y, groups=groups)
    search.fit(table, y, groups=groups)
    assert search.n_splits_ == 2
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], 1 / N_CLASSES)


def test_grid_search_over_an_iterator_of_splits(corpus):
    table, y, _ = corpus
    splits = ((np.arange(10), np.arange(10, 20)) for _ in range(3))
    search = GridSearchCV(Majority(), {"shift": [0]}, cv=AudioHoldout(splits), error_score="raise")
    assert clone(search).fit(table, y).n_splits_ == 3


def test_clone_copies_and_repr_tells():
    splitter = AudioHoldout(GroupKFold(3), visual="disjoint")
    again = clone(splitter, safe=False)
    assert again is not splitter
    assert repr(again) == repr(splitter)
    assert repr(splitter) == f"AudioHoldout({GroupKFold(3)!r}, visual='disjoint')"
    assert repr(AudioHoldout(5)) == "AudioHoldout(5, visual='all')"


# errors


def test_paired_rows_are_refused_with_the_advice():
    table = make_table(visual=["f0", "f1", "f2"], audio=[None, "v1", "v2"])
    splitter = AudioHoldout(2)
    with pytest.raises(ValueError, match=r"Row 1 holds a face and a voice \(2 such rows\).*unpair"):
        next(splitter.split(table, [0, 1, 0]))
    with pytest.raises(ValueError, match="Row 1 holds a face and a voice"):
        splitter.get_n_splits(table, [0, 1, 0])
    rows, y, _ = unpair(table, [0, 1, 0])
    assert len(list(AudioHoldout(KFold(2)).split(rows, y))) == 2


@pytest.mark.parametrize("visual", ["none", None, "ALL"])
def test_unknown_mode(corpus, visual):
    table, y, groups = corpus
    with pytest.raises(ValueError, match='is unknown; choose "all" or "disjoint"'):
        next(AudioHoldout(2, visual=visual).split(table, y, groups))


def test_disjoint_needs_groups(corpus):
    table, y, _ = corpus
    with pytest.raises(ValueError, match=r"give split\(X, y, groups=speakers\)"):
        next(AudioHoldout(2, visual="disjoint").split(table, y))


@pytest.mark.parametrize(
    "groups",
    [[1.0, 1, 2, 2, np.nan, np.nan], ["a", "a", "b", "b", None, None], [*"aabb", np.nan, np.nan]],
)
@pytest.mark.parametrize("kind", [list, lambda g: np.array(g, dtype=object), pd.Series])
def test_disjoint_needs_the_speaker_of_every_row(groups, kind):
    clips = make_table(visual=list("abcdef"), audio=list("ghijkl"))
    table, y, speakers = unpair(clips, [0, 1] * 3, groups)
    for inner in (KFold(3), LeaveOneGroupOut()):
        cv = AudioHoldout(inner, visual="disjoint")
        for call in (lambda cv=cv: next(cv.split(table, y, kind(list(speakers)))),):
            with pytest.raises(ValueError, match=r"groups is missing \(NaN or None\) in row 4"):
                call()
    # Without a use for them, they may be missing.
    assert len(list(AudioHoldout(KFold(3)).split(table, y, kind(list(speakers))))) == 3


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (make_table(visual=["f0", "f1"]), "no row has an audio cell"),
        (pd.DataFrame({"visual": ["f0", "f1"]}), r"needs a column 'audio'; X has \['visual'\]"),
        (np.array(["v0", "v1"], dtype=object), r"got an array of shape \(2,\)"),
        (np.empty((2, 3), dtype=object), r"got an array of shape \(2, 3\)"),
    ],
)
def test_what_is_no_table_of_voices(X, message):
    with pytest.raises(ValueError, match=message):
        next(AudioHoldout(2).split(X, [0, 1]))


def test_lengths_must_agree(corpus):
    table, y, groups = corpus
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        next(AudioHoldout(2).split(table, y[:-1], groups))


def test_errors_of_the_inner_splitter_come_through(corpus):
    table, y, _ = corpus
    with pytest.raises(ValueError, match="groups"):
        next(AudioHoldout(LeaveOneGroupOut()).split(table, y))
    with pytest.raises(ValueError, match="n_splits=30 cannot be greater than"):
        next(AudioHoldout(30).split(table, y))


@pytest.mark.parametrize("kind", [list, lambda y: np.array(y, dtype=object)])
def test_folds_are_stratified_whatever_holds_the_labels(kind):
    """Also where only faces lack theirs."""
    cell, n = np.zeros((1, 8, 8), np.float32), 60
    table = make_table(visual=[None] * n + [cell] * n, audio=[cell] * n + [None] * n)
    sorted_labels = [i // 20 for i in range(n)]
    for faces in (sorted_labels, [None] * n):
        y = kind(sorted_labels + faces)
        for _, test in AudioHoldout(3).split(table, y):
            assert min(np.bincount(np.array(sorted_labels)[test])) >= 6


@pytest.mark.parametrize("visual", ["all", "disjoint"])
def test_speakers_are_compared_once(visual):
    """Not one by one with all others, as np.isin does with objects."""
    compared = []

    class Name(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared.append(1)
            return str.__eq__(self, other)

    n = 400
    cell = np.zeros(4, np.float32)
    table = make_table(visual=[None] * n + [cell] * n, audio=[cell] * n + [None] * n)
    groups = np.array([Name(f"s{i % 40}") for i in range(2 * n)], dtype=object)
    y = np.arange(2 * n) % 2
    assert len(list(AudioHoldout(KFold(4), visual).split(table, y, groups))) == 4
    assert len(compared) < 10 * n


def test_a_voice_of_an_unknown_speaker_is_nobodys():
    cell = np.zeros(4, np.float32)
    table = make_table(visual=[None] * 8, audio=[cell] * 8)
    y = [0, 1, 0, 1, 0, 1, None, None]
    groups = pd.Series(["a", "a", "b", "b", pd.NA, pd.NA, pd.NA, "a"], dtype="string")
    for train, test in AudioHoldout(KFold(3)).split(table, y, groups):
        assert 6 in train  # whoever was tested
        assert (7 in train) == (not {0, 1} <= {*test})
