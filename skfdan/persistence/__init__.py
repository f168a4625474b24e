"""Fitted models in a folder: readable JSON, safetensors, and nothing that can be executed."""

from skfdan.persistence._format import ModelError
from skfdan.persistence._hub import load_from_hub, push_to_hub
from skfdan.persistence._model import load_pretrained, save_pretrained

__all__ = ["ModelError", "load_from_hub", "load_pretrained", "push_to_hub", "save_pretrained"]
