import os

# scikit-learn's array API checks skip themselves unless SciPy sees this at import.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

# huggingface_hub reads this at its first import, which may be another library's.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import tempfile
from pathlib import Path

import pytest

# librosa keeps compiled code in files, which processes that compile at the same
# time can spoil for all: every test process has its own.
_COMPILED = tempfile.TemporaryDirectory(prefix="skfdan-numba-")
os.environ["NUMBA_CACHE_DIR"] = _COMPILED.name


@pytest.fixture(scope="session")
def real_data():
    """The folder of real corpora, or a skip that says why."""
    folder = os.environ.get("SKFDAN_DATA")
    if not folder:
        pytest.skip("needs the environment variable SKFDAN_DATA (a folder of real corpora)")
    if not Path(folder).is_dir():
        pytest.skip(f"SKFDAN_DATA={folder} is not a folder")
    return Path(folder)
