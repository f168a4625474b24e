"""Models that were saved once must load for ever."""

import json

import numpy as np
import pytest

from persistence.golden.make import HERE, inputs
from skfdan import load_pretrained
from skfdan.persistence._format import VERSION

ALL = sorted(HERE.glob("v*"))


def test_every_version_of_the_format_has_its_models():
    assert [folder.name for folder in ALL] == [f"v{n + 1}" for n in range(VERSION)]


@pytest.mark.parametrize("name", ["fdan", "pipeline"])
@pytest.mark.parametrize("folder", ALL, ids=lambda folder: folder.name)
def test_a_stored_model_loads_and_predicts_what_it_did(folder, name):
    # If this fails for a parameter or attribute that came or went: raise VERSION in
    # skfdan/persistence/_format.py, add to UPGRADES, and run golden/make.py.
    X = dict(zip(("fdan", "pipeline"), inputs(), strict=True))[name]
    expected = json.loads((folder / "expected.json").read_text())[name]
    # Other libraries and processors round otherwise.
    np.testing.assert_allclose(load_pretrained(folder / name).predict_proba(X), expected, rtol=1e-4)
