import pytest
import torch

from skfdan.utils.device import resolve_device


@pytest.mark.parametrize("n_gpus", [0, 2])
def test_auto_takes_a_gpu_if_there_is_one(n_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
    assert resolve_device("auto") == ("cuda" if n_gpus else "cpu")
    assert resolve_device("cpu") == "cpu"


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device(torch.device("cuda", 1)) == "cuda:1"
    with pytest.raises(ValueError, match="device='cuda:2' is not there: torch finds 2 CUDA dev"):
        resolve_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="torch finds 0 CUDA devices"):
        resolve_device("cuda")


@pytest.mark.parametrize("device", ["gpu", 3.5])
def test_a_device_that_torch_does_not_know(device):
    with pytest.raises(ValueError, match=r'is unknown; give "auto", "cpu"'):
        resolve_device(device)
