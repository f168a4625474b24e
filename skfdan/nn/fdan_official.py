"""What the released FDAN code really computes, kept for comparison only.

The public code of the paper is a different model from the paper's. Its defects
are reproduced here on purpose, each named where it happens:

1. one backbone, bottleneck and classifier serve both modalities;
2. attention changes row 0 of each batch only, the other rows bypass it;
3. the attention's parameters never reach the optimiser: they stay random;
4. two heads of 32 columns, pre-normalisation and no feed-forward network
   instead of Eq. 2-4, with row 0 itself among the keys and values;
5. prediction skips attention altogether;
6. the adaptation loss is divided by the classes that both batches hold, and its
   weight follows 2 / (1 + exp(-p)) - 1, so it never exceeds 0.462 of alpha.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from skfdan.nn.attention import cross_attention, other_modality
from skfdan.nn.backbones import embed, make_backbone
from skfdan.nn.fdan import FDANOutput
from skfdan.nn.inputs import InputNorm, InputSpec

__all__ = ["OfficialFDANNet"]

_HEADS, _HEAD_DIM = 2, 32


class _FrozenAttention(nn.Module):
    """Attention of one modality's row 0 over the other modality's rows 1, 2, ..."""

    def __init__(self, d: int):
        super().__init__()
        inner = _HEADS * _HEAD_DIM
        self.project_in = nn.Linear(d, d)
        self.norm = nn.LayerNorm(d)
        self.query = nn.Linear(d, inner, bias=False)
        self.key = nn.Linear(d, inner, bias=False)
        self.value = nn.Linear(d, inner, bias=False)
        self.out = nn.Linear(inner, d)
        self.project_out = nn.Linear(d, d)
        self.requires_grad_(False)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        row = self.project_in(own[:1])
        tokens = self.norm(torch.cat([row, other[1:]]))
        attended = cross_attention(
            self.query(tokens[:1]), self.key(tokens), self.value(tokens), _HEADS
        )
        return torch.cat([self.project_out(row + self.out(attended)), own[1:]])


class OfficialFDANNet(nn.Module):
    """The released FDAN code's network, defects included (see the module's text).

    Parameters
    ----------
    n_classes : int
        Number of emotions.
    inputs : mapping of modality to InputSpec
        The modalities and their cells; both must be images, or vectors of
        equal length, since they share everything.
    backbone, weights, backbone_trainable, input_size, bottleneck
        As in :class:`skfdan.nn.FDANNet`.

    Raises
    ------
    ValueError
        If the modalities can't share a network.
    """

    def __init__(
        self,
        n_classes: int,
        inputs: Mapping[str, InputSpec],
        backbone: str | Callable[[], tuple[nn.Module, int]] = "resnet34",
        weights: str | os.PathLike | None = "DEFAULT",
        backbone_trainable: bool = True,
        input_size: int | None = 224,
        bottleneck: int = 256,
    ):
        super().__init__()
        specs = list(inputs.values())
        if len({(s.kind, s.n_features) for s in specs}) > 1:
            raise ValueError(
                'variant="official" shares one network between the modalities: their cells must '
                "both be images or vectors of equal length."
            )
        self.backbone_trainable = backbone_trainable
        self.inputs = nn.ModuleDict({m: InputNorm(s, input_size) for m, s in inputs.items()})
        if specs[0].kind == "vector":
            self.backbone, n_features = nn.Identity(), specs[0].n_features
        else:
            self.backbone, n_features = make_backbone(backbone, weights)
        self.backbone.requires_grad_(backbone_trainable)
        self.bottleneck = nn.Sequential(nn.Linear(n_features, bottleneck), nn.ReLU())
        self.attention = nn.ModuleDict({m: _FrozenAttention(bottleneck) for m in inputs})
        self.classifier = nn.Linear(bottleneck, n_classes)

    def train(self, mode: bool = True) -> OfficialFDANNet:
        """Set training mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if not self.backbone_trainable:
            self.backbone.eval()
        return self

    def encode(self, modality: str, x: Tensor) -> Tensor:
        """Return the bottleneck features of a batch."""
        features = embed(self.backbone, self.inputs[modality](x))
        return self.bottleneck(features.to(self.classifier.weight.dtype))

    def forward(
        self, visual: Tensor | None = None, audio: Tensor | None = None, reference: None = None
    ) -> FDANOutput:
        """Classify; attention touches row 0 only, and only while training."""
        given = {"visual": visual, "audio": audio}
        z = {m: self.encode(m, x) for m, x in given.items() if x is not None}
        if self.training and len(z) == 2:
            z = {m: self.attention[m](own, z[other_modality(m)]) for m, own in z.items()}
        return FDANOutput(
            {m: self.classifier(own) for m, own in z.items()}, {m: [own] for m, own in z.items()}
        )
