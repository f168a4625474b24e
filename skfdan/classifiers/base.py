"""What every network classifier of the package shares: input, labels, seeds, training."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from skorch import NeuralNetClassifier
from torch.optim.lr_scheduler import CosineAnnealingLR

from skfdan.classifiers._checkpoint import Checkpoint, fit_identity, pretrained_contents
from skfdan.classifiers._embedding import EmbeddingMixin
from skfdan.classifiers._forms import n_dim
from skfdan.classifiers._input import InputMixin, encode, plain
from skfdan.classifiers._params import (
    check_callbacks,
    check_class_weight,
    check_number,
    check_optimizer,
    check_transformer,
)
from skfdan.classifiers._persistence import PersistenceMixin
from skfdan.classifiers._prediction import PredictionMixin
from skfdan.classifiers._samples import TEXT_AS_VECTORS, Samples
from skfdan.classifiers._training import TrainingMixin
from skfdan.classifiers._validation import hold_out
from skfdan.nn.fdan import FUSED, FDANOutput
from skfdan.nn.inputs import InputSpec
from skfdan.table import MODALITIES, as_labels


class ModalityClassifier(
    InputMixin,
    PredictionMixin,
    TrainingMixin,
    EmbeddingMixin,
    PersistenceMixin,
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
    text = None
    input_size = None
    backbone = None
    backbone_trainable = True
    precision = "float32"
    cache_dir = None
    momentum = 0.0
    lr_schedule = "constant"
    class_weight = None
    early_stopping = False
    validation_fraction = 0.1
    n_iter_no_change = 10
    on_error = "raise"
    checkpoint_dir = None

    #: How faithful a method is to its source: "exact" (every fact is public),
    #: "partial" (the method is, some settings are not), "reconstructed" (details
    #: had to be guessed) or "style" (only the idea is public).
    fidelity: ClassVar[str] = "partial"

    #: The modalities that ``fit`` reads; cells of others are left alone.
    _modalities: ClassVar[tuple[str, ...]] = MODALITIES

    #: Those whose cells are no images but vectors (d,) or sequences (T, d), and which of both
    #: ("vector", "sequence") they are read as.
    _embedded_as: ClassVar[dict[str, str]] = TEXT_AS_VECTORS

    _params_to_validate: frozenset = frozenset()

    #: Parameters that count something.
    _whole: ClassVar[frozenset[str]] = frozenset(
        {
            *("max_epochs", "batch_size", "n_iter_no_change", "bottleneck", "hidden", "ffn_dim"),
            *("n_layers", "n_heads", "bank_size", "n_filters", "n_blocks", "channels"),
            *("lstm_hidden", "fc_width"),
        }
    )

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

    def __setattr__(self, name: str, value: Any) -> None:
        # skorch would take a network given for a parameter as one of its own.
        if isinstance(value, torch.nn.Module) and name in self._get_param_names():
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

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
            one array (n, ...) or list of samples or paths of ``predict_modality``.
            With a third positional argument: the visual samples.
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
            validation speakers out of the training rows. Those of a search reach it only
            with scikit-learn's metadata routing and ``set_fit_request(groups=True)``.

        Returns
        -------
        self
            The fitted classifier.

        Raises
        ------
        FileNotFoundError
            If a path leads nowhere; names it and the row.
        ValueError
            If a parameter or the input can't be used; the message names the row.

        Notes
        -----
        Where parameters, X or y are refused, or the network can't be built, a fitted
        classifier is as it was. Where the training fails or diverges, it is not fitted any
        more; Ctrl-C after the first epoch only ends the training early.
        """
        before = dict(vars(self))
        try:
            vars(self).pop("_reads", None)  # what the last fit read
            self._check_params()
            samples, y, encoded, classes = self._read_labelled(
                X, y, y_true, X_vis, X_aud, y_vis, y_aud
            )
            checkpoint = None
            if self.checkpoint_dir is not None:
                identity = fit_identity(self, samples, y, groups)
                contents = pretrained_contents(self)
                checkpoint = Checkpoint(self.checkpoint_dir, identity, contents)
            with nullcontext() if checkpoint is None else checkpoint:
                self._fit_samples(samples, encoded, classes, groups, checkpoint, before)
        except BaseException as error:
            if before:
                # The old network must not go with what was read of the new X.
                vars(self).clear()
                vars(self).update(before)
            else:
                self._drop_untrained(error)
            raise
        return self

    def _read_labelled(self, *arguments) -> tuple[Samples, np.ndarray, np.ndarray, np.ndarray]:
        """Return samples, labels, the class index of every row (-1: none), and the classes."""
        samples, y = self._read_training(*arguments, reset=True)
        classes, encoded = encode(y)
        if len(classes) < 2:
            held = f"one class: {plain(classes[0])!r}" if len(classes) else "no label"
            raise ValueError(
                f"{type(self).__name__} needs at least two classes; y holds {held}"
                f"{' beside unlabelled rows' if (encoded < 0).any() else ''}."
            )
        return samples, y, encoded, classes

    def _fit_samples(
        self,
        samples: Samples,
        encoded: np.ndarray,
        classes: np.ndarray,
        groups,
        checkpoint: Checkpoint | None,
        before: dict[str, Any],
    ) -> None:
        """Train from scratch, or from where an interrupted fit had come to.

        ``before``, what the classifier was, is emptied where the training begins.
        """
        if groups is not None and len(groups := np.asarray(as_labels(groups))) != len(encoded):
            raise ValueError(f"groups has {len(groups)} entries but X has {len(encoded)} rows.")
        self._random_state = check_random_state(self.random_state)
        if checkpoint is not None:
            # Everything random is drawn again as it was, up to the interrupted epoch.
            self._random_state = checkpoint.start(self._random_state)
        self.class_count_ = count_classes(samples, encoded, len(classes))
        valid = None
        if self.early_stopping:
            lead = self.predict_modality
            if lead not in samples:
                lead = "audio" if "audio" in samples else next(iter(samples))
            everything = samples
            samples, held = hold_out(
                samples, lead, encoded, groups, self.validation_fraction, self._random_state
            )
            self._warn_of_lost_classes(samples, encoded, classes)
            valid = self._validation_samples(everything, lead, held), encoded
        labels = {m: encoded[s.rows] for m, s in samples.items()}
        self._know_cells(samples)
        self._read_pretrained(None if checkpoint is None else checkpoint.encoder_layers())
        with self._training():
            self._start(labels, classes)
            before.clear()  # so that there is memory for the training
            schedule = None
            if self.lr_schedule == "cosine":
                schedule = CosineAnnealingLR(self.optimizer_, self.max_epochs)
            self._run_epochs(samples, labels, self.max_epochs, valid, schedule, checkpoint)

    def _drop_untrained(self, error: BaseException) -> None:
        """Leave no network whose training an error has ended, but for Ctrl-C after an epoch."""
        epochs = vars(self).get("history_") or [{}]
        if not (isinstance(error, KeyboardInterrupt) and "train_batch_count" in epochs[0]):
            vars(self).pop("module_", None)

    def _warn_of_lost_classes(self, samples: Samples, encoded: np.ndarray, classes) -> None:
        """Warn of classes of which early stopping holds out every row."""
        left = np.unique(np.concatenate([encoded[s.rows] for s in samples.values()]))
        lost = classes[np.setdiff1d(encoded[encoded >= 0], left)]
        if len(lost):
            warnings.warn(
                f"early_stopping holds out all rows of the classes {lost.tolist()}, so nothing of "
                "them is learned; give other groups, another validation_fraction or random_state.",
                UserWarning,
                stacklevel=4,
            )

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
        taken from the last call that holds both modalities. Weights of ``class_weight``
        average 1 over the classes, as the rows to come are unknown; in :meth:`fit`, over
        the rows.

        Parameters
        ----------
        X, y
            As in :meth:`fit`.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come; needed at the first call only, and
            taken from ``y`` there if left out. The third argument, as everywhere in
            scikit-learn: two modalities are given by name.
        y_true, X_vis, X_aud, y_vis, y_aud
            As in :meth:`fit`.

        Returns
        -------
        self
            The classifier.

        Raises
        ------
        ValueError
            As in :meth:`fit`, and with ``early_stopping``, which needs more than one epoch.
        """
        first = not self.__sklearn_is_fitted__()
        if first:
            vars(self).pop("_reads", None)  # by a fit that failed
        self._check_params()
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True.")
        wide = n_dim(y) > 1 and getattr(y, "shape", ())[1:] != (1,)
        if wide and classes is not None and y_true is None:
            raise ValueError(
                "y has more than one dimension. The third argument of partial_fit is classes: give "
                "two modalities by name, partial_fit(X_vis=..., X_aud=..., y=...)."
            )
        samples, y = self._read_training(
            *(X, y, y_true, X_vis, X_aud, y_vis, y_aud),
            reset=first,
            classes=classes if first else self.classes_,
        )
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
        count = count_classes(samples, encoded, len(known))
        labels = {m: encoded[s.rows] for m, s in samples.items()}
        if first:
            self._know_cells(samples)
            self._read_pretrained()
        else:
            self._check_cells(samples)
        try:
            with self._training():
                # Rows that are refused do not count.
                self.class_count_ = count if first else self.class_count_ + count
                if first:
                    # Weights that are scaled by these rows would depend on which rows come first.
                    unseen = dict.fromkeys((*labels, FUSED), np.array([], dtype=int))
                    self._start(unseen, known)
                else:
                    if self.optimizer_ is None:
                        self._initialize_optimizer()
                    move(self.module_, self.criterion_, self.optimizer_, self.device_)
                self._run_epochs(samples, labels, 1, None)
        except BaseException as error:
            if first:
                self._drop_untrained(error)
            raise
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
            check_number(name, getattr(self, name), low, high, whole=name in self._whole)
        if self.input_size is not None:
            check_number("input_size", self.input_size, 1, whole=True, other="None")
        if not isinstance(self.verbose, (bool, np.bool_)):
            check_number("verbose", self.verbose, 0, whole=True, other="True or False")
        if isinstance(self.backbone, torch.nn.Module):
            raise ValueError(
                f"backbone is a network ({type(self.backbone).__name__}), whose weights all fits "
                "would share: give a name, or a function that returns a new one and its number of "
                "features."
            )
        check_optimizer(self.optimizer, self.optimizer_params)
        check_callbacks(self.callbacks)
        check_class_weight(self.class_weight)
        for name, such in (
            ("audio_transformer", "MelSpectrogram"),
            ("visual_transformer", "FaceFrames"),
        ):
            check_transformer(name, getattr(self, name, None), such)
        if self.early_stopping:
            check_number("validation_fraction", self.validation_fraction, 0, 1, strict=True)
        self._check_choice("predict_modality", (*self._columns, FUSED))
        self._check_choice("lr_schedule", ("cosine", "constant"))
        self._check_choice("on_error", ("raise", "missing", "skip"))
        self._check_choice("precision", ("float32", "bfloat16"))
        if not isinstance(self.backbone_trainable, (bool, np.bool_, str)):
            raise ValueError(
                f"backbone_trainable={self.backbone_trainable!r}: give True, False or the name of "
                "the first stage to be trained."
            )

    @property
    def _trainable(self) -> bool | str:
        """``backbone_trainable``, of which a grid in an array makes a NumPy boolean."""
        given = self.backbone_trainable
        return given if isinstance(given, str) else bool(given)

    def _check_choice(self, name: str, choices: Sequence) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise ValueError(
                f"{name}={value!r} is unknown; choose one of {', '.join(map(repr, choices))}."
            )

    def _measure(self, samples: Samples) -> dict[str, InputSpec]:
        return {m: s.spec(coarse=self._trainable is not True) for m, s in samples.items()}

    def _read_pretrained(self, known: dict[str, Any] | None = None) -> None:
        """Read what the network starts from, if it is not from random weights.

        ``known`` is what a checkpoint has kept: its weights take the place of those at the start.
        """

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
            move(*copies, "cpu")
            state |= dict(zip(moved, copies, strict=True)) | {"device_": "cpu"}
        return state

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)


def count_classes(samples: Samples, encoded: np.ndarray, n_classes: int) -> np.ndarray:
    """Count the labelled rows of each class that have a sample."""
    rows = np.unique(np.concatenate([s.rows for s in samples.values()]))
    known = encoded[rows][encoded[rows] >= 0]
    return np.bincount(known, minlength=n_classes)


def move(
    module: torch.nn.Module,
    criterion: torch.nn.Module | None,
    optimizer: torch.optim.Optimizer | None,
    device: str,
) -> None:
    """Move networks and the state of their optimiser; parameters keep their identity."""
    module.to(device)
    if criterion is not None:
        criterion.to(device)
    for values in () if optimizer is None else optimizer.state.values():
        for key, value in values.items():
            values[key] = value.to(device) if torch.is_tensor(value) else value
