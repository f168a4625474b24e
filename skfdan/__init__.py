"""Speech emotion recognition from voice and face, in scikit-learn's style."""

from typing import TYPE_CHECKING, Any

from skfdan.metrics import SCORING, uar_score, war_score, weighted_f1_score
from skfdan.model_selection import AudioHoldout
from skfdan.table import make_table, stack_modalities, unpair

if TYPE_CHECKING:
    from skfdan.classifiers import FDANClassifier

__version__ = "0.1.0.dev0"

__all__ = [
    "SCORING",
    "AudioHoldout",
    "FDANClassifier",
    "__version__",
    "make_table",
    "stack_modalities",
    "uar_score",
    "unpair",
    "war_score",
    "weighted_f1_score",
]


def __getattr__(name: str) -> Any:
    # Loaders and transformers, in every worker process too, need no torch,
    # which takes longer to import than all the rest.
    if name == "FDANClassifier":
        from skfdan.classifiers import FDANClassifier

        return FDANClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
