"""Splitters and named protocols for unpaired modalities, and files that keep their splits."""

from ._files import load_splits, make_row_ids, save_splits
from ._holdout import AudioHoldout
from ._protocols import PROTOCOLS, Protocol, make_protocol

__all__ = [
    "PROTOCOLS",
    "AudioHoldout",
    "Protocol",
    "load_splits",
    "make_protocol",
    "make_row_ids",
    "save_splits",
]
