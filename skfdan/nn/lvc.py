"""A-GRU-LVC: what a sequence is as a whole, and what stands out in its frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["AGRU", "AGRULVC", "LVC", "Encoding", "MultiHead"]


class MultiHead(nn.Module):
    """Multi-head attention of one sequence to another, of any width.

    Parameters
    ----------
    dim : int
        Width of the queries and of the output.
    n_heads : int
        Number of heads.
    kv_dim : int or None, default=None
        Width of keys and values before their projection; None is ``dim``.
    dropout : float, default=0.0
        Dropout of the attention weights.

    Raises
    ------
    ValueError
        If ``dim`` is no multiple of ``n_heads``.

    Notes
    -----
    The projections have the names that wav2vec 2.0 has in torchaudio and in
    transformers, so that it can lend them its weights. Unlike
    :class:`torch.nn.MultiheadAttention`, training and evaluation take one path.

    Examples
    --------
    >>> MultiHead(8, 2, kv_dim=5)(torch.zeros(3, 4, 8), torch.zeros(3, 6, 5)).shape
    torch.Size([3, 4, 8])
    """

    def __init__(self, dim: int, n_heads: int, kv_dim: int | None = None, dropout: float = 0.0):
        super().__init__()
        if dim % n_heads:
            raise ValueError(
                f"A width of {dim} can't be divided among n_heads={n_heads}; take a multiple."
            )
        self.n_heads = n_heads
        self.dropout = dropout
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(kv_dim or dim, dim)
        self.v_proj = nn.Linear(kv_dim or dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what every query reads.

        Parameters
        ----------
        queries : Tensor of shape (n, T, dim)
            Who asks.
        keys : Tensor of shape (n, S, kv_dim)
            What is read.
        mask : Tensor of shape (n, S), bool; or None
            True for the keys that are there; every row needs one.

        Returns
        -------
        Tensor of shape (n, T, dim)
            The heads side by side, projected.
        """
        q, k, v = (
            z.unflatten(2, (self.n_heads, -1)).transpose(1, 2)
            for z in (self.q_proj(queries), self.k_proj(keys), self.v_proj(keys))
        )
        heads = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if mask is None else mask[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(heads.transpose(1, 2).flatten(2))


class AGRU(nn.Module):
    """Self-attention over the states of a GRU, eq. 2 and 6 of WavFusion.

    Parameters
    ----------
    n_features : int
        Width of the frames.
    hidden : int
        Width of the states and of the output. Not published.
    n_heads : int, default=4
        Attention heads. Not published.
    dropout : float, default=0.0
        Dropout of the attention weights.

    Examples
    --------
    >>> AGRU(5, 8)(torch.zeros(2, 3, 5)).shape
    torch.Size([2, 3, 8])
    """

    def __init__(self, n_features: int, hidden: int, n_heads: int = 4, dropout: float = 0.0):
        super().__init__()
        self.width = hidden
        self.gru = nn.GRU(n_features, hidden, batch_first=True)
        self.attention = MultiHead(hidden, n_heads, dropout=dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode sequences.

        Parameters
        ----------
        x : Tensor of shape (n, T, n_features)
            Frames; padding comes last, where a GRU that reads forwards has
            nothing to do with it.
        mask : Tensor of shape (n, T), bool; or None
            True for frames, False for padding; every row needs a frame.

        Returns
        -------
        Tensor of shape (n, T, hidden)
            The encoded frames; what stands in the padding means nothing.
        """
        states, _ = self.gru(x)
        return self.attention(states, states, mask)


def _batch_norm(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Normalise; in evaluation also values of another precision than the statistics."""
    if norm.training:
        return nn.BatchNorm1d.forward(norm, x)
    mean, var = norm.running_mean.to(x.dtype), norm.running_var.to(x.dtype)
    return F.batch_norm(x, mean, var, norm.weight, norm.bias, eps=norm.eps)


class _FrameNorm(nn.BatchNorm1d):
    """Batch normalisation of the frames that are there, of shape (n, T, C)."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        frames = x.flatten(0, 1) if mask is None else x[mask]
        if self.training and len(frames) < 2:
            # A single frame has no variance.
            y = F.batch_norm(
                frames, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        else:
            y = _batch_norm(self, frames)
        if mask is None:
            return y.unflatten(0, x.shape[:2])
        return torch.zeros_like(x, dtype=y.dtype).index_put((mask,), y)


class Encoding(nn.Module):
    r"""Soft assignment of frames to codewords, and what they differ by.

    .. math::

        a_{ik} = \operatorname{softmax}_k(s_k \|x_i - b_k\|^2), \qquad
        e_k = \sum_i a_{ik} (x_i - b_k)

    Parameters
    ----------
    channels : int
        Width C of the frames.
    n_codes : int, default=64
        Number K of codewords. They start uniform within :math:`\pm 1/\sqrt{KC}`,
        the scales s within (-1, 0).

    References
    ----------
    .. [1] Y. Quan et al., "Centralized Feature Pyramid for Object Detection",
       IEEE Transactions on Image Processing, 2023.

    Examples
    --------
    >>> Encoding(4, n_codes=6)(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 6, 4])
    """

    def __init__(self, channels: int, n_codes: int = 64):
        super().__init__()
        bound = (n_codes * channels) ** -0.5
        self.codewords = nn.Parameter(torch.empty(n_codes, channels).uniform_(-bound, bound))
        self.scales = nn.Parameter(torch.empty(n_codes).uniform_(-1.0, 0.0))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the codes of every sequence.

        Parameters
        ----------
        x : Tensor of shape (n, T, C)
            Frames.
        mask : Tensor of shape (n, T), bool; or None
            True for frames, False for padding.

        Returns
        -------
        Tensor of shape (n, K, C)
            The codes e.
        """
        # Multiplied out, no tensor is of size T x K x C.
        squares = x.square().sum(2, keepdim=True) + self.codewords.square().sum(1)
        a = (self.scales * (squares - 2.0 * x @ self.codewords.T)).softmax(2)
        if mask is not None:
            a = a.masked_fill(~mask[..., None], 0.0)
        return a.transpose(1, 2) @ x - a.sum(1)[..., None] * self.codewords


class LVC(nn.Module):
    r"""Learnable visual centre in one dimension, eq. 3 of WavFusion.

    A bottleneck of convolutions (1, 3, 1 wide; C to C/4, C/4, C) with a
    projected shortcut gives x'. Codes of x' (``Encoding``), normalised,
    averaged and squashed, give a gate γ for the channels, and

    .. math:: \operatorname{ReLU}(x' + x' \circ \gamma)

    is returned.

    Parameters
    ----------
    channels : int
        Width C of the frames, which is kept.
    n_codes : int, default=64
        Number of codewords. The released code has 64, whatever it is told.

    Notes
    -----
    The released block is two-dimensional; WavFusion has a dimension less.
    Decided here: batch statistics are those of the frames, without padding.

    References
    ----------
    .. [1] Y. Quan et al., "Centralized Feature Pyramid for Object Detection",
       IEEE Transactions on Image Processing, 2023.

    Examples
    --------
    >>> LVC(8, n_codes=4)(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, channels: int, n_codes: int = 64):
        super().__init__()
        narrow = max(channels // 4, 1)
        # A convolution of width 1 is a linear layer.
        self.reduce = nn.Linear(channels, narrow, bias=False)
        self.norm1 = _FrameNorm(narrow)
        self.conv = nn.Conv1d(narrow, narrow, 3, padding=1, bias=False)
        self.norm2 = _FrameNorm(narrow)
        self.expand = nn.Linear(narrow, channels, bias=False)
        self.norm3 = _FrameNorm(channels)
        self.shortcut = nn.Linear(channels, channels, bias=False)
        self.shortcut_norm = _FrameNorm(channels)
        self.mix = nn.Linear(channels, channels, bias=False)
        self.mix_norm = _FrameNorm(channels)
        self.encoding = Encoding(channels, n_codes)
        self.code_norm = nn.BatchNorm1d(n_codes)
        self.gate = nn.Linear(channels, channels)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode sequences.

        Parameters
        ----------
        x : Tensor of shape (n, T, C)
            Frames.
        mask : Tensor of shape (n, T), bool; or None
            True for frames, False for padding.

        Returns
        -------
        Tensor of shape (n, T, C)
            The encoded frames, at least 0; padding is 0.
        """
        # The norms leave zeros in the padding, as the convolution has beyond the ends.
        z = self.norm1(self.reduce(x), mask).relu()
        z = self.conv(z.transpose(1, 2)).transpose(1, 2)
        z = self.norm3(self.expand(self.norm2(z, mask).relu()), mask)
        z = (z + self.shortcut_norm(self.shortcut(x), mask)).relu()
        codes = self.encoding(self.mix_norm(self.mix(z), mask).relu(), mask)
        gamma = self.gate(self._code_norm(codes).relu().mean(1)).sigmoid()
        return (z + z * gamma[:, None]).relu()

    def _code_norm(self, codes: Tensor) -> Tensor:
        norm = self.code_norm
        if self.training and codes.shape[0] * codes.shape[2] < 2:
            return F.batch_norm(
                codes, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
        return _batch_norm(norm, codes)


class AGRULVC(nn.Module):
    """:class:`AGRU` and :class:`LVC` of the same frames, side by side (eq. 4).

    Parameters
    ----------
    n_features : int
        Width of the frames.
    hidden : int
        Width of the GRU. Not published.
    n_heads : int, default=4
        Attention heads. Not published.
    n_codes : int, default=64
        Codewords of the LVC.
    dropout : float, default=0.0
        Dropout of the attention weights.

    Examples
    --------
    >>> AGRULVC(5, 8)(torch.zeros(2, 3, 5)).shape
    torch.Size([2, 3, 13])
    """

    def __init__(
        self,
        n_features: int,
        hidden: int,
        n_heads: int = 4,
        n_codes: int = 64,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.width = hidden + n_features
        self.agru = AGRU(n_features, hidden, n_heads, dropout)
        self.lvc = LVC(n_features, n_codes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode sequences.

        Parameters
        ----------
        x : Tensor of shape (n, T, n_features)
            Frames; padding comes last.
        mask : Tensor of shape (n, T), bool; or None
            True for frames, False for padding; every row needs a frame.

        Returns
        -------
        Tensor of shape (n, T, hidden + n_features)
            The encoded frames; what stands in the padding means nothing.
        """
        return torch.cat([self.agru(x, mask), self.lvc(x, mask)], dim=2)
