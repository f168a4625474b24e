import os

# scikit-learn's array API checks skip themselves unless SciPy sees this at import.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data():
    """The folder of real corpora, or a skip that says why."""
    folder = os.environ.get("SKFDAN_DATA")
    if not folder:
        pytest.skip("needs the environment variable SKFDAN_DATA (a folder of real corpora)")
    if not Path(folder).is_dir():
        pytest.skip(f"SKFDAN_DATA={folder} is not a folder")
    return Path(folder)
