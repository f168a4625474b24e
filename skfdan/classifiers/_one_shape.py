"""Sequences of one size, for networks that are made for it."""

from __future__ import annotations

from typing import ClassVar

from skfdan.classifiers._samples import ModalitySamples, Samples


class OneShapeMixin:
    """Refuse voices of another shape than the first of the training, in fit and in predict."""

    #: The transformer whose ``duration`` gives all cells one shape.
    _made_by: ClassVar[str]

    def _read_training(self, *args, **kwargs):
        samples, y = super()._read_training(*args, **kwargs)
        if kwargs["reset"]:
            self._cell_shape = samples["audio"].cells[0].shape
            self._check_shapes(samples["audio"])
        return samples, y

    def _check_cells(self, samples: Samples) -> None:
        super()._check_cells(samples)
        self._check_shapes(samples["audio"])

    def _check_shapes(self, samples: ModalitySamples) -> None:
        for cell, row in zip(samples.cells, samples.rows, strict=True):
            if cell.shape != self._cell_shape:
                raise ValueError(
                    f"The audio cell of row {row} has samples of shape {cell.shape}, but "
                    f"{type(self).__name__} was fitted on {self._cell_shape}, and all samples must "
                    f"have that shape: set duration= of {self._made_by}, in fit and in predict."
                )
