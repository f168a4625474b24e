import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from torch.nn import functional as F

from classifiers.small_clips import EMOTIONS, QUICK, make_clips
from skfdan import FDANClassifier, make_table
from skfdan.nn import lmmd

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


def test_the_spread_of_features_is_the_mean_of_every_fourth_batch(clips):
    spreads, sizes = [], []

    class Watching(FDANClassifier):
        def get_loss(self, y_pred, y_true, X=None, training=False):
            last = [z[-1].detach().double().numpy() for z in y_pred.layers.values()]
            spreads.append(min(np.linalg.norm(z - z.mean(0)) / np.linalg.norm(z) for z in last))
            sizes.append(len(X))
            return super().get_loss(y_pred, y_true, X, training)

    X_vis, X_aud, y = clips
    clf = Watching(**QUICK | {"max_epochs": 1, "batch_size": 3}).fit(X_vis, X_aud, y)
    assert len(sizes) > 4
    expected = np.average(spreads[::4], weights=sizes[::4])
    assert clf.history_[-1]["feature_std"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 4.0])])
@pytest.mark.parametrize("y", [[0, 2, 1, 1], [0, -1, 1, -1], [-1, -1, -1, -1], []])
def test_cross_entropy_is_the_mean_of_the_labelled(clips, weights, y):
    clf = FDANClassifier(**QUICK | {"max_epochs": 1}).fit(*clips)
    clf._class_weights = {"audio": weights}
    y = torch.tensor(y, dtype=torch.long)
    logits = torch.randn(len(y), 3, requires_grad=True)
    log_p = np.log(torch.softmax(logits, 1).detach().double().numpy())
    w = np.ones(3) if weights is None else weights.numpy()
    each = [-w[c] * log_p[i, c] for i, c in enumerate(y.tolist()) if c >= 0]
    loss = clf._cross_entropy("audio", logits, y)
    loss.backward()
    assert loss.item() == pytest.approx(np.mean(each) if each else 0.0, rel=1e-5)
    assert torch.isfinite(logits.grad).all()


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


def test_a_callers_autocast_trains_and_predicts(clips):
    X_vis, X_aud, y = clips
    with torch.autocast("cpu", dtype=torch.bfloat16):
        clf = FDANClassifier(**QUICK).fit(X_vis, X_aud, y)
    assert {bank.dtype for bank in clf.reference_bank_.values()} == {np.dtype("float32")}
    assert clf.score(X_aud, y) > 0.5


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
    module = clf.module_.eval()
    with torch.inference_mode():
        x = module.inputs["audio"](torch.from_numpy(X_aud)[:, None])
        z = module.bottleneck(module.backbone(x))
    np.testing.assert_allclose(clf.transform(X_aud), z.numpy(), atol=1e-4)


class Alphas(Callback):
    """Collect α of every step."""

    def __init__(self):
        self.found = []

    def on_batch_end(self, net, **kwargs):
        self.found.append(net.history_[-1]["batches"][-1]["alpha"])


def test_official_ramp_goes_up_step_by_step(clips):
    X_vis, X_aud, y = clips
    settings = {**QUICK, "max_epochs": 3, "batch_size": 8, "variant": "official"}
    p = np.arange(15) / 15  # 40 voices are 5 steps of 8
    expected = 2 / (1 + np.exp(-p)) - 1
    whole, parts = Alphas(), Alphas()
    clf = FDANClassifier(**settings, alpha=2.0, callbacks=[whole]).fit(X_vis, X_aud, y)
    np.testing.assert_allclose(whole.found, 2 * expected, atol=1e-12)
    means = 2 * expected.reshape(3, 5).mean(1)
    np.testing.assert_allclose(clf.history_[:, "alpha"], means, rtol=1e-6)
    clf = FDANClassifier(**settings, alpha=1.0, callbacks=[parts])
    for _ in range(4):
        clf.partial_fit(X_vis, X_aud, y_true=y)
    np.testing.assert_allclose(parts.found, [*expected, *[np.tanh(0.5)] * 5], atol=1e-12)
    # A single epoch is not left without adaptation.
    one = FDANClassifier(**settings | {"max_epochs": 1}, alpha=1.0).fit(X_vis, X_aud, y)
    expected = 2 / (1 + np.exp(-np.arange(5) / 5)) - 1
    assert one.history_[0, "alpha"] == pytest.approx(expected.mean())


def test_paper_ramp_is_constant_within_an_epoch(clips):
    X_vis, X_aud, y = clips
    alphas = Alphas()
    settings = {**QUICK, "max_epochs": 2, "batch_size": 8}
    FDANClassifier(**settings, ramp="dsan", callbacks=[alphas]).fit(X_vis, X_aud, y)
    assert len(set(alphas.found[:5])) == len(set(alphas.found[5:])) == 1


@pytest.mark.parametrize("width", [0, -1, 2.5, True, "64"])
def test_ffn_dim_is_a_width(clips, width):
    with pytest.raises(ValueError, match=f"ffn_dim={width!r}: it must be a whole number, at least"):
        FDANClassifier(**QUICK, ffn_dim=width).fit(*clips)
    net = FDANClassifier(**QUICK | {"max_epochs": 1}, ffn_dim=np.int64(5)).fit(*clips).module_
    assert any(5 in p.shape for p in net.layers.parameters())


def test_early_stopping_keeps_the_bank_that_was_validated(clips, monkeypatch):
    X_vis, X_aud, y = clips
    seen = []
    validate = FDANClassifier._validation_uar

    def note(self, samples, labels):
        score = validate(self, samples, labels)
        seen.append((score, {m: bank.copy() for m, bank in self.reference_bank_.items()}))
        return score

    monkeypatch.setattr(FDANClassifier, "_validation_uar", note)
    settings = {**QUICK, "max_epochs": 6, "bank_size": 6, "lr": 1e-3}
    clf = FDANClassifier(**settings, early_stopping=True, validation_fraction=0.3)
    clf.fit(X_vis, X_aud, y)
    best = int(np.argmax([score for score, _ in seen]))
    assert best < len(seen) - 1
    assert clf.reference_bank_.keys() == {"visual", "audio"}
    for m, bank in seen[best][1].items():
        np.testing.assert_array_equal(clf.reference_bank_[m], bank)


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
    # Weights that decay by half in every step leave nothing; a large alpha alone ends now
    # here and now in a divergence, as rounding has it.
    strong = {**QUICK, "lr": 0.05, "momentum": 0.0, "weight_decay": 10.0}
    clf = FDANClassifier(**strong, lr_schedule="constant", n_layers=0, alpha=300.0)
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


class Spy(FDANClassifier):
    """Notes the LMMD of every step beside that of its features and of their directions."""

    def _loss_terms(self, output, y):
        loss, terms = super()._loss_terms(output, y)
        (z,) = output.adapted()
        labels = y["visual"], y["audio"]
        plain = lmmd(z["visual"], z["audio"], *labels, 4).item()
        unit = lmmd(F.normalize(z["visual"]), F.normalize(z["audio"]), *labels, 4).item()
        self.seen = [*getattr(self, "seen", []), (terms["lmmd"].item(), plain, unit)]
        return loss, terms


@pytest.mark.parametrize(("variant", "times"), [("paper", 1), ("official", 2)])
def test_the_variants_divide_lmmd_as_paper_and_code_do(clips, variant, times):
    """Voices of two of the four classes: Eq. 8 divides by 4, the released code by 2."""
    X_vis, X_aud, y = clips
    two = np.isin(y, EMOTIONS[:2])
    clf = Spy(**{**QUICK, "max_epochs": 1, "batch_size": 40}, variant=variant)
    clf.fit(X_vis, X_aud[two], y_vis=y, y_aud=y[two])
    for got, plain, _ in clf.seen:
        assert got == pytest.approx(times * plain, rel=1e-4)


@pytest.mark.parametrize("normalize", [False, True])
def test_features_are_normalised_for_lmmd_on_demand(clips, normalize):
    clf = Spy(**{**QUICK, "max_epochs": 1}, n_layers=0, lmmd_normalize=normalize).fit(*clips)
    for got, plain, unit in clf.seen:
        assert got == pytest.approx(unit if normalize else plain, rel=1e-4)
        assert unit != pytest.approx(plain, rel=1e-3)
