"""What a notebook shows of an estimator: scikit-learn's diagram."""

from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from instances import INSTANCES
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr, get_tags

from skfdan import FDANClassifier, make_table
from skfdan.preprocessing import FaceFrames, MelSpectrogram
from skfdan.utils.discovery import all_estimators

VOID = {"br", "hr", "img", "input", "link", "meta", "path"}


class Diagram(HTMLParser):
    """Collects text, links and cells; refuses elements closed out of order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.links, self.cells = [], "", [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "href" in attrs:
            self.links.append(attrs["href"])
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if {"style", "script"} & set(self.open):
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data.strip()


def fit(estimator):
    """Fit an estimator on few rows, for a moment."""
    rng = np.random.default_rng(0)
    if "max_epochs" in estimator.get_params():
        estimator.set_params(max_epochs=1)
    if not get_tags(estimator).input_tags.two_d_array:
        if isinstance(estimator, FaceFrames):
            estimator.set_params(detector=None)
        faces = rng.integers(0, 255, (2, 3, 64, 64)).astype(np.uint8)
        return estimator.fit(make_table(visual=faces)[["visual"]])
    return estimator.fit(rng.normal(size=(30, 8)), np.arange(30) % 3)


@pytest.mark.parametrize("name", sorted(all_estimators()))
def test_diagram(name):
    estimator = clone(INSTANCES[name][0])
    before = estimator.get_params(deep=False)
    diagram = Diagram(estimator._repr_html_())
    assert name in diagram.text
    # Most transformers learn nothing: they may be used, and are shown, as if they were fitted.
    assert ("Not fitted" in diagram.text) == get_tags(estimator).requires_fit
    # Every parameter is in the table, with its value.
    # Tables of contained estimators, whose parameters may have the same names, follow.
    cells = {}
    for cell, following in pairwise(diagram.cells):
        cells.setdefault(cell, following)
    assert set(before) <= set(cells)
    numbers = {p: v for p, v in before.items() if type(v) in (int, float, bool)}
    assert {p: cells[p] for p in numbers} == {p: repr(v) for p, v in numbers.items()}
    # No site has documentation of the package, so there is nothing to link to.
    assert diagram.links == []
    assert estimator._repr_mimebundle_()["text/plain"] == repr(estimator)
    assert estimator.get_params(deep=False) == before

    fit(estimator)
    state = set(vars(estimator))
    diagram = Diagram(estimator._repr_html_())
    assert "Not fitted" not in diagram.text
    assert "Fitted" in diagram.text
    assert set(vars(estimator)) == state
    with config_context(display="text"):
        assert not hasattr(estimator, "_repr_html_")


def test_values_are_escaped():
    raw = estimator_html_repr(MelSpectrogram(cache_dir="<script>alert(1)</script>"))
    assert "<script>alert" not in raw
    assert "<script>alert(1)</script>" in Diagram(raw).text


def test_pipeline():
    prepare = ColumnTransformer(
        [("face", FaceFrames(), ["visual"]), ("voice", MelSpectrogram(), ["audio"])]
    )
    diagram = Diagram(estimator_html_repr(make_pipeline(prepare, FDANClassifier())))
    for name in ("face", "voice", "FaceFrames", "MelSpectrogram", "FDANClassifier"):
        assert name in diagram.text
    # scikit-learn's own steps alone have pages.
    assert {link.split("/modules/")[0].rsplit("/", 1)[0] for link in diagram.links} <= {
        "https://scikit-learn.org"
    }
