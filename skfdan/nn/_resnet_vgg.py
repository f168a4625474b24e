"""ResNet-18, -34, -50 and VGG-16, -19, with torchvision's parameter names.

torchvision imports torch's compiler, which takes seconds in every process. These networks
read and write the same state dicts, compute the same values, and start from the same random
weights after the same seed, without it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["IMAGENET_URLS", "VGG", "ResNet", "StagedNetwork", "make_resnet", "make_vgg"]

#: Where torchvision keeps its default ImageNet weights.
IMAGENET_URLS = {
    name: f"https://download.pytorch.org/models/{file}"
    for name, file in {
        "resnet18": "resnet18-f37072fd.pth",
        "resnet34": "resnet34-b627a593.pth",
        "resnet50": "resnet50-11ad3fa6.pth",
        "vgg16": "vgg16-397923af.pth",
        "vgg19": "vgg19-dcbb9e9d.pth",
    }.items()
}


class StagedNetwork(nn.Module):
    """A network that is a chain of named stages and can be run in parts.

    A subclass names its stages and gives the modules of each.

    Attributes
    ----------
    stages : tuple of str
        Names of the stages, in the order in which they are run.

    Examples
    --------
    >>> import torch
    >>> class Chain(StagedNetwork):
    ...     stages = ("flat", "double")
    ...     def stage_modules(self, stage):
    ...         return [nn.Flatten()] if stage == "flat" else [nn.Upsample(scale_factor=2)]
    >>> Chain()(torch.zeros(5, 2, 3), stop="double").shape
    torch.Size([5, 6])
    """

    stages: tuple[str, ...] = ()

    def stage_modules(self, stage: str) -> Sequence[nn.Module]:
        """Return the modules of a stage, in the order in which they are run.

        Parameters
        ----------
        stage : str
            One of ``stages``.

        Returns
        -------
        sequence of Module
            Its modules; a module belongs to one stage, unless it has no state.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, start: str | None = None, stop: str | None = None) -> Tensor:
        """Run all stages, or some of them.

        The parts of a run give exactly what the whole gives:
        ``net(net(x, stop=s), start=s)`` equals ``net(x)`` for every stage ``s``. What enters
        a part is not changed by it.

        Parameters
        ----------
        x : Tensor of shape (n, C, H, W)
            Images of shape (n, 3, H, W), or the output of the stage before ``start``.
        start : str or None, default=None
            First stage that is run; None is the first of all.
        stop : str or None, default=None
            First stage that is not run any more; None runs to the end.

        Returns
        -------
        Tensor of shape (n, d) or (n, C, H, W)
            Output of the last stage that is run; ``x`` if ``start`` is ``stop``.

        Raises
        ------
        ValueError
            If a stage is unknown, or ``stop`` comes before ``start``.
        """
        first = 0 if start is None else self._position("start", start)
        end = len(self.stages) if stop is None else self._position("stop", stop)
        if end < first:
            raise ValueError(
                f"stop={stop!r} comes before start={start!r}; the order is {self._order()}."
            )
        for stage in self.stages[first:end]:
            for module in self.stage_modules(stage):
                x = module(x)
        return x

    def _position(self, parameter: str, stage: str) -> int:
        if stage not in self.stages:
            raise ValueError(
                f"{parameter}={stage!r} is no stage of this network; choose one of "
                f"{self._order()}, or None."
            )
        return self.stages.index(stage)

    def _order(self) -> str:
        return ", ".join(self.stages)


class _Residual(nn.Module):
    """x -> relu(f(x) + shortcut(x)); a subclass has f."""

    downsample: nn.Module | None
    relu: nn.Module

    def _branch(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self._branch(x).add_(shortcut))


class _Basic(_Residual):
    """Two 3x3 convolutions (Fig. 5, left)."""

    expansion = 1

    # Registered in the order in which torchvision draws the weights.
    def __init__(self, c_in: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(c_in, width, stride)

    def _branch(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))


class _Bottleneck(_Residual):
    """1x1, 3x3 and 1x1 convolutions (Fig. 5, right); the 3x3 has the stride, not the first."""

    expansion = 4

    def __init__(self, c_in: int, width: int, stride: int):
        super().__init__()
        c_out = self.expansion * width
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(c_in, c_out, stride)

    def _branch(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))


def _shortcut(c_in: int, c_out: int, stride: int) -> nn.Sequential | None:
    """Project where the shapes differ; None is the identity (the option B of the paper)."""
    if stride == 1 and c_in == c_out:
        return None
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))


class ResNet(StagedNetwork):
    """Deep residual network for images [1]_.

    Parameter names, computed values and random weights are those of
    torchvision's networks: stride in the 3x3 convolution of a bottleneck block,
    convolutions with He's normal initialisation over the outputs (``fan_out``),
    batch normalisation with 1 and 0, and the last layer as torch's linear layers.

    Parameters
    ----------
    block : type
        The residual block.
    depths : sequence of 4 int
        Number of blocks of each of the four layers.
    n_classes : int, default=1000
        Outputs of the last layer.

    Attributes
    ----------
    stages : tuple of str
        ``("stem", "layer1", "layer2", "layer3", "layer4", "head")``; see
        :meth:`forward`.

    References
    ----------
    .. [1] K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1.

    Examples
    --------
    >>> import torch
    >>> network = make_resnet("resnet18").eval()
    >>> images = torch.rand(2, 3, 32, 32)
    >>> maps = network(images, stop="layer4")
    >>> maps.shape
    torch.Size([2, 256, 2, 2])
    >>> torch.equal(network(maps, start="layer4"), network(images))
    True
    """

    stages = ("stem", "layer1", "layer2", "layer3", "layer4", "head")

    def __init__(
        self,
        block: type[_Basic] | type[_Bottleneck],
        depths: Sequence[int],
        n_classes: int = 1000,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        c_in = 64
        for i, depth in enumerate(depths):
            width, blocks = 64 * 2**i, []
            for j in range(depth):
                blocks.append(block(c_in, width, stride=2 if i > 0 and j == 0 else 1))
                c_in = block.expansion * width
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(c_in, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stage_modules(self, stage: str) -> Sequence[nn.Module]:
        if stage == "stem":
            return self.conv1, self.bn1, self.relu, self.maxpool
        if stage == "head":
            return self.avgpool, self.flatten, self.fc
        return (getattr(self, stage),)


class VGG(StagedNetwork):
    """Very deep convolutional network for images [1]_.

    Parameter names, computed values and random weights are those of
    torchvision's networks: convolutions with He's normal initialisation over the
    outputs (``fan_out``), linear layers with a normal distribution of standard
    deviation 0.01, biases of 0, and a mean over 7 x 7 fields before the linear layers, so
    that images of any size from 32 pixels can be read.

    Parameters
    ----------
    depths : sequence of 5 int
        Number of convolutions of each of the five blocks.
    n_classes : int, default=1000
        Outputs of the last layer.

    Attributes
    ----------
    stages : tuple of str
        ``("block1", "block2", "block3", "block4", "block5", "head")``: a block
        ends with its pooling, and the head has the linear layers; see
        :meth:`forward`.

    References
    ----------
    .. [1] K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for
       Large-Scale Image Recognition", ICLR 2015, Table 1, columns D and E.

    Examples
    --------
    >>> import torch
    >>> with torch.device("meta"):  # shapes without values
    ...     network = VGG((2, 2, 3, 3, 3), n_classes=7)
    ...     maps = network(torch.empty(2, 3, 64, 64), stop="block3")
    ...     scores = network(maps, start="block3")
    >>> maps.shape, scores.shape
    (torch.Size([2, 128, 16, 16]), torch.Size([2, 7]))
    """

    stages = ("block1", "block2", "block3", "block4", "block5", "head")

    def __init__(self, depths: Sequence[int], n_classes: int = 1000):
        super().__init__()
        layers: list[nn.Module] = []
        self._ends = [0]
        c_in = 3
        for depth, width in zip(depths, (64, 128, 256, 512, 512), strict=True):
            for _ in range(depth):
                layers += [nn.Conv2d(c_in, width, 3, padding=1), nn.ReLU(inplace=True)]
                c_in = width
            layers.append(nn.MaxPool2d(2))
            self._ends.append(len(layers))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            nn.Linear(7 * 7 * c_in, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, n_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
            else:
                continue
            nn.init.zeros_(module.bias)

    def stage_modules(self, stage: str) -> Sequence[nn.Module]:
        if stage == "head":
            return self.avgpool, self.flatten, self.classifier
        i = self.stages.index(stage)
        return list(self.features)[self._ends[i] : self._ends[i + 1]]


def make_resnet(name: str) -> ResNet:
    """Build ``"resnet18"``, ``"resnet34"`` or ``"resnet50"`` with random weights.

    Parameters
    ----------
    name : str
        Which of them.

    Returns
    -------
    ResNet
        The network, for the 1000 classes of ImageNet.

    Examples
    --------
    >>> make_resnet("resnet18").fc
    Linear(in_features=512, out_features=1000, bias=True)
    """
    block, depths = {
        "resnet18": (_Basic, (2, 2, 2, 2)),
        "resnet34": (_Basic, (3, 4, 6, 3)),
        "resnet50": (_Bottleneck, (3, 4, 6, 3)),
    }[name]
    return ResNet(block, depths)


def make_vgg(name: str) -> VGG:
    """Build ``"vgg16"`` or ``"vgg19"`` with random weights.

    Parameters
    ----------
    name : str
        Which of them.

    Returns
    -------
    VGG
        The network, for the 1000 classes of ImageNet.

    Examples
    --------
    >>> import torch
    >>> with torch.device("meta"):
    ...     network = make_vgg("vgg16")
    >>> network.classifier[-1]
    Linear(in_features=4096, out_features=1000, bias=True)
    """
    return VGG({"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}[name])
