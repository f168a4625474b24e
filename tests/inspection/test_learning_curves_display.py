import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skfdan import FDANClassifier
from skfdan.inspection import LearningCurvesDisplay
from skfdan.nn.adaptation import ADAPTATIONS

TERMS = {"train_loss", "ce_audio", "ce_visual", "lmmd", "alpha", "feature_std", "valid_uar"}
HISTORY = [
    {"epoch": 1, "dur": 0.1, "train_loss": 3.0, "ce_audio": 2.0, "coral": 9.0, "mu": 0.5},
    {"epoch": 2, "dur": 0.1, "train_loss": 2.0, "ce_audio": 1.0, "mu": 0.4, "extra": 1},
    {"epoch": 3, "dur": 0.1, "train_loss": 1.0, "ce_audio": 0.5, "coral": 7.0, "mu": 0.3},
]


def test_curves_are_the_history(fitted):
    display = LearningCurvesDisplay.from_estimator(fitted)
    assert set(display.lines_) == TERMS
    for name, line in display.lines_.items():
        assert line.get_xdata().tolist() == list(range(1, len(fitted.history_) + 1))
        np.testing.assert_array_equal(line.get_ydata(), fitted.history_[:, name])
    drawn = [line.get_label() for axis in display.axes_ for line in axis.lines]
    assert TERMS.issubset(drawn)
    named = [t.get_text() for axis in display.axes_ for t in axis.get_legend().get_texts()]
    assert TERMS.issubset(named)


def test_the_best_epoch_is_marked(fitted):
    display = LearningCurvesDisplay.from_estimator(fitted, terms=["valid_uar"])
    scores = fitted.history_[:, "valid_uar"]
    mark = display.axes_[0].lines[-1]
    assert mark.get_ydata()[0] == max(scores)
    assert mark.get_xdata()[0] == scores.index(max(scores)) + 1


def test_panels_and_gaps():
    display = LearningCurvesDisplay.from_history(HISTORY)
    assert display.panels == [
        ("Loss", ["train_loss"]),
        ("Cross-entropy", ["ce_audio"]),
        ("Adaptation", ["coral"]),
        ("Other terms", ["extra"]),
        ("Factor μ", ["mu"]),
    ]
    np.testing.assert_array_equal(display.lines_["coral"].get_ydata(), [9, np.nan, 7])
    assert display.lines_["extra"].get_marker() == "o"  # a single value is no line
    assert [axis.get_title() for axis in display.axes_] == [title for title, _ in display.panels]


def test_every_adaptation_loss_has_its_panel():
    display = LearningCurvesDisplay.from_history([dict.fromkeys(ADAPTATIONS, 1.0)] * 2)
    assert display.panels == [("Adaptation", [*ADAPTATIONS])]


def test_terms_and_frames():
    frame = pd.DataFrame(HISTORY)
    display = LearningCurvesDisplay.from_history(frame, terms=("mu", "train_loss"))
    assert list(display.lines_) == ["train_loss", "mu"]
    assert list(LearningCurvesDisplay.from_history(HISTORY, terms="mu").lines_) == ["mu"]


def test_curves_of_one_panel_differ_without_colour():
    history = [{"ce_a": 1.0, "ce_b": 2.0, "ce_c": 3.0}] * 2
    lines = LearningCurvesDisplay.from_history(history).axes_[0].lines
    assert len({line.get_linestyle() for line in lines}) == 3


def test_pipelines_searches_and_axes(fitted):
    class Search:
        best_estimator_ = make_pipeline(FunctionTransformer(), fitted)

    figure, axes = plt.subplots(1, 2)
    display = LearningCurvesDisplay.from_estimator(
        Search(), terms=["lmmd", "alpha"], ax=axes, line_kw={"lw": 5}
    )
    assert display.figure_ is figure
    assert display.axes_.tolist() == axes.tolist()
    assert display.lines_["lmmd"].get_linewidth() == 5
    again = display.plot(ax=axes)
    assert again is display
    assert len(axes[0].lines) == 2


def test_errors():
    with pytest.raises(NotFittedError):
        LearningCurvesDisplay.from_estimator(FDANClassifier())
    with pytest.raises(TypeError, match="got DummyClassifier"):
        LearningCurvesDisplay.from_estimator(DummyClassifier())
    with pytest.raises(ValueError, match=r"terms=\['lmd'\]: the history holds 'train_loss'"):
        LearningCurvesDisplay.from_history(HISTORY, terms=["lmd"])
    with pytest.raises(ValueError, match="got 0 rows"):
        LearningCurvesDisplay.from_history([])
    with pytest.raises(ValueError, match=r"holds no numbers; its keys are \['epoch'\]"):
        LearningCurvesDisplay.from_history([{"epoch": 1}])
