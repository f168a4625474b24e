"""What all displays have in common."""

import builtins
import inspect
import subprocess
import sys

import numpy as np
import pytest

import skfdan.inspection
from skfdan.inspection import (
    AlignedSpaceDisplay,
    ClassDiscrepancyDisplay,
    ClipDisplay,
    ConfusionMatricesDisplay,
    LearningCurvesDisplay,
    SpeakerScoresDisplay,
)
from skfdan.utils.discovery import all_estimators

DISPLAYS = [getattr(skfdan.inspection, name) for name in skfdan.inspection.__all__]
MAKERS = [
    pytest.param(getattr(cls, name), id=f"{cls.__name__}.{name}")
    for cls in DISPLAYS
    for name in vars(cls)
    if name.startswith("from_")
]
Y = ["joy", "fear", "joy"]


def make_unplotted():
    z = np.eye(3)
    return [
        ConfusionMatricesDisplay({"A": z}, display_labels=Y),
        AlignedSpaceDisplay({"audio": z[:, :2]}, {"audio": np.array(Y)}, classes=["fear", "joy"]),
        LearningCurvesDisplay({"train_loss": z[0]}),
        SpeakerScoresDisplay(None, overall={}),
        ClipDisplay(probabilities=z[0], classes=Y),
        ClassDiscrepancyDisplay(z[0], classes=Y, counts=z),
    ]


@pytest.fixture
def no_matplotlib(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", refuse)
        yield


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.usefixtures("no_matplotlib")
def test_making_without_matplotlib(maker):
    required = [p for p in inspect.signature(maker).parameters.values() if p.default is p.empty]
    arguments = [None for p in required if p.kind is p.POSITIONAL_OR_KEYWORD]
    with pytest.raises(ImportError) as error:
        maker(*arguments)
    assert f"{maker.__qualname__} needs matplotlib" in str(error.value)
    assert 'pip install "skfdan[plot]"' in str(error.value)


@pytest.mark.usefixtures("no_matplotlib")
def test_plotting_without_matplotlib():
    displays = make_unplotted()
    assert {type(d) for d in displays} == set(DISPLAYS)
    for display in displays:
        with pytest.raises(ImportError, match=rf"{type(display).__name__}\.plot needs matplotlib"):
            display.plot()


def test_import_is_light():
    code = (
        "import sys, skfdan.inspection;"
        "print([m for m in ('matplotlib', 'torch', 'av', 'librosa') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_displays_are_no_estimators():
    assert not {cls.__name__ for cls in DISPLAYS} & set(all_estimators())


@pytest.mark.parametrize("cls", DISPLAYS)
def test_conventions(cls):
    """As scikit-learn's displays: classmethods, arguments kept as they are, ax=None in plot."""
    plot = inspect.signature(cls.plot).parameters
    assert plot["ax"].default is None
    assert all(p.kind is p.KEYWORD_ONLY for name, p in plot.items() if name != "self")
    given = next(d for d in make_unplotted() if type(d) is cls)
    names = set(inspect.signature(cls).parameters)
    assert set(vars(given)) == names
    for name in [n for n in vars(cls) if n.startswith("from_")]:
        assert isinstance(vars(cls)[name], classmethod)
        assert inspect.signature(getattr(cls, name)).parameters["ax"].default is None
