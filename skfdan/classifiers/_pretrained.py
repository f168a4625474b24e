"""Classifiers that train the last layers of pretrained encoders along."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch

from skfdan.classifiers.joint import JointClassifier
from skfdan.nn.pretrained_layers import LastLayers, LayerShape, PretrainedLayers

#: How far, relative to the largest value, copied layers may be from the model that they are of.
_TOLERANCE = 1e-3


class PretrainedClassifier(JointClassifier):
    """Base of the classifiers whose network starts from the last layers of encoders.

    ``fit`` reads weights from the encoder's files, once. ``encoder_layers_`` keeps what is
    needed to build the network without them: of each modality, a :class:`LayerShape` as a
    dict. Checkpoints keep it too.
    """

    #: Parameters that name an encoder, by modality.
    _encoder_params: ClassVar[dict[str, str]] = {"audio": "speech_model"}
    #: The parameter that says how many of its layers are trained.
    _depth_param: ClassVar[str]

    _state_attributes: ClassVar[dict] = JointClassifier._state_attributes | {
        "encoder_layers_": dict,
    }

    def _encoders(self) -> dict[str, Any]:
        """Return the encoders that are named, by modality."""
        named = {m: getattr(self, param) for m, param in self._encoder_params.items()}
        return {m: model for m, model in named.items() if model is not None}

    def _check_params(self) -> None:
        super()._check_params()
        for m, model in self._encoders().items():
            param = self._encoder_params[m]
            if not isinstance(model, (str, os.PathLike)):
                raise ValueError(f"{param}={model!r}: give the name or folder of a model, or None.")
            if m not in self._modalities:
                raise ValueError(
                    f"{param}={str(model)!r} is of {m}, and modalities={self.modalities!r} has "
                    f"none; leave it away, or add {m!r}."
                )
            if not getattr(self, self._depth_param):
                raise ValueError(
                    f"{param}={str(model)!r} with {self._depth_param}=0 trains no layer of it; "
                    f"set {self._depth_param}, or leave it away."
                )

    # ------------------------------------------------------------------ training

    def _measure(self, samples):
        specs = super()._measure(samples)
        for m in self._encoders():
            if m in specs:
                # The layers read what they were trained on, not what the training set makes of it.
                d = specs[m].n_features
                specs[m] = replace(specs[m], mean=np.zeros(d), std=np.ones(d))
        return specs

    def _read_pretrained(self, known: dict[str, Any] | None = None) -> None:
        depth = getattr(self, self._depth_param)
        self._pretrained = {}
        if known is None:
            # Models are made of random numbers before they get their weights.
            with torch.random.fork_rng(devices=[]):
                for m, model in self._encoders().items():
                    owner = f"{type(self).__name__}({self._encoder_params[m]}=...)"
                    self._pretrained[m] = _READERS[m](owner, model, depth)
            known = {m: read.shape._asdict() for m, read in self._pretrained.items()}
        self.encoder_layers_ = known
        for m, shape in self._shapes().items():
            self._check_encoded(m, shape, depth)

    def _check_encoded(self, m: str, shape: LayerShape, depth: int) -> None:
        param, model = self._encoder_params[m], str(getattr(self, self._encoder_params[m]))
        transformer = {"audio": "Wav2Vec2Embedding", "text": "TextEmbedding"}[m]
        make = f'{transformer}(model={model!r}, layer={-1 - depth}, output="sequence")'
        if m not in self._specs:
            raise ValueError(f"{param}={model!r}: X has no {m} cell. Make them with {make}.")
        if self._specs[m].n_features != shape.width:
            raise ValueError(
                f"{param}={model!r}: its hidden states have {shape.width} features, and the {m} "
                f"cells have {self._specs[m].n_features}. Make them with {make}."
            )

    def _shapes(self) -> dict[str, LayerShape]:
        """Return what the trained layers of each encoder look like."""
        return {m: LayerShape(**shape) for m, shape in self.encoder_layers_.items()}

    def _start(self, labels: dict[str, np.ndarray], classes: np.ndarray) -> None:
        super()._start(labels, classes)
        for m, read in vars(self).pop("_pretrained").items():
            read.give(self._trained_layers(m))

    def _trained_layers(self, modality: str) -> torch.nn.Module:
        """Return the part of the network that an encoder's last layers fill."""
        raise NotImplementedError

    def _is_small(self) -> bool:
        return super()._is_small() and not self.encoder_layers_

    def get_params_for_optimizer(self, prefix, named_parameters):
        """Give the layers of encoders their own learning rate.

        Parameters
        ----------
        prefix : str
            ``"optimizer"``.
        named_parameters : iterator
            Named parameters of the network.

        Returns
        -------
        args : tuple
            Parameter groups.
        kwargs : dict
            Arguments of the optimiser.
        """
        named = list(named_parameters)
        if not self.encoder_layers_:
            return super().get_params_for_optimizer(prefix, named)
        slow = self.module_.pretrained_parameters()
        ids = {id(p) for p in slow}
        args, kwargs = super().get_params_for_optimizer(
            prefix, [(name, p) for name, p in named if id(p) not in ids]
        )
        return ([*args[0], {"params": slow, "lr": self.encoder_lr}],), kwargs


# -------------------------------------------------------------------- reading models


def _read_speech(owner: str, model: Any, depth: int) -> PretrainedLayers:
    from skfdan.preprocessing.wav2vec2 import speech_network

    speech = speech_network(owner, model, "cpu").get()
    sound = np.random.default_rng(0).normal(size=4 * speech.reach)

    def states(layer: int) -> torch.Tensor:
        return torch.from_numpy(speech(sound, layer))

    inner = getattr(speech.model, "model", speech.model)  # torchaudio wraps those that normalise
    return _read(owner, model, inner, speech.n_layers, depth, states)


def _read_text(owner: str, model: Any, depth: int) -> PretrainedLayers:
    from skfdan.preprocessing.text import text_network

    network = text_network(owner, model, "cpu").get()

    def states(layer: int) -> torch.Tensor:
        ids = torch.arange(8)[None] % network.config.vocab_size
        with torch.inference_mode():
            out = network(
                input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
            )
        return out.hidden_states[layer][0].clone()

    return _read(owner, model, network, network.config.num_hidden_layers, depth, states)


_READERS = {"audio": _read_speech, "text": _read_text}


def _read(
    owner: str,
    name: Any,
    model: torch.nn.Module,
    n_layers: int,
    depth: int,
    states: Callable[[int], torch.Tensor],
) -> PretrainedLayers:
    """Copy the last layers of a model, if they do what the model does."""
    if depth >= n_layers:
        raise ValueError(
            f"{owner}: {str(name)!r} has {n_layers} layers, of which at most {n_layers - 1} can be "
            f"trained, not {depth}."
        )
    try:
        read = PretrainedLayers.of(model, depth)
    except ValueError as error:
        raise ValueError(f"{owner}: {str(name)!r} can't be trained along: {error}") from None
    tail = LastLayers(read.shape, depth).eval()
    read.give(tail)
    expected = states(n_layers)
    with torch.inference_mode():
        found = tail(states(n_layers - depth)[None])[0]
    # Other models have layers with the same names, and use them otherwise.
    if not (found - expected).abs().max() <= _TOLERANCE * expected.abs().max():
        raise ValueError(
            f"{owner}: {str(name)!r} can't be trained along: its layers compute something else "
            "than those of wav2vec 2.0, BERT or RoBERTa."
        )
    return read
