"""Corpora as modality tables: one row a sample, one loader a corpus."""

from ._fetch import fetch_ravdess
from ._published import load_published_results
from .check import CorpusCheck, check_corpus
from .crema_d import load_crema_d
from .emodb import load_emodb
from .fer2013 import load_fer2013
from .folder import load_folder
from .iemocap import load_iemocap
from .meld import load_meld
from .ravdess import load_ravdess
from .savee import load_savee
from .synthetic import make_emotion_clips

__all__ = [
    "CorpusCheck",
    "check_corpus",
    "fetch_ravdess",
    "load_crema_d",
    "load_emodb",
    "load_fer2013",
    "load_folder",
    "load_iemocap",
    "load_meld",
    "load_published_results",
    "load_ravdess",
    "load_savee",
    "make_emotion_clips",
]
