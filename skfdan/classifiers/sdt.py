"""SDTClassifier: utterances in the context of their dialogue."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skfdan.classifiers._batches import gather
from skfdan.classifiers._dialogues import (
    CURRENT,
    DialogueBatch,
    DialogueBatches,
    DialogueReader,
    Dialogues,
    reading,
    take_dialogues,
)
from skfdan.classifiers._params import check_number
from skfdan.classifiers._prediction import mean_by_row
from skfdan.classifiers._samples import ModalitySamples, Samples
from skfdan.classifiers.joint import JointClassifier
from skfdan.nn.fdan import FUSED
from skfdan.nn.sdt import ORDER, SDTNet, SDTOutput, distillation

__all__ = ["SDTClassifier"]


class SDTClassifier(JointClassifier):
    r"""Transformers within and between modalities of a dialogue, with self-distillation.

    SDT [1]_ reads a conversation as a whole: the emotion of an utterance is told from what was
    said before it and after it, by whom, and how. Each modality attends to itself and to
    each other one, gates weigh what comes of it, and the classifier of all modalities
    teaches those of the single ones. Training minimises

    .. math::

        L_{all} + \gamma_1 \sum_m L_m +
        \gamma_2 \sum_m KL(p_{all}^T \,\|\, p_m^T).

    **Dialogues are columns of X.** A row is an utterance. If the modality table (or any
    other frame) has columns ``dialogue`` and ``speaker``, they say which rows are one
    conversation and who speaks; the utterances of a dialogue come in the order of the
    rows, or of a column ``order`` of numbers. As columns they go with their rows through
    splits, pipelines and searches, and to ``predict`` as to ``fit``, without any routing of
    metadata. ``groups`` of scikit-learn's functions do not come to ``predict``. A
    ``ColumnTransformer`` needs to pass them through, and ``set_output(transform="pandas")``.
    Without a column ``dialogue`` each row is a dialogue of its own, and its
    prediction does not depend on other rows.

    With one, it depends on the other rows of the dialogue that are given along with it,
    and on no others. Dialogues must be whole, therefore, in training and test:
    cross-validate with ``GroupKFold`` and ``groups=X["dialogue"]``, and where numbers start anew
    (in each part of MELD), make them unique. Numbers of a whole conversation are not
    comparable with those of systems that read single utterances.

    Of each cell one vector is read; sequences (T, d) are averaged. Published are RoBERTa's
    sentence vectors fine-tuned on the corpus, openSMILE's features of the voice, and those of a
    DenseNet trained on faces. A row may lack any modality.

    Parameters
    ----------
    modalities : tuple of {"text", "audio", "visual"}, default=("text", "audio", "visual")
        What is read; other columns are left alone, and those that the training does not hold
        are not needed.
    dialogue, speaker, order : str or None, default="dialogue", "speaker", "order"
        Columns of X. None makes no use of the column called so, if there is one: with
        ``dialogue=None`` utterances are read without context. A row without speaker,
        or with one who was not in the training, is spoken by nobody known.
    unimodal_weight : float, default=1.0
        γ1. Published.
    distillation_weight : float, default=1.0
        γ2. Published.
    temperature : float, default=1.0
        T. Published for IEMOCAP; 8 for MELD.
    detach_teacher : bool, default=False
        Keep the gradient of the distillation out of the classifier of all modalities.
        The released code does not.
    unimodal_gate : {"learned", "frozen"}, default="learned"
        "frozen" leaves the gates :math:`\sigma(W x) \odot x` at W = I, as published for MELD.
    hidden : int, default=1024
        Width of the network. Published; with 256 it has a sixteenth of the parameters, and
        trains on a laptop.
    n_heads : int, default=8
        Attention heads. Published.
    dropout : float, default=0.5
        Dropout. Published.
    standardize : bool, default=True
        Standardise features with the statistics of the training rows, whatever their scale is.
        False leaves them as they are, as published.
    modality_dropout : float, default=0.0
        Share of the utterances with several modalities of which one alone is
        read in a step, a random one. Ours, for predictions of partial rows.
    lr : float, default=1e-4
        Learning rate. Published for IEMOCAP; 5e-6 for MELD.
    lr_schedule : {"cosine", "constant"}, default="constant"
        How the learning rate goes over the epochs of ``fit``: down to 0 along
        half a cosine, or not at all. ``partial_fit`` always keeps it.
    weight_decay : float, default=1e-5
        Weight decay. Published.
    max_epochs : int, default=150
        Epochs; one is a pass through the dialogues. Published for IEMOCAP, where the best
        epoch on the test data counts; 50 for MELD.
    batch_size : int, default=16
        Dialogues in a step. Published for IEMOCAP; 8 for MELD.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the cross-entropies, keyed by label. The released code
        has some for IEMOCAP, see the notes.
    predict_modality : {"fused", "text", "audio", "visual"}, default="fused"
        Which cells a prediction reads. ``"fused"`` fuses those that a row has;
        the others read one modality, whatever else the rows have. Can be changed
        after ``fit``.
    visual, audio, text : slice, list of int or list of str, default=None
        For a flat matrix X: the columns of each modality. Without them the
        whole matrix is audio, or the first of ``modalities``.
    early_stopping : bool, default=False
        Stop when the UAR of a validation part of the training rows no longer
        rises, and keep the best epoch. Dialogues stay whole, and test data never take part.
    validation_fraction : float, default=0.1
        Share of the dialogues held out; of ``groups``, if given to ``fit``, joined
        where they meet in a dialogue.
    n_iter_no_change : int, default=10
        Epochs without improvement to wait for.
    on_error : {"raise", "missing", "skip"}, default="raise"
        What becomes of a row without a usable cell. "raise" refuses it;
        otherwise it is left out of its dialogue, and at prediction gets the
        shares of the classes in the training (``class_count_``). A warning
        names the rows, ``report_`` lists them.
    checkpoint_dir : path-like or None, default=None
        Folder in which ``fit`` keeps its state, anew after every epoch, and from
        which an interrupted one goes on. "{fit}" in the name stands for a hash
        of parameters and data.
    optimizer : type, default=torch.optim.Adam
        Optimiser class. Published.
    optimizer_params : dict or None, default=None
        Further arguments of the optimiser, such as ``{"amsgrad": True}``.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...; ``"auto"`` takes a GPU if there
        is one.
    random_state : int, RandomState instance or None, default=None
        Seeds initial weights, batches and dropout.
    callbacks : list of skorch callbacks or None, default=None
        Called during training. Those that look at ``valid_loss`` find none.
    verbose : int, default=1
        0 is silent, 1 shows a progress bar where one can be watched, 2 prints
        a line an epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    speakers_ : ndarray of str
        Speakers of the training, each with an embedding.
    in_dialogues_ : bool
        Whether X had a column of dialogues.
    module_ : Module
        The trained network, a :class:`skfdan.nn.SDTNet`.
    history_ : skorch.history.History
        A row an epoch: ``train_loss``, its unweighted terms ``ce``, ``unimodal`` and
        ``distillation``, ``feature_std`` (spread of the features over a batch, relative
        to their size; of every fourth batch), ``valid_uar`` with early stopping,
        ``dur`` in seconds.
    device_ : str
        Where it was trained, and predicts: "cpu", "cuda", ...
    report_ : DataFrame
        What ``fit`` could not use: row, file, stage and reason.
    class_count_ : ndarray of shape (n_classes,)
        Training rows of each class.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of str
        Column names of a flat frame, but for those of dialogues.

    Raises
    ------
    ValueError
        At ``fit``, if ``modalities`` are unknown, a cell is no embedding, or a row has
        no dialogue in a column that is there.

    Warns
    -----
    UserWarning
        At prediction, if X lacks the column of dialogues that the training had.

    Notes
    -----
    With ``standardize=False`` and rows that have all modalities, network and optimiser
    are those of the released code for IEMOCAP. For MELD, with ``unimodal_gate="frozen"``,
    ``temperature=8``, ``lr=5e-6``, ``batch_size=8`` and ``max_epochs=50``, the loss is too.
    The terms of a modality leave out the rows that lack it.

    For IEMOCAP the released code weights the classes of the cross-entropies by
    1/0.086747 (happiness), 1/0.144406 (sadness), 1/0.227883 (neutral), 1/0.160585 (anger),
    1/0.127711 (excitement) and 1/0.252668 (frustration); here that is ``class_weight``, which
    is None unless given. Their normalisation differs: there each batch's weighted sum is
    divided by the sum of the batch's weights, here by its number of labels, with weights that
    average 1 over the training rows. So a batch of light classes counts less here. The
    distillation has no weights in either.

    References
    ----------
    .. [1] H. Ma et al., "A Transformer-Based Model With Self-Distillation for
       Multimodal Emotion Recognition in Conversations", IEEE Transactions on
       Multimedia 2024.

    Examples
    --------
    "What?" is said in joy or in anger, and what was said before it tells which:

    >>> import numpy as np
    >>> from skfdan import make_table
    >>> from skfdan.classifiers import SDTClassifier
    >>> before, y = np.tile([0, 1], 20), np.tile([0, 1], 20).repeat(2)
    >>> said = np.stack([before, np.full(40, 2)], 1).ravel()
    >>> X = make_table(text=np.eye(3)[said])
    >>> X["dialogue"], X["speaker"] = np.arange(40).repeat(2), np.tile(["Ross", "Rachel"], 40)
    >>> clf = SDTClassifier(hidden=32, lr=0.003, max_epochs=15, random_state=0)
    >>> clf.fit(X, np.array(["joy", "anger"])[y]).predict(X[:4]).tolist()
    ['joy', 'joy', 'anger', 'anger']
    """

    fidelity: ClassVar[str] = "exact"
    _embedded_as: ClassVar[dict[str, str]] = dict.fromkeys(ORDER, "vector")
    _state_attributes: ClassVar[dict] = JointClassifier._state_attributes | {
        "speakers_": np.ndarray,
        "in_dialogues_": bool,
    }

    def __init__(
        self,
        *,
        modalities=("text", "audio", "visual"),
        dialogue="dialogue",
        speaker="speaker",
        order="order",
        unimodal_weight=1.0,
        distillation_weight=1.0,
        temperature=1.0,
        detach_teacher=False,
        unimodal_gate="learned",
        hidden=1024,
        n_heads=8,
        dropout=0.5,
        standardize=True,
        modality_dropout=0.0,
        lr=1e-4,
        lr_schedule="constant",
        weight_decay=1e-5,
        max_epochs=150,
        batch_size=16,
        class_weight=None,
        predict_modality=FUSED,
        visual=None,
        audio=None,
        text=None,
        early_stopping=False,
        validation_fraction=0.1,
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
        self.modalities = modalities
        self.dialogue = dialogue
        self.speaker = speaker
        self.order = order
        self.unimodal_weight = unimodal_weight
        self.distillation_weight = distillation_weight
        self.temperature = temperature
        self.detach_teacher = detach_teacher
        self.unimodal_gate = unimodal_gate
        self.hidden = hidden
        self.n_heads = n_heads
        self.dropout = dropout
        self.standardize = standardize
        self.modality_dropout = modality_dropout
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.weight_decay = weight_decay
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.class_weight = class_weight
        self.predict_modality = predict_modality
        self.visual = visual
        self.audio = audio
        self.text = text
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.on_error = on_error
        self.checkpoint_dir = checkpoint_dir
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.device = device
        self.random_state = random_state
        self.callbacks = callbacks
        self.verbose = verbose

    _bounds: ClassVar[dict] = JointClassifier._bounds | {
        "unimodal_weight": (0, None),
        "distillation_weight": (0, None),
        "hidden": (1, None),
        "n_heads": (1, None),
        "dropout": (0, 1),
        "modality_dropout": (0, 1),
    }

    def _check_params(self) -> None:
        self._check_modalities(ORDER)
        super()._check_params()
        check_number("temperature", self.temperature, 0, strict=True)
        for name in ("dialogue", "speaker", "order"):
            column = getattr(self, name)
            if column is not None and not isinstance(column, str):
                raise ValueError(
                    f"{name}={column!r:.60}: give the name of a column of X, or None. The values "
                    "themselves belong into X."
                )
        self._check_choice("unimodal_gate", ("learned", "frozen"))

    # ------------------------------------------------------------------ dialogues

    def _take_dialogues(self, X: Any) -> tuple[Any, Dialogues]:
        columns = (self.dialogue, self.speaker, self.order)
        return take_dialogues(X, *(c if isinstance(c, str) else None for c in columns))

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
            A modality table, whose columns may say the dialogue, speaker and order of each
            row, or another form of X as :meth:`skfdan.FDANClassifier.fit` takes; a mapping and
            a flat frame may hold these columns too.
        y : array-like of shape (n,)
            Labels, strings or integers. With a third positional argument: the
            audio samples.
        y_true : array-like of shape (n,) or tuple (y_vis, y_aud), default=None
            Labels, for ``fit(X_vis, X_aud, y)``.
        X_vis, X_aud : array-like, default=None
            The samples by keyword; each row is a dialogue of its own.
        y_vis, y_aud : array-like, default=None
            Labels of unpaired modalities: ``fit(X_vis, X_aud, y_vis=..., y_aud=...)``.
        groups : array-like of shape (n,), default=None
            Used with ``early_stopping`` to keep the validation rows apart from the training
            rows, by more than their dialogues: sessions, for example.

        Returns
        -------
        self
            The fitted classifier.

        Raises
        ------
        ValueError
            If a parameter or the input can't be used; the message names the row.

        Notes
        -----
        Where parameters, X or y are refused, or the network can't be built, a fitted
        classifier is as it was. Where the training fails or diverges, it is not fitted any
        more; Ctrl-C after the first epoch only ends the training early.
        """
        X, dialogues = self._take_dialogues(X)
        dialogues.groups = groups
        forms = {"X_vis": X_vis, "X_aud": X_aud, "y_vis": y_vis, "y_aud": y_aud}
        with reading(dialogues):
            # A checkpoint belongs to these dialogues too, not to its groups alone.
            return super().fit(X, y, y_true, **forms, groups=dialogues.identity())

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

        Speakers who are not in the first call are nobody known.

        Parameters
        ----------
        X, y
            As in :meth:`fit`.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come; needed at the first call only, and
            taken from ``y`` there if left out.
        y_true, X_vis, X_aud, y_vis, y_aud
            As in :meth:`fit`.

        Returns
        -------
        self
            The classifier.
        """
        X, dialogues = self._take_dialogues(X)
        forms = {"X_vis": X_vis, "X_aud": X_aud, "y_vis": y_vis, "y_aud": y_aud}
        with reading(dialogues):
            return super().partial_fit(X, y, classes, y_true, **forms)

    def _outputs(self, X):
        check_is_fitted(self)
        X, dialogues = self._take_dialogues(X)
        if self.in_dialogues_ and dialogues.numbers is None and self.dialogue is not None:
            warnings.warn(
                f"{type(self).__name__} was trained on dialogues, but X has no column "
                f"{self.dialogue!r}: each row is read alone, without context.",
                UserWarning,
                stacklevel=3,
            )
        with reading(dialogues):
            return super()._outputs(X)

    def _fit_samples(self, samples, encoded, classes, groups, checkpoint, before) -> None:
        dialogues = CURRENT.get()
        groups = dialogues.apart(len(encoded)) if self.early_stopping else dialogues.groups
        super()._fit_samples(samples, encoded, classes, groups, checkpoint, before)

    def _validation_samples(self, samples: Samples, lead: str, held: ModalitySamples) -> Samples:
        """Return whole dialogues, also where an utterance lacks what others are held out by."""
        numbers = CURRENT.get().of(1 + max(int(s.rows[-1]) for s in samples.values()))
        wanted = samples if self.predict_modality == FUSED else (lead,)
        out = np.unique(numbers[held.rows])
        chosen = {m: np.flatnonzero(np.isin(numbers[samples[m].rows], out)) for m in wanted}
        return {m: samples[m].select(i) for m, i in chosen.items() if len(i)}

    def _measure(self, samples: Samples):
        # Of the rows that train alone: a speaker held out gets no embedding, which would stay
        # as random as it began.
        dialogues = CURRENT.get()
        self.in_dialogues_ = dialogues.numbers is not None
        rows = np.unique(np.concatenate([s.rows for s in samples.values()]))
        there = () if dialogues.speakers is None else dialogues.speakers[rows]
        self.speakers_ = np.array(sorted({s for s in there if s is not None}), dtype=object)
        specs = super()._measure(samples)
        if self.standardize:
            return specs
        return {
            m: replace(spec, mean=np.zeros_like(spec.mean), std=np.ones_like(spec.std))
            for m, spec in specs.items()
        }

    # ------------------------------------------------------------------ training

    def _make_module(self) -> SDTNet:
        return SDTNet(
            n_classes=len(self.classes_),
            inputs=self._specs,
            n_speakers=len(self.speakers_),
            hidden=self.hidden,
            n_heads=self.n_heads,
            dropout=self.dropout,
            unimodal_gate=self.unimodal_gate,
        )

    def _make_batches(self, samples: Samples, labels: dict[str, np.ndarray]) -> DialogueBatches:
        batches = DialogueBatches(
            samples,
            labels,
            self.batch_size,
            self._random_state,
            self.speakers_,
            CURRENT.get(),
            self.modality_dropout,
            pinned=self._on_cuda(),
        )
        if FUSED not in self._class_weights:
            self._class_weights[FUSED] = self._weights(batches.labels)
        return batches

    def infer(self, x: DialogueBatch, **_) -> SDTOutput:
        """Send one batch of dialogues through the network, on its device."""
        speaker = x.speaker.to(self.device_, non_blocking=True)
        arguments = self._arguments(x.cells, x.index, x.ignored)
        return self.module_(**arguments, lengths=x.lengths, speaker=speaker)

    def _common_features(self, output: SDTOutput, modality: str) -> torch.Tensor:
        # The sum that the gates weigh, which is of one modality here.
        return output.layers[FUSED][-1]

    def _loss_terms(self, output: SDTOutput, y: dict[str, torch.Tensor]):
        labels = y[FUSED]
        kept = distillation(output, self.temperature, self.detach_teacher)
        terms = {
            "ce": self._cross_entropy(FUSED, output.logits[FUSED], labels),
            "unimodal": sum(
                self._cross_entropy(FUSED, output.logits[m], labels.where(there, -1))
                for m, there in output.present.items()
            ),
            "distillation": sum(kept.values()),
        }
        loss = (
            terms["ce"]
            + self.unimodal_weight * terms["unimodal"]
            + self.distillation_weight * terms["distillation"]
        )
        return loss, terms

    def _row_outputs(self, samples: Samples, n: int):
        """Return log-probabilities and features of rows, whose dialogues are read as wholes."""
        reader = DialogueReader(samples, n, self.speakers_, CURRENT.get())

        def arguments(chosen: np.ndarray) -> dict:
            index, lengths, speaker, _ = reader.plan(chosen)
            cells, places = gather(samples, index, None)
            context = {"lengths": lengths, "speaker": speaker.to(self.device_)}
            return self._arguments(cells, places) | context

        outputs = self._network_output(arguments, len(reader.runs), FUSED)
        rows = np.concatenate(reader.runs)
        return tuple(mean_by_row(v, rows, n) for v in outputs)
