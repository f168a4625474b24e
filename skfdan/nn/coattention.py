"""Co-attention of two sequences, with early and late fusion."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skfdan.nn.fdan import FUSED, FDANOutput
from skfdan.nn.inputs import InputNorm, InputSpec, Padded
from skfdan.nn.lvc import MultiHead
from skfdan.nn.wavfusion import ORDER, pool, rows_of, sequences, without

__all__ = ["CoAttentionNet"]

#: What ``fusion`` may be, and which of the logits are averaged.
FUSIONS = ("both", "early", "late")


class _CoAttentionLayer(nn.Module):
    """A transformer layer (layer norm last) whose keys and values are another's frames."""

    def __init__(self, dim: int, n_heads: int, ffn_dim: int, dropout: float):
        super().__init__()
        self.attention = MultiHead(dim, n_heads, dropout=dropout)
        self.norm = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(
            nn.Linear(dim, ffn_dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(ffn_dim, dim)
        )
        self.final_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(x + self.dropout(self.attention(x, keys, mask)))
        return self.final_norm(x + self.dropout(self.ffn(x)))


class CoAttentionNet(nn.Module):
    """Two modalities that attend to each other, and are classified together and alone.

    The frames of each modality are projected (linear, ReLU). Those of each attend
    to those of the other: multi-head attention, residual, layer norm, feed-forward
    part. The means of both attended sequences side by side are classified (early
    fusion), as are the means of the projected frames of each modality (late
    fusion); the logits are averaged.

    In a row that lacks a modality the other attends to itself, zeros stand for the
    lacking one's mean, and its own logits are left out of the average.

    Parameters
    ----------
    n_classes : int
        Number of emotions.
    inputs : mapping of one or two of {"audio", "text", "visual"} to InputSpec or int
        The modalities that the network is built for, and their frames; of those
        that are given by their width alone, nothing is normalised.
    dim : int, default=128
        Width of the projected frames. Not published.
    n_heads : int, default=4
        Attention heads. Not published.
    ffn_dim : int or None, default=None
        Width of the feed-forward parts; None is 4 times ``dim``.
    fusion : {"both", "early", "late"}, default="both"
        Whose logits are averaged: the fused ones and those of each modality, the
        fused ones alone, or those of each modality alone, without co-attention.
    dropout : float, default=0.1
        Dropout of attention, feed-forward parts and classifiers. Not published.

    Raises
    ------
    ValueError
        If modalities or ``fusion`` are unknown, or ``dim`` is no multiple of
        ``n_heads``.

    References
    ----------
    .. [1] Z. Zhao, Y. Wang, Y. Wang, "Multi-level Fusion of Wav2vec 2.0 and BERT for
       Multimodal Emotion Recognition", Interspeech 2022. arXiv:2207.04697

    Examples
    --------
    >>> net = CoAttentionNet(4, {"audio": 6, "text": 5}, dim=8)
    >>> out = net(audio=torch.zeros(2, 9, 6), text=torch.zeros(2, 4, 5),
    ...           present={"text": torch.tensor([True, False])})
    >>> out.logits["fused"].shape, out.layers["fused"][0].shape
    (torch.Size([2, 4]), torch.Size([2, 32]))
    """

    def __init__(
        self,
        n_classes: int,
        inputs: Mapping[str, InputSpec | int],
        dim: int = 128,
        n_heads: int = 4,
        ffn_dim: int | None = None,
        fusion: str = "both",
        dropout: float = 0.1,
    ):
        super().__init__()
        if not 1 <= len(inputs) <= 2 or set(inputs) - set(ORDER):
            raise ValueError(
                f"inputs has the modalities {list(inputs)}; give one or two of {list(ORDER)}."
            )
        if fusion not in FUSIONS:
            raise ValueError(
                f"fusion={fusion!r} is unknown; choose one of {', '.join(map(repr, FUSIONS))}."
            )
        self.modalities = tuple(m for m in ORDER if m in inputs)
        self.fusion = fusion
        self.dim = dim
        self.inputs = nn.ModuleDict(
            {m: InputNorm(s) for m, s in inputs.items() if isinstance(s, InputSpec)}
        )
        self.projections = nn.ModuleDict()
        for m in self.modalities:
            spec = inputs[m]
            width = spec.n_features if isinstance(spec, InputSpec) else int(spec)
            self.projections[m] = nn.Linear(width, dim)
        if fusion != "late":
            self.layers = nn.ModuleDict(
                {
                    m: _CoAttentionLayer(dim, n_heads, ffn_dim or 4 * dim, dropout)
                    for m in self.modalities
                }
            )
            self.classifier = nn.Linear(len(self.modalities) * dim, n_classes)
        if fusion != "early":
            self.classifiers = nn.ModuleDict(
                {m: nn.Linear(dim, n_classes) for m in self.modalities}
            )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        audio: Tensor | None = None,
        text: Tensor | None = None,
        visual: Tensor | None = None,
        masks: Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
        index: Mapping[str, Tensor] | None = None,
        ignored: Mapping[str, Tensor] | None = None,
    ) -> FDANOutput:
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
        FDANOutput
            ``logits["fused"]``, and in ``layers["fused"]`` the means that the
            classifiers read, side by side.
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
        dtype = self.projections[self.modalities[0]].weight.dtype
        xs, masks = sequences(given, masks, present, dtype)
        xs = {m: self.projections[m](x).relu() for m, x in xs.items()}

        features, logits = [], []
        if self.fusion != "late":
            attended = self._attend(xs, masks)
            features.append(self._side_by_side(attended, masks))
            logits.append(self.classifier(self.dropout(features[-1])))
        if self.fusion == "early":
            return FDANOutput(logits={FUSED: logits[0]}, layers={FUSED: [features[0]]})
        features.append(self._side_by_side(xs, masks))
        weights = [torch.ones_like(scores[:, :1]) for scores in logits]
        for m, x in xs.items():
            logits.append(self.classifiers[m](self.dropout(pool(x, masks[m]))))
            weights.append(masks[m].any(1, keepdim=True).to(logits[-1].dtype))
        total = sum(w * scores for w, scores in zip(weights, logits, strict=True))
        mean = total / sum(weights).clamp_min(1)
        return FDANOutput(logits={FUSED: mean}, layers={FUSED: [torch.cat(features, 1)]})

    def _attend(self, xs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return each modality's frames after reading the other's, or their own without it."""
        attended = {}
        for m, x in xs.items():
            has = masks[m].any(1)
            other = next((o for o in xs if o != m), None)
            both = has & masks[other].any(1) if other else torch.zeros_like(has)
            base = torch.zeros_like(x)
            # Without a frame there is nothing to attend to, so those rows take no part.
            for rows, read in ((both, other), (has & ~both, m)):
                if read and bool(rows.any()):
                    y = self.layers[m](x[rows], xs[read][rows], masks[read][rows])
                    base = base.to(y.dtype).index_put((rows,), y)
            attended[m] = base
        return attended

    def _side_by_side(self, xs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """Return the means of all modalities, zeros where one is lacking."""
        first = next(iter(xs.values()))
        lacking = first.new_zeros(len(first), self.dim)
        return torch.cat(
            [pool(xs[m], masks[m]) if m in xs else lacking for m in self.modalities], 1
        )
