import copy
import io
import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, GroupKFold, LeaveOneGroupOut, cross_validate
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    TrainEndCheckpoint,
)

from classifiers.small_clips import EMOTIONS, QUICK, make_clips
from skfdan import SCORING, AudioHoldout, FDANClassifier, make_table, unpair
from skfdan.classifiers._samples import table_samples
from skfdan.classifiers._validation import hold_out

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


def test_partial_fit_after_fit_still_learns(clips, fitted):
    clf = copy.deepcopy(fitted)
    before = clf.module_.classifier.weight.clone()
    clf.partial_fit(clips[0], clips[1], y_true=clips[2])
    assert clf.optimizer_.param_groups[0]["lr"] == clf.lr
    assert (clf.module_.classifier.weight - before).abs().max() > 1e-6


def test_ramp_goes_on_over_partial_fits(clips):
    clf = FDANClassifier(**{**QUICK, "max_epochs": 3}, ramp="dsan", alpha=1.0)
    for _ in range(5):
        clf.partial_fit(clips[0], clips[1], y_true=clips[2])
    progress = np.minimum(np.arange(5) / 3, 1)
    np.testing.assert_allclose(clf.history_[:, "alpha"], 2 / (1 + np.exp(-10 * progress)) - 1)
    assert [len(batches) for batches in clf.history_[:, "batches"]] == [0] * 5


def test_a_refit_that_fails_leaves_no_mixture(clips, tmp_path):
    _, X_aud, y = clips
    clf = FDANClassifier(**{**QUICK, "max_epochs": 1}).fit(X_aud, y)
    expected = clf.predict_proba(X_aud)
    clf.set_params(backbone="resnet18", weights=tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        clf.fit(X_aud[:8], np.repeat(["x", "y"], 4))
    assert clf.classes_.tolist() == EMOTIONS.tolist()
    np.testing.assert_array_equal(clf.predict_proba(X_aud), expected)


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


@pytest.mark.slow
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


# ---------------------------------------------------------------------- early stopping


def test_early_stopping_waits_for_a_better_epoch(clips):
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


def test_early_stopping_listens_to_the_modality_that_is_predicted(clips):
    X_vis, _, y = clips
    noise = np.random.default_rng(0).normal(size=clips[1].shape).astype(np.float32)
    clf = FDANClassifier(
        **QUICK, early_stopping=True, validation_fraction=0.3, predict_modality="visual"
    )
    clf.fit(X_vis, noise, y)
    assert max(clf.history_[:, "valid_uar"]) > 0.8


def test_early_stopping_holds_out_whole_groups(clips):
    X_vis, X_aud, y = clips
    groups = np.repeat(np.arange(10), 4)
    table, labels, speakers = unpair(make_table(visual=X_vis, audio=X_aud), y, groups)
    samples = table_samples(table)
    _, encoded = np.unique(labels, return_inverse=True)
    train, valid = hold_out(samples, "audio", encoded, speakers, 0.2, np.random.RandomState(0))
    held = set(speakers[valid.rows])
    assert len(held) == 2
    for modality in ("visual", "audio"):
        assert not held & set(speakers[train[modality].rows])
    assert len(train["audio"]) == len(train["visual"]) == 32


@pytest.mark.parametrize("early_stopping", [False, True])
def test_groups_of_another_length_are_refused(clips, early_stopping):
    X_vis, X_aud, y = clips
    clf = FDANClassifier(**QUICK, early_stopping=early_stopping)
    with pytest.raises(ValueError, match=f"groups has 3 entries but X has {len(y)} rows"):
        clf.fit(X_vis, X_aud, y, groups=[1, 2, 3])
    assert not hasattr(clf, "classes_")


def test_skorch_callbacks_work(clips):
    stop = EarlyStopping(monitor="train_loss", patience=2, threshold=1e9, threshold_mode="abs")
    clf = FDANClassifier(**{**QUICK, "max_epochs": 50}, callbacks=[stop])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf.fit(*clips)
    assert len(clf.history_) < 50


@pytest.mark.parametrize("kind", [EpochScoring, BatchScoring])
def test_scoring_callbacks_of_skorch_are_refused(clips, kind):
    message = rf"callbacks holds {kind.__name__}, .*on_epoch_end"
    for entry in (kind("accuracy"), ("score", kind("accuracy"))):
        with pytest.raises(ValueError, match=message):
            FDANClassifier(**QUICK, callbacks=[entry]).fit(*clips)


class Predicting(Callback):
    """Predicts after every epoch."""

    def __init__(self, X):
        self.X = X
        self.seen = []

    def on_epoch_end(self, net, **kwargs):
        copied = copy.copy(net)  # as displays do
        self.seen.append(net.predict_proba(self.X))
        np.testing.assert_array_equal(copied.predict_proba(self.X), self.seen[-1])


@pytest.mark.parametrize("call", ["fit", "partial_fit"])
def test_callbacks_predict_as_the_fitted_network_does(clips, call):
    X_vis, X_aud, y = clips
    table = make_table(visual=X_vis, audio=X_aud)
    parameters = {**QUICK, "max_epochs": 3}
    plain = FDANClassifier(**parameters)
    watched = FDANClassifier(**parameters, callbacks=[Predicting(X_aud)])
    for _ in range(2 if call == "partial_fit" else 1):
        getattr(plain, call)(table, y)
        getattr(watched, call)(table, y)
    seen = watched.callbacks[0].seen
    after = watched.predict_proba(X_aud)
    np.testing.assert_array_equal(seen[-1], after)
    assert not np.array_equal(seen[-2], after)
    # Predictions in between change nothing.
    np.testing.assert_array_equal(plain.predict_proba(X_aud), after)
    bypass = watched.set_params(inference="bypass").predict_proba(X_aud)
    assert not np.array_equal(bypass, after)


def test_a_network_without_its_bank_says_so(clips):
    class Keeping(Callback):
        def on_epoch_end(self, net, **kwargs):
            self.kept = copy.deepcopy(net)

    keeping = Keeping()
    FDANClassifier(**{**QUICK, "max_epochs": 1}, callbacks=[keeping]).fit(*clips)
    with pytest.warns(UserWarning, match='as with inference="bypass".*before its bank was made'):
        keeping.kept.predict(clips[1])


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


@pytest.mark.slow
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


def test_checkpoints_of_skorch(clips, tmp_path):
    best = Checkpoint(
        monitor=lambda net: len(net.history_) == 2,
        load_best=True,
        dirname=tmp_path,
        f_params="epoch{last_epoch[epoch]}_{last_batch[train_batch_size]}.pt",
    )
    end = TrainEndCheckpoint(dirname=tmp_path)
    settings = {**QUICK, "max_epochs": 3, "batch_size": 20, "lr_schedule": "constant"}
    clf = FDANClassifier(**settings, callbacks=[("end", end), ("best", best)]).fit(*clips)
    assert clf.device == "auto"
    assert [p.name for p in tmp_path.glob("epoch*")] == ["epoch2_20.pt"]
    second = FDANClassifier(**{**settings, "max_epochs": 2}).fit(*clips)
    for name, value in second.module_.state_dict().items():
        torch.testing.assert_close(clf.module_.state_dict()[name], value)
    last = clone(clf).set_params(callbacks=None).fit(*clips)
    clf.load_params(f_params=tmp_path / "train_end_params.pt")
    for name, value in last.module_.state_dict().items():
        assert torch.equal(clf.module_.state_dict()[name], value)
    with pytest.raises(NotFittedError):
        FDANClassifier().load_params(f_params=tmp_path / "train_end_params.pt")


def weights_of(clf):
    return {name: w.clone() for name, w in clf.module_.state_dict().items()}


def test_early_stopping_returns_the_network_of_the_best_epoch(clips, monkeypatch):
    X_vis, X_aud, y = clips
    scores, weights = iter([0.2, 0.6, 0.5, 0.4, 0.3]), []

    def told(self, samples, labels):
        weights.append(weights_of(self))
        return next(scores)

    monkeypatch.setattr(FDANClassifier, "_validation_uar", told)
    clf = FDANClassifier(**QUICK, early_stopping=True, validation_fraction=0.3, n_iter_no_change=3)
    clf.fit(X_vis, X_aud, y)
    assert len(weights) == 5
    assert not torch.equal(weights[1]["classifier.weight"], weights[4]["classifier.weight"])
    torch.testing.assert_close(weights_of(clf), weights[1], rtol=0, atol=0)


def test_optimizer_params_come_before_the_parameters_of_the_classifier(clips):
    given = {"momentum": 0.3, "weight_decay": 0.2, "fused": False}
    clf = FDANClassifier(**{**QUICK, "max_epochs": 1}, weight_decay=0.01, optimizer_params=given)
    (group,) = clf.fit(*clips).optimizer_.param_groups
    assert {name: group[name] for name in given} == given
