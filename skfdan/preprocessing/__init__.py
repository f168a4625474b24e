"""From paths to arrays: spectrograms, cepstra, patterns, faces, and embeddings of these."""

from ._limits import DecodeLimits
from .embedding import BackboneEmbedding
from .faces import FaceFrames
from .frame_embedding import FrameEmbedding
from .media import MediaError
from .mel import MelSpectrogram
from .mfcc import MFCC
from .speech_features import SpeechFeatures
from .text import TextEmbedding
from .twine import TwineShufflePattern
from .wav2vec2 import Wav2Vec2Embedding

__all__ = [
    "MFCC",
    "BackboneEmbedding",
    "DecodeLimits",
    "FaceFrames",
    "FrameEmbedding",
    "MediaError",
    "MelSpectrogram",
    "SpeechFeatures",
    "TextEmbedding",
    "TwineShufflePattern",
    "Wav2Vec2Embedding",
]
