"""WavFusion's network: audio that reads text and faces through gated attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from skfdan.nn.fdan import FUSED, FDANOutput
from skfdan.nn.gated import GatedLayer
from skfdan.nn.inputs import InputNorm, InputSpec, Padded
from skfdan.nn.losses import labelled_cross_entropy
from skfdan.nn.lvc import AGRU, AGRULVC
from skfdan.nn.margin import homogeneous_margin_loss
from skfdan.nn.pretrained_layers import LayerShape, last_norm

__all__ = ["WavFusionNet", "WavFusionOutput", "wavfusion_loss"]

#: In the order in which they are placed side by side.
ORDER = ("audio", "text", "visual")


@dataclass
class WavFusionOutput(FDANOutput):
    """What one forward pass of WavFusion gives.

    Parameters
    ----------
    logits : dict with the key "fused", Tensor of shape (n, n_classes)
        Class scores before the softmax.
    layers : dict with the key "fused", list of one Tensor
        What enters the classifier.
    common : dict of modality to Tensor of shape (n, common_dim)
        Every modality in the shared space of eq. 12, before fusion. Empty for a
        network of one modality.
    present : dict of modality to Tensor of shape (n,), bool
        Which rows have it.

    Examples
    --------
    >>> net = WavFusionNet(3, {"audio": 6, "text": 5}, dim=8, hidden=4)
    >>> out = net(audio=torch.zeros(2, 7, 6), text=torch.zeros(2, 3, 5))
    >>> out.logits["fused"].shape, sorted(out.common)
    (torch.Size([2, 3]), ['audio', 'text'])
    """

    common: dict[str, Tensor] = field(default_factory=dict)
    present: dict[str, Tensor] = field(default_factory=dict)


def sequences(
    given: Mapping[str, Tensor | None],
    masks: Mapping[str, Tensor] | None,
    present: Mapping[str, Tensor] | None,
    dtype: torch.dtype,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what is given as sequences with zeros in the padding, and their masks."""
    xs, kept = {}, {}
    for m, x in given.items():
        if x is None:
            continue
        x = x[:, None] if x.ndim == 2 else x
        mask = x.new_ones(x.shape[:2], dtype=torch.bool)
        if masks and m in masks:
            mask = masks[m]
        if present and m in present:
            mask = mask & present[m][:, None]
        xs[m], kept[m] = x.to(dtype).masked_fill(~mask[..., None], 0.0), mask
    return xs, kept


def without(
    present: Mapping[str, Tensor] | None, ignored: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """Return which rows have each modality, but for those where it is to be ignored."""
    present = dict(present or {})
    for m, rows in (ignored or {}).items():
        present[m] = present[m] & ~rows if m in present else ~rows
    return present


def rows_of(
    given: Mapping[str, Tensor | None], masks: Mapping[str, Tensor], index: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor | None], dict[str, Tensor]]:
    """Return the sample of every row, and an empty mask where there is none."""
    rows, kept = {}, {}
    for m, x in given.items():
        rows[m] = x
        if x is not None:
            x = x[:, None] if x.ndim == 2 else x
            mask = masks.get(m, x.new_ones(x.shape[:2], dtype=torch.bool))
            i = index[m]
            rows[m], kept[m] = x[i], mask[i] & (i >= 0)[:, None]
    return rows, kept


def pool(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the frames that are there; zeros where there is none."""
    total = x.masked_fill(~mask[..., None], 0.0).sum(1)
    return total / mask.sum(1, keepdim=True).clamp_min(1)


class AuxiliaryEncoders(nn.Module):
    """What WavFusion has beside the audio's layers: encoders before, a classifier behind."""

    def __init__(
        self,
        n_classes: int,
        n_features: Mapping[str, int],
        audio_dim: int | None,
        hidden: int,
        n_heads: int,
        common_dim: int,
        n_codes: int,
        lvc: bool,
        concat: bool,
        dropout: float,
    ):
        super().__init__()
        self.concat = concat
        self.encoders = nn.ModuleDict()
        for m in ORDER[1:]:
            if m in n_features:
                self.encoders[m] = (
                    AGRULVC(n_features[m], hidden, n_heads, n_codes, dropout)
                    if m == "visual" and lvc
                    else AGRU(n_features[m], hidden, n_heads, dropout)
                )
        self.context = {m: encoder.width for m, encoder in self.encoders.items()}
        widths = ({} if audio_dim is None else {"audio": audio_dim}) | self.context
        self.widths = widths
        if len(widths) > 1:
            self.projections = nn.ModuleDict(
                {m: nn.Linear(width, common_dim) for m, width in widths.items()}
            )
            self.shared = nn.Linear(common_dim, common_dim)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(sum(widths.values()) if concat else audio_dim, n_classes)

    def encode(self, xs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the encoded text and faces; rows that lack them take no part."""
        encoded = {}
        for m, encoder in self.encoders.items():
            if m in xs:
                rows = masks[m].any(1)
                base = xs[m].new_zeros(*xs[m].shape[:2], encoder.width)
                if bool(rows.any()):
                    y = encoder(xs[m][rows], masks[m][rows])
                    base = base.to(y.dtype).index_put((rows,), y)
                encoded[m] = base
        return encoded

    def classify(
        self, fused: Tensor | None, before: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> WavFusionOutput:
        """Classify from the pooled audio after fusion and all modalities before."""
        out = WavFusionOutput(present=dict(present))
        if len(self.widths) > 1:
            out.common = {m: self.shared(self.projections[m](z)) for m, z in before.items()}
        if self.concat:
            n = len(next(iter(present.values())))
            weight = self.classifier.weight
            parts = {m: before.get(m, weight.new_zeros(n, w)) for m, w in self.widths.items()}
            if fused is not None:
                parts["audio"] = fused
            fused = torch.cat(list(parts.values()), 1)
        out.layers[FUSED] = [fused]
        out.logits[FUSED] = self.classifier(self.dropout(fused))
        return out


class WavFusionNet(nn.Module):
    """WavFusion on features: audio layers whose attention reads text and faces.

    Text goes through a GRU and self-attention, frames of faces through
    :class:`AGRULVC`. Audio frames (for the published system, those of the ninth
    layer of wav2vec 2.0 base) are projected to ``dim`` and go through ``n_deep``
    transformer layers with :class:`GatedCrossModalAttention`; their mean is
    classified. With ``audio_layers`` they can start from the last layers of wav2vec
    2.0; :class:`WavFusionWav2Vec2` puts them into wav2vec 2.0 itself, which is the same.

    A row may lack modalities. One without audio asks with a learned frame.

    Parameters
    ----------
    n_classes : int
        Number of emotions.
    inputs : mapping of {"audio", "text", "visual"} to InputSpec or int
        The modalities that the network is built for, and their frames; of those
        that are given by their width alone, nothing is normalised. A single
        modality is encoded, averaged and classified.
    dim : int, default=256
        Width of the audio's layers; audio of that width is not projected.
        wav2vec 2.0 base has 768.
    hidden : int, default=128
        Width of the GRUs. Not published.
    n_deep : int, default=3
        Number of layers with gated attention. Published. 0 classifies the means of all
        modalities side by side.
    n_heads : int, default=4
        Attention heads.
    ffn_dim : int or None, default=None
        Width of the feed-forward parts; None is 4 times ``dim``, as in wav2vec 2.0.
    common_dim : int, default=128
        Width of the space of the margin loss. Not published.
    n_codes : int, default=64
        Codewords of the LVC.
    lvc : bool, default=True
        False leaves the LVC out (Table 4).
    fusion : {"gated", "concat"}, default="gated"
        "concat" leaves the audio to its self-attention and classifies the means
        of all modalities side by side (first row of Table 6).
    dropout : float, default=0.1
        Dropout of attention, feed-forward parts and classifier. Not published.
    audio_layers : LayerShape or None, default=None
        What the audio's layers look like, in the place of ``dim``, ``n_heads`` (of the
        audio) and ``ffn_dim``, so that :meth:`PretrainedLayers.give` fills them. Audio is
        then the hidden states before the last ``n_deep`` layers of that model.

    Raises
    ------
    ValueError
        If modalities or ``fusion`` are unknown, two modalities are to be fused by gates
        without audio, or the audio has not the width of ``audio_layers``.

    References
    ----------
    .. [1] F. Li, J. Luo, W. Xia, "WavFusion: Towards wav2vec 2.0 Multimodal
       Speech Emotion Recognition", MMM 2025.

    Examples
    --------
    >>> net = WavFusionNet(4, {"audio": 6, "text": 5, "visual": 8}, dim=16, hidden=8)
    >>> out = net(audio=torch.zeros(2, 9, 6), text=torch.zeros(2, 4, 5),
    ...           visual=torch.zeros(2, 7, 8),
    ...           present={"text": torch.tensor([True, False])})
    >>> out.logits["fused"].shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        n_classes: int,
        inputs: Mapping[str, InputSpec | int],
        dim: int = 256,
        hidden: int = 128,
        n_deep: int = 3,
        n_heads: int = 4,
        ffn_dim: int | None = None,
        common_dim: int = 128,
        n_codes: int = 64,
        lvc: bool = True,
        fusion: str = "gated",
        dropout: float = 0.1,
        audio_layers: LayerShape | None = None,
    ):
        super().__init__()
        if not inputs or set(inputs) - set(ORDER):
            raise ValueError(
                f"inputs has the modalities {list(inputs)}; choose among {list(ORDER)}."
            )
        n_features = {
            m: s.n_features if isinstance(s, InputSpec) else int(s) for m, s in inputs.items()
        }
        if fusion not in ("gated", "concat"):
            raise ValueError(f"fusion={fusion!r} is unknown; choose one of 'gated', 'concat'.")
        has_audio = "audio" in n_features
        if fusion == "gated" and not has_audio and len(n_features) > 1:
            raise ValueError("fusion='gated' needs audio, which asks; take fusion='concat'.")
        shape = audio_layers or LayerShape(dim, n_heads, ffn_dim or 4 * dim)
        if audio_layers and n_features.get("audio") != shape.width:
            raise ValueError(
                f"audio_layers have a width of {shape.width}; inputs has the widths {n_features}."
            )
        self.modalities = tuple(m for m in ORDER if m in n_features)
        self.fusion = fusion
        self.inputs = nn.ModuleDict(
            {m: InputNorm(s) for m, s in inputs.items() if isinstance(s, InputSpec)}
        )
        self.rest = AuxiliaryEncoders(
            n_classes,
            n_features,
            shape.width if has_audio else None,
            hidden,
            n_heads,
            common_dim,
            n_codes,
            lvc,
            # Without a layer that reads the others, they stand beside the audio.
            fusion == "concat" or n_deep == 0 or not has_audio,
            dropout,
        )
        if has_audio:
            n, dim = n_features["audio"], shape.width
            self.projection = nn.Identity() if n == dim else nn.Linear(n, dim)
            self.no_audio = nn.Parameter(0.02 * torch.randn(dim))
            self.layers = nn.ModuleList(
                GatedLayer(
                    dim,
                    shape.n_heads,
                    self.rest.context if fusion == "gated" else {},
                    shape.ffn_dim,
                    dropout,
                    shape.eps,
                    shape.norm_first,
                )
                for _ in range(n_deep)
            )
            self.last_norm = last_norm(shape)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return what :meth:`PretrainedLayers.give` fills and training moves.

        Returns
        -------
        list of Parameter
            Those of the layers, but for gates and what reads frames of another width.
        """
        return [layer.get_parameter(name) for layer in self.layers for name in layer.sources()]

    def forward(
        self,
        audio: Tensor | None = None,
        text: Tensor | None = None,
        visual: Tensor | None = None,
        masks: Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
        index: Mapping[str, Tensor] | None = None,
        ignored: Mapping[str, Tensor] | None = None,
    ) -> WavFusionOutput:
        """Classify rows.

        Parameters
        ----------
        audio, text, visual : Padded, Tensor of shape (n, T_m, d_m) or (n, d_m), or None
            Frames of each modality, padding last, or one vector. What is left
            out is lacking everywhere.
        masks : mapping of modality to Tensor of shape (n, T_m), bool; or None
            True for frames, False for padding.
        present : mapping of modality to Tensor of shape (n,), bool; or None
            Which rows have the modality; those of an empty mask lack it as well.
        index : mapping of modality to Tensor of shape (n,), integer; or None
            The sample of every row, -1 where it lacks the modality. Without it,
            sample i belongs to row i.
        ignored : mapping of modality to Tensor of shape (n,), bool; or None
            Where a row's modality is treated as lacking although it is there.

        Returns
        -------
        WavFusionOutput
            Logits, features and what the margin loss compares.
        """
        given = {"audio": audio, "text": text, "visual": visual}
        given = {m: given[m] for m in self.modalities}
        masks = dict(masks or {})
        for m, x in given.items():
            if isinstance(x, Padded):
                given[m], masks[m] = x.values, x.mask()
            if m in self.inputs and x is not None:
                given[m] = self.inputs[m](given[m])
        if index is not None:
            given, masks = rows_of(given, masks, index)
        present = without(present, ignored)
        xs, masks = sequences(given, masks, present, self.rest.classifier.weight.dtype)
        there = {m: mask.any(1) for m, mask in masks.items()}
        encoded = self.rest.encode(xs, masks)
        before, fused = {}, None
        if "audio" in self.modalities:
            x, mask = self._audio(xs, masks)
            if "audio" in there:
                before["audio"] = pool(x, mask)
            for layer in self.layers:
                x = layer(x, encoded, masks, mask)
            fused = pool(self.last_norm(x), mask)
        before |= {m: pool(x, masks[m]) for m, x in encoded.items()}
        return self.rest.classify(fused, before, there)

    def _audio(self, xs: Mapping[str, Tensor], masks: Mapping[str, Tensor]):
        """Return the projected audio; rows that lack it have the learned frame."""
        if "audio" not in xs:
            n = len(next(iter(xs.values())))
            x = self.no_audio.expand(n, 1, -1)
            return x, torch.ones(n, 1, dtype=torch.bool, device=x.device)
        mask = masks["audio"]
        lacks = ~mask.any(1, keepdim=True)
        first = torch.zeros_like(mask)
        first[:, 0] = True
        x = torch.where(lacks[..., None], self.no_audio, self.projection(xs["audio"]))
        return x, mask | (lacks & first)


def margin_term(out: WavFusionOutput, y: Tensor, margin: float) -> Tensor:
    """Return the margin loss (eq. 13) of all labelled rows; -1 is no label."""
    if not out.common:
        return 0.0 * out.logits[FUSED].sum()
    rows = {m: out.present[m] & (y >= 0) for m in out.common}
    features = torch.cat([z[rows[m]] for m, z in out.common.items()])
    modality = torch.cat([torch.full_like(y[r], i) for i, r in enumerate(rows.values())])
    emotion = torch.cat([y[r] for r in rows.values()])
    return homogeneous_margin_loss(features, modality, emotion, margin)


def wavfusion_loss(
    out: WavFusionOutput, y: Tensor, weight: float = 1.0, margin: float = 0.2
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Return WavFusion's loss, :math:`L_{task} + \lambda L_{mar}` (eq. 15), and its terms.

    Parameters
    ----------
    out : WavFusionOutput
        What the network gave.
    y : Tensor of shape (n,), integer
        Classes; -1 is no label.
    weight : float, default=1.0
        λ; the published best of 0, 0.01, 0.1, 1 and 10.
    margin : float, default=0.2
        See :func:`homogeneous_margin_loss`. Not published.

    Returns
    -------
    loss : Tensor of shape ()
        The sum.
    terms : dict of "task" and "margin" to Tensor of shape ()
        Both without weight and gradient. Rows that lack a modality are in the
        margin loss with those that they have.

    Examples
    --------
    >>> net = WavFusionNet(3, {"audio": 6, "text": 5}, dim=8, hidden=4)
    >>> out = net(audio=torch.randn(4, 7, 6), text=torch.randn(4, 3, 5))
    >>> loss, terms = wavfusion_loss(out, torch.tensor([0, 1, 2, 0]))
    >>> loss.shape, list(terms)
    (torch.Size([]), ['task', 'margin'])
    """
    task = labelled_cross_entropy(out.logits[FUSED], y)
    apart = margin_term(out, y, margin)
    return task + weight * apart, {"task": task.detach(), "margin": apart.detach()}
