"""Splitters and named protocols for unpaired modalities, files of splits, and a search."""

from ._files import load_splits, make_row_ids, save_splits
from ._holdout import AudioHoldout
from ._protocols import PROTOCOLS, Protocol, make_protocol
from ._search import FDANSearchCV

__all__ = [
    "PROTOCOLS",
    "AudioHoldout",
    "FDANSearchCV",
    "Protocol",
    "load_splits",
    "make_protocol",
    "make_row_ids",
    "save_splits",
]
