import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from skfdan import make_table
from skfdan.classifiers import FDRLClassifier, MISAClassifier
from skfdan.inspection import ClassDiscrepancyDisplay
from skfdan.nn import lmmd


def make_features():
    rng = np.random.default_rng(0)
    y = {"visual": np.arange(18) % 3, "audio": np.arange(10) % 3}
    z = {m: rng.normal(size=(len(v), 4)) + (m == "audio") * v[:, None] for m, v in y.items()}
    return z, y


def by_loops(z, y, label):
    """One term of Eq. 8, sample by sample."""
    together = np.concatenate([z["visual"], z["audio"]])
    n = len(together)
    bandwidth = sum(((a - b) ** 2).sum() for a in together for b in together) / (n * n - n)

    def mean_kernel(left, right):
        total = 0.0
        for a in left:
            for b in right:
                distance = ((a - b) ** 2).sum()
                total += sum(np.exp(-distance / (bandwidth * 2.0**k)) for k in range(-2, 3))
        return total / (len(left) * len(right))

    v, a = (z[m][y[m] == label] for m in ("visual", "audio"))
    return mean_kernel(v, v) + mean_kernel(a, a) - 2 * mean_kernel(v, a)


def test_bars_are_the_terms():
    z, y = make_features()
    display = ClassDiscrepancyDisplay.from_features(z, y)
    heights = [bar.get_height() for bar in display.bars_]
    np.testing.assert_allclose(heights, [by_loops(z, y, c) for c in range(3)], rtol=1e-9)
    names = [t.get_text() for t in display.ax_.get_xticklabels()]
    assert names == ["0 (6+4)", "1 (6+3)", "2 (6+3)"]


def test_line_is_the_lmmd():
    z, y = make_features()
    display = ClassDiscrepancyDisplay.from_features(z, y)
    arguments = [torch.from_numpy(d[m]) for d in (z, y) for m in ("visual", "audio")]
    assert display.line_.get_ydata()[0] == pytest.approx(float(lmmd(*arguments, n_classes=3)))


def test_a_class_that_a_modality_lacks():
    z, y = make_features()
    y["audio"][y["audio"] == 2] = 1
    display = ClassDiscrepancyDisplay.from_features(z, y)
    assert np.isnan(display.discrepancies).tolist() == [False, False, True]
    assert [t.get_text() for t in display.ax_.texts] == ["none"]
    arguments = [torch.from_numpy(d[m]) for d in (z, y) for m in ("visual", "audio")]
    assert display.line_.get_ydata()[0] == pytest.approx(float(lmmd(*arguments, n_classes=3)))


def test_estimator_and_axes(fitted, table, clips):
    _, ax = plt.subplots()
    display = ClassDiscrepancyDisplay.from_estimator(
        fitted, table, clips[2], max_samples=20, random_state=0, ax=ax
    )
    assert display.ax_ is ax
    assert display.counts.sum(0).tolist() == [20, 20]
    assert display.classes.tolist() == fitted.classes_.tolist()
    assert (display.discrepancies > 0).all()
    with pytest.raises(ValueError, match="there are audio features only"):
        ClassDiscrepancyDisplay.from_estimator(fitted, make_table(audio=clips[1]), clips[2])


def test_two_of_three_modalities():
    z, y = make_features()
    rng = np.random.default_rng(1)
    z["text"], y["text"] = rng.normal(size=(12, 4)), np.arange(12) % 3
    with pytest.raises(ValueError, match="features of visual, audio, text, and modalities=None"):
        ClassDiscrepancyDisplay.from_features(z, y)
    for wrong in (("audio",), ("audio", "audio"), ("audio", "smell"), ("visual", "audio", "text")):
        with pytest.raises(ValueError, match="name two of them"):
            ClassDiscrepancyDisplay.from_features(z, y, modalities=wrong)
    display = ClassDiscrepancyDisplay.from_features(z, y, modalities=("text", "visual"))
    arguments = [torch.from_numpy(d[m]) for d in (z, y) for m in ("text", "visual")]
    assert display.line_.get_ydata()[0] == pytest.approx(float(lmmd(*arguments, n_classes=3)))
    assert display.counts.tolist() == [[4, 6]] * 3
    assert display.ax_.get_xlabel() == "Emotion (number of texts + faces)"
    assert display.ax_.get_ylabel().startswith("Discrepancy of texts and faces")


def test_joint_classifiers_show_what_is_shared():
    rng = np.random.default_rng(0)
    X = make_table(audio=rng.normal(size=(20, 4)), text=rng.normal(size=(20, 5)))
    y = np.tile(["anger", "joy"], 10)
    few = {"hidden": 8, "max_epochs": 1, "random_state": 0, "verbose": 0}
    clf = FDRLClassifier(**few).fit(X, y)
    display = ClassDiscrepancyDisplay.from_estimator(clf, X, y)
    assert display.modalities == ("audio", "text")
    with torch.inference_mode():
        shared = clf.module_.eval()(
            **{m: torch.from_numpy(np.stack(X[m])).float() for m in ("audio", "text")}
        ).shared
    expected = lmmd(*shared.values(), *[torch.arange(20) % 2] * 2, n_classes=2)
    assert display.line_.get_ydata()[0] == pytest.approx(float(expected), rel=1e-4)
    X["visual"] = list(rng.normal(size=(20, 3)))
    clf = MISAClassifier(ffn_dim=16, **few).fit(X, y)
    with pytest.raises(ValueError, match="name two of them"):
        ClassDiscrepancyDisplay.from_estimator(clf, X, y)
    display = ClassDiscrepancyDisplay.from_estimator(clf, X, y, modalities=("visual", "text"))
    assert display.counts.tolist() == [[10, 10], [10, 10]]
