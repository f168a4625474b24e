"""Fits that share their batches between processes, started as a user would."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from skfdan import FDANClassifier, make_table
from skfdan.classifiers import MISAClassifier
from skfdan.classifiers._batches import Batches
from skfdan.classifiers._samples import ModalitySamples
from skfdan.classifiers.distributed import SharedBatches, _keep

SCRIPT = Path(__file__).with_name("shared_fit.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What two processes and one alone have written."""
    out = tmp_path_factory.mktemp("shared")
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for start in (two, []):
        done = subprocess.run(
            [sys.executable, *start, str(SCRIPT), str(out)],
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return {p.stem: dict(np.load(p)) for p in out.glob("*.npz")}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own", "lmmd", "norm"])
def test_both_processes_end_with_the_same_weights(results, name):
    first, second, alone = (results[f"{name}-{rank}"] for rank in (0, 1, "alone"))
    for key, value in first.items():
        assert np.array_equal(value, second[key]), key
        if not key.endswith("num_batches_tracked"):
            assert np.isfinite(value).all(), key
    assert set(first) == set(alone)
    if name != "own":  # it has trained, and on something else than one process
        assert any(not np.allclose(first[k], alone[k], atol=1e-5) for k in first)


@pytest.mark.slow
def test_two_halves_make_the_step_of_the_whole_batch(results):
    shared, alone = results["own-0"], results["own-alone"]
    for key, value in alone.items():
        np.testing.assert_allclose(shared[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


def test_shares_are_disjoint_and_make_the_batch():
    cells = {"visual": np.arange(7.0)[:, None], "audio": 100 + np.arange(10.0)[:, None]}
    samples = {m: ModalitySamples(c, np.arange(len(c))) for m, c in cells.items()}
    labels = {m: np.arange(len(c)) for m, c in cells.items()}

    def batches():
        return list(Batches(samples, labels, 5, None, np.random.RandomState(0)))

    shares = []
    for rank in range(2):
        shares.append(batches())
        for batch, y in shares[-1]:
            _keep(batch, y, rank, 2)
    for (whole, y), (one, y_one), (two, y_two) in zip(batches(), *shares, strict=True):
        assert (len(one), len(two)) == (3, 2)
        for m in samples:
            both = torch.cat([one.cells[m], two.cells[m]])
            assert sorted(both.ravel().tolist()) == sorted(whole.cells[m].ravel().tolist())
            assert sorted(torch.cat([y_one[m], y_two[m]]).tolist()) == sorted(y[m].tolist())
            start = 100 if m == "audio" else 0
            assert one.cells[m].ravel().tolist() == (start + y_one[m]).tolist()
            assert one.origin[1][m].tolist() == y_one[m].tolist()


@pytest.fixture
def second_of_two(monkeypatch):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    # No other process is there to answer.
    for name in ("init_process_group", "broadcast", "all_reduce"):
        monkeypatch.setattr(torch.distributed, name, lambda *_: None)


X = make_table(visual=np.eye(8), audio=np.eye(8))
Y = np.array([0, 1] * 4)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"early_stopping": True}, "early_stopping and checkpoint_dir are not possible"),
        ({"checkpoint_dir": "folder"}, "early_stopping and checkpoint_dir are not possible"),
        ({"random_state": None}, "random_state=None must be a whole number"),
        ({"batch_size": 1}, "a batch has 1 samples of a modality, too few for 2 processes"),
    ],
)
def test_what_can_not_be_shared_is_refused(second_of_two, tmp_path, monkeypatch, params, message):
    monkeypatch.chdir(tmp_path)
    params = {"random_state": 0, "device": "cpu", "max_epochs": 1, "verbose": 0} | params
    with pytest.raises(ValueError, match=message):
        FDANClassifier(callbacks=[SharedBatches()], **params).fit(X, Y)


def test_rows_read_together_are_refused(second_of_two):
    clf = MISAClassifier(
        callbacks=[SharedBatches()], max_epochs=1, random_state=0, device="cpu", verbose=0
    )
    with pytest.raises(ValueError, match="can't divide rows whose modalities are read together"):
        clf.fit(X, Y)
