"""Several FDAN heads that see the same batches, computed together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from skfdan.nn.adaptation import AdaptationLoss
from skfdan.nn.attention import other_modality
from skfdan.nn.fdan import FDANNet, FDANOutput
from skfdan.nn.kernels import kernel_discrepancy
from skfdan.nn.losses import _signed_class_weights
from skfdan.nn.products import stacked_product

__all__ = ["StackedHeads", "stacked_discrepancy"]

#: Parameters start at multiples of so many numbers, for aligned access.
_ALIGN = 16
#: All three projections of a modality read the same features: side by side, they are one product.
_ALL_THREE = "query+key+value"
_EACH = re.compile(r"(query|key|value)(?=\.weight$)")


class _Block(NamedTuple):
    """Where parameters of one shape, one below the other, lie in a row of numbers.

    A matrix that is taller than wide lies there transposed. Matrices come from memory in every
    product, and processors fetch few long rows sooner than many short ones.
    """

    start: int
    shape: torch.Size
    names: list[str]

    @property
    def end(self) -> int:
        return self.start + len(self.names) * self.shape.numel()

    def of(self, values: Tensor) -> Tensor:
        """Return what (..., n_parameters) has of this block."""
        part = values[..., self.start : self.end]
        height, *width = len(self.names) * self.shape[0], *self.shape[1:]
        if len(width) == 1 and height > width[0]:
            return part.unflatten(-1, (width[0], height)).mT
        return part.unflatten(-1, (height, *width))


class StackedHeads:
    """What several networks of one architecture have above the backbones.

    Matrix products of a small batch are too small to keep a processor busy, and each
    costs the time of a call. Here m networks take part in each. All numbers that one of
    them learns lie in one row of ``values``, their gradients in the same row of
    ``gradients``, so that an optimiser has one tensor to go through.

    Parameters
    ----------
    networks : sequence of FDANNet
        Networks of one architecture, whose weights may differ; at least one. They keep
        theirs until :meth:`write_back`.

    Attributes
    ----------
    values, gradients : Tensor of shape (m, n_parameters)
        The weights, and what the backward pass writes: each replaces the one before, so
        there is nothing to set to zero.
    rows : list of Parameter of shape (n_parameters,)
        The rows of ``values`` with those of ``gradients``, for the optimisers.

    Notes
    -----
    What a network of one modality never uses (the attention, and the other modality's
    side of a layer) is not among the values: without a gradient, optimisers leave it
    alone, weight decay included.

    Examples
    --------
    >>> from skfdan.nn import FDANNet
    >>> from skfdan.nn.inputs import InputSpec
    >>> inputs = {"visual": InputSpec("vector", n_features=6), "audio": InputSpec("vector",
    ...           n_features=4)}
    >>> nets = [FDANNet(3, inputs, bottleneck=8) for _ in range(2)]
    >>> x = {"visual": torch.rand(5, 6), "audio": torch.rand(7, 4)}
    >>> together = StackedHeads(nets)(x).logits["audio"]
    >>> together.shape, torch.allclose(together[1], nets[1](**x).logits["audio"], atol=1e-5)
    (torch.Size([2, 7, 3]), True)
    """

    def __init__(self, networks: Sequence[FDANNet]):
        first = networks[0]
        self.first = first
        self._blocks: dict[str, _Block] = {}
        end = 0
        for name, p in first.named_parameters():
            if not (p.requires_grad and _is_used(name, list(first.inputs))):
                continue
            whole = _EACH.sub(_ALL_THREE, name)
            block = self._blocks.setdefault(whole, _Block(_aligned(end), p.shape, []))
            block.names.append(name)
            end = block.end
        end = _aligned(end)
        like = first.classifier.weight
        self.values = like.new_zeros(len(networks), end).detach()
        self.gradients = torch.zeros_like(self.values)
        self.rows = [nn.Parameter(row) for row in self.values]
        for row, gradient in zip(self.rows, self.gradients, strict=True):
            row.grad = gradient
        with torch.no_grad():
            for name, w in self.split(self.values).items():
                w.copy_(torch.stack([net.get_parameter(name) for net in networks]))
        self._weights, self._gradients = (
            {name: block.of(t) for name, block in self._blocks.items()}
            for t in (self.values, self.gradients)
        )
        for w in self._weights.values():
            w.requires_grad_()

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Return views of (..., n_parameters) in the shapes of the parameters, by their names."""
        return {
            name: part
            for block in self._blocks.values()
            for name, part in zip(
                block.names,
                block.of(values).split(block.shape[0], dim=values.ndim - 1),
                strict=True,
            )
        }

    def write_back(self, i: int, network: nn.Module) -> None:
        """Give the i-th network its weights."""
        with torch.no_grad():
            for name, w in self.split(self.values[i]).items():
                network.get_parameter(name).copy_(w)

    def optimizer_state(self, i: int, state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the state of an optimiser of ``rows[i]`` as one of each parameter."""
        split = {
            key: self.split(value) if torch.is_tensor(value) and value.ndim else value
            for key, value in state.items()
        }
        return {
            name: {
                # Contiguous, as the parameter is.
                key: value[name].clone(memory_format=torch.contiguous_format)
                if isinstance(value, dict)
                else value
                for key, value in split.items()
            }
            for block in self._blocks.values()
            for name in block.names
        }

    def __call__(self, features: Mapping[str, Tensor]) -> FDANOutput:
        """Classify one batch with every network, as in training.

        Parameters
        ----------
        features : mapping of modality to Tensor of shape (n, n_features)
            What the backbones gave, in the order of the networks' arguments.

        Returns
        -------
        FDANOutput
            As of :class:`~skfdan.nn.FDANNet`, with a leading dimension of the networks.
        """
        z = {
            m: self._drop(
                self._linear(x, f"bottlenecks.{m}.0").relu(), self.first.bottlenecks[m][2]
            )
            for m, x in features.items()
        }
        layers = {m: [x] for m, x in z.items()}
        for i in range(len(self.first.layers)):
            z = self._layer(i, z)
            for m, x in z.items():
                layers[m].append(x)
        # One product for both, because the gradient of a second would replace the first's.
        logits = self._linear(torch.cat(list(z.values()), 1), "classifier")
        parts = logits.split([x.shape[1] for x in z.values()], 1)
        return FDANOutput(dict(zip(z, parts, strict=True)), layers)

    def _layer(self, i: int, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Eq. 2-4, see :class:`skfdan.nn.CrossAttentionLayer`."""
        layer, out = self.first.layers[i], {}
        projected = {
            m: [
                _heads(part, layer.n_heads)
                for part in self._linear(x, f"layers.{i}.{m}.{_ALL_THREE}").chunk(3, 2)
            ]
            for m, x in z.items()
            if len(z) > 1
        }
        for m, x in z.items():
            side, own = getattr(layer, m), f"layers.{i}.{m}"
            if projected:
                q, (_, k, v) = projected[m][0], projected[other_modality(m)]
                weights = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)
                x = x + (weights @ v).transpose(1, 2).reshape(x.shape)
            x = self._norm(x, f"{own}.norm1", side.norm1)
            hidden = self._drop(self._linear(x, f"{own}.ffn.0").relu(), side.ffn[2])
            out[m] = self._norm(
                x + self._linear(hidden, f"{own}.ffn.3"), f"{own}.norm2", side.norm2
            )
        return out

    def _linear(self, x: Tensor, name: str) -> Tensor:
        weight, bias = f"{name}.weight", f"{name}.bias"
        return _Linear.apply(
            *(x, self._weights[weight], self._weights.get(bias)),
            *(self._gradients[weight], self._gradients.get(bias)),
        )

    def _norm(self, x: Tensor, name: str, norm: nn.LayerNorm) -> Tensor:
        names = f"{name}.weight", f"{name}.bias"
        return _Affine.apply(
            F.layer_norm(x, norm.normalized_shape, eps=norm.eps),
            *(self._weights[n] for n in names),
            *(self._gradients[n] for n in names),
        )

    def _drop(self, x: Tensor, dropout: nn.Dropout) -> Tensor:
        """Drop the same in every network: what each would draw on its own from the same seed."""
        if dropout.p == 0.0:
            return x
        return x * F.dropout(torch.ones_like(x[0]), dropout.p)


def _aligned(place: int) -> int:
    return -(-place // _ALIGN) * _ALIGN


def _is_used(name: str, modalities: list[str]) -> bool:
    """Tell whether a parameter takes part in the training of a network."""
    parts = name.split(".")
    if parts[0] != "layers" or len(modalities) > 1:
        return True
    return parts[2] in modalities and parts[3] not in ("query", "key", "value")


def _heads(x: Tensor, n_heads: int) -> Tensor:
    """Return (m, n_heads, n, d / n_heads) of (m, n, d)."""
    return x.unflatten(2, (n_heads, -1)).transpose(1, 2)


class _Linear(torch.autograd.Function):
    """``x Wᵀ + b`` in every network.

    Autograd would make the gradient of W anew in every step, transposed, and copy it.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, of_weight, of_bias):
        x = x.expand(len(weight), *x.shape[-2:])  # of a first layer, (n, d) for all networks
        ctx.save_for_backward(x, weight)
        ctx.into = of_weight, of_bias
        return stacked_product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        of_weight, of_bias = ctx.into
        if of_weight.stride(-1) == 1:
            stacked_product(gradient.mT, x.mT, out=of_weight)
        else:
            stacked_product(x.mT, gradient.mT, out=of_weight.mT)
        if of_bias is not None:
            torch.sum(gradient, 1, out=of_bias)
        of_x = stacked_product(gradient, weight.mT) if ctx.needs_input_grad[0] else None
        return of_x, None, None, None, None


class _Affine(torch.autograd.Function):
    """``x * scale + shift`` in every network; gradients are written as those of _Linear."""

    @staticmethod
    def forward(ctx, x, scale, shift, of_scale, of_shift):
        ctx.save_for_backward(x, scale)
        ctx.into = of_scale, of_shift
        return torch.addcmul(shift[:, None], x, scale[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, scale = ctx.saved_tensors
        of_scale, of_shift = ctx.into
        torch.sum(gradient * x, 1, out=of_scale)
        torch.sum(gradient, 1, out=of_shift)
        return gradient * scale[:, None], None, None, None, None


def stacked_discrepancy(
    adapt: AdaptationLoss, layers: Sequence[Mapping[str, Tensor]], y: Mapping[str, Tensor]
) -> Tensor:
    """Return what an adaptation loss gives of the features of every network.

    Parameters
    ----------
    adapt : AdaptationLoss
        With the name "lmmd" or "mmd".
    layers : sequence of mappings of modality to Tensor of shape (m, n, d)
        Features of both modalities on every adapted layer.
    y : mapping of modality to Tensor of shape (n,)
        Class indices, one batch for all networks.

    Returns
    -------
    Tensor of shape (m,)
        The sums over the layers.

    Examples
    --------
    >>> z = {"visual": torch.rand(3, 6, 4), "audio": torch.rand(3, 6, 4)}
    >>> y = {"visual": torch.arange(6) % 2, "audio": torch.arange(6) % 2}
    >>> adapt = AdaptationLoss("lmmd", n_layers=1, n_features=4, n_classes=2)
    >>> stacked_discrepancy(adapt, [z], y).shape
    torch.Size([3])
    """
    n_visual, n_audio = len(y["visual"]), len(y["audio"])
    like = layers[0]["audio"]
    divisor: float | Tensor = 1.0
    classes = None
    if adapt.name == "lmmd":
        classes = torch.cat([y["visual"], y["audio"]])
        weights, n_shared = _signed_class_weights(y["visual"], y["audio"], like.dtype)
        divisor = adapt.lmmd.n_classes or n_shared
    else:
        weights = torch.cat(
            [like.new_full((n_visual, 1), 1 / n_visual), like.new_full((n_audio, 1), -1 / n_audio)]
        )
    total = like.new_zeros(len(like))
    for z in layers:
        source, target = z["visual"], z["audio"]
        if adapt.normalize:
            source, target = F.normalize(source, dim=2), F.normalize(target, dim=2)
        total = total + kernel_discrepancy(source, target, weights, None, classes) / divisor
    return total
