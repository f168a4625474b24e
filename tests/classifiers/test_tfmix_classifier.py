import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from skfdan import make_table
from skfdan.classifiers import TFMixClassifier
from skfdan.datasets import make_emotion_clips
from skfdan.metrics import uar_score
from skfdan.preprocessing import SpeechFeatures

QUICK = {
    "channels": 8,
    "lstm_hidden": 4,
    "n_heads": 2,
    "fc_width": 8,
    "dropout": 0.0,
    "lr": 0.01,
    "random_state": 0,
    "verbose": 0,
}
MEMBERS = ["cnn", "bilstm", "transformer"]


def make_sequences(n=60, noise=0.5, seed=0):
    """Tell three classes by how fast a feature of 5 goes up and down over 16 frames."""
    rng = np.random.default_rng(seed)
    code = np.arange(n) % 3
    t = np.arange(16)
    X = noise * rng.normal(size=(n, 5, 16))
    X[:, 0] += np.sin(np.array([0.3, 1.0, 2.5])[code][:, None] * t + rng.uniform(0, 6, (n, 1)))
    return X.astype(np.float32), np.array(["anger", "fear", "joy"])[code]


def member_uar(clf, X, y, k):
    """Return the recall of one member, class by class, from its own scores."""
    module = clf.module_.eval()
    with torch.no_grad():
        scores = module(audio=torch.from_numpy(X)[:, None]).members[MEMBERS[k]].numpy()
    recalls = []
    for label in np.unique(y):
        hits = [
            clf.classes_[s.argmax()] == label for s, t in zip(scores, y, strict=True) if t == label
        ]
        recalls.append(sum(hits) / len(hits))
    return sum(recalls) / len(recalls)


@pytest.fixture(scope="module")
def fitted():
    X, y = make_sequences(150, noise=0.3)
    return TFMixClassifier(max_epochs=30, **QUICK).fit(X, y)


def test_it_learns_and_so_does_every_member(fitted):
    X, y = make_sequences(noise=0.3, seed=1)
    assert (fitted.predict(X) == y).mean() > 0.8
    for k in range(3):
        assert member_uar(fitted, X, y, k) > 0.6
    last = fitted.history_[-1]
    assert last["train_loss"] == pytest.approx(
        sum(last[f"ce_{name}"] for name in MEMBERS), rel=1e-5
    )


def noisy():
    """Classes so blurred that members know their training rows and guess the others."""
    X, y = make_sequences(150, noise=1.5, seed=2)
    groups = np.random.default_rng(0).integers(0, 10, len(y))
    return X, y, groups


@pytest.mark.parametrize("grouped", [False, True])
def test_weights_are_the_uar_of_rows_that_were_held_out(grouped):
    X, y, groups = noisy()
    clf = TFMixClassifier(max_epochs=25, validation_fraction=0.2, **QUICK)
    clf.fit(X, y, groups=groups if grouped else None)
    held = clf.validation_rows_
    kept = np.setdiff1d(np.arange(len(y)), held)
    if grouped:
        assert set(groups[held]).isdisjoint(groups[kept])
        assert len(set(groups[held])) == 2
    else:
        assert len(held) == 30
    expected, on_training = (
        np.array([member_uar(clf, X[rows], y[rows], k) for k in range(3)]) for rows in (held, kept)
    )
    np.testing.assert_allclose(clf.validation_uar_, expected)
    np.testing.assert_allclose(clf.weights_, expected / expected.sum())
    # The test would notice weights from other rows.
    assert np.abs(on_training / on_training.sum() - clf.weights_).max() > 0.02
    assert on_training.min() > expected.max()


def test_groups_that_are_missing_are_refused():
    X, y, _ = noisy()
    groups = ["ann", "bob", None] * 50
    with pytest.raises(ValueError, match=r"groups is missing \(NaN or None\) in row 2"):
        TFMixClassifier(**QUICK).fit(X, y, groups=groups)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_held_out_rows_are_in_no_batch_and_in_no_statistic(early_stopping, monkeypatch):
    X, y, groups = noisy()
    seen = set()
    training_step = TFMixClassifier.train_step

    def spy(self, batch, **kwargs):
        seen.update(cell.numpy().tobytes() for cell in batch[0].cells["audio"])
        return training_step(self, batch, **kwargs)

    monkeypatch.setattr(TFMixClassifier, "train_step", spy)
    clf = TFMixClassifier(max_epochs=2, early_stopping=early_stopping, **QUICK)
    clf.fit(X, y, groups=groups)
    assert len(clf.validation_rows_)
    kept = np.setdiff1d(np.arange(len(y)), clf.validation_rows_)
    assert seen == {X[row].tobytes() for row in kept}
    frames = X[kept].astype(float).transpose(1, 0, 2).reshape(5, -1)
    np.testing.assert_allclose(clf.module_.mean[:, 0], frames.mean(1), atol=1e-6)
    np.testing.assert_allclose(clf.module_.std[:, 0], frames.std(1), rtol=1e-6)
    assert ("valid_uar" in clf.history_[-1]) == early_stopping


def test_prediction_is_the_weighted_average_of_the_members():
    X, y, _ = noisy()
    clf = TFMixClassifier(max_epochs=10, **QUICK).fit(X, y)
    assert np.ptp(clf.weights_) > 0
    with torch.no_grad():
        members = clf.module_.eval()(audio=torch.from_numpy(X)[:, None]).members
    average = 0
    for weight, name in zip(clf.weights_, MEMBERS, strict=True):
        scores = np.exp(members[name].double().numpy())
        average = average + weight * scores / scores.sum(1, keepdims=True)
    np.testing.assert_allclose(clf.predict_proba(X), average, atol=1e-5)


@pytest.mark.parametrize(
    "case", ["uniform", "few rows", "one speaker", "two speakers, one class in one"]
)
def test_equal_weights_and_nothing_held_out(case):
    X, y, groups = noisy()
    clf = TFMixClassifier(max_epochs=1, **QUICK)
    if case == "uniform":
        clf.set_params(weighting="uniform")
    elif case == "few rows":
        X, y, groups = X[:12], y[:12], None
    elif case == "one speaker":
        groups = np.zeros(len(y))
    else:
        groups = (y == "joy").astype(int)
    clf.fit(X, y, groups=groups)
    assert clf.validation_uar_ is None
    assert len(clf.validation_rows_) == 0
    np.testing.assert_allclose(clf.weights_, [1 / 3] * 3)
    frames = X.astype(float).transpose(1, 0, 2).reshape(5, -1)
    np.testing.assert_allclose(clf.module_.mean[:, 0], frames.mean(1), atol=1e-6)


def test_members_that_never_hit_leave_equal_weights(monkeypatch):
    X, y, _ = noisy()
    monkeypatch.setattr(TFMixClassifier, "_validation_uar", lambda self, samples, y: 0.0)
    clf = TFMixClassifier(max_epochs=1, **QUICK).fit(X, y)
    assert clf.validation_uar_.tolist() == [0, 0, 0]
    np.testing.assert_allclose(clf.weights_, [1 / 3] * 3)


def test_altered_copies_train_as_samples_of_their_row():
    X, y = make_sequences(30)
    copies = np.stack([X, X[:, :, ::-1], X + 1], axis=1)[:, :, None]
    clf = TFMixClassifier(max_epochs=3, weighting="uniform", batch_size=90, **QUICK)
    together = clone(clf).fit(make_table(audio=copies), y)
    apart = clone(clf).fit(copies.reshape(90, 1, 5, 16), np.repeat(y, 3))
    np.testing.assert_allclose(together.predict_proba(X), apart.predict_proba(X), atol=1e-6)
    # Several samples of a row are averaged, whatever made them.
    scores = apart.decision_function(copies.reshape(90, 1, 5, 16)).reshape(30, 3, 3).mean(1)
    np.testing.assert_allclose(
        together.decision_function(make_table(audio=copies)), scores, atol=1e-5
    )


def test_copies_of_a_held_out_row_are_held_out_with_it():
    X, y, _ = noisy()
    copies = np.stack([X, X + 10], axis=1)[:, :, None]
    clf = TFMixClassifier(max_epochs=1, validation_fraction=0.2, **QUICK)
    clf.fit(make_table(audio=copies), y)
    kept = np.setdiff1d(np.arange(len(y)), clf.validation_rows_)
    assert len(kept) == 120
    np.testing.assert_allclose(
        clf.module_.mean[:, 0], copies[kept].astype(float).mean((0, 1, 2, 4)), atol=1e-5
    )


def test_a_row_is_predicted_without_the_others_and_after_pickling(fitted):
    X, _ = make_sequences(40, seed=3)
    together = fitted.predict_proba(X)
    alone = np.concatenate([fitted.predict_proba(X[i : i + 1]) for i in range(40)])
    np.testing.assert_allclose(alone, together, atol=1e-7)
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.predict_proba(X), together)
    np.testing.assert_array_equal(copy.weights_, fitted.weights_)


def test_transform_gives_the_hidden_layers_side_by_side(fitted):
    X, _ = make_sequences(4)
    features = fitted.transform(X)
    assert features.shape == (4, 24)
    assert len(fitted.get_feature_names_out()) == 24
    with torch.no_grad():
        (expected,) = fitted.module_.eval()(audio=torch.from_numpy(X)[:, None]).layers["audio"]
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)


def test_partial_fit_goes_on_and_leaves_weights_and_statistics():
    X, y, _ = noisy()
    clf = TFMixClassifier(max_epochs=2, **QUICK).fit(X, y)
    weights, mean = clf.weights_, clf.module_.mean.clone()
    before = clf.predict_proba(X)
    parameters = {name: p.detach().clone() for name, p in clf.module_.named_parameters()}
    clf.partial_fit(X + 1, y)
    for name, parameter in clf.module_.named_parameters():
        # Prediction has put other numbers in the place of the LSTM's, for a while.
        assert not torch.equal(parameter, parameters[name]), name
    np.testing.assert_array_equal(clf.weights_, weights)
    torch.testing.assert_close(clf.module_.mean, mean)
    assert not np.allclose(clf.predict_proba(X), before)
    fresh = TFMixClassifier(**QUICK).partial_fit(X, y)
    np.testing.assert_allclose(fresh.weights_, [1 / 3] * 3)
    assert len(fresh.history_) == 1


def test_matrix_of_constants_and_large_numbers():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = np.column_stack([1e6 + 1e3 * y + 100 * rng.normal(size=60), np.full(60, 7.0)])
    clf = TFMixClassifier(max_epochs=15, **QUICK).fit(X, y)
    assert clf.score(X, y) > 0.95


def test_faces_are_left_alone():
    X, y = make_sequences(12)
    faces = np.zeros((12, 3, 8, 8), np.uint8)
    clf = TFMixClassifier(max_epochs=1, **QUICK)
    both = clone(clf).fit(make_table(visual=faces, audio=X), y)
    alone = clone(clf).fit(make_table(audio=X), y)
    np.testing.assert_array_equal(both.predict_proba(X), alone.predict_proba(X))
    assert TFMixClassifier.fidelity == "style"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"weighting": "war"}, "weighting='war' is unknown"),
        ({"validation_fraction": 1.0}, r"validation_fraction=1.0.*above 0 and below 1"),
        ({"n_heads": 3}, r"n_heads=3 must divide 2 \* lstm_hidden=8"),
        ({"dropout": 1.5}, "dropout=1.5"),
        ({"channels": 0}, "channels=0"),
    ],
    ids=str,
)
def test_parameters_that_make_no_sense(parameters, words):
    X, y = make_sequences(12)
    with pytest.raises(ValueError, match=words):
        TFMixClassifier(**(QUICK | parameters)).fit(X, y)


def test_cells_of_another_size_are_refused(fitted):
    X, y = make_sequences(12)
    with pytest.raises(ValueError, match=r"row 0.*\(1, 5, 15\).*fitted on \(1, 5, 16\).*duration="):
        fitted.predict(X[:, :, 1:])
    mixed = [*X[:11], X[11, :4]]
    with pytest.raises(ValueError, match=r"row 11.*\(1, 4, 16\)"):
        TFMixClassifier(**QUICK).fit(make_table(audio=mixed), y)
    with pytest.raises(ValueError, match="groups has 3 entries but X has 12 rows"):
        TFMixClassifier(**QUICK).fit(X, y, groups=[1, 2, 3])


@pytest.mark.slow
@pytest.mark.long
def test_the_features_and_the_ensemble_together(tmp_path):
    clips = make_emotion_clips(
        48,
        4,
        emotions=("anger", "sadness"),
        duration=0.6,
        frame_size=32,
        fps=2,
        root=tmp_path / "clips",
        sound_in_video=False,
        random_state=0,
    )
    features = SpeechFeatures(
        duration=0.6,
        sample_rate=16000,
        n_fft=1024,
        n_mels=32,
        n_mfcc=13,
        cache_dir=tmp_path / "cache",
        random_state=0,
        verbose=0,
    )
    model = make_pipeline(
        ColumnTransformer([("audio", features, ["audio"])]), TFMixClassifier(max_epochs=6, **QUICK)
    )
    predicted = cross_val_predict(
        model, clips.table, clips.target, groups=clips.groups, cv=GroupKFold(2)
    )
    # 48 guesses reach 0.7 once in 400 times.
    assert uar_score(clips.target, predicted) > 0.7
