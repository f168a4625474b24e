"""torchvision's image networks with a new last layer, one a modality."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from skfdan.nn.backbones import embed, make_backbone
from skfdan.nn.fdan import FDANOutput
from skfdan.nn.inputs import InputNorm, InputSpec

__all__ = ["TorchvisionNet"]


class TorchvisionNet(nn.Module):
    """VGG or ResNet with the last layer replaced by ``Linear(., n_classes)``.

    Every modality has a network of its own, and nothing is shared. The new
    layer starts as torch's linear layers do (the usual way of fine-tuning), and
    not with the initialisation that torchvision's VGGs give to theirs.

    Parameters
    ----------
    n_classes : int
        Number of emotions, C.
    inputs : mapping of modality to InputSpec
        The modalities that the network is built for, and their cells.
    arch : str or callable, default="resnet34"
        See :func:`skfdan.nn.make_backbone`. Vector cells go straight into the
        linear layer.
    weights : {"DEFAULT"}, path or None, default="DEFAULT"
        See :func:`skfdan.nn.make_backbone`.
    backbone_trainable : bool, default=True
        False freezes everything below the new layer, batch statistics included.
    input_size : int or None, default=224
        Side that images are resized to; None keeps the size of the cells.

    References
    ----------
    .. [1] K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    .. [2] K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for
       Large-Scale Image Recognition", ICLR 2015.

    Examples
    --------
    >>> import torch
    >>> net = TorchvisionNet(4, {"audio": InputSpec("image")}, "resnet18", weights=None,
    ...                      input_size=32)
    >>> out = net(audio=torch.zeros(2, 1, 128, 90))
    >>> out.logits["audio"].shape, out.layers["audio"][-1].shape
    (torch.Size([2, 4]), torch.Size([2, 512]))
    """

    def __init__(
        self,
        n_classes: int,
        inputs: Mapping[str, InputSpec],
        arch: str | Callable[[], tuple[nn.Module, int]] = "resnet34",
        weights: str | os.PathLike | None = "DEFAULT",
        backbone_trainable: bool = True,
        input_size: int | None = 224,
    ):
        super().__init__()
        self.backbone_trainable = backbone_trainable
        self.inputs = nn.ModuleDict({m: InputNorm(s, input_size) for m, s in inputs.items()})
        self.backbones = nn.ModuleDict()
        self.classifiers = nn.ModuleDict()
        for modality, spec in inputs.items():
            if spec.kind == "vector":
                network, n_features = nn.Identity(), spec.n_features
            else:
                network, n_features = make_backbone(arch, weights)
            self.backbones[modality] = network.requires_grad_(backbone_trainable)
            self.classifiers[modality] = nn.Linear(n_features, n_classes)

    def train(self, mode: bool = True) -> TorchvisionNet:
        """Set training mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if not self.backbone_trainable:
            self.backbones.eval()
        return self

    def forward(
        self,
        visual: Tensor | None = None,
        audio: Tensor | None = None,
        reference: None = None,
    ) -> FDANOutput:
        """Classify the samples of one or both modalities.

        Parameters
        ----------
        visual, audio : Tensor of shape (n, C, H, W) or (n, d), or None
            Cells of each modality; the numbers of samples may differ.
        reference : None
            Not used: no modality reads the other.

        Returns
        -------
        FDANOutput
            Logits, and as the only layer what enters the new linear layer.
        """
        output = FDANOutput()
        for modality, x in (("visual", visual), ("audio", audio)):
            if x is None:
                continue
            head = self.classifiers[modality]
            features = embed(self.backbones[modality], self.inputs[modality](x)).to(
                head.weight.dtype
            )
            output.layers[modality] = [features]
            output.logits[modality] = head(features)
        return output
