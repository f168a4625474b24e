"""Fits that share their batches between processes, started as a user would."""

import os
import shutil
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from skfdan import FDANClassifier, make_table
from skfdan.classifiers import MISAClassifier
from skfdan.classifiers._batches import Batches
from skfdan.classifiers._samples import ModalitySamples
from skfdan.classifiers.distributed import _RANK, _WORLD, SharedBatches, _keep, _place

# One process starts what all of them read.
pytestmark = pytest.mark.xdist_group("shared_batches")
SCRIPT = Path(__file__).with_name("shared_fit.py")
#: Fits of it that a callback spoils in one process.
OTHERS = ("apart", "ends", "last")


def written(out, *start, **environment):
    """Start the script, and return what its processes have written, and their messages."""
    done = subprocess.run(
        [sys.executable, *start, str(SCRIPT), str(out)],
        capture_output=True,
        text=True,
        timeout=300,
        # A file of settings at home must not decide how Accelerate starts.
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HOME": str(out)} | environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {p.stem: dict(np.load(p)) for p in out.glob("*.npz")}, done.stderr


def accelerate(*options):
    """Return the command line of ``accelerate launch`` for two processes, on a free port."""
    pytest.importorskip("accelerate")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    two = ("--num_processes", "2", "--num_machines", "1", "--main_process_port", port)
    return ["-m", "accelerate.commands.launch", *options, *two]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What two processes and one alone have written."""
    out = tmp_path_factory.mktemp("shared")
    two, _ = written(out, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    alone, _ = written(out)
    return two | alone


@pytest.mark.slow
@pytest.mark.parametrize("way", ["multi_gpu", "mpi"])
def test_accelerate_starts_what_torchrun_does(results, tmp_path, way):
    options = ["--multi_gpu"]  # processes, whatever their device
    if way == "mpi":
        if shutil.which("mpirun") is None:
            pytest.skip("needs mpirun, which accelerate launch --cpu takes for several processes")
        hosts = tmp_path / "hosts"
        hosts.write_text("localhost slots=2\n")
        options = ["--cpu", "--mpirun_hostfile", str(hosts)]
    found, _ = written(tmp_path, *accelerate(*options))
    assert set(found) == {name for name in results if not name.endswith("-alone")}
    for name, state in found.items():
        for key, value in state.items():
            assert np.array_equal(value, results[name][key]), (name, key)


@pytest.mark.slow
@pytest.mark.long
def test_one_process_where_more_were_asked_for_says_so(results, tmp_path):
    found, messages = written(tmp_path, *accelerate("--cpu"))
    assert {name.split("-")[1] for name in found} == {"alone"}
    assert "this process is alone and trains on whole batches" in messages


def test_a_process_that_is_alone_on_purpose_says_nothing(monkeypatch):
    clf = FDANClassifier(max_epochs=1, random_state=0, device="cpu", verbose=0)
    clf.set_params(callbacks=[SharedBatches()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.fit(X, Y)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.warns(UserWarning, match="this process is alone and trains on whole batches"):
        clf.fit(X, Y)


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, (0, 2)),
        ({"PMI_RANK": "2", "PMI_SIZE": "3"}, (2, 3)),
        # torchrun within a job of one MPI process.
        ({"PMI_RANK": "0", "PMI_SIZE": "1", "RANK": "1", "WORLD_SIZE": "4"}, (1, 4)),
    ],
)
def test_a_process_finds_its_place(monkeypatch, environment, place):
    for name in (*_RANK, *_WORLD):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _place() == place


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own", "lmmd", "norm", "frozen"])
def test_both_processes_end_with_the_same_weights(results, name):
    first, second, alone = (results[f"{name}-{rank}"] for rank in (0, 1, "alone"))
    for key, value in first.items():
        assert np.array_equal(value, second[key]), key
        if not key.endswith("num_batches_tracked"):
            assert np.isfinite(value).all(), key
    assert set(first) == set(alone)
    if name in ("lmmd", "norm"):  # it has trained, and on something else than one process
        assert any(not np.allclose(first[k], alone[k], atol=1e-5) for k in first)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own", "frozen"])
def test_two_halves_make_the_step_of_the_whole_batch(results, name):
    shared, alone = results[f"{name}-0"], results[f"{name}-alone"]
    for key, value in alone.items():
        np.testing.assert_allclose(shared[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plateau", "stop"])
def test_callbacks_decide_by_the_losses_of_all_processes(results, name):
    first, second = results[f"{name}-0"], results[f"{name}-1"]
    for key, value in first.items():
        assert np.array_equal(value, second[key]), key
    alone = results[f"{name}-alone"]
    # One process has seen the same samples: their mean loss decides in the same epochs.
    assert first["losses"].shape == alone["losses"].shape
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-4)
    np.testing.assert_allclose(first["rates"], alone["rates"])
    if name == "stop":
        assert 1 < len(first["losses"]) < 30
    else:
        assert len(set(first["rates"])) > 1


@pytest.mark.slow
def test_processes_that_are_no_longer_alike_are_noticed(results):
    for rank in (0, 1):
        problems = {name: str(results[f"{name}-{rank}"]["problem"]) for name in OTHERS}
        for name in ("apart", "last"):
            assert "have come to different weights. A callback" in problems[name]
        assert "do not end after the same epoch. A callback" in problems["ends"]
    assert not any(str(results[f"{name}-alone"]["problem"]) for name in OTHERS)


def test_it_acts_before_other_callbacks_wherever_it_stands(second_of_two):
    order = []

    class Note(Callback):
        def on_epoch_end(self, net, **kwargs):
            order.extend(type(c).__name__ for _, c in net.callbacks_)

    clf = FDANClassifier(max_epochs=1, random_state=0, device="cpu", verbose=0)
    clf.set_params(callbacks=[Note(), SharedBatches()]).fit(X, Y)
    assert order == ["EpochTimer", "EpochMeans", "SharedBatches", "Note", "_Last"]
    order.clear()
    clf.partial_fit(X, Y)
    assert order == ["EpochTimer", "EpochMeans", "SharedBatches", "Note", "_Last"]


def test_torch_counts_that_weights_were_received(monkeypatch):
    """What is made of a network's weights, and kept, is told from stale by that count."""

    class Net:
        module_ = torch.nn.Linear(2, 3)
        criterion_ = None
        device_ = "cpu"
        callbacks_ = ()

    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("skfdan.classifiers.distributed._check", lambda net: None)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda t, source: t.fill_(7.0))
    before = [p._version for p in Net.module_.parameters()]
    SharedBatches().on_train_begin(Net)
    for p, old in zip(Net.module_.parameters(), before, strict=True):
        assert p._version > old
        assert (p == 7.0).all()
        assert p.requires_grad


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
        assert (len(one), len(two)) == (2, 3)
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
        monkeypatch.setattr(torch.distributed, name, lambda *_, **__: None)


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


def test_shares_of_embedded_cells_are_taken_too(second_of_two):
    images = np.random.default_rng(0).integers(0, 255, (8, 3, 16, 16)).astype(np.uint8)
    params = {"random_state": 0, "device": "cpu", "max_epochs": 1, "verbose": 0, "input_size": 16}
    params |= {"backbone": "cnn", "weights": None, "backbone_trainable": False}
    sizes = []

    class Counting(FDANClassifier):
        def infer(self, x, **kwargs):
            sizes.append(len(x.cells["visual"]))
            return super().infer(x, **kwargs)

    Counting(callbacks=[SharedBatches()], **params).fit(make_table(visual=images), Y)
    assert sizes == [4]


def test_rows_read_together_are_refused(second_of_two):
    clf = MISAClassifier(
        callbacks=[SharedBatches()], max_epochs=1, random_state=0, device="cpu", verbose=0
    )
    with pytest.raises(ValueError, match="can't divide rows whose modalities are read together"):
        clf.fit(X, Y)
