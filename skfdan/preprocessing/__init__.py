"""From paths to arrays: spectrograms, cepstra, patterns, faces, and embeddings of these."""

from ._limits import DecodeLimits
from .embedding import BackboneEmbedding
from .faces import FaceFrames
from .media import MediaError
from .mel import MelSpectrogram
from .mfcc import MFCC
from .speech_features import SpeechFeatures
from .twine import TwineShufflePattern

__all__ = [
    "MFCC",
    "BackboneEmbedding",
    "DecodeLimits",
    "FaceFrames",
    "MediaError",
    "MelSpectrogram",
    "SpeechFeatures",
    "TwineShufflePattern",
]
