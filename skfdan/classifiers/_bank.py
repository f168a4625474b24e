"""Features of one modality that stand in for it when the other one is predicted alone."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch

from skfdan.classifiers._samples import ModalitySamples, Samples
from skfdan.nn.attention import other_modality
from skfdan.nn.fdan import FDANNet
from skfdan.nn.kernels import at_least_single
from skfdan.table import MODALITIES


@dataclass
class _Unfinished:
    """A network whose epoch has ended, and what its bank would be made of."""

    module: torch.nn.Module
    samples: Samples
    labels: dict[str, np.ndarray]
    bank: dict[str, np.ndarray] | None = None


#: While callbacks are called after an epoch. Not on the estimator, which they may pickle.
_UNFINISHED: ContextVar[_Unfinished | None] = ContextVar("_UNFINISHED", default=None)


class BankMixin:
    """FDAN's bank: kept at the end of ``fit``, attended to at prediction."""

    def _finish(self, samples: Samples, labels: dict[str, np.ndarray]) -> None:
        """Keep class-balanced features of each modality for ``inference="bank"``."""
        if self._attends() and len(samples) == len(MODALITIES):
            self.reference_bank_ = self._make_bank(samples, labels, self._random_state)

    def _kept(self) -> dict[str, np.ndarray]:
        return dict(self.reference_bank_)

    def _take_kept(self, kept: dict[str, np.ndarray]) -> None:
        self.reference_bank_ = kept

    @contextmanager
    def _between_epochs(self, samples: Samples, labels: dict[str, np.ndarray]) -> Iterator[None]:
        """Let callbacks predict with a bank of the weights as they are."""
        if not self._attends() or len(samples) < len(MODALITIES):
            yield
            return
        token = _UNFINISHED.set(_Unfinished(self.module_, samples, labels))
        try:
            yield
        finally:
            _UNFINISHED.reset(token)

    def _attends(self) -> bool:
        return isinstance(self.module_, FDANNet) and len(self.module_.layers) > 0

    def _bank(self) -> dict[str, np.ndarray]:
        now = _UNFINISHED.get()
        if now is None or now.module is not self.module_:
            return self.reference_bank_
        if now.bank is None:
            # Of a copy of the generator: a callback that predicts must not change the training.
            drawn = copy.deepcopy(self._random_state)
            now.bank = self._make_bank(now.samples, now.labels, drawn)
        return now.bank

    def _make_bank(
        self,
        samples: Samples,
        labels: dict[str, np.ndarray],
        random_state: np.random.RandomState,
    ) -> dict[str, np.ndarray]:
        rng = np.random.RandomState(random_state.randint(2**31 - 1))
        self.module_.eval()
        with torch.inference_mode():
            z = {m: self._encode_some(m, s, labels[m], rng) for m, s in samples.items()}
            # Each layer attends to what enters it, and nothing to what the last one gives.
            layers = self.module_.adapt(z, n_layers=len(self.module_.layers) - 1)
        return {
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
                self.module_.encode(
                    modality, samples.batch(part, self._network_size).to(self.device_)
                )
                for part in parts
            ]
        )

    def _reference(self, modality: str):
        self._check_choice("inference", ("bank", "bypass"))
        if self.inference == "bypass":
            return None
        other = other_modality(modality)
        bank = self._bank().get(other)
        if bank is None:
            if other in self._specs and self._attends():
                warnings.warn(
                    f'{type(self).__name__} predicts as with inference="bypass": this network was '
                    "taken from a training before its bank was made, which is at the end of fit. "
                    "Within a training, on_epoch_end is where callbacks can predict.",
                    UserWarning,
                    stacklevel=2,
                )
            return None
        return [{other: features} for features in torch.from_numpy(bank).double().to(self.device_)]
