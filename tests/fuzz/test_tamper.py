"""Some of what ``tamper.py`` does by the hundred."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import tamper

from skfdan.persistence import load_pretrained


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tamper.build(tmp_path_factory.mktemp("models"))


@pytest.mark.slow
def test_whatever_was_tampered_with_is_refused(models):
    results = tamper.tamper(*models, count=2 * len(tamper.WAYS), seed=1)
    print(tamper.table(results))
    assert not tamper.failures(results)


def test_a_whole_model_takes_less_than_twice_its_size(models):
    load_pretrained(models[0])
    size = sum(file.stat().st_size for file in models[0].iterdir())
    assert size > 20 * tamper.MIB
    with tamper.Memory() as memory:
        loaded = load_pretrained(models[0])
    assert memory.peak < 2 * size
    assert loaded[-1].bottleneck == 640


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's /proc")
def test_the_meter_sees_memory_that_is_used_and_memory_that_is_only_reserved():
    import torch

    for make in (lambda: torch.ones(30 * tamper.MIB, dtype=torch.uint8), lambda: b"x" * 30_000_000):
        with tamper.Memory() as memory:
            make()
        assert memory.peak > 25 * tamper.MIB
    with tamper.Memory() as memory:
        torch.empty(2**33, dtype=torch.uint8)
    assert memory.peak >= 2**33


def test_the_watch_sees_a_pickle():
    import pickle

    raw = pickle.dumps(np.float32)
    with tamper.Watch() as watch:
        pickle.loads(raw)
    assert [event for event, _ in watch.seen] == ["pickle.find_class"]
