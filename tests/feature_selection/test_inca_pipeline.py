import numpy as np
import pytest
from sklearn import config_context
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GroupKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from skfdan import make_table
from skfdan.feature_selection import (
    INCASelector,
    inca_leaky_cross_val_predict,
    make_inca_pipeline,
)


@pytest.fixture
def problem():
    return make_classification(
        n_samples=90, n_features=20, n_informative=4, n_redundant=0, n_classes=3, random_state=3
    )


def test_noise_scores_by_chance_nested_and_far_above_leaky():
    rng = np.random.default_rng(0)
    X, y = rng.random((60, 1500)), np.arange(60) % 2
    pipeline = make_pipeline(
        INCASelector(k_min=10, k_max=50, step=10, max_iter=10, random_state=0),
        StandardScaler(),
        SVC(),
    )
    nested = accuracy_score(y, cross_val_predict(pipeline, X, y, cv=5))
    with pytest.warns(UserWarning, match="selects features with the labels of the test rows"):
        leaky = accuracy_score(y, inca_leaky_cross_val_predict(pipeline, X, y, cv=5))
    # Three standard deviations of 60 tosses.
    assert abs(nested - 0.5) < 3 * 0.5 / 60**0.5
    assert leaky > 0.8
    assert not hasattr(pipeline[0], "ranking_")


@pytest.mark.filterwarnings("ignore:inca_leaky_cross_val_predict selects")
def test_groups_reach_the_selector():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(36, 20)), np.tile(["anger", "joy"], 18)
    groups = np.repeat(np.arange(6), 6)
    seen = []

    class Watched(GroupKFold):
        def split(self, X, y=None, groups=None):
            seen.append(np.asarray(groups))
            return super().split(X, y, groups)

    selector = INCASelector(cv=Watched(3), k_min=2, k_max=4, random_state=0)
    pipeline = make_pipeline(selector, LogisticRegression())
    expected = inca_leaky_cross_val_predict(pipeline, X, y, cv=GroupKFold(3), groups=groups)
    assert seen
    np.testing.assert_array_equal(seen[0], groups)
    with config_context(enable_metadata_routing=True):
        selector.set_fit_request(groups=True)
        seen.clear()
        found = inca_leaky_cross_val_predict(pipeline, X, y, cv=GroupKFold(3), groups=groups)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(seen[0], groups)
        # Who asks for no groups gets none.
        pipeline.set_params(incaselector__cv=3)
        selector.set_fit_request(groups=False)
        assert len(inca_leaky_cross_val_predict(pipeline, X, y, cv=3, groups=groups)) == 36


def test_leaky_protocol_needs_the_selector(problem):
    with pytest.raises(
        ValueError, match=r"INCASelector step; got steps \['StandardScaler', 'SVC'\]"
    ):
        inca_leaky_cross_val_predict(make_pipeline(StandardScaler(), SVC()), *problem)


def test_kernel_is_cubic(problem):
    X, y = problem
    X = StandardScaler().fit_transform(X)
    svm = make_inca_pipeline()["classifier"].fit(X, y)
    by_hand = SVC(kernel=lambda a, b: (1 + a @ b.T / 20) ** 3).fit(X, y)
    np.testing.assert_allclose(svm.decision_function(X), by_hand.decision_function(X), atol=1e-6)


def test_pipeline_on_a_modality_table():
    rng = np.random.default_rng(0)
    y = np.array(["low", "high"] * 12)
    t = np.arange(3000) / 16000
    voices = [
        np.sin(2 * np.pi * (300 if label == "low" else 1500) * t * rng.uniform(0.9, 1.1))
        + 0.1 * rng.standard_normal(3000)
        for label in y
    ]
    table = make_table(visual=["a.mp4"] * 24, audio=voices)
    pipeline = make_inca_pipeline(random_state=0, verbose=0)
    pipeline.set_params(selection__k_max=120, selection__max_iter=5)
    assert cross_val_score(pipeline, table, y, cv=3).mean() > 0.9
    words = make_table(audio=voices, text=["so"] * 24)
    assert (pipeline.fit(words, y).predict(words) == y).all()
    by_column = cross_val_score(pipeline, table[["audio"]], y, cv=3)
    np.testing.assert_array_equal(cross_val_score(pipeline, table, y, cv=3), by_column)


def test_parameters_reach_their_steps(tmp_path):
    pipeline = make_inca_pipeline(n_jobs=2, cache_dir=tmp_path, random_state=7, verbose=0)
    features, selection = pipeline["features"], pipeline["selection"]
    assert (features.n_jobs, features.cache_dir, features.verbose) == (2, tmp_path, 0)
    assert (selection.n_jobs, selection.random_state) == (2, 7)
