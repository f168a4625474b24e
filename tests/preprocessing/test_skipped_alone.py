"""What is skipped may be all there is."""

import numpy as np
import pytest

from skfdan.preprocessing import FaceFrames, MelSpectrogram
from skfdan.table import SKIP


@pytest.mark.parametrize("transformer", [MelSpectrogram(), FaceFrames(detector=None)])
def test_a_column_of_skipped_cells_stays_one(transformer):
    cells = np.empty((2, 1), object)
    cells[:] = SKIP
    out = transformer.set_params(verbose=0).fit_transform(cells)
    assert all(cell is SKIP for cell in np.ravel(out))
