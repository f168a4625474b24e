"""Which rows early stopping holds out."""

import numpy as np
import pytest
from sklearn import config_context
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    ShuffleSplit,
    StratifiedShuffleSplit,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import skfdan.classifiers.base as base
from skfdan import AudioHoldout, FDANClassifier, make_table, unpair
from skfdan.classifiers._samples import ModalitySamples
from skfdan.classifiers._validation import hold_out

SMALL = {"max_epochs": 1, "bottleneck": 8, "random_state": 0, "verbose": 0}


def held_rows(y, fraction=0.1, seed=0, groups=None):
    y = np.asarray(y)
    cells = np.zeros((len(y), 1), dtype=np.float32)
    samples = {"audio": ModalitySamples(cells, np.arange(len(y)))}
    rng = np.random.RandomState(seed)
    train, valid = hold_out(samples, "audio", y, groups, fraction, rng)
    assert not set(train["audio"].rows) & set(valid.rows)
    assert len(train["audio"]) + len(valid) == len(y)
    return valid.rows


def test_a_class_of_one_row_trains_and_the_others_are_stratified():
    y = np.repeat([0, 1, 2, 3], [40, 40, 10, 1])
    for seed in range(40):
        held = held_rows(y, seed=seed)
        assert np.bincount(y[held], minlength=4).tolist() in (
            [4, 4, 2, 0],
            [5, 4, 1, 0],
            [4, 5, 1, 0],
        )


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 0.8])
@pytest.mark.parametrize(
    "counts", [[40, 40, 3, 1], [100, 2], [2, 1, 1, 1, 1, 1, 1, 1], [3, 3, 3, 3], [30, 2, 2, 2, 2]]
)
def test_some_row_of_every_class_trains(counts, fraction):
    y = np.repeat(np.arange(len(counts)), counts)
    if len(y) - np.ceil(fraction * len(y)) < len(counts) <= np.ceil(fraction * len(y)):
        with pytest.raises(ValueError, match="lower it"):
            held_rows(y, fraction)
        return
    for seed in range(20):
        held = held_rows(y, fraction, seed)
        assert 1 <= len(held) <= np.ceil(fraction * len(y))
        assert len(np.setdiff1d(y, np.delete(y, held))) == 0


def test_where_every_class_has_one_row_one_is_lost():
    assert len(held_rows([0, 1])) == 1


def test_splits_are_those_of_scikit_learn_where_these_lose_no_class():
    y = np.repeat([0, 1, 2], [20, 15, 9])
    for fraction, kind in ((0.2, StratifiedShuffleSplit), (0.04, ShuffleSplit)):
        for seed in range(10):
            drawn = np.random.RandomState(seed).randint(2**31 - 1)
            splitter = kind(1, test_size=fraction, random_state=drawn)
            _, expected = next(splitter.split(y, y))
            assert set(held_rows(y, fraction, seed)) == set(expected)


def test_a_fraction_that_leaves_too_little_is_refused():
    message = r"validation_fraction=0\.95 leaves 2 of 40 labelled audio rows to train on, and there"
    with pytest.raises(ValueError, match=message):
        held_rows(np.arange(40) % 4, 0.95)
    with pytest.raises(ValueError, match=r"validation_fraction=0\.95 holds out all 4 groups"):
        held_rows(np.arange(40) % 4, 0.95, groups=np.arange(40) // 10)


@pytest.mark.parametrize("routing", [True, False])
def test_groups_of_a_search_reach_early_stopping_by_routing_alone(monkeypatch, routing):
    rng = np.random.default_rng(0)
    clips = make_table(visual=list(rng.normal(size=(32, 3))), audio=list(rng.normal(size=(32, 4))))
    table, y, speakers = unpair(clips, np.arange(32) % 4, np.arange(32) // 4)
    seen = []

    def spy(samples, lead, y, groups, *rest):
        train, held = hold_out(samples, lead, y, groups, *rest)
        seen.append((groups, set().union(*(s.rows for s in train.values())), set(held.rows)))
        return train, held

    monkeypatch.setattr(base, "hold_out", spy)
    with config_context(enable_metadata_routing=routing):
        clf = FDANClassifier(**SMALL, early_stopping=True)
        if routing:
            clf.set_fit_request(groups=True)
        cv = AudioHoldout(GroupKFold(2), visual="disjoint")
        pipe = make_pipeline(FunctionTransformer(), clf)
        for estimator, name in ((clf, "alpha"), (pipe, "fdanclassifier__alpha")):
            search = GridSearchCV(estimator, {name: [0.0]}, cv=cv, error_score="raise")
            search.fit(table, y, groups=speakers)
        if routing:
            cross_validate(pipe, table, y, params={"groups": speakers}, cv=cv, error_score="raise")
    assert len(seen) == (8 if routing else 6)
    for groups, train, held in seen:
        if not routing:
            assert groups is None
            continue
        assert len(set(groups)) in (4, 8)
        assert not set(groups[[*train]]) & set(groups[[*held]])
