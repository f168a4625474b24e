"""Speech emotion recognition from voice and face, in scikit-learn's style."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skfdan.classifiers import FDANClassifier
    from skfdan.metrics import SCORING, uar_score, war_score, weighted_f1_score
    from skfdan.model_selection import AudioHoldout, FDANSearchCV
    from skfdan.persistence import load_pretrained, save_pretrained
    from skfdan.summary import summarize_table
    from skfdan.table import make_table, stack_modalities, unpair

__version__ = "0.1.0.dev0"

__all__ = [
    "SCORING",
    "AudioHoldout",
    "FDANClassifier",
    "FDANSearchCV",
    "__version__",
    "load_pretrained",
    "make_table",
    "save_pretrained",
    "stack_modalities",
    "summarize_table",
    "uar_score",
    "unpair",
    "war_score",
    "weighted_f1_score",
]

_HOMES = {
    "SCORING": "metrics",
    "AudioHoldout": "model_selection",
    "FDANClassifier": "classifiers",
    "FDANSearchCV": "model_selection",
    "load_pretrained": "persistence",
    "make_table": "table",
    "save_pretrained": "persistence",
    "stack_modalities": "table",
    "summarize_table": "summary",
    "uar_score": "metrics",
    "unpair": "table",
    "war_score": "metrics",
    "weighted_f1_score": "metrics",
}


def __getattr__(name: str) -> Any:
    # `skfdan --help` needs none of these, and they take seconds to import; loaders and
    # transformers, in every worker process too, need no torch.
    if name in _HOMES:
        value = getattr(import_module(f"skfdan.{_HOMES[name]}"), name)
    elif name in _HOMES.values():
        value = import_module(f"skfdan.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
