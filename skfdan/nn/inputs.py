"""From a batch of cells to what a backbone takes, on the backbone's device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["InputNorm", "InputSpec"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputSpec:
    """What the cells of one modality look like.

    Parameters
    ----------
    kind : {"image", "vector"}
        Images are (C, H, W) cells, with C 1 or 3; vectors are one-dimensional.
    uint8 : bool, default=False
        Whether image cells are bytes in [0, 255].
    n_features : int or None, default=None
        Length of vector cells.
    mean, std : ndarray or float
        Statistics of the training cells: one number for floating-point images,
        one a feature for vectors. Bytes take ImageNet's instead.
    """

    kind: str
    uint8: bool = False
    n_features: int | None = None
    mean: np.ndarray | float = 0.0
    std: np.ndarray | float = 1.0


class InputNorm(nn.Module):
    """Cast, scale, resize and normalise a batch.

    Bytes (faces) are divided by 255 and normalised with ImageNet's statistics.
    Floating-point images (Mel spectrograms) and vectors are normalised with the
    statistics of the training cells, so that loudness differences between clips
    stay. A single channel is repeated to three after everything else.

    Parameters
    ----------
    spec : InputSpec
        What the cells look like.
    size : int or None, default=None
        Side of the square that images are resized to; None keeps their size.

    Examples
    --------
    >>> norm = InputNorm(InputSpec("image", uint8=True), size=8)
    >>> norm(torch.zeros(2, 3, 16, 12, dtype=torch.uint8)).shape
    torch.Size([2, 3, 8, 8])
    """

    def __init__(self, spec: InputSpec, size: int | None = None):
        super().__init__()
        self.spec = spec
        self.size = size
        if spec.uint8:
            mean = torch.tensor(IMAGENET_MEAN).reshape(3, 1, 1)
            std = torch.tensor(IMAGENET_STD).reshape(3, 1, 1)
        else:
            mean = torch.as_tensor(np.asarray(spec.mean, dtype=np.float32))
            std = torch.as_tensor(np.asarray(spec.std, dtype=np.float32))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, 3, size, size) images, or (n, d) vectors, in float32."""
        if self.spec.kind == "vector":
            return (x.float() - self.mean) / self.std
        x = x.float() / 255.0 if self.spec.uint8 else x.float()
        if self.size is not None:
            x = resize(x, self.size)
        x = (x - self.mean) / self.std
        return x if x.shape[1] == 3 else x.expand(-1, 3, -1, -1)


def resize(images: Tensor, size: int) -> Tensor:
    """Resize (n, C, H, W) images to squares, with antialiasing."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
