"""Speech emotion recognition from voice and face, in scikit-learn's style."""

from skfdan.classifiers import FDANClassifier
from skfdan.metrics import SCORING, uar_score, war_score, weighted_f1_score
from skfdan.model_selection import AudioHoldout
from skfdan.table import make_table, stack_modalities, unpair

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
