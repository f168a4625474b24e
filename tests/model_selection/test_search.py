import copy
import pickle
import warnings

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import SelectKBest
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, GroupKFold, HalvingGridSearchCV, KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skfdan import SCORING, AudioHoldout, FDANClassifier, FDANSearchCV, stack_modalities
from skfdan.classifiers import _stacked
from skfdan.classifiers._training import DivergenceError

SMALL = {
    "bottleneck": 8,
    "max_epochs": 4,
    "batch_size": 8,
    "lr": 0.02,
    "momentum": 0.9,
    "random_state": 0,
    "verbose": 0,
}
GRID = {"alpha": [1e-3, 1.0], "weight_decay": [1e-3, 0.1], "lr": [0.02, 0.2]}
SIDES = {"visual": slice(0, 7), "audio": slice(7, 12)}


def unpaired(n_audio=24, n_visual=30):
    """Faces and voices of their own rows, some of them hard to tell apart; four speakers."""
    rng = np.random.default_rng(0)
    parts = {}
    for m, n, d in (("visual", n_visual, 7), ("audio", n_audio, 5)):
        y = np.arange(n) % 3
        cells = (rng.normal(size=(n, d)) + 2 * np.eye(3, d)[y]).astype(np.float32)
        parts[m] = list(cells), y, np.arange(n) // 3 % 4
    return stack_modalities(**parts)


def matrix(n=36):
    rng = np.random.default_rng(1)
    y = np.arange(n) % 3
    return rng.normal(size=(n, 12)) + 1.5 * np.eye(3, 12)[y], y


@pytest.fixture
def stacks(monkeypatch):
    """Note how many candidates were fitted together, stack by stack."""
    sizes = []
    original = _stacked.fit_together

    def fit_together(candidates, X, y):
        sizes.append(len(candidates))
        return original(candidates, X, y)

    monkeypatch.setattr(_stacked, "fit_together", fit_together)
    return sizes


def assert_same_search(found, expected):
    assert found.cv_results_.keys() == expected.cv_results_.keys()
    for key, values in expected.cv_results_.items():
        if key.endswith("_time"):
            assert (found.cv_results_[key] >= 0).all()
        elif key == "params":
            assert found.cv_results_[key] == values
        elif np.asarray(values).dtype.kind == "f" and not np.ma.isMaskedArray(values):
            np.testing.assert_array_equal(found.cv_results_[key], values, err_msg=key)
        else:
            assert list(found.cv_results_[key]) == list(values), key
    for name in ("best_index_", "best_score_", "best_params_", "n_splits_", "multimetric_"):
        np.testing.assert_equal(getattr(found, name, None), getattr(expected, name, None), name)


def both(estimator, grid, X, y, groups=None, **settings):
    found = FDANSearchCV(estimator, grid, **settings)
    own = ("stack", "halving")
    expected = GridSearchCV(estimator, grid, **{k: v for k, v in settings.items() if k not in own})
    return found.fit(X, y, groups=groups), expected.fit(X, y, groups=groups)


def test_it_finds_what_grid_search_finds(stacks):
    X, y, groups = unpaired()
    found, expected = both(
        *(FDANClassifier(**SMALL), GRID, X, y, groups),
        cv=AudioHoldout(GroupKFold(3), visual="disjoint"),
        scoring=SCORING,
        refit="UAR",
        error_score="raise",
        stack=3,
    )
    assert stacks == [3, 3, 2] * 3
    assert_same_search(found, expected)
    scores = found.cv_results_["mean_test_UAR"]
    assert len(np.unique(scores)) > 2  # the candidates do differ
    assert found.cv_results_["mean_fit_time"].min() > 0
    assert found.scorer_.keys() == expected.scorer_.keys()
    assert found.refit_time_ > 0
    audio = X[30:]
    np.testing.assert_array_equal(found.predict_proba(audio), expected.predict_proba(audio))
    np.testing.assert_array_equal(found.transform(audio), expected.transform(audio))
    assert found.score(audio, y[30:]) == expected.score(audio, y[30:])
    np.testing.assert_array_equal(found.classes_, [0, 1, 2])
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.predict(audio), found.predict(audio))


@pytest.mark.parametrize("scoring", [None, "balanced_accuracy", lambda e, X, y: e.score(X, y)])
def test_one_score_and_training_scores(scoring, stacks):
    X, y = matrix()
    found, expected = both(
        *(FDANClassifier(**SMALL | SIDES), {"alpha": [1e-3, 10.0]}, X, y),
        cv=3,
        scoring=scoring,
        return_train_score=True,
        error_score="raise",
    )
    assert stacks == [2] * 3
    assert_same_search(found, expected)
    assert np.isfinite(found.cv_results_["mean_train_score"]).all()


def test_without_a_refit_there_is_no_best_estimator():
    X, y = matrix()
    settings = {"cv": 2, "scoring": SCORING, "refit": False}
    found, expected = both(FDANClassifier(**SMALL | SIDES), {"alpha": [0, 1]}, X, y, **settings)
    assert_same_search(found, expected)
    assert not hasattr(found, "best_estimator_")
    assert not hasattr(found, "best_index_")


def test_a_callable_may_choose():
    X, y = matrix()
    settings = {"cv": 2, "refit": lambda results: 1}
    found, expected = both(FDANClassifier(**SMALL | SIDES), {"alpha": [0, 1]}, X, y, **settings)
    assert_same_search(found, expected)
    assert found.best_estimator_.alpha == 1


@pytest.mark.parametrize("scoring", [None, SCORING, lambda e, X, y: {"UAR": e.score(X, y)}])
@pytest.mark.parametrize("error_score", [np.nan, 0.125])
def test_a_failing_candidate_gets_the_error_score(scoring, error_score):
    X, y = matrix()
    grid = [{"alpha": [1e-3, -1.0]}, {"lr": [1e20, 0.1]}]
    settings = {"cv": 2, "scoring": scoring, "error_score": error_score}
    settings["refit"] = "UAR" if scoring is not None else True
    settings["return_train_score"] = True
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found, expected = both(FDANClassifier(**SMALL | SIDES), grid, X, y, **settings)
    assert not any("one at a time" in str(w.message) for w in caught)
    ours, theirs = (str(w.message) for w in caught if w.category is FitFailedWarning)
    for message in (ours, theirs):
        assert "4 fits failed out of a total of 8" in message
        assert "alpha=-1.0: it must be a number" in message
        assert "Training diverged: the loss is" in message
    assert_same_search(found, expected)
    key = "mean_test_score" if scoring is None else "mean_test_UAR"
    failed = found.cv_results_[key][[1, 2]]
    assert np.isnan(failed).all() if np.isnan(error_score) else (failed == 0.125).all()
    assert (found.cv_results_[key][[0, 3]] > 0.3).all()


def test_errors_are_raised_if_so_wanted_and_if_there_is_nothing_else():
    X, y = matrix()
    clf = FDANClassifier(**SMALL | SIDES)
    with pytest.raises(DivergenceError, match="the loss is"):
        FDANSearchCV(clf, {"lr": [0.1, 1e20]}, cv=2, error_score="raise").fit(X, y)
    with pytest.raises(ValueError, match="All the 4 fits failed"):
        FDANSearchCV(clf, {"lr": [1e20, 1e25]}, cv=2).fit(X, y)
    with pytest.raises(ValueError, match="'beta'"):
        FDANSearchCV(clf, {"beta": [1, 2]}, cv=2).fit(X, y)


def test_a_failing_scorer():
    X, y = matrix()

    def fails(estimator, X, y):
        raise RuntimeError("no score today")

    settings = {"cv": 2, "scoring": fails, "refit": False}
    with pytest.warns(UserWarning, match="non-finite"), pytest.warns(match="no score today"):
        found, expected = both(FDANClassifier(**SMALL | SIDES), {"alpha": [0, 1]}, X, y, **settings)
    assert_same_search(found, expected)
    assert np.isnan(found.cv_results_["mean_test_score"]).all()


class Scaled(TransformerMixin, BaseEstimator):
    """Scales vectors in the cells of a column; notes what it does."""

    seen: list = []  # noqa: RUF012 - shared by the clones of a search

    def __init__(self, factor=1.0):
        self.factor = factor

    def fit(self, X, y=None):
        self.seen.append("fit")
        cells = [c for c in np.asarray(X, dtype=object)[:, 0] if c is not None]
        self.scale_ = self.factor / np.std(cells)
        return self

    def transform(self, X):
        self.seen.append("transform")
        out = np.empty((len(X), 1), dtype=object)
        out[:, 0] = [
            None if c is None else (self.scale_ * c).astype(np.float32)
            for c in np.asarray(X, dtype=object)[:, 0]
        ]
        return out


def test_steps_before_the_classifier_run_once_a_fold(stacks):
    X, y, groups = unpaired()
    prepare = ColumnTransformer([("v", Scaled(), ["visual"]), ("a", Scaled(), ["audio"])])
    estimator = make_pipeline(prepare, FDANClassifier(**SMALL))
    grid = {
        "fdanclassifier__alpha": [1e-3, 1e-1],
        "fdanclassifier__weight_decay": [1e-3, 1e-1],
        "columntransformer__a__factor": [1.0, 5.0],
    }
    settings = {"cv": AudioHoldout(GroupKFold(3)), "scoring": SCORING, "refit": False}
    Scaled.seen.clear()
    found = FDANSearchCV(estimator, grid, **settings).fit(X, y, groups=groups)
    # Two columns, three folds, two groups of four candidates.
    assert Scaled.seen.count("fit") == 2 * 3 * 2
    assert Scaled.seen.count("transform") == 2 * (2 * 3 * 2)
    assert stacks == [4] * 6
    expected = GridSearchCV(estimator, grid, **settings).fit(X, y, groups=groups)
    assert_same_search(found, expected)


def test_a_scorer_sees_the_whole_pipeline():
    X, y = matrix()
    seen = []

    def scorer(estimator, X, y):
        seen.append(estimator)
        assert isinstance(estimator.named_steps["scale"], StandardScaler)
        assert X.shape[1] == 12
        assert estimator[:-1].transform(X).shape[1] == 12
        return balanced_accuracy_score(y, estimator.predict(X))

    steps = [("scale", StandardScaler()), ("none", "passthrough")]
    estimator = Pipeline([*steps, ("clf", FDANClassifier(**SMALL | SIDES))])
    settings = {"cv": 2, "scoring": scorer, "error_score": "raise"}
    found, expected = both(estimator, {"clf__alpha": [0, 1]}, X, y, **settings)
    assert_same_search(found, expected)
    assert all(type(e) is Pipeline for e in seen)


def test_a_step_that_fails_fails_for_all():
    X, y = matrix()
    estimator = make_pipeline(SelectKBest(), FDANClassifier(**SMALL))
    grid = {"selectkbest__k": ["all", -3], "fdanclassifier__alpha": [0, 1]}
    with pytest.warns(FitFailedWarning), pytest.warns(UserWarning, match="non-finite"):
        found, expected = both(estimator, grid, X, y, cv=2)
    assert_same_search(found, expected)
    assert np.isnan(found.cv_results_["mean_test_score"]).sum() == 2


def test_candidates_that_differ_in_more_form_groups(stacks):
    X, y = matrix()
    grid = [
        {"n_layers": [0, 1], "alpha": [0, 1, 10]},
        {"adaptation": ["coral"], "alpha": [0, 1]},
        {"bottleneck": [4]},
    ]
    with pytest.warns(UserWarning, match=r"adaptation='coral' .* \(2 of 9 candidates\)"):
        found, expected = both(FDANClassifier(**SMALL | SIDES), grid, X, y, cv=2)
    assert stacks == [3] * 4
    assert_same_search(found, expected)


@pytest.mark.parametrize(
    ("estimator", "grid", "reason"),
    [
        (FDANClassifier(**SMALL | {"random_state": None}), {"alpha": [0, 1]}, "random_state=None"),
        (FDANClassifier(**SMALL), {"n_layers": [0, 1]}, "no two candidates differ in alpha"),
        (DummyClassifier(), {"strategy": ["prior", "stratified"]}, "DummyClassifier is not"),
        (make_pipeline(DummyClassifier()), {"dummyclassifier__random_state": [0, 1]}, "Dummy"),
    ],
)
def test_one_warning_says_why_nothing_is_stacked(estimator, grid, reason, stacks):
    X, y = matrix()
    with pytest.warns(UserWarning, match="one at a time, as GridSearchCV does") as caught:
        FDANSearchCV(estimator, grid, cv=2).fit(X, y)
    assert len(caught) == 1
    assert reason in str(caught[0].message)
    assert caught[0].filename == __file__
    assert stacks == []


def test_a_warning_that_comes_with_the_data():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 8, 8)), np.arange(12) % 2
    small = SMALL | {"backbone": "cnn", "weights": None, "input_size": None, "max_epochs": 1}
    with pytest.warns(UserWarning, match="backbones would be trained"):
        found, expected = both(FDANClassifier(**small), {"alpha": [0, 1]}, X, y, cv=2)
    assert_same_search(found, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = FDANClassifier(**small | {"backbone_trainable": False})
        assert_same_search(*both(clf, {"alpha": [0, 1]}, X, y, cv=2))


def test_nothing_is_said_of_what_was_not_asked_for(stacks):
    X, y = matrix()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, expected = both(FDANClassifier(**SMALL), {"alpha": [0, 1]}, X, y, cv=2, stack=1)
        FDANSearchCV(FDANClassifier(**SMALL | {"random_state": None}), {}, cv=2).fit(X, y)
    assert stacks == []
    assert_same_search(found, expected)


def test_arguments_of_fit_go_the_ordinary_way(stacks):
    X, y = matrix()
    groups = np.arange(36) % 4
    with config_context(enable_metadata_routing=True):
        clf = FDANClassifier(**SMALL).set_fit_request(groups=True)
        search = FDANSearchCV(clf, {"alpha": [0, 1]}, cv=GroupKFold(2))
        with pytest.warns(UserWarning, match="fit is given groups"):
            search.fit(X, y, groups=groups)
        clf = FDANClassifier(**SMALL).set_fit_request(groups=False)
        FDANSearchCV(clf, {"alpha": [0, 1]}, cv=GroupKFold(2)).fit(X, y, groups=groups)
    assert stacks == [2, 2]


def test_callbacks_of_scikit_learn_go_the_ordinary_way(stacks):
    if not hasattr(FDANSearchCV, "set_callbacks"):
        pytest.skip("this scikit-learn has no callbacks")

    class Counts:
        tasks = 0

        def setup(self, estimator, context):
            pass

        def on_fit_task_begin(self, *args, **kwargs):
            pass

        def on_fit_task_end(self, *args, **kwargs):
            Counts.tasks += 1

        def teardown(self, estimator, context):
            pass

    X, y = matrix()
    search = FDANSearchCV(FDANClassifier(**SMALL), {"alpha": [0, 1]}, cv=2)
    search.set_callbacks(Counts()).fit(X, y)
    assert Counts.tasks > 4
    assert stacks == []


@pytest.mark.slow
def test_folds_in_parallel():
    X, y, groups = unpaired()
    settings = {"cv": AudioHoldout(GroupKFold(3)), "n_jobs": 2, "scoring": SCORING, "refit": "UAR"}
    found, expected = both(FDANClassifier(**SMALL), GRID, X, y, groups, **settings)
    assert_same_search(found, expected)


def test_messages(capsys):
    X, y = matrix()
    FDANSearchCV(FDANClassifier(**SMALL), {"alpha": [0, 1]}, cv=2, verbose=2).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Fitting 2 folds for each of 2 candidates, totalling 4 fits"
    assert [line[:9] for line in lines[1:]] == ["[CV 1/2] ", "[CV 2/2] "]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"stack": 0}, "stack=0: it must be a whole number, at least 1"),
        ({"stack": 2.0}, "stack=2.0"),
        ({"stack": None}, "stack=None"),
        ({"halving": 1}, "halving=1: it must be a whole number, at least 2, or None"),
        ({"halving": True}, "halving=True"),
        ({"cv": "five"}, "cv"),
    ],
)
def test_parameters_are_checked(parameters, message):
    X, y = matrix()
    with pytest.raises(ValueError, match=message):
        FDANSearchCV(FDANClassifier(), {"alpha": [0, 1]}, **parameters).fit(X, y)


def test_it_can_be_cloned():
    search = FDANSearchCV(FDANClassifier(**SMALL), GRID, stack=4, halving=2, cv=3)
    assert clone(search).get_params(deep=False).keys() == search.get_params(deep=False).keys()
    assert clone(search).stack == 4
    assert copy.deepcopy(search).halving == 2


@pytest.mark.slow
@pytest.mark.parametrize("scoring", [None, pytest.param(SCORING, marks=pytest.mark.long)])
def test_halving_is_that_of_scikit_learn(scoring, stacks):
    X, y = matrix(48)
    clf = FDANClassifier(**SMALL | SIDES | {"max_epochs": 9})
    grid = {"alpha": [1e-3, 1.0, 100.0], "weight_decay": [1e-3, 0.3], "lr": [1e-4, 0.02]}
    refit = True if scoring is None else "WAR"
    found = FDANSearchCV(clf, grid, cv=KFold(3), scoring=scoring, refit=refit, halving=3)
    found.fit(X, y)
    expected = HalvingGridSearchCV(
        clf, grid, cv=KFold(3), scoring="accuracy", resource="max_epochs", max_resources=9, factor=3
    ).fit(X, y)
    results, others = found.cv_results_, expected.cv_results_
    assert results["n_resources"].tolist() == [1] * 12 + [3] * 4 + [9] * 2
    key = "mean_test_score" if scoring is None else "mean_test_WAR"
    np.testing.assert_array_equal(results["iter"], others["iter"])
    np.testing.assert_array_equal(results[key][:12], others["mean_test_score"][:12])
    assert stacks[:6] == [6, 6] * 3
    # Those that went on were the best; scikit-learn may choose others among equals.
    for step, kept in ((0, 4), (1, 2)):
        here = np.flatnonzero(results["iter"] == step)
        later = [p | {"max_epochs": 0} for p in np.array(results["params"])[here[-1] + 1 :][:kept]]
        scores = [
            results[key][i] for i in here if results["params"][i] | {"max_epochs": 0} in later
        ]
        assert sorted(scores) == sorted(results[key][here])[-kept:]
    last = results[key][-2:]
    assert found.best_index_ == 16 + last.argmax()
    assert found.best_score_ == last.max()
    assert found.best_params_ == results["params"][found.best_index_]
    assert found.best_estimator_.max_epochs == 9


def test_halving_by_a_score_that_refit_names():
    X, y = matrix()
    clf, grid = FDANClassifier(**SMALL | SIDES | {"max_epochs": 4}), {"alpha": [1e-3, 1.0]}
    settings = {"cv": 2, "halving": 2, "scoring": "accuracy"}
    named = FDANSearchCV(clf, grid, refit="accuracy", **settings).fit(X, y)
    plain = FDANSearchCV(clf, grid, **settings).fit(X, y)
    assert named.best_params_ == plain.best_params_
    assert named.best_score_ == plain.best_score_


def test_halving_within_a_pipeline_and_with_failures():
    X, y = matrix()
    estimator = make_pipeline(StandardScaler(), FDANClassifier(**SMALL | SIDES))
    grid = {"fdanclassifier__lr": [1e25, 0.02, 1e20, 0.1]}
    search = FDANSearchCV(estimator, grid, cv=2, halving=2)
    with pytest.warns(FitFailedWarning), pytest.warns(UserWarning, match="non-finite"):
        search.fit(X, y)
    lrs = [p["fdanclassifier__lr"] for p in search.cv_results_["params"]]
    assert lrs[:6] == [1e25, 0.02, 1e20, 0.1, 0.02, 0.1]
    epochs = [p["fdanclassifier__max_epochs"] for p in search.cv_results_["params"]]
    assert epochs == search.cv_results_["n_resources"].tolist() == [1] * 4 + [2] * 2 + [4]


@pytest.mark.parametrize(
    ("estimator", "grid", "settings", "message"),
    [
        (FDANClassifier(**SMALL), {"max_epochs": [1, 2]}, {}, "halving varies max_epochs"),
        (DummyClassifier(), {"random_state": [0, 1]}, {}, "no parameter max_epochs"),
        (
            FDANClassifier(**SMALL),
            {"alpha": [0, 1]},
            {"scoring": SCORING, "refit": False},
            "there is no 'score'",
        ),
    ],
)
def test_halving_needs_epochs_and_one_score(estimator, grid, settings, message):
    X, y = matrix()
    with pytest.raises(ValueError, match=message):
        FDANSearchCV(estimator, grid, cv=2, halving=2, **settings).fit(X, y)
