"""Whether parameters and learned attributes are what their class can have.

Estimators check their parameters themselves, but trust their users: a string where a flag
should be is true, and a million pixels are a user's own wish. A file is not trusted.
"""

from __future__ import annotations

import numbers
import re
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline

from skfdan.nn.backbones import BACKBONES
from skfdan.nn.fdan import FUSED
from skfdan.nn.inputs import InputSpec
from skfdan.nn.pretrained_layers import LayerShape
from skfdan.persistence._format import ModelError
from skfdan.persistence._known import LOCAL
from skfdan.preprocessing import DecodeLimits
from skfdan.preprocessing._base import CellTransformer

#: Highest values of what decides how much memory a prediction takes beside the weights.
_CEILINGS = {
    "input_size": 4096,
    "n_blocks": 16,
    "size": 4096,
    "n_frames": 10_000,
    "n_fft": 2**20,
    "win_length": 2**20,
    "n_mels": 8192,
    "n_mfcc": 8192,
    "n_levels": 64,
    "sample_rate": 768_000,
}
_MAX_SAMPLES = 2**28
#: Bands by samples of a window: Mel filters are made for each pair, also while loading.
_MAX_FILTERS = 2**21
#: Processes or threads, which not every machine bears.
_MAX_JOBS = 256

#: What parameters without a telling default may be, beside None; others may be numbers.
_KINDS = {
    "ramp": (str,),
    "backbone_trainable": (bool, str),
    "speech_model": (str,),
    "text_model": (str,),
    "optimizer_params": (dict,),
    "visual": (slice, list, tuple, np.ndarray),
    "audio": (slice, list, tuple, np.ndarray),
    "text": (slice, list, tuple, np.ndarray),
    "ablation": (str,),
    "visual_transformer": (CellTransformer, Pipeline),
    "audio_transformer": (CellTransformer, Pipeline),
}
_DEVICE = re.compile(r"(auto|cpu|mps|(cuda|xpu)(:\d{1,3})?)", re.ASCII)


def check_params(name: str, params: dict[str, Any], defaults: dict[str, Any], given: set) -> None:
    """Refuse parameters from a file that no user of the class would have set.

    Those in ``given`` come from whoever loads, who may do so.
    """
    for key, value in params.items():
        if key not in given and not _fits(key, value, defaults[key]):
            raise ModelError(f"{name}({key}={value!r:.60}) is not possible")
    length = [params.get(key) for key in ("sample_rate", "duration")]
    if (
        all(isinstance(v, numbers.Real) for v in length)
        and not length[0] * length[1] < _MAX_SAMPLES
    ):
        raise ModelError(f"{name}(duration={length[1]!r:.60}) is not possible")
    filters = [params.get(key) for key in ("n_fft", "n_mels")]
    if (
        all(isinstance(v, numbers.Real) for v in filters)
        and not filters[0] * filters[1] <= _MAX_FILTERS
    ):
        raise ModelError(f"{name}(n_fft={filters[0]}, n_mels={filters[1]}) is not possible")


def is_n_jobs(value: Any) -> bool:
    """Tell whether so many files may be decoded at a time."""
    return value is None or (_is_int(value) and abs(value) <= _MAX_JOBS)


def _fits(key: str, value: Any, default: Any) -> bool:
    if key in LOCAL:
        return value is None
    if key == "random_state":
        return value is None or _is_int(value)
    if key == "n_jobs":
        return is_n_jobs(value)
    if key == "weights":
        return value in (None, "DEFAULT")
    if key in ("backbone", "arch"):
        return isinstance(value, str) and value in BACKBONES
    if key == "optimizer":
        return isinstance(value, type)
    if key == "device":
        return isinstance(value, str) and bool(_DEVICE.fullmatch(value))
    if value is None:
        return True
    if key == "class_weight":
        return isinstance(value, dict) or value == "balanced"
    if key == "limits":
        return type(value) is DecodeLimits
    if key in _KINDS:
        return isinstance(value, _KINDS[key])
    if isinstance(value, numbers.Real):
        return not value > _CEILINGS.get(key, np.inf)
    if isinstance(default, str):
        return isinstance(value, str)
    if isinstance(default, tuple) and isinstance(value, (tuple, list)):
        return all(isinstance(v, (str, numbers.Real)) for v in value)
    return isinstance(value, (tuple, list)) and all(isinstance(v, numbers.Real) for v in value)


def _is_int(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_))


def check_classes(classes: Any) -> None:
    """Refuse what ``numpy.unique`` does not give for labels."""
    ok = isinstance(classes, np.ndarray) and classes.ndim == 1 and len(classes) > 1
    try:
        # A mixture can't be sorted.
        ok = ok and classes.dtype.kind in "biufUO" and np.array_equal(np.unique(classes), classes)
    except TypeError:
        ok = False
    if not ok:
        raise ModelError("its classes are not labels in sorted order")


def check_attributes(clf, attributes: dict[str, Any], absent: set[str]) -> None:
    """Refuse learned attributes that do not fit the parameters, the classes and each other."""
    n_classes = len(clf.classes_)
    required = {"_specs", "n_features_in_", "class_count_", "_class_weights"}

    def specs(value):
        return (
            len(value) > 0 and set(value) <= {*clf._columns} and all(map(_is_spec, value.values()))
        )

    def weights(value):
        fitting = (
            w is None
            or (isinstance(w, torch.Tensor) and w.shape == (n_classes,) and bool((w >= 0).all()))
            for w in value.values()
        )
        return {*value} - {FUSED} == {*attributes["_specs"]} and all(fitting)

    def bank(value):
        modalities = attributes["_specs"]
        filled = clf.variant != "official" and len(modalities) > 1 and clf.n_layers
        shape = (clf.n_layers, clf.bottleneck)
        return {*value} == ({*modalities} if filled else set()) and all(
            _is_array(a, "f4", 3) and (a.shape[0], a.shape[2]) == shape and a.shape[1] > 0
            for a in value.values()
        )

    fits = {
        "_specs": specs,
        "n_features_in_": lambda v: _is_int(v) and v > 0,
        "feature_names_in_": lambda v: (
            v.dtype == object
            and len(v) == attributes["n_features_in_"]
            and all(isinstance(name, str) for name in v)
        ),
        "class_count_": lambda v: _is_array(v, "i8", 1) and len(v) == n_classes and (v >= 0).all(),
        "_class_weights": weights,
        "_read_files": lambda v: (
            {*v} == {*attributes["_specs"]} and all(isinstance(of, bool) for of in v.values())
        ),
        "encoder_layers_": lambda v: all(
            m in attributes["_specs"] and _is_layer_shape(shape, attributes["_specs"][m].n_features)
            for m, shape in v.items()
        ),
        "reference_bank_": bank,
        "_cell_shape": lambda v: 0 < len(v) < 4 and all(_is_int(size) and size > 0 for size in v),
        "validation_rows_": lambda v: _is_array(v, "i8", 1) and (v >= 0).all(),
        "validation_uar_": lambda v: v is None or (_is_array(v, "f8", 1) and len(v) == 3),
    }
    for name in (*required & absent, *attributes):
        kinds = clf._state_attributes[name]
        value = attributes.get(name)
        if (
            name in absent
            or not isinstance(value, kinds)
            or not fits.get(name, lambda v: True)(value)
        ):
            raise ModelError(f"its {name} is not what {type(clf).__name__} can have")


def _is_array(value: Any, dtype: str, ndim: int) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.str[1:] == dtype and value.ndim == ndim


def _is_layer_shape(shape: Any, width: Any) -> bool:
    if not isinstance(shape, dict) or set(shape) != set(LayerShape._fields):
        return False
    counts = (shape[name] for name in ("width", "n_heads", "ffn_dim"))
    return (
        all(_is_int(n) and n > 0 for n in counts)
        and shape["width"] == width
        and isinstance(shape["eps"], float)
        and 0 < shape["eps"] < 1
        and type(shape["norm_first"]) is bool
    )


def _is_spec(spec: Any) -> bool:
    if not isinstance(spec, InputSpec) or type(spec.uint8) is not bool:
        return False
    statistics = (spec.mean, spec.std)
    if spec.kind == "image":
        numeric = all(isinstance(v, numbers.Real) for v in statistics)
        return spec.n_features is None and numeric and 0 < spec.std < np.inf
    return (
        spec.kind in ("vector", "sequence")
        and not spec.uint8
        and _is_int(spec.n_features)
        and all(_is_array(v, "f8", 1) and len(v) == spec.n_features > 0 for v in statistics)
        and bool((spec.std > 0).all())
    )
