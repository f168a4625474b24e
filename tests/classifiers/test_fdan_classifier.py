import copy
import io
import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, GroupKFold, LeaveOneGroupOut, cross_validate
from skorch.callbacks import EarlyStopping
from skorch.helper import SliceDict

from skfdan import SCORING, AudioHoldout, FDANClassifier, make_table, stack_modalities, unpair
from skfdan.classifiers._samples import table_samples
from skfdan.classifiers._validation import hold_out

EMOTIONS = np.array(["anger", "fear", "joy", "sadness"])
QUICK = {
    "backbone": "cnn",
    "weights": None,
    "input_size": 16,
    "bottleneck": 32,
    "lr": 0.01,
    "momentum": 0.9,
    "max_epochs": 25,
    "random_state": 0,
}


def make_clips(n=40, seed=0, emotions=EMOTIONS):
    """Faces and spectrograms in which both modalities show the emotion."""
    rng = np.random.default_rng(seed)
    code = np.arange(n) % len(emotions)
    band = np.eye(len(emotions))[code]
    faces = rng.integers(0, 80, (n, 3, 16, 16)) + np.repeat(
        170 * np.kron(band, np.ones(16 // len(emotions)))[:, None, :, None], 16, 3
    )
    sound = rng.normal(size=(n, 16, 12)) + 3 * np.repeat(
        np.kron(band, np.ones(16 // len(emotions)))[:, :, None], 12, 2
    )
    return faces.astype(np.uint8), sound.astype(np.float32), emotions[code]


@pytest.fixture(scope="module")
def clips():
    return make_clips()


@pytest.fixture(scope="module")
def fitted(clips):
    return FDANClassifier(**QUICK).fit(*clips)


# ---------------------------------------------------------------------- forms of fit


def test_the_forms_of_fit_agree(clips, fitted):
    X_vis, X_aud, y = clips
    table = make_table(visual=X_vis, audio=X_aud)
    cells = np.empty((len(y), 2), dtype=object)
    cells[:, 0], cells[:, 1] = table["visual"], table["audio"]
    expected = fitted.predict_proba(X_aud)
    for arguments, keywords in [
        ((table, y), {}),
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
        clf = FDANClassifier(**QUICK).fit(*arguments, **keywords)
        np.testing.assert_allclose(clf.predict_proba(X_aud), expected, atol=1e-6)


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


# ---------------------------------------------------------------------- the method


def test_every_parameter_of_the_default_variant_is_trained(clips):
    X_vis, X_aud, y = clips
    parameters = {**QUICK, "max_epochs": 1, "backbone": "resnet18", "input_size": 32}
    clf = FDANClassifier(**parameters, alpha=1.0).fit(X_vis, X_aud, y)
    untouched = [
        name
        for name, p in clf.module_.named_parameters()
        if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert untouched == []
    assert {m for m in ("visual", "audio") if m in clf.module_.backbones} == {"visual", "audio"}


def test_loss_is_equation_9(clips):
    X_vis, X_aud, y = clips
    clf = FDANClassifier(**QUICK, alpha=0.3).fit(X_vis, X_aud, y)
    row = clf.history_[-1]
    total = row["ce_audio"] + row["ce_visual"] + 0.3 * row["lmmd"]
    assert row["train_loss"] == pytest.approx(total, rel=1e-5)
    assert row["lmmd"] >= 0
    assert row["alpha"] == pytest.approx(0.3)
    assert row["feature_std"] > 0


def test_alpha_aligns_the_modalities(clips):
    X_vis, X_aud, y = clips
    end = {
        alpha: FDANClassifier(**QUICK, alpha=alpha).fit(X_vis, X_aud, y).history_[-1]["lmmd"]
        for alpha in (0.0, 1.0)
    }
    assert end[1.0] < 0.8 * end[0.0]


def test_ramp(clips):
    clf = FDANClassifier(**QUICK, alpha=2.0, ramp="dsan").fit(*clips)
    weights = clf.history_[:, "alpha"]
    assert weights[0] == 0
    assert (np.diff(weights) > 0).all()
    assert weights[-1] == pytest.approx(2 * (2 / (1 + np.exp(-10 * 24 / 25)) - 1))


def test_bank_is_class_balanced_and_used(clips, fitted):
    X_vis, X_aud, y = clips
    assert {m: b.shape for m, b in fitted.reference_bank_.items()} == {
        "visual": (1, 40, 32),
        "audio": (1, 40, 32),
    }
    skewed = np.concatenate([np.arange(40), np.flatnonzero(y == "joy")])
    clf = FDANClassifier(**QUICK, bank_size=8)
    clf.fit(X_vis[skewed], X_aud[skewed], y[skewed])
    assert clf.reference_bank_["visual"].shape == (1, 8, 32)
    bypass = copy.deepcopy(fitted).set_params(inference="bypass")
    assert not np.allclose(bypass.predict_proba(X_aud), fitted.predict_proba(X_aud))


def test_bank_stands_in_as_in_equation_3(clips, fitted):
    """The prediction equals attention over the bank, written out with NumPy."""
    _, X_aud, _ = clips
    module = copy.deepcopy(fitted.module_).double()
    with torch.inference_mode():
        x = module.inputs["audio"](torch.from_numpy(X_aud)[:, None]).double()
        z = module.bottlenecks["audio"](module.backbones["audio"](x)).numpy()
    layer = module.layers[0]
    bank = fitted.reference_bank_["visual"][0].astype(float)

    def weight(linear):
        return linear.weight.detach().numpy()

    scores = (z @ weight(layer.audio.query).T) @ (bank @ weight(layer.visual.key).T).T
    scores = np.exp(scores / np.sqrt(z.shape[1]))
    delta = scores / scores.sum(1, keepdims=True) @ (bank @ weight(layer.visual.value).T)
    with torch.inference_mode():
        out = layer.audio.norm1(torch.from_numpy(z + delta))
        out = layer.audio.norm2(out + layer.audio.ffn(out))
    np.testing.assert_allclose(fitted.transform(X_aud), out.numpy(), atol=1e-4)


def test_without_attention_there_is_no_bank(clips):
    clf = FDANClassifier(**QUICK, n_layers=0).fit(*clips)
    assert clf.reference_bank_ == {}
    assert "lmmd" in clf.history_[-1]


def test_official_variant_trains_and_bypasses_attention(clips):
    X_vis, X_aud, y = clips
    clf = FDANClassifier(**QUICK, variant="official", alpha=1.0).fit(X_vis, X_aud, y)
    before = [p.clone() for p in clf.module_.attention.parameters()]
    clf.partial_fit(X_vis, X_aud, y_true=y)
    assert all(map(torch.equal, before, clf.module_.attention.parameters()))
    assert clf.history_[0, "alpha"] == 0
    assert max(clf.history_[:, "alpha"]) < 0.462
    module = clf.module_.eval()
    with torch.inference_mode():
        x = module.inputs["audio"](torch.from_numpy(X_aud)[:, None])
        z = module.bottleneck(module.backbone(x))
    np.testing.assert_allclose(clf.transform(X_aud), z.numpy(), atol=1e-4)


def test_class_weight(clips):
    X_vis, X_aud, y = clips
    noise = np.random.default_rng(0).normal(size=X_aud.shape)
    heavy = FDANClassifier(**QUICK, class_weight={"joy": 50.0}).fit(noise, y)
    assert (heavy.predict(noise) == "joy").mean() > 0.5
    balanced = FDANClassifier(**QUICK, class_weight="balanced").fit(X_vis, X_aud, y)
    plain = FDANClassifier(**QUICK).fit(X_vis, X_aud, y)
    # Balanced data: the weights are all 1.
    np.testing.assert_allclose(balanced.predict_proba(X_aud), plain.predict_proba(X_aud), atol=1e-5)
    with pytest.raises(ValueError, match="class_weight names 'jov'"):
        FDANClassifier(**QUICK, class_weight={"jov": 2}).fit(X_aud, y)


def test_collapse_is_reported(clips):
    X_vis, X_aud, y = clips
    clf = FDANClassifier(**{**QUICK, "lr": 0.1}, lr_schedule="constant", n_layers=0, alpha=300.0)
    with pytest.warns(ConvergenceWarning, match=r"collapsed.*alpha=300"):
        clf.fit(X_vis, X_aud, y)
    assert clf.history_[-1]["feature_std"] < 1e-3


def test_divergence_is_an_error(clips):
    clf = FDANClassifier(**{**QUICK, "lr": 1e12})
    with pytest.raises(ValueError, match=r"diverged.*epoch \d+, batch \d+.*Lower lr"):
        clf.fit(*clips)


def test_learning_rate_falls_along_a_cosine(clips):
    seen = []

    class Note(FDANClassifier):
        def infer(self, x, **kwargs):
            seen.append(self.optimizer_.param_groups[0]["lr"])
            return super().infer(x, **kwargs)

    parameters = {**QUICK, "max_epochs": 4, "batch_size": 64}
    Note(**parameters).fit(*clips)
    np.testing.assert_allclose(seen, 0.01 * (1 + np.cos(np.pi * np.arange(4) / 4)) / 2)
    seen.clear()
    Note(**parameters, lr_schedule="constant").fit(*clips)
    assert seen == [0.01] * 4


def test_epoch_is_a_pass_through_the_audio(clips):
    X_vis, X_aud, y = clips
    many = np.concatenate([X_vis] * 5)
    seen = []

    class Count(FDANClassifier):
        def infer(self, x, **kwargs):
            seen.append({m: len(c) for m, c in x.cells.items()})
            return super().infer(x, **kwargs)

    parameters = {**QUICK, "max_epochs": 5, "batch_size": 16}
    Count(**parameters).fit(many, X_aud, y_vis=np.concatenate([y] * 5), y_aud=y)
    assert [s["audio"] for s in seen[:3]] == [14, 13, 13]
    assert sum(s["audio"] for s in seen) == 5 * 40
    # 200 faces, 16 a step: they are drawn from shuffles that go on over epochs.
    assert {s["visual"] for s in seen} == {16}


# ---------------------------------------------------------------------- row independence


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_predictions_depend_on_their_own_row_only(fitted, data):
    X_vis, X_aud, _ = make_clips(seed=2)
    modality = data.draw(st.sampled_from(["audio", "visual", "fused"]))
    clf = copy.copy(fitted).set_params(
        predict_modality=modality, batch_size=data.draw(st.integers(1, 50))
    )
    table = make_table(visual=X_vis, audio=X_aud)
    expected = copy.copy(fitted).set_params(predict_modality=modality).predict_proba(table)
    rows = data.draw(st.lists(st.integers(0, 39), min_size=1, max_size=60))
    np.testing.assert_allclose(clf.predict_proba(table.iloc[rows]), expected[rows], atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), missing=st.booleans())
def test_visual_cells_never_change_an_audio_prediction(fitted, seed, missing):
    _, X_aud, _ = make_clips(seed=2)
    rng = np.random.default_rng(seed)
    faces = [
        None if missing and rng.random() < 0.5 else rng.integers(0, 255, (3, 9, 9), np.uint8)
        for _ in X_aud
    ]
    np.testing.assert_array_equal(
        fitted.predict_proba(make_table(visual=faces, audio=X_aud)), fitted.predict_proba(X_aud)
    )


def test_fused_averages_the_log_probabilities_that_are_there(fitted):
    X_vis, X_aud, _ = make_clips(seed=3)
    clf = copy.copy(fitted).set_params(predict_modality="fused")
    faces = [face if i % 2 else None for i, face in enumerate(X_vis)]
    proba = clf.predict_proba(make_table(visual=faces, audio=X_aud))
    audio = fitted.predict_proba(X_aud)
    visual = copy.copy(fitted).set_params(predict_modality="visual").predict_proba(X_vis)
    both = np.sqrt(audio * visual)
    np.testing.assert_allclose(proba[::2], audio[::2], atol=1e-6)
    np.testing.assert_allclose(proba[1::2], (both / both.sum(1, keepdims=True))[1::2], atol=1e-6)


def test_one_row(fitted):
    _, X_aud, _ = make_clips()
    assert fitted.predict(X_aud[:1]).shape == (1,)
    assert fitted.predict(make_table(audio=[X_aud[0]])).shape == (1,)


def test_cells_of_unequal_size_are_resized(clips):
    X_vis, X_aud, y = clips
    cells = [x[:, : 8 + i % 4] for i, x in enumerate(X_aud)]
    grey = [f if i % 2 else f[:1] for i, f in enumerate(X_vis)]
    clf = FDANClassifier(**QUICK).fit(make_table(visual=grey, audio=cells), y)
    assert clf.score(make_table(audio=cells), y) > 0.9
    with pytest.raises(ValueError, match="set input_size"):
        FDANClassifier(**{**QUICK, "input_size": None}).fit(make_table(audio=cells), y)


# ---------------------------------------------------------------------- reproducibility


def test_random_state_and_global_generators(clips):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    threads = torch.get_num_threads()
    first = FDANClassifier(**QUICK, dropout=0.2).fit(*clips)
    second = FDANClassifier(**QUICK, dropout=0.2).fit(*clips)
    np.testing.assert_array_equal(first.predict_proba(clips[1]), second.predict_proba(clips[1]))
    other = FDANClassifier(**{**QUICK, "random_state": 1}).fit(*clips)
    assert not np.allclose(first.predict_proba(clips[1]), other.predict_proba(clips[1]))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_small_networks_train_and_predict_on_one_thread(clips):
    X_vis, X_aud, y = clips
    seen = set()

    def watch(module, args, kwargs):
        seen.add(torch.get_num_threads())

    class Watched(FDANClassifier):
        def _make_module(self):
            module = super()._make_module()
            module.register_forward_pre_hook(watch, with_kwargs=True)
            return module

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for backbone, expected in [("cnn", {1}), ("resnet18", {2})]:
            clf = Watched(**{**QUICK, "backbone": backbone, "max_epochs": 1, "input_size": 32})
            clf.fit(X_vis, X_aud, y).predict(X_aud[:2])
            assert seen == expected
            assert torch.get_num_threads() == 2
            seen.clear()
    finally:
        torch.set_num_threads(before)


def test_partial_fit_goes_on(clips):
    X_vis, X_aud, y = clips
    clf = FDANClassifier(**QUICK)
    for _ in range(QUICK["max_epochs"]):
        clf.partial_fit(X_vis, X_aud, y_true=y)
    assert len(clf.history_) == QUICK["max_epochs"]
    assert clf.score(X_aud, y) > 0.9
    bank = clf.reference_bank_["visual"]
    clf.partial_fit(X_aud, y)  # no faces this time: the bank stays
    assert clf.reference_bank_["visual"] is bank
    with pytest.raises(ValueError, match="'surprise', which is not among the classes"):
        clf.partial_fit(X_aud, np.full(len(y), "surprise"))
    with pytest.raises(ValueError, match="differ from those of the first call"):
        clf.partial_fit(X_aud, y, classes=["anger", "joy"])


def test_partial_fit_takes_all_classes_at_first(clips):
    _, X_aud, y = clips
    few = np.isin(y, EMOTIONS[:2])
    clf = FDANClassifier(**QUICK).partial_fit(X_aud[few], y[few], classes=EMOTIONS)
    assert clf.classes_.tolist() == EMOTIONS.tolist()
    clf.partial_fit(X_aud, y)


@pytest.mark.parametrize("how", ["pickle", "joblib", "deepcopy"])
def test_fitted_objects_can_be_copied(clips, fitted, how):
    X_vis, X_aud, y = clips
    search = GridSearchCV(
        FDANClassifier(**{**QUICK, "max_epochs": 2}), {"alpha": [0.0, 1e-3]}, cv=2
    ).fit(make_table(visual=X_vis, audio=X_aud), y)
    for model in (fitted, search):
        if how == "pickle":
            copied = pickle.loads(pickle.dumps(model))
        elif how == "joblib":
            buffer = io.BytesIO()
            joblib.dump(model, buffer)
            buffer.seek(0)
            copied = joblib.load(buffer)
        else:
            copied = copy.deepcopy(model)
        table = make_table(audio=X_aud)
        np.testing.assert_array_equal(copied.predict_proba(table), model.predict_proba(table))
    copied.best_estimator_.partial_fit(X_aud, y)


def test_pickles_hold_no_data():
    sizes = []
    for n in (40, 160):
        X_vis, X_aud, y = make_clips(n)
        clf = FDANClassifier(**QUICK, bank_size=16).fit(X_vis, X_aud, y)
        sizes.append(len(pickle.dumps(clf)))
    assert abs(sizes[1] - sizes[0]) < 0.02 * sizes[0]


def test_predictions_in_another_process(clips, fitted, tmp_path):
    joblib.dump((fitted, clips[1]), tmp_path / "model.joblib")
    code = (
        "import joblib, numpy, sys; clf, X = joblib.load(sys.argv[1]);"
        "numpy.save(sys.argv[2], clf.predict_proba(X))"
    )
    out = tmp_path / "proba.npy"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.joblib"), str(out)], check=True
    )
    np.testing.assert_allclose(np.load(out), fitted.predict_proba(clips[1]), atol=1e-6)


def test_clone_keeps_parameters_and_drops_the_fit(fitted):
    cloned = clone(fitted)
    assert cloned.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        cloned.predict(make_clips()[1])
    with pytest.raises(AttributeError, match="not fitted"):
        _ = cloned.classes_
    with pytest.raises(AttributeError, match="call fit"):
        cloned.initialize()


def test_fit_changes_no_parameter(clips):
    clf = FDANClassifier(**QUICK)
    before = dict(clf.get_params())
    clf.fit(*clips)
    assert clf.get_params() == before
    assert repr(clf).startswith("FDANClassifier(backbone='cnn', bottleneck=32,")


# ---------------------------------------------------------------------- early stopping


def test_early_stopping_keeps_the_best_epoch(clips):
    X_vis, X_aud, y = clips
    clf = FDANClassifier(
        **{**QUICK, "max_epochs": 60},
        early_stopping=True,
        validation_fraction=0.3,
        n_iter_no_change=3,
    )
    clf.fit(X_vis, X_aud, y)
    scores = clf.history_[:, "valid_uar"]
    assert len(scores) < 60
    assert len(scores) == int(np.argmax(scores)) + 1 + 3
    assert clf.score(X_aud, y) > 0.9


def test_early_stopping_holds_out_whole_groups(clips):
    X_vis, X_aud, y = clips
    groups = np.repeat(np.arange(10), 4)
    table, labels, speakers = unpair(make_table(visual=X_vis, audio=X_aud), y, groups)
    samples = table_samples(table)
    _, encoded = np.unique(labels, return_inverse=True)
    train, (lead, valid, _) = hold_out(samples, encoded, speakers, 0.2, np.random.RandomState(0))
    assert lead == "audio"
    held = set(speakers[valid.rows])
    assert len(held) == 2
    for modality in ("visual", "audio"):
        assert not held & set(speakers[train[modality].rows])
    assert len(train["audio"]) == len(train["visual"]) == 32


def test_skorch_callbacks_work(clips):
    stop = EarlyStopping(monitor="train_loss", patience=2, threshold=1e9, threshold_mode="abs")
    clf = FDANClassifier(**{**QUICK, "max_epochs": 50}, callbacks=[stop])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf.fit(*clips)
    assert len(clf.history_) < 50


def test_interrupted_fit_can_be_used(clips):
    X_vis, X_aud, y = clips

    class Interrupted(FDANClassifier):
        def infer(self, x, **kwargs):
            if len(self.history_) == 4:
                raise KeyboardInterrupt
            return super().infer(x, **kwargs)

    clf = Interrupted(**QUICK)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X_vis, X_aud, y)
    assert clf.predict(X_aud).shape == (40,)


# ---------------------------------------------------------------------- scikit-learn's tools


def test_transform_and_feature_names(fitted):
    _, X_aud, _ = make_clips()
    features = fitted.transform(X_aud)
    assert features.shape == (40, 32)
    assert features.dtype == np.float32
    assert fitted.get_feature_names_out()[0] == "fdanclassifier0"
    frame = copy.deepcopy(fitted).set_output(transform="pandas").transform(X_aud)
    assert list(frame.columns) == list(fitted.get_feature_names_out())


def test_both_protocols_with_all_metrics(clips):
    X_vis, X_aud, y = clips
    speakers = np.repeat(np.arange(5), 8)
    table, labels, groups = unpair(make_table(visual=X_vis, audio=X_aud), y, speakers)
    for visual in ("all", "disjoint"):
        scores = cross_validate(
            FDANClassifier(**QUICK),
            table,
            labels,
            groups=groups,
            scoring=SCORING,
            cv=AudioHoldout(LeaveOneGroupOut(), visual),
            error_score="raise",
        )
        for metric in SCORING:
            assert scores[f"test_{metric}"].shape == (5,)
            assert scores[f"test_{metric}"].mean() > 0.8


def test_nested_search_in_both_protocols(clips):
    X_vis, X_aud, y = clips
    table, labels, groups = unpair(
        make_table(visual=X_vis, audio=X_aud), y, np.repeat(np.arange(4), 10)
    )
    for visual in ("all", "disjoint"):
        cv = AudioHoldout(GroupKFold(2), visual)
        search = GridSearchCV(
            FDANClassifier(**{**QUICK, "max_epochs": 3}),
            {"alpha": [0.0, 1e-3], "weight_decay": [1e-3, 1e-4]},
            scoring=SCORING,
            refit="UAR",
            cv=cv,
            error_score="raise",
        )
        for train, test in cv.split(table, labels, groups):
            search.fit(table.iloc[train], labels[train], groups=groups[train])
            predicted = search.predict(table.iloc[test])
            assert balanced_accuracy_score(labels[test], predicted) >= 0
            assert set(search.cv_results_) >= {"mean_test_WAR", "mean_test_UAR", "mean_test_wF1"}


def test_groups_can_be_routed_to_the_validation_split(clips):
    X_vis, X_aud, y = clips
    speakers = np.repeat(np.arange(4), 10)
    clf = FDANClassifier(**{**QUICK, "max_epochs": 2}, early_stopping=True, validation_fraction=0.4)
    seen = []

    class Spy(FDANClassifier):
        def fit(self, X=None, y=None, *, groups=None):
            seen.append(groups)
            return super().fit(X, y, groups=groups)

    spy = Spy(**clf.get_params())
    with config_context(enable_metadata_routing=True):
        spy.set_fit_request(groups=True)
        GridSearchCV(spy, {"alpha": [0.0]}, cv=GroupKFold(2), error_score="raise").fit(
            make_table(visual=X_vis, audio=X_aud), y, groups=speakers
        )
    assert [len(groups) for groups in seen] == [20, 20, 40]
    assert len(set(seen[0])) == 2


def test_calibration_and_voting(clips):
    from sklearn.ensemble import VotingClassifier

    X_vis, X_aud, y = clips
    table = make_table(visual=X_vis, audio=X_aud)
    clf = FDANClassifier(**QUICK)
    voting = VotingClassifier([("a", clf), ("b", clone(clf))], voting="soft").fit(table, y)
    assert voting.score(table, y) > 0.5
    calibrated = CalibratedClassifierCV(clf, cv=2).fit(table, y)
    np.testing.assert_allclose(calibrated.predict_proba(table).sum(1), 1)


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
    yield "path", (make_table(audio=["a.wav"] * 8), y), r"'a\.wav'\. Put MelSpectrogram\(\)"
    yield "modality", ({"voice": X_aud}, y), r"Unknown modality 'voice'"
    named = pd.DataFrame({"voice": ["a.wav"] * 8})
    yield "column", (named, y), r"column 'voice' of paths or arrays, which is no modality"
    yield "text cell", (make_table(audio=[np.array(["x"])] * 8), y), r"row 0 has dtype <U1"
    yield "empty cell", (make_table(audio=[*X_aud[:7], np.zeros((16, 0))]), y), r"row 7 is empty"
    mixed = [*X_vis[:4], *X_vis[4:].astype(float)]
    yield "mixed", (make_table(visual=mixed), y), r"differ in kind: row 0 is uint8.*row 4 is float"
    yield "no rows", (X_aud[:0], y[:0]), r"no rows"
    yield "none", (None, y), r"X is None"


@pytest.mark.parametrize(
    ("arguments", "message"), [pytest.param(a, m, id=i) for i, a, m in bad_inputs()]
)
def test_bad_input_is_one_clear_error(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
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
    voice = FDANClassifier(**{**QUICK, "max_epochs": 1}).fit(X_aud, y)
    with pytest.raises(ValueError, match=r"fitted without any"):
        voice.set_params(predict_modality="visual").predict(X_vis)
    with pytest.raises(ValueError, match='"fused" needs both'):
        copy.copy(fitted).set_params(predict_modality="fused").predict(X_aud)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_cpu_and_pickles_for_machines_without_gpu(clips):
    X_vis, X_aud, y = clips
    clf = FDANClassifier(**QUICK, device="cuda").fit(X_vis, X_aud, y)
    assert clf.score(X_aud, y) > 0.9
    expected = clf.predict_proba(X_aud)
    loaded = pickle.loads(pickle.dumps(clf))
    assert {p.device.type for p in loaded.module_.parameters()} == {"cpu"}
    loaded.set_params(device="cpu")
    np.testing.assert_allclose(loaded.predict_proba(X_aud), expected, atol=1e-3)
    loaded.set_params(device="cuda").partial_fit(X_vis, X_aud, y_true=y)
