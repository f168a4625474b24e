"""From paths to arrays: log-Mel spectrograms, cepstra and faces, one column at a time."""

from .faces import FaceFrames
from .media import MediaError
from .mel import MelSpectrogram
from .mfcc import MFCC

__all__ = ["MFCC", "FaceFrames", "MediaError", "MelSpectrogram"]
