"""Pictures of data, models and results, in the manner of scikit-learn's displays.

A display is made by one of its ``from_...`` methods, which computes and draws. It keeps the
numbers, so that ``plot`` can draw them again, and what was drawn in attributes that end in
``_``. Drawing needs matplotlib: ``pip install "skfdan[plot]"``.
"""

from .aligned_space import AlignedSpaceDisplay
from .clip import ClipDisplay
from .confusion import ConfusionMatricesDisplay
from .discrepancy import ClassDiscrepancyDisplay
from .learning_curves import LearningCurvesDisplay
from .speaker_scores import SpeakerScoresDisplay

__all__ = [
    "AlignedSpaceDisplay",
    "ClassDiscrepancyDisplay",
    "ClipDisplay",
    "ConfusionMatricesDisplay",
    "LearningCurvesDisplay",
    "SpeakerScoresDisplay",
]
