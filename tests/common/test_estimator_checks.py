"""scikit-learn's own checks over every public estimator, with no expected failure."""

from instances import INSTANCES
from sklearn.utils.estimator_checks import parametrize_with_checks

from skfdan.utils.discovery import all_estimators


@parametrize_with_checks([instance for row in INSTANCES.values() for instance in row])
def test_scikit_learn_check(estimator, check):
    check(estimator)


def test_completeness():
    assert sorted(INSTANCES) == list(all_estimators())
    for name, row in INSTANCES.items():
        assert [type(instance).__name__ for instance in row] == [name] * len(row)
