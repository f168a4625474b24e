"""Gated cross-modal attention: one sequence reads two others, and a gate weighs them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skfdan.nn.lvc import MultiHead

__all__ = ["GatedCrossModalAttention"]


class GatedCrossModalAttention(nn.Module):
    r"""Audio reads text and faces, and a gate weighs what it read.

    .. math::

        F_1 = CM(a, t), \quad F_2 = CM(a, v), \quad
        P = \sigma(FC(F_1 \oplus F_2)), \quad
        F = P \circ F_1 + (1 - P) \circ F_2

    (eq. 8 to 11), with multi-head attention CM, queries of the audio, keys and
    values of the other. A row that lacks one of the two has F of the other, and
    a row that lacks both the self-attention of its audio.

    Parameters
    ----------
    dim : int
        Width of the audio.
    n_heads : int
        Attention heads.
    context : mapping of str to int
        At most two modalities and their widths; the first gives F_1. With one
        there is no gate, with none self-attention is all that remains.
    dropout : float, default=0.0
        Dropout of the attention weights.

    Raises
    ------
    ValueError
        If there are more than two modalities.

    Notes
    -----
    Eq. 10 prints :math:`F_1 \oplus F_1`; a gate that chooses between two has to
    see both. What rows without them do is decided here.

    References
    ----------
    .. [1] F. Li, J. Luo, W. Xia, "WavFusion: Towards wav2vec 2.0 Multimodal
       Speech Emotion Recognition", MMM 2025.

    Examples
    --------
    >>> attention = GatedCrossModalAttention(8, 2, {"text": 5, "visual": 3})
    >>> context = {"text": torch.zeros(2, 4, 5), "visual": torch.zeros(2, 6, 3)}
    >>> attention(torch.zeros(2, 7, 8), context).shape
    torch.Size([2, 7, 8])
    """

    def __init__(self, dim: int, n_heads: int, context: Mapping[str, int], dropout: float = 0.0):
        super().__init__()
        if len(context) > 2:
            raise ValueError(f"A gate chooses between two modalities; got {list(context)}.")
        self.self_attention = MultiHead(dim, n_heads, dropout=dropout)
        self.cross = nn.ModuleDict(
            {m: MultiHead(dim, n_heads, width, dropout) for m, width in context.items()}
        )
        if len(context) == 2:
            self.gate = nn.Linear(2 * dim, dim)

    def forward(
        self,
        x: Tensor,
        context: Mapping[str, Tensor] | None = None,
        masks: Mapping[str, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return what the audio reads.

        Parameters
        ----------
        x : Tensor of shape (n, T, dim)
            Audio.
        context : mapping of modality to Tensor of shape (n, S_m, width_m), or None
            What is read. Modalities that are left out are lacking everywhere.
        masks : mapping of modality to Tensor of shape (n, S_m), bool; or None
            True for frames, False for padding. A row without a frame lacks the
            modality. One that is left out has no padding.
        mask : Tensor of shape (n, T), bool; or None
            The same of the audio.

        Returns
        -------
        Tensor of shape (n, T, dim)
            F.
        """
        if not self.cross:
            return self.self_attention(x, x, mask)
        context, masks = context or {}, masks or {}
        none = torch.ones(len(x), dtype=torch.bool, device=x.device)
        read, there = [], []
        for m, attention in self.cross.items():
            rows, f = torch.zeros_like(none), torch.zeros_like(x)
            if m in context:
                keys = context[m]
                kept = masks.get(m)
                kept = keys.new_ones(keys.shape[:2], dtype=torch.bool) if kept is None else kept
                rows = kept.any(1)
                f = _put(f, rows, attention, x, keys, kept)
            read.append(f)
            there.append(rows[:, None, None])
        fused = torch.zeros_like(x)
        if len(read) == 1:
            fused = read[0]
        elif len(read) == 2:
            p = self.gate(torch.cat(read, 2)).sigmoid()
            p = p.masked_fill(~there[1], 1.0).masked_fill(~there[0], 0.0)
            fused = p * read[0] + (1.0 - p) * read[1]
        for rows in there:
            none = none & ~rows[:, 0, 0]
        return _put(fused, none, self.self_attention, x, x, mask)


class GatedLayer(nn.Module):
    """A transformer layer of wav2vec 2.0 or BERT with gated attention.

    Layer norms come last, as in models of the size "base", or first.
    """

    def __init__(
        self,
        dim: int,
        n_heads: int,
        context: Mapping[str, int],
        ffn_dim: int,
        dropout: float,
        eps: float = 1e-5,
        norm_first: bool = False,
    ):
        super().__init__()
        self.norm_first = norm_first
        self.attention = GatedCrossModalAttention(dim, n_heads, context, dropout)
        self.norm = nn.LayerNorm(dim, eps)
        self.ffn = nn.Sequential(
            nn.Linear(dim, ffn_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(ffn_dim, dim),
            nn.Dropout(dropout),
        )
        self.final_norm = nn.LayerNorm(dim, eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, context, masks, mask: Tensor | None) -> Tensor:
        y = self.norm(x) if self.norm_first else x
        x = x + self.dropout(self.attention(y, context, masks, mask))
        if self.norm_first:
            return x + self.ffn(self.final_norm(x))
        x = self.norm(x)
        return self.final_norm(x + self.ffn(x))

    def sources(self) -> dict[str, str]:
        """Map the weights that a layer without gates can give to their names there.

        The self-attention gives all it has to the cross-attention, too, but for keys and
        values of another width; the gate is new.
        """
        found = {}
        for name in self.state_dict():
            part = name.removeprefix("attention.")
            if part.startswith("cross."):
                _, modality, part = part.split(".", 2)
                attention = self.attention.cross[modality]
                if part[0] in "kv" and attention.k_proj.in_features != attention.q_proj.in_features:
                    continue
            if not part.startswith("gate."):
                found[name] = part.removeprefix("self_attention.")
        return found


def _put(
    base: Tensor,
    rows: Tensor,
    attention: nn.Module,
    x: Tensor,
    keys: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """Return base with what the rows read; no other row takes part in it."""
    if not bool(rows.any()):
        return base
    y = attention(x[rows], keys[rows], None if mask is None else mask[rows])
    return base.to(y.dtype).index_put((rows,), y)
