"""Image backbones: ResNets and VGGs as in torchvision, and a small network for demos."""

from __future__ import annotations

import copy
import numbers
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from skfdan.nn._resnet_vgg import (
    IMAGENET_URLS,
    VGG,
    ResNet,
    StagedNetwork,
    make_resnet,
    make_vgg,
)
from skfdan.utils.versions import Version

__all__ = ["BACKBONES", "embed", "make_backbone"]

#: From this side on, images with their channels last go faster through a ResNet on a CPU (one
#: thread, training: 1.24 times at 224 pixels, 1.10 at 128, 0.97 at 96, 0.66 at 48). On CUDA they
#: always have them there, as its fast bfloat16 convolutions want it.
_LARGE = 112

#: Names that ``make_backbone`` knows.
BACKBONES = ("resnet18", "resnet34", "resnet50", "vgg16", "vgg19", "cnn")


def make_backbone(
    name: str | Callable[[], tuple[nn.Module, int]] = "resnet34",
    weights: str | os.PathLike | None = "DEFAULT",
) -> tuple[nn.Module, int]:
    """Build a network that turns (n, 3, H, W) images into (n, d) features.

    Parameters
    ----------
    name : str or callable, default="resnet34"
        ``"resnet18"``, ``"resnet34"``, ``"resnet50"``, ``"vgg16"``, ``"vgg19"``
        (as in torchvision, without the last layer), ``"cnn"`` (four convolution
        blocks, for demos and tests, not from the paper), or a callable that
        returns a module and its number of features. A copy of the module is taken, so
        that what a callable returns each time is trained by nobody.
    weights : {"DEFAULT"}, path or None, default="DEFAULT"
        ``"DEFAULT"`` loads torchvision's ImageNet weights, from its download
        cache or from the network. A path names a state dict with torchvision's
        parameter names (``.pth``, ``.pt`` or ``.safetensors``); its last layer
        may be left out. None starts from random weights. ``"cnn"`` and
        callables have no weights to load: they take no path, and ``"DEFAULT"``
        is None for them.

    Returns
    -------
    backbone : Module
        The network. Other than a callable's, it can be run in parts: ``backbone.stages``
        names its stages in order, and ``backbone(x, start=None, stop=None)`` runs those
        from ``start`` up to, but without, ``stop``; ``backbone.stage_modules(name)`` gives
        the modules of a stage. Stages are ``"stem"``, ``"layer1"`` to
        ``"layer4"`` and ``"head"`` (the mean over all places) in a ResNet, ``"block1"`` to
        ``"block5"`` and ``"head"`` (the linear layers) in a VGG, and ``"block1"`` to
        ``"block4"`` and ``"head"`` in ``"cnn"``.
    n_features : int
        d: 512 for ResNet-18 and -34, 2048 for ResNet-50, 4096 for the VGGs,
        128 for ``"cnn"``.

    Raises
    ------
    ValueError
        If the name is unknown, a path is given where no weights can be loaded, or a
        callable returns anything but a module that can be copied and a number.
    FileNotFoundError
        If ``weights`` names a file that does not exist.
    RuntimeError
        If the ImageNet weights can't be downloaded, or a file does not fit.

    Examples
    --------
    >>> backbone, n_features = make_backbone("cnn", weights=None)
    >>> backbone(torch.zeros(2, 3, 32, 32)).shape, n_features
    (torch.Size([2, 128]), 128)

    Run in parts, a network gives exactly what it gives at once:

    >>> images = torch.rand(2, 3, 32, 32)
    >>> maps = backbone.eval()(images, stop="block3")
    >>> maps.shape
    torch.Size([2, 32, 4, 4])
    >>> torch.equal(backbone(maps, start="block3"), backbone(images))
    True
    """
    if callable(name):
        if weights not in (None, "DEFAULT"):
            raise ValueError("A callable backbone loads its own weights; set weights=None.")
        return _from_callable(name)
    if name not in BACKBONES:
        raise ValueError(f"backbone={name!r} is unknown; choose one of {', '.join(BACKBONES)}.")
    if name == "cnn":
        if weights not in (None, "DEFAULT"):
            raise ValueError('backbone="cnn" has no weights to load; set weights=None.')
        return _small_cnn(), 128

    resnet = name.startswith("resnet")
    network = make_resnet(name) if resnet else make_vgg(name)
    if weights is not None:
        _load(network, name, weights)
    if resnet:
        n_features = network.fc.in_features
        network.fc = nn.Identity()
    else:
        n_features = network.classifier[-1].in_features
        network.classifier[-1] = nn.Identity()
    return network, n_features


#: How many features a callable said that its network gives.
_PROMISED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _from_callable(function: Callable[[], tuple[nn.Module, int]]) -> tuple[nn.Module, int]:
    """Return a copy of the network that a callable gives, and its number of features."""
    who = f"backbone={getattr(function, '__qualname__', type(function).__qualname__)}"
    given = function()
    pair = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    network, n_features = pair
    whole = isinstance(n_features, numbers.Integral) and not isinstance(n_features, bool)
    if not (isinstance(network, nn.Module) and whole and n_features >= 1):
        what = " and ".join(_name_of(part) for part in (pair if pair[1] is not None else pair[:1]))
        raise ValueError(
            f"{who}: it must return a module and its number of features, as in "
            f"(network, 512); it returned {what}."
        )
    try:
        # Folds, fits and modalities would all train the network that is returned each time.
        network = copy.deepcopy(network)
    except Exception as error:
        raise ValueError(
            f"{who}: its {type(network).__name__} can't be copied with copy.deepcopy ({error}), "
            "which every fit does. Return a module that nothing has been computed with yet, and "
            "that holds no open files, locks or generators."
        ) from error
    _PROMISED[network] = int(n_features)
    return network, int(n_features)


def _name_of(part: object) -> str:
    if isinstance(part, type):
        return f"the class {part.__name__}"
    return repr(part) if isinstance(part, (numbers.Number, str)) else f"a {type(part).__name__}"


def _check_features(features: object, n: int, network: nn.Module) -> None:
    """Raise a ValueError unless a callable's network gives what was said."""
    promised = _PROMISED.get(network)
    if promised is None:
        return
    found = tuple(features.shape) if torch.is_tensor(features) else _name_of(features)
    if found != (n, promised):
        raise ValueError(
            f"The backbone {type(network).__name__} gives {found} for {n} images, and not one "
            f"vector of {promised} features each, as the callable says. Let it return the right "
            "number, and a network that ends in nn.Flatten() or a mean over all places."
        )


def embed(
    backbone: nn.Module,
    images: torch.Tensor,
    start: str | None = None,
    stop: str | None = None,
) -> torch.Tensor:
    """Send a batch through a backbone; a lone sample gives what it gives among others.

    Convolutions of one image are computed in another order than those of
    several, and their last digits differ. At prediction the clips that happen to
    be in a batch must not show in a clip's result, so a lone image goes in twice. In
    training, batch normalisation cannot do with one value either.

    A frozen network (in evaluation mode, no weight with ``requires_grad``, no hook) is run by
    a copy that has its batch normalisation in the weights of the convolutions, and all of them
    in the type and layout that they are needed in; the last digits differ. The copy is kept as
    long as the network, and is made anew when torch has counted a change of its weights.

    Parameters
    ----------
    backbone : Module
        From :func:`make_backbone`.
    images : Tensor of shape (n, 3, H, W) or (n, d)
        The batch; with ``start``, the output of the stage before it.
    start, stop : str or None, default=None
        Run only the stages from ``start`` up to, but without, ``stop``; for
        networks with stages, see :func:`make_backbone`.

    Returns
    -------
    Tensor of shape (n, d) or (n, C, H, W)
        Features, or with ``stop`` what enters that stage.

    Examples
    --------
    >>> backbone, _ = make_backbone("cnn", weights=None)
    >>> images = torch.rand(3, 3, 32, 32)
    >>> with torch.inference_mode():
    ...     together = embed(backbone.eval(), images)
    ...     alone = embed(backbone, images[:1])
    >>> torch.equal(alone, together[:1])
    True
    """
    # A callable's network need not know stages.
    part = {k: v for k, v in (("start", start), ("stop", stop)) if v is not None}
    if images.ndim != 4:
        return backbone(images, **part)
    network = backbone
    n = len(images)
    if n == 1:
        images = images.expand(2, -1, -1, -1)
    layout = torch.contiguous_format
    if images.is_cuda or isinstance(backbone, _SmallCNN) or images.shape[-1] >= _LARGE:
        layout = torch.channels_last
        images = images.contiguous(memory_format=layout)
    if isinstance(backbone, (ResNet, VGG, _SmallCNN)) and not backbone.training:
        backbone = _for_inference(backbone, images, layout)
    features = backbone(images, **part)
    if stop is None:
        _check_features(features, len(images), network)
    return features[:n]


#: By the network, and by dtype and layout: the copy that runs in its place, behind what it was
#: made from.
_FOLDED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _for_inference(
    network: nn.Module, images: torch.Tensor, layout: torch.memory_format
) -> nn.Module:
    """Return a network that gives the same faster, or the network itself."""
    tensors = [*network.parameters(), *network.buffers()]
    # Torch counts the changes neither of a fused optimiser nor in inference mode.
    if any(t.requires_grad or t.is_inference() for t in tensors):
        return network
    if torch.is_grad_enabled() and images.requires_grad:
        return network
    if any(m._forward_hooks or m._forward_pre_hooks for m in network.modules()):
        return network  # who watches its modules wants to see them run
    device = images.device.type
    low = torch.is_autocast_enabled(device)
    if not low and isinstance(network, VGG):  # nothing to gain
        return network
    dtype = torch.get_autocast_dtype(device) if low else tensors[0].dtype
    copies = _FOLDED.setdefault(network, {})
    if (dtype, layout) not in copies or not copies[dtype, layout][0].is_of(tensors):
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
            # Autocast would convert weights of another type or layout again for every batch.
            folded = _fold(copy.deepcopy(network)).to(dtype, memory_format=layout)
            copies[dtype, layout] = Version(tensors), folded.requires_grad_(False)
    return copies[dtype, layout][1]


def _fold(module: nn.Module) -> nn.Module:
    """Put every batch normalisation into the convolution before it, in place."""
    before = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            convolution = getattr(module, before)
            setattr(module, before, fuse_conv_bn_eval(convolution, child))
            setattr(module, name, nn.Identity())
        else:
            _fold(child)
        before = name
    return module


class _SmallCNN(StagedNetwork, nn.Sequential):
    """A sequence, so that its parameters keep the names that stored models have."""

    stages = ("block1", "block2", "block3", "block4", "head")

    def stage_modules(self, stage: str) -> Sequence[nn.Module]:
        i = self.stages.index(stage)
        return list(self)[4 * i : 4 * i + 4]


def _small_cnn() -> _SmallCNN:
    channels = (3, 16, 32, 64, 128)
    blocks: list[nn.Module] = []
    for c_in, c_out in pairwise(channels):
        blocks += [
            # Halving at once quarters the cost of everything above.
            nn.Conv2d(c_in, c_out, 3, stride=2 if c_in == 3 else 1, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, ceil_mode=True),
        ]
    return _SmallCNN(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _load(network: nn.Module, name: str, weights: str | os.PathLike) -> None:
    state = _imagenet_state(name) if weights == "DEFAULT" else _state_from_file(Path(weights))
    last = "fc." if name.startswith("resnet") else "classifier.6."
    state = {k: v for k, v in state.items() if not k.startswith(last)}
    own = {k: v.shape for k, v in network.state_dict().items() if not k.startswith(last)}
    # Files from before torch 0.4.1, torchvision's ResNets among them, lack this counter.
    missing = [k for k in own if k not in state and not k.endswith(".num_batches_tracked")]
    unknown = [k for k in state if k not in own]
    reshaped = [k for k in own if k in state and state[k].shape != own[k]]
    if missing or unknown or reshaped:
        problem = (
            f"{len(missing)} parameters are missing (such as {missing[:1]}), "
            f"{len(unknown)} are unknown (such as {unknown[:1]}), "
            f"{len(reshaped)} have another shape (such as {reshaped[:1]})"
        )
        raise RuntimeError(
            f"weights={str(weights)!r} does not fit {name}: {problem}. It must be a state dict "
            f"with the parameter names of torchvision.models.{name}."
        )
    network.load_state_dict(state, strict=False)


def _imagenet_state(name: str) -> Mapping[str, torch.Tensor]:
    url = IMAGENET_URLS[name]
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    try:
        return torch.hub.load_state_dict_from_url(url, check_hash=True, weights_only=True)
    except Exception as error:
        raise RuntimeError(
            f"The ImageNet weights of {name} could not be loaded ({error}). Download "
            f"{url} on a machine that is online and put it at {file}, or name it with "
            f"weights='path/to/{file.name}'. weights=None starts from random weights."
        ) from error


def _state_from_file(path: Path) -> Mapping[str, torch.Tensor]:
    if not path.is_file():
        raise FileNotFoundError(
            f"weights={str(path)!r}: there is no such file. Give a state dict with torchvision's "
            'parameter names, "DEFAULT" or None.'
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's own message advises to load the file in a way that executes what it says.
        raise RuntimeError(
            f"weights={str(path)!r} could not be read: it is damaged, or holds more than tensors. "
            "Save a state dict: torch.save(model.state_dict(), path)."
        ) from error
    if not isinstance(state, Mapping) or not all(torch.is_tensor(v) for v in state.values()):
        raise RuntimeError(
            f"weights={str(path)!r} holds a {type(state).__name__}, not a state dict of tensors; "
            "save it with torch.save(model.state_dict(), path)."
        )
    return state
