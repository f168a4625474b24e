"""Searches on a cluster of real processes: same results, data sent once, a worker killed."""

import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import counted_tables
import joblib
import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline

from skfdan import FDANClassifier, make_table
from skfdan.datasets import make_emotion_clips
from skfdan.model_selection import FDANSearchCV
from skfdan.preprocessing import MelSpectrogram

distributed = pytest.importorskip("distributed", reason='needs pip install "skfdan[dask]"')
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow
LONG = pytest.mark.long
GRID = {"alpha": [1e-3, 1e-2, 1e-1], "weight_decay": [1e-4, 1e-2]}


@pytest.fixture
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        # Dask drops copies that no waiting task needs, and on a slow machine sends one again.
        client.amm.stop()
        yield client


@pytest.fixture(scope="module")
def data():
    """A table, its labels, and folds of it."""
    rng = np.random.default_rng(0)
    y = np.array(["anger", "joy"] * 100)
    shift = (y == "joy")[:, None]
    X = make_table(
        visual=rng.normal(size=(200, 8)) + shift, audio=rng.normal(size=(200, 40)) + shift
    )
    return X, y, list(StratifiedKFold(3).split(X, y))


def make_search(kind, cv, grid=GRID, **more):
    clf = FDANClassifier(
        bottleneck=8, max_epochs=2, lr=0.01, device="cpu", random_state=0, verbose=0
    )
    return kind(clf, grid, cv=cv, **more)


def same_scores(one, other):
    names = [k for k in one.cv_results_ if k.startswith("split")]
    return len(names) == one.n_splits_ and all(
        np.array_equal(one.cv_results_[k], other.cv_results_[k]) for k in names
    )


@pytest.mark.parametrize("kind", [pytest.param(GridSearchCV, marks=LONG), FDANSearchCV])
def test_the_cluster_finds_what_one_process_finds_and_gets_the_table_once(client, data, kind):
    X, y, splits = data
    here = make_search(kind, splits).fit(X, y)
    client.run(counted_tables.journeys)
    counted_tables.journeys()
    counted = counted_tables.CountedTable(X)
    with joblib.parallel_config(backend="dask"):
        there = make_search(kind, splits).fit(counted, y)
    assert same_scores(here, there)
    assert np.array_equal(here.predict_proba(X), there.predict_proba(X))
    arrivals = [c["in"] for c in client.run(counted_tables.journeys).values()]
    assert max(arrivals) == 1, arrivals  # of 18 fits
    assert counted_tables.journeys()["out"] == 1


def test_a_killed_worker_loses_nothing(client, data, tmp_path):
    X, y, splits = data
    grid = {"alpha": [1e-3, 1e-2, 1e-1]}
    here = make_search(GridSearchCV, splits, grid, scoring="accuracy").fit(X, y)
    marker = tmp_path / "killed"
    workers = set(client.run(os.getpid).values())
    everything = [X, y, *itertools.chain.from_iterable(splits)]
    scoring = functools.partial(counted_tables.deadly_accuracy, marker=marker)
    with joblib.parallel_config(backend="dask", scatter=everything):
        there = make_search(GridSearchCV, splits, grid, scoring=scoring).fit(X, y)
    assert counted_tables.killed(marker) in workers
    assert same_scores(here, there)


@LONG
def test_a_pipeline_from_files_works_on_the_cluster(client, tmp_path):
    clips = make_emotion_clips(
        *(12, 4), emotions=["anger", "happiness"], root=tmp_path, duration=0.5, random_state=0
    )
    X, y = clips.table[["audio"]], clips.target
    mel = MelSpectrogram(n_mels=16, duration=0.5, cache_dir=tmp_path / "cache", verbose=0)
    clf = FDANClassifier(
        backbone="cnn", weights=None, input_size=16, max_epochs=1, random_state=0, verbose=0
    )
    pipe = make_pipeline(ColumnTransformer([("audio", mel, ["audio"])]), clf)
    search = GridSearchCV(pipe, {"fdanclassifier__lr": [1e-3, 1e-2]}, cv=2)
    here = search.fit(X, y).cv_results_["mean_test_score"]
    with joblib.parallel_config(backend="dask"):
        there = search.fit(X, y).cv_results_["mean_test_score"]
    assert np.array_equal(here, there)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 12


def run_benchmark(root, out, *more):
    """Return the predictions of every cell, by its name."""
    command = [
        *(sys.executable, str(ROOT / "benchmarks" / "run.py"), "--corpus", "folder"),
        *("--root", str(root), "--out", str(out), "--cache", str(out.parent / "cache")),
        *("--table", "4", "--protocol", "paper", "--estimators", "FDAN1", "FDAN2", "--quick"),
        *("--epochs", "1", "--input-size", "16", "--folds", "2", "--seeds", "1", *more),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = [json.loads(p.read_text()) for p in (out / "cells").glob("[!.]*.json")]
    return {c["name"]: (c["ids"], c["y_pred"]) for c in cells}


@LONG
def test_the_benchmarks_run_on_the_cluster(tmp_path):
    clips = make_emotion_clips(
        *(24, 4),
        emotions=["anger", "sadness"],
        root=tmp_path / "made",
        duration=0.5,
        random_state=0,
    )
    for clip in clips.frame.itertuples():
        target = tmp_path / "clips" / clip.emotion / f"{clip.clip}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip.visual, target)
    here = run_benchmark(tmp_path / "clips", tmp_path / "here")
    there = run_benchmark(
        tmp_path / "clips", tmp_path / "there", "--dask", "local", "--n-jobs", "2"
    )
    assert len(here) == 4
    assert here == there
