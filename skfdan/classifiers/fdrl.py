"""FDRLClassifier: what two modalities share and what each has alone, by adversaries."""

from __future__ import annotations

from typing import ClassVar

import torch

from skfdan.classifiers._params import check_number
from skfdan.classifiers._pretrained import PretrainedClassifier
from skfdan.nn.fdan import FUSED
from skfdan.nn.fdrl import FDRL_ABLATIONS, FDRLLoss, FDRLNet, FDRLOutput
from skfdan.nn.pretrained_layers import LastLayers
from skfdan.table import MODALITIES, TEXT

__all__ = ["FDRLClassifier"]


class FDRLClassifier(PretrainedClassifier):
    r"""Fine-grained disentangled representation learning of two modalities.

    Of every modality FDRL [1]_ has a shared representation S, by one encoder for
    both, and a private one P. Discriminators behind a gradient reversal make the
    shared ones alike, over all rows (L_g) and within each emotion (L_l), weighed
    by a dynamic factor μ; a discriminator without reversal and an orthogonality
    loss keep the private ones apart (L_p, L_d); one predictor reads the emotion
    from each (L_f). Multi-head self-attention fuses the four. Training minimises

    .. math::

        L_{task} + \alpha [(1 - \mu) L_g + \mu L_l] + \beta (L_p + L_d) + \gamma L_f.

    It reads embeddings: vectors (d,), or sequences (T, d), which are averaged
    over time. :class:`skfdan.preprocessing.Wav2Vec2Embedding` and
    :class:`skfdan.preprocessing.TextEmbedding` make them. Speech and text are what was
    published; other pairs of modalities work the same and are no published system.

    The paper trains its encoders, wav2vec 2.0 and BERT, along. ``n_trainable_layers``
    does so with the last layers of the models that ``speech_model`` and ``text_model``
    name: cells are then what the layers before make of a clip, computed once by
    ``Wav2Vec2Embedding(speech_model, layer=-1 - n_trainable_layers)`` and
    ``TextEmbedding(text_model, layer=-1 - n_trainable_layers)``, and the mean of the
    encoder's output over time goes on. Without it the encoders stay frozen.

    A row may lack a modality, in training as in prediction. It then counts in
    the terms that need no partner, and its tokens are masked in the fusion.

    Parameters
    ----------
    modalities : tuple of two of {"audio", "text", "visual"}, default=("audio", "text")
        What is read; other columns are left alone.
    speech_model : str, path-like or None, default=None
        The wav2vec 2.0 or HuBERT whose last layers are trained along, as
        :class:`skfdan.preprocessing.Wav2Vec2Embedding` takes it. Its voices are not
        normalised. The files are read by ``fit`` alone. Which was published is not said.
    text_model : str, path-like or None, default=None
        The same of words: a BERT or RoBERTa, as
        :class:`skfdan.preprocessing.TextEmbedding` takes it.
    n_trainable_layers : int, default=0
        How many transformer layers of each named model are trained along: at most all
        but the first. Published are all.
    alpha : float, default=1.0
        Weight of the alignment. Published.
    beta : float, default=0.5
        Weight of the disparity, L_p and L_d. Published.
    gamma : float, default=1.0
        Weight of the predictor. Published.
    mu : {"error-rate", "paper"} or float, default="error-rate"
        The dynamic factor. "error-rate" takes the A-distances from the
        discriminators' error rates of the last epoch, and stays within [0, 1].
        "paper" puts their losses there, as eq. 6 and 7 have it, and may leave
        [0, 1]: a loss has no upper limit. A number is kept.
    mu_rule : {"paper", "reversed"}, default="paper"
        Which loss gets μ: the local one (eq. 15), or, as in the released code of
        DAAN, on which the paper builds, the global one.
    local_weighting : {"input", "output"}, default="input"
        Where a class's probability enters its discriminator: its input, as in
        DAAN, or its output, as in eq. 5.
    orthogonality : {"normalized", "paper"}, default="normalized"
        L_d of centred rows of unit length, averaged, or :math:`\|S^T P\|_F^2`,
        which grows with the square of the batch.
    ablation : {"S1", "S2", "S3", "S4", "S5", "S6"} or None, default=None
        Leaves out what the paper's ablation leaves out: S1 alignment and
        disparity, S2 the global and S3 the local alignment, S4 both, S5 the
        disparity, S6 the predictor.
    reversal : float, default=1.0
        Coefficient of the gradient reversal. Not published.
    modality_dropout : float, default=0.0
        Share of the training rows with both modalities of which the fusion sees
        one alone, a random one each time. Ours, for predictions of partial rows.
    hidden : int, default=256
        Width of all representations. Not published.
    n_heads : int, default=4
        Attention heads. Not published.
    dropout : float, default=0.1
        Dropout before the classifier, and in trained layers of encoders. Not published.
    lr : float, default=1e-3
        Learning rate. Published is 1e-5 for everything, encoders and what follows them.
    encoder_lr : float, default=1e-5
        Learning rate of the layers of encoders. Published.
    lr_schedule : {"cosine", "constant"}, default="cosine"
        How the learning rate goes over the epochs of ``fit``: down to 0 along
        half a cosine, or not at all. ``partial_fit`` always keeps it.
    weight_decay : float, default=0.01
        Weight decay; AdamW's own default.
    max_epochs : int, default=100
        Epochs; one is a pass through the audio samples. Published as an upper bound.
    batch_size : int, default=32
        Audio samples in a step. Rows without audio are spread evenly over the steps, each at
        most once an epoch and as many in a step at most. Published is 8.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the cross-entropy of L_task, keyed by label.
    predict_modality : {"fused", "audio", "text", "visual"}, default="fused"
        Which cells a prediction reads. ``"fused"`` fuses those that a row has;
        the others read one modality, whatever else the row has. Can be changed
        after ``fit``.
    visual, audio, text : slice, list of int or list of str, default=None
        For a flat matrix X: the columns of each modality. Without them the
        whole matrix is audio, or the first of ``modalities``.
    early_stopping : bool, default=False
        Stop when the UAR of a validation part of the training rows no longer
        rises, and keep the best epoch. Test data never take part.
    validation_fraction : float, default=0.1
        Share of the rows (or of ``groups``, if given to ``fit``) held out.
    n_iter_no_change : int, default=10
        Epochs without improvement to wait for.
    on_error : {"raise", "missing", "skip"}, default="raise"
        What becomes of a row without a usable cell. "raise" refuses it;
        otherwise it is left out of the training, and at prediction gets the
        shares of the classes in the training (``class_count_``). A warning
        names the rows, ``report_`` lists them.
    checkpoint_dir : path-like or None, default=None
        Folder in which ``fit`` keeps its state, anew after every epoch, and from
        which an interrupted one goes on. "{fit}" in the name stands for a hash
        of parameters and data.
    optimizer : type, default=torch.optim.AdamW
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
    module_ : Module
        The trained network, a :class:`skfdan.nn.FDRLNet`.
    criterion_ : Module
        The discriminators, a :class:`skfdan.nn.FDRLLoss`.
    history_ : skorch.history.History
        A row an epoch: ``train_loss``, its unweighted terms, ``mu``, ``feature_std``
        (spread of the features over a batch, relative to their size; of every fourth
        batch), ``valid_uar`` with early stopping, ``dur`` in seconds.
    device_ : str
        Where it was trained, and predicts: "cpu", "cuda", ...
    report_ : DataFrame
        What ``fit`` could not use: row, file, stage and reason.
    class_count_ : ndarray of shape (n_classes,)
        Training rows of each class.
    encoder_layers_ : dict
        Of each modality whose encoder is trained along, what its layers look like; see
        :class:`skfdan.nn.LayerShape`.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of str
        Column names of a flat frame.

    Raises
    ------
    ValueError
        At ``fit``, if ``modalities`` are not two different ones, a cell is no
        embedding, or a model can't be used, or not with these cells.

    References
    ----------
    .. [1] H. Sun et al., "Fine-Grained Disentangled Representation Learning for
       Multimodal Emotion Recognition", ICASSP 2024.

    Examples
    --------
    Voices that tell the arousal, and words that tell the valence:

    >>> import numpy as np
    >>> from skfdan import make_table
    >>> from skfdan.classifiers import FDRLClassifier
    >>> loud, kind = np.tile([0, 0, 1, 1], 10), np.tile([0, 1, 0, 1], 10)
    >>> X = make_table(audio=np.eye(2)[loud], text=np.eye(2)[kind])
    >>> y = np.array(["sadness", "calm", "anger", "joy"])[2 * loud + kind]
    >>> clf = FDRLClassifier(hidden=64, max_epochs=30, random_state=0).fit(X, y)
    >>> clf.predict(X[:4]).tolist()
    ['sadness', 'calm', 'anger', 'joy']
    """

    fidelity: ClassVar[str] = "partial"
    _encoder_params: ClassVar[dict[str, str]] = {"audio": "speech_model", "text": "text_model"}
    _depth_param: ClassVar[str] = "n_trainable_layers"
    _whole: ClassVar[frozenset[str]] = PretrainedClassifier._whole | {"n_trainable_layers"}

    def __init__(
        self,
        *,
        modalities=("audio", "text"),
        speech_model=None,
        text_model=None,
        n_trainable_layers=0,
        alpha=1.0,
        beta=0.5,
        gamma=1.0,
        mu="error-rate",
        mu_rule="paper",
        local_weighting="input",
        orthogonality="normalized",
        ablation=None,
        reversal=1.0,
        modality_dropout=0.0,
        hidden=256,
        n_heads=4,
        dropout=0.1,
        lr=1e-3,
        encoder_lr=1e-5,
        lr_schedule="cosine",
        weight_decay=0.01,
        max_epochs=100,
        batch_size=32,
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
        optimizer=torch.optim.AdamW,
        optimizer_params=None,
        device="auto",
        random_state=None,
        callbacks=None,
        verbose=1,
    ):
        self.modalities = modalities
        self.speech_model = speech_model
        self.text_model = text_model
        self.n_trainable_layers = n_trainable_layers
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.mu = mu
        self.mu_rule = mu_rule
        self.local_weighting = local_weighting
        self.orthogonality = orthogonality
        self.ablation = ablation
        self.reversal = reversal
        self.modality_dropout = modality_dropout
        self.hidden = hidden
        self.n_heads = n_heads
        self.dropout = dropout
        self.lr = lr
        self.encoder_lr = encoder_lr
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

    _bounds: ClassVar[dict] = PretrainedClassifier._bounds | {
        "encoder_lr": (0, None),
        "n_trainable_layers": (0, None),
        "alpha": (0, None),
        "beta": (0, None),
        "gamma": (0, None),
        "reversal": (0, None),
        "modality_dropout": (0, 1),
        "hidden": (1, None),
        "n_heads": (1, None),
        "dropout": (0, 1),
    }

    @property
    def _embedded_as(self) -> dict[str, str]:
        # A sequence goes through the trained layers before it is averaged.
        sequences = dict.fromkeys(self._encoders(), "sequence")
        return dict.fromkeys((*MODALITIES, TEXT), "vector") | sequences

    def _check_params(self) -> None:
        self._check_modalities((*MODALITIES, TEXT), 2)
        super()._check_params()
        if self.n_trainable_layers and not self._encoders():
            raise ValueError(
                f"n_trainable_layers={self.n_trainable_layers}: of which models? Name them, "
                "speech_model= or text_model=."
            )
        self._check_choice("mu_rule", ("paper", "reversed"))
        self._check_choice("local_weighting", ("input", "output"))
        self._check_choice("orthogonality", ("normalized", "paper"))
        self._check_choice("ablation", (None, *FDRL_ABLATIONS))
        if isinstance(self.mu, str):
            self._check_choice("mu", ("error-rate", "paper"))
        else:
            check_number("mu", self.mu, 0, 1, other='"error-rate" or "paper"')

    # ------------------------------------------------------------------ training

    def _make_module(self) -> FDRLNet:
        return FDRLNet(
            n_classes=len(self.classes_),
            inputs=self._specs,
            hidden=self.hidden,
            n_heads=self.n_heads,
            dropout=self.dropout,
            encoders=self._shapes(),
            n_layers=self.n_trainable_layers,
        )

    def _trained_layers(self, modality: str) -> LastLayers:
        return self.module_.encoders[modality]

    def _make_criterion(self) -> FDRLLoss:
        return FDRLLoss(
            n_features=self.hidden,
            n_classes=len(self.classes_),
            mu=self.mu,
            mu_rule=self.mu_rule,
            local_weighting=self.local_weighting,
            orthogonality=self.orthogonality,
            ablation=self.ablation,
        )

    def _common_features(self, output: FDRLOutput, modality: str) -> torch.Tensor:
        return output.shared[modality][output.index[modality]]

    def _loss_terms(self, output: FDRLOutput, y: dict[str, torch.Tensor]):
        task = self._cross_entropy(FUSED, output.logits[FUSED], y[FUSED])
        extra, terms = self.criterion_(
            output, y[FUSED], self.alpha, self.beta, self.gamma, self.reversal
        )
        return task + extra, {"ce": task, **terms}

    def on_epoch_end(self, net, **kwargs) -> None:
        """Let the discriminators' error rates of the epoch set μ."""
        super().on_epoch_end(net, **kwargs)
        self.criterion_.end_epoch()
