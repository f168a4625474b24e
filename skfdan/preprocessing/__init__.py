"""From paths to arrays: spectrograms, cepstra, patterns and faces, one column at a time."""

from ._limits import DecodeLimits
from .faces import FaceFrames
from .media import MediaError
from .mel import MelSpectrogram
from .mfcc import MFCC
from .speech_features import SpeechFeatures
from .twine import TwineShufflePattern

__all__ = [
    "MFCC",
    "DecodeLimits",
    "FaceFrames",
    "MediaError",
    "MelSpectrogram",
    "SpeechFeatures",
    "TwineShufflePattern",
]
