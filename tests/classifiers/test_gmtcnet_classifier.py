import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skfdan import make_table
from skfdan.classifiers import GMTCNetClassifier
from skfdan.preprocessing import MFCC

SMALL = {"n_filters": 8, "n_blocks": 3, "max_epochs": 30, "lr": 0.01, "random_state": 0}


def make_sequences(n=60, seed=0):
    """Peaks that wander up or down the coefficients: only their order tells the classes."""
    rng = np.random.default_rng(seed)
    y = np.array(["falling", "rising"])[np.arange(n) % 2]
    X = 0.3 * rng.normal(size=(n, 5, 20))
    for x, label in zip(X, y, strict=True):
        start = rng.integers(0, 15)
        path = np.arange(5) if label == "rising" else np.arange(5)[::-1]
        x[path, start + np.arange(5)] += 3
    return X.astype(np.float32), y


@pytest.fixture(scope="module")
def sequences():
    return make_sequences()


@pytest.fixture(scope="module")
def fitted(sequences):
    return GMTCNetClassifier(**SMALL).fit(*sequences)


def test_learns_the_order_of_frames(fitted):
    X, y = make_sequences(seed=1)
    # The coefficients' averages over time are the same in both classes.
    means = [X[y == label].mean((0, 2)) for label in fitted.classes_]
    np.testing.assert_allclose(means[0], means[1], atol=0.06)
    assert fitted.score(X, y) > 0.9
    # The same frames backwards are the other class.
    assert (fitted.predict(X[:, :, ::-1]) != y).mean() > 0.8


def test_defaults_are_the_published_ones():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(14, 39, 12)), np.arange(14) % 7
    clf = GMTCNetClassifier(random_state=0)
    assert (clf.max_epochs, clf.batch_size, clf.lr_schedule) == (300, 64, "constant")
    assert clf.fidelity == "exact"
    clf.set_params(max_epochs=1).fit(X, y)
    assert sum(p.numel() for p in clf.module_.parameters()) == 260_644
    (group,) = clf.optimizer_.param_groups
    assert isinstance(clf.optimizer_, torch.optim.Adam)
    settings = {k: group[k] for k in ("lr", "betas", "eps", "weight_decay")}
    assert settings == {"lr": 1e-3, "betas": (0.93, 0.98), "eps": 1e-8, "weight_decay": 0.0}
    assert clf.transform(X).shape == (14, 39)


def test_arguments_of_the_optimiser(sequences):
    quick = {**SMALL, "max_epochs": 1}
    clf = GMTCNetClassifier(**quick, optimizer_params={"betas": (0.9, 0.999)}).fit(*sequences)
    assert clf.optimizer_.param_groups[0]["betas"] == (0.9, 0.999)
    assert clf.optimizer_.param_groups[0]["eps"] == 1e-8
    clf = GMTCNetClassifier(
        **quick, optimizer=torch.optim.SGD, optimizer_params={"nesterov": False}
    )
    assert type(clf.fit(*sequences).optimizer_) is torch.optim.SGD
    # A subclass of Adam in newer versions of torch.
    clf = GMTCNetClassifier(**quick, optimizer=torch.optim.AdamW).fit(*sequences)
    assert clf.optimizer_.param_groups[0]["betas"] == (0.9, 0.999)


def test_first_epoch_is_adam_on_the_cross_entropy(sequences):
    """One step of one full batch, against Adam written out."""
    X, y = sequences

    class Start(GMTCNetClassifier):
        def _make_module(self):
            module = super()._make_module()
            self.start_ = {k: p.detach().clone() for k, p in module.named_parameters()}
            return module

    clf = Start(**{**SMALL, "max_epochs": 1}).fit(X, y)
    start = {name: p.requires_grad_() for name, p in clf.start_.items()}
    sequence = {"audio": torch.from_numpy(X)[:, None]}
    logits = torch.func.functional_call(clf.module_, start, kwargs=sequence).logits["audio"]
    code = torch.from_numpy((y == "rising").astype(int))
    loss = -logits.log_softmax(1)[torch.arange(len(y)), code].mean()
    loss.backward()
    assert clf.history_[0]["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    # Bias-corrected, the first step of Adam is lr · g / (|g| + eps), whatever the betas.
    for name, p in clf.module_.named_parameters():
        g = start[name].grad
        expected = start[name] - 0.01 * g / (g.abs() + 1e-8)
        clear = g.abs() > 1e-5
        assert clear.any()
        torch.testing.assert_close(p[clear], expected[clear], rtol=1e-3, atol=1e-5)


def test_faces_are_not_read(sequences):
    X, y = sequences
    quick = GMTCNetClassifier(**{**SMALL, "max_epochs": 2})
    expected = clone(quick).fit(X, y).predict_proba(X)
    table = make_table(visual=["no such file"] * len(y), audio=X)
    np.testing.assert_array_equal(clone(quick).fit(table, y).predict_proba(table), expected)
    with pytest.raises(ValueError, match="no audio cell, which GMTCNetClassifier learns from"):
        clone(quick).fit(make_table(visual=[np.zeros((3, 8, 8), np.uint8)] * len(y)), y)


def test_predictions_depend_on_their_own_row_only(sequences, fitted):
    X, _ = sequences
    expected = fitted.predict_proba(X)
    for rows in ([3], [7, 3, 3, 20], range(11, 40)):
        rows = list(rows)
        np.testing.assert_allclose(fitted.predict_proba(X[rows]), expected[rows], atol=1e-10)


def test_cells_of_unequal_size_are_refused(sequences, fitted):
    X, y = sequences
    cells = [x[:, :18] if i == 4 else x for i, x in enumerate(X)]
    message = r"row 4 has .* \(1, 5, 18\).*fitted on \(1, 5, 20\).*set duration= of MFCC"
    with pytest.raises(ValueError, match=message):
        GMTCNetClassifier(**SMALL).fit(make_table(audio=cells), y)
    with pytest.raises(ValueError, match=message):
        fitted.predict(make_table(audio=cells))
    with pytest.raises(ValueError, match=r"row 0 has .* \(1, 4, 20\)"):
        fitted.predict(X[:, :4])
    with pytest.raises(ValueError, match=r"row 0 has .* \(1, 5, 18\)"):
        clone(fitted).partial_fit(X, y).partial_fit(X[:, :, :18], y)


def test_pictures_are_refused(sequences):
    X, y = sequences
    with pytest.raises(ValueError, match=r"shape \(3, 5, 20\); .* reads sequences"):
        GMTCNetClassifier(**SMALL).fit(np.repeat(X[:, None], 3, axis=1), y)


def test_rows_of_a_matrix_are_single_frames_and_standardised():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = rng.normal(size=(60, 6)) + 3 * np.eye(3, 6)[y]
    parameters = {**SMALL, "max_epochs": 40}
    clf = GMTCNetClassifier(**parameters).fit(X, y)
    assert clf.score(X, y) > 0.9
    rescaled = X * [1e3, 1, 1e-3, 1, 5, 1] + 7
    np.testing.assert_allclose(
        GMTCNetClassifier(**parameters).fit(rescaled, y).predict_proba(rescaled),
        clf.predict_proba(X),
        atol=1e-2,
    )


def test_early_stopping_waits_for_a_better_epoch(sequences):
    clf = GMTCNetClassifier(
        **{**SMALL, "max_epochs": 100}, early_stopping=True, validation_fraction=0.2
    )
    clf.fit(*sequences)
    scores = clf.history_[:, "valid_uar"]
    assert 10 < len(scores) < 100
    assert len(scores) == int(np.argmax(scores)) + 1 + 10


def test_from_waveforms_through_mfcc():
    """Chirps that rise or fall over the same frequencies."""
    rng = np.random.default_rng(0)
    t = np.arange(11025) / 22050
    up = np.sin(2 * np.pi * (300 * t + 2000 * t**2))
    y = np.array(["down", "up"] * 10)
    waves = [(up if label == "up" else up[::-1]) + 0.05 * rng.normal(size=len(t)) for label in y]
    model = make_pipeline(
        MFCC(duration=0.5), GMTCNetClassifier(**{**SMALL, "n_blocks": 4, "max_epochs": 40})
    )
    assert model.fit(waves[:12], y[:12]).score(waves[12:], y[12:]) == 1
    assert model[-1].module_.stem.in_channels == 39
