"""WavFusion's margin loss: same emotion, other modality against the reverse."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from skfdan.nn.kernels import at_least_single, without_autocast

__all__ = ["homogeneous_margin_loss"]


def homogeneous_margin_loss(
    features: Tensor, modality: Tensor, emotion: Tensor, margin: float = 0.2
) -> Tensor:
    r"""Multimodal homogeneous feature discrepancy, eq. 13 of WavFusion.

    Of every anchor i, a vector j of the same emotion and another modality is to
    be more alike than a vector k of the same modality and another emotion:

    .. math::

        L = \frac{1}{|M|} \sum_{(i, j, k) \in M}
            \max(0, \alpha - \cos(x_i, x_j) + \cos(x_i, x_k)), \\
        M = \{(i, j, k) : m_i \neq m_j,\ m_i = m_k,\ c_i = c_j,\ c_i \neq c_k\}.

    Parameters
    ----------
    features : Tensor of shape (n, d), floating point
        Vectors of all modalities; j may be another one of the same clip.
    modality, emotion : Tensor of shape (n,), integer
        Modality and class of every vector.
    margin : float, default=0.2
        α. Not published.

    Returns
    -------
    Tensor of shape ()
        The mean over all triplets, in float32 at least; 0 if there is none.

    Raises
    ------
    ValueError
        If the numbers of rows differ.

    Notes
    -----
    Sorted negatives and their running sums give the sum over all k for each pair
    (i, j) at once: :math:`O(n^2 \log n)` instead of :math:`O(n^3)`, and exact.

    References
    ----------
    .. [1] F. Li, J. Luo, W. Xia, "WavFusion: Towards wav2vec 2.0 Multimodal
       Speech Emotion Recognition", MMM 2025.

    Examples
    --------
    Two clips in two modalities that agree; the two emotions are orthogonal.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    >>> modality, emotion = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    >>> homogeneous_margin_loss(x, modality, emotion, margin=1.5).item()
    0.5
    >>> homogeneous_margin_loss(x, modality, emotion, margin=0.5).item()
    0.0
    """
    if not len(features) == len(modality) == len(emotion):
        raise ValueError(
            "homogeneous_margin_loss needs a modality and an emotion for each row; got "
            f"{len(features)} rows, {len(modality)} modalities, {len(emotion)} emotions."
        )
    x = at_least_single(features)
    same_modality = modality[:, None] == modality
    same_emotion = emotion[:, None] == emotion
    positive, negative = ~same_modality & same_emotion, same_modality & ~same_emotion
    count = (positive.sum(1) * negative.sum(1)).sum()
    if count == 0:
        return 0.0 * x.sum()
    # The cosines of a half precision would be apart by less than they are wrong.
    with without_autocast(x.device):
        x = F.normalize(x, dim=1)
        cosine = x @ x.T
    # Ascending: what is no negative comes first, and no threshold is below it.
    ordered = cosine.masked_fill(~negative, -torch.inf).sort(dim=1).values
    threshold = (cosine.detach() - margin).contiguous()
    n_active = len(x) - torch.searchsorted(ordered.detach(), threshold, right=True)
    largest = ordered.masked_fill(ordered.isneginf(), 0.0).flip(1).cumsum(1)
    active = F.pad(largest, (1, 0)).gather(1, n_active)
    hinges = n_active * (margin - cosine) + active
    return hinges.masked_fill(~positive, 0.0).sum() / count
