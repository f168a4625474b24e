"""TFMixClassifier: an ensemble of three networks over hand-made speech features."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch

from skfdan.classifiers._one_shape import OneShapeMixin
from skfdan.classifiers._params import check_number
from skfdan.classifiers._samples import ModalitySamples, Samples
from skfdan.classifiers._validation import hold_out
from skfdan.classifiers.base import ModalityClassifier
from skfdan.nn.tfmix import TFMixNet, TFMixOutput
from skfdan.table import as_labels, check_groups

__all__ = ["TFMixClassifier"]


class TFMixClassifier(OneShapeMixin, ModalityClassifier):
    r"""Speech emotion recognition in the style of TF-Mix: three networks, one average.

    A 1-D CNN with a fully connected network (FCN), a CNN-BiLSTM-FCN and a
    CNN-BiLSTM-Transformer-FCN read the same sequences of hand-made features, and
    their probabilities are averaged with weights; see
    :class:`skfdan.nn.TFMixNet`. The network listens only; faces are not read.

    **This is the idea of the paper [1]_ and no replica of it.** Public are the
    three kinds of networks, the weighted average, and that there are "multiple
    features" and "audio data augmentation". Not public are layers and widths,
    the features and alterations, the weights and how they were chosen, the
    optimiser and its settings. :class:`skfdan.preprocessing.SpeechFeatures`, at
    its defaults before the classifier, gives features and altered copies as an
    open relative has them [2]_. Decided here:

    - the networks' layers, see :class:`skfdan.nn.TFMixNet`;
    - the three are trained on the same batches by one optimiser with the sum of
      their cross-entropies. They share no parameter and Adam works on each
      parameter alone, so each is trained as it would be by itself;
    - every row of features is standardised with the training frames, because
      their scales differ by orders of magnitude;
    - a member's weight is proportional to its UAR on rows held out of the
      training rows, never on what is predicted later. The members are those
      that were trained on the other rows: after weighting, nothing is trained
      again. ``weighting="uniform"`` holds nothing out.

    FDAN's Table 1 gives TF-Mix a WAR of 86.23 and a UAR of 84.71 percent on
    SAVEE; do not expect the same from this.

    Parameters
    ----------
    weighting : {"uar", "uniform"}, default="uar"
        Weights of the members: proportional to their UAR on a validation part
        of the training rows, or equal. They are equal too if rows are too few:
        if the validation part would have less than two rows a class or only
        one class, or the remaining rows would lack a class.
    validation_fraction : float, default=0.1
        Share of the rows (or of ``groups``, if given to ``fit``) held out for
        the weights and for ``early_stopping``.
    channels : int, default=96
        Filters of every convolution.
    lstm_hidden : int, default=64
        Units of each direction of an LSTM.
    n_layers : int, default=1
        Layers of the Transformer.
    n_heads : int, default=4
        Attention heads; they divide ``2 * lstm_hidden``.
    fc_width : int, default=64
        Width of the hidden layer of each FCN.
    dropout : float, default=0.3
        Dropout in all parts.
    lr : float, default=1e-3
        Learning rate.
    lr_schedule : {"cosine", "constant"}, default="cosine"
        How the learning rate goes over the epochs of ``fit``: down to 0 along
        half a cosine, or not at all. ``partial_fit`` always keeps it.
    weight_decay : float, default=1e-4
        Weight decay.
    max_epochs : int, default=50
        Epochs; one is a pass through all samples, altered copies included.
    batch_size : int, default=32
        Most samples in a step; the batches of an epoch are of even size.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the cross-entropy, keyed by label.
    early_stopping : bool, default=False
        Stop when the UAR of the (equally weighted) ensemble on the validation
        part no longer rises, and keep the best epoch.
    n_iter_no_change : int, default=10
        Epochs without improvement to wait for.
    on_error : {"raise", "missing", "skip"}, default="raise"
        What becomes of a row without a usable cell, and of a file that can't be
        read. "raise" refuses it. "missing" treats the cell as missing; a row
        without any is left out of the training. "skip" leaves the whole row
        out if one of its files can't be read. At prediction, rows without a
        usable cell get the shares of the classes in the training
        (``class_count_``). A warning names the rows, ``report_`` lists them.
    checkpoint_dir : path-like or None, default=None
        Folder in which ``fit`` keeps its state, anew after every epoch. A fit
        that was interrupted or killed goes on from there when it is started
        again with the same parameters and data, and ends with the weights of
        an uninterrupted one (bit by bit, on a CPU); one that is complete is
        there at once. Other parameters or data are refused. "{fit}" in the name
        stands for a hash of both: a folder for each fit of a search. The state
        of ``callbacks`` is not kept.
    optimizer : type, default=torch.optim.Adam
        Optimiser class.
    optimizer_params : dict or None, default=None
        Further arguments of the optimiser.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...; ``"auto"`` takes a GPU if there
        is one.
    random_state : int, RandomState instance or None, default=None
        Seeds initial weights, batches, dropout and the validation part.
    callbacks : list of skorch callbacks or None, default=None
        Called during training. Those that look at ``valid_loss`` find none.
    verbose : int, default=1
        0 is silent, 1 shows a progress bar where one can be watched, 2 prints
        a line an epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    module_ : TFMixNet
        The trained network.
    weights_ : ndarray of shape (3,)
        Weights of the members ``cnn``, ``bilstm`` and ``transformer``; their sum
        is 1.
    validation_uar_ : ndarray of shape (3,) or None
        What the weights are proportional to; None if nothing was held out for
        them.
    validation_rows_ : ndarray of int
        Rows of X that were held out, and are in no batch of the training.
    history_ : skorch.history.History
        A row an epoch: ``train_loss``, its terms ``ce_cnn``, ``ce_bilstm`` and
        ``ce_transformer``, ``feature_std`` (spread of the features over a batch,
        relative to their size; of every fourth batch), ``valid_uar`` with early
        stopping, ``dur`` in seconds.
    device_ : str
        Where it was trained, and predicts: "cpu", "cuda", ...
    report_ : DataFrame
        What ``fit`` could not use: row, file, stage and reason.
    class_count_ : ndarray of shape (n_classes,)
        Training rows of each class.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of str
        Column names of a flat frame.

    Notes
    -----
    Cells are float arrays (n_features, T), all of one size, at prediction too,
    or (samples, 1, n_features, T) for several samples of a row, which count one
    by one in training and are averaged in predictions (and in the validation
    part). ``transform`` returns what enters the members' last layers, side by
    side.

    A row of a flat matrix is a sequence of one frame (clip statistics, say).

    References
    ----------
    .. [1] M. Wang, H. Ma, Y. Wang, X. Sun (2024). Design of smart home system
       speech emotion recognition model based on ensemble deep learning and
       feature fusion. Applied Acoustics 218, 109886.
    .. [2] M. R. Ahmed, S. Islam, A. K. M. M. Islam, S. Shatabda (2023). An
       ensemble 1D-CNN-LSTM-GRU model with data augmentation for speech emotion
       recognition. Expert Systems with Applications 218, 119633. arXiv:2112.05666.

    Examples
    --------
    >>> import numpy as np
    >>> from skfdan.classifiers import TFMixClassifier
    >>> y = np.array(["anger", "joy"] * 20)
    >>> t = np.arange(20)
    >>> fast, slow = np.sin(2 * t), np.sin(t / 2)
    >>> rng = np.random.default_rng(0)
    >>> X = np.array([[fast if label == "anger" else slow] * 4 for label in y])
    >>> X = X + 0.3 * rng.normal(size=X.shape)
    >>> clf = TFMixClassifier(channels=8, lstm_hidden=8, max_epochs=20, lr=0.01, random_state=0)
    >>> clf.fit(X, y).predict(X[:2]).tolist()
    ['anger', 'joy']
    >>> len(clf.validation_rows_), clf.weights_.round(2).tolist()
    (4, [0.33, 0.33, 0.33])
    """

    fidelity: ClassVar[str] = "style"
    _modalities: ClassVar[tuple[str, ...]] = ("audio",)
    _made_by: ClassVar[str] = "SpeechFeatures"
    _bounds: ClassVar[dict] = ModalityClassifier._bounds | {
        "channels": (1, None),
        "lstm_hidden": (1, None),
        "n_layers": (0, None),
        "n_heads": (1, None),
        "fc_width": (1, None),
        "dropout": (0, 1),
    }

    def __init__(
        self,
        *,
        weighting="uar",
        validation_fraction=0.1,
        channels=96,
        lstm_hidden=64,
        n_layers=1,
        n_heads=4,
        fc_width=64,
        dropout=0.3,
        lr=1e-3,
        lr_schedule="cosine",
        weight_decay=1e-4,
        max_epochs=50,
        batch_size=32,
        class_weight=None,
        early_stopping=False,
        n_iter_no_change=10,
        on_error="raise",
        checkpoint_dir=None,
        optimizer=torch.optim.Adam,
        optimizer_params=None,
        device="auto",
        random_state=None,
        callbacks=None,
        verbose=1,
    ):
        self.weighting = weighting
        self.validation_fraction = validation_fraction
        self.channels = channels
        self.lstm_hidden = lstm_hidden
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.fc_width = fc_width
        self.dropout = dropout
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.weight_decay = weight_decay
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.on_error = on_error
        self.checkpoint_dir = checkpoint_dir
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.device = device
        self.random_state = random_state
        self.callbacks = callbacks
        self.verbose = verbose

    @property
    def weights_(self) -> np.ndarray:
        """Weights of the members in the average; ndarray of shape (3,)."""
        if not self.__sklearn_is_fitted__():
            raise AttributeError(f"This {type(self).__name__} is not fitted yet.")
        return self.module_.member_weights.cpu().numpy().copy()

    @property
    def _n_features_out(self) -> int:
        return self.module_.n_features_out

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
        """Train from scratch, then weight the members on the rows held out.

        Parameters
        ----------
        X, y, y_true, X_vis, X_aud, y_vis, y_aud
            As in :meth:`skfdan.FDANClassifier.fit`; visual samples are left alone.
        groups : array-like of shape (n,), default=None
            Speakers, one a row: those of the validation part are in no batch of
            the training.

        Returns
        -------
        self
            The fitted classifier.

        Raises
        ------
        ValueError
            If the input can't be read; the message names the row.
        """
        self._groups = None if groups is None else np.asarray(as_labels(groups))
        self._weighing = self.weighting == "uar"
        try:
            return super().fit(
                X,
                y,
                y_true,
                X_vis=X_vis,
                X_aud=X_aud,
                y_vis=y_vis,
                y_aud=y_aud,
                groups=groups,
            )
        finally:
            del self._groups, self._weighing

    def _check_params(self) -> None:
        super()._check_params()
        self._check_choice("weighting", ("uar", "uniform"))
        if self.weighting == "uar":
            check_number("validation_fraction", self.validation_fraction, 0, 1, strict=True)
        if self.n_layers and 2 * self.lstm_hidden % self.n_heads:
            raise ValueError(
                f"n_heads={self.n_heads} must divide 2 * lstm_hidden={2 * self.lstm_hidden}."
            )

    def _read_training(self, *args, **kwargs):
        samples, y = super()._read_training(*args, **kwargs)
        self._n_rows = len(y)
        return samples, y

    def _make_module(self) -> TFMixNet:
        self.validation_uar_ = None
        self.validation_rows_ = np.empty(0, dtype=int)
        shape = self._cell_shape
        return TFMixNet(
            len(self.classes_),
            shape[0] if len(shape) == 1 else shape[0] * shape[1],
            channels=self.channels,
            lstm_hidden=self.lstm_hidden,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            fc_width=self.fc_width,
            dropout=self.dropout,
        )

    def _loss_terms(self, output: TFMixOutput, y: dict[str, torch.Tensor]):
        terms = {
            f"ce_{name}": self._cross_entropy("audio", logits, y["audio"])
            for name, logits in output.members.items()
        }
        return sum(terms.values()), terms

    def _run_epochs(
        self, samples: Samples, labels, epochs: int, valid, schedule=None, checkpoint=None
    ) -> None:
        weighing = getattr(self, "_weighing", False)  # partial_fit leaves the weights as they are
        held = valid  # by early stopping
        if held is None and weighing:
            samples, labels, held = self._hold_out(samples, labels)
        if not len(self.history_):
            self.module_.standardise(*_statistics(samples["audio"]))
        super()._run_epochs(samples, labels, epochs, valid, schedule, checkpoint)
        if held is not None:
            self.validation_rows_ = np.unique(held[0]["audio"].rows)
            if weighing and self._suffice(self.validation_rows_, held[1]):
                self._weigh(held)

    def _hold_out(self, samples: Samples, labels: dict[str, np.ndarray]):
        """Split off rows to weight the members on, if they and the rest are enough."""
        y = np.full(self._n_rows, -1)
        y[samples["audio"].rows] = labels["audio"]
        rows = np.flatnonzero(y >= 0)
        n_units = len(
            rows if self._groups is None else set(check_groups(self._groups)[rows].tolist())
        )
        if math.ceil(self.validation_fraction * n_units) < n_units:
            kept, held = hold_out(
                samples, "audio", y, self._groups, self.validation_fraction, self._random_state
            )
            kept_labels = y[kept["audio"].rows]
            if self._suffice(np.unique(held.rows), y) and np.isin(y[rows], kept_labels).all():
                return kept, {"audio": kept_labels}, ({"audio": held}, y)
        return samples, labels, None

    def _suffice(self, rows: np.ndarray, y: np.ndarray) -> bool:
        """Tell whether a UAR on these rows is worth something."""
        return len(rows) >= 2 * len(self.classes_) and len(np.unique(y[rows])) > 1

    def _weigh(self, held) -> None:
        """Set each member's weight by the UAR of an ensemble of it alone."""
        weights = self.module_.member_weights
        uar = np.empty(len(weights))
        for k in range(len(weights)):
            weights.zero_()[k] = 1.0
            uar[k] = self._validation_uar(*held)
        self.validation_uar_ = uar
        shares = uar / uar.sum() if uar.any() else np.full(len(uar), 1 / len(uar))
        weights.copy_(torch.from_numpy(shares))


def _statistics(samples: ModalitySamples) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of every feature over the frames of some hundred samples."""
    cells = samples.some()
    values = [c[:, None] if c.ndim == 1 else c.reshape(-1, c.shape[-1]) for c in cells]
    frames = np.concatenate(values, axis=1).astype(np.float64)
    mean, std = frames.mean(1), frames.std(1)
    # What rounding leaves of a constant is no deviation.
    return mean, np.where(std > 1e-7 * np.abs(mean), std, 1.0)
