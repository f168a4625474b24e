"""Matrix products of layers, by the faster of two libraries that torch holds."""

from __future__ import annotations

import functools
import platform
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Linear", "stacked_product"]

#: Multiplications of a product from which oneDNN saves more than its call costs.
_WORTH = 2**21


@functools.cache
def _onednn() -> Any | None:
    """Return oneDNN's product of float32 matrices where MKL's, which torch takes, is slower.

    MKL does without AVX-512 on AMD's processors. From Zen 5 on that halves its speed: one
    thread of an EPYC 9005 makes 100 GFLOP/s, and with oneDNN 120 to 220.
    """
    halved = torch.backends.mkl.is_available() and _is_zen_5_or_later()
    if not halved or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    return _product_of_onednn()


def _product_of_onednn() -> Any | None:
    try:
        return torch.ops.mkldnn._linear_pointwise.default
    except (AttributeError, RuntimeError):  # a torch that was built without it
        return None


def _is_zen_5_or_later() -> bool:
    try:
        about = Path("/proc/cpuinfo").read_text()
    except OSError:  # only Linux has it
        about = platform.processor()
    family = re.search(r"family\s*:?\s*(\d+)", about, re.IGNORECASE)
    return "AuthenticAMD" in about and family is not None and int(family[1]) >= 26


def _is_faster(a: Tensor, b: Tensor) -> bool:
    """Tell whether oneDNN is the better one for ``a bᵀ``, or for each of a stack of them."""
    # First: what else is asked can't be compiled, nor traced without a warning.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return (
        a.shape[-2] * b.shape[-2] * b.shape[-1] >= _WORTH
        and _onednn() is not None
        and a.device.type == b.device.type == "cpu"
        and a.dtype == b.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``a bᵀ + bias`` by oneDNN; autograd does not see it."""
    return _onednn()(a, b, bias, "none", [], "")


class Linear(nn.Linear):
    """:class:`torch.nn.Linear`, faster on some processors.

    Large products of float32 are left to oneDNN on those of AMD's processors on which MKL,
    which torch would take, is slower (Zen 5 and later). Otherwise this is torch's layer.
    Results differ by rounding alone.

    Examples
    --------
    >>> layer = Linear(256, 512)
    >>> x = torch.rand(32, 256)
    >>> plain = torch.nn.functional.linear(x, layer.weight, layer.bias)
    >>> torch.allclose(layer(x), plain, atol=1e-5)
    True
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x Wᵀ + b``.

        Parameters
        ----------
        x : Tensor of shape (..., in_features)
            Rows.

        Returns
        -------
        Tensor of shape (..., out_features)
            Rows.
        """
        if x.ndim == 2 and _is_faster(x, self.weight):
            return _Linear.apply(x, self.weight, self.bias)
        return F.linear(x, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    # Without setup_context, which vmap and jacrev would need and which costs half of what oneDNN
    # saves: they get torch's layer.
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        again = torch.is_grad_enabled()  # then this is differentiated too
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ weight if again else _product(gradient, weight.mT)
        if ctx.needs_input_grad[1]:
            of_weight = gradient.mT @ x if again else _product(gradient.mT, x.mT)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(0)
        return of_x, of_weight, of_bias


def stacked_product(
    a: Tensor, b: Tensor, bias: Tensor | None = None, out: Tensor | None = None
) -> Tensor:
    """Return ``a[i] b[i]ᵀ + bias[i]`` of every i; autograd does not see it.

    Parameters
    ----------
    a : Tensor of shape (m, n, d)
        Left factors.
    b : Tensor of shape (m, k, d)
        Right factors, transposed.
    bias : Tensor of shape (m, k) or None, default=None
        What is added to every row.
    out : Tensor of shape (m, n, k) or None, default=None
        Where the products are written to, if there is no bias.

    Returns
    -------
    Tensor of shape (m, n, k)
        Products.

    Examples
    --------
    >>> a, b = torch.rand(3, 4, 2), torch.rand(3, 5, 2)
    >>> torch.allclose(stacked_product(a, b)[1], a[1] @ b[1].T)
    True
    """
    if not _is_faster(a, b):
        if bias is None:
            return torch.bmm(a, b.mT, out=out)
        return torch.baddbmm(bias[:, None], a, b.mT)
    if out is None:
        out = a.new_empty(len(a), a.shape[1], b.shape[1])
    biases = [None] * len(a) if bias is None else bias.unbind()
    for each, *factors in zip(out.unbind(), a.unbind(), b.unbind(), biases, strict=True):
        each.copy_(_product(*factors))
    return out
