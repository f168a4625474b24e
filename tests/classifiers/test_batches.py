import numpy as np
import pytest

from skfdan.classifiers._batches import Draws


@pytest.mark.parametrize(("n", "size"), [(5, 3), (7, 4), (200, 16)])
def test_every_sample_is_drawn_once_a_shuffle(n, size):
    """What is left of a shuffle comes before the next one."""
    draws = Draws(n, np.random.RandomState(0))
    drawn = np.concatenate([draws.take(size) for _ in range(n)])
    for shuffle in drawn.reshape(size, n):
        assert sorted(shuffle) == list(range(n))
