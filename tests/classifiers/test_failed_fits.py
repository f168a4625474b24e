"""What is left of a classifier whose fit has failed."""

import gc
import weakref

import numpy as np
import pytest
from PIL import Image
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback

import skfdan.classifiers._embedding as embedding
from classifiers.small_clips import QUICK
from skfdan import FDANClassifier, make_table
from skfdan.classifiers import SDTClassifier, TFMixClassifier
from skfdan.preprocessing import FaceFrames
from skfdan.preprocessing.media import MediaError

SMALL = QUICK | {"max_epochs": 3, "verbose": 0}


class Stop(Callback):
    """Raises at a given point."""

    def __init__(self, error, epoch, where):
        self.error, self.epoch, self.where = error, epoch, where

    def _stop(self, net, where):
        if (len(net.history_), where) == (self.epoch, self.where):
            raise self.error

    def on_batch_end(self, net, **kwargs):
        self._stop(net, "batch")

    def on_epoch_end(self, net, **kwargs):
        self._stop(net, "epoch")


def same(clf, X, expected):
    np.testing.assert_array_equal(clf.predict_proba(X), expected)


def refuse(clf, X):
    with pytest.raises(NotFittedError):
        clf.predict(X)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"momentum": 0.0, "optimizer_params": {"nesterov": True}}, "Nesterov"),
        ({"class_weight": {"surprise": 2.0}}, "class_weight names 'surprise'"),
        ({"class_weight": dict.fromkeys(["anger", "fear", "joy", "sadness"], 0)}, "the weight 0"),
        ({"bottleneck": 30, "n_heads": 4}, "30"),
    ],
)
@pytest.mark.parametrize("labels", ["same", "other"])
def test_a_network_that_cannot_be_built_leaves_the_old_one(clips, parameters, message, labels):
    X_vis, X_aud, y = clips
    if labels == "other" and "class_weight" not in parameters:
        y = np.char.add(y, "!")
    clf = FDANClassifier(**SMALL).fit(*clips)
    expected, state = clf.predict_proba(X_aud), set(vars(clf))
    with pytest.raises(ValueError, match=message):
        clf.set_params(**parameters).fit(X_vis, X_aud, y)
    assert set(vars(clf)) == state
    same(clf, X_aud, expected)
    clf.set_params(**{name: SMALL.get(name) for name in parameters if name != "n_heads"}, n_heads=1)
    clf.partial_fit(X_vis, X_aud, y_true=clips[2])
    fresh = FDANClassifier(**SMALL | parameters)
    for call in (fresh.fit, lambda *given: fresh.partial_fit(*given[:2], y_true=given[2])):
        with pytest.raises(ValueError, match=message):
            call(X_vis, X_aud, y)
        refuse(fresh, X_aud)


@pytest.mark.parametrize(
    ("error", "epoch", "where", "usable"),
    [
        (RuntimeError("no"), 1, "batch", False),
        (RuntimeError("no"), 2, "batch", False),
        (RuntimeError("no"), 3, "epoch", False),
        (KeyboardInterrupt("^C"), 1, "batch", False),
        (KeyboardInterrupt("^C"), 2, "batch", True),
    ],
)
def test_a_training_that_fails_leaves_no_network(clips, error, epoch, where, usable):
    X_aud, y = clips[1:]
    for kind in (FDANClassifier, SDTClassifier):
        params = SMALL if kind is FDANClassifier else {"hidden": 8, "max_epochs": 3, "verbose": 0}
        X = X_aud if kind is FDANClassifier else X_aud[:, :, 0]
        for clf in (kind(**params), kind(**params).fit(X, y)):
            with pytest.raises(type(error)):
                clf.set_params(callbacks=[Stop(error, epoch, where)]).fit(X, y)
            if usable:
                assert clf.predict(X).shape == (40,)
            else:
                refuse(clf, X)
            clf.set_params(callbacks=None).fit(X, y).predict(X)


def test_a_first_partial_fit_that_fails_leaves_no_network(clips):
    X_aud, y = clips[1:]
    clf = FDANClassifier(**SMALL, callbacks=[Stop(RuntimeError("no"), 1, "batch")])
    with pytest.raises(RuntimeError):
        clf.partial_fit(X_aud, y)
    refuse(clf, X_aud)
    # Nor do its classes bind.
    clf.set_params(callbacks=None).partial_fit(X_aud, np.char.add(y, "!"))
    assert clf.classes_[0] == "anger!"
    # One that comes later goes on from something.
    clf.set_params(callbacks=[Stop(RuntimeError("no"), 2, "batch")])
    clf._initialize_callbacks()
    with pytest.raises(RuntimeError):
        clf.partial_fit(X_aud, np.char.add(y, "!"))
    assert clf.predict(X_aud).shape == (40,)


def test_an_interrupt_while_embedding_leaves_no_network(clips, monkeypatch):
    X_aud, y = clips[1:]
    clf = FDANClassifier(**SMALL, backbone_trainable=False).fit(X_aud, y)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embedding, "embed_distinct", interrupt)
        with pytest.raises(KeyboardInterrupt):
            clf.fit(X_aud, y)
    refuse(clf, X_aud)


@pytest.mark.parametrize("trainable", [True, False])
def test_a_broken_file_in_a_second_fit_leaves_no_network(tmp_path, trainable):
    rng = np.random.default_rng(0)
    paths = [str(tmp_path / f"{i}.png") for i in range(8)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(path)
    clf = FDANClassifier(
        **SMALL,
        predict_modality="visual",
        visual_transformer=FaceFrames(detector=None, size=16),
        backbone_trainable=trainable,
        batch_size=4,
    )
    table, y = make_table(visual=paths), np.array(["anger", "joy"] * 4)
    clf.fit(table, y)
    (tmp_path / "5.png").write_bytes(b"none")
    with pytest.raises(MediaError, match="row 5"):
        clf.fit(table, y)
    refuse(clf, table[:2])


def test_the_old_network_is_gone_when_the_training_begins(clips):
    X_aud, y = clips[1:]

    class Watch(Callback):
        def on_epoch_begin(self, net, **kwargs):
            gc.collect()
            self.alive = old()

    watch = Watch()
    clf = FDANClassifier(**SMALL).fit(X_aud, y)
    old = weakref.ref(clf.module_)
    clf.set_params(callbacks=[watch]).fit(X_aud, y)
    assert watch.alive is None


def test_an_ensemble_interrupted_early_is_no_fit(clips):
    X_aud, y = clips[1:]
    clf = TFMixClassifier(max_epochs=2, callbacks=[Stop(KeyboardInterrupt("^C"), 1, "batch")])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X_aud, y)
    refuse(clf, X_aud)


def test_partial_fit_refuses_early_stopping(clips, fitted):
    X_aud, y = clips[1:]
    clf = FDANClassifier(**SMALL, early_stopping=True)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        clf.partial_fit(X_aud, y)
    clf.fit(X_aud, y)
    expected = clf.predict_proba(X_aud)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        clf.partial_fit(X_aud, y)
    same(clf, X_aud, expected)
    clf.set_params(early_stopping=False).partial_fit(X_aud, y)
