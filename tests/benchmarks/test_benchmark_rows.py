"""Every method has its place: a tag, a line in the documentation, a row in the benchmark."""

import importlib
import sys
from pathlib import Path

import pandas as pd
import pytest
from sklearn.base import is_classifier
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline

from skfdan.utils.discovery import all_estimators

ROOT = Path(__file__).parents[2]
METHODS = {
    name: estimator
    for name, estimator in all_estimators().items()
    if hasattr(estimator, "fidelity")
    # A search takes its kind from what it is given.
    or (not issubclass(estimator, BaseSearchCV) and is_classifier(estimator()))
}


@pytest.fixture(scope="module")
def methods():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("_methods"), importlib.import_module("_setting")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_there_are_methods():
    assert {"FDANClassifier", "GMTCNetClassifier", "INCASelector"} <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_method_tells_its_fidelity(name):
    assert METHODS[name].fidelity in {"exact", "partial", "reconstructed", "style"}


@pytest.mark.parametrize("name", METHODS)
def test_method_is_documented(name):
    assert f"`{name}`" in (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")


def test_every_method_is_in_the_benchmark(methods):
    rows, setting = methods
    built = set()
    for method in rows.METHODS.values():
        estimator = method.build(setting.QUICK, None)
        steps = [s for _, s in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
        built |= {type(step).__name__ for step in steps}
        fidelity = {getattr(s, "fidelity", "") for s in steps} - {""}
        assert not fidelity or method.fidelity in fidelity
    assert set(METHODS) <= built


def test_every_row_has_a_method(methods):
    rows, _ = methods
    assert {row.method for row in rows.ROWS} == set(rows.METHODS)


def test_page_of_results_is_up_to_date():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        page = importlib.import_module("page")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    assert page.PAGE.read_text(encoding="utf-8") == page.page()


@pytest.mark.parametrize("method", ["FDAN", "ResNet-18", "GM-TCNet", "INCA", "TF-Mix", "MISA"])
def test_committed_results_beat_chance_on_unseen_speakers(method):
    results = pd.read_csv(ROOT / "benchmarks/results/ravdess_fer2013_quick/results.csv")
    rows = results.query("method == @method and protocol == 'disjoint' and role == 'test'")
    assert set(rows["fold"]) == {0, 1, 2}
    # Seven emotions; the speakers of every fold, not only their average.
    assert rows["UAR"].min() > 1.2 / 7
