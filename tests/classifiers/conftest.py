import pytest

from classifiers.small_clips import QUICK, make_clips
from skfdan import FDANClassifier


@pytest.fixture(scope="module")
def clips():
    return make_clips()


@pytest.fixture(scope="module")
def fitted(clips):
    return FDANClassifier(**QUICK).fit(*clips)
