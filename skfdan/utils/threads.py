"""Threads within one operation of torch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["all_threads", "one_thread"]

#: What torch's number of threads was where :func:`one_thread` began, outermost first.
_before: list[int] = []
#: Held while both are changed: torch gives a new thread the number that any thread has set last.
_LOCK = threading.Lock()
#: How often a thread is within :func:`one_thread`.
_own = threading.local()


@contextmanager
def one_thread(active: bool = True) -> Iterator[None]:
    """Run torch's operations on one thread, and give the threads back after.

    The steps of a small network are too short to share between threads. On an
    idle machine a second thread saves a third of their time; on a busy one the
    threads wait for each other actively, and a step can take a hundred times as
    long.

    Parameters
    ----------
    active : bool, default=True
        False changes nothing.

    Examples
    --------
    >>> import torch
    >>> before = torch.get_num_threads()
    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    >>> torch.get_num_threads() == before
    True
    """
    import torch

    depth = getattr(_own, "depth", 0)
    with _LOCK:
        # A thread that comes while another is within may have begun with that one's 1.
        before = torch.get_num_threads() if depth or not _before else _before[0]
        _before.append(before)
        torch.set_num_threads(1 if active else before)
    _own.depth = depth + 1
    try:
        yield
    finally:
        _own.depth = depth
        with _LOCK:
            _before.pop()
            torch.set_num_threads(before)


@contextmanager
def all_threads() -> Iterator[None]:
    """Give torch its threads back for a while, within :func:`one_thread`.

    Examples
    --------
    >>> import torch
    >>> before = torch.get_num_threads()
    >>> with one_thread(), all_threads():
    ...     torch.get_num_threads() == before
    True
    """
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(_before[0] if _before else before)
        yield
    finally:
        torch.set_num_threads(before)
