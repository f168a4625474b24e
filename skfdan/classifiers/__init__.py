"""Classifiers on the modality table, one file a published method."""

from skfdan.classifiers.coattention import CoAttentionClassifier
from skfdan.classifiers.fdan import ALPHA_GRID, WEIGHT_DECAY_GRID, FDANClassifier
from skfdan.classifiers.fdrl import FDRLClassifier
from skfdan.classifiers.gmtcnet import GMTCNetClassifier
from skfdan.classifiers.misa import MISAClassifier
from skfdan.classifiers.sdt import SDTClassifier
from skfdan.classifiers.tfmix import TFMixClassifier
from skfdan.classifiers.torchvision import TorchvisionClassifier
from skfdan.classifiers.wavfusion import WavFusionClassifier

__all__ = [
    "ALPHA_GRID",
    "WEIGHT_DECAY_GRID",
    "CoAttentionClassifier",
    "FDANClassifier",
    "FDRLClassifier",
    "GMTCNetClassifier",
    "MISAClassifier",
    "SDTClassifier",
    "TFMixClassifier",
    "TorchvisionClassifier",
    "WavFusionClassifier",
]
