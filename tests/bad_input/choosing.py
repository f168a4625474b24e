"""Splits, searches, scores and the selection of features."""

import json

import numpy as np
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from bad_input.shared import Case, fdan
from skfdan import AudioHoldout, make_table, uar_score, war_score, weighted_f1_score
from skfdan.feature_selection import (
    INCASelector,
    inca_leaky_cross_val_predict,
    make_inca_pipeline,
    nca_weights,
)
from skfdan.model_selection import (
    FDANSearchCV,
    load_splits,
    make_protocol,
    make_row_ids,
    save_splits,
)


def _unpaired(c: Case):
    from skfdan import unpair

    return unpair(c.table, c.y, c.speakers)


def _split(cv, *args, **kwargs):
    return list(cv.split(*args, **kwargs))


def _saved(c: Case) -> str:
    path = c.tmp / "splits.json"
    save_splits(path, KFold(3), c.clips, X=c.X)
    return str(path)


def _altered_splits(c: Case):
    path = c.tmp / "splits.json"
    save_splits(path, KFold(3), c.clips, X=c.X)
    path.write_text(path.read_text().replace("clip00", "clip99"))
    load_splits(path, c.clips)


def _newer_splits(c: Case):
    path = c.tmp / "splits.json"
    save_splits(path, KFold(3), c.clips, X=c.X)
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"format_version": 99}))
    load_splits(path, c.clips)


def _search(error_score):
    def do(c: Case):
        # lr=1e30 diverges in its first steps, lr=0.01 does not.
        rates = {"lr": [1e30, 0.01]}
        search = GridSearchCV(fdan(max_epochs=3), rates, cv=KFold(2), error_score=error_score)
        search.fit(c.X, c.y)
        scores = search.cv_results_["mean_test_score"]
        assert np.isnan(scores[0])
        assert search.best_params_ == {"lr": 0.01}

    return do


def _leaky(c: Case):
    pipeline = make_inca_pipeline()
    pipeline.set_params(features="passthrough", selection=INCASelector(k_min=2, k_max=3, cv=2))
    predicted = inca_leaky_cross_val_predict(pipeline, c.X, c.y, cv=2)
    assert predicted.shape == (12,)


CASES = {
    # -------------------------------------------------------------- searching
    "`GridSearchCV` in which a candidate fails, with `error_score=nan`": _search(np.nan),
    '`GridSearchCV` in which a candidate fails, with `error_score="raise"`': _search("raise"),
    "`cross_validate` with a score that does not exist": lambda c: cross_validate(
        fdan(), c.X, c.y, cv=2, scoring="UAR"
    ),
    "`FDANSearchCV` with an impossible `stack`": lambda c: FDANSearchCV(
        fdan(), {"lr": [0.01]}, stack=0
    ).fit(c.X, c.y),
    # -------------------------------------------------------------- splits
    "`AudioHoldout` on rows that hold a face and a voice": lambda c: _split(
        AudioHoldout(KFold(2)), c.table, c.y
    ),
    "`AudioHoldout` on an array": lambda c: _split(AudioHoldout(KFold(2)), c.X, c.y),
    "`AudioHoldout` on a table whose voices are all missing": lambda c: _split(
        AudioHoldout(KFold(2)), make_table(visual=c.faces), c.y
    ),
    '`AudioHoldout(cv, visual="disjoint")` without groups': lambda c: _split(
        AudioHoldout(KFold(2), visual="disjoint"), _unpaired(c)[0], _unpaired(c)[1]
    ),
    "`make_protocol` with an unknown name": lambda c: make_protocol("loso"),
    "`make_protocol` with an argument that is not the protocol's": lambda c: make_protocol(
        "paper", dev="test"
    ),
    "`make_protocol` with an impossible number of splits": lambda c: make_protocol(
        "disjoint", n_splits=1
    ),
    '`make_protocol("meld-official")` without parts': lambda c: make_protocol("meld-official"),
    '`make_protocol("meld-official")`, then a table of other length': lambda c: _split(
        make_protocol("meld-official", parts=["train", "test"]), c.voices
    ),
    "`make_row_ids` with too few clips": lambda c: make_row_ids(c.voices, c.clips[:3]),
    "`make_row_ids` on a row without cells": lambda c: make_row_ids(
        make_table(audio=["a.wav", None]), ["a", "b"]
    ),
    "`save_splits` with a splitter and no table": lambda c: save_splits(
        c.tmp / "s.json", KFold(3), c.clips
    ),
    "`save_splits` with the same id twice": lambda c: save_splits(
        c.tmp / "s.json", KFold(3), ["a"] * 12, X=c.X
    ),
    "`save_splits` with a row in both parts of a fold": lambda c: save_splits(
        c.tmp / "s.json", [([0, 1], [1, 2])], c.clips
    ),
    "`load_splits` of a file that is not there": lambda c: load_splits(c.tmp / "s.json", c.clips),
    "`load_splits` of some other file": lambda c: load_splits(
        c.written("s.json", '{"a": 1}'), c.clips
    ),
    "`load_splits` of a file of a newer version": _newer_splits,
    "`load_splits` of a file that was changed": _altered_splits,
    "`load_splits` when rows are gone": lambda c: load_splits(_saved(c), c.clips[:-1]),
    "`load_splits` when there are more rows": lambda c: load_splits(_saved(c), [*c.clips, "new"]),
    # -------------------------------------------------------------- scores
    "`war_score` of different lengths": lambda c: war_score(c.y, c.y[:3]),
    "`uar_score` of different lengths": lambda c: uar_score(c.y, c.y[:3]),
    "`weighted_f1_score` of different lengths": lambda c: weighted_f1_score(c.y, c.y[:3]),
    "`uar_score` with labels missing": lambda c: uar_score(["joy", None], ["joy", "joy"]),
    # -------------------------------------------------------------- features
    "`INCASelector` on one class": lambda c: INCASelector().fit(c.X, ["joy"] * 12),
    "`INCASelector(k_min=20, k_max=10)`": lambda c: INCASelector(k_min=20, k_max=10).fit(c.X, c.y),
    "`nca_weights` on one class": lambda c: nca_weights(c.X, ["joy"] * 12),
    "`make_inca_pipeline()` on rows without a voice": lambda c: make_inca_pipeline(verbose=0).fit(
        make_table(audio=[np.zeros(4000, np.float32), None]), ["joy", "fear"]
    ),
    "`inca_leaky_cross_val_predict`": _leaky,
    "`inca_leaky_cross_val_predict` without an INCASelector": lambda c: (
        inca_leaky_cross_val_predict(make_pipeline(SVC()), c.X, c.y)
    ),
}
