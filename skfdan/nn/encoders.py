"""Cells to features: what the networks with one backbone a modality share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skfdan.nn.backbones import embed, make_backbone
from skfdan.nn.inputs import InputNorm, InputSpec

__all__ = ["Embedded", "EncoderMixin", "FrozenEncoder", "freeze"]


@dataclass(frozen=True)
class Embedded:
    """A batch of cells that has been through the frozen part of a backbone.

    It may take the place of the cells in the networks' ``forward``: what is frozen gives
    the same every time, and need not be computed again in every epoch.

    Parameters
    ----------
    values : Tensor of shape (n, d) or (n, C, H, W)
        What the frozen part gave: the features, or, where some stages of the
        backbone are trained, what the first of them takes.

    Examples
    --------
    >>> len(Embedded(torch.zeros(3, 128)))
    3
    """

    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, samples: slice) -> Embedded:
        return Embedded(self.values[samples])

    def to(self, device: str | torch.device, non_blocking: bool = False) -> Embedded:
        """Return the same on another device.

        Parameters
        ----------
        device : str or torch.device
            The device.
        non_blocking : bool, default=False
            As in :meth:`torch.Tensor.to`.

        Returns
        -------
        Embedded
            The batch there.
        """
        return Embedded(self.values.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Embedded:
        """Return the same in memory from which a GPU copies by itself.

        Returns
        -------
        Embedded
            The batch there.
        """
        return Embedded(self.values.pin_memory())


def freeze(backbone: nn.Module, trainable: bool | str) -> list[nn.Module]:
    """Exempt a backbone, or its first stages, from training.

    Parameters
    ----------
    backbone : Module
        From :func:`skfdan.nn.make_backbone`.
    trainable : bool or str
        False freezes everything, a stage's name what comes before that stage.

    Returns
    -------
    list of Module
        What is frozen, to be kept in evaluation mode: batch statistics are frozen too.

    Raises
    ------
    ValueError
        If the backbone has no such stage, or nothing before it.

    Examples
    --------
    >>> from skfdan.nn import make_backbone
    >>> backbone, _ = make_backbone("resnet18", weights=None)
    >>> frozen = freeze(backbone, "layer4")
    >>> [name for name, p in backbone.named_parameters() if p.requires_grad][0]
    'layer4.0.conv1.weight'
    """
    if trainable is True:
        return []
    if trainable is False:
        frozen = [backbone]
    else:
        stages = list(getattr(backbone, "stages", ()))
        if trainable not in stages[1:]:
            names = ", ".join(map(repr, stages[1:])) or "none, as this one has no stages"
            raise ValueError(
                f"backbone_trainable={trainable!r}: give True, False or the first stage to be "
                f"trained; stages are {names}."
            )
        before = stages[: stages.index(trainable)]
        frozen = [module for stage in before for module in backbone.stage_modules(stage)]
    for module in frozen:
        module.requires_grad_(False)
    return frozen


class EncoderMixin:
    """For networks with an ``inputs`` and a ``backbones`` ModuleDict, one entry a modality.

    Attributes
    ----------
    backbone_trainable : bool or str
        What of the backbones is trained, see :func:`freeze`.
    precision : {"float32", "bfloat16"}
        In what the backbones compute.
    """

    backbone_trainable: bool | str = True
    precision: str = "float32"
    inputs: nn.ModuleDict
    _frozen: list[nn.Module]

    def backbone_of(self, modality: str) -> nn.Module:
        """Return the backbone of a modality.

        Parameters
        ----------
        modality : str
            ``"visual"`` or ``"audio"``.

        Returns
        -------
        Module
            The backbone.
        """
        return self.backbones[modality]

    def freeze_backbones(self) -> None:
        """Freeze what ``backbone_trainable`` says; to be called once, when all is built."""
        self._frozen = [
            module
            for modality in self.inputs
            if not isinstance(self.backbone_of(modality), nn.Identity)  # of vectors
            for module in freeze(self.backbone_of(modality), self.backbone_trainable)
        ]
        if self.backbone_trainable is False and hasattr(self, "backbones"):
            self._frozen.append(self.backbones)
        self.train(self.training)

    def train(self, mode: bool = True):
        """Set training mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def features(self, modality: str, x: Tensor | Embedded) -> Tensor:
        """Return the backbone's features of a batch.

        Parameters
        ----------
        modality : str
            ``"visual"`` or ``"audio"``.
        x : Tensor of shape (n, C, H, W) or (n, d), or Embedded
            Cells, or what :meth:`frozen_features` made of them.

        Returns
        -------
        Tensor of shape (n, n_features)
            The features.
        """
        if not isinstance(x, Embedded):
            return self._embed(modality, self.inputs[modality](x))
        if self.backbone_trainable is False:
            return x.values
        return self._embed(modality, x.values, start=self.backbone_trainable)

    def frozen_features(self, modality: str, x: Tensor) -> Embedded:
        """Send cells through the frozen part of the backbone.

        Parameters
        ----------
        modality : str
            ``"visual"`` or ``"audio"``.
        x : Tensor of shape (n, C, H, W)
            Cells.

        Returns
        -------
        Embedded
            What :meth:`features` takes instead of the cells.
        """
        stop = None if self.backbone_trainable is False else self.backbone_trainable
        return Embedded(self._embed(modality, self.inputs[modality](x), stop=stop))

    def _embed(self, modality: str, x: Tensor, **stages: str | None) -> Tensor:
        low = self.precision == "bfloat16" and x.ndim == 4
        with torch.autocast(x.device.type, torch.bfloat16, enabled=low):
            features = embed(self.backbone_of(modality), x, **stages)
        return features.float() if low else features


class FrozenEncoder(EncoderMixin, nn.Module):
    """A frozen backbone, with what normalises its input: cells to features, nothing else.

    Parameters
    ----------
    spec : InputSpec
        What the cells look like.
    backbone : str or callable, default="resnet34"
        See :func:`skfdan.nn.make_backbone`.
    weights : {"DEFAULT"}, path or None, default="DEFAULT"
        See :func:`skfdan.nn.make_backbone`.
    input_size : int or None, default=224
        Side that cells are resized to; None keeps their size.
    precision : {"float32", "bfloat16"}, default="float32"
        In what the backbone computes.

    Examples
    --------
    >>> encoder = FrozenEncoder(InputSpec("image"), "cnn", input_size=32)
    >>> encoder.frozen_features("cells", torch.rand(2, 1, 128, 90)).values.shape
    torch.Size([2, 128])
    """

    def __init__(
        self,
        spec: InputSpec,
        backbone: str | Callable[[], tuple[nn.Module, int]] = "resnet34",
        weights: str | os.PathLike | None = "DEFAULT",
        input_size: int | None = 224,
        precision: str = "float32",
    ):
        super().__init__()
        self.backbone_trainable = False
        self.precision = precision
        self.inputs = nn.ModuleDict({"cells": InputNorm(spec, input_size)})
        self.backbones = nn.ModuleDict({"cells": make_backbone(backbone, weights)[0]})
        self.freeze_backbones()
        self.eval()
