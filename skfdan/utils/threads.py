"""Threads within one operation of torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["one_thread"]


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

    before = torch.get_num_threads()
    try:
        if active:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
