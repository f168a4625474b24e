"""Whether parameters are what they have to be."""

from __future__ import annotations

import inspect
import math
import numbers
from typing import Any

import numpy as np
import torch
from skorch.callbacks import BatchScoring, Callback, EpochScoring


def check_number(
    name: str,
    value: Any,
    low: float,
    high: float | None = None,
    *,
    whole: bool = False,
    strict: bool = False,
    other: str = "",
) -> None:
    """Raise a ValueError unless this is a number from low to high, which True is not.

    ``strict`` excludes both ends. ``other`` is what the message names beside numbers.
    """
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, kinds) and not isinstance(value, bool):
        end = math.inf if high is None else high
        if low <= value <= end and not (strict and value in (low, high)):
            return
    if high is None:
        bounds = f"above {low}" if strict else f"at least {low}"
    else:
        bounds = f"above {low} and below {high}" if strict else f"between {low} and {high}"
    what = f"{'a whole number' if whole else 'a number'}, {bounds}"
    raise ValueError(f"{name}={value!r}: it must be {what}{other and f', or {other}'}.")


def check_optimizer(kind: Any, params: Any) -> None:
    """Raise a ValueError unless an optimiser of that class takes these arguments."""
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise ValueError(f"optimizer={kind!r}: it must be a class, such as torch.optim.Adam.")
    if not isinstance(params, dict | None):
        raise ValueError(f"optimizer_params={params!r}: it must be a dict or None.")
    signature = inspect.signature(kind).parameters
    if any(p.kind is p.VAR_KEYWORD for p in signature.values()):
        return
    takes = [name for name in signature if name != "params"]
    # These two it is given by the parameters lr and weight_decay.
    if not {"lr", "weight_decay"} <= {*takes}:
        raise ValueError(
            f"optimizer={kind.__name__}: it must take lr and weight_decay, as torch.optim.Adam "
            f"does; it takes {', '.join(takes)}."
        )
    unknown = [name for name in params or {} if name not in takes]
    if unknown:
        raise ValueError(
            f"optimizer_params has {unknown[0]!r}, which {kind.__name__} does not take; it takes "
            f"{', '.join(takes)}."
        )


def check_callbacks(callbacks: Any) -> None:
    """Raise a ValueError unless these are callbacks, with or without names, or None."""
    if callbacks is None:
        return

    def kind(entry: Any) -> type:
        if isinstance(entry, (list, tuple)) and len(entry) == 2:
            entry = entry[1]
        entry = Callback if entry is None else entry
        return entry if isinstance(entry, type) else type(entry)

    if not (isinstance(callbacks, list) and all(issubclass(kind(c), Callback) for c in callbacks)):
        raise ValueError(
            f"callbacks={callbacks!r}: it must be a list of skorch callbacks, such as "
            "[skorch.callbacks.EarlyStopping()], or None."
        )
    scoring = [c for c in map(kind, callbacks) if issubclass(c, (EpochScoring, BatchScoring))]
    if scoring:
        raise ValueError(
            f"callbacks holds {scoring[0].__name__}, which scores the batches of skorch's data "
            "sets, and here there are none: give a callback whose on_epoch_end(net, **kwargs) "
            'calls net.predict on rows of your own, or read "valid_uar" in history_ with '
            "early_stopping=True."
        )


def check_class_weight(weights: Any) -> None:
    """Raise a ValueError unless this can weight classes, whatever they are."""
    if isinstance(weights, str) and weights == "balanced":
        return
    if not isinstance(weights, dict | None):
        raise ValueError(
            f'class_weight={weights!r}: it must be "balanced", a dict of weights, or None.'
        )
    for label, weight in (weights or {}).items():
        if not (isinstance(weight, numbers.Real) and 0 <= weight < float("inf")):
            raise ValueError(
                f"class_weight gives {label!r} the weight {weight!r}; it must be a number, at "
                "least 0."
            )


def check_transformer(name: str, transformer: Any, such: str) -> None:
    """Raise a ValueError unless this is an estimator that transforms, or None."""
    usable = hasattr(transformer, "transform") and hasattr(transformer, "get_params")
    if transformer is not None and (isinstance(transformer, type) or not usable):
        raise ValueError(
            f"{name}={transformer!r}: it must be a transformer, such as {such}(), or None."
        )
