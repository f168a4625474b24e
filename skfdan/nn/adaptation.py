"""Ways to bring two domains together: moments, kernels, discriminators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skfdan.nn.adversarial import DAANLoss, DANNLoss
from skfdan.nn.kernels import at_least_single, kernel_discrepancy, without_autocast
from skfdan.nn.losses import LMMDLoss, check_bandwidth, check_matrices, dsan_ramp

__all__ = ["ADAPTATIONS", "AdaptationLoss", "cmd", "coral", "memberships", "mmd"]

#: Names of the adaptation losses.
ADAPTATIONS = ("lmmd", "dsan", "mmd", "coral", "dann", "daan", "cmd")


def mmd(z_source: Tensor, z_target: Tensor, *, bandwidth: float | Tensor | None = None) -> Tensor:
    r"""Maximum mean discrepancy of two batches, as in DAN [1]_.

    :math:`\overline{K_{ss}} + \overline{K_{tt}} - 2\,\overline{K_{st}}`, with
    the five kernels of :func:`skfdan.nn.lmmd`.

    Parameters
    ----------
    z_source : Tensor of shape (n_s, d), floating point
        Features of the source.
    z_target : Tensor of shape (n_t, d), floating point
        Features of the target; n_t may differ from n_s.
    bandwidth : float, scalar Tensor or None, default=None
        b, as in :func:`skfdan.nn.lmmd`.

    Returns
    -------
    Tensor of shape ()
        At least 0 (the estimate is the biased one); 0 if a batch is empty.

    Raises
    ------
    ValueError
        If the feature dimensions disagree, or ``bandwidth`` is no positive number.

    References
    ----------
    .. [1] M. Long et al., "Learning Transferable Features with Deep Adaptation
       Networks", ICML 2015.

    Examples
    --------
    >>> z = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    >>> float(mmd(z, z)), bool(mmd(z, z + 3) > 0.1)
    (0.0, True)
    """
    check_matrices("mmd", z_source, z_target)
    check_bandwidth("mmd", bandwidth)
    if not len(z_source) or not len(z_target):
        return 0.0 * (z_source.sum() + z_target.sum())
    z_source, z_target = at_least_single(z_source), at_least_single(z_target)
    weights = torch.cat(
        [
            torch.full_like(z_source[:, :1], 1 / len(z_source)),
            torch.full_like(z_target[:, :1], -1 / len(z_target)),
        ]
    )
    return kernel_discrepancy(z_source, z_target, weights.detach(), bandwidth)


def coral(z_source: Tensor, z_target: Tensor) -> Tensor:
    r"""Distance of the covariances of two batches, as in Deep CORAL [1]_.

    :math:`\|C_s - C_t\|_F^2 / (4 d^2)` with unbiased covariances.

    Parameters
    ----------
    z_source : Tensor of shape (n_s, d), floating point
        Features of the source.
    z_target : Tensor of shape (n_t, d), floating point
        Features of the target; n_t may differ from n_s.

    Returns
    -------
    Tensor of shape ()
        At least 0; 0 if a batch has less than two rows and hence no covariance.

    Raises
    ------
    ValueError
        If the feature dimensions disagree.

    References
    ----------
    .. [1] B. Sun, K. Saenko, "Deep CORAL: Correlation Alignment for Deep Domain
       Adaptation", ECCV Workshops 2016.

    Examples
    --------
    >>> z = torch.tensor([[1.0], [3.0]])  # variances 2 and 8
    >>> float(coral(z, 2 * z))
    9.0
    """
    check_matrices("coral", z_source, z_target)
    if min(len(z_source), len(z_target)) < 2:
        return 0.0 * (z_source.sum() + z_target.sum())
    covariances = []
    with without_autocast(z_source.device):
        for z in (at_least_single(z_source), at_least_single(z_target)):
            centred = z - z.mean(0, keepdim=True)
            covariances.append(centred.T @ centred / (len(z) - 1))
    difference = covariances[0] - covariances[1]
    return difference.square().sum() / (4 * z_source.shape[1] ** 2)


def cmd(z_source: Tensor, z_target: Tensor, n_moments: int = 5, span: float = 1.0) -> Tensor:
    r"""Central moment discrepancy of two batches [1]_.

    .. math::

        \frac{\|\bar z_s - \bar z_t\|_2}{b - a}
        + \sum_{k=2}^{K} \frac{\|c_k(z_s) - c_k(z_t)\|_2}{(b - a)^k}

    with :math:`c_k` the k-th central moment of every feature.

    Parameters
    ----------
    z_source : Tensor of shape (n_s, d), floating point
        Features of the source.
    z_target : Tensor of shape (n_t, d), floating point
        Features of the target; n_t may differ from n_s.
    n_moments : int, default=5
        K. Five is the published value, MISA's too.
    span : float, default=1.0
        b - a. The theory assumes features in an interval [a, b]; 1 fits
        features that come from a sigmoid, as MISA's do.

    Returns
    -------
    Tensor of shape ()
        At least 0; 0 if a batch is empty.

    Raises
    ------
    ValueError
        If the feature dimensions disagree.

    References
    ----------
    .. [1] W. Zellinger et al., "Central Moment Discrepancy (CMD) for
       Domain-Invariant Representation Learning", ICLR 2017.

    Examples
    --------
    >>> z = torch.tensor([[0.0], [1.0]])
    >>> float(cmd(z, z)), float(cmd(z, z + 0.5)), float(cmd(z, z, span=2.0))
    (0.0, 0.5, 0.0)
    """
    check_matrices("cmd", z_source, z_target)
    if not len(z_source) or not len(z_target):
        return 0.0 * (z_source.sum() + z_target.sum())
    # Divided before they are raised to powers, which leave float32's range where the span is
    # far from 1.
    z_source, z_target = (at_least_single(z) / span for z in (z_source, z_target))
    mean_source, mean_target = z_source.mean(0), z_target.mean(0)
    # vector_norm has the gradient 0 at 0, where a square root has none.
    total = torch.linalg.vector_norm(mean_source - mean_target)
    source, target = z_source - mean_source, z_target - mean_target
    for k in range(2, n_moments + 1):
        difference = (source**k).mean(0) - (target**k).mean(0)
        total = total + torch.linalg.vector_norm(difference)
    return total


def memberships(logits: Tensor, y: Tensor) -> Tensor:
    """Soft labels for LMMD: the true class where it is known, else the probabilities.

    Parameters
    ----------
    logits : Tensor of shape (n, C)
        Class scores of the network.
    y : Tensor of shape (n,), integer
        Class indices; -1 where the label is missing.

    Returns
    -------
    Tensor of shape (n, C)
        Without gradient. As in the DSAN code [1]_, the column of a class that
        no row most probably belongs to is 0: spread thinly over all rows, its
        probability would say nothing about that class.

    References
    ----------
    .. [1] Y. Zhu et al., "Deep Subdomain Adaptation Network for Image
       Classification", IEEE TNNLS 32(4), 2021.

    Examples
    --------
    >>> memberships(torch.zeros(2, 2), torch.tensor([1, -1])).tolist()
    [[0.0, 1.0], [0.5, 0.5]]
    >>> memberships(torch.zeros(2, 2), torch.tensor([0, -1])).tolist()
    [[1.0, 0.0], [0.5, 0.0]]
    """
    soft = logits.detach().softmax(1)
    n_classes = soft.shape[1]
    hard = F.one_hot(y.clamp_min(0).long(), n_classes).to(soft.dtype)
    p = torch.where((y >= 0)[:, None], hard, soft)
    if not len(p):
        return p
    return p * F.one_hot(p.argmax(1), n_classes).amax(0)


class AdaptationLoss(nn.Module):
    """One adaptation loss, summed over the adapted layers of a network.

    The visual modality is the source, the audio modality the target.

    Parameters
    ----------
    name : {"lmmd", "dsan", "mmd", "coral", "dann", "daan", "cmd"}
        The loss: :func:`skfdan.nn.lmmd` with true labels, or with
        :func:`memberships` ("dsan"), :func:`mmd`, :func:`coral`,
        :class:`skfdan.nn.DANNLoss`, :class:`skfdan.nn.DAANLoss`, or :func:`cmd`
        of the features' sigmoid (CMD assumes an interval, and features have
        none of their own; the sigmoid's is (0, 1), as in MISA).
    n_layers : int
        Adapted layers; each has discriminators of its own.
    n_features : int
        Width of their features.
    n_classes : int
        Number of classes, C.
    divide_by_all : bool, default=True
        LMMD divides by C (Eq. 8 of the FDAN paper). False divides by the
        classes that both batches hold, as the codes of DSAN and FDAN do.
    normalize : bool, default=False
        Divide features by their norm in "lmmd", "dsan" and "mmd".

    Raises
    ------
    ValueError
        If ``name`` is unknown.

    Examples
    --------
    >>> loss = AdaptationLoss("coral", n_layers=1, n_features=4, n_classes=2)
    >>> z = torch.eye(4)
    >>> layers = [{"visual": z, "audio": z}]
    >>> logits = {"visual": z[:, :2], "audio": z[:, :2]}
    >>> y = {m: torch.tensor([0, 1, 0, -1]) for m in logits}
    >>> float(loss(layers, logits, y, progress=0.5))
    0.0
    """

    def __init__(
        self,
        name: str,
        n_layers: int,
        n_features: int,
        n_classes: int,
        divide_by_all: bool = True,
        normalize: bool = False,
    ):
        super().__init__()
        if name not in ADAPTATIONS:
            raise ValueError(
                f"The adaptation {name!r} is unknown; choose one of "
                f"{', '.join(map(repr, ADAPTATIONS))}."
            )
        self.name = name
        self.normalize = normalize
        self.lmmd = LMMDLoss(n_classes if divide_by_all else None, normalize)
        self.adversaries = nn.ModuleList()
        if name == "dann":
            self.adversaries.extend(DANNLoss(n_features) for _ in range(n_layers))
        elif name == "daan":
            self.adversaries.extend(DAANLoss(n_features, n_classes) for _ in range(n_layers))

    @property
    def mu(self) -> Tensor | None:
        """DAAN's factor μ, averaged over the layers; None with other losses."""
        if self.name != "daan":
            return None
        return torch.stack([adversary.mu for adversary in self.adversaries]).mean()

    def forward(
        self,
        layers: Sequence[Mapping[str, Tensor]],
        logits: Mapping[str, Tensor],
        y: Mapping[str, Tensor],
        progress: float,
    ) -> Tensor:
        """Return the loss of one batch.

        Parameters
        ----------
        layers : sequence of mappings of modality to Tensor of shape (n, n_features)
            Features of both modalities on every adapted layer.
        logits : mapping of modality to Tensor of shape (n, C)
            Class scores.
        y : mapping of modality to Tensor of shape (n,)
            Class indices, -1 where the label is missing.
        progress : float
            Share of the training that is done, in [0, 1]. The gradient reversal
            of "dann" and "daan" has the coefficient
            ``2 / (1 + exp(-10 progress)) - 1``.

        Returns
        -------
        Tensor of shape ()
            The sum over the layers.
        """
        # Of integers LMMD reads the largest, for which the CPU would wait for a CUDA device; with
        # every label known these are the same classes.
        if self.name == "dsan" or (self.name == "lmmd" and y["audio"].is_cuda):
            y = {m: memberships(logits[m], y[m]) for m in y}
        return sum(self._layer(i, z, logits, y, progress) for i, z in enumerate(layers))

    def _layer(self, i: int, z: Mapping[str, Tensor], logits, y, progress: float) -> Tensor:
        source, target = z["visual"], z["audio"]
        if self.name in ("lmmd", "dsan"):
            return self.lmmd(source, target, y["visual"], y["audio"])
        if self.name == "mmd":
            if self.normalize:
                source, target = F.normalize(source, dim=1), F.normalize(target, dim=1)
            return mmd(source, target)
        if self.name == "coral":
            return coral(source, target)
        if self.name == "cmd":
            return cmd(source.sigmoid(), target.sigmoid())
        coefficient = dsan_ramp(progress)
        if self.name == "dann":
            return self.adversaries[i](source, target, coefficient)
        probabilities = (logits[m].softmax(1) for m in ("visual", "audio"))
        return self.adversaries[i](source, target, *probabilities, coefficient)

    def end_epoch(self) -> None:
        """Let DAAN set μ for the next epoch."""
        for adversary in self.adversaries:
            if isinstance(adversary, DAANLoss):
                adversary.end_epoch()

    def extra_repr(self) -> str:
        """Show the loss in the module's repr."""
        return f"name={self.name!r}, normalize={self.normalize}"
