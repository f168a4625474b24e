"""The two sides that are timed on CUDA, on a CPU and small, where they must agree."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
QUICK = SimpleNamespace(quick=True)


@pytest.fixture(scope="module")
def speed():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        import _speed_cuda

        yield _speed_cuda
    for name in ("_speed_cuda", "_speed_losses", "_timing"):
        sys.modules.pop(name, None)


@pytest.fixture
def task(speed):
    return speed.Task("cpu", "cnn", "float32", size=16, n_audio=64, n_visual=64)


def test_the_bare_loop_trains_what_the_classifier_trains(speed, task):
    arrays = task.arrays()
    losses, seconds = speed.bare_loop(task, arrays, 4)
    history = speed.ours(task, arrays, 4).history_
    assert losses == pytest.approx(history[:, "train_loss"], rel=1e-4)
    assert losses[0] != pytest.approx(losses[-1], rel=1e-3)  # it learns
    assert len(seconds) == 4


def test_the_ratios_are_measured_on_any_device(speed, task):
    (training,) = speed.training_ratios(QUICK, task)
    assert training.median > 0
    assert (training.bound, training.at_least) == (0.95, True)
    assert training.detail["images_per_second"] > 0
    (of_lmmd,) = speed.lmmd_ratios(QUICK, "cpu", sizes=(8,), d=4)
    assert of_lmmd.median > 0


def test_a_share_of_the_full_fit_tells_of_the_whole(speed, task):
    found = speed.full_fit(task, scale=0.01)
    assert found["epochs"] == 3
    whole = found["seconds"] + 297 * found["seconds_an_epoch"]
    assert found["hours_of_300"] == pytest.approx(whole / 3600)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a CUDA device")
def test_without_a_device_nothing_is_measured(speed, capsys):
    assert speed.cuda_ratios(QUICK) == []
    assert "torch finds no CUDA device" in capsys.readouterr().err
