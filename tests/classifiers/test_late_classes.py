"""Classes, rows and weights that come late, or not where they are looked for."""

import warnings

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from skorch.callbacks import EarlyStopping

from skfdan import AudioHoldout, FDANClassifier, make_table, unpair
from skfdan.classifiers import MISAClassifier, WavFusionClassifier
from skfdan.model_selection import make_protocol

CLASSES = np.array(["anger", "joy", "sad"])
Y = np.tile(CLASSES, 20)
LEVEL = np.searchsorted(CLASSES, Y)[:, None]
QUICK = {"bottleneck": 16, "lr": 0.02, "momentum": 0.9, "random_state": 0, "verbose": 0}


def vectors(width, seed=0, level=2.0):
    noise = np.random.default_rng(seed).normal(size=(len(Y), width))
    return (noise + level * LEVEL).astype(np.float32)


FACES, VOICES = vectors(8), vectors(12, seed=1)
TABLE = make_table(visual=FACES, audio=VOICES)


@pytest.mark.parametrize(
    "make",
    [
        lambda **p: FDANClassifier(**QUICK, **p),
        lambda **p: MISAClassifier(hidden=16, ffn_dim=16, lr=0.01, random_state=0, verbose=0, **p),
    ],
    ids=["FDAN", "MISA"],
)
def test_a_class_that_the_first_call_lacks_is_learned_with_weights_too(make):
    known = Y != "sad"
    scores = []
    for weights in (None, dict.fromkeys(CLASSES.tolist(), 1.0)):
        clf = make(class_weight=weights)
        clf.partial_fit(TABLE[known], Y[known], classes=CLASSES)
        for _ in range(30):
            clf.partial_fit(TABLE, Y)
        scores.append(clf.predict_proba(TABLE))
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-4)
    assert "sad" in clf.predict(TABLE)


@pytest.mark.parametrize("first", CLASSES)
def test_weights_do_not_depend_on_the_rows_of_the_first_call(first):
    weights = {"anger": 0.01, "joy": 1.0, "sad": 1.0}
    for make in (FDANClassifier(**QUICK), MISAClassifier(hidden=16, ffn_dim=16, verbose=0)):
        clf = clone(make).set_params(class_weight=weights)
        of_one = np.flatnonzero(np.equal(Y, first))
        clf.partial_fit(TABLE.iloc[of_one], Y[of_one], classes=CLASSES)
        for _ in range(2):
            clf.partial_fit(TABLE, Y)
        # An average of 1 over the classes: that of a fit on as many rows of each.
        expected = clone(clf).set_params(max_epochs=1).fit(TABLE, Y)._class_weights
        for key, found in clf._class_weights.items():
            assert found.tolist() == expected.get(key, expected["audio"]).tolist()


def test_labels_that_come_later_are_weighted():
    weights = {"anger": 20.0, "joy": 1.0, "sad": 1.0}
    clfs = [FDANClassifier(**QUICK, adaptation="dsan", class_weight=weights) for _ in range(3)]
    none = [None] * len(Y)
    clfs[0].partial_fit(X_vis=FACES, X_aud=VOICES, y_vis=Y, y_aud=none)
    clfs[1].partial_fit(X_vis=FACES, X_aud=VOICES, y_vis=Y, y_aud=Y)
    clfs[2].set_params(max_epochs=1).fit(X_vis=FACES, X_aud=VOICES, y_vis=Y, y_aud=none)
    for clf in clfs:
        assert clf._class_weights["audio"].tolist() == clf._class_weights["visual"].tolist()
        assert clf._class_weights["audio"][0] == pytest.approx(20 / 22 * 3)


def test_fit_scales_weights_by_its_own_rows():
    few = np.concatenate([np.flatnonzero(Y == "anger")[:2], np.flatnonzero(Y != "anger")])
    clf = FDANClassifier(**QUICK, max_epochs=1, class_weight={"anger": 20.0})
    clf.fit(VOICES[few], Y[few])
    expected = np.array([20.0, 1.0, 1.0]) / np.mean([20.0] * 2 + [1.0] * 40)
    np.testing.assert_allclose(clf._class_weights["audio"].numpy(), expected, rtol=1e-6)


def test_a_modality_whose_rows_all_weigh_nothing_teaches_nothing():
    joy = Y == "joy"
    clf = FDANClassifier(**QUICK, max_epochs=10, class_weight={"joy": 0})
    clf.fit(FACES[joy], VOICES, y_vis=Y[joy], y_aud=Y)
    assert set(clf.predict(VOICES)) == {"anger", "sad"}
    nothing = FDANClassifier(**QUICK, class_weight=dict.fromkeys(CLASSES.tolist(), 0))
    with pytest.raises(ValueError, match="gives every class the weight 0"):
        nothing.fit(TABLE, Y)


@pytest.mark.parametrize("adaptation", ["lmmd", "dsan"])
def test_strings_beside_numbers_are_no_labels(adaptation):
    clf = FDANClassifier(**QUICK, adaptation=adaptation)
    with pytest.raises(ValueError, match=r"strings and numbers.*y_vis\[0\]=0, y_aud\[0\]='anger'"):
        clf.fit(FACES, VOICES, y_vis=LEVEL[:, 0], y_aud=Y)


def test_the_bank_is_of_the_weights_that_a_callback_restores():
    stopping = EarlyStopping(monitor="train_loss", patience=2, load_best=True)
    clf = FDANClassifier(
        **QUICK | {"lr": 0.3}, max_epochs=40, lr_schedule="constant", callbacks=[stopping]
    ).fit(TABLE, Y)
    assert len(clf.history_) < 40
    kept = clf.reference_bank_
    samples, _ = clf._read_X(TABLE, reset=False)
    encoded = np.searchsorted(CLASSES, Y)
    clf._finish(samples, {m: encoded[s.rows] for m, s in samples.items()})
    for modality, bank in clf.reference_bank_.items():
        # All rows are in the bank, in another order.
        np.testing.assert_allclose(kept[modality].sum(1), bank.sum(1), rtol=1e-3, atol=1e-2)


def test_early_stopping_validates_on_what_fused_prediction_reads():
    noise = np.random.default_rng(2).normal(size=VOICES.shape).astype(np.float32)
    table = make_table(visual=FACES, audio=noise)
    clf = FDANClassifier(
        **QUICK,
        max_epochs=20,
        early_stopping=True,
        validation_fraction=0.4,
        n_iter_no_change=20,
        predict_modality="fused",
    ).fit(table, Y)
    assert max(clf.history_[:, "valid_uar"]) > 0.9


def test_a_class_that_early_stopping_holds_out_whole_is_told():
    groups = np.where(Y == "sad", "S", np.where(np.arange(60) % 2, "A", "B"))
    clf = FDANClassifier(**QUICK, max_epochs=2, early_stopping=True, validation_fraction=0.3)
    found = set()
    for seed in range(8):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            clf.set_params(random_state=seed).fit(TABLE, Y, groups=groups)
        told = any("all rows of the classes ['sad']" in str(w.message) for w in caught)
        found.add(told)
    assert found == {True, False}
    with pytest.raises(ValueError, match=r"groups is missing .* in row 0"):
        clf.fit(TABLE, Y, groups=[None, *groups[1:]])


def test_no_rows_are_nothing_to_predict():
    clf = FDANClassifier(**QUICK, max_epochs=1).fit(TABLE, Y)
    with pytest.raises(ValueError, match="X has no rows"):
        clf.predict(TABLE[:0])


@pytest.mark.parametrize("spec", [3, "f0", len])
def test_what_selects_no_columns(spec):
    clf = FDANClassifier(**QUICK, visual=spec, audio=slice(8, None))
    with pytest.raises(ValueError, match="must be a slice, or a list of positions or names"):
        clf.fit(np.hstack([FACES, VOICES]), Y)


def test_sequences_may_be_turned_or_read_only():
    cells = [np.random.default_rng(i).normal(size=(5, 10)).astype(np.float32) for i in range(60)]
    turned = [c[:, ::-1] for c in cells]
    fixed = [np.ascontiguousarray(c) for c in turned]
    for c in fixed:
        c.flags.writeable = False
    out = []
    for audio in (turned, fixed):
        clf = WavFusionClassifier(
            max_epochs=1, dim=16, hidden=8, n_heads=2, random_state=0, verbose=0
        )
        out.append(
            clf.fit(make_table(audio=audio, text=audio), Y).predict_proba(
                make_table(audio=audio, text=audio)
            )
        )
    np.testing.assert_array_equal(*out)


@pytest.mark.parametrize(
    "cv",
    [
        AudioHoldout(GroupKFold(3), visual="disjoint"),
        make_protocol("disjoint", n_splits=3),
    ],
    ids=["AudioHoldout", "protocol"],
)
def test_groups_reach_the_splitter_under_metadata_routing(cv):
    table, y, groups = unpair(TABLE, Y, np.repeat(list("ABCDEF"), 10))
    clf = FDANClassifier(**QUICK, max_epochs=2)
    expected = cross_validate(clf, table, y, cv=cv, groups=groups)["test_score"]
    with sklearn.config_context(enable_metadata_routing=True):
        clf.set_fit_request(groups=False)
        found = cross_validate(clf, table, y, cv=cv, params={"groups": groups})["test_score"]
        search = GridSearchCV(clf, {"alpha": [0.0]}, cv=cv).fit(table, y, groups=groups)
    np.testing.assert_array_equal(found, expected)
    assert search.cv_results_["mean_test_score"][0] == pytest.approx(expected.mean())
