"""From a batch of cells to what a backbone takes, on the backbone's device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["InputNorm", "InputSpec", "Padded"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
#: Cells from which a mean and a deviation are taken: enough for both.
_STATISTICS_CELLS = 512
#: Numbers at a time of which squares are made.
_BLOCK = 2**18


@dataclass(frozen=True)
class InputSpec:
    """What the cells of one modality look like.

    Parameters
    ----------
    kind : {"image", "vector", "sequence"}
        Images are (C, H, W) cells, with C 1 or 3; vectors are one-dimensional;
        sequences (T, d) are vectors, one a step of time.
    uint8 : bool, default=False
        Whether image cells are bytes in [0, 255].
    n_features : int or None, default=None
        Length of the vectors.
    mean, std : ndarray or float
        Statistics of the training cells: one number for floating-point images,
        one a feature for vectors. Bytes take ImageNet's instead.

    Examples
    --------
    >>> faces = InputSpec("image", uint8=True)
    >>> spectrograms = InputSpec("image", mean=-40.0, std=15.0)
    >>> embeddings = InputSpec("vector", n_features=512)
    """

    kind: str
    uint8: bool = False
    n_features: int | None = None
    mean: np.ndarray | float = 0.0
    std: np.ndarray | float = 1.0


@dataclass(frozen=True)
class Padded:
    """A batch of sequences of unequal lengths, with zeros after their ends.

    Parameters
    ----------
    values : Tensor of shape (n, T, d)
        The sequences.
    lengths : Tensor of shape (n,), integer
        How many steps each has.

    Examples
    --------
    >>> batch = Padded.of([torch.ones(2, 3), torch.ones(1, 3)])
    >>> batch.values.shape, batch.mask().tolist()
    (torch.Size([2, 2, 3]), [[True, True], [True, False]])
    """

    values: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, sequences: Sequence[Tensor]) -> Padded:
        """Put sequences into one batch.

        Parameters
        ----------
        sequences : sequence of Tensor of shape (T_i, d)
            The sequences.

        Returns
        -------
        Padded
            The batch.
        """
        lengths = torch.tensor([len(s) for s in sequences])
        return cls(nn.utils.rnn.pad_sequence(list(sequences), batch_first=True), lengths)

    def mask(self) -> Tensor:
        """Return where there are steps.

        Returns
        -------
        Tensor of shape (n, T), bool
            False in the padding.
        """
        steps = torch.arange(self.values.shape[1], device=self.values.device)
        return steps < self.lengths[:, None]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, samples: slice) -> Padded:
        return Padded(self.values[samples], self.lengths[samples])

    def to(self, device: str | torch.device, non_blocking: bool = False) -> Padded:
        """Return the same on another device.

        Parameters
        ----------
        device : str or torch.device
            The device.
        non_blocking : bool, default=False
            As in :meth:`torch.Tensor.to`.

        Returns
        -------
        Padded
            The batch there.
        """
        return Padded(*(t.to(device, non_blocking=non_blocking) for t in self._tensors()))

    def pin_memory(self) -> Padded:
        """Return the same in memory from which a GPU copies by itself.

        Returns
        -------
        Padded
            The batch there.
        """
        return Padded(*(t.pin_memory() for t in self._tensors()))

    def _tensors(self) -> tuple[Tensor, Tensor]:
        return self.values, self.lengths


class InputNorm(nn.Module):
    """Cast, scale, resize and normalise a batch.

    Bytes (faces) are divided by 255 and normalised with ImageNet's statistics; floating-point
    numbers in their place are in [0, 1] already.
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
        """Return what a backbone takes.

        Parameters
        ----------
        x : Tensor of shape (n, C, H, W), (n, d) or (n, T, d)
            Cells.

        Returns
        -------
        Tensor of shape (n, 3, size, size), (n, d) or (n, T, d), dtype float32
            Images, vectors or sequences.
        """
        if self.spec.kind != "image":
            return (x.float() - self.mean) / self.std
        x = as_floats(x) if self.spec.uint8 else x.float()
        if self.size is not None:
            x = resize(x, self.size)
        x = (x - self.mean) / self.std
        return x if x.shape[1] == 3 else x.expand(-1, 3, -1, -1)


def some_of(n: int) -> np.ndarray:
    """Return some hundred of n positions, evenly spread, from which to measure statistics."""
    return np.unique(np.linspace(0, n - 1, min(n, _STATISTICS_CELLS), dtype=int))


def mean_and_std(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the deviation of each column in float64, 1 for those of one value.

    They are those of ``numpy.mean`` and ``numpy.std``, without a copy of all that is there.
    """
    mean = values.mean(0, dtype=np.float64)
    squares = np.zeros((1, values.shape[1]))
    rows = max(1, _BLOCK // values.shape[1])
    for start in range(0, len(values), rows):
        part = values[start : start + rows] - mean
        part *= part
        # Added to the sum row by row, as NumPy does with all rows at once.
        squares = np.concatenate([squares, part]).sum(0, keepdims=True)
    return mean, _or_one(np.sqrt(squares[0] / len(values)), mean, len(values))


def _or_one(std: np.ndarray | float, mean: np.ndarray | float, n: int) -> np.ndarray | float:
    """Return 1 in the place of a deviation that is none.

    Which is where it is no more than the rounding of the mean, or nothing that float32 could
    divide by: units may be small.
    """
    smallest = np.maximum(n * np.finfo(np.float64).eps * np.abs(mean), np.finfo(np.float32).tiny)
    return np.where(std > smallest, std, 1.0)[()]


def image_spec(cells: Sequence[np.ndarray], coarse: bool = False) -> InputSpec:
    """Describe images, and measure the mean and deviation of floating-point ones.

    ``coarse`` rounds the mean to a quarter of the deviation, and that to a quarter of an
    octave: the folds of a corpus then (nearly always) agree, and can share what a frozen
    backbone makes of a cell.
    """
    if cells[0].dtype == np.uint8:
        return InputSpec("image", uint8=True)
    pixels = np.concatenate([np.ravel(cell) for cell in cells]).astype(np.float64)
    mean = pixels.mean()
    std = _or_one(pixels.std(), mean, len(pixels))
    if coarse:
        std = 2.0 ** (np.round(4 * np.log2(std)) / 4)
        mean = np.round(4 * mean / std) * std / 4
    return InputSpec("image", False, None, mean, std)


def as_floats(images: Tensor) -> Tensor:
    """Turn images into float32, bytes into numbers in [0, 1]."""
    return images.float() / 255.0 if images.dtype == torch.uint8 else images.float()


def resize(images: Tensor, size: int) -> Tensor:
    """Resize (n, C, H, W) images to squares, with antialiasing."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
