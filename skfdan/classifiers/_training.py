"""How the network classifiers are trained: seeds, epochs, losses, and guards."""

from __future__ import annotations

import math
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils import compute_class_weight
from skorch.callbacks import EpochTimer, PrintLog

from skfdan.classifiers._batches import (
    SPREAD_EVERY,
    Batch,
    Batches,
    EpochMeans,
    number,
    read_numbers,
    relative_spread,
)
from skfdan.classifiers._checkpoint import Checkpoint, Progress, frozen_state
from skfdan.classifiers._samples import ModalitySamples, Samples
from skfdan.nn.fdan import FUSED, FDANOutput
from skfdan.nn.losses import labelled_cross_entropy
from skfdan.utils.device import resolve_device
from skfdan.utils.progress import progress_bar
from skfdan.utils.threads import one_thread

#: Features whose spread over the samples is this small a part of their size
#: carry no information about the samples.
_COLLAPSED = 1e-3

#: Steps on CUDA whose losses stay on the device before they are read and checked together.
_UNREAD_STEPS = 50


class DivergenceError(ValueError):
    """Training has left the finite numbers; the message says where."""


def diverged(
    loss: float, terms: dict[str, float], at: tuple[int, int], batch: Batch
) -> DivergenceError:
    """Return what to raise of a loss that is no number, in some epoch and batch."""
    return DivergenceError(
        f"Training diverged: the loss is {loss} in epoch {at[0]}, batch {at[1]} "
        f"({', '.join(f'{k}={v:.3g}' for k, v in terms.items())}). "
        f"Lower lr or momentum. The batch held {batch.describe()}."
    )


@contextmanager
def _noticing_interrupts() -> Iterator[list[int]]:
    """Give a list that fills when Ctrl-C is pressed, which raises what callbacks raise too."""
    interrupts: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield interrupts
        return

    def note(number: int, frame: Any) -> None:
        interrupts.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


class TrainingMixin:
    """The epochs of ``fit`` and ``partial_fit``."""

    @contextmanager
    def _training(self):
        """Seed torch without touching the user's generator, and mind the threads."""
        seed = int(self._random_state.randint(2**31 - 1))
        self.device_ = self._resolve_device()
        devices = [self.device_] if self.device_.startswith("cuda") else []
        with torch.random.fork_rng(devices=devices), one_thread(self._is_small()):
            torch.manual_seed(seed)
            yield

    def _is_small(self) -> bool:
        """Tell whether the network is too small to share a step between threads."""
        return (
            self.backbone in (None, "cnn")
            or self._trainable is False  # it runs before the first step
            or all(s.kind != "image" for s in self._specs.values())
        )

    def _resolve_device(self) -> str:
        return resolve_device(self.device)

    def _on_cuda(self) -> bool:
        """Tell whether the device computes on its own while the CPU goes on."""
        return self.device_.startswith("cuda")

    def _start(self, labels: dict[str, np.ndarray], classes: np.ndarray) -> None:
        """Build the network, optimiser, callbacks and history."""
        self.classes_inferred_ = classes
        self._class_weights = {m: self._weights(y[y >= 0]) for m, y in labels.items()}
        self.initialized_ = False
        self.virtual_params_ = {}
        self._initialize_callbacks()
        with self._current_init_context("module"):
            self.module_ = self._make_module().to(self.device_)
            if self._on_cuda():
                # As the images are: otherwise every convolution turns its weights round.
                for p in self.module_.parameters():
                    if p.ndim == 4:
                        p.data = p.data.contiguous(memory_format=torch.channels_last)
        with self._current_init_context("criterion"):
            self.criterion_ = self._make_criterion()
            if self.criterion_ is not None:
                self.criterion_.to(self.device_)
        self._initialize_optimizer()
        self._initialize_history()
        self.initialized_ = True

    def _weights(self, y: np.ndarray) -> torch.Tensor | None:
        """Weight of each class, scaled to an average of 1 over the samples.

        Scaling over all samples, not over a batch, keeps a batch that holds
        only a light class light. Where there are no samples yet, the average is one over
        the classes.
        """
        given = self.class_weight
        if given is None or (len(y) == 0 and not isinstance(given, dict)):
            return None
        if isinstance(given, dict):
            unknown = [c for c in given if c not in self.classes_]
            if unknown:
                raise ValueError(
                    f"class_weight names {unknown[0]!r}, which is not among the classes "
                    f"{self.classes_.tolist()}."
                )
            # Of all classes: partial_fit may bring one later that the first rows lack.
            weights = np.array([given.get(c, 1.0) for c in self.classes_.tolist()], dtype=float)
            if not weights.any():
                raise ValueError("class_weight gives every class the weight 0.")
        else:
            weights = np.ones(len(self.classes_))
            present = np.unique(y)
            weights[present] = compute_class_weight(
                given, classes=self.classes_[present], y=self.classes_[y]
            )
        # A modality whose rows all weigh nothing teaches nothing.
        scale = weights[y].mean() if len(y) else weights.mean()
        tensor = torch.tensor(weights / (scale or 1.0), dtype=torch.float32)
        return tensor.pin_memory() if self._on_cuda() else tensor

    def _run_epochs(
        self,
        samples: Samples,
        labels: dict[str, np.ndarray],
        epochs: int,
        valid,
        schedule=None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        samples, labels = self._embedded_training(samples, labels)
        if valid is not None:
            valid = self._embedded(valid[0]), valid[1]
        batches = self._make_batches(samples, labels)
        at = Progress()
        if checkpoint is not None:
            at = checkpoint.restore(self, batches, schedule)
            epochs = 0 if at.stopped else epochs - len(self.history_)
        self.notify("on_train_begin", X=samples, y=labels)
        bar = progress_bar(
            range(epochs),
            total=epochs,
            desc=type(self).__name__,
            unit="epoch",
            verbose=self.verbose if epochs > 1 else 0,
        )
        try:
            for _ in bar:
                self._run_epoch(samples, labels, batches, valid, schedule, at)
                if checkpoint is not None:
                    checkpoint.save(self, batches, schedule, at)
                if hasattr(bar, "set_postfix"):
                    bar.set_postfix(loss=f"{self.history_[-1]['train_loss']:.3f}")
                if at.stopped:
                    break
        except DivergenceError:
            # Neither a half-trained network nor one of NaN is a result.
            vars(self).pop("module_", None)
            raise
        finally:
            if "module_" in vars(self):
                if at.best_state is not None:
                    self.module_.load_state_dict(at.best_state, strict=False)
                    self._take_kept(at.best_kept)
                if schedule is not None:
                    # partial_fit may go on from here, and not at a rate of 0.
                    rates = zip(self.optimizer_.param_groups, schedule.base_lrs, strict=True)
                    for group, lr in rates:
                        group["lr"] = lr
                if not at.best_kept:
                    self._finish(samples, labels)
                trained = self._versions()
                self.notify("on_train_end", X=samples, y=labels)
                if self._versions() != trained:
                    # Of other weights, such as those that EarlyStopping(load_best=True) restores.
                    self._finish(samples, labels)
            if len(self.history_):
                # Only now: file names of skorch's checkpoints may have the last batch in them.
                self.history_[-1]["batches"] = []
        self._warn_if_collapsed()

    def _versions(self) -> list[int]:
        """Return numbers that differ after any weight was written to."""
        return [t._version for t in self.module_.state_dict().values()]

    def _embedded_training(self, samples: Samples, labels: dict[str, np.ndarray]):
        """Return the samples of a training as :meth:`_embedded` does, and their labels."""
        cells, samples = samples, self._embedded(samples, self.verbose)
        return samples, {
            # Of files, each frame is a sample of its own once it is embedded.
            m: y if len(y) == len(s) else y[np.searchsorted(cells[m].rows, s.rows)]
            for (m, s), y in zip(samples.items(), labels.values(), strict=True)
        }

    def _run_epoch(self, samples, labels, batches, valid, schedule, at: Progress) -> None:
        """Train for one epoch, validate, and note how training goes on."""
        # Counted over the calls of partial_fit too, whose every call is one epoch.
        self._progress = min(1.0, len(self.history_) / self.max_epochs)
        self.notify("on_epoch_begin", dataset_train=samples, dataset_valid=None)
        self.run_single_epoch(batches, training=True, prefix="train", step_fn=self.train_step)
        self._check_parameters_finite()
        if schedule is not None:
            schedule.step()
        if valid is not None:
            self._finish(samples, labels)
            score = self._validation_uar(*valid)
            self.history_.record("valid_uar", score)
            at.waited += 1
            if score > at.best:
                at.best, at.waited = score, 0
                frozen, state = frozen_state(self.module_), self.module_.state_dict()
                at.best_state = {k: t.clone() for k, t in state.items() if k not in frozen}
                at.best_kept = self._kept()
            at.stopped = at.waited >= self.n_iter_no_change
        # With validation, what prediction needs has just been made.
        between = nullcontext() if valid is not None else self._between_epochs(samples, labels)
        with between, _noticing_interrupts() as interrupts:
            try:
                self.notify("on_epoch_end", dataset_train=samples, dataset_valid=None)
            except KeyboardInterrupt:
                if interrupts:
                    raise
                at.stopped = True  # how skorch's EarlyStopping ends training

    def _between_epochs(
        self, samples: Samples, labels: dict[str, np.ndarray]
    ) -> AbstractContextManager:
        """Return a context in which callbacks predict as after a fit that had ended here."""
        return nullcontext()

    def _kept(self) -> dict[str, np.ndarray]:
        """Return what :meth:`_finish` has made for prediction."""
        return {}

    def _take_kept(self, kept: dict[str, np.ndarray]) -> None:
        """Take up what :meth:`_kept` returned."""

    def _check_parameters_finite(self) -> None:
        """Notice a last step that has ruined the weights after its loss was computed."""
        for name, p in self.module_.named_parameters():
            # A sum takes a fraction of the time, and what is not finite shows in it.
            if not math.isfinite(number(p.sum())) and not bool(torch.isfinite(p).all()):
                raise DivergenceError(
                    f"Training diverged: after epoch {len(self.history_)} the weights {name} hold "
                    "NaN or infinite values. Lower lr or momentum."
                )

    def _make_batches(self, samples: Samples, labels: dict[str, np.ndarray]):
        """Return what yields (Batch, labels of each modality) for every step of an epoch."""
        settings = self.batch_size, self._network_size, self._random_state
        return Batches(samples, labels, *settings, pinned=self._on_cuda())

    def _validation_samples(self, samples: Samples, lead: str, held: ModalitySamples) -> Samples:
        """Return what the score of an epoch reads: the held-out rows, as prediction reads them."""
        rows = np.unique(held.rows)
        wanted = samples if self.predict_modality == FUSED else (lead,)
        chosen = {m: np.flatnonzero(np.isin(samples[m].rows, rows)) for m in wanted}
        return {m: samples[m].select(i) for m, i in chosen.items() if len(i)}

    def _validation_uar(self, samples: Samples, y: np.ndarray) -> float:
        log_proba, _ = self._row_outputs(samples, len(y))
        rows = np.unique(np.concatenate([s.rows for s in samples.values()]))
        predicted = log_proba[rows].argmax(1)
        with warnings.catch_warnings():
            # A small validation part may lack classes that are predicted.
            warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
            return float(balanced_accuracy_score(y[rows], predicted))

    def _warn_if_collapsed(self) -> None:
        spread = self.history_[-1].get("feature_std") if len(self.history_) else None
        if spread is not None and spread < _COLLAPSED:
            warnings.warn(self._collapse_message(spread), ConvergenceWarning, stacklevel=4)

    def _collapse_message(self, spread: float) -> str:
        return (
            f"The features have collapsed: after training, the samples of a batch differ by "
            f"{spread:.1e} of the features' size, so predictions hardly depend on the input. "
            "Lower lr or weight_decay."
        )

    @property
    def _default_callbacks(self):
        callbacks = [("epoch_timer", EpochTimer()), ("epoch_means", EpochMeans())]
        return [*callbacks, ("print_log", PrintLog())] if self.verbose > 1 else callbacks

    def get_params_for_optimizer(self, prefix, named_parameters):
        """Give the optimiser the learning rate, momentum and weight decay.

        Parameters
        ----------
        prefix : str
            ``"optimizer"``.
        named_parameters : iterator
            Named parameters of the network.

        Returns
        -------
        args : tuple
            Parameter groups.
        kwargs : dict
            Arguments of the optimiser.
        """
        trainable = [(n, p) for n, p in named_parameters if p.requires_grad]
        args, kwargs = super().get_params_for_optimizer(prefix, trainable)
        kwargs["weight_decay"] = self.weight_decay
        if issubclass(self.optimizer, torch.optim.SGD):
            kwargs |= {"momentum": self.momentum, "fused": True}
        return args, kwargs | (self.optimizer_params or {})

    def _set_training(self, training: bool = True) -> None:
        # skorch calls this in every step, and going through all modules is a tenth of a
        # small network's step.
        for module in (self.module_, self.criterion_):
            if module is not None and module.training != training:
                module.train(training)

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Go through the batches of an epoch, and record the loss of each.

        On CUDA, numbers stay on the device for some steps, in which ``history_`` holds
        tensors: to read one, the CPU would wait until the device has done all it was given.

        Parameters
        ----------
        iterator : iterable of (Batch, dict)
            Batches, and the labels of each modality.
        training : bool
            Whether the network is trained.
        prefix : str
            What the names of the recorded values begin with.
        step_fn : callable
            What is done with a batch.
        **fit_params : dict
            More arguments of ``step_fn``.
        """
        later = self._on_cuda()
        unread = []
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            loss = step["loss"].detach()
            self.history_.record_batch(f"{prefix}_loss", loss if later else number(loss))
            self.history_.record_batch(f"{prefix}_batch_size", len(batch[0]))
            self.notify("on_batch_end", batch=batch, training=training, **step)
            if later:
                unread.append(batch[0].origin)
            if len(unread) == _UNREAD_STEPS:
                self._read_steps(unread)
                unread = []
        if unread:
            self._read_steps(unread)
        self.history_.record(f"{prefix}_batch_count", len(self.history_[-1]["batches"]))

    def _read_steps(self, origins: list) -> None:
        """Turn what the last steps have recorded into numbers, and check their losses."""
        records = self.history_[-1]["batches"]
        first = len(records) - len(origins)
        read_numbers(records[first:])
        for i, origin in enumerate(origins, start=first):
            if not math.isfinite(loss := records[i]["train_loss"]):
                own = ("train_loss", "train_batch_size", "feature_std")
                terms = {k: v for k, v in records[i].items() if k not in own}
                at = len(self.history_), i + 1
                raise diverged(loss, terms, at, Batch({}, records[i]["train_batch_size"], origin))

    def infer(self, x: Batch, **_) -> FDANOutput:
        """Send one batch through the network, on its device."""
        return self.module_(
            **{m: c.to(self.device_, non_blocking=True) for m, c in x.cells.items()}
        )

    def get_loss(self, y_pred: FDANOutput, y_true, X=None, training=False) -> torch.Tensor:
        """Return the loss of a batch and record its terms in ``history_``."""
        y_true = {m: y.to(self.device_, non_blocking=True) for m, y in y_true.items()}
        loss, terms = self._loss_terms(y_pred, y_true)
        if training:
            features = []
            if (len(self.history_[-1]["batches"]) - 1) % SPREAD_EVERY == 0:
                features = [z[-1].detach() for z in y_pred.layers.values() if len(z[-1]) > 1]
            if self._on_cuda():  # run_single_epoch reads and checks them
                if features:
                    terms["feature_std"] = torch.stack([*map(relative_spread, features)]).amin()
                for name, value in terms.items():
                    value = value.detach() if torch.is_tensor(value) else float(value)
                    self.history_.record_batch(name, value)
                return loss
            for name, value in terms.items():
                self.history_.record_batch(name, number(value))
            if features:
                spread = min(number(relative_spread(z)) for z in features)
                self.history_.record_batch("feature_std", spread)
            if not math.isfinite(number(loss)):
                at = len(self.history_), len(self.history_[-1]["batches"])
                raise diverged(number(loss), {k: number(v) for k, v in terms.items()}, at, X)
        return loss

    def _cross_entropy(self, modality: str, logits: torch.Tensor, y: torch.Tensor):
        """Return the mean cross-entropy of the labelled samples; -1 is no label."""
        weights = self._class_weights.get(modality)
        if weights is not None:
            weights = weights.to(y.device, non_blocking=True)
        elif not self._on_cuda() and len(y) and int(y.amax()) >= 0:
            return torch.nn.functional.cross_entropy(logits, y, ignore_index=-1)
        # Without asking whether any label lacks: the CPU would wait for another device's answer.
        return labelled_cross_entropy(logits, y, weights)
