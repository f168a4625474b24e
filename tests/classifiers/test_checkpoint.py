"""A fit that was interrupted goes on, and ends as if nothing had happened."""

import errno
import functools
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchvision
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import (
    Callback,
    EarlyStopping,
    EpochTimer,
    Freezer,
    LRScheduler,
    PrintLog,
)

from classifiers.small_clips import make_clips
from skfdan import FDANClassifier, make_table
from skfdan.classifiers import (
    GMTCNetClassifier,
    MISAClassifier,
    TFMixClassifier,
    TorchvisionClassifier,
    _checkpoint,
)
from skfdan.preprocessing import MelSpectrogram
from skfdan.table import as_cells
from skfdan.utils.archive import read_archive, write_archive

FILE = "checkpoint.safetensors"


class Interrupted(Exception):
    pass


class Watch(Callback):
    """Count epochs and steps; raise in the step ``at`` of the epoch ``epoch``, from 1."""

    only_watches = True  # so a fit that it has interrupted goes on without it

    def __init__(self, epoch=None, at=1, error=Interrupted):
        self.epoch = epoch
        self.at = at
        self.error = error
        self.epochs = 0

    def on_epoch_begin(self, net, **kwargs):
        self.epochs += 1
        self.steps = 0

    def on_batch_end(self, net, **kwargs):
        self.steps += 1
        if len(net.history_) == self.epoch and self.steps == self.at:
            raise self.error


def everything(clf):
    """Return all that a fit leaves behind, tensors as bytes."""

    def plain(value):
        if torch.is_tensor(value):
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray):
            return (value.dtype.str, value.shape, value.tobytes())
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return value

    found = {
        "module": clf.module_.state_dict(),
        "criterion": {} if clf.criterion_ is None else clf.criterion_.state_dict(),
        "optimizer": clf.optimizer_.state_dict(),
        "history": [{k: v for k, v in row.items() if k != "dur"} for row in clf.history_.to_list()],
    }
    for name in ("reference_bank_", "class_count_", "weights_", "validation_uar_"):
        found[name] = getattr(clf, name, None)
    found["classes"] = clf.classes_.tolist()
    found["validation_rows"] = getattr(clf, "validation_rows_", None)
    return plain(found)


def assert_same_fit(clf, expected, *inputs):
    a, b = everything(clf), everything(expected)
    for key in b:
        assert a[key] == b[key], key
    for X in inputs:
        assert clf.predict_log_proba(X).tobytes() == expected.predict_log_proba(X).tobytes()
        assert clf.transform(X).tobytes() == expected.transform(X).tobytes()


SHARED = {"max_epochs": 5, "batch_size": 8, "verbose": 0, "random_state": 3, "device": "cpu"}
FDAN = SHARED | {
    "backbone": "cnn",
    "weights": None,
    "input_size": 8,
    "bottleneck": 8,
    "lr": 0.01,
    "momentum": 0.9,
}
SEQUENCES = SHARED | {"lr": 0.01}


def _fdan(**parameters):
    return FDANClassifier(**FDAN | parameters)


def _table(n=20, sequences=False, seed=0):
    """Rows of which some lack a modality, with labels and speakers."""
    X_vis, X_aud, y = make_clips(n, seed)
    if sequences:
        return X_aud, y, np.arange(n) // 4
    visual, audio = as_cells(X_vis), as_cells(X_aud)
    visual[3], audio[6] = None, None
    return make_table(visual=visual, audio=audio), y, np.arange(n) // 4


CASES = {
    "lmmd": (lambda: _fdan(), {}),
    "dropout": (lambda: _fdan(dropout=0.5), {"slow": True}),
    "daan": (lambda: _fdan(adaptation="daan", dropout=0.2), {}),
    "dann": (lambda: _fdan(adaptation="dann", ramp="dsan"), {"slow": True}),
    "dsan": (lambda: _fdan(adaptation="dsan", ramp="dsan"), {"unlabelled": True}),
    "mmd": (lambda: _fdan(adaptation="mmd"), {"slow": True}),
    "coral": (lambda: _fdan(adaptation="coral"), {"slow": True}),
    "cmd": (lambda: _fdan(adaptation="cmd"), {"slow": True}),
    "no adaptation": (lambda: _fdan(adaptation=None), {"slow": True}),
    "shared": (
        lambda: _fdan(shared_backbone=True, shared_bottleneck=True, n_layers=2),
        {"slow": True},
    ),
    "official": (lambda: _fdan(variant="official"), {}),
    "constant rate": (lambda: _fdan(lr_schedule="constant"), {"slow": True}),
    "no momentum": (lambda: _fdan(momentum=0.0), {"slow": True}),
    "nesterov": (lambda: _fdan(optimizer_params={"nesterov": True}), {"slow": True}),
    "adam": (
        lambda: _fdan(optimizer=torch.optim.Adam, optimizer_params={"amsgrad": True}, lr=1e-3),
        {},
    ),
    "rmsprop": (lambda: _fdan(optimizer=torch.optim.RMSprop, lr=1e-3), {"slow": True}),
    "early stopping": (
        lambda: _fdan(early_stopping=True, n_iter_no_change=3, validation_fraction=0.3, lr=0.003),
        {"groups": True},
    ),
    "frozen": (lambda: _fdan(class_weight="balanced", backbone_trainable=False), {}),
    "partly frozen": (
        lambda: _fdan(
            backbone_trainable="block3", early_stopping=True, validation_fraction=0.3, lr=0.003
        ),
        {"groups": True},
    ),
    "torchvision": (
        lambda: TorchvisionClassifier(
            arch="cnn", weights=None, input_size=8, predict_modality="fused", **SEQUENCES
        ),
        {},
    ),
    "gmtcnet": (lambda: GMTCNetClassifier(n_filters=4, n_blocks=2, **SEQUENCES), {"seq": True}),
    "gmtcnet early stopping": (
        lambda: GMTCNetClassifier(
            n_filters=4,
            n_blocks=2,
            early_stopping=True,
            validation_fraction=0.3,
            **SEQUENCES,
        ),
        {"seq": True, "groups": True, "slow": True},
    ),
    "tfmix": (
        lambda: TFMixClassifier(channels=8, lstm_hidden=4, validation_fraction=0.4, **SEQUENCES),
        {"seq": True},
    ),
    "tfmix early stopping": (
        lambda: TFMixClassifier(
            channels=8, lstm_hidden=4, validation_fraction=0.4, early_stopping=True, **SEQUENCES
        ),
        {"seq": True, "groups": True, "slow": True},
    ),
    "misa": (
        lambda: MISAClassifier(
            backbone="cnn", weights=None, input_size=8, hidden=8, ffn_dim=16, **SEQUENCES
        ),
        {},
    ),
    "misa early stopping": (
        lambda: MISAClassifier(
            backbone="cnn",
            weights=None,
            input_size=8,
            hidden=8,
            ffn_dim=16,
            modality_dropout=0.5,
            early_stopping=True,
            validation_fraction=0.3,
            **SEQUENCES,
        ),
        {"groups": True},
    ),
}


def _data(options):
    X, y, groups = _table(sequences=options.get("seq", False))
    if options.get("unlabelled"):
        y = y.astype(object)
        y[[1, 7, 8]] = None
    return (X, y), {"groups": groups} if options.get("groups") else {}


@pytest.mark.filterwarnings("ignore:The features have collapsed")
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            name, marks=(pytest.mark.slow, pytest.mark.long) if options.get("slow") else ()
        )
        for name, (_, options) in CASES.items()
    ],
)
def test_an_interrupted_fit_ends_as_an_uninterrupted_one(case, tmp_path):
    make, options = CASES[case]
    arguments, keywords = _data(options)
    inputs = [arguments[0]]
    if isinstance(make(), FDANClassifier):
        inputs = [arguments[0][arguments[0]["audio"].notna()]]
    elif isinstance(make(), TorchvisionClassifier):
        inputs = [make_table(audio=make_clips(5)[1])]
    expected = make().fit(*arguments, **keywords)
    fitted = everything(expected)
    for X in inputs:
        expected.predict(X)
    assert everything(expected) == fitted  # prediction changes nothing

    here = Watch()
    whole = make().set_params(checkpoint_dir=tmp_path / "whole", callbacks=[here])
    assert_same_fit(whole.fit(*arguments, **keywords), expected, *inputs)
    n_epochs = here.epochs

    folder = tmp_path / "interrupted"
    epochs = 0
    # Once within the first epoch, once at the start of the third, once in the midst of the next.
    for epoch, step, error in [(1, 2, Interrupted), (3, 1, KeyboardInterrupt), (4, 2, Interrupted)]:
        watch = Watch(epoch, step, error)
        clf = make().set_params(checkpoint_dir=str(folder), callbacks=[watch])
        with pytest.raises(error):
            clf.fit(*arguments, **keywords)
        epochs += watch.epochs - 1  # the interrupted one comes again
    watch = Watch()
    clf = make().set_params(checkpoint_dir=folder, callbacks=[watch])
    assert clf.fit(*arguments, **keywords) is clf
    assert epochs + watch.epochs == n_epochs
    assert_same_fit(clf, expected, *inputs)

    again = Watch()
    complete = make().set_params(checkpoint_dir=folder, callbacks=[again])
    assert_same_fit(complete.fit(*arguments, **keywords), expected, *inputs)
    assert again.epochs == 0


def test_every_epoch_may_be_the_last(tmp_path):
    """Interrupted in every epoch, one after the other, by the same object."""
    (X, y), _ = _data({})
    expected = _fdan(adaptation="daan").fit(X, y)
    clf = _fdan(adaptation="daan", checkpoint_dir=tmp_path)
    for epoch in range(1, 6):
        clf.set_params(callbacks=[Watch(epoch)])
        with pytest.raises(Interrupted):
            clf.fit(X, y)
        assert len(clf.history_) == epoch
    assert_same_fit(clf.set_params(callbacks=None).fit(X, y), expected)


def test_early_stopping_that_stops_stays_stopped(tmp_path):
    arguments, keywords = _data({"groups": True})
    parameters = {
        "early_stopping": True,
        "n_iter_no_change": 3,
        "validation_fraction": 0.3,
        "max_epochs": 40,
        "lr": 1e-3,
    }
    expected = _fdan(**parameters).fit(*arguments, **keywords)
    n_epochs = len(expected.history_)
    assert 2 < n_epochs < 40
    clf = _fdan(**parameters, checkpoint_dir=tmp_path, callbacks=[Watch(n_epochs)])
    with pytest.raises(Interrupted):
        clf.fit(*arguments, **keywords)
    for epochs in (1, 0, 0):
        watch = Watch()
        clf = _fdan(**parameters, checkpoint_dir=tmp_path, callbacks=[watch])
        assert_same_fit(clf.fit(*arguments, **keywords), expected)
        assert watch.epochs == epochs


def test_early_stopping_of_skorch_stays_stopped(tmp_path):
    (X, y), _ = _data({})
    epochs = []
    for _ in range(2):
        watch = Watch()
        stop = EarlyStopping("train_loss", patience=2, threshold=10.0, threshold_mode="abs")
        stop.sink = lambda *_: None
        clf = _fdan(max_epochs=10, checkpoint_dir=tmp_path, callbacks=[watch, stop]).fit(X, y)
        epochs.append(watch.epochs)
        assert len(clf.history_) == epochs[0] < 10
    assert epochs[1] == 0


@pytest.mark.parametrize("random_state", [None, "instance"])
def test_seeds_that_are_no_numbers(random_state, tmp_path):
    """What the interrupted fit drew is drawn again, whatever the generator does meanwhile."""
    (X, y), _ = _data({})

    def seed(value):
        if random_state is None:
            np.random.seed(value)  # noqa: NPY002 - what random_state=None draws from
            return None
        return np.random.RandomState(value)

    X_audio = X[X["audio"].notna()]
    expected = _fdan(random_state=seed(7), dropout=0.3).fit(X, y)
    other = _fdan(random_state=seed(8), dropout=0.3).fit(X, y)
    assert (other.predict_proba(X_audio) != expected.predict_proba(X_audio)).any()
    clf = _fdan(random_state=seed(7), dropout=0.3, checkpoint_dir=tmp_path, callbacks=[Watch(3)])
    with pytest.raises(Interrupted):
        clf.fit(X, y)
    # A generator of another state would be of another fit; of None, nobody knows.
    same = seed(8 if random_state is None else 7)
    clf = _fdan(random_state=same, dropout=0.3, checkpoint_dir=tmp_path).fit(X, y)
    assert_same_fit(clf, expected, X_audio)


def test_generators_are_told_apart_by_their_state(tmp_path):
    (X, y), _ = _data({})

    def fit(seed, folder):
        random_state = np.random.RandomState(seed)
        return _fdan(max_epochs=1, random_state=random_state, checkpoint_dir=folder).fit(X, y)

    for seed in (0, 1, 0):
        assert_same_fit(fit(seed, tmp_path / "{fit}"), fit(seed, None))
    assert len(list(tmp_path.iterdir())) == 2
    fit(0, tmp_path / "one")
    with pytest.raises(ValueError, match=r"random_state was RandomState \(.*\), now RandomState"):
        fit(1, tmp_path / "one")


def test_a_complete_fit_without_a_seed_is_returned_with_a_warning(tmp_path):
    (X, y), _ = _data({})
    params = {"max_epochs": 2, "random_state": None, "checkpoint_dir": tmp_path / "{fit}"}
    with pytest.raises(Interrupted):
        _fdan(callbacks=[Watch(2)], **params).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = _fdan(**params).fit(X, y)
    with pytest.warns(UserWarning, match="holds this fit, and it is returned: with random_state"):
        assert_same_fit(_fdan(**params).fit(X, y), first)


def test_torch_and_numpy_go_on_as_if_nothing_had_been_fitted(tmp_path):
    (X, y), _ = _data({})
    clf = _fdan(checkpoint_dir=tmp_path, callbacks=[Watch(3)])
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    with pytest.raises(Interrupted):
        clf.fit(X, y)
    _fdan(checkpoint_dir=tmp_path).fit(X, y)
    drawn = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    assert torch.equal(drawn[0], torch.rand(3))
    np.testing.assert_array_equal(drawn[1], np.random.rand(3))  # noqa: NPY002


def test_partial_fit_goes_on_after_a_resumed_fit(tmp_path):
    (X, y), _ = _data({})
    expected = _fdan().fit(X, y).partial_fit(X, y)
    with pytest.raises(Interrupted):
        _fdan(checkpoint_dir=tmp_path, callbacks=[Watch(3)]).fit(X, y)
    clf = _fdan(checkpoint_dir=tmp_path).fit(X, y)
    before = (tmp_path / FILE).read_bytes()
    assert_same_fit(clf.partial_fit(X, y), expected)
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize("form", ["two arrays", "unpaired", "matrix"])
def test_other_forms_of_input(form, tmp_path):
    X_vis, X_aud, y = make_clips(16)
    arguments, keywords, parameters = (X_vis, X_aud, y), {}, {}
    if form == "unpaired":
        arguments = (np.concatenate([X_vis] * 2), X_aud)
        keywords = {"y_vis": np.concatenate([y] * 2), "y_aud": y}
    if form == "matrix":
        flat = np.concatenate([X_vis.reshape(16, -1)[:, ::64], X_aud.reshape(16, -1)], axis=1)
        arguments = (flat, y)
        parameters = {"visual": slice(0, 12), "audio": slice(12, None), "lr": 1e-4}
    expected = _fdan(**parameters).fit(*arguments, **keywords)
    with pytest.raises(Interrupted):
        _fdan(**parameters, checkpoint_dir=tmp_path, callbacks=[Watch(3)]).fit(
            *arguments, **keywords
        )
    clf = _fdan(**parameters, checkpoint_dir=tmp_path).fit(*arguments, **keywords)
    assert_same_fit(clf, expected, arguments[0] if form == "matrix" else X_aud)


def test_what_other_callbacks_record_is_kept(tmp_path):
    (X, y), _ = _data({})

    class Note(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history_.record("float32", np.float32(0.1))
            net.history_.record("int64", np.int64(len(net.history_)))
            net.history_.record("tensor", torch.tensor(0.5))
            net.history_.record("nan", float("nan"))

    with pytest.raises(Interrupted):
        _fdan(checkpoint_dir=tmp_path, callbacks=[Note(), Watch(3)]).fit(X, y)
    clf = _fdan(checkpoint_dir=tmp_path, callbacks=[Note()]).fit(X, y)
    assert [float(v) for v in clf.history_[:, "float32"]] == [float(np.float32(0.1))] * 5
    assert [int(v) for v in clf.history_[:, "int64"]] == [1, 2, 3, 4, 5]
    assert [float(v) for v in clf.history_[:, "tensor"]] == [0.5] * 5
    assert all(np.isnan(v) for v in clf.history_[:, "nan"])


# ---------------------------------------------------------------------- paths


class StoredFrames(TransformerMixin, BaseEstimator):
    """Read faces from .npy files: several a clip."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return as_cells([np.load(path) for path in X.iloc[:, 0]])[:, None]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A table of paths, one sound file and one file of one to three frames a clip."""
    folder = tmp_path_factory.mktemp("corpus")
    X_vis, _, y = make_clips(16)
    rng = np.random.default_rng(0)
    voices, faces = [], []
    for i, label in enumerate(y):
        t = np.arange(2000) / 8000
        sound = np.sin(2 * np.pi * (300 + 600 * np.flatnonzero(np.unique(y) == label)[0]) * t)
        voices.append(str(folder / f"{i}.wav"))
        soundfile.write(voices[-1], 0.3 * sound + 0.05 * rng.normal(size=len(t)), 8000)
        faces.append(str(folder / f"{i}.npy"))
        np.save(faces[-1], np.stack([np.roll(X_vis[i], k, axis=2) for k in range(1 + i % 3)]))
    visual, audio = as_cells(faces), as_cells(voices)
    visual[2], audio[5] = None, None
    return make_table(visual=visual, audio=audio), y


def _reading(make, **parameters):
    mel = MelSpectrogram(
        sample_rate=8000,
        n_fft=256,
        hop_length=128,
        n_mels=16,
        duration=0.25,
        timeout=None,  # no processes of their own for files that are known to be sound
        verbose=0,
    )
    return make().set_params(audio_transformer=mel, visual_transformer=StoredFrames(), **parameters)


def _validation_likelihood(self, samples, y):
    log_proba, _ = self._row_outputs(samples, len(y))
    rows = np.unique(np.concatenate([s.rows for s in samples.values()]))
    return float(log_proba[rows, y[rows]].mean())


PATH_CASES = {
    "fdan": (CASES["dropout"][0], {}),
    "fdan visual": (CASES["lmmd"][0], {"predict_modality": "visual"}),
    "fdan early stopping": (
        CASES["lmmd"][0],
        {"early_stopping": True, "validation_fraction": 0.3, "predict_modality": "visual"},
    ),
    "torchvision": (CASES["torchvision"][0], {}),
    "misa": (CASES["misa"][0], {}),
    "misa early stopping": (
        CASES["misa"][0],
        {"early_stopping": True, "validation_fraction": 0.3, "predict_modality": "visual"},
    ),
}


@pytest.mark.parametrize("case", PATH_CASES)
def test_training_from_files_goes_on(case, corpus, tmp_path, monkeypatch):
    make, parameters = PATH_CASES[case]
    # A UAR of five clips would hide that other frames are validated on.
    monkeypatch.setattr(type(make()), "_validation_uar", _validation_likelihood)
    table, y = corpus
    complete = table[table.notna().all(axis=1)]
    expected = _reading(make, **parameters).fit(table, y)
    for epoch, step in [(2, 1), (3, 2), (5, 1)]:
        clf = _reading(make, **parameters, checkpoint_dir=tmp_path, callbacks=[Watch(epoch, step)])
        with pytest.raises(Interrupted):
            clf.fit(table, y)
    for epochs in (1, 0):
        watch = Watch()
        clf = _reading(make, **parameters, checkpoint_dir=tmp_path, callbacks=[watch])
        assert_same_fit(clf.fit(table, y), expected, complete)
        assert watch.epochs == epochs


def test_a_file_that_has_changed_is_other_data(corpus, tmp_path):
    table, y = corpus
    changed = tmp_path / "changed.wav"
    changed.write_bytes(Path(table["audio"][0]).read_bytes())
    table = table.copy()
    table.loc[0, "audio"] = str(changed)
    clf = _reading(CASES["lmmd"][0], checkpoint_dir=tmp_path / "fit", max_epochs=1)
    clf.fit(table, y)
    samples, rate = soundfile.read(changed)
    soundfile.write(changed, samples[::-1], rate)
    os.utime(changed, (1, 1))
    with pytest.raises(ValueError, match="audio cells"):
        clone(clf).fit(table, y)


def test_how_files_are_read_counts_and_where_results_are_kept_does_not(corpus, tmp_path):
    table, y = corpus
    clf = _reading(CASES["lmmd"][0], checkpoint_dir=tmp_path / "fit", max_epochs=1)
    clf.fit(table, y)
    watch = Watch()
    same = clone(clf).set_params(
        audio_transformer__cache_dir=tmp_path / "cache",
        audio_transformer__n_jobs=2,
        verbose=1,
        callbacks=[watch],
    )
    assert_same_fit(same.fit(table, y), clf)
    assert watch.epochs == 0
    other = clone(clf).set_params(audio_transformer__n_mels=20)
    with pytest.raises(ValueError, match="audio_transformer__n_mels was 16, now 20"):
        other.fit(table, y)


# ---------------------------------------------------------------------- another fit's folder


def _one_pixel(X, y, groups):
    X = X.copy()
    X["visual"] = [None if cell is None else cell.copy() for cell in X["visual"]]
    X["visual"][9][1, 2, 3] ^= 1
    return X, y, groups


def _one_number(X, y, groups):
    X = X.copy()
    X["audio"] = [None if cell is None else cell.copy() for cell in X["audio"]]
    X["audio"][9][2, 3] = np.nextafter(X["audio"][9][2, 3], 9, dtype=np.float32)
    return X, y, groups


def _one_missing(X, y, groups):
    X = X.copy()
    X.loc[4, "audio"] = None
    return X, y, groups


def _one_label(X, y, groups):
    y = y.copy()
    y[0] = "joy"
    return X, y, groups


def _one_speaker(X, y, groups):
    groups = groups.copy()
    groups[0] = 4
    return X, y, groups


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_one_pixel, "visual cells"),
        (_one_number, "audio cells"),
        (_one_missing, "audio cells"),
        (_one_label, "labels"),
        (_one_speaker, "groups"),
        (lambda X, y, groups: (X, y, None), "groups"),
        (lambda X, y, groups: (X[["visual"]], y, groups), "audio cells"),
        (lambda X, y, groups: (X[::-1], y[::-1], groups[::-1]), "visual cells"),
    ],
)
def test_other_data_are_refused(change, message, tmp_path):
    data = _table()
    clf = _fdan(
        max_epochs=1, checkpoint_dir=tmp_path, early_stopping=True, predict_modality="visual"
    )
    clf.set_params(validation_fraction=0.3)
    clf.fit(*data[:2], groups=data[2])
    before = (tmp_path / FILE).read_bytes()
    X, y, groups = change(*data)
    with pytest.raises(ValueError, match=message) as caught:
        clone(clf).fit(X.dropna(how="all"), y[X.notna().any(axis=1)], groups=groups)
    assert str(tmp_path) in str(caught.value)
    for word in {"visual cells", "audio cells", "labels", "groups"} - {message}:
        if change in (_one_pixel, _one_number, _one_label, _one_speaker):
            assert word not in str(caught.value)
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": 0.5}, "alpha was 0.001, now 0.5"),
        ({"max_epochs": 9}, "max_epochs was 1, now 9"),
        ({"random_state": 4}, "random_state was 3, now 4"),
        ({"random_state": None}, "random_state was 3, now None"),
        ({"optimizer": torch.optim.Adam}, "optimizer was .*SGD, now .*Adam"),
        ({"alpha": 0.5, "dropout": 0.1}, "alpha was 0.001, now 0.5; dropout was 0.0, now 0.1"),
    ],
)
def test_other_parameters_are_refused(parameters, message, tmp_path):
    (X, y), _ = _data({})
    _fdan(max_epochs=1, checkpoint_dir=tmp_path).fit(X, y)
    with pytest.raises(ValueError, match=message):
        _fdan(**{"max_epochs": 1, **parameters}, checkpoint_dir=tmp_path).fit(X, y)
    with pytest.raises(ValueError, match="it is a FDANClassifier, not a MISAClassifier"):
        CASES["misa"][0]().set_params(checkpoint_dir=tmp_path).fit(X, y)


def _network(slope):
    layers = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.LeakyReLU(slope)
    return torch.nn.Sequential(*layers), 3


@pytest.mark.parametrize(
    "make",
    [lambda k: functools.partial(_network, k), lambda k: lambda: _network(k)],
    ids=["partial", "lambda"],
)
def test_functions_count_by_what_they_do(make, tmp_path):
    (X, y), _ = _data({})

    def fit(slope, folder):
        settings = {"max_epochs": 1, "checkpoint_dir": folder}
        return _fdan(**settings, backbone=make(slope)).fit(X, y)

    found = [fit(slope, tmp_path / "{fit}").history_[-1]["train_loss"] for slope in (0.5, 5.0)]
    assert found == [fit(slope, None).history_[-1]["train_loss"] for slope in (0.5, 5.0)]
    assert len(list(tmp_path.iterdir())) == 2
    fit(0.5, tmp_path / "one")
    with pytest.raises(ValueError, match=r"backbone was .*, now "):
        fit(5.0, tmp_path / "one")


def test_a_function_that_cannot_be_told_from_others_is_refused(tmp_path):
    (X, y), _ = _data({})
    backbone = functools.partial(_network, (i for i in range(2)))
    with pytest.raises(ValueError, match=r"nothing tells functools\.partial from another"):
        _fdan(backbone=backbone, checkpoint_dir=tmp_path).fit(X, y)


class Halve(Callback):
    """Make a part of each weight's gradient."""

    def __init__(self, by=0.5):
        self.by = by

    def on_grad_computed(self, net, named_parameters, **kwargs):
        for _, p in named_parameters:
            p.grad.mul_(self.by)


def _decay(gamma, **more):
    return LRScheduler(torch.optim.lr_scheduler.ExponentialLR, gamma=gamma, **more)


@pytest.mark.parametrize(
    ("callbacks", "others"),
    [
        ([_decay(1.0)], [_decay(0.01)]),
        ([Halve()], [Halve(0.1)]),
        ([Halve], []),
        ([("named", Halve(0.1))], None),
        ([EarlyStopping("train_loss", patience=1, threshold=9.0)], [("none", None)]),
    ],
)
def test_callbacks_count_by_what_they_do(callbacks, others, tmp_path):
    (X, y), _ = _data({})

    def fit(callbacks, folder):
        copies = clone(_fdan(callbacks=callbacks)).callbacks
        settings = {"max_epochs": 3, "checkpoint_dir": folder, "lr_schedule": "constant"}
        return _fdan(**settings, callbacks=copies).fit(X, y)

    for found in (callbacks, others, callbacks, others):
        assert_same_fit(fit(found, tmp_path / "{fit}"), fit(found, None))
    assert len(list(tmp_path.iterdir())) == 2
    fit(callbacks, tmp_path / "one")
    with pytest.raises(ValueError, match=r"callbacks was \[.*only_watches = True"):
        fit(others, tmp_path / "one")


def test_callbacks_that_only_watch_do_not_count(tmp_path):
    (X, y), _ = _data({})
    epochs = []
    for loud in (False, True):
        watch = Watch()
        stop = EarlyStopping("train_loss", patience=9, sink=print if loud else lambda *_: None)
        freeze = Freezer("classifier.*")
        callbacks = [stop, watch, freeze, *([EpochTimer(), PrintLog] if loud else [])]
        clf = _fdan(max_epochs=2, checkpoint_dir=tmp_path, callbacks=callbacks).fit(X, y)
        epochs.append(watch.epochs)
        clf.fit(X, y)  # Freezer has put others in the place of its parameters
    assert epochs == [2, 0]


def test_a_callback_that_cannot_be_told_from_others_is_refused(tmp_path):
    (X, y), _ = _data({})
    lock = threading.Lock()

    class Guarded(Callback):
        def on_epoch_begin(self, net, **kwargs):
            with lock:
                pass

    with pytest.raises(ValueError, match=r"nothing tells .*Guarded from another.*only_watches"):
        _fdan(callbacks=[Guarded()], checkpoint_dir=tmp_path).fit(X, y)
    Guarded.only_watches = True
    _fdan(max_epochs=1, callbacks=[Guarded()], checkpoint_dir=tmp_path).fit(X, y)


def test_the_same_numbers_in_another_type_are_the_same(tmp_path):
    (X, y), _ = _data({})
    settings = {"max_epochs": 1, "checkpoint_dir": tmp_path}
    params = {"eps": 1e-8, "betas": (0.9, 0.99)}
    kind = {"optimizer": torch.optim.Adam, "optimizer_params": params}
    _fdan(alpha=1e-3, class_weight={"anger": 2.0, "joy": 1}, **kind, **settings).fit(X, y)
    params = {"betas": (np.float64(0.9), np.float64(0.99)), "eps": np.float64(1e-8)}
    weights = {np.str_("joy"): np.int64(1), "anger": np.float32(2)}
    watch = Watch()
    clf = _fdan(alpha=np.float64(1e-3), class_weight=weights, **kind, **settings)
    clf.set_params(optimizer_params=params, callbacks=[watch]).fit(X, y)
    assert watch.epochs == 0
    with pytest.raises(ValueError, match=r"alpha was 0\.001, now 0\.002"):
        clf.set_params(alpha=np.float64(2e-3)).fit(X, y)


def test_long_arrays_are_told_apart(tmp_path):
    columns = np.arange(2000)
    X, y = np.random.default_rng(0).normal(size=(16, 2000)), np.array([0, 1] * 8)
    settings = {"max_epochs": 1, "checkpoint_dir": tmp_path, "lr": 1e-4}
    _fdan(audio=columns, **settings).fit(X, y)
    other = columns.copy()
    other[[500, 600]] = other[[600, 500]]  # which the text of an array leaves out
    with pytest.raises(ValueError, match=r"audio was numpy\.ndarray"):
        _fdan(audio=other, **settings).fit(X, y)


@pytest.mark.slow
def test_other_weights_in_the_same_place_are_another_fit(tmp_path):
    (X, y), _ = _data({})
    file = tmp_path / "weights.pth"
    found = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        torch.save(torchvision.models.resnet18().state_dict(), file)
        os.utime(file, ns=(seed, seed))
        network = {"backbone": "resnet18", "backbone_trainable": False, "weights": file}
        network |= {"max_epochs": 1, "input_size": 32}
        clf = _fdan(**network, checkpoint_dir=tmp_path / "ck" / "{fit}").fit(X, y)
        found.append(clf.history_[-1]["train_loss"])
        assert found[-1] == _fdan(**network).fit(X, y).history_[-1]["train_loss"]
    assert found[0] == found[2] != found[1]
    assert len(list((tmp_path / "ck").iterdir())) == 2


def test_the_same_data_in_another_form_are_the_same(tmp_path):
    X_vis, X_aud, y = make_clips(16)
    clf = _fdan(max_epochs=1, checkpoint_dir=tmp_path).fit(make_table(visual=X_vis, audio=X_aud), y)
    watch = Watch()
    again = clone(clf).set_params(callbacks=[watch], verbose=1)
    # Fortran order, and the cells in a list: other memory, the same numbers.
    again.fit(make_table(visual=list(np.asfortranarray(X_vis)), audio=list(X_aud)), y.tolist())
    assert watch.epochs == 0


# ---------------------------------------------------------------------- the folder


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=(pytest.mark.slow, pytest.mark.long))])
def test_a_search_has_a_folder_for_every_fit_and_trains_nothing_twice(n_jobs, tmp_path):
    (X, y), _ = _data({})
    complete = X.notna().all(axis=1)
    X, y = X[complete], y[complete]

    def search():
        clf = _fdan(max_epochs=2, checkpoint_dir=tmp_path / "{fit}")
        grid = {"alpha": [1e-3, 1.0], "lr": [0.01, 0.003]}
        return GridSearchCV(clf, grid, cv=2, n_jobs=n_jobs, error_score="raise")

    found = search().fit(X, y)
    files = sorted(tmp_path.glob(f"*/{FILE}"))
    assert len(files) == 4 * 2 + 1
    times = [file.stat().st_mtime_ns for file in files]
    again = search().fit(X, y)
    assert [file.stat().st_mtime_ns for file in files] == times
    assert len(list(tmp_path.iterdir())) == len(files)
    for key in ("rank_test_score", "split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(again.cv_results_[key], found.cv_results_[key])
    assert_same_fit(again.best_estimator_, found.best_estimator_, X)


def test_an_interrupted_search_trains_nothing_twice(tmp_path, monkeypatch):
    (X, y), _ = _data({})
    complete = X.notna().all(axis=1)
    X, y = X[complete], y[complete]
    epochs, fails_at = [], [0]
    run_epoch = FDANClassifier._run_epoch

    def counted(self, *args):
        if len(epochs) == fails_at[0]:
            raise KeyboardInterrupt
        run_epoch(self, *args)
        epochs.append(1)

    monkeypatch.setattr(FDANClassifier, "_run_epoch", counted)
    clf = _fdan(max_epochs=3, checkpoint_dir=tmp_path / "{fit}")
    search = GridSearchCV(clf, {"alpha": [1e-3, 1.0]}, cv=2, refit=True)
    for fails_at[0] in (0, 2, 4, 7, 13):
        with pytest.raises(KeyboardInterrupt):
            clone(search).fit(X, y)
    fails_at[0] = None
    clone(search).fit(X, y)
    assert len(epochs) == 3 * 5  # two candidates, two folds, and the refit


def test_a_damaged_file_is_refused_and_left_alone(tmp_path):
    (X, y), _ = _data({})
    file = tmp_path / FILE
    clf = _fdan(max_epochs=1, checkpoint_dir=tmp_path).fit(X, y)
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(content[:8], "little")
    places = [0, 7, 8, 20, header - 200, header, header + 1, len(content) - 1]
    for place in [*places, *rng.integers(header, len(content), 8)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="Delete it to train from the start") as caught:
            clone(clf).fit(X, y)
        assert str(file) in str(caught.value)
        assert file.read_bytes() == damaged
    for damaged in (b"", content[: len(content) // 2], content + b"\0"):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="Delete it"):
            clone(clf).fit(X, y)
    file.unlink()
    assert_same_fit(clone(clf).fit(X, y), clf)
    assert file.exists()


def test_what_is_frozen_is_written_once(tmp_path, monkeypatch):
    (X, y), groups = _data({"groups": True})
    written, states = [], []
    write, save = _checkpoint.write_archive, _checkpoint.Checkpoint.save

    def noted(path, *args):
        written.append(path.name)
        return write(path, *args)

    def noted_save(self, net, batches, schedule, progress):
        states.append(progress.best_state)
        save(self, net, batches, schedule, progress)

    monkeypatch.setattr(_checkpoint, "write_archive", noted)
    monkeypatch.setattr(_checkpoint.Checkpoint, "save", noted_save)
    network = {"backbone_trainable": False, "early_stopping": True, "validation_fraction": 0.3}
    clf = _fdan(**network, checkpoint_dir=tmp_path, callbacks=[Watch(3)])
    with pytest.raises(Interrupted):
        clf.fit(X, y, **groups)
    (frozen,) = tmp_path.glob("checkpoint.frozen-*.safetensors")
    (tmp_path / "checkpoint.frozen-0123.safetensors").write_bytes(b"of a fit that was killed")
    _fdan(**network, checkpoint_dir=tmp_path).fit(X, y, **groups)
    assert written == [frozen.name, *[FILE] * 5]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", frozen.name, FILE]
    tensors, _ = read_archive(tmp_path / FILE)
    assert not [name for name in tensors if "backbones" in name]
    assert not [name for name in states[-1] if "backbones" in name]
    (X, y), _ = _data({})
    _fdan(max_epochs=1, checkpoint_dir=tmp_path / "trained").fit(X, y)
    assert sorted(p.name for p in (tmp_path / "trained").iterdir()) == [".lock", FILE]


def test_what_is_frozen_must_be_what_it_was(tmp_path):
    (X, y), _ = _data({})
    clf = _fdan(max_epochs=1, backbone_trainable=False, checkpoint_dir=tmp_path).fit(X, y)
    (file,) = tmp_path.glob("checkpoint.frozen-*")
    content = file.read_bytes()
    tensors, _ = read_archive(file)
    changes = [
        lambda: file.write_bytes(content[:-1] + bytes([content[-1] ^ 1])),
        lambda: write_archive(file, {k: 2 * t for k, t in tensors.items()}, {}),
        lambda: file.unlink(),
    ]
    for change in changes:
        change()
        with pytest.raises(ValueError, match="Delete both to train from the start") as caught:
            clone(clf).fit(X, y)
        assert str(file) in str(caught.value)
        assert str(tmp_path / FILE) in str(caught.value)
    (tmp_path / FILE).unlink()
    file.write_bytes(content[:-1])
    clone(clf).fit(X, y)  # anew, which does not take what is there for sound
    # Not byte by byte: safetensors writes the names of its header in any order.
    again, _ = read_archive(file)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], t) for name, t in tensors.items())
    watch = Watch()
    assert_same_fit(clone(clf).set_params(callbacks=[watch]).fit(X, y), clf)
    assert watch.epochs == 0


def test_one_file_with_all_in_it_as_before(tmp_path):
    arguments, keywords = _data({"groups": True})

    def make(**more):
        frozen = {"backbone_trainable": False, "early_stopping": True, "validation_fraction": 0.3}
        return _fdan(**frozen, **more)

    with pytest.raises(Interrupted):
        make(checkpoint_dir=tmp_path, callbacks=[Watch(3)]).fit(*arguments, **keywords)
    (file,) = tmp_path.glob("checkpoint.frozen-*")
    tensors, facts = read_archive(tmp_path / FILE)
    frozen, _ = read_archive(file)
    best = {k.replace("module.", "best.", 1): t for k, t in frozen.items()}
    del facts["frozen"]
    write_archive(tmp_path / FILE, tensors | frozen | best, facts | {"schema": 1})
    file.unlink()
    watch = Watch()
    clf = make(checkpoint_dir=tmp_path, callbacks=[watch]).fit(*arguments, **keywords)
    assert watch.epochs == 3
    assert_same_fit(clf, make().fit(*arguments, **keywords))
    write_archive(tmp_path / FILE, tensors, facts | {"schema": 3})
    with pytest.raises(ValueError, match=r"has the schema 3, and .* knows 1 and 2\. Train on with"):
        make(checkpoint_dir=tmp_path).fit(*arguments, **keywords)


def test_a_refused_fit_leaves_no_half_fitted_classifier(tmp_path):
    (X, y), _ = _data({})
    _fdan(max_epochs=1, checkpoint_dir=tmp_path).fit(X, y)
    clf = _fdan(max_epochs=2, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="max_epochs"):
        clf.fit(X, y)
    with pytest.raises(NotFittedError):
        clf.predict(X)


def test_a_complete_fit_is_returned_where_nobody_can_write(tmp_path, monkeypatch):
    (X, y), _ = _data({})
    expected = _fdan(max_epochs=1, checkpoint_dir=tmp_path / "a").fit(X, y)

    def refused(self, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("filelock.FileLock.acquire", refused)
    assert_same_fit(_fdan(max_epochs=1, checkpoint_dir=tmp_path / "a").fit(X, y), expected)
    with pytest.raises(OSError, match="Read-only"):
        _fdan(max_epochs=1, checkpoint_dir=tmp_path / "b").fit(X, y)


def test_a_full_disk_names_parameter_and_file(tmp_path, monkeypatch):
    (X, y), _ = _data({})

    def full(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("skfdan.classifiers._checkpoint.write_archive", full)
    with pytest.raises(OSError, match="checkpoint_dir: the state after epoch 1") as caught:
        _fdan(checkpoint_dir=tmp_path).fit(X, y)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / FILE)


def test_what_a_killed_writer_left_is_removed(tmp_path):
    (X, y), _ = _data({})
    (tmp_path / f".{FILE}.12345.tmp").write_bytes(b"half")
    (tmp_path / "mine.txt").write_text("of the user")
    _fdan(max_epochs=1, checkpoint_dir=tmp_path).fit(X, y)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", FILE, "mine.txt"]


def test_two_fits_on_one_folder(tmp_path):
    (X, y), _ = _data({})
    errors = []

    class Second(Callback):
        def on_epoch_begin(self, net, **kwargs):
            try:
                _fdan(checkpoint_dir=tmp_path).fit(X, y)
            except RuntimeError as error:
                errors.append(str(error))

    _fdan(max_epochs=2, checkpoint_dir=tmp_path, callbacks=[Second()]).fit(X, y)
    assert len(errors) == 2
    assert str(tmp_path) in errors[0]
    assert "in use by another fit" in errors[0]
    # From another thread too.
    started, go_on = threading.Event(), threading.Event()

    class Wait(Callback):
        only_watches = True

        def on_batch_end(self, net, **kwargs):
            started.set()
            go_on.wait(20)

    first = _fdan(max_epochs=1, checkpoint_dir=tmp_path / "b", callbacks=[Wait()])
    thread = threading.Thread(target=first.fit, args=(X, y))
    thread.start()
    try:
        assert started.wait(20)
        with pytest.raises(RuntimeError, match="in use"):
            _fdan(max_epochs=1, checkpoint_dir=tmp_path / "b").fit(X, y)
    finally:
        go_on.set()
        thread.join()
    # Free again after it, and after a fit that failed.
    _fdan(max_epochs=1, checkpoint_dir=tmp_path / "b").fit(X, y)
    with pytest.raises(ValueError, match="alpha"):
        _fdan(max_epochs=1, alpha=2, checkpoint_dir=tmp_path / "b").fit(X, y)
    _fdan(max_epochs=1, checkpoint_dir=tmp_path / "b").fit(X, y)


_KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from skorch.callbacks import Callback
from classifiers.test_checkpoint import CASES, _data

class Kill(Callback):
    only_watches = True

    def on_batch_end(self, net, **kwargs):
        if len(net.history_) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

arguments, keywords = _data({})
CASES["daan"][0]().set_params(checkpoint_dir=sys.argv[2], callbacks=[Kill()]).fit(*arguments)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_the_folder_of_a_killed_process_is_free_and_goes_on(tmp_path):
    tests = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tests), str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=tests,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    (X, y), _ = _data({})
    watch = Watch()
    clf = CASES["daan"][0]().set_params(checkpoint_dir=tmp_path, callbacks=[watch]).fit(X, y)
    assert watch.epochs == 3  # of five: two had been completed
    assert_same_fit(clf, CASES["daan"][0]().fit(X, y))


def test_a_fit_that_diverges_keeps_what_was_before(tmp_path):
    (X, y), _ = _data({})

    class Spoil(Callback):
        only_watches = True  # a stand-in for numbers that go wrong once

        def on_epoch_begin(self, net, **kwargs):
            if len(net.history_) == 3:
                with torch.no_grad():
                    net.module_.classifier.weight.fill_(float("nan"))

    clf = _fdan(checkpoint_dir=tmp_path, callbacks=[Spoil()])
    with pytest.raises(ValueError, match="diverged"):
        clf.fit(X, y)
    with pytest.raises(NotFittedError):
        clf.predict(X)
    watch = Watch()
    assert_same_fit(_fdan(checkpoint_dir=tmp_path, callbacks=[watch]).fit(X, y), _fdan().fit(X, y))
    assert watch.epochs == 3


# ---------------------------------------------------------------------- scikit-learn


@pytest.mark.parametrize("case", ["lmmd", "torchvision", "gmtcnet", "tfmix", "misa"])
def test_parameters_and_copies(case, tmp_path):
    make, options = CASES[case]
    clf = make().set_params(checkpoint_dir=tmp_path, on_error="missing", max_epochs=1)
    assert make().get_params()["checkpoint_dir"] is None
    assert clone(clf).get_params()["checkpoint_dir"] == tmp_path
    assert clone(clf).get_params()["on_error"] == "missing"
    arguments, _ = _data(options)
    clf.fit(*arguments)
    copy = pickle.loads(pickle.dumps(clf))
    assert everything(copy) == everything(clf)
    assert not [name for name in vars(clf) if "checkpoint" in name and name != "checkpoint_dir"]


@pytest.mark.parametrize("name", ["visual_transformer", "audio_transformer"])
@pytest.mark.parametrize("case", ["lmmd", "torchvision", "misa"])
def test_parameters_of_transformers_are_parameters(case, name):
    clf = CASES[case][0]().set_params(**{name: MelSpectrogram(n_mels=32)})
    copy = clone(clf).set_params(**{f"{name}__n_mels": 64})
    assert clf.get_params()[f"{name}__n_mels"] == 32
    assert getattr(copy, name).n_mels == 64


def test_a_home_folder_and_names_of_several_levels(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (X, y), _ = _data({})
    clf = _fdan(max_epochs=1, checkpoint_dir="~/runs/{fit}/fold 1").fit(X, y)
    (file,) = tmp_path.glob(f"runs/*/fold 1/{FILE}")
    assert clf.checkpoint_dir == "~/runs/{fit}/fold 1"
    before = file.stat().st_mtime_ns
    clone(clf).fit(X, y)
    assert file.stat().st_mtime_ns == before
