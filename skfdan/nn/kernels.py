"""The Gaussian kernels of MMD and LMMD, with the gradient written by hand."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["kernel_discrepancy"]

_KERNELS = 5
#: Rows up to which the Gram matrix is made at once, and rows of a tile above it: 128 rows of
#: a few thousand columns stay in a core's cache.
_WHOLE, _TILE = 128, 128


def kernel_discrepancy(
    z_source: Tensor,
    z_target: Tensor,
    weights: Tensor,
    bandwidth: float | Tensor | None = None,
    classes: Tensor | None = None,
) -> Tensor:
    r"""Sum over the columns of weights of :math:`\|\sum_n w_{nc} \phi(z_n)\|^2`.

    The kernel is the sum of five Gaussians of the DSAN code [1]_,
    :math:`k(d) = \sum_{q=-2}^{2} \exp(-d / (2^q b))` of the squared distance d.

    Parameters
    ----------
    z_source : Tensor of shape (n_s, d) or (m, n_s, d), floating point
        Features of one side; three dimensions are m problems with the same weights.
        Half precision is computed with, and returned, as float32, also under autocast:
        squared distances leave its range.
    z_target : Tensor of shape (n_t, d) or (m, n_t, d), floating point
        Features of the other.
    weights : Tensor of shape (n_s + n_t, C)
        Positive for the rows of one side and negative for those of the other. No
        gradient flows through them.
    bandwidth : float, scalar Tensor or None, default=None
        b. None takes the mean squared distance between different rows, in each of m
        problems its own. No gradient flows through it.
    classes : Tensor of shape (n_s + n_t,), integer; or None, default=None
        The one column in which each row has a weight, if that is so. Two rows of different
        columns add nothing, and large batches then leave such pairs out.

    Returns
    -------
    Tensor of shape () or (m,)
        At least 0.

    Raises
    ------
    RuntimeError
        If the gradient is asked for in a way that lets it be differentiated again
        (``create_graph=True``).

    Notes
    -----
    Features are centred first: in float32 the Gram form of the squared distance loses
    all its digits when features lie far from the origin. One exponential and four
    squarings give all five kernels. The Gram matrix is symmetric, so tiles below its
    diagonal are never made, and none is kept: memory grows with the number of rows and
    not with its square. With ``classes``, only its blocks of one class are made.

    References
    ----------
    .. [1] Y. Zhu et al., "Deep Subdomain Adaptation Network for Image
       Classification", IEEE TNNLS 32(4), 2021.

    Examples
    --------
    >>> z = torch.tensor([[0.0], [1.0]])
    >>> weights = torch.tensor([[1.0], [-1.0]])
    >>> value = kernel_discrepancy(z[:1], z[1:], weights, bandwidth=1.0)
    >>> expected = sum(2 - 2 * torch.exp(torch.tensor(-1 / 2.0**q)) for q in range(-2, 3))
    >>> bool(torch.isclose(value, expected))
    True
    """
    z_source, z_target = at_least_single(z_source), at_least_single(z_target)
    weights = at_least_single(weights)
    with without_autocast(z_source.device):
        return _Discrepancy.apply(z_source, z_target, weights, bandwidth, classes)


def at_least_single(x: Tensor) -> Tensor:
    """Turn half precision, and integers, into float32; leave float32 and float64."""
    return x if x.dtype == torch.float64 else x.float()


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Keep products in the precision of what is multiplied."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()  # in a third of the time


def _mean_squared_distance(square: Tensor, n: int, mean: Tensor) -> Tensor:
    """Return the mean over pairs of n different rows, of the squared norms of centred features.

    As they are centred, the n² squared distances sum to 2 n times the squared norms. Below
    the rounding of what was centred there is no distance but noise, and a bandwidth as small
    would make huge gradients of it.
    """
    kind = torch.finfo(square.dtype)
    distance = square.sum(-1) * (2.0 / max(n - 1, 1))
    noise = mean.square().sum((-2, -1)).mul_((4.0 * kind.eps) ** 2).add_(kind.tiny**0.5)
    return torch.maximum(distance, noise)


class _ByClass(NamedTuple):
    """Where the rows of each class go, so that the classes are problems of one size.

    Row i is put at ``slot[i]`` of ``n_classes`` times ``size`` places; the others stay empty,
    without a weight.
    """

    slot: Tensor
    n_classes: int
    size: int

    @classmethod
    def of(cls, classes: Tensor, n_classes: int) -> _ByClass | None:
        """Sort the rows; None if the empty places would cost more than sorting saves."""
        places = F.one_hot(classes, n_classes).cumsum(0)  # of each class so far
        size = int(places[-1].max())
        if 2 * n_classes * size**2 > len(classes) ** 2:
            return None
        place = places.gather(1, classes[:, None])[:, 0] - 1
        return cls(place.add_(classes, alpha=size), n_classes, size)

    def put(self, rows: Tensor) -> Tensor:
        """Turn (m, n, d) into (m * n_classes, size, d)."""
        m, _, d = rows.shape
        places = rows.new_zeros(m, self.n_classes * self.size, d).index_copy_(1, self.slot, rows)
        return places.view(m * self.n_classes, self.size, d)

    def take(self, places: Tensor) -> Tensor:
        """Turn (m * n_classes, size, d) into (m, n, d)."""
        d = places.shape[2]
        return places.reshape(-1, self.n_classes * self.size, d).index_select(1, self.slot)


def _sum_of_pairs(
    z: Tensor, square: Tensor, weights: Tensor, rate: float | Tensor, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the values (m,) of centred features (m, n, d) and their gradient, if wanted.

    ``square`` (m, n) holds the squared norms. With G = W Wᵀ ∘ k'(D), elementwise, row i of the
    gradient is 4 Σ_j G_ij (z_i - z_j), that is 4 (diag(G 1) - G) Z.
    """
    n = z.shape[1]
    tile = n if n <= _WHOLE else _TILE
    value = z.new_zeros(len(z))
    pull, degree = torch.zeros_like(z), torch.zeros_like(square)
    for start in range(0, n, tile):
        stop = min(start + tile, n)
        rows, right = z[:, start:stop], z[:, start:]  # tiles on and right of the diagonal
        below = slice(stop - start, None)  # columns whose mirror images are left out
        distance = torch.baddbmm(square[:, None, start:], rows, right.mT, alpha=-2.0)
        distance = distance.add_(square[:, start:stop, None]).clamp_min_(0.0)
        distance.diagonal(dim1=1, dim2=2).zero_()
        power = distance.mul_(-rate).exp_()
        halved = power.square()
        kernel = power + halved
        slope = torch.add(power, halved, alpha=2.0) if with_gradient else power
        for q in range(2, _KERNELS):
            halved = halved.square()
            kernel += halved
            if with_gradient:
                slope.add_(halved, alpha=2.0**q)
        share = weights[..., start:stop, :] @ weights[..., start:, :].mT
        kernel *= share
        value += kernel.sum((1, 2))
        if stop < n:
            value += kernel[:, :, below].sum((1, 2))
        if with_gradient:
            slope *= share
            pull[:, start:stop].baddbmm_(slope, right)
            degree[:, start:stop] += slope.sum(2)
            if stop < n:
                mirrored = slope[:, :, below].mT
                pull[:, stop:].baddbmm_(mirrored, rows)
                degree[:, stop:] += mirrored.sum(2)
    if not with_gradient:
        return value, None
    # Never negative but for rounding; there it is flat.
    scale = 4.0 * rate * (value > 0)[:, None, None].to(z.dtype)
    return value, torch.addcmul(pull, degree[:, :, None], z, value=-1.0).mul_(scale)


class _Discrepancy(torch.autograd.Function):
    """The value, and the gradient on the way: nothing of size n² outlives a tile."""

    @staticmethod
    def forward(
        ctx: Any,
        z_source: Tensor,
        z_target: Tensor,
        weights: Tensor,
        bandwidth: float | Tensor | None,
        classes: Tensor | None,
    ) -> Tensor:
        with_gradient = any(ctx.needs_input_grad[:2])
        z = torch.cat([z_source, z_target], dim=-2)
        shape, z = z.shape, z.reshape(-1, *z.shape[-2:])
        n, mean = z.shape[1], z.mean(1, keepdim=True)
        z -= mean  # the gradient's part through the mean is nought
        by_class = None
        # Small batches are sorted no faster than computed; a compiler can't know the sizes.
        if classes is not None and n > _WHOLE and not torch.compiler.is_compiling():
            by_class = _ByClass.of(classes, weights.shape[1])
        parts = 1
        if by_class is not None:
            parts = by_class.n_classes
            weights = by_class.put(weights.sum(1).expand(len(z), -1)[..., None])
            z = by_class.put(z)
        square = z.square().sum(2)
        if bandwidth is None:
            bandwidth = _mean_squared_distance(square.view(len(mean), -1), n, mean)
        # The widest kernel is exp(-d / 4b); squaring halves the bandwidth.
        rate = 0.25 / bandwidth
        if torch.is_tensor(rate):
            rate = rate.reshape(-1, 1, 1)
            if parts > 1 and len(rate) > 1:
                rate = rate.repeat_interleave(parts, 0)
        value, gradient = _sum_of_pairs(z, square, weights, rate, with_gradient)
        value = value.clamp_min_(0.0).view(-1, parts).sum(1)
        if with_gradient:
            gradient = gradient if by_class is None else by_class.take(gradient)
            ctx.save_for_backward(gradient.reshape(shape))
            ctx.sizes = z_source.shape[-2], z_target.shape[-2]
        return value.reshape(shape[:-2])

    @staticmethod
    def backward(ctx: Any, of_value: Tensor) -> tuple:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # Without this a gradient penalty would silently take the gradient for a constant.
            raise RuntimeError(
                "The gradient of this loss (lmmd, mmd) can't be differentiated again; call "
                "backward or grad without create_graph=True."
            )
        (gradient,) = ctx.saved_tensors
        of_source, of_target = (gradient * of_value[..., None, None]).split(ctx.sizes, -2)
        return of_source, of_target, None, None, None
