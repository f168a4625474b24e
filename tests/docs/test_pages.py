"""The landing page and the gallery say what is there."""

import functools
import re
import shutil
import xml.etree.ElementTree as ElementTree

import pytest
from public_names import DOCS

import skfdan
from skfdan import datasets

ROOT = DOCS.parent


@pytest.mark.slow
def test_the_example_of_the_landing_page_runs(tmp_path, monkeypatch):
    clips = datasets.make_emotion_clips(
        n_clips=10, n_speakers=5, emotions=("anger", "sadness"), root=tmp_path, random_state=0
    )
    shutil.copyfile(clips.table["audio"].iloc[0], tmp_path / "me.wav")
    monkeypatch.chdir(tmp_path)
    # The corpus and the network are too large for a test; everything else is as it stands.
    monkeypatch.setattr(datasets, "load_ravdess", {"RAVDESS": clips}.__getitem__)
    small = {"backbone": "cnn", "weights": None, "input_size": 16, "max_epochs": 1, "verbose": 0}
    monkeypatch.setattr(skfdan, "FDANClassifier", functools.partial(skfdan.FDANClassifier, **small))
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)
    *lines, last = example.strip().splitlines()
    names = {}
    exec("\n".join(lines), names)
    assert eval(last, names) in (["anger"], ["sadness"])


def test_the_gallery_has_a_card_for_every_notebook():
    text = (DOCS / "examples.md").read_text(encoding="utf-8")
    cards = re.findall(r"^:link: _examples/(\w+)$", text, flags=re.M)
    pictures = re.findall(r"^:img-top: _examples/(\w+).png$", text, flags=re.M)
    notebooks = sorted(path.stem for path in (ROOT / "examples").glob("[0-9]*.py"))
    assert cards == pictures == notebooks


@pytest.mark.parametrize("name", ["_static/logo.svg", "data_flow.html"])
def test_pictures_are_well_formed_and_load_nothing(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    ElementTree.fromstring(re.sub(r"<!--.*?-->", "", text))
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in text
