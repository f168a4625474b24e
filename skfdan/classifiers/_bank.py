"""Features of one modality that stand in for it when the other one is predicted alone."""

from __future__ import annotations

import math

import numpy as np
import torch

from skfdan.classifiers._samples import ModalitySamples, Samples
from skfdan.nn.attention import other_modality
from skfdan.nn.kernels import at_least_single
from skfdan.table import MODALITIES


class BankMixin:
    """FDAN's bank: kept at the end of ``fit``, attended to at prediction."""

    def _finish(self, samples: Samples, labels: dict[str, np.ndarray]) -> None:
        """Keep class-balanced features of each modality for ``inference="bank"``."""
        if self.variant == "official" or len(samples) < len(MODALITIES) or not self.n_layers:
            return
        rng = np.random.RandomState(self._random_state.randint(2**31 - 1))
        self.module_.eval()
        with torch.inference_mode():
            z = {m: self._encode_some(m, s, labels[m], rng) for m, s in samples.items()}
            # Each layer attends to what enters it, and nothing to what the last one gives.
            layers = self.module_.adapt(z, n_layers=len(self.module_.layers) - 1)
        self.reference_bank_ = {
            # NumPy knows no bfloat16, which a caller's autocast may give.
            m: np.stack([at_least_single(features).cpu().numpy() for features in zs])
            for m, zs in layers.items()
        }

    def _encode_some(
        self, modality: str, samples: ModalitySamples, y: np.ndarray, rng
    ) -> torch.Tensor:
        per_class = max(1, self.bank_size // len(self.classes_))
        chosen = np.concatenate(
            [rng.permutation(np.flatnonzero(y == c))[:per_class] for c in range(len(self.classes_))]
        )
        unlabelled = np.flatnonzero(y < 0)
        if len(unlabelled):
            # Their classes are unknown: they fill what labelled samples leave.
            room = max(0, self.bank_size - len(chosen))
            chosen = np.append(chosen, rng.permutation(unlabelled)[:room])
        parts = np.array_split(chosen, math.ceil(len(chosen) / self.batch_size))
        return torch.cat(
            [
                self.module_.encode(modality, samples.batch(part, self.input_size).to(self.device_))
                for part in parts
            ]
        )

    def _reference(self, modality: str):
        self._check_choice("inference", ("bank", "bypass"))
        other = other_modality(modality)
        if self.inference == "bypass" or other not in self.reference_bank_:
            return None
        bank = torch.from_numpy(self.reference_bank_[other]).double().to(self.device_)
        return [{other: features} for features in bank]
