"""What torchvision's networks make of the frames of a clip."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..utils.threads import all_threads
from ._failures import describe_cell
from .embedding import _POOLS, _PRECISIONS, BackboneEmbedding

if TYPE_CHECKING:
    import torch

__all__ = ["FrameEmbedding"]


class FrameEmbedding(BackboneEmbedding):
    """Features that an image network of torchvision makes of every frame of a clip.

    Each cell of a column, the faces of a clip or one face, becomes one vector for each
    frame, or their mean. The network is torchvision's without its classifier, frozen.
    It is :class:`BackboneEmbedding` for all of torchvision's networks, which keeps the
    sequence, and takes faces only.

    Parameters
    ----------
    model : str, default="efficientnet_b0"
        A network of ``torchvision.models`` that ends in a linear layer, such as
        "efficientnet_b0", "resnet18", "mobilenet_v3_small" or "vgg16".
    weights : {"imagenet"}, path or None, default="imagenet"
        ``"imagenet"`` loads torchvision's ImageNet weights, from its download cache or from
        the network. A path names a state dict with torchvision's parameter names (``.pth``,
        ``.pt`` or ``.safetensors``); its last layer may be left out. None takes random
        weights.
    output : {"sequence", "mean"}, default="sequence"
        An array of shape (frames, d), or its mean over the frames, of shape (d,), which
        :class:`~skfdan.classifiers.MISAClassifier` needs.
    input_size : int or None, default=224
        Side in pixels of the square that frames are resized to; None keeps their size.
    batch_size : int, default=32
        Frames that go through the network at a time. On a GPU it is halved where the
        memory does not suffice.
    precision : {"float32", "bfloat16"}, default="float32"
        In what the network computes; the vectors are float32.
    cache_dir : path-like or None, default=None
        Folder in which vectors are kept, per frame, and found again by any process as long
        as frame, weights, input size, precision and kind of device are the same.
    device : str, default="auto"
        ``"auto"`` takes a GPU if there is one; ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of random weights. With None they are others at each ``fit``.
    verbose : int, default=1
        0 shows no progress bar; others show one in a terminal or notebook.

    Attributes
    ----------
    encoder_ : Module or None
        The network, behind the normalisation of its input. None if ``fit`` was given
        missing cells alone; such a transformer passes on missing cells and takes no
        others.
    n_features_in_ : int
        Columns of X at ``fit``, which is 1.
    feature_names_in_ : ndarray of shape (1,)
        Column name of X at ``fit``; only if it is a string.

    See Also
    --------
    BackboneEmbedding : Takes spectrograms too, and makes one vector of a cell.
    FaceFrames : Makes faces of videos and pictures.

    Notes
    -----
    A cell is a face, uint8 of shape (3, H, W) or (1, H, W); the faces of a clip, uint8 of
    shape (frames, 3, H, W); or missing. A face alone is a clip of one frame. A missing cell
    gives None, and :data:`skfdan.table.SKIP` stays what it is. Bytes are normalised with
    ImageNet's mean and deviation. Where the classifier of a network has several layers, as
    in VGG, only the last linear one is left out.

    ``save_pretrained`` can't save a pipeline with this step.

    Examples
    --------
    >>> import numpy as np
    >>> from skfdan.preprocessing import FrameEmbedding
    >>> clips = [np.zeros((2, 3, 40, 40), np.uint8), np.ones((3, 48, 48), np.uint8), None]
    >>> embed = FrameEmbedding(model="resnet18", weights=None, input_size=32, random_state=0)
    >>> frames = embed.fit_transform(clips)
    >>> frames[0, 0].shape, frames[1, 0].shape, frames[2, 0]
    ((2, 512), (1, 512), None)
    """

    _accepts = "uint8 faces"
    _choices: ClassVar[dict] = {"output": ("sequence", "mean"), "precision": _PRECISIONS}

    def __init__(
        self,
        *,
        model="efficientnet_b0",
        weights="imagenet",
        output="sequence",
        input_size=224,
        batch_size=32,
        precision="float32",
        cache_dir=None,
        device="auto",
        random_state=None,
        verbose=1,
    ):
        self.model = model
        self.weights = weights
        self.output = output
        self.input_size = input_size
        self.batch_size = batch_size
        self.precision = precision
        self.cache_dir = cache_dir
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None):
        """Build the network.

        Parameters
        ----------
        X : {DataFrame, Series, array-like} of shape (n, 1) or (n,)
            One column of cells.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted transformer.

        Raises
        ------
        FileNotFoundError
            If ``weights`` names a file that does not exist.
        RuntimeError
            If the ImageNet weights can't be downloaded, or a file does not fit.
        TypeError
            If a cell holds no numbers; names the row.
        ValueError
            If a parameter or a cell can't be used; names the row.
        """
        return super().fit(X, y)

    def transform(self, X):
        """Send each frame through the network, or find what it made of it before.

        Parameters
        ----------
        X : {DataFrame, Series, array-like} of shape (n, 1) or (n,)
            One column of cells.

        Returns
        -------
        ndarray of shape (n, 1), dtype object
            Arrays, float32 of shape (frames, d) or (d,); None where a cell is missing,
            SKIP where it is :data:`skfdan.table.SKIP`. With
            ``set_output(transform="pandas")`` a DataFrame of one column.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        TypeError
            If a cell holds no numbers; names the row.
        ValueError
            If a cell can't be used; names the row.
        """
        return super().transform(X)

    def _network(self) -> tuple[str | Callable, str | os.PathLike | None]:
        from skfdan.nn.backbones import BACKBONES

        if self.model in BACKBONES:
            # Vectors of these are shared with BackboneEmbedding and the classifiers.
            return self.model, "DEFAULT" if self.weights == "imagenet" else self.weights
        return functools.partial(_build, self.model, self.weights), None

    def _pool(self, vectors: np.ndarray) -> np.ndarray:
        return vectors if self.output == "sequence" else _POOLS["mean"](vectors)

    def _threads(self) -> AbstractContextManager:
        return all_threads()

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not isinstance(self.model, str):
            raise ValueError(
                f"{type(self).__name__}: model must be the name of a network of torchvision; got "
                f"{self.model!r}."
            )

    def _images(self, cell: Any, row: int) -> list[np.ndarray]:
        where = f"{type(self).__name__}: row {row} ({describe_cell(cell)})"
        if isinstance(cell, (str, os.PathLike)):
            raise ValueError(
                f"{where} is a path. Put FaceFrames() before: "
                "make_pipeline(FaceFrames(), FrameEmbedding())."
            )
        if getattr(cell, "dtype", np.uint8) != np.uint8:
            raise ValueError(
                f"{where} is no picture of bytes; a face is uint8 of shape (3, H, W). "
                "BackboneEmbedding takes spectrograms."
            )
        return super()._images(cell, row)


def _build(name: str, weights: str | os.PathLike | None) -> tuple[torch.nn.Module, int]:
    """Build a network of torchvision without its last linear layer."""
    from torch import nn
    from torchvision import models

    try:
        network = models.get_model(name, weights=None)
    except ValueError:
        raise ValueError(
            f"FrameEmbedding: model={name!r} is no network of torchvision.models; "
            "efficientnet_b0, resnet18 and mobilenet_v3_small are, for example."
        ) from None
    linear = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear or linear[-1].partition(".")[0] not in ("classifier", "fc", "head", "heads"):
        raise ValueError(
            f"FrameEmbedding: model={name!r} does not end in a linear classifier; choose a network "
            "of torchvision.models that classifies images, such as efficientnet_b0."
        )
    last = linear[-1]
    n_features = network.get_submodule(last).in_features
    network.set_submodule(last, nn.Identity())
    if weights is not None:
        _load(network, name, last, weights)
    return network, n_features


def _load(network: torch.nn.Module, name: str, last: str, weights: str | os.PathLike) -> None:
    state = _imagenet_state(name) if weights == "imagenet" else _state_from_file(weights)
    state = {key: value for key, value in state.items() if not key.startswith(f"{last}.")}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise RuntimeError(
            f"weights={str(weights)!r} does not fit {name}; it must be a state dict with the "
            f"parameter names of torchvision.models.{name}. {error}"
        ) from error


def _state_from_file(path: str | os.PathLike) -> Mapping[str, torch.Tensor]:
    from skfdan.nn.backbones import _state_from_file as read

    if not Path(path).is_file():
        raise FileNotFoundError(
            f"weights={str(path)!r}: there is no such file. Give a state dict with torchvision's "
            'parameter names, "imagenet" or None.'
        )
    return read(Path(path))


def _imagenet_state(name: str) -> Mapping[str, torch.Tensor]:
    import torch
    from torchvision import models

    url = models.get_model_weights(name).DEFAULT.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    try:
        return torch.hub.load_state_dict_from_url(
            url, check_hash=True, weights_only=True, map_location="cpu", progress=False
        )
    except Exception as error:
        raise RuntimeError(
            f"The ImageNet weights of {name} could not be loaded ({error}). Download {url} on a "
            f"machine that is online and put it at {file}, or name it with "
            f"weights='path/to/{file.name}'. weights=None starts from random weights."
        ) from error
