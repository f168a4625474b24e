import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.cluster import KMeans
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError

from skfdan.inspection import ConfusionMatricesDisplay

TRUE = np.array(["fear", "joy", "joy", "anger", "joy", "fear", "anger", "joy"])
PREDICTED = {
    "FDAN": np.array(["fear", "joy", "anger", "anger", "joy", "joy", "anger", "fear"]),
    "voices": np.array(["joy"] * 8),
}


def count(true, predicted, labels):
    """Confusion matrix by looking at every pair."""
    return np.array(
        [
            [sum(t == r and p == c for t, p in zip(true, predicted, strict=True)) for c in labels]
            for r in labels
        ]
    )


@pytest.mark.parametrize("normalize", ["true", "pred", "all", None])
def test_numbers_in_cells(normalize):
    display = ConfusionMatricesDisplay.from_predictions(TRUE, PREDICTED, normalize=normalize)
    labels = ["anger", "fear", "joy"]
    for image, texts, predicted in zip(
        display.images_, display.texts_, PREDICTED.values(), strict=True
    ):
        expected = count(TRUE, predicted, labels).astype(float)
        if normalize == "true":
            expected /= expected.sum(1, keepdims=True)
        elif normalize == "pred":
            expected /= np.maximum(expected.sum(0, keepdims=True), 1)
        elif normalize == "all":
            expected /= len(TRUE)
        np.testing.assert_allclose(image.get_array(), expected)
        for text, value in zip(texts.ravel(), expected.ravel(), strict=True):
            assert float(text.get_text()) == pytest.approx(value, abs=0.0051)
        for axis in (image.axes.xaxis, image.axes.yaxis):
            assert [t.get_text() for t in axis.get_ticklabels()] == labels


def test_one_scale_for_all():
    display = ConfusionMatricesDisplay.from_predictions(TRUE, PREDICTED, normalize=None)
    assert {image.get_clim() for image in display.images_} == {(0, 4)}
    assert display.colorbar_.mappable is display.images_[0]
    assert len(display.figure_.axes) == 3
    display.plot(colorbar=False, include_values=False)
    assert display.colorbar_ is None
    assert display.texts_ == [None, None]


def test_titles_hold_war_and_uar():
    display = ConfusionMatricesDisplay.from_predictions(TRUE, PREDICTED)
    # By hand: 5 of 8 right; recalls 2/2, 1/2, 2/4.
    assert display.axes_[0].get_title() == "FDAN\nWAR 0.625   UAR 0.667"
    assert display.axes_[1].get_title() == "voices\nWAR 0.500   UAR 0.333"


def test_letters_can_be_read_on_their_cells():
    display = ConfusionMatricesDisplay.from_predictions(TRUE, PREDICTED, cmap="Greys")
    texts, matrix = display.texts_[1], display.confusion_matrices["voices"]
    assert {t.get_color() for t in texts[matrix == 1]} == {"white"}
    assert {t.get_color() for t in texts[matrix == 0]} == {"black"}


def test_order_and_unseen_labels():
    labels = ["joy", "sad", "fear", "anger"]
    display = ConfusionMatricesDisplay.from_predictions(TRUE, PREDICTED, labels=labels)
    assert display.display_labels.tolist() == labels
    assert (display.confusion_matrices["FDAN"][1] == 0).all()
    assert display.confusion_matrices["FDAN"][0].tolist() == [0.5, 0, 0.25, 0.25]


def test_integer_labels_and_many_classes():
    y = np.arange(30).repeat(2)
    display = ConfusionMatricesDisplay.from_predictions(y, {"same": y, "next": (y + 1) % 30})
    assert [t.get_text() for t in display.axes_[1].get_yticklabels()] == [str(c) for c in range(30)]
    assert np.diag(display.images_[0].get_array()).tolist() == [1] * 30


def test_axes_are_used_again():
    figure, axes = plt.subplots(1, 3)
    display = ConfusionMatricesDisplay.from_predictions(TRUE, PREDICTED, ax=axes[:2])
    assert display.figure_ is figure
    assert display.axes_.tolist() == axes[:2].tolist()
    display.plot(ax=axes[2])  # one axes is divided
    assert len(display.axes_) == 2
    assert not axes[2].axison
    with pytest.raises(ValueError, match="divided by another plot already"):
        display.plot(ax=axes[2])
    with pytest.raises(ValueError, match="ax holds 3 axes, but there are 2 panels"):
        display.plot(ax=axes)


def test_estimators():
    X = np.zeros((8, 1))
    models = {s: DummyClassifier(strategy="constant", constant=s).fit(X, TRUE) for s in ("joy",)}
    display = ConfusionMatricesDisplay.from_estimators(models, X, TRUE)
    assert display.confusion_matrices["joy"][:, 2].tolist() == [1, 1, 1]
    with pytest.raises(NotFittedError, match="'bad', a DummyClassifier, is not fitted"):
        ConfusionMatricesDisplay.from_estimators({"bad": DummyClassifier()}, X, TRUE)
    with pytest.raises(TypeError, match="'k' is no classifier: KMeans"):
        ConfusionMatricesDisplay.from_estimators({"k": KMeans()}, X, TRUE)
    with pytest.raises(TypeError, match="must map names to classifiers"):
        ConfusionMatricesDisplay.from_estimators([DummyClassifier()], X, TRUE)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y_pred": {"A": TRUE[:3]}}, ValueError, "y_pred of 'A' has 3 rows, but y_true has 8"),
        ({"y_pred": TRUE}, TypeError, "must map names of models to predictions"),
        ({"y_pred": {}}, ValueError, "holds no predictions"),
        ({"labels": ["joy", "fear"]}, ValueError, "y_true holds 'anger', which is not among"),
        ({"labels": ["joy", "joy"]}, ValueError, "names a class twice"),
        ({"normalize": "rows"}, ValueError, "normalize='rows' is unknown"),
        ({"y_true": [None, *TRUE[1:]]}, ValueError, r"y_true is missing .* in row 0"),
        ({"y_true": "joy"}, ValueError, "y_true must hold one label a row"),
        ({"y_true": TRUE[:, None]}, ValueError, r"it has shape \(8, 1\)"),
        ({"y_true": [], "y_pred": {"A": []}}, ValueError, "y_true has no rows"),
    ],
)
def test_errors(change, error, message):
    arguments = {"y_true": TRUE, "y_pred": PREDICTED} | change
    with pytest.raises(error, match=message):
        ConfusionMatricesDisplay.from_predictions(**arguments)
