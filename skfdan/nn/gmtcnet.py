"""GM-TCNet: gated multi-scale temporal convolutions over a sequence of MFCCs."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from skfdan.nn.fdan import FDANOutput
from skfdan.nn.inputs import InputNorm, InputSpec

__all__ = ["GMTCNet"]

_UNITS = 3
_KERNEL = 2


class _GatedLevel(nn.Module):
    """Mean of three gated units, ReLU(conv(x)) · σ(ReLU(conv(x))), of one dilation.

    The six convolutions read the same input with the same dilation, so one of
    six times the filters computes them all: values first, then gates.
    """

    def __init__(self, n_filters: int, dilation: int):
        super().__init__()
        self.padding = (_KERNEL - 1) * dilation
        self.conv = nn.Conv1d(n_filters, 2 * _UNITS * n_filters, _KERNEL, dilation=dilation)
        # Glorot's fans are those of a single convolution, not of the six together.
        for weight in self.conv.weight.data.split(n_filters):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        # Zeros on the left only: an output sees nothing that comes later.
        value, gate = F.relu(self.conv(F.pad(x, (self.padding, 0)))).chunk(2, dim=1)
        return (value * gate.sigmoid()).unflatten(1, (_UNITS, -1)).mean(1)


class GMTCNet(nn.Module):
    r"""Gated multi-scale temporal convolutional network (GM-TCNet) [1]_.

    A causal 1x1 convolution, then blocks of dilation :math:`d = 1, 2, 4, \ldots`:

    - a *gated unit* is :math:`\mathrm{ReLU}(w * x) \cdot \sigma(\mathrm{ReLU}(w' * x))`
      with two causal convolutions of kernel 2, zeros on the left, and biases. As
      its argument is not negative, a gate lies in [0.5, 1);
    - the first level is the mean of three units of dilation d on the block's
      input, the second the mean of three units of dilation 2d on the first;
    - the second level is the block's output; added to the block's input it is
      the next block's input.

    The sum of the block outputs goes through LeakyReLU (slope 0.05), is averaged
    over time, and a linear layer classifies the mean. There is no dropout and no
    normalisation. Weights start Glorot-uniform, biases at zero.

    With 39 channels, 39 filters, 7 blocks and 7 classes there are 260,644
    parameters. This settles that value and gate have a convolution each: the
    first convolution has 1,560 parameters, the linear layer 280 and a gated
    convolution 39 · 39 · 2 + 39 = 3,081, and (260,644 - 1,560 - 280) / 3,081 = 84,
    which is 7 blocks · 2 levels · 3 units · 2. A block output depends on 3d frames
    before its own, so the sum depends on 1 + 3 · 127 = 382.

    Two things follow from the equations. Block outputs are never negative, so
    the LeakyReLU changes nothing; and the sum of the last block with its input
    (the last residual) is used nowhere. "Multi-scale" are the blocks: the units
    of a level have one kernel size and one dilation.

    Parameters
    ----------
    n_classes : int
        Number of emotions.
    n_channels : int, default=39
        Coefficients a frame.
    spec : InputSpec or None, default=None
        What the cells look like. Sequences (the default) are taken as they are,
        as published; vectors are standardised and taken as sequences of one frame.
    n_filters : int, default=39
        Filters of every convolution.
    n_blocks : int, default=7
        Blocks; the dilation doubles from one to the next.

    References
    ----------
    .. [1] J.-X. Ye, X.-C. Wen, X.-Z. Wang, Y. Xu, Y. Luo, C.-L. Wu, L.-Y. Chen,
       K.-H. Liu, "GM-TCNet: Gated Multi-scale Temporal Convolutional Network
       using Emotion Causality for Speech Emotion Recognition", Speech
       Communication 145, 2022, and the code published with it.

    Examples
    --------
    >>> import torch
    >>> net = GMTCNet(7)
    >>> sum(p.numel() for p in net.parameters())
    260644
    >>> net(audio=torch.zeros(2, 1, 39, 188)).logits["audio"].shape
    torch.Size([2, 7])
    """

    def __init__(
        self,
        n_classes: int,
        n_channels: int = 39,
        spec: InputSpec | None = None,
        n_filters: int = 39,
        n_blocks: int = 7,
    ):
        super().__init__()
        is_vector = spec is not None and spec.kind == "vector"
        self.norm = InputNorm(spec) if is_vector else None
        self.stem = nn.Conv1d(n_channels, n_filters, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(_GatedLevel(n_filters, 2**i), _GatedLevel(n_filters, 2 ** (i + 1)))
            for i in range(n_blocks)
        )
        self.activation = nn.LeakyReLU(0.05)
        self.classifier = nn.Linear(n_filters, n_classes)
        for layer in (self.stem, self.classifier):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def block_outputs(self, x: Tensor) -> list[Tensor]:
        """Return the output of every block.

        Parameters
        ----------
        x : Tensor of shape (n, n_channels, T)
            Sequences, in the precision of the weights.

        Returns
        -------
        list of Tensor of shape (n, n_filters, T)
            One a block, none of them negative.
        """
        x = self.stem(x)
        outputs = []
        for block in self.blocks:
            outputs.append(block(x))
            x = x + outputs[-1]
        return outputs

    def forward(self, audio: Tensor, reference: None = None) -> FDANOutput:
        """Classify a batch.

        Parameters
        ----------
        audio : Tensor of shape (n, 1, n_channels, T) or (n, n_channels)
            Cells; vectors are sequences of one frame.
        reference : None
            Not used: there is no other modality.

        Returns
        -------
        FDANOutput
            Logits, and as the only layer the mean over time, (n, n_filters).
        """
        x = audio.squeeze(1) if self.norm is None else self.norm(audio).unsqueeze(2)
        outputs = self.block_outputs(x.to(self.stem.weight.dtype))
        features = self.activation(sum(outputs)).mean(2)
        return FDANOutput({"audio": self.classifier(features)}, {"audio": [features]})
