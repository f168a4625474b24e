"""The last transformer layers of pretrained encoders, to be trained along."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from skfdan.nn.gated import GatedLayer

__all__ = ["LastLayers", "LayerShape", "PretrainedLayers"]

#: The parts of a ``GatedLayer``, as wav2vec 2.0 calls them in torchaudio and transformers,
#: and as BERT and RoBERTa do.
_NAMES = (
    {
        "q_proj": "attention.q_proj",
        "k_proj": "attention.k_proj",
        "v_proj": "attention.v_proj",
        "out_proj": "attention.out_proj",
        "norm": "layer_norm",
        "ffn.0": "feed_forward.intermediate_dense",
        "ffn.3": "feed_forward.output_dense",
        "final_norm": "final_layer_norm",
    },
    {
        "q_proj": "attention.self.query",
        "k_proj": "attention.self.key",
        "v_proj": "attention.self.value",
        "out_proj": "attention.output.dense",
        "norm": "attention.output.LayerNorm",
        "ffn.0": "intermediate.dense",
        "ffn.3": "output.dense",
        "final_norm": "output.LayerNorm",
    },
)


class LayerShape(NamedTuple):
    """What the transformer layers of an encoder look like.

    Parameters
    ----------
    width : int
        Width of the hidden states.
    n_heads : int
        Attention heads.
    ffn_dim : int
        Width of the feed-forward parts.
    eps : float, default=1e-5
        What the layer norms add to the variance.
    norm_first : bool, default=False
        Whether layer norms come before attention and feed-forward part, and once more
        after the last layer. True of the larger wav2vec 2.0.

    Examples
    --------
    >>> bert_base = LayerShape(768, n_heads=12, ffn_dim=3072, eps=1e-12)
    """

    width: int
    n_heads: int
    ffn_dim: int
    eps: float = 1e-5
    norm_first: bool = False


class PretrainedLayers(NamedTuple):
    """Weights of the last transformer layers of an encoder.

    Parameters
    ----------
    shape : LayerShape
        What the layers look like.
    layers : list of dict of str to Tensor
        The weights of each, by the names of ``GatedLayer``.
    norm : dict of str to Tensor
        Those of the layer norm after the last, if there is one.

    Examples
    --------
    >>> from torchaudio.models import wav2vec2_model
    >>> model = wav2vec2_model("group_norm", [(8, 10, 5), (8, 8, 4)], False, 16, 0.0, 8, 2,
    ...                        4, 2, 0.0, 32, 0.0, 0.0, False, 0.0, None)
    >>> last = PretrainedLayers.of(model, 2)
    >>> last.shape
    LayerShape(width=16, n_heads=2, ffn_dim=32, eps=1e-05, norm_first=False)
    >>> tail = LastLayers(last.shape, n_layers=2)
    >>> last.give(tail)
    """

    shape: LayerShape
    layers: list[dict[str, Tensor]]
    norm: dict[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module, n_layers: int) -> PretrainedLayers:
        """Copy the last layers of a model.

        Parameters
        ----------
        model : torchaudio.models.Wav2Vec2Model or a model of transformers
            A wav2vec 2.0, BERT or RoBERTa, or one whose layers have the same parts.
        n_layers : int
            How many, at least 1.

        Returns
        -------
        PretrainedLayers
            Copies of the weights.

        Raises
        ------
        ValueError
            If there are no such layers.
        """
        encoder = getattr(model, "encoder", None)
        encoder = getattr(encoder, "transformer", encoder)  # torchaudio
        layers = getattr(encoder, "layers", getattr(encoder, "layer", None))
        names = next((n for n in _NAMES if layers is not None and _has(layers[-1], n)), None)
        if names is None or not 1 <= n_layers <= len(layers):
            raise ValueError(
                f"{type(model).__name__} has no {n_layers} layers like those of wav2vec 2.0, BERT "
                "or RoBERTa."
            )
        last = layers[-1]
        attention = getattr(last.attention, "self", last.attention)
        linear, norm = last.get_submodule(names["ffn.0"]), last.get_submodule(names["norm"])
        stable = getattr(getattr(model, "config", None), "do_stable_layer_norm", False)
        shape = LayerShape(
            width=linear.in_features,
            n_heads=getattr(attention, "num_heads", None) or attention.num_attention_heads,
            ffn_dim=linear.out_features,
            eps=norm.eps,
            norm_first=bool(getattr(last, "layer_norm_first", stable)),
        )
        return cls(
            shape,
            [
                {
                    f"{part}.{name}": tensor.detach().clone()
                    for part, path in names.items()
                    for name, tensor in layer.get_submodule(path).state_dict().items()
                }
                for layer in list(layers)[-n_layers:]
            ],
            _copied(encoder.layer_norm) if shape.norm_first else {},
        )

    def give(self, network: nn.Module) -> None:
        """Let the layers of a network start from these weights.

        Parameters
        ----------
        network : Module
            With as many ``layers``, of ``GatedLayer``, and a ``last_norm``.
        """
        for layer, weights in zip(network.layers, self.layers, strict=True):
            lent = {name: weights[source] for name, source in layer.sources().items()}
            layer.load_state_dict(lent, strict=False)
        network.last_norm.load_state_dict(self.norm)


def _has(layer: nn.Module, names: dict[str, str]) -> bool:
    held = dict(layer.named_modules())
    return all(isinstance(held.get(path), (nn.Linear, nn.LayerNorm)) for path in names.values())


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def last_norm(shape: LayerShape | None) -> nn.Module:
    """Return the layer norm after the last layer, frozen, if the encoder has one there."""
    if shape is None or not shape.norm_first:
        return nn.Identity()
    return nn.LayerNorm(shape.width, shape.eps).requires_grad_(False)


class LastLayers(nn.Module):
    """The last transformer layers of an encoder, as a network of their own.

    They take the hidden states before them, and give what the encoder gives.

    Parameters
    ----------
    shape : LayerShape
        What the layers look like.
    n_layers : int
        How many there are.
    dropout : float, default=0.1
        Dropout of attention and feed-forward parts.

    Examples
    --------
    >>> import torch
    >>> tail = LastLayers(LayerShape(8, n_heads=2, ffn_dim=16), n_layers=2)
    >>> tail(torch.zeros(3, 5, 8), torch.ones(3, 5, dtype=torch.bool)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, shape: LayerShape, n_layers: int, dropout: float = 0.1):
        super().__init__()
        width, n_heads, ffn_dim, eps, norm_first = shape
        self.layers = nn.ModuleList(
            GatedLayer(width, n_heads, {}, ffn_dim, dropout, eps, norm_first)
            for _ in range(n_layers)
        )
        self.last_norm = last_norm(shape)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the last hidden states.

        Parameters
        ----------
        x : Tensor of shape (n, T, width)
            Hidden states before the layers, padding last.
        mask : Tensor of shape (n, T), bool; or None
            True for steps, False for padding.

        Returns
        -------
        Tensor of shape (n, T, width)
            Hidden states after the last layer; those of the padding mean nothing.
        """
        for layer in self.layers:
            x = layer(x, {}, {}, mask)
        return self.last_norm(x)
