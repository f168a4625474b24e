"""What a fitted estimator has learned: arrays become tensors of the file, the rest JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from skorch.history import History

from skfdan.nn.inputs import InputSpec
from skfdan.persistence._format import ModelError, check_keys
from skfdan.persistence._tensorfile import TensorFile
from skfdan.persistence._values import Unstorable, decode, encode

Tensors = dict[str, torch.Tensor]

_NUMBERS = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1")
_SPEC = ("kind", "uint8", "n_features", "mean", "std")
#: A history takes some hundred bytes of memory for each epoch, whatever the file has.
_MAX_EPOCHS = 2**20


def encode_state(value: Any, name: str, tensors: Tensors) -> Any:
    """Return a value as JSON; its arrays go into ``tensors`` under names that begin so."""
    if isinstance(value, np.ndarray) and value.dtype.str[1:] in _NUMBERS:
        # A copy: torch refuses arrays of the other byte order and negative steps.
        tensors[name] = torch.from_numpy(
            np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
        )
        return {"@ndarray": name}
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"@tensor": name}
    if isinstance(value, InputSpec):
        fields = {f: encode_state(getattr(value, f), f"{name}.{f}", tensors) for f in _SPEC}
        return {"@input": fields}
    if type(value) is dict and value:
        if not all(type(k) is str and not k.startswith("@") for k in value):
            raise Unstorable(f"a dict with the keys {list(value)}")
        return {k: encode_state(v, f"{name}.{k}", tensors) for k, v in value.items()}
    return encode(value)


def decode_state(value: Any, name: str, file: TensorFile, finite: bool = True) -> Any:
    """Return the value that :func:`encode_state` was given under the same name."""
    if not isinstance(value, dict):
        return decode(value)
    if value == {"@ndarray": name}:
        return file.take(name, finite).numpy()
    if value == {"@tensor": name}:
        return file.take(name)
    if list(value) == ["@input"]:
        check_keys(value["@input"], _SPEC, name)
        fields = value["@input"]
        return InputSpec(**{f: decode_state(fields[f], f"{name}.{f}", file) for f in _SPEC})
    if any(k.startswith("@") for k in value):
        return decode(value)
    return {k: decode_state(v, f"{name}.{k}", file) for k, v in value.items()}


def encode_history(history: History, name: str, tensors: Tensors) -> dict:
    """Return a history column by column; what is no number is left out.

    A column that not every epoch has comes with the epochs that have it.
    """
    columns: dict[str, list[tuple[int, Any]]] = {}
    for epoch, row in enumerate(history):
        for key, value in row.items():
            value = value.item() if isinstance(value, np.generic) else value
            small = type(value) is not int or abs(value) < 2**63
            if key != "batches" and type(value) in (bool, int, float) and small:
                columns.setdefault(key, []).append((epoch, value))
    out = {}
    for key, entries in columns.items():
        values = np.array([value for _, value in entries])
        tensors[f"{name}.{key}"] = torch.from_numpy(values)
        out[key] = len(entries) == len(history)
        if not out[key]:
            epochs = np.array([epoch for epoch, _ in entries], dtype=np.int64)
            tensors[f"{name}.{key}.epochs"] = torch.from_numpy(epochs)
    return {"epochs": len(history), "columns": out}


def decode_history(value: Any, name: str, file: TensorFile) -> History:
    """Return the history that :func:`encode_history` was given."""
    check_keys(value, ("epochs", "columns"), name)
    n, columns = value["epochs"], value["columns"]
    # Every epoch has a number in the file.
    if (
        type(n) is not int
        or not 0 <= n <= _MAX_EPOCHS
        or not isinstance(columns, dict)
        or (n and columns.get("epoch") is not True)
    ):
        raise ModelError(f"{name} announces {n!r:.60} epochs")
    series = {}
    for key, complete in columns.items():
        values = file.take(f"{name}.{key}", finite=False)
        epochs = torch.arange(len(values)) if values.ndim == 1 else values
        if complete is not True:
            epochs = file.take(f"{name}.{key}.epochs")
        fitting = values.ndim == 1 and epochs.shape == values.shape
        fitting = fitting and epochs.dtype is torch.int64 and type(complete) is bool
        if not fitting or (complete and len(values) != n):
            raise ModelError(f"{name}: the column {key!r:.60} does not fit {n} epochs")
        if len(epochs) and not (
            epochs.min() >= 0 and epochs.max() < n and bool((epochs.diff() > 0).all())
        ):
            raise ModelError(f"{name}: the column {key!r:.60} names epochs that were not")
        series[key] = zip(epochs.tolist(), values.tolist(), strict=True)
    history = History()
    for _ in range(n):
        history.new_epoch()
    for key, entries in series.items():
        for epoch, number in entries:
            history[epoch][key] = number
    return history
