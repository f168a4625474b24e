"""Cross-attention between the modalities, Eq. 2-4 of the FDAN paper."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skfdan.nn.products import Linear
from skfdan.table import MODALITIES

__all__ = ["CrossAttentionLayer", "cross_attention", "other_modality"]


def other_modality(modality: str) -> str:
    """Return ``"audio"`` for ``"visual"`` and the other way round.

    Examples
    --------
    >>> other_modality("audio")
    'visual'
    """
    return MODALITIES[1 - MODALITIES.index(modality)]


def cross_attention(query: Tensor, key: Tensor, value: Tensor, n_heads: int = 1) -> Tensor:
    r"""Propagate information from one modality to the other (Eq. 3).

    :math:`\Delta Z = \mathrm{softmax}(Q K^T / \sqrt{d}) V`: the samples of the
    other modality are the tokens that are attended to.

    Parameters
    ----------
    query : Tensor of shape (n_q, d)
        Queries, a row a sample.
    key, value : Tensor of shape (n_k, d)
        Keys and values of the other modality.
    n_heads : int, default=1
        Attention heads; each works on d / n_heads columns. The paper has one.

    Returns
    -------
    Tensor of shape (n_q, d)
        Propagated information; row i depends on row i of ``query`` only.

    Examples
    --------
    >>> q, kv = torch.zeros(2, 4), torch.arange(12.0).reshape(3, 4)
    >>> cross_attention(q, kv, kv)[0].tolist()
    [4.0, 5.0, 6.0, 7.0]
    """

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(1, (n_heads, -1)).transpose(0, 1)

    q, k, v = heads(query), heads(key), heads(value)
    weights = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1)
    return (weights @ v).transpose(0, 1).flatten(1)


class _Side(nn.Module):
    """What one modality owns in a layer: its projections and its updates."""

    def __init__(self, d: int, ffn_dim: int, dropout: float):
        super().__init__()
        self.query = Linear(d, d, bias=False)
        self.key = Linear(d, d, bias=False)
        self.value = Linear(d, d, bias=False)
        self.norm1 = nn.LayerNorm(d)
        self.ffn = nn.Sequential(
            Linear(d, ffn_dim), nn.ReLU(), nn.Dropout(dropout), Linear(ffn_dim, d)
        )
        self.norm2 = nn.LayerNorm(d)


class CrossAttentionLayer(nn.Module):
    """One adapted layer: projections (Eq. 2), attention (Eq. 3), updates (Eq. 4).

    Parameters
    ----------
    d : int
        Feature dimension of both modalities (the paper's d_v = d_a).
    n_heads : int, default=1
        Attention heads; must divide d.
    ffn_dim : int or None, default=None
        Width of the feed-forward network; None takes 2 d (the paper is silent).
    dropout : float, default=0.0
        Dropout within the feed-forward network (the paper is silent).

    Raises
    ------
    ValueError
        If n_heads does not divide d.

    Examples
    --------
    >>> layer = CrossAttentionLayer(8)
    >>> z = layer({"visual": torch.rand(5, 8), "audio": torch.rand(3, 8)})
    >>> z["visual"].shape, z["audio"].shape
    (torch.Size([5, 8]), torch.Size([3, 8]))
    """

    def __init__(self, d: int, n_heads: int = 1, ffn_dim: int | None = None, dropout: float = 0.0):
        super().__init__()
        if d % n_heads:
            raise ValueError(f"n_heads={n_heads} does not divide the feature dimension {d}.")
        self.n_heads = n_heads
        self.visual = _Side(d, ffn_dim or 2 * d, dropout)
        self.audio = _Side(d, ffn_dim or 2 * d, dropout)

    def forward(
        self, z: Mapping[str, Tensor], reference: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Update the features of the modalities that are there.

        Parameters
        ----------
        z : mapping of modality to Tensor of shape (n, d)
            Features of one or both modalities.
        reference : mapping of modality to Tensor of shape (m, d), or None
            Features that stand in for a modality that ``z`` lacks.

        Returns
        -------
        dict of modality to Tensor of shape (n, d)
            Updated features. Without the other modality in ``z`` or
            ``reference`` nothing is propagated: Eq. 4 with a zero update.
        """
        out = {}
        for modality, features in z.items():
            side = getattr(self, modality)
            other = other_modality(modality)
            partner = z.get(other, (reference or {}).get(other))
            if partner is not None:
                source = getattr(self, other)
                features = features + cross_attention(
                    side.query(features), source.key(partner), source.value(partner), self.n_heads
                )
            features = side.norm1(features)
            out[modality] = side.norm2(features + side.ffn(features))
        return out
