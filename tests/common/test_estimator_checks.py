"""scikit-learn's own checks over every public estimator, with no expected failure."""

import pytest
from instances import AS_THEY_COME, INSTANCES, ON_ALL_COLUMNS
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from skfdan.utils.discovery import all_estimators

ALL = [instance for row in INSTANCES.values() for instance in row]
# The checks are written for matrices of numbers.
ON_MATRICES = [instance for instance in ALL if get_tags(instance).input_tags.two_d_array]
TWO_BRANCHES = INSTANCES["FDANClassifier"][1]


@parametrize_with_checks([instance for instance in ON_MATRICES if instance is not TWO_BRANCHES])
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([TWO_BRANCHES])
def test_scikit_learn_check_of_both_branches(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.long
@parametrize_with_checks(ON_ALL_COLUMNS)
def test_scikit_learn_check_on_all_columns(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.long
@parametrize_with_checks(AS_THEY_COME)
def test_scikit_learn_check_of_defaults(estimator, check):
    check(estimator)


def test_only_what_reads_pictures_words_or_long_sounds_takes_no_matrix():
    # No row of numbers is a picture or a text, and wav2vec 2.0 needs more samples than the
    # checks have; those that need no matrix run on these in tests/preprocessing.
    without = {type(i).__name__ for i in ALL if i not in ON_MATRICES}
    assert without == {
        "BackboneEmbedding",
        "FaceFrames",
        "FrameEmbedding",
        "TextEmbedding",
        "Wav2Vec2Embedding",
    }


def test_completeness():
    assert sorted(INSTANCES) == list(all_estimators())
    for name, row in INSTANCES.items():
        assert [type(instance).__name__ for instance in row] == [name] * len(row)
