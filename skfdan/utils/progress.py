"""One progress bar for the whole package."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")

__all__ = ["progress_bar"]


def progress_bar(
    iterable: Iterable[T], *, total: int | None, desc: str, unit: str, verbose: int
) -> Iterable[T]:
    """Iterate with a bar that appears only where somebody watches.

    The bar shows on a terminal or in a notebook, and only for work that takes
    longer than two seconds; log files and short calls stay quiet.

    Parameters
    ----------
    iterable : iterable
        What to iterate over.
    total : int or None
        The number of items, if known.
    desc : str
        What is being done, e.g. ``"MelSpectrogram"``.
    unit : str
        What one item is, e.g. ``"file"``.
    verbose : int
        0 shows no bar.

    Returns
    -------
    iterable
        ``iterable`` itself, or a tqdm bar around it when one is shown.
    """
    notebook = "ipykernel" in sys.modules
    if not verbose or not (notebook or sys.stderr.isatty()):
        return iterable
    from tqdm.auto import tqdm

    return tqdm(iterable, total=total, desc=desc, unit=unit, delay=2)
