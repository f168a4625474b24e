"""Which device a network computes on."""

from __future__ import annotations

from typing import Any

__all__ = ["resolve_device"]


def resolve_device(device: Any) -> str:
    """Return the device that a parameter ``device`` means on this machine.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"`` is ``"cuda"`` where there is such a device, and ``"cpu"`` elsewhere.

    Returns
    -------
    str
        What torch takes.

    Raises
    ------
    ValueError
        If there is no such device, here or anywhere.

    Examples
    --------
    >>> resolve_device("cpu")
    'cpu'
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        known = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f'device={device!r} is unknown; give "auto", "cpu", "cuda" or "cuda:1".'
        ) from None
    found = torch.cuda.device_count() if known.type == "cuda" else None
    if found is not None and (known.index or 0) >= found:
        raise ValueError(
            f"device={str(device)!r} is not there: torch finds {found} CUDA devices. "
            'device="auto" takes one if there is one.'
        )
    return str(device)
