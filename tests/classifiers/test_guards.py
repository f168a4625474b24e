"""Numbers that are none, memory that is short, and results that depend on nothing else."""

import os
import pickle
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed, parallel_config
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_predict
from skorch.callbacks import Callback

from classifiers.small_clips import QUICK, make_clips
from skfdan import FDANClassifier, make_table
from skfdan.classifiers import MISAClassifier, TorchvisionClassifier
from skfdan.preprocessing._embedding_store import STORE

SMALL = QUICK | {"max_epochs": 2}


def test_a_diverged_fit_names_epoch_batch_and_rows_and_is_no_fit():
    X_vis, X_aud, y = make_clips(12)
    clf = FDANClassifier(**SMALL | {"lr": 1e30, "batch_size": 4, "lr_schedule": "constant"})
    with pytest.raises(
        ValueError,
        match=r"(?s)the loss is (nan|inf) in epoch \d+, batch \d+ .*"
        r"the audio cells of rows \d+, \d+, \d+, \d+ and the visual cells of rows \d+, \d+, ",
    ):
        clf.fit(X_vis, X_aud, y)
    with pytest.raises(NotFittedError):
        clf.predict(X_aud)


def test_a_last_step_that_ruins_the_weights_is_noticed():
    X_vis, X_aud, y = make_clips(12)
    clf = FDANClassifier(**SMALL | {"lr": 1e39, "max_epochs": 1, "batch_size": 32})
    with pytest.raises(ValueError, match=r"after epoch 1 the weights \S+ hold NaN or infinite"):
        clf.fit(X_vis, X_aud, y)
    assert not hasattr(clf, "module_")


def test_a_failed_refit_does_not_leave_the_old_network():
    X_vis, X_aud, y = make_clips(12)
    clf = FDANClassifier(**SMALL).fit(X_vis, X_aud, y)
    with pytest.raises(ValueError, match="diverged"):
        clf.set_params(lr=1e30, max_epochs=9, lr_schedule="constant").fit(X_vis, X_aud, y)
    with pytest.raises(NotFittedError):
        clf.predict(X_aud)


def test_a_network_that_gives_nan_is_not_believed():
    X_vis, X_aud, y = make_clips(12)
    clf = FDANClassifier(**SMALL).fit(X_vis, X_aud, y)
    with torch.no_grad():
        clf.module_.classifier.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"gives NaN for row 0 \(3 of 3 rows\)"):
        clf.predict(X_aud[:3])


@pytest.mark.parametrize("modality", ["audio", "fused"])
@pytest.mark.parametrize(
    "clf",
    [
        FDANClassifier(**SMALL, inference="bypass"),
        TorchvisionClassifier(
            arch="cnn", predict_modality="fused", weights=None, max_epochs=2, verbose=0
        ),
    ],
    ids=lambda clf: type(clf).__name__,
)
def test_nan_of_one_modality_is_not_made_up_for_by_another(clf, modality):
    rng = np.random.default_rng(0)
    X = make_table(
        visual=list(rng.normal(size=(12, 3)).astype("f")),
        audio=list(rng.normal(size=(12, 4)).astype("f")),
    )
    clf = clone(clf).fit(X, np.arange(12) % 2).set_params(predict_modality=modality)
    X.at[4, "audio"] = np.full(4, 3e38, "f")
    with pytest.raises(ValueError, match=r"network gives NaN for row 4 \(1 of 12 rows\)"):
        clf.predict(X)
    X.at[4, "audio"] = None
    assert np.isfinite(clf.set_params(predict_modality="fused").predict_proba(X)).all()


def test_predictions_in_several_threads_leave_the_network_alone():
    X_vis, X_aud, y = make_clips(12)
    clf = FDANClassifier(**SMALL).fit(X_vis, X_aud, y)
    expected = clf.predict_proba(X_aud)
    state = pickle.dumps(clf.module_.state_dict())
    entered, both, done = [], threading.Event(), threading.Event()
    started = threading.Event()

    def overlap(module, inputs):
        entered.append(None)
        started.set()
        if len(entered) == 1:
            both.wait(0.5)  # for a second thread within, in vain
        else:
            both.set()
            done.wait(60)  # who came later leaves later

    def first():
        try:
            return clf.predict_proba(X_aud)
        finally:
            done.set()

    hook = clf.module_.register_forward_pre_hook(overlap)
    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(first)]
        assert started.wait(60)
        results.append(pool.submit(clf.predict_proba, X_aud))
    hook.remove()
    assert len(entered) == 2
    for result in results:
        np.testing.assert_array_equal(result.result(), expected)
    assert pickle.dumps(clf.module_.state_dict()) == state
    assert all(isinstance(p, torch.nn.Parameter) for p in clf.module_.parameters())
    clf.partial_fit(make_table(visual=X_vis, audio=X_aud), y)


def test_permutation_importance_in_threads():
    X_vis, X_aud, y = make_clips(20)
    table = make_table(visual=X_vis, audio=X_aud)
    clf = FDANClassifier(**SMALL, predict_modality="fused").fit(table, y)
    plain = permutation_importance(clf, table, y, n_repeats=4, random_state=0)
    with parallel_config("threading"):
        threads = permutation_importance(clf, table, y, n_repeats=4, random_state=0, n_jobs=4)
    np.testing.assert_array_equal(threads.importances, plain.importances)


@pytest.mark.parametrize("kind", [FDANClassifier, MISAClassifier])
@pytest.mark.parametrize("frozen", [False, True])
def test_an_input_size_of_the_next_fit_changes_no_prediction(kind, frozen):
    X_vis, X_aud, y = make_clips(12)
    table = make_table(visual=X_vis, audio=[x[:, : 8 + i % 4] for i, x in enumerate(X_aud)])
    params = {k: v for k, v in SMALL.items() if k in kind().get_params()}
    clf = kind(**params, backbone_trainable=not frozen).fit(table, y)
    expected = clf.predict_proba(table)
    STORE.clear()
    clf.set_params(input_size=8)
    np.testing.assert_array_equal(clf.predict_proba(table), expected)
    np.testing.assert_allclose(clf.predict_proba(table[:1]), expected[:1], atol=1e-9)


@pytest.mark.parametrize("kind", [FDANClassifier, MISAClassifier])
def test_memory_that_is_short_halves_the_batch(kind, monkeypatch):
    X_vis, X_aud, y = make_clips(20)
    table = make_table(visual=X_vis, audio=X_aud)
    params = {k: v for k, v in SMALL.items() if k in kind().get_params()}
    clf = kind(**params).fit(table, y)
    expected = clf.predict_proba(table)
    sizes = []
    forward = type(clf.module_).forward

    def short(self, visual=None, audio=None, **kwargs):
        n = len(audio if audio is not None else visual)
        sizes.append(n)
        if n > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, visual=visual, audio=audio, **kwargs)

    monkeypatch.setattr(type(clf.module_), "forward", short)
    np.testing.assert_allclose(clf.predict_proba(table), expected, rtol=1e-6)
    assert sizes[:4] == [20, 10, 5, 2]
    assert sum(n for n in sizes if n <= 3) == 20

    def none_left(self, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(clf.module_), "forward", none_left)
    with pytest.raises(torch.OutOfMemoryError):
        clf.predict_proba(table)


@pytest.mark.parametrize("backbone", ["cnn", "resnet18"])
def test_a_prediction_does_not_depend_on_the_batch_size(backbone):
    X_vis, X_aud, y = make_clips(24)
    params = SMALL | {"backbone": backbone, "input_size": 32, "max_epochs": 1}
    clf = FDANClassifier(**params).fit(X_vis, X_aud, y)
    expected = clf.predict_proba(X_aud)
    for size in (1, 5, 24, 1000):
        proba = clf.set_params(batch_size=size).predict_proba(X_aud)
        np.testing.assert_allclose(proba, expected, rtol=1e-13, atol=1e-15)
        np.testing.assert_array_equal(proba.argmax(1), expected.argmax(1))


@pytest.mark.slow
def test_a_seed_gives_the_same_results_again_and_in_other_processes():
    X_vis, X_aud, y = make_clips(24)
    table = make_table(visual=X_vis, audio=X_aud)
    clf = FDANClassifier(**SMALL | {"dropout": 0.2})
    first = clf.fit(table, y).predict_proba(table)
    np.testing.assert_array_equal(clf.fit(table, y).predict_proba(table), first)

    def fit(seed):
        np.random.seed(seed)  # noqa: NPY002 - another state of the global generator
        torch.manual_seed(seed)
        return clf.fit(table, y).predict_proba(table)

    for proba in Parallel(n_jobs=2)(delayed(fit)(seed) for seed in (1, 2)):
        np.testing.assert_array_equal(proba, first)


@pytest.mark.slow
def test_a_search_does_not_depend_on_the_number_of_processes():
    X_vis, X_aud, y = make_clips(24)
    table = make_table(visual=X_vis, audio=X_aud)
    clf = FDANClassifier(**SMALL)
    found = [
        GridSearchCV(clf, {"alpha": [0.0, 0.1]}, cv=2, n_jobs=n_jobs).fit(table, y)
        for n_jobs in (1, 2)
    ]
    one, two = (s.cv_results_["mean_test_score"] for s in found)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(found[0].predict_proba(table), found[1].predict_proba(table))
    predicted = [cross_val_predict(clf, table, y, cv=2, n_jobs=n) for n in (1, 2)]
    np.testing.assert_array_equal(*predicted)


def test_a_modality_of_one_sample_trains():
    X_vis, X_aud, y = make_clips(6)
    table = make_table(visual=[X_vis[0], *[None] * 5], audio=X_aud)
    clf = FDANClassifier(**SMALL).fit(table, y)
    assert np.isfinite(clf.predict_proba(table)).all()


def test_values_beyond_float32_are_refused_by_row():
    X_vis, X_aud, y = make_clips(6)
    X_aud = X_aud.astype(np.float64)
    X_aud[2, 3, 4] = 1e60
    with pytest.raises(ValueError, match="audio cell of row 2 holds NaN or infinite"):
        FDANClassifier(**SMALL).fit(make_table(visual=X_vis, audio=list(X_aud)), y)


class _AtTheEnd(Callback):
    """Ends the second epoch as a callback does, or as the user does."""

    only_watches = True  # in the test of a checkpoint: the user acts, not the callback

    def __init__(self, act):
        self.act = act

    def on_epoch_end(self, net, **kwargs):
        if len(net.history_) == 2:
            self.act()


def _stop():
    raise KeyboardInterrupt


def _press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)


@pytest.fixture
def interruptible():
    # Started in the background of a shell script, a session ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_user_who_interrupts_a_callback_is_no_early_stopping(tmp_path):
    X_vis, X_aud, y = make_clips(12)
    params = SMALL | {"max_epochs": 4, "checkpoint_dir": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        FDANClassifier(**params, callbacks=[_AtTheEnd(_press_ctrl_c)]).fit(X_vis, X_aud, y)
    clf = FDANClassifier(**params).fit(X_vis, X_aud, y)
    assert len(clf.history_) == 4
    clf = FDANClassifier(**SMALL | {"max_epochs": 4}, callbacks=[_AtTheEnd(_stop)])
    assert len(clf.fit(X_vis, X_aud, y).history_) == 2
