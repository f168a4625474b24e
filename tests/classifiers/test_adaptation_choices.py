"""FDANClassifier's adaptation losses, and rows without a label."""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone

from classifiers.small_clips import EMOTIONS, QUICK
from skfdan import FDANClassifier, make_table, stack_modalities
from skfdan.nn import ADAPTATIONS, AdaptationLoss

WITHOUT_LABELS = tuple(name for name in ADAPTATIONS if name != "lmmd")
VECTORS = {
    "bottleneck": 16,
    "lr": 0.03,
    "momentum": 0.9,
    "max_epochs": 3,
    "batch_size": 16,
    "random_state": 0,
}


def make_domains(n=60, seed=0):
    """Vectors of three emotions on half a circle, which is turned by 50 degrees for voices."""
    rng = np.random.default_rng(seed)
    code = np.arange(n) % 3

    def points(turn):
        angle = np.deg2rad(90 * code + turn)
        circle = np.stack([np.cos(angle), np.sin(angle)], 1)
        return (circle + 0.2 * rng.normal(size=(n, 2))).astype(np.float32)

    return points(0), points(50), EMOTIONS[code]


@pytest.fixture(scope="module")
def domains():
    return make_domains()


def hide(y, rows):
    y = y.astype(object)
    y[rows] = None
    return y


# ---------------------------------------------------------------------- the losses


@pytest.mark.parametrize("adaptation", [*ADAPTATIONS, None])
@pytest.mark.parametrize("variant", ["paper", "official"])
def test_every_adaptation_learns(clips, adaptation, variant):
    X_vis, X_aud, y = clips
    clf = FDANClassifier(
        **{**QUICK, "max_epochs": 15}, adaptation=adaptation, variant=variant, alpha=0.1
    ).fit(X_vis, X_aud, y)
    assert clf.score(X_aud, y) > 0.8
    row = clf.history_[-1]
    assert [name for name in ADAPTATIONS if name in row] == [adaptation] * (adaptation is not None)
    assert ("mu" in row) == (adaptation == "daan")
    total = row["ce_audio"] + row["ce_visual"]
    if adaptation is None:
        assert clf.criterion_ is None
        assert "alpha" not in row
    else:
        assert row[adaptation] > 0
        if variant == "paper":
            assert row["alpha"] == 0.1
        total += row["alpha"] * row[adaptation]
    # The released code's α grows from step to step, and a mean of products is no product of means.
    assert row["train_loss"] == pytest.approx(total, rel=1e-4 if variant == "paper" else 1e-3)


@pytest.mark.parametrize(
    ("adaptation", "alpha"), [("lmmd", 1.0), ("mmd", 1.0), ("coral", 30.0), ("cmd", 3.0)]
)
def test_alpha_brings_the_domains_together(domains, adaptation, alpha):
    X_vis, X_aud, y = domains
    parameters = {**VECTORS, "max_epochs": 20, "n_layers": 0}
    end = [
        FDANClassifier(**parameters, adaptation=adaptation, alpha=a)
        .fit(X_vis, X_aud, y)
        .history_[-1, adaptation]
        for a in (0.0, alpha)
    ]
    assert end[1] < 0.8 * end[0]


def test_layers_are_summed(domains):
    X_vis, X_aud, y = domains
    seen = []

    class Spy(FDANClassifier):
        def _loss_terms(self, output, y):
            loss, terms = super()._loss_terms(output, y)
            with torch.no_grad():
                one = AdaptationLoss("mmd", 1, 16, 3)
                each = [one([z], output.logits, y, 0.0) for z in output.adapted()]
            seen.append((len(each), float(sum(each)), terms["mmd"].item()))
            return loss, terms

    Spy(**VECTORS, adaptation="mmd", n_layers=3).fit(X_vis, X_aud, y)
    for n, expected, got in seen:
        assert n == 3
        assert got == pytest.approx(expected, rel=1e-6)


def test_no_adaptation_is_alpha_0(domains):
    X_vis, X_aud, y = domains
    nothing = FDANClassifier(**VECTORS, adaptation=None).fit(X_vis, X_aud, y)
    nought = FDANClassifier(**VECTORS, alpha=0).fit(X_vis, X_aud, y)
    np.testing.assert_allclose(nothing.predict_proba(X_aud), nought.predict_proba(X_aud))
    assert "lmmd" in nought.history_[-1]


def test_with_all_labels_dsan_is_lmmd(domains):
    X_vis, X_aud, y = domains
    by_name = {
        name: FDANClassifier(**VECTORS, adaptation=name, alpha=1.0).fit(X_vis, X_aud, y)
        for name in ("lmmd", "dsan")
    }
    np.testing.assert_allclose(
        by_name["dsan"].predict_proba(X_aud), by_name["lmmd"].predict_proba(X_aud), atol=1e-6
    )
    np.testing.assert_allclose(
        by_name["dsan"].history_[:, "dsan"], by_name["lmmd"].history_[:, "lmmd"], rtol=1e-5
    )


@pytest.mark.parametrize("adaptation", ["dann", "daan"])
def test_discriminators_are_trained_against_the_features(domains, adaptation):
    X_vis, X_aud, y = domains
    initial, progress = [], []

    class Spy(FDANClassifier):
        def _make_criterion(self):
            criterion = super()._make_criterion()
            initial.extend(p.detach().clone() for p in criterion.parameters())
            criterion.register_forward_pre_hook(lambda module, args: progress.append(args[3]))
            return criterion

    parameters = {**VECTORS, "max_epochs": 4, "batch_size": 60}
    clf = Spy(**parameters, adaptation=adaptation, alpha=1.0).fit(X_vis, X_aud, y)
    trained = list(clf.criterion_.parameters())
    assert trained
    assert not any(map(torch.equal, initial, trained))
    # One batch an epoch; the coefficient of the reversal is made of these.
    np.testing.assert_allclose(progress, np.arange(4) / 4)
    assert clf.history_[0, adaptation] == pytest.approx(math.log(2), abs=0.1)


def test_the_first_epoch_reverses_nothing(domains):
    """The coefficient starts at 0: the features of one step don't depend on alpha."""
    X_vis, X_aud, y = domains
    parameters = {**VECTORS, "max_epochs": 1, "batch_size": 60}
    first, second = (
        FDANClassifier(**parameters, adaptation="dann", alpha=alpha).fit(X_vis, X_aud, y)
        for alpha in (0.0, 100.0)
    )
    np.testing.assert_allclose(first.predict_proba(X_aud), second.predict_proba(X_aud), atol=1e-6)
    parameters["max_epochs"] = 5
    first, second = (
        FDANClassifier(**parameters, adaptation="dann", alpha=alpha).fit(X_vis, X_aud, y)
        for alpha in (0.0, 10.0)
    )
    assert not np.allclose(first.predict_proba(X_aud), second.predict_proba(X_aud), atol=1e-4)


def test_mu_is_updated_once_an_epoch(domains):
    X_vis, X_aud, y = domains
    seen = []

    class Spy(FDANClassifier):
        def _loss_terms(self, output, y):
            loss, terms = super()._loss_terms(output, y)
            seen.append((len(self.history_), float(terms["mu"])))
            return loss, terms

    clf = Spy(**VECTORS, adaptation="daan", alpha=1.0, n_layers=2).fit(X_vis, X_aud, y)
    clf.partial_fit(X_vis, X_aud, y_true=y)  # beyond max_epochs, where progress stands still
    clf.partial_fit(X_vis, X_aud, y_true=y)
    by_epoch = [{mu for epoch, mu in seen if epoch == n} for n in range(1, 6)]
    assert [len(values) for values in by_epoch] == [1] * 5
    mu = clf.history_[:, "mu"]
    np.testing.assert_allclose(mu, [values.pop() for values in by_epoch])
    assert mu[0] == 0.5
    assert len(set(mu)) == 5
    assert min(mu) >= 0
    assert max(mu) <= 1


def test_official_attention_stays_frozen_from_the_start(domains):
    X_vis, X_aud, y = domains
    initial = {}

    class Spy(FDANClassifier):
        def _make_module(self):
            module = super()._make_module()
            initial.update(copy.deepcopy(module.state_dict()))
            return module

    clf = Spy(**VECTORS, variant="official", weight_decay=0.1).fit(X_vis, X_aud, y)
    for name, value in clf.module_.state_dict().items():
        trained = not name.startswith(("attention", "inputs"))
        assert torch.equal(value, initial[name]) != trained, name
    frozen = {id(p) for p in clf.module_.attention.parameters()}
    optimised = {id(p) for group in clf.optimizer_.param_groups for p in group["params"]}
    assert not frozen & optimised
    # Prediction is bottleneck and classifier.
    with torch.inference_mode():
        z = clf.module_.encode("audio", torch.from_numpy(X_aud))
        expected = clf.module_.classifier(z).softmax(1)
    np.testing.assert_allclose(clf.predict_proba(X_aud), expected.numpy(), atol=1e-5)


# ---------------------------------------------------------------------- rows without a label


@pytest.mark.parametrize(
    ("adaptation", "alpha", "ramp"),
    [("dsan", 1.0, "dsan"), ("mmd", 1.0, None), ("dann", 3.0, None)],
)
def test_voices_without_labels_are_told_apart(adaptation, alpha, ramp):
    X_vis, X_aud, y = make_domains(120)
    score = {}
    for a in (0.0, alpha):
        clf = FDANClassifier(
            **{**VECTORS, "max_epochs": 40, "batch_size": 30, "bottleneck": 32},
            adaptation=adaptation,
            alpha=a,
            ramp=ramp,
            n_layers=0,
            shared_bottleneck=True,
        )
        clf.fit(X_vis, X_aud, y_vis=y, y_aud=[None] * len(y))
        score[a] = clf.score(X_aud, y)
        assert set(clf.history_[:, "ce_audio"]) == {0.0}
    assert score[0.0] < 0.8
    assert score[alpha] > 0.93
    # Voices that took no part in the training.
    _, X_new, y_new = make_domains(120, seed=1)
    assert clf.score(X_new, y_new) > 0.9


def test_the_forms_of_a_missing_label_agree(domains):
    X_vis, X_aud, y = domains
    n = len(y)
    labels = [
        [None] * n,
        np.full(n, -1),
        np.full(n, np.nan),
        [None, np.nan, -1] * (n // 3),
        np.full(n, -1).astype(object),
    ]
    parameters = {**VECTORS, "max_epochs": 2}
    fitted = [
        FDANClassifier(**parameters, adaptation="dsan").fit(X_vis, X_aud, y_vis=y, y_aud=y_aud)
        for y_aud in labels
    ]
    table, both, _ = stack_modalities(visual=(X_vis, hide(y, [])), audio=(X_aud, labels[0]))
    fitted.append(FDANClassifier(**parameters, adaptation="dsan").fit(table, both))
    code = np.searchsorted(np.unique(y), y)
    fitted.append(
        FDANClassifier(**parameters, adaptation="dsan").fit(X_vis, X_aud, (code, np.full(n, -1)))
    )
    expected = fitted[0].predict_proba(X_aud)
    for clf in fitted:
        np.testing.assert_array_equal(clf.predict_proba(X_aud), expected)
    assert fitted[0].classes_.tolist() == sorted(set(y))
    assert fitted[-1].classes_.tolist() == [0, 1, 2]
    assert fitted[0].predict(X_aud).dtype.kind == y.dtype.kind


@pytest.mark.parametrize("adaptation", WITHOUT_LABELS)
@pytest.mark.parametrize("variant", ["paper", "official"])
def test_some_rows_without_a_label(domains, adaptation, variant):
    """Paired rows, every third without label: both its cells take part in adaptation."""
    X_vis, X_aud, y = domains
    parameters = {**VECTORS, "max_epochs": 15}
    clf = FDANClassifier(**parameters, adaptation=adaptation, variant=variant, alpha=0.1)
    clf.fit(make_table(visual=X_vis, audio=X_aud), hide(y, np.s_[::4]))
    assert clf.score(X_aud, y) > 0.8
    assert np.isfinite(clf.history_[:, "train_loss"]).all()


@pytest.mark.parametrize("adaptation", ["lmmd", None])
def test_without_a_use_for_them_missing_labels_are_an_error(domains, adaptation):
    X_vis, X_aud, y = domains
    clf = FDANClassifier(**VECTORS, adaptation=adaptation)
    with pytest.raises(ValueError, match=r'y is missing .* in row 7; set adaptation="dsan"'):
        clf.fit(X_vis, X_aud, hide(y, [7, 9]))
    with pytest.raises(ValueError, match=r"y_aud is missing .* in row 0;"):
        clf.fit(X_vis, X_aud, y_vis=y, y_aud=[None] * len(y))
    # -1 is a class like any other there.
    clf.fit(X_vis, X_aud, np.where(y == "joy", -1, 1))
    assert clf.classes_.tolist() == [-1, 1]


def test_minus_one_is_a_class_where_it_must_be(domains):
    X_vis, X_aud, y = domains
    code = np.where(y == "joy", -1, 1)
    clf = FDANClassifier(**{**VECTORS, "max_epochs": 1}, adaptation="dsan")
    # A binary pair, as in scikit-learn's own checks.
    assert clf.fit(X_vis, X_aud, code).classes_.tolist() == [-1, 1]
    assert clf.fit(X_vis, X_aud, y_vis=code, y_aud=code).classes_.tolist() == [-1, 1]
    code[:6] = 0
    with pytest.warns(UserWarning, match="y holds -1 in"):
        assert clf.fit(X_vis, X_aud, code).classes_.tolist() == [0, 1]
    with pytest.raises(ValueError, match="one class: 'joy' beside unlabelled"):
        clf.fit(X_vis, X_aud, y_vis=np.full(len(y), "joy"), y_aud=np.full(len(y), -1))
    # partial_fit knows the classes.
    pair = np.where(y == "joy", -1, 1)
    first = clone(clf).partial_fit(X_vis, X_aud, y_true=pair, classes=[0, 1])
    assert first.classes_.tolist() == [0, 1]
    first.partial_fit(X_vis, X_aud, y_true=pair)
    second = clone(clf).partial_fit(X_vis, X_aud, y_true=pair, classes=[-1, 0, 1])
    assert second.classes_.tolist() == [-1, 0, 1]


def test_no_label_at_all(domains):
    X_vis, X_aud, y = domains
    clf = FDANClassifier(**VECTORS, adaptation="dsan")
    with pytest.raises(ValueError, match="at least two classes; y holds no label beside unlabel"):
        clf.fit(X_vis, X_aud, [None] * len(y))
    with pytest.raises(ValueError, match="one class: 'joy' beside unlabelled"):
        clf.fit(X_vis, X_aud, hide(y, y != "joy"))


def test_batches_without_a_labelled_row(domains):
    X_vis, X_aud, y = domains
    y_aud = hide(y, np.s_[3:])  # one labelled voice a class
    clf = FDANClassifier(
        **{**VECTORS, "batch_size": 6, "max_epochs": 12}, adaptation="dsan", alpha=0.1
    )
    clf.fit(X_vis, X_aud, y_vis=y, y_aud=y_aud)
    assert clf.predict(X_aud[:3]).tolist() == y[:3].tolist()
    balanced = clone(clf).set_params(class_weight="balanced", n_layers=2, max_epochs=2)
    balanced.fit(X_vis, X_aud, y_vis=y, y_aud=y_aud)
    assert np.isfinite(balanced.predict_proba(X_aud)).all()


def test_class_weights_count_labelled_rows_only(domains):
    X_vis, X_aud, y = domains
    y_aud = hide(y, np.flatnonzero(y == "joy")[2:])
    clf = FDANClassifier(**VECTORS, adaptation="dsan", class_weight="balanced")
    clf.fit(X_vis, X_aud, y_vis=y, y_aud=y_aud)
    # 20 anger, 20 fear, 2 joy: weights inverse to the counts.
    weights = clf._class_weights["audio"].numpy()
    np.testing.assert_allclose(weights, 42 / 3 / np.array([20, 20, 2]), rtol=1e-6)
    clf.fit(X_vis, X_aud, y_vis=y, y_aud=[None] * len(y))
    assert clf._class_weights["audio"] is None
    assert clf._class_weights["visual"] is not None


@pytest.mark.parametrize("adaptation", ["dsan", "daan"])
def test_a_class_that_only_faces_show(domains, adaptation):
    X_vis, X_aud, y = domains
    heard = y != "joy"
    clf = FDANClassifier(**VECTORS, adaptation=adaptation, alpha=0.3)
    clf.fit(X_vis, X_aud[heard], y_vis=y, y_aud=hide(y, np.s_[::2])[heard])
    assert clf.classes_.tolist() == sorted(set(y))
    assert np.isfinite(clf.predict_proba(X_aud)).all()


def test_the_bank_of_a_modality_with_few_or_no_labels(domains):
    X_vis, X_aud, y = domains

    def bank(y_aud, bank_size):
        clf = FDANClassifier(**VECTORS, adaptation="dsan", bank_size=bank_size)
        clf.fit(X_vis, X_aud, y_vis=y, y_aud=y_aud)
        with torch.inference_mode():
            z = clf.module_.encode("audio", torch.from_numpy(X_aud)).numpy()
        features = clf.reference_bank_["audio"][0]
        assert clf.reference_bank_["visual"].shape == (1, min(bank_size, len(y)), 16)
        distance = np.abs(features[:, None] - z[None]).max(2)
        assert distance.min(1).max() < 1e-5
        return distance.argmin(1)

    rows = bank([None] * len(y), 21)
    assert len(set(rows)) == 21
    assert set(np.diff(rows)) != {1}  # drawn at random
    assert len(bank([None] * len(y), 300)) == len(y)
    # Labelled rows first, balanced over the classes, and others in the room that is left.
    rows = bank(hide(y, np.s_[30:]), 21)
    assert len(rows) == 21
    assert (rows < 30).all()
    assert np.unique(y[rows], return_counts=True)[1].tolist() == [7, 7, 7]
    rows = bank(hide(y, np.s_[3:]), 21)
    assert sorted(rows[:3]) == [0, 1, 2]
    assert len(set(rows)) == 21


def test_early_stopping_validates_on_labelled_rows(domains):
    X_vis, X_aud, y = domains
    seen = []

    class Spy(FDANClassifier):
        def _validation_samples(self, samples, lead, held):
            seen.append((lead, held.rows, len(samples["audio"])))
            return super()._validation_samples(samples, lead, held)

    parameters = {**VECTORS, "adaptation": "dsan", "early_stopping": True, "n_iter_no_change": 2}
    clf = Spy(**parameters, validation_fraction=0.4).fit(
        X_vis, X_aud, y_vis=y, y_aud=hide(y, np.s_[15:])
    )
    ((lead, rows, n_audio),) = seen
    assert lead == "audio"
    assert n_audio == len(y)
    assert len(rows) == 6
    # Rows of the voices follow those of the faces.
    assert set(rows) <= set(range(len(y), len(y) + 15))
    assert np.isfinite(clf.history_[:, "valid_uar"]).all()
    with pytest.raises(ValueError, match="labelled audio rows to validate on"):
        Spy(**parameters).fit(X_vis, X_aud, y_vis=y, y_aud=[None] * len(y))


def test_partial_fit_without_labels(domains):
    X_vis, X_aud, y = domains
    nothing = [None] * len(y)
    clf = FDANClassifier(**VECTORS, adaptation="dsan", alpha=0.3)
    with pytest.raises(ValueError, match="y holds no label; give classes="):
        clf.partial_fit(X_vis, X_aud, y_true=nothing)
    clf.partial_fit(X_vis, X_aud, y_true=nothing, classes=np.unique(y))
    assert clf.history_[0, "ce_audio"] == 0
    clf.partial_fit(X_vis, X_aud, y_vis=y, y_aud=nothing)
    clf.partial_fit(X_vis, X_aud, y_vis=y, y_aud=hide(y, np.s_[::2]))
    assert clf.classes_.tolist() == np.unique(y).tolist()
    assert (np.array(clf.history_[1:, "ce_visual"]) > 0).all()


def test_voices_alone_need_no_adaptation(domains):
    _, X_aud, y = domains
    clf = FDANClassifier(**{**VECTORS, "max_epochs": 10}, adaptation="daan")
    clf.fit(X_aud, hide(y, np.s_[::2]))
    assert clf.score(X_aud, y) > 0.8
    assert "daan" not in clf.history_[-1]


# ---------------------------------------------------------------------- parameters and copies


@pytest.mark.parametrize("how", [copy.deepcopy, lambda clf: pickle.loads(pickle.dumps(clf))])
def test_a_copy_goes_on_with_its_discriminators(domains, how):
    X_vis, X_aud, y = domains
    clf = FDANClassifier(**VECTORS, adaptation="daan", alpha=1.0, shared_bottleneck=True)
    clf.fit(X_vis, X_aud, y)
    copied = how(clf)
    for model in (clf, copied):
        model.partial_fit(X_vis, X_aud, y_true=y)
    np.testing.assert_array_equal(copied.predict_proba(X_aud), clf.predict_proba(X_aud))
    assert copied.history_[-1, "mu"] == clf.history_[-1, "mu"] != 0.5
    theirs, ours = copied.criterion_.state_dict(), clf.criterion_.state_dict()
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())
    # The copy's optimiser holds the copy's discriminators.
    optimised = {id(p) for group in copied.optimizer_.param_groups for p in group["params"]}
    assert {id(p) for p in copied.criterion_.parameters()} <= optimised


def test_a_prediction_leaves_a_shared_bottleneck_to_be_trained(domains):
    X_vis, X_aud, y = domains
    clf = FDANClassifier(**VECTORS, shared_bottleneck=True).fit(X_vis, X_aud, y)
    before = {name: (type(p), p.dtype) for name, p in clf.module_.named_parameters()}
    clf.predict(X_aud)
    assert {name: (type(p), p.dtype) for name, p in clf.module_.named_parameters()} == before
    clf.partial_fit(X_vis, X_aud, y_true=y)


def test_one_bottleneck_for_both(domains):
    X_vis, X_aud, y = domains
    clf = FDANClassifier(**VECTORS, shared_bottleneck=True).fit(X_vis, X_aud, y)
    assert clf.module_.bottlenecks["audio"] is clf.module_.bottlenecks["visual"]
    x = clf.module_.inputs["audio"](torch.from_numpy(X_aud)).double()
    weight, bias = (p.detach().double() for p in clf.module_.bottlenecks["visual"].parameters())
    z = torch.relu(x @ weight.T + bias)
    bypass = copy.copy(clf).set_params(inference="bypass")
    module = copy.deepcopy(clf.module_).double()
    with torch.inference_mode():
        expected = module.classifier(module.adapt({"audio": z})["audio"][-1]).softmax(1)
    np.testing.assert_allclose(bypass.predict_proba(X_aud), expected.numpy(), atol=1e-6)
    assert clone(clf).fit(X_aud, y).score(X_aud, y) > 0.5  # one modality: nothing to share
    with pytest.raises(ValueError, match=r"shared_bottleneck=True needs .* got 3 visual and 2"):
        clone(clf).fit(np.c_[X_vis, X_vis[:, :1]], X_aud, y)


def test_ablations_are_ordinary_classifiers(domains):
    X_vis, X_aud, y = domains
    for clf, changed in (
        (FDANClassifier.fdan1(**VECTORS), {"n_layers": 0}),
        (FDANClassifier.fdan2(**VECTORS), {"alpha": 0}),
    ):
        assert type(clf) is FDANClassifier
        assert clf.get_params() == FDANClassifier(**VECTORS, **changed).get_params()
        assert clone(clf).get_params() == clf.get_params()
        assert "lmmd" in clone(clf).fit(X_vis, X_aud, y).history_[-1]
    with pytest.raises(TypeError, match=r"multiple values.*'n_layers'"):
        FDANClassifier.fdan1(n_layers=2)
    with pytest.raises(TypeError, match=r"multiple values.*'alpha'"):
        FDANClassifier.fdan2(alpha=1)

    class Mine(FDANClassifier):
        pass

    assert type(Mine.fdan1()) is Mine


def test_the_recipe_of_dsan(domains):
    X_vis, X_aud, y = domains
    clf = FDANClassifier.dsan(**VECTORS)
    recipe = {"alpha": 0.5, "n_layers": 0, "weight_decay": 5e-4, "ramp": "dsan"}
    assert recipe.items() <= clf.get_params().items()
    assert VECTORS.items() <= clf.get_params().items()
    assert clone(clf).get_params() == clf.get_params()
    clf.fit(X_vis, X_aud, y_vis=y, y_aud=[None] * len(y))
    weights = [0.5 * math.tanh(5 * epoch / 3) for epoch in range(3)]
    np.testing.assert_allclose(clf.history_[:, "alpha"], weights)
    assert clf.reference_bank_ == {}


def test_unknown_adaptation(domains):
    X_vis, X_aud, y = domains
    with pytest.raises(ValueError, match=r"adaptation='ot' is unknown; choose one of 'lmmd'.*None"):
        FDANClassifier(**VECTORS, adaptation="ot").fit(X_vis, X_aud, y)


def test_fidelity():
    assert FDANClassifier.fidelity == "partial"


def test_collapse_message_names_alpha_only_where_there_is_one():
    assert "alpha=2" in FDANClassifier(alpha=2)._collapse_message(0.0)
    assert "alpha" not in FDANClassifier(adaptation=None)._collapse_message(0.0)


@pytest.mark.parametrize(
    ("labels", "told"), [((-1, 0, 1), True), ((-2, -1, 3), True), ((-1, 1, 2), False)]
)
def test_minus_one_that_may_be_a_class_is_told(labels, told):
    y = np.tile(labels, 8)
    X = np.random.default_rng(0).normal(size=(24, 6))
    halves = {"visual": slice(3), "audio": slice(3, 6)}
    clf = FDANClassifier(**halves, adaptation="mmd", bottleneck=8, max_epochs=1, verbose=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clf.fit(X, y)
        clf.partial_fit(X, y)
    assert [w.filename for w in caught if "holds -1 in 8 of 24" in str(w.message)] == (
        [__file__] if told else []
    )
    assert len(clf.classes_) == 2
