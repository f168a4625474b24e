"""What every network classifier of the package shares: input, labels, seeds, training."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils import check_random_state, compute_class_weight
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochTimer, PrintLog
from torch.optim.lr_scheduler import CosineAnnealingLR

from skfdan.classifiers._batches import Batch, Batches, EpochMeans, number, relative_spread
from skfdan.classifiers._input import InputMixin, encode, plain
from skfdan.classifiers._prediction import PredictionMixin
from skfdan.classifiers._samples import ModalitySamples, Samples
from skfdan.classifiers._validation import hold_out
from skfdan.nn.fdan import FDANOutput
from skfdan.table import MODALITIES
from skfdan.utils.progress import progress_bar
from skfdan.utils.threads import one_thread

#: Features whose spread over the samples is this small a part of their size
#: carry no information about the samples.
_COLLAPSED = 1e-3


class ModalityClassifier(
    InputMixin,
    PredictionMixin,
    NeuralNetClassifier,
):
    """Base of the network classifiers that read voice and face.

    A subclass lists its parameters in ``__init__`` (and only assigns them),
    builds its network in ``_make_module`` and computes its loss in
    ``_loss_terms``. Everything scikit-learn asks of a classifier is here.
    """

    # skorch's own settings, which are not parameters of these classifiers.
    module = None
    criterion = None
    train_split = None
    iterator_train = None
    iterator_valid = None
    dataset = None
    predict_nonlinearity = None
    warm_start = False
    compile = False
    use_caching = "auto"
    torch_load_kwargs = None
    classes = None
    history_ = None
    initialized_ = False
    virtual_params_: dict = {}  # noqa: RUF012 - replaced, never changed, by skorch

    # What a method without such a parameter has instead.
    predict_modality = "audio"
    visual = None
    audio = None
    input_size = None
    backbone = None
    momentum = 0.0
    lr_schedule = "constant"
    class_weight = None
    early_stopping = False
    validation_fraction = 0.1
    n_iter_no_change = 10

    #: How faithful a method is to its source: "exact" (every fact is public),
    #: "partial" (the method is, some settings are not), "reconstructed" (details
    #: had to be guessed) or "style" (only the idea is public).
    fidelity: ClassVar[str] = "partial"

    #: The modalities that ``fit`` reads; cells of others are left alone.
    _modalities: ClassVar[tuple[str, ...]] = MODALITIES

    _params_to_validate: frozenset = frozenset()

    #: Lowest and highest value of numeric parameters.
    _bounds: ClassVar[dict[str, tuple[float, float | None]]] = {
        "max_epochs": (1, None),
        "batch_size": (1, None),
        "lr": (0, None),
        "momentum": (0, 1),
        "weight_decay": (0, None),
        "n_iter_no_change": (1, None),
    }

    # ------------------------------------------------------------------ parameters

    def _get_param_names(self) -> list[str]:
        return BaseEstimator._get_param_names.__func__(type(self))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters of this classifier.

        Parameters
        ----------
        deep : bool, default=True
            Include the parameters of contained estimators.

        Returns
        -------
        dict
            Parameter names mapped to their values.
        """
        return BaseEstimator.get_params(self, deep=deep)

    def set_params(self, **params) -> ModalityClassifier:
        """Set parameters; those of training take effect at the next ``fit``.

        Parameters
        ----------
        **params : dict
            Parameters of this classifier.

        Returns
        -------
        self
            This classifier.
        """
        return BaseEstimator.set_params(self, **params)

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        return BaseEstimator.__repr__(self, N_CHAR_MAX=N_CHAR_MAX)

    def __sklearn_is_fitted__(self) -> bool:
        return "classes_inferred_" in vars(self) and "module_" in vars(self)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def classes_(self) -> np.ndarray:
        """Class labels, sorted; ndarray of shape (n_classes,)."""
        try:
            return vars(self)["classes_inferred_"]
        except KeyError:
            raise AttributeError(f"This {type(self).__name__} is not fitted yet.") from None

    @property
    def _n_features_out(self) -> int:
        return self.module_.classifier.in_features

    # ------------------------------------------------------------------ training

    def fit(
        self,
        X=None,
        y=None,
        y_true=None,
        *,
        X_vis=None,
        X_aud=None,
        y_vis=None,
        y_aud=None,
        groups=None,
    ):
        """Train from scratch.

        Parameters
        ----------
        X : DataFrame, mapping, ndarray or list
            A modality table (canonical), a mapping with the keys ``visual`` and
            ``audio``, an object array (n, 2) of visual and audio cells, a flat
            matrix (n, n_features) of numbers (see ``visual`` and ``audio``), or
            one array (n, ...) of samples of ``predict_modality``. With a third
            positional argument: the visual samples.
        y : array-like of shape (n,)
            Labels, strings or integers. With a third positional argument: the
            audio samples.
        y_true : array-like of shape (n,) or tuple (y_vis, y_aud), default=None
            Labels, for ``fit(X_vis, X_aud, y)``.
        X_vis, X_aud : array-like, default=None
            The samples by keyword.
        y_vis, y_aud : array-like, default=None
            Labels of unpaired modalities: ``fit(X_vis, X_aud, y_vis=..., y_aud=...)``.
        groups : array-like of shape (n,), default=None
            Speakers, one a row; used with ``early_stopping`` to keep the
            validation speakers out of the training rows.

        Returns
        -------
        self
            The fitted classifier.

        Raises
        ------
        ValueError
            If the input can't be read; the message names the row.
        """
        samples, y = self._read_training(X, y, y_true, X_vis, X_aud, y_vis, y_aud, reset=True)
        classes, encoded = encode(y)
        if len(classes) < 2:
            held = f"one class: {plain(classes[0])!r}" if len(classes) else "no label"
            raise ValueError(
                f"{type(self).__name__} needs at least two classes; y holds {held}"
                f"{' beside unlabelled rows' if (encoded < 0).any() else ''}."
            )
        self._check_params()
        self._random_state = check_random_state(self.random_state)
        valid = None
        if self.early_stopping:
            lead = self.predict_modality
            if lead not in samples:
                lead = "audio" if "audio" in samples else "visual"
            everything = samples
            samples, (lead, held, _) = hold_out(
                samples, lead, encoded, groups, self.validation_fraction, self._random_state
            )
            valid = self._validation_samples(everything, lead, held), encoded
        labels = {m: encoded[s.rows] for m, s in samples.items()}
        self._specs = {m: s.spec() for m, s in samples.items()}
        with self._training():
            self._start(labels, classes)
            schedule = None
            if self.lr_schedule == "cosine":
                schedule = CosineAnnealingLR(self.optimizer_, self.max_epochs)
            self._run_epochs(samples, labels, self.max_epochs, valid, schedule)
        return self

    def partial_fit(
        self,
        X=None,
        y=None,
        classes=None,
        y_true=None,
        *,
        X_vis=None,
        X_aud=None,
        y_vis=None,
        y_aud=None,
    ):
        """Train for one epoch, going on from where the last call ended.

        What prediction keeps of the training samples (such as FDAN's bank) is
        taken from the last call that holds both modalities.

        Parameters
        ----------
        X, y, y_true, X_vis, X_aud, y_vis, y_aud
            As in :meth:`fit`.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come; needed at the first call only, and
            taken from ``y`` there if left out.

        Returns
        -------
        self
            The classifier.
        """
        first = not self.__sklearn_is_fitted__()
        samples, y = self._read_training(
            *(X, y, y_true, X_vis, X_aud, y_vis, y_aud),
            reset=first,
            classes=classes if first else self.classes_,
        )
        self._check_params()
        if self.class_weight == "balanced":
            raise ValueError(
                'class_weight="balanced" needs all labels at once; give partial_fit a dict of '
                "weights instead."
            )
        if first:
            self._random_state = check_random_state(self.random_state)
            known = encode(y)[0] if classes is None else np.unique(classes)
            if len(known) == 0:
                raise ValueError(
                    "y holds no label; give classes= at the first call of partial_fit, or some "
                    "rows with a label."
                )
        else:
            known = self.classes_
            if classes is not None and not np.array_equal(np.unique(classes), known):
                raise ValueError(
                    f"classes={np.unique(classes).tolist()} differ from those of the first call: "
                    f"{known.tolist()}."
                )
        _, encoded = encode(y, known)
        labels = {m: encoded[s.rows] for m, s in samples.items()}
        if first:
            self._specs = {m: s.spec() for m, s in samples.items()}
        else:
            self._check_cells(samples)
        with self._training():
            if first:
                self._start(labels, known)
            else:
                _move(self.module_, self.criterion_, self.optimizer_, self.device_)
            self._run_epochs(samples, labels, 1, None)
        return self

    def initialize(self):
        """Refuse: the network's shape is known only when data come.

        Raises
        ------
        AttributeError
            Always.
        """
        raise AttributeError(
            f"{type(self).__name__} can't be initialized without data; call fit or partial_fit."
        )

    def _check_params(self) -> None:
        """Raise a ValueError for a parameter outside its range."""
        for name, (low, high) in self._bounds.items():
            value = getattr(self, name)
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if not number or not value >= low or (high is not None and value > high):
                bounds = f"at least {low}" if high is None else f"between {low} and {high}"
                raise ValueError(f"{name}={value!r}: it must be a number, {bounds}.")
        if self.early_stopping and not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction={self.validation_fraction!r}: it must lie between 0 and 1."
            )
        self._check_choice("predict_modality", (*MODALITIES, "fused"))
        self._check_choice("lr_schedule", ("cosine", "constant"))

    def _check_choice(self, name: str, choices: Sequence) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise ValueError(
                f"{name}={value!r} is unknown; choose one of {', '.join(map(repr, choices))}."
            )

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
        return self.backbone in (None, "cnn") or all(
            s.kind == "vector" for s in self._specs.values()
        )

    def _resolve_device(self) -> str:
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return str(self.device)

    def _start(self, labels: dict[str, np.ndarray], classes: np.ndarray) -> None:
        """Build the network, optimiser, callbacks and history."""
        # If the new network can't be built, the old one must not go with the new classes.
        vars(self).pop("module_", None)
        self.classes_inferred_ = classes
        self._class_weights = {m: self._weights(y[y >= 0]) for m, y in labels.items()}
        self.initialized_ = False
        self.virtual_params_ = {}
        self._initialize_callbacks()
        with self._current_init_context("module"):
            self.module_ = self._make_module().to(self.device_)
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
        only a light class light.
        """
        if self.class_weight is None or len(y) == 0:
            return None
        present = np.unique(y)
        classes = self.classes_[present]
        given = self.class_weight
        if isinstance(given, dict):
            unknown = [c for c in given if c not in self.classes_]
            if unknown:
                raise ValueError(
                    f"class_weight names {unknown[0]!r}, which is not among the classes "
                    f"{self.classes_.tolist()}."
                )
            given = {c: given.get(c, 1.0) for c in classes}
        weights = np.zeros(len(self.classes_))
        weights[present] = compute_class_weight(given, classes=classes, y=self.classes_[y])
        return torch.tensor(weights / weights[y].mean(), dtype=torch.float32)

    def _run_epochs(self, samples: Samples, labels, epochs: int, valid, schedule=None) -> None:
        batches = self._make_batches(samples, labels)
        best: tuple[float, dict | None] = (-np.inf, None)
        waited = 0
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
                # Counted over the calls of partial_fit too, whose every call is one epoch.
                self._progress = min(1.0, len(self.history_) / self.max_epochs)
                self.notify("on_epoch_begin", dataset_train=samples, dataset_valid=None)
                self.run_single_epoch(
                    batches, training=True, prefix="train", step_fn=self.train_step
                )
                if schedule is not None:
                    schedule.step()
                if valid is not None:
                    self._finish(samples, labels)
                    score = self._validation_uar(*valid)
                    self.history_.record("valid_uar", score)
                    waited += 1
                    if score > best[0]:
                        best = (score, copy.deepcopy(self.module_.state_dict()))
                        waited = 0
                try:
                    self.notify("on_epoch_end", dataset_train=samples, dataset_valid=None)
                except KeyboardInterrupt:  # how skorch's EarlyStopping ends training
                    break
                if hasattr(bar, "set_postfix"):
                    bar.set_postfix(loss=f"{self.history_[-1]['train_loss']:.3f}")
                if valid is not None and waited >= self.n_iter_no_change:
                    break
        finally:
            if best[1] is not None:
                self.module_.load_state_dict(best[1])
            if schedule is not None:
                # partial_fit may go on from here, and not at a rate of 0.
                for group, lr in zip(self.optimizer_.param_groups, schedule.base_lrs, strict=True):
                    group["lr"] = lr
            self._finish(samples, labels)
            self.notify("on_train_end", X=samples, y=labels)
        self._warn_if_collapsed()

    def _make_batches(self, samples: Samples, labels: dict[str, np.ndarray]):
        """Return what yields (Batch, labels of each modality) for every step of an epoch."""
        return Batches(samples, labels, self.batch_size, self.input_size, self._random_state)

    def _validation_samples(self, samples: Samples, lead: str, held: ModalitySamples) -> Samples:
        """Return what the score of an epoch reads: the rows held out of the leading modality."""
        return {lead: held}

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

    def infer(self, x: Batch, **_) -> FDANOutput:
        """Send one batch through the network, on its device."""
        return self.module_(**{m: c.to(self.device_) for m, c in x.cells.items()})

    def get_loss(self, y_pred: FDANOutput, y_true, X=None, training=False) -> torch.Tensor:
        """Return the loss of a batch and record its terms in ``history_``."""
        y_true = {m: y.to(self.device_) for m, y in y_true.items()}
        loss, terms = self._loss_terms(y_pred, y_true)
        if training:
            for name, value in terms.items():
                self.history_.record_batch(name, number(value))
            features = [z[-1].detach() for z in y_pred.layers.values() if len(z[-1]) > 1]
            if features:
                self.history_.record_batch("feature_std", min(map(relative_spread, features)))
            if not torch.isfinite(loss):
                raise ValueError(
                    f"Training diverged: the loss is {number(loss)} in epoch "
                    f"{len(self.history_)}, "
                    f"batch {len(self.history_[-1]['batches'])} "
                    f"({', '.join(f'{k}={number(v):.3g}' for k, v in terms.items())}). "
                    "Lower lr or momentum."
                )
        return loss

    def _cross_entropy(self, modality: str, logits: torch.Tensor, y: torch.Tensor):
        """Return the mean cross-entropy of the labelled samples; -1 is no label."""
        labelled = y >= 0
        if not labelled.all():
            logits, y = logits[labelled], y[labelled]
            if len(y) == 0:
                return 0.0 * logits.sum()
        losses = torch.nn.functional.cross_entropy(logits, y, reduction="none")
        weights = self._class_weights.get(modality)
        return losses.mean() if weights is None else (losses * weights.to(y.device)[y]).mean()

    def _make_module(self) -> torch.nn.Module:
        raise NotImplementedError(f"{type(self).__name__} is no method of its own; subclass it.")

    def _make_criterion(self) -> torch.nn.Module | None:
        """Return the module that the loss needs beside cross-entropy, if any."""

    def _loss_terms(self, output: FDANOutput, y: dict[str, torch.Tensor]):
        """Return the loss and a dict of its terms."""
        raise NotImplementedError(f"{type(self).__name__} is no method of its own; subclass it.")

    def _finish(self, samples: Samples, labels: dict[str, np.ndarray]) -> None:
        """Do what prediction needs, after the last step of a fit."""

    def _reference(self, modality: str):
        """Return what stands in for the other modality when one is predicted."""
        return None

    # ------------------------------------------------------------------ pickling

    def __getstate__(self) -> dict:
        """Return a state that a machine without a GPU can load."""
        state = self.__dict__.copy()
        if str(state.get("device_", "cpu")) != "cpu" and "module_" in state:
            moved = ("module_", "criterion_", "optimizer_")
            # Copied together: the optimiser must go on holding the networks' parameters.
            copies = copy.deepcopy([state[name] for name in moved])
            _move(*copies, "cpu")
            state |= dict(zip(moved, copies, strict=True)) | {"device_": "cpu"}
        return state

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)


def _move(
    module: torch.nn.Module,
    criterion: torch.nn.Module | None,
    optimizer: torch.optim.Optimizer,
    device: str,
) -> None:
    """Move networks and the state of their optimiser; parameters keep their identity."""
    module.to(device)
    if criterion is not None:
        criterion.to(device)
    for values in optimizer.state.values():
        for key, value in values.items():
            values[key] = value.to(device) if torch.is_tensor(value) else value
