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


#: What compiles librosa's functions, which takes half a minute in each process that does.
_COMPILING = ("speech_features", "SpeechFeatures", "test_tfmix", "test_mel", "test_mfcc")


@pytest.hookimpl(tryfirst=True)  # before slow tests are left out and pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Let one process of several (pytest -n 2 --dist loadgroup) run what librosa compiles for.

    And count among the long what repeats scikit-learn's check of training on read-only memory; of
    one classifier it always runs.
    """
    for item in items:
        if any(name in item.nodeid for name in _COMPILING):
            item.add_marker(pytest.mark.xdist_group("librosa"))
        again = "check_classifiers_train(readonly_memmap" in item.nodeid
        if again and "FDANClassifier" not in item.nodeid:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def real_data():
    """The folder of real corpora, or a skip that says why."""
    folder = os.environ.get("SKFDAN_DATA")
    if not folder:
        pytest.skip("needs the environment variable SKFDAN_DATA (a folder of real corpora)")
    if not Path(folder).is_dir():
        pytest.skip(f"SKFDAN_DATA={folder} is not a folder")
    return Path(folder)
