"""What the released FDAN code really computes, kept for comparison only."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from skfdan.nn.attention import cross_attention, other_modality
from skfdan.nn.backbones import make_backbone
from skfdan.nn.encoders import Embedded, EncoderMixin
from skfdan.nn.fdan import FDANOutput
from skfdan.nn.inputs import InputNorm, InputSpec
from skfdan.nn.products import Linear

__all__ = ["OfficialFDANNet"]

_HEADS, _HEAD_DIM = 2, 32


class _FrozenAttention(nn.Module):
    """Attention of one modality's row 0 over the other modality's rows 1, 2, ..."""

    def __init__(self, d: int):
        super().__init__()
        inner = _HEADS * _HEAD_DIM
        self.project_in = Linear(d, d)
        self.norm = nn.LayerNorm(d)
        self.query = Linear(d, inner, bias=False)
        self.key = Linear(d, inner, bias=False)
        self.value = Linear(d, inner, bias=False)
        self.out = Linear(inner, d)
        self.project_out = Linear(d, d)
        self.requires_grad_(False)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        row = self.project_in(own[:1])
        tokens = self.norm(torch.cat([row, other[1:]]))
        attended = cross_attention(
            self.query(tokens[:1]), self.key(tokens), self.value(tokens), _HEADS
        )
        return torch.cat([self.project_out(row + self.out(attended)), own[1:]])


class OfficialFDANNet(EncoderMixin, nn.Module):
    """The released FDAN code's network, defects included, to compare with only.

    The public code of the paper is a different model from the paper's. Its
    defects are reproduced here on purpose:

    1. one backbone, bottleneck and classifier serve both modalities;
    2. attention changes row 0 of each batch only, the other rows bypass it;
    3. the attention's parameters never reach the optimiser: they stay random;
    4. two heads of 32 columns, pre-normalisation and no feed-forward network
       instead of Eq. 2-4, with row 0 itself among the keys and values;
    5. prediction skips attention altogether;
    6. the adaptation loss is divided by the classes that both batches hold, and
       its weight follows 2 / (1 + exp(-p)) - 1, so it never exceeds 0.462 of
       alpha. (:class:`skfdan.FDANClassifier` sees to that.)

    Parameters
    ----------
    n_classes : int
        Number of emotions.
    inputs : mapping of modality to InputSpec
        The modalities and their cells; both must be images, or vectors of
        equal length, since they share everything.
    backbone, weights, backbone_trainable, input_size, bottleneck, precision
        As in :class:`skfdan.nn.FDANNet`.

    Raises
    ------
    ValueError
        If the modalities can't share a network.

    Examples
    --------
    >>> net = OfficialFDANNet(4, {"visual": InputSpec("vector", n_features=7),
    ...                           "audio": InputSpec("vector", n_features=7)}, bottleneck=8)
    >>> out = net(visual=torch.zeros(5, 7), audio=torch.zeros(3, 7))
    >>> out.logits["visual"].shape, out.logits["audio"].shape
    (torch.Size([5, 4]), torch.Size([3, 4]))
    """

    def __init__(
        self,
        n_classes: int,
        inputs: Mapping[str, InputSpec],
        backbone: str | Callable[[], tuple[nn.Module, int]] = "resnet34",
        weights: str | os.PathLike | None = "DEFAULT",
        backbone_trainable: bool | str = True,
        input_size: int | None = 224,
        bottleneck: int = 256,
        precision: str = "float32",
    ):
        super().__init__()
        specs = list(inputs.values())
        if len({(s.kind, s.n_features) for s in specs}) > 1:
            raise ValueError(
                'variant="official" shares one network between the modalities: their cells must '
                "both be images or vectors of equal length."
            )
        self.backbone_trainable = backbone_trainable
        self.precision = precision
        self.inputs = nn.ModuleDict({m: InputNorm(s, input_size) for m, s in inputs.items()})
        if specs[0].kind == "vector":
            self.backbone, n_features = nn.Identity(), specs[0].n_features
        else:
            self.backbone, n_features = make_backbone(backbone, weights)
        self.bottleneck = nn.Sequential(Linear(n_features, bottleneck), nn.ReLU())
        self.attention = nn.ModuleDict({m: _FrozenAttention(bottleneck) for m in inputs})
        self.classifier = Linear(bottleneck, n_classes)
        self.freeze_backbones()

    def backbone_of(self, modality: str) -> nn.Module:
        """Return the backbone, which is the same for both modalities.

        Parameters
        ----------
        modality : str
            ``"visual"`` or ``"audio"``.

        Returns
        -------
        Module
            The backbone.
        """
        return self.backbone

    def encode(self, modality: str, x: Tensor | Embedded) -> Tensor:
        """Return the bottleneck features of a batch.

        Parameters
        ----------
        modality : str
            ``"visual"`` or ``"audio"``.
        x : Tensor of shape (n, C, H, W) or (n, d)
            Cells of that modality.

        Returns
        -------
        Tensor of shape (n, bottleneck)
            The features.
        """
        features = self.features(modality, x).to(self.classifier.weight.dtype)
        return self.bottleneck(features)

    def forward(
        self, visual: Tensor | None = None, audio: Tensor | None = None, reference: None = None
    ) -> FDANOutput:
        """Classify; attention touches row 0 only, and only while training.

        Parameters
        ----------
        visual, audio : Tensor of shape (n, C, H, W) or (n, d), or None
            Cells of each modality; the numbers of samples may differ.
        reference : None
            Not used, as prediction skips attention.

        Returns
        -------
        FDANOutput
            Logits, and one layer of features.
        """
        given = {"visual": visual, "audio": audio}
        z = {m: self.encode(m, x) for m, x in given.items() if x is not None}
        if self.training and len(z) == 2:
            z = {m: self.attention[m](own, z[other_modality(m)]) for m, own in z.items()}
        return FDANOutput(
            {m: self.classifier(own) for m, own in z.items()}, {m: [own] for m, own in z.items()}
        )
