"""The plain sides of the speed benchmark compute what ours do."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from skfdan.nn import lmmd

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("_speed", "_plain", "_timing")):
            del sys.modules[name]


@pytest.mark.parametrize("classes", [[0, 1, 2], [0, 1, 1]])
def test_broadcast_lmmd_is_eq_8(classes):
    from _speed_losses import broadcast_lmmd

    g = torch.Generator().manual_seed(0)
    z_v, z_a = (torch.randn(n, 4, generator=g, dtype=torch.float64) for n in (6, 5))
    y_v, y_a = torch.tensor(classes * 2), torch.tensor([0, 1, 2, 0, 1])
    ours, plain = (loss(z_v, z_a, y_v, y_a, 3) for loss in (lmmd, broadcast_lmmd))
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=0)


def test_plain_skorch_trains_the_same_network():
    from _plain_skorch import plain_skorch
    from _speed_losses import broadcast_lmmd
    from _speed_training import classifier, corpus

    table, y, _ = corpus(64, 96, d=12)
    ours = classifier(3, alpha=0.1, weight_decay=1e-3, inference="bypass").fit(table, y)
    plain = plain_skorch(table, 3, broadcast_lmmd, lr=1e-3, momentum=0.9)
    plain.set_params(alpha=0.1, weight_decay=1e-3).fit(np.arange(len(y)), y)
    np.testing.assert_allclose(
        plain.history[:, "train_loss"], ours.history_[:, "train_loss"], rtol=1e-5
    )
    voices = np.flatnonzero(table["audio"].notna())
    np.testing.assert_array_equal(plain.predict(voices), ours.predict(table.iloc[voices]))


def test_timed_processes_compile_no_library(monkeypatch):
    """Else what is timed is the compiler: an import takes two and a half times as long."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "speed", raising=False)
    import speed  # noqa: F401

    assert "PYTHONDONTWRITEBYTECODE" not in os.environ
    assert not sys.dont_write_bytecode


def test_times_are_taken_in_turn_and_ratios_are_of_pairs():
    from _timing import ratio, times_of

    order = []
    sides = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    times = times_of(sides, 3, warm=False)
    assert order == ["a", "b"] * 3
    assert all(len(t) == 3 for t in times.values())

    def busy(seconds):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        order.append(seconds)

    order.clear()
    times = times_of({"short": lambda: busy(0.002), "long": lambda: busy(0.03)}, 2)
    # Two calls before, then samples of 20 ms or of one call.
    assert order.count(0.03) == 2 + 2
    assert 2 + 2 * 4 < order.count(0.002) <= 2 + 2 * 10
    assert np.median(times["short"]) == pytest.approx(0.002, rel=0.5)
    found = ratio("x", np.array([2.0, 6.0, 40.0]), np.array([1.0, 2.0, 10.0]), bound=3.5)
    assert (found.median, found.met) == (3.0, False)
