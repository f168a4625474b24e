"""scikit-learn's own checks over every public estimator, with no expected failure."""

from instances import INSTANCES
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from skfdan.utils.discovery import all_estimators

ALL = [instance for row in INSTANCES.values() for instance in row]
# The checks are written for matrices of numbers.
ON_MATRICES = [instance for instance in ALL if get_tags(instance).input_tags.two_d_array]


@parametrize_with_checks(ON_MATRICES)
def test_scikit_learn_check(estimator, check):
    check(estimator)


def test_only_what_reads_pictures_takes_no_matrix():
    # No row of numbers is a picture; the checks that need no matrix run on these two
    # in tests/preprocessing.
    without = {type(i).__name__ for i in ALL if i not in ON_MATRICES}
    assert without == {"BackboneEmbedding", "FaceFrames"}


def test_completeness():
    assert sorted(INSTANCES) == list(all_estimators())
    for name, row in INSTANCES.items():
        assert [type(instance).__name__ for instance in row] == [name] * len(row)
