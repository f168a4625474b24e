"""Parameter values as JSON: plain ones, and a few kinds with a tag.

A tag is an object with one key that begins with "@". There is no tag that names anything to
import or to call; what can't be written is ``{"@omitted": ...}`` and is asked for when loading.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from skfdan.persistence._format import ModelError, check_keys
from skfdan.preprocessing import DecodeLimits

_DTYPE = re.compile(r"\|b1|[|<][iu][1248]|<f[248]|<U\d{1,4}|\|O", re.ASCII)
_OBJECTS = "|O"
_MAX_ARRAY = 8 * 2**20
#: Bytes of one label, four a character: every prediction is an array of them.
_MAX_WIDTH = 4 * 256


class Unstorable(TypeError):
    """A value that only pickle could store."""


def encode(value: Any) -> Any:
    """Return what JSON can hold of a value; raise Unstorable if that is not all of it."""
    if isinstance(value, np.ndarray):
        return {"@array": _encode_array(value)}
    if isinstance(value, np.generic):
        return {"@numpy": _encode_array(np.asarray(value)[None])}
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"@float": str(value)}
    if type(value) is list:
        return [encode(v) for v in value]
    if type(value) is tuple:
        return {"@tuple": [encode(v) for v in value]}
    if type(value) is dict:
        if all(type(k) is str and not k.startswith("@") for k in value):
            return {k: encode(v) for k, v in value.items()}
        return {"@dict": [[encode(k), encode(v)] for k, v in value.items()]}
    if isinstance(value, slice):
        return {"@slice": [encode(v) for v in (value.start, value.stop, value.step)]}
    if isinstance(value, type) and _optimizer(value.__name__) is value:
        return {"@optimizer": value.__name__}
    if type(value) is DecodeLimits:
        return {"@limits": {k: encode(v) for k, v in asdict(value).items()}}
    raise Unstorable(f"a {type(value).__name__}")


def decode(value: Any) -> Any:
    """Return the value that :func:`encode` was given."""
    if isinstance(value, list):
        return [decode(v) for v in value]
    if not isinstance(value, dict):
        return value
    if not any(k.startswith("@") for k in value):
        return {k: decode(v) for k, v in value.items()}
    if len(value) != 1:
        raise ModelError(f"{value!r:.60} has a tag and something beside it")
    (tag, content), *_ = value.items()
    if tag == "@float" and content in ("nan", "inf", "-inf"):
        return float(content)
    if tag == "@tuple" and isinstance(content, list):
        return tuple(decode(v) for v in content)
    if tag == "@dict" and isinstance(content, list):
        return _decode_dict(content)
    if tag == "@slice" and isinstance(content, list) and len(content) == 3:
        return slice(*(decode(v) for v in content))
    if tag == "@optimizer" and isinstance(content, str) and _optimizer(content):
        return _optimizer(content)
    if tag == "@array":
        return _decode_array(content)
    if tag == "@numpy":
        array = _decode_array(content)
        if len(array) == 1:
            return array[0]
    if tag == "@limits":
        check_keys(content, DecodeLimits.__dataclass_fields__, tag)
        return DecodeLimits(**{k: decode(v) for k, v in content.items()})
    raise ModelError(f"{value!r:.60} is no value that a skfdan model has")


def _decode_dict(pairs: list) -> dict:
    out = {}
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ModelError(f"{pair!r:.60} is no key with its value")
        key = decode(pair[0])
        if (
            not isinstance(key, (str, int, float, bool, np.generic, tuple, type(None)))
            or key in out
        ):
            raise ModelError(f"{pair[0]!r:.60} is no key, or is there twice")
        out[key] = decode(pair[1])
    return out


def _encode_array(array: np.ndarray) -> dict:
    """Return type and values of a one-dimensional array of numbers or strings."""
    dtype = array.dtype.newbyteorder("<").str
    values = [v.item() if isinstance(v, np.generic) else v for v in array.tolist()]
    plain = all(type(v) in (bool, int, float, str) for v in values)
    finite = all(math.isfinite(v) for v in values if type(v) is float)
    if array.ndim != 1 or not _DTYPE.fullmatch(dtype) or not plain:
        raise Unstorable(f"an array of {array.dtype} and shape {array.shape}")
    if not finite and dtype != _OBJECTS:
        raise Unstorable(f"an array of {array.dtype} with NaN or infinite values")
    return {"dtype": dtype, "values": [encode(v) for v in values]}


def _decode_array(content: Any) -> np.ndarray:
    check_keys(content, ("dtype", "values"), "an array")
    dtype, values = content["dtype"], content["values"]
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise ModelError(f"an array has the type {dtype!r:.60}")
    if dtype == _OBJECTS and isinstance(values, list):
        values = [decode(v) if isinstance(v, dict) else v for v in values]
    if not isinstance(values, list) or any(type(v) not in (bool, int, float, str) for v in values):
        raise ModelError("an array holds something else than numbers and strings")
    if np.dtype(dtype).itemsize > _MAX_WIDTH or np.dtype(dtype).itemsize * len(values) > _MAX_ARRAY:
        raise ModelError(f"an array announces {len(values)} values of the type {dtype!r}")
    try:
        array = np.array(values, dtype=dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelError(f"an array holds values that are not of its type {dtype!r}") from error
    back = array.tolist()
    if array.ndim != 1 or back != values or list(map(type, back)) != list(map(type, values)):
        raise ModelError(f"an array holds values that are not of its type {dtype!r}")
    return array


def _optimizer(name: str) -> type | None:
    """Return a public optimiser class of torch by its name."""
    known = getattr(torch.optim, name, None) if name in torch.optim.__all__ else None
    if isinstance(known, type) and issubclass(known, torch.optim.Optimizer):
        return None if known is torch.optim.Optimizer else known
    return None
