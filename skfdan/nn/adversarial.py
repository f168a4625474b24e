"""Adversarial adaptation: gradient reversal, DANN's and DAAN's discriminators."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "DAANLoss",
    "DANNLoss",
    "a_distance",
    "dynamic_factor",
    "grad_reverse",
    "make_discriminator",
]


class _GradReverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, coefficient: float) -> Tensor:
        ctx.coefficient = coefficient
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.coefficient * grad, None


def grad_reverse(x: Tensor, coefficient: float = 1.0) -> Tensor:
    """Return x, whose gradient is multiplied by -coefficient on its way back.

    Parameters
    ----------
    x : Tensor
        Features.
    coefficient : float, default=1.0
        λ of DANN [1]_.

    Returns
    -------
    Tensor
        The values of x.

    References
    ----------
    .. [1] Y. Ganin et al., "Domain-Adversarial Training of Neural Networks",
       JMLR 17, 2016.

    Examples
    --------
    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> (grad_reverse(x, 0.5) ** 2).backward()
    >>> x.grad.item()
    -3.0
    """
    return _GradReverse.apply(x, coefficient)


def a_distance(error: Tensor) -> Tensor:
    """Proxy A-distance of two domains from the error rate of their discriminator.

    ``2 (1 - 2 min(ε, 1 - ε))``: 0 if the discriminator guesses, 2 if it is
    always right. One that is always wrong separates the domains as well.

    Parameters
    ----------
    error : Tensor
        Error rates ε in [0, 1].

    Returns
    -------
    Tensor
        Distances in [0, 2].

    Notes
    -----
    The DAAN code and the FDRL paper put a *loss* in place of ε. A loss has no
    upper limit, so their distances become negative, and the factor made of them
    leaves [0, 1].

    Examples
    --------
    >>> a_distance(torch.tensor([0.0, 0.25, 0.5, 1.0])).tolist()
    [2.0, 1.0, 0.0, 2.0]
    """
    return 2.0 * (1.0 - 2.0 * torch.minimum(error, 1.0 - error))


def dynamic_factor(d_global: Tensor, d_local: Tensor) -> Tensor:
    """Share of the global in the global and local distances, DAAN's μ.

    ``d_global / (d_global + d_local)``, within [0, 1], and 1/2 if both are 0.

    Parameters
    ----------
    d_global : Tensor of shape ()
        Distance of the domains.
    d_local : Tensor of shape ()
        Mean distance of the domains within a class.

    Returns
    -------
    Tensor of shape ()
        μ, without gradient.

    References
    ----------
    .. [1] C. Yu et al., "Transfer Learning with Dynamic Adversarial Adaptation
       Network", ICDM 2019.

    Examples
    --------
    >>> dynamic_factor(torch.tensor(1.5), torch.tensor(0.5)).item()
    0.75
    >>> dynamic_factor(torch.tensor(0.0), torch.tensor(0.0)).item()
    0.5
    """
    total = (d_global + d_local).detach()
    share = (d_global.detach() / total).clamp(0.0, 1.0)
    return torch.where(total == 0, torch.full_like(share, 0.5), share)


def make_discriminator(n_features: int, hidden: int, dropout: float = 0.5) -> nn.Sequential:
    """Return a discriminator: two hidden layers, one logit, positive for the source.

    Parameters
    ----------
    n_features : int
        Width of the features.
    hidden : int
        Width of both hidden layers.
    dropout : float, default=0.5
        Dropout after each of them.

    Returns
    -------
    Sequential
        Maps (n, n_features) to (n, 1).

    Notes
    -----
    Public codes have either batch normalisation or dropout. We take dropout:
    each domain passes on its own, so batch statistics would hide from the
    discriminator the shift that it should find, and a batch of one has none.

    Examples
    --------
    >>> make_discriminator(8, 16)(torch.zeros(3, 8)).shape
    torch.Size([3, 1])
    """
    return nn.Sequential(
        nn.Linear(n_features, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, 1),
    )


def domain_loss(source_logits: Tensor, target_logits: Tensor) -> Tensor:
    """Return the mean of both domains' cross-entropies; the source is 1, the target 0.

    It is 0 if a domain is empty: there is nothing to tell apart.
    """
    if not len(source_logits) or not len(target_logits):
        return 0.0 * (source_logits.sum() + target_logits.sum())
    source = F.binary_cross_entropy_with_logits(source_logits, torch.ones_like(source_logits))
    target = F.binary_cross_entropy_with_logits(target_logits, torch.zeros_like(target_logits))
    return 0.5 * (source + target)


class DANNLoss(nn.Module):
    """Domain-adversarial loss: a discriminator behind a gradient reversal.

    Parameters
    ----------
    n_features : int
        Width of the features.
    hidden : int or None, default=None
        Width of the discriminator; None is ``n_features``, which for the usual
        256 features is the published 256.
    dropout : float, default=0.5
        Dropout of the discriminator, see ``skfdan.nn.adversarial.make_discriminator``.

    References
    ----------
    .. [1] Y. Ganin et al., "Domain-Adversarial Training of Neural Networks",
       JMLR 17, 2016.

    Examples
    --------
    >>> loss = DANNLoss(8)
    >>> loss(torch.zeros(4, 8), torch.ones(3, 8), coefficient=0.5).shape
    torch.Size([])
    """

    def __init__(self, n_features: int, hidden: int | None = None, dropout: float = 0.5):
        super().__init__()
        self.discriminator = make_discriminator(n_features, hidden or n_features, dropout)

    def forward(self, z_source: Tensor, z_target: Tensor, coefficient: float = 1.0) -> Tensor:
        """Return the discriminator's loss; the features' gradient is reversed.

        Parameters
        ----------
        z_source : Tensor of shape (n_s, n_features)
            Features of the source.
        z_target : Tensor of shape (n_t, n_features)
            Features of the target.
        coefficient : float, default=1.0
            λ of the gradient reversal.

        Returns
        -------
        Tensor of shape ()
            Mean of both domains' mean binary cross-entropies; ln 2 if the
            discriminator can't tell them apart.
        """
        source, target = (
            self.discriminator(grad_reverse(z, coefficient)) for z in (z_source, z_target)
        )
        return domain_loss(source, target)


class DAANLoss(nn.Module):
    r"""Dynamic adversarial adaptation: a global and one discriminator a class.

    The discriminator of class c reads :math:`p_c(x)\,\mathrm{GRL}(z)`, and

    .. math:: L = (1 - \mu) L_g + \mu \frac{1}{C} \sum_c L_l^c.

    μ starts at 1/2 and follows the discriminators' error rates of the last
    epoch: call :meth:`end_epoch` after each.

    Parameters
    ----------
    n_features : int
        Width of the features.
    n_classes : int
        Number of classes, C.
    hidden : int or None, default=None
        Width of the discriminators; None is ``4 * n_features``, which for the
        usual 256 features is the published 1024.
    dropout : float, default=0.5
        Dropout of the discriminators.
    mu_rule : {"published", "released"}, default="published"
        The published formula weighs the *local* loss by the global share μ of
        the distances; the released code does the opposite, so that the larger
        gap gets the larger weight: :math:`\mu L_g + (1 - \mu) L_l`.

    Attributes
    ----------
    mu : Tensor of shape ()
        Share of the global distance, :func:`dynamic_factor`.

    Raises
    ------
    ValueError
        If ``mu_rule`` is unknown.

    Notes
    -----
    Known from paper and code: the discriminators, their input and both rules.
    Decided here:

    - The distances come from error rates, as the A-distance is defined, and not
      from losses (see :func:`a_distance`). An error rate is the mean of both
      domains' rates over an epoch, so that a larger domain gives no advantage;
      discriminator c counts a row by p_c, because the rows of other classes
      reach it as (nearly) nought.
    - Both losses are means (over domains, rows, and classes for the local one),
      not the released code's sums times 0.05 and 0.01: μ then compares like
      with like, whatever C.
    - p is detached. In the released code a gradient that is not reversed flows
      through it, which teaches the classifier to give the domain away.

    References
    ----------
    .. [1] C. Yu et al., "Transfer Learning with Dynamic Adversarial Adaptation
       Network", ICDM 2019.

    Examples
    --------
    >>> loss = DAANLoss(8, n_classes=3)
    >>> p_source, p_target = torch.eye(3), torch.full((2, 3), 1 / 3)
    >>> loss(torch.zeros(3, 8), torch.ones(2, 8), p_source, p_target).shape
    torch.Size([])
    >>> loss.end_epoch()
    >>> 0.0 <= float(loss.mu) <= 1.0
    True
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        hidden: int | None = None,
        dropout: float = 0.5,
        mu_rule: str = "published",
    ):
        super().__init__()
        if mu_rule not in ("published", "released"):
            raise ValueError(
                f"mu_rule={mu_rule!r} is unknown; choose one of 'published', 'released'."
            )
        self.mu_rule = mu_rule
        # The first one is global, the others belong to the classes.
        self.discriminators = nn.ModuleList(
            make_discriminator(n_features, hidden or 4 * n_features, dropout)
            for _ in range(1 + n_classes)
        )
        self.register_buffer("mu", torch.tensor(0.5))
        # Wrong and all decisions of each discriminator on source and target.
        self.register_buffer("_wrong", torch.zeros(2, 1 + n_classes))
        self.register_buffer("_seen", torch.zeros(2, 1 + n_classes))

    def forward(
        self,
        z_source: Tensor,
        z_target: Tensor,
        p_source: Tensor,
        p_target: Tensor,
        coefficient: float = 1.0,
    ) -> Tensor:
        """Return the weighted loss of all discriminators.

        In training mode their decisions are counted for the next μ.

        Parameters
        ----------
        z_source : Tensor of shape (n_s, n_features)
            Features of the source.
        z_target : Tensor of shape (n_t, n_features)
            Features of the target.
        p_source, p_target : Tensor of shape (n_s, C) and (n_t, C)
            Class probabilities; no gradient flows through them.
        coefficient : float, default=1.0
            λ of the gradient reversal.

        Returns
        -------
        Tensor of shape ()
            The loss.
        """
        source, source_weights = self._logits(z_source, p_source, coefficient)
        target, target_weights = self._logits(z_target, p_target, coefficient)
        if self.training:
            with torch.no_grad():
                self._count(0, source <= 0, source_weights)
                self._count(1, target > 0, target_weights)
        local_share = self.mu if self.mu_rule == "published" else 1.0 - self.mu
        return (1.0 - local_share) * domain_loss(source[:, :1], target[:, :1]) + (
            local_share * domain_loss(source[:, 1:], target[:, 1:])
        )

    def _logits(self, z: Tensor, p: Tensor, coefficient: float) -> tuple[Tensor, Tensor]:
        """Return the logits of all discriminators and the rows' weights, (n, 1 + C)."""
        z, p = grad_reverse(z, coefficient), p.detach().to(z.dtype)
        weights = torch.cat([torch.ones_like(p[:, :1]), p], dim=1)
        logits = [d(weights[:, i : i + 1] * z) for i, d in enumerate(self.discriminators)]
        return torch.cat(logits, dim=1), weights

    def _count(self, domain: int, wrong: Tensor, weights: Tensor) -> None:
        self._wrong[domain] += (wrong * weights).sum(0)
        self._seen[domain] += weights.sum(0)

    def end_epoch(self) -> None:
        """Set μ from the error rates since the last call, if there are any."""
        if not bool(self._seen[:, 0].all()):
            return
        # A class that never had any probability tells nothing: as if guessed.
        rates = torch.where(self._seen > 0, self._wrong / self._seen, 0.5)
        distances = a_distance(rates.mean(0))
        self.mu.copy_(dynamic_factor(distances[0], distances[1:].mean()))
        self._wrong.zero_()
        self._seen.zero_()

    def extra_repr(self) -> str:
        """Show the rule in the module's repr."""
        return f"mu_rule={self.mu_rule!r}"
