"""Adaptation losses as pure functions, with thin modules around them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skfdan.nn.kernels import at_least_single, kernel_discrepancy

__all__ = ["LMMDLoss", "dsan_ramp", "lmmd"]


def lmmd(
    z_visual: Tensor,
    z_audio: Tensor,
    y_visual: Tensor,
    y_audio: Tensor,
    n_classes: int | None = None,
    *,
    bandwidth: float | Tensor | None = None,
) -> Tensor:
    r"""Local maximum mean discrepancy between two labelled batches (Eq. 8).

    .. math::

        d = \frac{1}{C} \sum_c \Bigl\| \sum_n w_{vnc}\,\phi(z_{vn})
            - \sum_m w_{amc}\,\phi(z_{am}) \Bigr\|_{\mathcal{H}}^2

    with the weights of Eq. 7, :math:`w_{jnc} = y_{jnc} / \sum_m y_{jmc}`, and
    the sum of five Gaussian kernels of the DSAN code, whose bandwidths are
    b/4, b/2, b, 2b and 4b; b is the mean squared distance of the batch.

    Parameters
    ----------
    z_visual : Tensor of shape (n_v, d), floating point
        Visual features. Half precision is computed with as float32.
    z_audio : Tensor of shape (n_a, d), floating point
        Audio features; n_a may differ from n_v.
    y_visual, y_audio : Tensor of shape (n_v,) and (n_a,), integer
        Class indices. Floating-point tensors of shape (n_v, C) and (n_a, C)
        are taken as soft class memberships, through which no gradient flows;
        the two sides may differ in kind.
    n_classes : int or None, default=None
        C of Eq. 8, above every label. None divides by the number of classes that both
        batches hold, as the DSAN and FDAN codes do; with soft labels those codes count only
        classes that some row most probably belongs to, see :func:`skfdan.nn.memberships`.
    bandwidth : float, scalar Tensor or None, default=None
        b, positive. None takes the mean squared distance between different rows of both
        batches together; no gradient flows through it.

    Returns
    -------
    Tensor of shape ()
        At least 0; 0 if the batches share no class.

    Raises
    ------
    ValueError
        If the feature dimensions, the numbers of rows and labels, or the numbers
        of classes of soft labels disagree, labels have the wrong shape or are no
        class indices, or ``n_classes`` or ``bandwidth`` is no positive number.

    Notes
    -----
    A class that one of the batches lacks has no distribution there, so it adds
    nothing. The estimate is the biased one and hence never negative. Features
    are centred first: in float32 the Gram form of the squared distance loses
    all its digits when features lie far from the origin. One exponential and
    four squarings give all five kernels.

    References
    ----------
    .. [1] S. Li et al., "Multi-modal Speech Emotion Recognition via Feature
       Distribution Adaptation Network", Eq. 5-8.
    .. [2] Y. Zhu et al., "Deep Subdomain Adaptation Network for Image
       Classification", IEEE TNNLS 32(4), 2021.

    Examples
    --------
    >>> z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> y = torch.tensor([0, 1, 1])
    >>> abs(float(lmmd(z, z, y, y))) < 1e-6
    True
    >>> bool(lmmd(z, z + 3, y, y) > 0.1)
    True
    """
    check_matrices("lmmd", z_visual, z_audio)
    check_bandwidth("lmmd", bandwidth)
    if n_classes is not None and not n_classes >= 1:
        raise ValueError(f"lmmd: n_classes={n_classes!r} must be at least 1.")
    for name, z, y in (("visual", z_visual, y_visual), ("audio", z_audio, y_audio)):
        if len(z) != len(y):
            raise ValueError(f"lmmd: {len(z)} {name} rows but {len(y)} {name} labels.")
        if y.ndim != 1 + y.is_floating_point():
            raise ValueError(
                "lmmd takes integer labels of shape (n,) or floating-point memberships of shape "
                f"(n, C); {name} has {y.dtype} of shape {tuple(y.shape)}."
            )
    if y_visual.ndim == y_audio.ndim == 2 and y_visual.shape[1] != y_audio.shape[1]:
        raise ValueError(
            f"lmmd: {y_visual.shape[1]} visual classes but {y_audio.shape[1]} audio classes."
        )

    if len(y_visual) == 0 or len(y_audio) == 0:
        return 0.0 * (z_visual.sum() + z_audio.sum())
    z_visual, z_audio = at_least_single(z_visual), at_least_single(z_audio)
    weights, n_shared = _signed_class_weights(y_visual, y_audio, z_visual.dtype, n_classes)
    soft = y_visual.is_floating_point() or y_audio.is_floating_point()
    classes = None if soft else torch.cat([y_visual, y_audio]).long()
    total = kernel_discrepancy(z_visual, z_audio, weights, bandwidth, classes)
    return total / (n_shared if n_classes is None else n_classes)


def labelled_cross_entropy(logits: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean over the labelled rows; -1 is no label, and 0 the mean of none."""
    total = F.cross_entropy(logits, y, weight, ignore_index=-1, reduction="sum")
    return total / (y >= 0).sum().clamp_min(1)


def check_matrices(name: str, z_source: Tensor, z_target: Tensor) -> None:
    """Raise a ValueError unless both are matrices of the same width."""
    if z_source.ndim != 2 or z_target.ndim != 2 or z_source.shape[1] != z_target.shape[1]:
        raise ValueError(
            f"{name} needs two matrices of equal width; got shapes "
            f"{tuple(z_source.shape)} and {tuple(z_target.shape)}."
        )


def check_bandwidth(name: str, bandwidth: float | Tensor | None) -> None:
    """Raise a ValueError if it is a number, and none that divides a distance."""
    if isinstance(bandwidth, (int, float)) and not 0 < bandwidth < math.inf:
        raise ValueError(f"{name}: bandwidth={bandwidth!r} must be positive and finite.")


def _signed_class_weights(
    y_visual: Tensor, y_audio: Tensor, dtype: torch.dtype, n_classes: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return [w_v; -w_a] of Eq. 7, and the number of classes both sides hold (at least 1).

    The columns of classes that one side lacks are nought.
    """
    soft = [y.shape[1] for y in (y_visual, y_audio) if y.is_floating_point()]
    whole = [y for y in (y_visual, y_audio) if not y.is_floating_point()]
    n = soft[0] if soft else None
    if whole:
        lowest, highest = (int(label) for label in torch.aminmax(torch.cat(whole).long()))
        n = highest + 1 if n is None else n
        if lowest < 0 or highest >= n:
            raise ValueError(
                f"lmmd: class indices go from {lowest} to {highest}; they must lie between 0 and "
                f"the number of classes{'' if not soft else f', {n}'}."
            )
    if n_classes is not None and n > n_classes:
        raise ValueError(f"lmmd: n_classes={n_classes}, but the labels are of {n} classes.")
    classes = torch.arange(n, device=y_visual.device)
    y_visual, y_audio = (
        (y.detach() if y.is_floating_point() else y[:, None] == classes).to(dtype)
        for y in (y_visual, y_audio)
    )
    sum_visual, sum_audio = y_visual.sum(0), y_audio.sum(0)
    shared = ((sum_visual > 0) & (sum_audio > 0)).to(dtype)
    tiny = torch.finfo(dtype).tiny
    w_visual = y_visual * (shared / sum_visual.clamp_min(tiny))
    w_audio = y_audio * (shared / sum_audio.clamp_min(tiny))
    return torch.cat([w_visual, -w_audio]), shared.sum().clamp_min(1.0)


class LMMDLoss(nn.Module):
    """:func:`lmmd` as a module.

    Parameters
    ----------
    n_classes : int or None, default=None
        C of Eq. 8; None divides by the number of classes both batches hold.
    normalize : bool, default=False
        Divide every feature row by its Euclidean norm first, which keeps a
        large weight of the loss from shrinking all features to a point.

    Examples
    --------
    >>> loss = LMMDLoss(n_classes=2)
    >>> z = torch.eye(4)
    >>> float(loss(z, z, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1])))
    0.0
    """

    def __init__(self, n_classes: int | None = None, normalize: bool = False):
        super().__init__()
        self.n_classes = n_classes
        self.normalize = normalize

    def forward(
        self, z_visual: Tensor, z_audio: Tensor, y_visual: Tensor, y_audio: Tensor
    ) -> Tensor:
        """Return the loss of two labelled batches.

        Parameters
        ----------
        z_visual, z_audio, y_visual, y_audio
            As in :func:`lmmd`.

        Returns
        -------
        Tensor of shape ()
            The loss.
        """
        if self.normalize:
            z_visual, z_audio = F.normalize(z_visual, dim=1), F.normalize(z_audio, dim=1)
        return lmmd(z_visual, z_audio, y_visual, y_audio, self.n_classes)

    def extra_repr(self) -> str:
        """Show the parameters in the module's repr."""
        return f"n_classes={self.n_classes}, normalize={self.normalize}"


def dsan_ramp(progress: float, gamma: float = 10.0) -> float:
    """Weight of the adaptation loss over training, from 0 to nearly 1.

    ``2 / (1 + exp(-gamma * progress)) - 1``, the schedule of the DSAN code
    (gamma 10, once an epoch). The released FDAN code uses gamma 1, in every step.

    Parameters
    ----------
    progress : float
        Share of the training that is done, in [0, 1].
    gamma : float, default=10.0
        Steepness.

    Returns
    -------
    float
        The factor of the adaptation loss.

    Examples
    --------
    >>> dsan_ramp(0.0), round(dsan_ramp(1.0), 4), round(dsan_ramp(1.0, gamma=1.0), 3)
    (0.0, 0.9999, 0.462)
    """
    return 2.0 / (1.0 + math.exp(-gamma * progress)) - 1.0
