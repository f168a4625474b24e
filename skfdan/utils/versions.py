"""Whether the weights of a network have changed since something was made of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Version:
    """What tells whether tensors are still what they were.

    Torch counts the changes in place, but for those to ``t.data``, by fused optimisers and by
    functions of ``torch.distributed``. So this is for weights that are not trained.

    Parameters
    ----------
    tensors : iterable of Tensor
        The weights; not those made in ``torch.inference_mode()``, which have no count.

    Examples
    --------
    >>> import torch
    >>> weight = torch.zeros(3)
    >>> version = Version([weight])
    >>> version.is_of([weight])
    True
    >>> weight += 1.0
    >>> version.is_of([weight])
    False
    """

    def __init__(self, tensors: Iterable[Tensor]):
        tensors = list(tensors)
        self._key = self._of(tensors)
        # Memory that is in use can't become that of other weights, at the same address.
        self._memory = [t.detach() for t in tensors]

    @staticmethod
    def _of(tensors: Iterable[Tensor]) -> list[tuple[int, int, int]]:
        return [(id(t), t.data_ptr(), t._version) for t in tensors]

    def is_of(self, tensors: Iterable[Tensor]) -> bool:
        """Tell whether these are the tensors, unchanged.

        Parameters
        ----------
        tensors : iterable of Tensor
            Weights.

        Returns
        -------
        bool
            Whether they are.
        """
        return self._of(tensors) == self._key
