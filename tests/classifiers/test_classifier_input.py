import copy
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import clone
from skorch.helper import SliceDict

from classifiers.small_clips import EMOTIONS, QUICK, make_clips
from skfdan import FDANClassifier, make_table, stack_modalities, unpair
from skfdan.classifiers import MISAClassifier, SDTClassifier
from skfdan.classifiers._forms import read_table
from skfdan.classifiers._samples import table_samples
from skfdan.persistence import load_pretrained
from skfdan.table import as_cells

# ---------------------------------------------------------------------- forms of fit


def test_the_forms_of_fit_agree(clips):
    X_vis, X_aud, y = clips
    short = QUICK | {"max_epochs": 3}
    table = make_table(visual=X_vis, audio=X_aud)
    cells = np.empty((len(y), 2), dtype=object)
    cells[:, 0], cells[:, 1] = table["visual"], table["audio"]
    expected = FDANClassifier(**short).fit(table, y).predict_proba(X_aud)
    for arguments, keywords in [
        ((table[["audio", "visual"]], y), {}),
        ((table.rename(columns={"visual": "a__visual", "audio": "b__audio"}), y), {}),
        ((cells, y), {}),
        (({"visual": X_vis, "audio": X_aud}, y), {}),
        ((SliceDict(visual=X_vis, audio=X_aud), y), {}),
        (((X_vis, X_aud), y), {}),
        ((), {"X_vis": X_vis, "X_aud": X_aud, "y": y}),
        ((list(X_vis), list(X_aud), list(y)), {}),
        ((torch.from_numpy(X_vis), torch.from_numpy(X_aud), y), {}),
    ]:
        clf = FDANClassifier(**short).fit(*arguments, **keywords)
        np.testing.assert_allclose(clf.predict_proba(X_aud), expected, atol=1e-6)


def test_samples_may_be_a_list(clips, fitted):
    X_vis, X_aud, y = clips
    expected = fitted.predict_proba(X_aud)
    for X in (list(X_aud), tuple(X_aud), X_aud.tolist(), pd.Series(list(X_aud))):
        np.testing.assert_allclose(fitted.predict_proba(X), expected, atol=1e-6)
    alone = FDANClassifier(**QUICK).fit(list(X_aud), y)
    again = FDANClassifier(**QUICK).fit(X_aud, y)
    np.testing.assert_allclose(alone.predict_proba(X_aud), again.predict_proba(X_aud), atol=1e-6)
    assert alone.n_features_in_ == again.n_features_in_ == 1
    # Sounds of different length give spectrograms of different width.
    ragged = [x[:, : 8 + i % 3] for i, x in enumerate(X_aud)]
    clf = FDANClassifier(**QUICK).fit(list(X_vis), ragged, y)
    table = make_table(visual=X_vis, audio=ragged)
    by_table = FDANClassifier(**QUICK).fit(table, y).predict_proba(table)
    for X in (ragged, (X_vis, ragged), table):
        np.testing.assert_allclose(clf.predict_proba(X), by_table, atol=1e-6)
    assert clf.score(ragged, y) > 0.9


def test_vectors_of_one_modality_are_a_matrix_at_prediction():
    rng = np.random.default_rng(0)
    y = np.array(["anger", "joy"] * 20)
    shift = (y == "joy")[:, None]
    X_vis, X_aud = (rng.normal(size=(40, d)) + shift for d in (5, 7))
    clf = FDANClassifier(max_epochs=10, lr=0.05, batch_size=8, random_state=0, verbose=0)
    clf.fit(X_vis, X_aud, y)
    expected = clf.predict_proba(make_table(audio=X_aud))
    frame = pd.DataFrame(X_aud, columns=[f"a{i}" for i in range(7)])
    for X in (X_aud, list(X_aud), X_aud.tolist(), frame):
        np.testing.assert_array_equal(clf.predict_proba(X), expected)
    assert clf.score(X_aud, y) > 0.7
    with pytest.raises(ValueError, match=r"shape .5,., but .* fitted on floats of kind vector"):
        clf.predict(X_vis)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        clf.predict(np.full((3, 7), np.nan))
    with pytest.raises(ValueError, match="Reshape your data"):
        clf.predict(X_aud[0])
    face = copy.copy(clf).set_params(predict_modality="visual")
    np.testing.assert_array_equal(
        face.predict_proba(X_vis), face.predict_proba(make_table(visual=X_vis))
    )
    with pytest.raises(ValueError, match='"fused" needs both'):
        face.set_params(predict_modality="fused").predict(X_vis)


def test_unpaired_forms_agree(clips):
    X_vis, X_aud, y = clips
    X_vis3, y_vis = np.concatenate([X_vis] * 3), np.concatenate([y] * 3)
    table, y_all, _ = stack_modalities(visual=(X_vis3, y_vis), audio=(X_aud, y))
    first = FDANClassifier(**QUICK).fit(X_vis3, X_aud, y_vis=y_vis, y_aud=y)
    for clf in (
        FDANClassifier(**QUICK).fit(X_vis3, X_aud, (y_vis, y)),
        FDANClassifier(**QUICK).fit(X_vis=X_vis3, X_aud=X_aud, y_vis=y_vis, y_aud=y),
        FDANClassifier(**QUICK).fit(table, y_all),
    ):
        np.testing.assert_array_equal(clf.predict_proba(X_aud), first.predict_proba(X_aud))
    assert first.score(X_aud, y) > 0.9


def test_learns_from_held_out_clips(fitted):
    X_vis, X_aud, y = make_clips(seed=1)
    assert fitted.score(X_aud, y) > 0.9
    table = make_table(visual=X_vis, audio=X_aud)
    for modality in ("visual", "fused"):
        assert copy.deepcopy(fitted).set_params(predict_modality=modality).score(table, y) > 0.9


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_one_modality_alone(clips, modality):
    X = clips[1] if modality == "audio" else clips[0]
    y = clips[2]
    clf = FDANClassifier(**QUICK, predict_modality=modality).fit(X, y)
    assert clf.score(X, y) > 0.9
    by_table = FDANClassifier(**QUICK, predict_modality=modality).fit(
        make_table(**{modality: X}), y
    )
    np.testing.assert_array_equal(clf.predict_proba(X), by_table.predict_proba(X))
    assert "lmmd" not in clf.history_[-1]
    assert clf.reference_bank_ == {}


def test_frames_of_a_clip_are_samples_in_training_and_averaged_at_prediction(clips):
    X_vis, X_aud, y = clips
    frames = np.stack([X_vis, X_vis[:, :, ::-1], X_vis], axis=1)
    clf = FDANClassifier(**QUICK, predict_modality="visual")
    clf.fit(make_table(visual=frames, audio=X_aud), y)
    table, y_each, _ = unpair(make_table(visual=frames, audio=X_aud), y)
    assert len(table) == 4 * len(y)
    visual = table["visual"].notna().to_numpy()
    single = clf.decision_function(table[visual])
    np.testing.assert_allclose(
        clf.decision_function(make_table(visual=frames)),
        single.reshape(len(y), 3, -1).mean(1),
        atol=1e-6,
    )
    assert (y_each[visual].reshape(-1, 3) == y[:, None]).all()


@pytest.mark.parametrize("labels", [EMOTIONS[:2], np.arange(8), np.array([10, 20])])
def test_labels_of_any_kind(labels):
    X_vis, X_aud, y = make_clips(n=10 * len(labels), emotions=np.asarray(labels))
    clf = FDANClassifier(**QUICK).fit(X_vis, X_aud, y)
    assert clf.classes_.tolist() == sorted(set(labels.tolist()))
    assert clf.predict(X_aud).dtype == y.dtype
    proba = clf.predict_proba(X_aud)
    assert proba.shape == (len(y), len(labels))
    np.testing.assert_allclose(proba.sum(1), 1)
    assert clf.decision_function(X_aud).ndim == (1 if len(labels) == 2 else 2)
    assert clf.score(X_aud, y) > 0.8


def test_a_class_that_only_faces_show():
    X_vis, X_aud, y = make_clips()
    heard = y != "joy"
    clf = FDANClassifier(**QUICK).fit(X_vis, X_aud[heard], y_vis=y, y_aud=y[heard])
    assert clf.classes_.tolist() == EMOTIONS.tolist()
    assert np.isfinite(clf.predict_proba(X_aud)).all()


def test_flat_matrix_column_specs():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    frame = pd.DataFrame(rng.normal(size=(60, 6)) + y[:, None], columns=list("abcdef"))
    by_slice = FDANClassifier(visual=slice(0, 2), audio=slice(2, 6), max_epochs=5, random_state=0)
    by_name = clone(by_slice).set_params(visual=["a", "b"], audio=list("cdef"))
    by_index = clone(by_slice).set_params(visual=[0, 1], audio=[2, 3, 4, 5])
    expected = by_slice.fit(frame, y).predict_proba(frame)
    changed = frame.assign(a=1e3)
    np.testing.assert_array_equal(by_slice.predict_proba(changed), expected)
    for clf in (by_name, by_index):
        np.testing.assert_array_equal(clf.fit(frame, y).predict_proba(frame), expected)
    assert by_slice._specs["visual"].n_features == 2


def test_vectors_are_not_copied_where_a_slice_names_them():
    X = np.random.default_rng(0).normal(size=(30_000, 40)).astype(np.float32)
    clf = FDANClassifier(visual=slice(0, 10), audio=slice(-1, 9, -1))
    tracemalloc.start()
    samples = clf._matrix_samples(X, "audio")
    spec = samples["audio"].spec()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(samples["visual"].cells, X[:, :10])
    np.testing.assert_array_equal(samples["audio"].cells, X[:, :9:-1])
    np.testing.assert_array_equal(spec.mean, X[:, :9:-1].mean(0, dtype=np.float64))
    assert peak < 1.5 * X.nbytes
    assert np.shares_memory(samples["visual"].cells, X)


# ---------------------------------------------------------------------- bad input


def bad_inputs():
    X_vis, X_aud, y = make_clips(8)
    nan = X_aud.copy()
    nan[3, 2, 1] = np.nan
    yield "lengths", (X_vis[:5], X_aud, y), r"X_vis has 5 rows and X_aud 8"
    yield "labels", (make_table(audio=X_aud), y[:5]), r"y has 5 labels but X has 8 rows"
    yield "labels3", (X_vis, X_aud, y[:5]), r"y has 5 labels but X has 8 rows"
    yield "one class", (X_aud, ["joy"] * 8), r"at least two classes.*'joy'"
    yield "no y", (make_table(audio=X_aud), None), r"requires y"
    yield "missing y", (X_aud, [*y[:7].tolist(), None]), r"y is missing .* in row 7"
    yield "empty row", (make_table(visual=[*X_vis[:7], None]), y), r"Row 7 has neither"
    yield "channels", (X_vis[:, :2], X_aud, y), r"X_vis of shape \(8, 2, 16, 16\).*wrong shape"
    last = np.moveaxis(X_vis, 1, -1)
    yield "channels last", (last, X_aud, y), r"channels are last.*moveaxis"
    yield "cell channels", (make_table(visual=last), y), r"visual cell of row 0.*wrong shape"
    yield "nan", (nan, y), r"X row 3 holds NaN"
    yield "nan cell", (make_table(audio=nan), y), r"audio cell of row 3 holds NaN"
    yield "path", (make_table(audio=["a.wav"] * 8), y), r"row 0: no such file or folder: 'a\.wav'"
    yield "modality", ({"voice": X_aud}, y), r"Unknown modality 'voice'"
    named = pd.DataFrame({"voice": ["a.wav"] * 8})
    yield "column", (named, y), r"column 'voice' of paths or arrays, which is no modality"
    yield "text cell", (make_table(audio=[np.array(["x"])] * 8), y), r"row 0 has dtype <U1"
    yield "empty cell", (make_table(audio=[*X_aud[:7], np.zeros((16, 0))]), y), r"row 7 is empty"
    mixed = [*X_vis[:4], *X_vis[4:].astype(float)]
    yield "mixed", (make_table(visual=mixed), y), r"differ in kind: row 0 is uint8.*row 4 is float"
    yield "no rows", (X_aud[:0], y[:0]), r"no rows"
    yield "no vectors", (np.empty((0, 5)), np.empty((0, 5)), []), r"X_vis has no rows"
    yield "no list", ([], [], []), r"X_vis has no rows"
    yield "none", (None, y), r"X is None"
    yield "sparse", (csr_array(np.eye(8)), np.eye(8), y), r"X_vis is sparse.*X_vis\.toarray"
    yield "one path", ("a.wav", y), r"X is a single path, 'a\.wav'; give a list, \['a\.wav'\]"
    yield "ragged", (list(X_vis), [*X_aud[:7], X_aud[7, :0]], y), r"audio cell of row 7 is empty"
    pairs = [*zip(X_vis, X_aud, strict=True)]
    yield "pairs", (pairs, y), r"audio cell of row 0 is a tuple .* fit\(X_vis, X_aud, y\)"
    yield "sound", ([(np.zeros(99), 16000)] * 8, y), r"audio cell of row 0 is a tuple"
    yield "no audio", ([*X_aud[:7], None], y), r"X row 7 is missing"


@pytest.mark.parametrize(
    ("arguments", "message"), [pytest.param(a, m, id=i) for i, a, m in bad_inputs()]
)
def test_bad_input_is_one_clear_error(arguments, message):
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        FDANClassifier(**QUICK).fit(*arguments)


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("alpha", -1, "alpha=-1"),
        ("alpha", float("nan"), "alpha=nan"),
        ("n_layers", -1, "n_layers=-1"),
        ("dropout", 2, "dropout=2: it must be a number, between 0 and 1"),
        ("lr", "fast", "lr='fast'"),
        ("batch_size", 0, "batch_size=0"),
        ("momentum", 1.5, "between 0 and 1"),
        ("variant", "realised", "variant='realised' is unknown; choose one of 'paper'"),
        ("inference", "batch", "inference='batch'"),
        ("ramp", "linear", "ramp='linear'"),
        ("lr_schedule", "step", "lr_schedule='step'"),
        ("predict_modality", "text", "predict_modality='text'"),
        ("backbone", "resnet99", "backbone='resnet99' is unknown"),
        ("n_heads", 7, "n_heads=7 does not divide"),
    ],
)
def test_bad_parameters(clips, parameter, value, message):
    with pytest.raises(ValueError, match=message):
        FDANClassifier(**{**QUICK, parameter: value}).fit(
            make_table(visual=clips[0], audio=clips[1]), clips[2]
        )


def test_unknown_parameter():
    with pytest.raises(TypeError, match="alphabet"):
        FDANClassifier(alphabet=1)


def test_bad_prediction_input(clips, fitted):
    X_vis, X_aud, y = clips
    with pytest.raises(ValueError, match=r'Row 2 has no audio cell.*predict_modality="audio"'):
        fitted.predict(make_table(visual=X_vis, audio=[*X_aud[:2], None, *X_aud[3:]]))
    with pytest.raises(ValueError, match=r"fitted on floats of kind image"):
        fitted.predict(X_aud.astype(np.uint8))
    with pytest.raises(ValueError, match=r"matrix of shape .* fitted on images.* a list: \[X\]"):
        fitted.predict(X_aud[0])
    for X in ([X_aud[0], None], [None, X_aud[0]]):
        with pytest.raises(ValueError, match=r"X row . is missing"):
            fitted.predict(X)
    voice = FDANClassifier(**{**QUICK, "max_epochs": 1}).fit(X_aud, y)
    with pytest.raises(ValueError, match=r"fitted without any"):
        voice.set_params(predict_modality="visual").predict(X_vis)
    with pytest.raises(ValueError, match='"fused" needs both'):
        copy.copy(fitted).set_params(predict_modality="fused").predict(X_aud)


def test_vectors_are_read_as_a_block_or_one_by_one():
    rng = np.random.default_rng(0)
    cells = [*rng.normal(size=(4, 5)).astype(np.float32), None]
    together = table_samples({"audio": as_cells(cells)}, ("audio",))["audio"]
    # Of float64 each cell is looked at, and turned into float32.
    alone = table_samples({"audio": as_cells([*map(np.float64, cells[:4]), None])}, ("audio",))
    np.testing.assert_array_equal(together.cells, alone["audio"].cells)
    np.testing.assert_array_equal(together.rows, [0, 1, 2, 3])
    assert together.cells.dtype == np.float32
    for wrong, message in ((np.nan, "row 2 holds NaN"), (np.inf, "row 2 holds NaN or infinite")):
        spoilt = [c.copy() for c in cells[:4]]
        spoilt[2][1] = wrong
        with pytest.raises(ValueError, match=message):
            table_samples({"audio": as_cells(spoilt)}, ("audio",))
    with pytest.raises(ValueError, match="differ in length: row 0 has 5 features, row 1 has 4"):
        table_samples({"audio": as_cells([cells[0], cells[1][:4]])}, ("audio",))
    sequences = table_samples(
        {"audio": as_cells(cells[:2])}, ("audio",), embedded={"audio": "sequence"}
    )
    assert sequences["audio"].cells[0].shape == (1, 5)


@pytest.mark.parametrize("first", ["m", None], ids=["a word", "None"])
def test_a_column_of_words_is_told_from_paths(first):
    X = pd.DataFrame({"a": np.arange(8.0), "sex": [first, *"fmfmfmf"]})
    with pytest.raises(ValueError, match=r"column 'sex' of words, such as '[mf]': .*OneHotEncoder"):
        FDANClassifier(verbose=0).fit(X, ["anger", "joy"] * 4)


def test_two_spectrograms_in_unnamed_columns_are_noticed():
    rng = np.random.default_rng(0)
    mel, mfcc = rng.normal(size=(3, 16, 32)), rng.normal(size=(3, 13, 22))
    table = np.stack([as_cells(mel), as_cells(mfcc)], axis=1)
    with pytest.warns(UserWarning, match=r"first holds numbers below 0 of shape \(16, 32\)"):
        read_table(table, "audio")
    grey = rng.random((3, 48, 40))
    square = rng.normal(size=(3, 48, 48))
    for faces in (grey, square, 255 * rng.random((3, 3, 48, 40)), rng.normal(size=(3, 16))):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_table(np.stack([as_cells(faces), as_cells(mel)], axis=1), "audio")


@pytest.mark.parametrize("make", [FDANClassifier, MISAClassifier])
def test_unnamed_columns_are_refused_where_nothing_tells_them_apart(make, clips):
    faces, voices, y = clips
    columns = [as_cells(faces), as_cells(voices), as_cells(voices)]
    clf = make(max_epochs=1, verbose=0)
    with pytest.raises(ValueError, match=r"3 columns of cells without names.*set_output"):
        clf.fit(np.stack(columns, axis=1), y)
    if make is MISAClassifier:
        # The second might be words.
        with pytest.raises(ValueError, match=r"2 columns of cells without names"):
            clf.fit(np.stack(columns[:2], axis=1), y)


# ---------------------------------------------------------------------- missing labels


@pytest.mark.parametrize("kind", [list, tuple, pd.Series, lambda y: np.array(y, dtype=object)])
@pytest.mark.parametrize("missing", [np.nan, None, pd.NA])
def test_a_missing_label_beside_words_is_no_class(clips, kind, missing):
    X_vis, X_aud, y = clips
    some = y.tolist()
    some[3] = missing
    clf = FDANClassifier(**QUICK | {"max_epochs": 1})
    with pytest.raises(ValueError, match=r"y is missing \(NaN or None\) in row 3"):
        clf.fit(X_vis, X_aud, kind(some))
    clf.set_params(adaptation="dsan").fit(X_vis, X_aud, kind(some))
    assert clf.classes_.tolist() == EMOTIONS.tolist()
    assert clf.class_count_.sum() == len(y) - 1
    halves = y[:20].tolist(), [missing] * 10 + y[10:].tolist()
    clf.fit(X_vis=X_vis[:20], X_aud=X_aud, y_vis=halves[0], y_aud=kind(halves[1]))
    assert clf.classes_.tolist() == EMOTIONS.tolist()


@pytest.mark.parametrize("kind", [list, tuple, pd.Series])
@pytest.mark.parametrize("missing", [np.nan, None])
def test_a_missing_speaker_beside_names_is_nobody(clips, kind, missing):
    X_vis, X_aud, y = clips
    groups = np.repeat(["Ada", "Bob", "Cy", "Dee"], 10).tolist()
    groups[5] = missing
    clf = FDANClassifier(**QUICK | {"max_epochs": 1}, early_stopping=True)
    with pytest.raises(ValueError, match=r"groups is missing \(NaN or None\) in row 5"):
        clf.fit(X_vis, X_aud, y, groups=kind(groups))


# ---------------------------------------------------------------------- columns


@pytest.mark.parametrize("name", ["Visual", " visual", "VISUAL ", "faces__Visual"])
def test_a_misspelt_modality_is_refused(clips, fitted, name):
    X_vis, X_aud, y = clips
    table = make_table(visual=X_vis, audio=X_aud)
    message = rf"X has the column '{name}', which would be left alone: call it 'visual'"
    for wrong in (
        table.rename(columns={"visual": name}),
        make_table(audio=X_aud).assign(**{name: table["visual"]}),
    ):
        with pytest.raises(ValueError, match=message):
            FDANClassifier(**QUICK).fit(wrong, y)
        with pytest.raises(ValueError, match=message):
            fitted.predict(wrong)


def test_other_columns_are_left_alone(clips, fitted):
    _, X_aud, _ = clips
    table = make_table(audio=X_aud).assign(speaker="Ada", audio_file="a.wav", Text="Hello.")
    np.testing.assert_array_equal(fitted.predict_proba(table), fitted.predict_proba(X_aud))


def test_columns_that_are_set_after_the_fit_are_of_the_next(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = rng.normal(size=(40, 6)) + y[:, None]
    small = {"max_epochs": 2, "bottleneck": 8, "random_state": 0, "verbose": 0}
    clf = FDANClassifier(visual=slice(0, 3), audio=slice(3, 6), **small).fit(X, y)
    expected = clf.predict_proba(X)
    loaded = load_pretrained(clf.save_pretrained(tmp_path / "model"))
    for fit in (clf, loaded, copy.deepcopy(clf)):
        fit.set_params(audio=slice(0, 3), visual=None)
        np.testing.assert_array_equal(fit.predict_proba(X), expected)
        again = clone(fit).fit(X, y).predict_proba(X)
        np.testing.assert_array_equal(fit.fit(X, y).predict_proba(X), again)
    clf = FDANClassifier(**small).fit(X, y)
    expected = clf.predict_proba(X)
    np.testing.assert_array_equal(clf.set_params(audio=slice(0, 3)).predict_proba(X), expected)


def test_modalities_that_are_set_after_the_fit_are_of_the_next(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    table = make_table(
        audio=list(rng.normal(size=(40, 4)) + y[:, None]), text=list(rng.normal(size=(40, 3)))
    )
    clf = SDTClassifier(
        modalities=("text", "audio"), hidden=8, n_heads=2, max_epochs=2, random_state=0, verbose=0
    ).fit(table, y)
    expected = clf.predict_proba(table)
    loaded = load_pretrained(clf.save_pretrained(tmp_path / "model"))
    for fit in (clf, loaded):
        fit.set_params(modalities=("audio",))
        np.testing.assert_array_equal(fit.predict_proba(table), expected)
        assert set(fit.fit(table, y)._specs) == {"audio"}


def test_turned_channels_of_one_channel_images():
    rng = np.random.default_rng(0)
    faces = [rng.integers(0, 255, (1, 16 + i % 2, 16), dtype=np.uint8) for i in range(8)]
    few = QUICK | {"max_epochs": 1, "backbone": "cnn", "weights": None, "input_size": 16}
    clf = FDANClassifier(**few | {"predict_modality": "visual"})
    proba = []
    for cells in (faces, [face[::-1] for face in faces]):
        table = make_table(visual=cells)
        proba.append(clf.fit(table, ["joy", "fear"] * 4).predict_proba(table))
    np.testing.assert_array_equal(*proba)


class PolarsColumn:
    """What of a column of polars counts here: its types are none of NumPy's."""

    dtype, ndim = "Object", 1

    def __init__(self, cells):
        self.cells = cells
        self.shape = (len(cells),)

    def __iter__(self):
        return iter(self.cells)

    def to_numpy(self):
        return as_cells(self.cells)


def test_a_column_of_another_library(clips, fitted):
    voices = list(clips[1][:6])
    proba = fitted.predict_proba(PolarsColumn(voices))
    np.testing.assert_array_equal(proba, fitted.predict_proba(voices))
