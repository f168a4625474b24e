import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.cluster import KMeans
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError

from skfdan.inspection import SpeakerScoresDisplay

RNG = np.random.default_rng(0)
TRUE = RNG.choice(["anger", "fear", "joy"], 120)
PREDICTED = np.where(RNG.random(120) < 0.6, TRUE, "joy")
SPEAKERS = RNG.choice(["Ann", "Bob", "Cy", "Di", "Eve"], 120, p=[0.4, 0.3, 0.2, 0.05, 0.05])


def by_hand(true, predicted):
    recalls = []
    for label in set(true):
        own = [p for t, p in zip(true, predicted, strict=True) if t == label]
        recalls.append(sum(p == label for p in own) / len(own))
    right = sum(t == p for t, p in zip(true, predicted, strict=True))
    return right / len(true), sum(recalls) / len(recalls)


def test_points_and_lines():
    display = SpeakerScoresDisplay.from_predictions(TRUE, PREDICTED, SPEAKERS)
    names = [t.get_text() for t in display.ax_.get_yticklabels()]
    assert len(names) == 5
    expected = []
    for name in names:
        speaker, n = name.removesuffix(")").split(" (n=")
        own = speaker == SPEAKERS
        assert int(n) == own.sum()
        expected.append(by_hand(TRUE[own], PREDICTED[own]))
    war, uar = np.transpose(expected)
    np.testing.assert_allclose(display.points_["WAR"].get_xdata(), war)
    np.testing.assert_allclose(display.points_["UAR"].get_xdata(), uar)
    assert (np.diff(uar) <= 0).all()
    low, high = display.ax_.get_ylim()
    assert low > high  # the best, at 0, is on top
    for name, score in zip(("WAR", "UAR"), by_hand(TRUE, PREDICTED), strict=True):
        assert display.lines_[name].get_xdata() == pytest.approx([score, score])
        assert f"{score:.3f}" in display.lines_[name].get_label()


def test_order():
    display = SpeakerScoresDisplay.from_predictions(TRUE, PREDICTED, SPEAKERS, sort_by="WAR")
    assert (np.diff(display.scores["WAR"]) <= 0).all()
    chosen = ["Eve", "Ann"]
    display = SpeakerScoresDisplay.from_predictions(
        TRUE, PREDICTED, SPEAKERS, speakers=chosen, sort_by=None
    )
    assert display.scores.index.tolist() == chosen
    assert display.overall["WAR"] == by_hand(TRUE, PREDICTED)[0]


def test_many_speakers_have_their_names():
    groups = np.arange(120)
    display = SpeakerScoresDisplay.from_predictions(TRUE, PREDICTED, groups)
    names = {t.get_text() for t in display.ax_.get_yticklabels()}
    assert names == {f"{g} (n=1)" for g in groups}
    assert display.figure_.get_figheight() <= 24


def test_estimator_and_axes():
    X = np.zeros((120, 1))
    model = DummyClassifier(strategy="constant", constant="joy").fit(X, TRUE)
    _, ax = plt.subplots()
    display = SpeakerScoresDisplay.from_estimator(model, X, TRUE, SPEAKERS, ax=ax, sort_by=None)
    assert display.ax_ is ax
    assert display.scores.index.tolist() == sorted(set(SPEAKERS))
    shares = [np.mean(TRUE[s == SPEAKERS] == "joy") for s in display.scores.index]
    np.testing.assert_allclose(display.points_["WAR"].get_xdata(), shares)
    with pytest.raises(NotFittedError):
        SpeakerScoresDisplay.from_estimator(DummyClassifier(), X, TRUE, SPEAKERS)
    with pytest.raises(TypeError, match="takes a classifier; got KMeans"):
        SpeakerScoresDisplay.from_estimator(KMeans(), X, TRUE, SPEAKERS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": SPEAKERS[:5]}, "groups has 5 rows, but y_true has 120"),
        ({"y_pred": PREDICTED[:5]}, "y_pred has 5 rows, but y_true has 120"),
        ({"groups": [None] * 120}, r"groups is missing \(NaN or None\) in row 0"),
        ({"groups": None}, "groups must hold one label a row; got None"),
        ({"speakers": ["Ann", "Zoe"]}, "speakers holds 'Zoe', which is not among the groups"),
        ({"speakers": []}, "speakers has no rows"),
        ({"sort_by": "wF1"}, "sort_by='wF1' must be"),
    ],
)
def test_errors(change, message):
    arguments = {"y_true": TRUE, "y_pred": PREDICTED, "groups": SPEAKERS} | change
    with pytest.raises(ValueError, match=message):
        SpeakerScoresDisplay.from_predictions(**arguments)
