"""Base of the classifiers that read the modalities of a row together."""

from __future__ import annotations

import numpy as np
import torch

from skfdan.classifiers._batches import JointBatch, JointBatches, gather, joint_index
from skfdan.classifiers._prediction import mean_by_row
from skfdan.classifiers._samples import Samples
from skfdan.classifiers.base import ModalityClassifier
from skfdan.nn.fdan import FUSED, FDANOutput


class JointClassifier(ModalityClassifier):
    """Base of the classifiers for which the cells of a row are one clip.

    Their networks take the cells of each modality by name, ``index`` (the sample of
    every joint row, -1 where the row lacks the modality) and ``ignored`` (where it is to
    be read as lacking), and give logits and features under the one key "fused".
    """

    predict_modality = FUSED
    modality_dropout = 0.0

    @property
    def _modalities(self) -> tuple[str, ...]:
        return tuple(self.modalities)

    def _check_params(self) -> None:
        super()._check_params()
        self._check_choice("predict_modality", (*self._modalities, FUSED))

    def _check_modalities(self, known: tuple[str, ...], n: int | None = None) -> None:
        """Refuse ``modalities`` that are not n different ones, or at least one, of those known."""
        given = self.modalities
        right = isinstance(given, (tuple, list)) and given and set(given) <= set(known)
        if not right or len(set(given)) != len(given) or n not in (None, len(given)):
            wanted = "two" if n == 2 else "one or several"
            raise ValueError(
                f"modalities={given!r}: give {wanted} of {', '.join(map(repr, known))}."
            )

    def _make_batches(self, samples: Samples, labels: dict[str, np.ndarray]) -> JointBatches:
        batches = JointBatches(
            samples,
            labels,
            self.batch_size,
            self._network_size,
            self._random_state,
            self.modality_dropout,
            pinned=self._on_cuda(),
        )
        if FUSED not in self._class_weights:
            # The base weighs samples of each modality; here a row has one label and one loss.
            self._class_weights[FUSED] = self._weights(batches.labels)
        return batches

    def infer(self, x: JointBatch, **_) -> FDANOutput:
        """Send one batch of joint rows through the network, on its device."""
        return self.module_(**self._arguments(x.cells, x.index, x.ignored))

    def _arguments(self, cells: dict, index: dict, ignored: dict | None = None) -> dict:
        def move(tensors):
            return {m: t.to(self.device_, non_blocking=True) for m, t in tensors.items()}

        return {
            **move(cells),
            "index": move(index),
            "ignored": None if ignored is None else move(ignored),
        }

    def _common_features(self, output: FDANOutput, modality: str) -> torch.Tensor | None:
        """Return features of rows that are read by one modality, in a space common to all.

        None where the network has no such space: what it classifies may hold each modality in
        columns of its own.
        """
        return None

    def _row_outputs(self, samples: Samples, n: int):
        """Return log-probabilities and features of rows, whose samples are read together."""
        index, rows = joint_index(samples)

        def arguments(chosen: np.ndarray) -> dict:
            part = {m: i[chosen] for m, i in index.items()}
            return self._arguments(*gather(samples, part, self._network_size))

        outputs = self._network_output(arguments, len(rows), FUSED)
        return tuple(mean_by_row(v, rows, n) for v in outputs)
