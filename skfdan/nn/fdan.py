"""The network of the FDAN paper: two backbones, cross-attention, one classifier."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from skfdan.nn.attention import CrossAttentionLayer
from skfdan.nn.backbones import make_backbone
from skfdan.nn.encoders import Embedded, EncoderMixin
from skfdan.nn.inputs import InputNorm, InputSpec
from skfdan.nn.products import Linear

__all__ = ["FDANNet", "FDANOutput"]

#: What several modalities of a row give together: a key beside theirs, and a choice of prediction.
FUSED = "fused"


@dataclass
class FDANOutput:
    """What one forward pass gives.

    Parameters
    ----------
    logits : dict of modality to Tensor of shape (n, n_classes)
        Class scores before the softmax.
    layers : dict of modality to list of Tensor of shape (n, bottleneck)
        The bottleneck output Z^0 and the output Z^i of every attention layer.

    Examples
    --------
    >>> import torch
    >>> z0, z1 = torch.zeros(5, 8), torch.ones(5, 8)
    >>> out = FDANOutput(logits={"audio": torch.zeros(5, 3)}, layers={"audio": [z0, z1]})
    >>> [layer["audio"].mean().item() for layer in out.adapted()]
    [1.0]
    """

    logits: dict[str, Tensor] = field(default_factory=dict)
    layers: dict[str, list[Tensor]] = field(default_factory=dict)

    def adapted(self) -> list[dict[str, Tensor]]:
        """Return the layers whose distributions Eq. 9 aligns.

        These are the outputs of the attention layers; without attention (the
        ablation FDAN1) it is the bottleneck output.

        Returns
        -------
        list of dict of modality to Tensor of shape (n, bottleneck)
            One dict a layer.
        """
        n = len(next(iter(self.layers.values())))
        return [{m: z[i] for m, z in self.layers.items()} for i in (range(1, n) if n > 1 else [0])]


class FDANNet(EncoderMixin, nn.Module):
    """Feature distribution adaptation network (Fig. 1 of the paper).

    Input normalisation, backbone, bottleneck, ``n_layers`` cross-attention
    layers, and one linear classifier for both modalities.

    Parameters
    ----------
    n_classes : int
        Number of emotions, C.
    inputs : mapping of modality to InputSpec
        The modalities that the network is built for, and their cells.
    backbone : str or callable, default="resnet34"
        See :func:`skfdan.nn.make_backbone`. Vector cells need no backbone.
    weights : {"DEFAULT"}, path or None, default="DEFAULT"
        See :func:`skfdan.nn.make_backbone`.
    backbone_trainable : bool or str, default=True
        False freezes the backbones, batch statistics included; the name of a stage
        what comes before it, see ``skfdan.nn.encoders.freeze``.
    shared_backbone : bool, default=False
        Use one backbone for both modalities, as the released code does.
    input_size : int or None, default=224
        Side that images are resized to; None keeps the size of the cells.
    bottleneck : int, default=256
        Width of the bottleneck and of all layers above it.
    n_layers : int, default=1
        Cross-attention layers, l of Eq. 9; 0 is the ablation FDAN1.
    n_heads : int, default=1
        Attention heads.
    ffn_dim : int or None, default=None
        Width of the feed-forward networks; None is twice the bottleneck.
    dropout : float, default=0.0
        Dropout after the bottleneck and in the feed-forward networks.
    precision : {"float32", "bfloat16"}, default="float32"
        In what the backbones compute; all above them computes in float32.

    Examples
    --------
    >>> import torch
    >>> net = FDANNet(4, {"visual": InputSpec("image", uint8=True), "audio": InputSpec("image")},
    ...               backbone="cnn", input_size=32)
    >>> out = net(visual=torch.zeros(5, 3, 40, 40, dtype=torch.uint8),
    ...           audio=torch.zeros(3, 1, 128, 90))
    >>> out.logits["audio"].shape, len(out.layers["audio"])
    (torch.Size([3, 4]), 2)
    """

    def __init__(
        self,
        n_classes: int,
        inputs: Mapping[str, InputSpec],
        backbone: str | Callable[[], tuple[nn.Module, int]] = "resnet34",
        weights: str | os.PathLike | None = "DEFAULT",
        backbone_trainable: bool | str = True,
        shared_backbone: bool = False,
        input_size: int | None = 224,
        bottleneck: int = 256,
        n_layers: int = 1,
        n_heads: int = 1,
        ffn_dim: int | None = None,
        dropout: float = 0.0,
        precision: str = "float32",
    ):
        super().__init__()
        self.backbone_trainable = backbone_trainable
        self.precision = precision
        self.inputs = nn.ModuleDict({m: InputNorm(s, input_size) for m, s in inputs.items()})
        self.backbones = nn.ModuleDict()
        self.bottlenecks = nn.ModuleDict()
        shared: tuple[nn.Module, int] | None = None
        for modality, spec in inputs.items():
            if spec.kind == "vector":
                network, n_features = nn.Identity(), spec.n_features
            elif shared is not None:
                network, n_features = shared
            else:
                network, n_features = make_backbone(backbone, weights)
                shared = (network, n_features) if shared_backbone else None
            self.backbones[modality] = network
            self.bottlenecks[modality] = nn.Sequential(
                Linear(n_features, bottleneck), nn.ReLU(), nn.Dropout(dropout)
            )
        self.layers = nn.ModuleList(
            CrossAttentionLayer(bottleneck, n_heads, ffn_dim, dropout) for _ in range(n_layers)
        )
        self.classifier = Linear(bottleneck, n_classes)
        self.freeze_backbones()

    def encode(self, modality: str, x: Tensor | Embedded) -> Tensor:
        """Return the bottleneck features Z^0 of a batch.

        Parameters
        ----------
        modality : str
            ``"visual"`` or ``"audio"``.
        x : Tensor of shape (n, C, H, W) or (n, d)
            Cells of that modality.

        Returns
        -------
        Tensor of shape (n, bottleneck)
            Z^0.
        """
        features = self.features(modality, x).to(self.classifier.weight.dtype)
        return self.bottlenecks[modality](features)

    def adapt(
        self,
        z: Mapping[str, Tensor],
        reference: Sequence[Mapping[str, Tensor]] | None = None,
        n_layers: int | None = None,
    ) -> dict[str, list[Tensor]]:
        """Send bottleneck features through the attention layers.

        Parameters
        ----------
        z : mapping of modality to Tensor of shape (n, bottleneck)
            Bottleneck features of one or both modalities.
        reference : sequence of mappings, one a layer, or None
            For every layer, features that stand in for the modality that ``z``
            lacks.
        n_layers : int or None, default=None
            How many of the layers; None takes all.

        Returns
        -------
        dict of modality to list of Tensor
            Z^0 to Z^l.
        """
        layers = {m: [features] for m, features in z.items()}
        for i, layer in enumerate(self.layers[:n_layers]):
            z = layer(z, None if reference is None else reference[i])
            for modality, features in z.items():
                layers[modality].append(features)
        return layers

    def forward(
        self,
        visual: Tensor | Embedded | None = None,
        audio: Tensor | Embedded | None = None,
        reference: Sequence[Mapping[str, Tensor]] | None = None,
    ) -> FDANOutput:
        """Classify the samples of one or both modalities.

        Parameters
        ----------
        visual, audio : Tensor of shape (n, C, H, W) or (n, d), Embedded or None
            Cells of each modality, or what :meth:`frozen_features` made of them; the
            numbers of samples may differ.
        reference : sequence of mappings, one a layer, or None
            See :meth:`adapt`.

        Returns
        -------
        FDANOutput
            Logits and the features of every layer.
        """
        given = {"visual": visual, "audio": audio}
        z = {m: self.encode(m, x) for m, x in given.items() if x is not None}
        layers = self.adapt(z, reference)
        return FDANOutput({m: self.classifier(z[-1]) for m, z in layers.items()}, layers)
