"""What every network classifier of the package shares: input, labels, seeds, training."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit, StratifiedShuffleSplit
from sklearn.utils import check_random_state, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EpochTimer, PrintLog
from torch.func import functional_call

from skfdan.classifiers._samples import (
    ModalitySamples,
    Samples,
    array_samples,
    is_table,
    read_table,
    table_samples,
)
from skfdan.nn.fdan import FDANOutput
from skfdan.table import MODALITIES
from skfdan.utils.progress import progress_bar

#: Features whose spread over the samples is this small a part of their size
#: carry no information about the samples.
_COLLAPSED = 1e-3


class _Batch:
    """One step's cells of each modality; its length counts the leading modality."""

    def __init__(self, cells: dict[str, torch.Tensor], n: int):
        self.cells = cells
        self.n = n

    def __len__(self) -> int:
        return self.n


class _Batches:
    """Batches of an epoch: one pass through the audio samples.

    Audio is the paper's target, so an epoch means the same with and without
    faces. The visual samples are drawn from shuffles of their own, which go on
    from one epoch to the next and start again when they are used up. Batches
    are of even size, so that none is left with a single sample.
    """

    def __init__(
        self,
        samples: Samples,
        labels: dict[str, np.ndarray],
        batch_size: int,
        input_size: int | None,
        rng: np.random.RandomState,
    ):
        self.samples = samples
        self.labels = labels
        self.batch_size = batch_size
        self.input_size = input_size
        self.rng = rng
        self.lead = "audio" if "audio" in samples else "visual"
        self.other = next((m for m in samples if m != self.lead), None)
        self._pending = np.empty(0, dtype=int)

    def __iter__(self) -> Iterator[tuple[_Batch, dict[str, torch.Tensor]]]:
        n = len(self.samples[self.lead])
        for chosen in np.array_split(self.rng.permutation(n), math.ceil(n / self.batch_size)):
            picks = {self.lead: chosen}
            if self.other is not None:
                picks[self.other] = self._draw(self.batch_size)
            cells = {m: self.samples[m].batch(i, self.input_size) for m, i in picks.items()}
            labels = {m: torch.from_numpy(self.labels[m][i]) for m, i in picks.items()}
            yield _Batch(cells, len(chosen)), labels

    def _draw(self, n: int) -> np.ndarray:
        n_other = len(self.samples[self.other])
        n = min(n, n_other)
        if len(self._pending) < n:
            self._pending = np.append(self._pending, self.rng.permutation(n_other))
        drawn, self._pending = self._pending[:n], self._pending[n:]
        return drawn


class _EpochMeans(Callback):
    """Average what the batches of an epoch recorded, then forget the batches."""

    def on_epoch_end(self, net, **kwargs):
        batches = net.history_[-1]["batches"]
        sizes = np.array([b["train_batch_size"] for b in batches], dtype=float)
        for key in batches[0]:
            if key != "train_batch_size":
                values = np.array([b[key] for b in batches])
                net.history_.record(key, float(np.average(values, weights=sizes)))

    def on_epoch_begin(self, net, **kwargs):
        # 300 epochs of batch records would outweigh the network in a pickle.
        for row in net.history_[:-1]:
            row["batches"] = []

    def on_train_end(self, net, **kwargs):
        for row in net.history_:
            row["batches"] = []


class ModalityClassifier(ClassNamePrefixFeaturesOutMixin, TransformerMixin, NeuralNetClassifier):
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
    _params_to_validate: frozenset = frozenset()

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

    # ------------------------------------------------------------------ reading X and y

    def _read_X(self, X: Any, *, reset: bool, training: bool) -> tuple[Samples, int]:
        """Return the samples of each modality and the number of rows of X."""
        if X is None:
            raise ValueError("X is None; give a modality table, an array, or X_vis= and X_aud=.")
        single = "audio" if self.predict_modality == "fused" else self.predict_modality
        if isinstance(X, tuple) and len(X) == 2 and all(np.ndim(part) > 1 for part in X):
            X = dict(zip(MODALITIES, X, strict=True))
        if not issparse(X) and is_table(X):
            table = read_table(X, single)
            if reset:
                vars(self).pop("feature_names_in_", None)
                self.n_features_in_ = len(MODALITIES)
            wanted = MODALITIES if training or self.predict_modality == "fused" else (single,)
            return table_samples(table, wanted), len(table)
        n_dim = getattr(X, "ndim", 2)
        if n_dim > 2 or (n_dim == 1 and getattr(X, "dtype", None) is np.dtype(object)):
            if self.predict_modality == "fused":
                raise ValueError(
                    'predict_modality="fused" needs both modalities: give a modality table, '
                    "make_table(visual=..., audio=...), not one array."
                )
            samples = array_samples(X, single, "X")
            if reset:
                vars(self).pop("feature_names_in_", None)
                self.n_features_in_ = 1
            return {single: samples}, int(samples.rows[-1]) + 1
        X = validate_data(self, X, dtype=np.float32, reset=reset)
        return self._matrix_samples(X, single), len(X)

    def _matrix_samples(self, X: np.ndarray, single: str) -> Samples:
        """Take the columns of a flat matrix that each modality is made of."""
        specs = {m: getattr(self, m) for m in MODALITIES if getattr(self, m) is not None}
        if not specs:
            specs = {single: slice(None)}
        rows = np.arange(len(X))
        samples = {}
        for modality, spec in specs.items():
            if isinstance(spec, slice):
                columns = np.arange(X.shape[1])[spec]
            elif len(spec) and all(isinstance(c, str) for c in spec):
                names = list(getattr(self, "feature_names_in_", ()))
                unknown = [c for c in spec if c not in names]
                if unknown:
                    raise ValueError(
                        f"{modality}= names the column {unknown[0]!r}, but X has the columns "
                        f"{names or 'without names'}."
                    )
                columns = [names.index(c) for c in spec]
            else:
                columns = np.arange(X.shape[1])[np.asarray(spec)]
            if len(columns) == 0:
                raise ValueError(f"{modality}={spec!r} selects no column of X {X.shape}.")
            samples[modality] = ModalitySamples(X[:, columns], rows)
        return samples

    def _read_y(self, y: Any, n: int, name: str = "y") -> np.ndarray:
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None."
            )
        y = column_or_1d(y, warn=True)
        if len(y) != n:
            raise ValueError(
                f"{name} has {len(y)} labels but X has {n} rows; every row needs one label."
            )
        missing = np.flatnonzero([v is None or v != v for v in y.tolist()])
        if len(missing):
            raise ValueError(f"{name} is missing (NaN or None) in row {missing[0]}.")
        check_classification_targets(y)
        return y

    def _read_training(self, X, y, y_true, X_vis, X_aud, y_vis, y_aud, reset):
        """Bring the four forms of ``fit`` to samples and one label a row."""
        if X_vis is None and X_aud is None:
            if y_true is None and y_vis is None and y_aud is None:
                samples, n = self._read_X(X, reset=reset, training=True)
                return samples, self._read_y(y, n)
            X_vis, X_aud = X, y
            y = y_true
        elif X is not None:
            raise ValueError("Give X or X_vis= and X_aud=, not both.")
        if X_vis is None or X_aud is None:
            name, given = ("X_vis", X_aud) if X_vis is None else ("X_aud", X_vis)
            raise ValueError(
                f"{name} is missing: with two arrays both are needed. For one modality alone "
                f"use fit(make_table(...), y); got {type(given).__name__}."
            )
        if isinstance(y, tuple) and len(y) == 2:
            y_vis, y_aud, y = *y, None
        visual = array_samples(X_vis, "visual", "X_vis")
        audio = array_samples(X_aud, "audio", "X_aud")
        n_vis, n_aud = int(visual.rows[-1]) + 1, int(audio.rows[-1]) + 1
        if reset:
            vars(self).pop("feature_names_in_", None)
            self.n_features_in_ = len(MODALITIES)
        if y_vis is None and y_aud is None:
            if n_vis != n_aud:
                raise ValueError(
                    f"X_vis has {n_vis} rows and X_aud {n_aud}. Rows of unpaired modalities have "
                    "labels of their own: fit(X_vis, X_aud, y_vis=..., y_aud=...)."
                )
            return {"visual": visual, "audio": audio}, self._read_y(y, n_aud)
        if y_vis is None or y_aud is None or y is not None:
            raise ValueError("Unpaired modalities need y_vis= and y_aud=, and no y.")
        labels = np.concatenate(
            [self._read_y(y_vis, n_vis, "y_vis"), self._read_y(y_aud, n_aud, "y_aud")]
        )
        audio.rows = audio.rows + n_vis
        return {"visual": visual, "audio": audio}, labels

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
        classes, encoded = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least two classes; y holds one class: "
                f"{_plain(classes[0])!r}."
            )
        self._check_params()
        self._random_state = check_random_state(self.random_state)
        samples, valid = self._hold_out(samples, encoded, groups)
        labels = {m: encoded[s.rows] for m, s in samples.items()}
        with self._training():
            self._start(samples, labels, classes)
            self._run_epochs(samples, labels, self.max_epochs, valid)
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
        samples, y = self._read_training(X, y, y_true, X_vis, X_aud, y_vis, y_aud, reset=first)
        self._check_params()
        if self.class_weight == "balanced":
            raise ValueError(
                'class_weight="balanced" needs all labels at once; give partial_fit a dict of '
                "weights instead."
            )
        if first:
            self._random_state = check_random_state(self.random_state)
            known = np.unique(y if classes is None else classes)
        else:
            known = self.classes_
            if classes is not None and not np.array_equal(np.unique(classes), known):
                raise ValueError(
                    f"classes={np.unique(classes).tolist()} differ from those of the first call: "
                    f"{known.tolist()}."
                )
        unknown = np.setdiff1d(y, known)
        if len(unknown):
            raise ValueError(
                f"y holds the label {_plain(unknown[0])!r}, which is not among the classes."
            )
        encoded = np.searchsorted(known, y)
        labels = {m: encoded[s.rows] for m, s in samples.items()}
        with self._training():
            if first:
                self._start(samples, labels, known)
            else:
                self._check_cells(samples)
                _move(self.module_, self.optimizer_, self.device_)
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
        rules = {
            "max_epochs": (1, None),
            "batch_size": (1, None),
            "lr": (0, None),
            "momentum": (0, 1),
            "weight_decay": (0, None),
            "n_iter_no_change": (1, None),
        }
        for name, (low, high) in rules.items():
            value = getattr(self, name)
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if not number or value < low or (high is not None and value > high):
                bounds = f"at least {low}" if high is None else f"between {low} and {high}"
                raise ValueError(f"{name}={value!r}: it must be a number, {bounds}.")
        if self.early_stopping and not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction={self.validation_fraction!r}: it must lie between 0 and 1."
            )
        self._check_choice("predict_modality", (*MODALITIES, "fused"))

    def _check_choice(self, name: str, choices: Sequence) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise ValueError(
                f"{name}={value!r} is unknown; choose one of {', '.join(map(repr, choices))}."
            )

    def _hold_out(self, samples: Samples, y: np.ndarray, groups):
        """Split off validation rows for early stopping, speakers kept apart."""
        if not self.early_stopping:
            return samples, None
        lead = "audio" if "audio" in samples else "visual"
        candidates = np.unique(samples[lead].rows)
        seed = self._random_state.randint(2**31 - 1)
        fraction = self.validation_fraction
        if groups is not None:
            groups = np.asarray(groups)
            if len(groups) != len(y):
                raise ValueError(f"groups has {len(groups)} entries but X has {len(y)} rows.")
            splitter = GroupShuffleSplit(1, test_size=fraction, random_state=seed)
            kept, held = next(splitter.split(candidates, groups=groups[candidates]))
        else:
            n_held = math.ceil(fraction * len(candidates))
            _, counts = np.unique(y[candidates], return_counts=True)
            stratify = counts.min() >= 2 and n_held >= len(counts)
            kind = StratifiedShuffleSplit if stratify else ShuffleSplit
            splitter = kind(1, test_size=fraction, random_state=seed)
            kept, held = next(splitter.split(candidates, y[candidates]))
        out = candidates[held]
        if len(kept) == 0:
            raise ValueError("early_stopping leaves no training row; give more data or groups.")
        dropped = np.isin(np.arange(len(y)), out)
        if groups is not None:
            dropped = np.isin(groups, np.unique(groups[out]))
        train = {
            m: s.select(np.flatnonzero(~dropped[s.rows]))
            for m, s in samples.items()
            if (~dropped[s.rows]).any()
        }
        valid = samples[lead].select(np.flatnonzero(np.isin(samples[lead].rows, out)))
        return train, (lead, valid, y)

    @contextmanager
    def _training(self):
        """Seed torch without touching the user's generator, and mind the threads."""
        seed = int(self._random_state.randint(2**31 - 1))
        self.device_ = self._resolve_device()
        devices = [self.device_] if self.device_.startswith("cuda") else []
        threads = torch.get_num_threads()
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            try:
                yield
            finally:
                torch.set_num_threads(threads)

    def _resolve_device(self) -> str:
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return str(self.device)

    def _start(self, samples: Samples, labels: dict[str, np.ndarray], classes: np.ndarray):
        """Build the network, optimiser, callbacks and history."""
        self.classes_inferred_ = classes
        self._specs = {m: s.spec() for m, s in samples.items()}
        self._class_weights = {m: self._weights(y) for m, y in labels.items()}
        self.initialized_ = False
        self.virtual_params_ = {}
        self._initialize_callbacks()
        with self._current_init_context("module"):
            self.module_ = self._make_module().to(self.device_)
        with self._current_init_context("criterion"):
            self.criterion_ = self._make_criterion()
        self._initialize_optimizer()
        self._initialize_history()
        self.initialized_ = True

    def _weights(self, y: np.ndarray) -> torch.Tensor | None:
        """Weight of each class, scaled to an average of 1 over the samples.

        Scaling over all samples, not over a batch, keeps a batch that holds
        only a light class light.
        """
        if self.class_weight is None:
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

    def _run_epochs(self, samples: Samples, labels, epochs: int, valid) -> None:
        batches = _Batches(samples, labels, self.batch_size, self.input_size, self._random_state)
        if all(s.kind == "vector" for s in samples.values()):
            # Steps of a small head are too short for two threads: on a busy
            # machine they wait for each other far longer than they work.
            torch.set_num_threads(1)
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
            for epoch in bar:
                self._progress = epoch / max(self.max_epochs, 1)
                self.notify("on_epoch_begin", dataset_train=samples, dataset_valid=None)
                self.run_single_epoch(
                    batches, training=True, prefix="train", step_fn=self.train_step
                )
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
            self._finish(samples, labels)
            self.notify("on_train_end", X=samples, y=labels)
        self._warn_if_collapsed()

    def _validation_uar(self, modality: str, valid: ModalitySamples, y: np.ndarray) -> float:
        log_proba, _ = self._modality_output(modality, valid)
        rows, position = np.unique(valid.rows, return_inverse=True)
        predicted = _mean_by_row(log_proba, position, len(rows)).argmax(1)
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
        callbacks = [("epoch_timer", EpochTimer()), ("epoch_means", _EpochMeans())]
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

    def infer(self, x: _Batch, **_) -> FDANOutput:
        """Send one batch through the network, on its device."""
        return self.module_(**{m: c.to(self.device_) for m, c in x.cells.items()})

    def get_loss(self, y_pred: FDANOutput, y_true, X=None, training=False) -> torch.Tensor:
        """Return the loss of a batch and record its terms in ``history_``."""
        y_true = {m: y.to(self.device_) for m, y in y_true.items()}
        loss, terms = self._loss_terms(y_pred, y_true)
        if training:
            for name, value in terms.items():
                self.history_.record_batch(name, _number(value))
            features = [z[-1].detach() for z in y_pred.layers.values() if len(z[-1]) > 1]
            if features:
                self.history_.record_batch("feature_std", min(map(_relative_spread, features)))
            if not torch.isfinite(loss):
                raise ValueError(
                    f"Training diverged: the loss is {_number(loss)} in epoch "
                    f"{len(self.history_)}, "
                    f"batch {len(self.history_[-1]['batches'])} "
                    f"({', '.join(f'{k}={_number(v):.3g}' for k, v in terms.items())}). "
                    "Lower lr or momentum."
                )
        return loss

    def _cross_entropy(self, modality: str, logits: torch.Tensor, y: torch.Tensor):
        losses = torch.nn.functional.cross_entropy(logits, y, reduction="none")
        weights = self._class_weights.get(modality)
        return losses.mean() if weights is None else (losses * weights.to(y.device)[y]).mean()

    def _make_module(self) -> torch.nn.Module:
        raise NotImplementedError

    def _make_criterion(self) -> torch.nn.Module | None:
        """Return the module that the loss needs beside cross-entropy, if any."""

    def _loss_terms(self, output: FDANOutput, y: dict[str, torch.Tensor]):
        """Return the loss and a dict of its terms."""
        raise NotImplementedError

    def _finish(self, samples: Samples, labels: dict[str, np.ndarray]) -> None:
        """Do what prediction needs, after the last step of a fit."""

    def _reference(self, modality: str):
        """Return what stands in for the other modality when one is predicted."""
        return None

    # ------------------------------------------------------------------ prediction

    def _modality_output(self, modality: str, samples: ModalitySamples):
        """Return log-probabilities (n, C) and features (n, d) of single samples."""
        self.device_ = self._resolve_device()
        self.module_.to(self.device_).eval()
        reference = self._reference(modality)
        # In float32 the sums of a matrix product depend on the number of rows;
        # above the backbone, float64 makes a row's result its own.
        head = {
            name: p.double()
            for name, p in self.module_.named_parameters()
            if not name.startswith("backbone")
        }
        log_proba, features = [], []
        with torch.inference_mode():
            for start in range(0, len(samples), self.batch_size):
                chosen = np.arange(start, min(start + self.batch_size, len(samples)))
                x = samples.batch(chosen, self.input_size).to(self.device_)
                out = functional_call(
                    self.module_, head, kwargs={modality: x, "reference": reference}
                )
                log_proba.append(out.logits[modality].log_softmax(1).cpu().numpy())
                features.append(out.layers[modality][-1].float().cpu().numpy())
        return np.concatenate(log_proba), np.concatenate(features)

    def _check_cells(self, samples: Samples) -> None:
        """Refuse cells of another kind than those of the training."""
        for modality, s in samples.items():
            spec = self._specs.get(modality)
            if spec is None:
                raise ValueError(
                    f"X has {modality} cells, but this classifier was fitted without any; it knows "
                    f"{' and '.join(self._specs)}."
                )
            n = len(s.cells[0]) if s.kind == "vector" else None
            if (s.kind, s.kind == "image" and s.uint8, n) != (
                spec.kind,
                spec.uint8,
                spec.n_features,
            ):
                raise ValueError(
                    f"The {modality} cells are {s.cells[0].dtype} of shape {s.cells[0].shape}, but "
                    f"this classifier was fitted on "
                    f"{'bytes' if spec.uint8 else 'floats'} of kind {spec.kind}"
                    f"{'' if n is None else f' with {spec.n_features} features'}."
                )

    def _outputs(self, X):
        """Average log-probabilities and features over frames and modalities."""
        check_is_fitted(self)
        self._check_choice("predict_modality", (*MODALITIES, "fused"))
        samples, n = self._read_X(X, reset=False, training=False)
        fused = self.predict_modality == "fused"
        wanted = MODALITIES if fused else (self.predict_modality,)
        samples = {m: s for m, s in samples.items() if m in wanted}
        covered = np.zeros(n, dtype=bool)
        for s in samples.values():
            covered[s.rows] = True
        if not covered.all():
            raise ValueError(
                f"Row {int(np.argmin(covered))} has no {' or '.join(wanted)} cell, which "
                f'predict_modality="{self.predict_modality}" needs '
                f"({int((~covered).sum())} of {n} rows)."
            )
        self._check_cells(samples)
        results = []
        for modality, s in samples.items():
            log_proba, features = self._modality_output(modality, s)
            results.append((_mean_by_row(log_proba, s.rows, n), _mean_by_row(features, s.rows, n)))
        if len(results) == 1:
            return results[0]
        # Rows that lack a modality are NaN there; every row has at least one.
        return tuple(np.nanmean(np.stack(part), axis=0) for part in zip(*results, strict=True))

    def decision_function(self, X) -> np.ndarray:
        """Return log-probabilities, averaged over a row's frames and modalities.

        Parameters
        ----------
        X : DataFrame, mapping, ndarray or list
            As in :meth:`fit`; only cells of ``predict_modality`` are read.

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) with two classes
            With two classes the difference of both, positive for ``classes_[1]``.
        """
        scores, _ = self._outputs(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_log_proba(self, X) -> np.ndarray:
        """Return the logarithm of :meth:`predict_proba`.

        Parameters
        ----------
        X : DataFrame, mapping, ndarray or list
            As in :meth:`decision_function`.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Log-probabilities.
        """
        scores, _ = self._outputs(X)
        return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)

    def predict_proba(self, X) -> np.ndarray:
        """Return the probability of every class.

        Parameters
        ----------
        X : DataFrame, mapping, ndarray or list
            As in :meth:`decision_function`.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Probabilities in the order of ``classes_``.
        """
        return np.exp(self.predict_log_proba(X))

    def predict(self, X) -> np.ndarray:
        """Return the most probable label of every row.

        Parameters
        ----------
        X : DataFrame, mapping, ndarray or list
            As in :meth:`decision_function`.

        Returns
        -------
        ndarray of shape (n,)
            Labels, of the type that ``fit`` saw.
        """
        scores, _ = self._outputs(X)
        return self.classes_[scores.argmax(axis=1)]

    def transform(self, X) -> np.ndarray:
        """Return the features that the classifier layer sees.

        Parameters
        ----------
        X : DataFrame, mapping, ndarray or list
            As in :meth:`decision_function`.

        Returns
        -------
        ndarray of shape (n, bottleneck), float32
            Features of ``predict_modality``, averaged over a row's frames; of
            both modalities together if it is ``"fused"``.
        """
        return self._outputs(X)[1]

    # ------------------------------------------------------------------ pickling

    def __getstate__(self) -> dict:
        """Return a state that a machine without a GPU can load."""
        state = self.__dict__.copy()
        if str(state.get("device_", "cpu")) != "cpu" and "module_" in state:
            module, optimizer = copy.deepcopy((state["module_"], state["optimizer_"]))
            _move(module, optimizer, "cpu")
            state |= {"module_": module, "optimizer_": optimizer, "device_": "cpu"}
        return state

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)


def _move(module: torch.nn.Module, optimizer: torch.optim.Optimizer, device: str) -> None:
    """Move a network and the state of its optimiser; parameters keep their identity."""
    module.to(device)
    for values in optimizer.state.values():
        for key, value in values.items():
            values[key] = value.to(device) if torch.is_tensor(value) else value


def _mean_by_row(values: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Average the samples of each row; rows without a sample become NaN."""
    if len(rows) == n and np.array_equal(rows, np.arange(n)):
        return values
    counts = np.bincount(rows, minlength=n).astype(values.dtype)
    out = np.zeros((n, values.shape[1]), dtype=values.dtype)
    np.add.at(out, rows, values)
    out[counts == 0] = np.nan
    return out / np.maximum(counts, 1)[:, None]


def _plain(label: Any) -> Any:
    """Return a label as the user wrote it, not as a NumPy scalar."""
    return label.item() if isinstance(label, np.generic) else label


def _number(value: float | torch.Tensor) -> float:
    return value.item() if torch.is_tensor(value) else float(value)


def _relative_spread(z: torch.Tensor) -> float:
    """Spread of the features over the samples, relative to their size."""
    size = z.square().mean().sqrt()
    return float(z.std(0, correction=0).square().mean().sqrt() / size) if size > 0 else 0.0
