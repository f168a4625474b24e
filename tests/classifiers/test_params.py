"""Numbers among the parameters: what is none is refused before anything is read."""

import inspect
import re

import pytest

from skfdan import classifiers
from skfdan.classifiers.base import ModalityClassifier

CLASSES = [
    cls
    for cls in map(vars(classifiers).get, classifiers.__all__)
    if isinstance(cls, type) and issubclass(cls, ModalityClassifier)
]
#: Numbers whose default is none, and other values that a number may have.
NO_DEFAULT = ("ffn_dim", "mu")
ALLOWED = {
    "clip_value": (None,),
    "ffn_dim": (None,),
    "input_size": (None,),
    "mu": ("1",),  # one of several words, of which the message tells
    "verbose": (True,),
}


def numbers():
    for cls in CLASSES:
        for name, parameter in inspect.signature(cls).parameters.items():
            if type(parameter.default) in (int, float) or name in NO_DEFAULT:
                yield pytest.param(cls, name, id=f"{cls.__name__}-{name}")


@pytest.mark.parametrize(("cls", "name"), list(numbers()))
def test_what_is_no_number_is_refused(cls, name):
    for value in ("1", None, True, [1], float("nan")):
        if value not in ALLOWED.get(name, ()):
            clf = cls(**{name: value, "early_stopping": True})
            message = rf"^{name}={re.escape(repr(value))}: it must be a (whole )?number, "
            with pytest.raises(ValueError, match=message):
                clf.fit(None, None)


def test_ensemble_weights_need_a_share_without_early_stopping_too():
    with pytest.raises(ValueError, match=r"^validation_fraction=None: it must be a number, above"):
        classifiers.TFMixClassifier(validation_fraction=None).fit(None, None)


@pytest.mark.parametrize(
    ("params", "bounds"),
    [
        ({"dropout": 1.5}, "a number, between 0 and 1"),
        ({"max_epochs": 0}, "a whole number, at least 1"),
        ({"max_epochs": 1.0}, "a whole number, at least 1"),
        ({"ffn_dim": 0}, "a whole number, at least 1, or None"),
        ({"verbose": -1}, "a whole number, at least 0, or True or False"),
        ({"validation_fraction": 0}, "a number, above 0 and below 1"),
        ({"validation_fraction": 1}, "a number, above 0 and below 1"),
    ],
)
def test_the_message_tells_the_bounds(params, bounds):
    clf = classifiers.FDANClassifier(**params, early_stopping=True)
    with pytest.raises(ValueError, match=rf"it must be {bounds}\.$"):
        clf.fit(None, None)
