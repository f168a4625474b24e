import importlib
import json
import pkgutil
import subprocess
import sys
from importlib.metadata import version

import pytest

import skfdan

HEAVY = (
    "torchvision",
    "torchaudio",
    "librosa",
    "cv2",
    "skimage",
    "av",
    "soundfile",
    "matplotlib",
    "numba",
    "huggingface_hub",
    "tokenizers",
    "transformers",
    "gradio",
)
PACKAGES = [
    "skfdan",
    *(
        info.name
        for info in pkgutil.walk_packages(skfdan.__path__, "skfdan.")
        if info.ispkg and not any(part.startswith("_") for part in info.name.split("."))
    ),
]


def test_import_stays_light():
    code = (
        "import json, sys, skfdan; first = sorted(sys.modules); import skfdan.nn;"
        "print(json.dumps([first, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    alone, with_nn = (set(names) for names in json.loads(done.stdout.splitlines()[-1]))
    assert "skfdan" in alone
    assert not alone.intersection((*HEAVY, "torch", "skorch"))
    assert {"skfdan.nn"} <= with_nn
    assert not with_nn.intersection(HEAVY)
    assert done.stderr == ""


def test_the_classifier_comes_when_it_is_asked_for():
    from skfdan.classifiers import FDANClassifier

    assert skfdan.FDANClassifier is FDANClassifier
    assert "FDANClassifier" in dir(skfdan)
    with pytest.raises(AttributeError, match="has no attribute 'FDRNClassifier'"):
        _ = skfdan.FDRNClassifier


def test_the_packages_are_found():
    assert {"skfdan", "skfdan.nn", "skfdan.classifiers", "skfdan.datasets"} <= set(PACKAGES)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_resolves(name):
    module = importlib.import_module(name)
    names = getattr(module, "__all__", [])
    assert len(names) == len(set(names))
    for public in names:
        assert getattr(module, public) is not None
    assert module.__doc__


def test_version_is_the_installed_one():
    assert skfdan.__version__ == version("skfdan")
