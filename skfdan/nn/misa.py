"""MISA's network and losses: what modalities share, what each has alone, and their fusion."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skfdan.nn.adaptation import cmd
from skfdan.nn.backbones import make_backbone
from skfdan.nn.encoders import Embedded, EncoderMixin
from skfdan.nn.fdan import FUSED, FDANOutput
from skfdan.nn.inputs import InputNorm, InputSpec

__all__ = ["MISANet", "MISAOutput", "difference_loss", "misa_losses"]


@dataclass
class MISAOutput(FDANOutput):
    """What one forward pass of MISA gives.

    ``logits`` and ``layers`` have the one key ``"fused"``: a row each joint row.
    The other fields have a row each sample of a modality.

    Parameters
    ----------
    logits : dict with the key "fused", Tensor of shape (n, n_classes)
        Class scores before the softmax.
    layers : dict with the key "fused", list of one Tensor
        What enters the classifier, of shape (n, number of modalities x hidden).
    projected, private, shared, reconstructed : dict of modality to Tensor (n_m, hidden)
        The projected encoding, its two representations, and its reconstruction
        from their sum.
    index : dict of modality to Tensor of shape (n,), integer
        The sample of every joint row; -1 where a row lacks the modality.

    Examples
    --------
    >>> net = MISANet(4, {"audio": InputSpec("vector", n_features=5)})
    >>> out = net(audio=torch.zeros(3, 5))
    >>> list(out.logits), out.shared["audio"].shape, out.index["audio"].tolist()
    (['fused'], torch.Size([3, 128]), [0, 1, 2])
    """

    projected: dict[str, Tensor] = field(default_factory=dict)
    private: dict[str, Tensor] = field(default_factory=dict)
    shared: dict[str, Tensor] = field(default_factory=dict)
    reconstructed: dict[str, Tensor] = field(default_factory=dict)
    index: dict[str, Tensor] = field(default_factory=dict)


class MISANet(EncoderMixin, nn.Module):
    """Modality-invariant and -specific representations, and their fusion.

    Of every modality: encoder, projection (linear, ReLU, layer norm), a private
    and a shared representation (linear, sigmoid; the shared one by one encoder
    for all modalities) and a linear reconstruction from their sum. Both
    representations of all modalities are the tokens of one transformer encoder
    layer; its outputs side by side go through a linear layer, dropout and ReLU
    to the classifier.

    A row may lack modalities. Their tokens are masked in the attention and
    zero in what the classifier reads.

    Parameters
    ----------
    n_classes : int
        Number of emotions.
    inputs : mapping of modality to InputSpec
        The modalities that the network is built for, and their cells.
    backbone : str or callable, default="resnet34"
        Encoder of image-like cells, see :func:`skfdan.nn.make_backbone`.
        Vector cells are taken as encoded already.
    weights : {"DEFAULT"}, path or None, default="DEFAULT"
        See :func:`skfdan.nn.make_backbone`.
    backbone_trainable : bool or str, default=True
        False freezes the backbones, batch statistics included; the name of a stage
        what comes before it, see ``skfdan.nn.encoders.freeze``.
    input_size : int or None, default=224
        Side that images are resized to; None keeps the size of the cells.
    hidden : int, default=128
        Width of all representations.
    n_heads : int, default=2
        Attention heads.
    ffn_dim : int, default=2048
        Width of the feed-forward part of the transformer layer (torch's
        default, which the published code keeps, as it does its dropout of 0.1).
    dropout : float, default=0.5
        Dropout before the classifier.
    precision : {"float32", "bfloat16"}, default="float32"
        In what the backbones compute; all above them computes in float32.

    Raises
    ------
    ValueError
        If ``hidden`` is no multiple of ``n_heads``.

    References
    ----------
    .. [1] D. Hazarika, R. Zimmermann, S. Poria, "MISA: Modality-Invariant and
       -Specific Representations for Multimodal Sentiment Analysis", ACM
       Multimedia 2020.

    Examples
    --------
    >>> net = MISANet(4, {"visual": InputSpec("vector", n_features=7),
    ...                   "audio": InputSpec("vector", n_features=5)})
    >>> out = net(visual=torch.zeros(2, 7), audio=torch.zeros(3, 5),
    ...           index={"visual": torch.tensor([0, -1, 1]), "audio": torch.arange(3)})
    >>> out.logits["fused"].shape, out.private["visual"].shape
    (torch.Size([3, 4]), torch.Size([2, 128]))
    """

    def __init__(
        self,
        n_classes: int,
        inputs: Mapping[str, InputSpec],
        backbone: str | Callable[[], tuple[nn.Module, int]] = "resnet34",
        weights: str | os.PathLike | None = "DEFAULT",
        backbone_trainable: bool | str = True,
        input_size: int | None = 224,
        hidden: int = 128,
        n_heads: int = 2,
        ffn_dim: int = 2048,
        dropout: float = 0.5,
        precision: str = "float32",
    ):
        super().__init__()
        if hidden % n_heads:
            raise ValueError(
                f"hidden={hidden} can't be divided among n_heads={n_heads}; take a multiple."
            )
        self.modalities = tuple(inputs)
        self.backbone_trainable = backbone_trainable
        self.precision = precision
        self.inputs = nn.ModuleDict({m: InputNorm(s, input_size) for m, s in inputs.items()})
        self.backbones = nn.ModuleDict()
        self.projections = nn.ModuleDict()
        for modality, spec in inputs.items():
            if spec.kind == "vector":
                network, n_features = nn.Identity(), spec.n_features
            else:
                network, n_features = make_backbone(backbone, weights)
            self.backbones[modality] = network
            self.projections[modality] = nn.Sequential(
                nn.Linear(n_features, hidden), nn.ReLU(), nn.LayerNorm(hidden)
            )
        self.private = nn.ModuleDict({m: _representation(hidden) for m in inputs})
        self.shared = _representation(hidden)
        self.reconstruction = nn.ModuleDict({m: nn.Linear(hidden, hidden) for m in inputs})
        # Not batch_first: torch would compute predictions in another way than training.
        self.attention = nn.TransformerEncoderLayer(hidden, n_heads, ffn_dim)
        width = len(self.modalities) * hidden
        self.fusion = nn.Sequential(nn.Linear(2 * width, width), nn.Dropout(dropout), nn.ReLU())
        self.classifier = nn.Linear(width, n_classes)
        self.freeze_backbones()

    def encode(self, modality: str, x: Tensor | Embedded) -> Tensor:
        """Return the projected encoding of a batch.

        Parameters
        ----------
        modality : str
            ``"visual"``, ``"audio"`` or ``"text"``.
        x : Tensor of shape (n, C, H, W) or (n, d)
            Cells of that modality.

        Returns
        -------
        Tensor of shape (n, hidden)
            The encoding.
        """
        features = self.features(modality, x).to(self.classifier.weight.dtype)
        return self.projections[modality](features)

    def fuse(
        self,
        private: Mapping[str, Tensor],
        shared: Mapping[str, Tensor],
        index: Mapping[str, Tensor],
        ignored: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return what the classifier reads of every joint row.

        Parameters
        ----------
        private, shared : mapping of modality to Tensor of shape (n_m, hidden)
            Representations of the samples.
        index : mapping of modality to Tensor of shape (n,), integer
            The sample of every joint row; -1 where a row lacks the modality. A
            modality that is left out is lacking everywhere. Every row needs one.
        ignored : mapping of modality to Tensor of shape (n,), bool; or None
            Where a row's modality is treated as lacking although it is there.

        Returns
        -------
        Tensor of shape (n, number of modalities x hidden)
            Fused features.
        """
        n = len(next(iter(index.values())))
        tokens, lacking = [], []
        for representations in (private, shared):
            for m in self.modalities:
                if m not in index:
                    tokens.append(self.classifier.weight.new_zeros(n, self.shared[0].out_features))
                    lacking.append(torch.ones(n, dtype=torch.bool, device=tokens[-1].device))
                    continue
                # A last row of zeros is what the index -1 takes.
                tokens.append(F.pad(representations[m], (0, 0, 0, 1))[index[m]])
                lacking.append(index[m] < 0 if not ignored else (index[m] < 0) | ignored[m])
        mask = torch.stack(lacking, 1)
        fused = self.attention(torch.stack(tokens), src_key_padding_mask=mask).transpose(0, 1)
        return self.fusion(fused.masked_fill(mask[..., None], 0.0).flatten(1))

    def forward(
        self,
        visual: Tensor | None = None,
        audio: Tensor | None = None,
        index: Mapping[str, Tensor] | None = None,
        ignored: Mapping[str, Tensor] | None = None,
        text: Tensor | None = None,
    ) -> MISAOutput:
        """Classify joint rows.

        Parameters
        ----------
        visual, audio : Tensor of shape (n_m, C, H, W) or (n_m, d), or None
            Cells of each modality.
        index, ignored
            See :meth:`fuse`; without an index, sample i belongs to row i.
        text : Tensor of shape (n_text, d), or None
            Cells of the text.

        Returns
        -------
        MISAOutput
            Logits and features of the rows, representations of the samples.
        """
        given = {"visual": visual, "audio": audio, "text": text}
        out = MISAOutput()
        for m in self.modalities:
            if given[m] is None:
                continue
            z = out.projected[m] = self.encode(m, given[m])
            out.private[m] = self.private[m](z)
            out.shared[m] = self.shared(z)
            out.reconstructed[m] = self.reconstruction[m](out.private[m] + out.shared[m])
            out.index[m] = torch.arange(len(z), device=z.device) if index is None else index[m]
        features = self.fuse(out.private, out.shared, out.index, ignored)
        out.layers[FUSED] = [features]
        out.logits[FUSED] = self.classifier(features)
        return out


def _representation(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Sigmoid())


def difference_loss(x: Tensor, y: Tensor) -> Tensor:
    r"""How much two representations of the same samples have in common.

    :math:`\operatorname{mean}\bigl((A^T B)^2\bigr)`, with A and B the two
    matrices after their columns were centred and their rows divided by their
    length, through which no gradient flows, as in the released code.

    Parameters
    ----------
    x, y : Tensor of shape (n, d) and (n, e), floating point
        Row i of both belongs to the same sample.

    Returns
    -------
    Tensor of shape ()
        At least 0; 0 for fewer than two rows, which centring makes 0.

    Raises
    ------
    ValueError
        If the numbers of rows differ.

    References
    ----------
    .. [1] D. Hazarika, R. Zimmermann, S. Poria, "MISA: Modality-Invariant and
       -Specific Representations for Multimodal Sentiment Analysis", ACM
       Multimedia 2020.

    Examples
    --------
    >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> round(float(difference_loss(x, x)), 3), round(float(difference_loss(x, x.flip(1))), 3)
    (1.0, 1.0)
    >>> y = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    >>> round(float(difference_loss(y, torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]))), 3)
    0.0
    """
    if len(x) != len(y):
        raise ValueError(f"difference_loss needs equal numbers of rows; got {len(x)}, {len(y)}.")
    if len(x) < 2:
        return 0.0 * (x.sum() + y.sum())
    a, b = (_unit_rows(z - z.mean(0, keepdim=True)) for z in (x, y))
    return (a.T @ b).square().mean()


def _unit_rows(z: Tensor) -> Tensor:
    # The released code's 1e-6 also keeps what rounding leaves of equal rows from being a direction.
    return z / (z.norm(dim=1, keepdim=True).detach() + 1e-6)


def misa_losses(out: MISAOutput) -> dict[str, Tensor | float]:
    """Return MISA's losses beside the cross-entropy.

    Parameters
    ----------
    out : MISAOutput
        What the network gave.

    Returns
    -------
    dict
        ``diff``: the sum of :func:`difference_loss` over private and shared of
        every modality, and over the private ones of every pair of modalities
        (of the rows that have both). ``cmd``: the central moment discrepancy
        (:func:`skfdan.nn.cmd`, 5 moments) of the shared representations,
        averaged over the pairs; it compares distributions and needs no common
        row. ``recon``: the mean squared error of the reconstructions, averaged
        over the modalities; its target takes gradients, as in the released
        code. Terms that a single modality has not are 0.

    Examples
    --------
    >>> net = MISANet(4, {"visual": InputSpec("vector", n_features=7),
    ...                   "audio": InputSpec("vector", n_features=5)})
    >>> list(misa_losses(net(visual=torch.zeros(3, 7), audio=torch.zeros(3, 5))))
    ['diff', 'cmd', 'recon']
    """
    pairs = list(combinations(out.projected, 2))
    diff = sum(difference_loss(out.private[m], out.shared[m]) for m in out.projected)
    for m, other in pairs:
        both = (out.index[m] >= 0) & (out.index[other] >= 0)
        x, y = (out.private[k][out.index[k][both]] for k in (m, other))
        diff = diff + difference_loss(x, y)
    discrepancies = [cmd(out.shared[m], out.shared[other]) for m, other in pairs]
    errors = [F.mse_loss(out.reconstructed[m], z) for m, z in out.projected.items()]
    return {
        "diff": diff,
        "cmd": sum(discrepancies) / max(len(pairs), 1),
        "recon": sum(errors) / len(errors),
    }
