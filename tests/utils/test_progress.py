import io
import sys
import types

import pytest
import tqdm.std

from skfdan.utils.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def watch(monkeypatch, stream):
    """Put a stream in stderr's place; pytest does the same between fixture and test."""
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


@pytest.fixture(autouse=True)
def no_notebook(monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


def bar(items, verbose=1):
    return progress_bar(
        items, total=len(items), desc="MelSpectrogram", unit="file", verbose=verbose
    )


def test_silent_when_asked(monkeypatch):
    terminal = watch(monkeypatch, Terminal())
    items = [1, 2, 3]
    assert bar(items, verbose=0) is items
    assert terminal.getvalue() == ""


def test_silent_when_nobody_watches(monkeypatch):
    log = watch(monkeypatch, io.StringIO())
    items = [1, 2, 3]
    assert bar(items) is items
    assert log.getvalue() == ""


def test_short_work_shows_nothing(monkeypatch):
    terminal = watch(monkeypatch, Terminal())
    items = [1, 2, 3]
    shown = bar(items)
    assert shown is not items
    assert list(shown) == items
    assert terminal.getvalue() == ""


def test_long_work_shows_what_is_done(monkeypatch):
    terminal = watch(monkeypatch, Terminal())
    clock = iter(range(0, 10_000, 3))
    monkeypatch.setattr(tqdm.std, "time", lambda: next(clock))
    assert list(bar([1, 2, 3])) == [1, 2, 3]
    assert "MelSpectrogram: " in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert "file" in terminal.getvalue()


def test_a_notebook_is_watched_too(monkeypatch):
    watch(monkeypatch, io.StringIO())
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    items = [1, 2, 3]
    shown = bar(items)
    assert shown is not items
    assert list(shown) == items


def test_total_may_be_unknown(monkeypatch):
    watch(monkeypatch, Terminal())
    shown = progress_bar((i for i in range(3)), total=None, desc="d", unit="u", verbose=1)
    assert list(shown) == [0, 1, 2]
