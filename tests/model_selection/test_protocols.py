import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.model_selection import KFold, LeaveOneGroupOut, cross_val_score, cross_validate

from skfdan import SCORING, AudioHoldout, FDANClassifier, make_table, stack_modalities, unpair
from skfdan.datasets import load_meld
from skfdan.model_selection import PROTOCOLS, Protocol, make_protocol
from skfdan.table import is_missing


def voices_of(table):
    return [i for i, cell in enumerate(table["audio"]) if not is_missing(cell)]


def faces_of(table):
    return [i for i, cell in enumerate(table["visual"]) if not is_missing(cell)]


@st.composite
def corpora(draw):
    """Voices, and now and then faces, mixed: table, labels, speakers."""
    n_speakers = draw(st.integers(2, 5))
    per_class = draw(st.lists(st.integers(5, 23), min_size=2, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    y_audio = np.repeat(np.arange(len(per_class)), per_class)
    who_audio = rng.permutation(np.arange(len(y_audio)) % n_speakers)
    audio = ([f"{i}.wav" for i in range(len(y_audio))], y_audio, who_audio)
    n_faces = draw(st.integers(0, 12))
    visual = None
    if n_faces:
        y_visual = rng.integers(0, len(per_class), n_faces)
        # Some faces are of people without a voice.
        visual = ([f"{i}.png" for i in range(n_faces)], y_visual, rng.integers(0, 7, n_faces))
    table, y, groups = stack_modalities(visual=visual, audio=audio)
    order = rng.permutation(len(table))
    return table.iloc[order], y[order], groups[order]


# Each of the protocols


@settings(max_examples=40, deadline=None)
@given(corpora(), st.integers(1, 3), st.integers(0, 9))
def test_the_paper_tests_two_tenths_of_every_class_and_trains_on_the_rest(corpus, n_splits, seed):
    table, y, groups = corpus
    voices, faces = set(voices_of(table)), set(faces_of(table))
    protocol = make_protocol("paper", n_splits=n_splits, random_state=seed)
    splits = list(protocol.split(table, y, groups))
    assert len(splits) == n_splits == protocol.get_n_splits(table, y, groups)
    for train, test in splits:
        assert set(test) <= voices
        assert faces <= set(train)
        assert not set(train) & set(test)
        assert set(train) | set(test) == voices | faces
        # Two tenths are rounded up over all classes, then shared out among them.
        n_test = -(-len(voices) // 5)
        assert len(test) == n_test
        for label in set(y):
            n = sum(y[i] == label for i in voices)
            tested = sum(y[i] == label for i in test)
            assert abs(tested - n_test * n / len(voices)) < 1
            if n % 5 == 0 and all(sum(y[i] == c for i in voices) % 5 == 0 for c in set(y)):
                assert tested == n // 5


def test_the_paper_on_a_corpus_of_savee_s_size():
    """60 utterances of six emotions and 120 neutral ones: 96 are tested."""
    y = np.repeat(np.arange(7), [60] * 6 + [120])
    table = make_table(audio=[f"{i}.wav" for i in range(480)])
    for train, test in make_protocol("paper").split(table, y):
        assert np.bincount(y[test]).tolist() == [12] * 6 + [24]
        assert np.bincount(y[train]).tolist() == [48] * 6 + [96]


@settings(max_examples=40, deadline=None)
@given(corpora(), st.integers(0, 9))
def test_disjoint_shares_no_speaker(corpus, seed):
    table, y, groups = corpus
    voices = voices_of(table)
    speakers = {groups[i] for i in voices}
    n_splits = min(3, len(speakers))
    protocol = make_protocol("disjoint", n_splits=n_splits, random_state=seed)
    splits = list(protocol.split(table, y, groups))
    assert len(splits) == n_splits
    for train, test in splits:
        heard = {groups[i] for i in test}
        assert set(test) == {i for i in voices if groups[i] in heard}
        # Nothing else is lost: faces of all others train.
        assert set(train) == {i for i in range(len(table)) if groups[i] not in heard}
    tested = np.concatenate([test for _, test in splits])
    assert sorted(tested) == sorted(voices)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, r"draws from the voices of every class; give split\(X, y\)"),
        ([*"aaaaaaaaa", "b"], "the class 'b' has only one; leave that voice out"),
        ([0] * 9 + [1], "the class 1 has only one"),
        ([*"aabbcc"], "would test 2 of 6 voices, fewer than the 3 classes"),
    ],
)
def test_what_the_paper_cannot_divide(y, message):
    table = make_table(audio=[f"{i}.wav" for i in range(10 if y is None else len(y))])
    with pytest.raises(ValueError, match=message):
        next(make_protocol("paper").split(table, y))


def test_the_paper_tells_of_a_class_that_it_does_not_test():
    y = np.array(["anger"] * 30 + ["fear"] * 2)
    table = make_table(audio=[f"{i}.wav" for i in range(32)])
    with pytest.warns(UserWarning, match=r"no voice of the class 'fear', which has 2, in \d of 3"):
        splits = list(make_protocol("paper", n_splits=3).split(table, y))
    assert any("fear" not in y[test] for _, test in splits)


def test_disjoint_needs_speakers():
    table = make_table(audio=["a.wav", "b.wav"])
    with pytest.raises(ValueError, match="groups=speakers"):
        next(make_protocol("disjoint", n_splits=2).split(table, [0, 1]))


@settings(max_examples=30, deadline=None)
@given(corpora())
def test_gmtcnet_is_the_k_fold_of_its_code_on_the_voices(corpus):
    table, y, groups = corpus
    voices, faces = np.array(voices_of(table)), set(faces_of(table))
    expected = list(KFold(10, shuffle=True, random_state=32).split(np.zeros(len(voices))))
    splits = list(make_protocol("gmtcnet").split(table, y, groups))
    assert len(splits) == 10
    for (train, test), (audio_train, audio_test) in zip(splits, expected, strict=True):
        assert test.tolist() == voices[audio_test].tolist()
        assert set(train) == faces | set(voices[audio_train])


def test_gmtcnet_keeps_its_seed():
    """Fold 0 of 20 voices as KFold(10, shuffle=True, random_state=32) has drawn it."""
    table = make_table(audio=[f"{i}.wav" for i in range(20)])
    order = np.random.RandomState(32).permutation(20)
    for k, (_, test) in enumerate(make_protocol("gmtcnet").split(table)):
        assert set(test) == set(order[2 * k : 2 * k + 2])


@pytest.mark.parametrize("name", ["paper", "disjoint", "gmtcnet"])
def test_same_arguments_same_splits(name):
    y = np.tile([0, 1], 30)
    groups = np.repeat(np.arange(12), 5)
    table = make_table(audio=[f"{i}.wav" for i in range(60)])

    def tested(**arguments):
        return [t.tolist() for _, t in make_protocol(name, **arguments).split(table, y, groups)]

    assert tested() == tested()
    if name != "gmtcnet":
        assert tested() == tested(n_splits=5, random_state=0)
        assert tested(random_state=1) != tested()


# MELD's own parts

HEADER = "Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime"
SIZES = {"train": 5, "dev": 2, "test": 3}


@pytest.fixture
def meld(tmp_path):
    """A small MELD: unpaired table, labels, speakers, and the part of every row."""
    for part, n in SIZES.items():
        lines = [f"Hi,Ross,joy,positive,0,{u},4,7,0:20:57,0:21:00" for u in range(n)]
        (tmp_path / f"{part}_sent_emo.csv").write_text("\n".join([f"{HEADER},EndTime", *lines]))
        (tmp_path / part).mkdir()
        for u in range(n):
            (tmp_path / part / f"dia0_utt{u}.mp4").touch()
    data = load_meld(tmp_path)
    cells = data.table[["visual", "audio"]]
    table, row, groups = unpair(cells, np.arange(len(cells)), data.groups)
    return table, data.target[row], groups, data.frame["split"].to_numpy()[row]


@pytest.mark.parametrize(
    ("dev", "trained", "tested"),
    [
        ("train", {"train", "dev"}, "test"),
        ("leave-out", {"train"}, "test"),
        ("test", {"train"}, "dev"),
    ],
)
def test_meld_s_official_parts(meld, dev, trained, tested):
    table, y, groups, parts = meld
    protocol = make_protocol("meld-official", parts=parts, dev=dev)
    assert protocol.get_n_splits(table, y, groups) == 1
    [(train, test)] = protocol.split(table, y, groups)
    assert table["visual"].iloc[test].map(is_missing).all()
    assert parts[test].tolist() == [tested] * SIZES[tested]
    assert set(parts[train]) == trained
    # Every utterance that trains does so with its voice and its face.
    assert len(train) == 2 * sum(SIZES[part] for part in trained)
    # Ross is in every part: the official split is not speaker-independent.
    assert set(groups[train]) == set(groups[test])


def test_meld_s_dev_part_trains_unless_told_otherwise(meld):
    table, _, _, parts = meld
    [(train, _)] = make_protocol("meld-official", parts=parts).split(table)
    assert set(parts[train]) == {"train", "dev"}


def test_meld_s_parts_on_voices_alone(meld):
    table, y, _, parts = meld
    voices = voices_of(table)
    protocol = make_protocol("meld-official", parts=list(parts[voices]), dev="leave-out")
    [(train, test)] = protocol.split(table[["audio"]].iloc[voices], y[voices])
    assert (len(train), len(test)) == (5, 3)
    assert parts[voices][test].tolist() == ["test"] * 3


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_faces_of_another_corpus_train_beside_meld_s_voices(missing):
    table, _, _ = stack_modalities(
        visual=(["a.png", "b.png"], [0, 1]), audio=(["t.wav", "d.wav", "e.wav"], [0, 1, 0])
    )
    parts = [missing, missing, "train", "dev", "test"]
    [(train, test)] = make_protocol("meld-official", parts=parts, dev="leave-out").split(table)
    assert (train.tolist(), test.tolist()) == ([0, 1, 2], [4])


def test_the_whole_of_meld(real_data):
    data = load_meld(real_data / "meld", media="optional")
    parts = data.frame["split"]
    voices = make_table(audio=data.frame["clip"])
    for dev, sizes in (
        ("train", (9989 + 1109, 2610)),
        ("leave-out", (9989, 2610)),
        ("test", (9989, 1109)),
    ):
        [(train, test)] = make_protocol("meld-official", parts=parts, dev=dev).split(voices)
        assert (len(train), len(test)) == sizes


def test_parts_that_are_not_the_table_s(meld):
    table, _, _, parts = meld
    with pytest.raises(ValueError, match=r"has 19 parts for 20 rows.*unpair\(data\.table"):
        next(make_protocol("meld-official", parts=parts[:-1]).split(table))
    voice = voices_of(table)[0]
    parts = parts.astype(object)
    parts[voice] = None
    with pytest.raises(ValueError, match=rf"Row {voice} is a voice without a part \(1 such"):
        next(make_protocol("meld-official", parts=parts).split(table))


def test_a_part_without_a_voice():
    table = make_table(audio=["a.wav", "b.wav"])
    with pytest.raises(ValueError, match=r"'test' is there, so nothing is tested.*\['train'\]"):
        next(make_protocol("meld-official", parts=["train"] * 2).split(table))
    with pytest.raises(ValueError, match=r"'train' or 'dev' is there, so nothing trains"):
        next(make_protocol("meld-official", parts=["test"] * 2).split(table))


def test_voices_of_meld_s_parts_without_a_label():
    table = make_table(audio=list("abcdef"))
    parts = ["train", "train", "dev", "test", "test", "test"]
    protocol = make_protocol("meld-official", parts=parts)
    [(train, test)] = protocol.split(table, ["joy", None, "fear", "joy", None, "fear"])
    assert (train.tolist(), test.tolist()) == ([0, 1, 2], [3, 5])
    with pytest.raises(ValueError, match="No labelled voice of the part 'test' is there"):
        next(protocol.split(table, ["joy", None, "fear", None, None, None]))


# What all have in common


@pytest.mark.parametrize(
    "kind",
    [
        lambda y: [None if c < 0 else c for c in y.tolist()],
        lambda y: np.where(y < 0, None, y.astype(object)),
        lambda y: np.where(y < 0, np.nan, y),
        lambda y: np.where(y < 0, None, np.array(["joy", "fear"], dtype=object)[y]),
    ],
    ids=["list", "object", "nan", "words"],
)
@pytest.mark.parametrize("name", ["paper", "disjoint"])
def test_voices_without_a_label_train_and_are_not_scored(name, kind):
    y, groups = np.arange(40) % 2, np.repeat(np.arange(4), 10)
    cells = np.random.default_rng(0).normal(size=(40, 4)) + 3 * y[:, None]
    table, y, groups = unpair(make_table(visual=cells, audio=cells), y, groups)
    y[voices_of(table)[::3]] = -1
    clf = FDANClassifier(adaptation="dsan", bottleneck=4, max_epochs=1, random_state=0, verbose=0)
    scores = cross_validate(
        clf,
        table,
        kind(y),
        groups=groups,
        cv=make_protocol(name, n_splits=2),
        scoring=SCORING,
        error_score="raise",
    )
    assert all(np.isfinite(scores[f"test_{metric}"]).all() for metric in SCORING)
    for train, test in make_protocol(name, n_splits=2).split(table, kind(y), groups):
        assert (y[test] >= 0).all()
        assert (y[train] < 0).any()


def make_any(name, n):
    parts = np.resize(["train", "test", "dev"], n)
    return make_protocol(name, **({"parts": parts} if name == "meld-official" else {}))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_paired_row_is_refused(name):
    table = make_table(visual=["f0", "f1", "f2"], audio=[None, "v1", "v2"])
    with pytest.raises(ValueError, match=r"Row 1 holds a face and a voice .*unpair"):
        next(make_any(name, 3).split(table, [0, 1, 0], [0, 1, 2]))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_faces_alone_are_refused(name):
    table = make_table(visual=["f0", "f1"])
    with pytest.raises(ValueError, match="no row has an audio cell"):
        next(make_any(name, 2).split(table, [0, 1], [0, 1]))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_description_is_one_sentence(name):
    protocol = make_any(name, 3)
    assert protocol.name == name
    assert protocol.description.endswith(".")
    assert ". " not in protocol.description
    assert "tested" in protocol.description
    assert repr(protocol).startswith(f"Protocol({name!r}, ")


def test_descriptions_tell_protocols_apart():
    told = [make_any(name, 3).description for name in PROTOCOLS]
    told += [
        make_protocol("meld-official", parts=[], dev=dev).description
        for dev in ("leave-out", "test")
    ]
    assert len(set(told)) == len(told)


def test_parameters_are_what_the_splits_depend_on():
    assert make_protocol("paper", n_splits=np.int64(3), random_state=7).parameters == {
        "n_splits": 3,
        "random_state": 7,
        "test_size": 0.2,
        "visual": "all",
    }
    assert make_protocol("disjoint").parameters == {
        "n_splits": 5,
        "random_state": 0,
        "visual": "disjoint",
    }
    assert make_protocol("gmtcnet").parameters == {
        "n_splits": 10,
        "random_state": 32,
        "visual": "all",
    }
    assert make_protocol("meld-official", parts=["train"]).parameters == {"dev": "train"}


def test_as_cv_of_scikit_learn(meld):
    from sklearn.dummy import DummyClassifier

    table, _, groups, parts = meld
    y = np.arange(len(table)) % 2
    voices = np.array(voices_of(table))
    protocol = make_protocol("meld-official", parts=parts)
    scores = cross_val_score(
        DummyClassifier(strategy="constant", constant=1), table, y, groups=groups, cv=protocol
    )
    np.testing.assert_allclose(scores, [y[voices[parts[voices] == "test"]].mean()])
    again = clone(make_protocol("paper"), safe=False)
    [one, *_] = again.split(table, y)
    [other, *_] = make_protocol("paper").split(table, y)
    np.testing.assert_array_equal(one[1], other[1])


def test_a_protocol_of_one_s_own():
    loso = Protocol("loso", AudioHoldout(LeaveOneGroupOut(), "disjoint"), "One speaker.", {"a": 1})
    table, y, groups = unpair(
        make_table(visual=list("abc"), audio=list("abc")), [0, 1, 0], groups=[0, 1, 2]
    )
    assert loso.get_n_splits(table, y, groups) == 3
    train, test = next(loso.split(table, y, groups))
    assert (set(groups[train]), set(groups[test])) == ({1, 2}, {0})
    assert loso.parameters == {"a": 1}
    assert Protocol("x", KFold(2), "X.").parameters == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Paper",), r"'Paper' is not known; it must be one of \('paper', 'disjoint'"),
        (("paper", {"n_splits": 0}), "n_splits=0: n_splits must be an integer of at least 1"),
        (("paper", {"n_splits": 2.0}), "n_splits must be an integer of at least 1"),
        (("disjoint", {"n_splits": 1}), "n_splits must be an integer of at least 2"),
        (("paper", {"random_state": -1}), "random_state must be an integer of at least 0"),
        (
            ("disjoint", {"random_state": np.random.RandomState(0)}),
            "random_state must be an integer of at least 0",
        ),
        (("paper", {"parts": ["train"]}), "parts is of 'meld-official' alone"),
        (("gmtcnet", {"dev": "train"}), "dev is of 'meld-official' alone"),
        (("gmtcnet", {"n_splits": 5}), "n_splits must be 10"),
        (("gmtcnet", {"random_state": 0}), "random_state must be 32"),
        (("meld-official",), "needs parts=: 'train', 'dev' or 'test' for every row"),
        (("meld-official", {"parts": ["train"], "n_splits": 5}), "n_splits must be 1"),
        (("meld-official", {"parts": ["train"], "random_state": 0}), "random_state draws nothing"),
        (("meld-official", {"parts": ["train"], "dev": "drop"}), r"dev must be one of \['train'"),
        (("meld-official", {"parts": ["train", "val"]}), "the part of row 1 is 'val'"),
    ],
)
def test_what_is_no_protocol(arguments, message):
    name, options = (*arguments, {})[:2]
    with pytest.raises(ValueError, match=message):
        make_protocol(name, **options)


def test_every_protocol_is_documented():
    for name in PROTOCOLS:
        assert name in inspect.getdoc(make_protocol)
