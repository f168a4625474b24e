"""MISAClassifier: modality-invariant and -specific representations of voice, face and words."""

from __future__ import annotations

from typing import ClassVar

import torch

from skfdan.classifiers._params import check_number
from skfdan.classifiers.joint import JointClassifier
from skfdan.nn.fdan import FUSED
from skfdan.nn.misa import MISANet, MISAOutput, misa_losses
from skfdan.table import MODALITIES, TEXT

__all__ = ["MISAClassifier"]


class MISAClassifier(JointClassifier):
    r"""MISA on voice, face and words, of which a row may lack any.

    MISA [1]_ reads all three (six tokens) and predicts sentiment; here the labels
    are emotions. Text comes as embeddings, of which sequences are averaged over
    their tokens, as the released code does with BERT's
    (:class:`skfdan.preprocessing.TextEmbedding`). Image-like cells of voice and
    face are encoded by a ``backbone`` instead of stacked LSTMs; vectors are taken
    as encoded. What lies above the encoders, the losses and their weights are
    those of the released code. Without text four tokens remain, an adaptation
    that was never published.

    Every modality has a private representation, of what it alone says, and a
    shared one, of what it has in common with the others. A transformer layer
    fuses them all. Training minimises

    .. math::

        \mathrm{CE} + 0.3 \, L_{diff} + L_{CMD} + L_{recon}.

    L_diff keeps private and shared apart, and the private ones of different
    modalities; L_CMD makes the shared ones alike in distribution; L_recon
    rebuilds the encoding from private plus shared.

    **Rows count**: the cells of a row are one clip and are fused. A row may lack
    a modality, in training as in prediction; its tokens are masked in the
    attention and zero in the fusion, and the comparison of private
    representations leaves the row out. Faces of one corpus and voices of
    another (:func:`skfdan.stack_modalities`) therefore train it too. Frames of a
    row take turns over the epochs, and a prediction averages the
    log-probabilities of all frames, each with the row's voice.

    Parameters
    ----------
    diff_weight : float, default=0.3
        Weight of L_diff. Published.
    cmd_weight : float, default=1.0
        Weight of L_CMD. Published.
    recon_weight : float, default=1.0
        Weight of L_recon. Published.
    modality_dropout : float, default=0.3
        Share of the training rows with several modalities of which the fusion
        sees one alone, a random one each time; all other losses see both. 0 is
        published. It is not the default because a classifier that has only
        seen whole rows has not learned to read partial ones, such as voices
        without faces: on synthetic vectors with clear faces and faint voices
        (5 seeds) the UAR of voices alone rose from 0.57 to 0.62, and that of
        whole rows stayed at 0.98.
    hidden : int, default=128
        Width of all representations. Published.
    n_heads : int, default=2
        Attention heads. Published.
    ffn_dim : int, default=2048
        Width of the feed-forward part of the transformer layer. torch's
        default; the paper does not name one.
    dropout : float, default=0.5
        Dropout before the classifier. Published.
    lr : float, default=1e-4
        Learning rate. Published.
    lr_schedule : {"cosine", "constant"}, default="cosine"
        How the learning rate goes over the epochs of ``fit``: down to 0 along
        half a cosine, or not at all. The released code halves it whenever the
        validation loss stalls. ``partial_fit`` always keeps it.
    weight_decay : float, default=0.0
        Weight decay.
    clip_value : float or None, default=1.0
        Bound of the absolute value of every gradient entry; None sets no bound.
        Published.
    max_epochs : int, default=100
        Epochs; one is a pass through the audio samples. Ours.
    batch_size : int, default=32
        Audio samples in a step. Rows without audio are spread evenly over the steps, each at
        most once an epoch and as many in a step at most. The published settings
        lie between 16 and 64.
    backbone : str or callable, default="resnet34"
        Embeds image-like cells: "resnet34", "resnet18", "resnet50", "vgg16",
        "vgg19" or "cnn" (a small one), or a callable that returns a module and
        its number of features. Cells that are vectors are taken as embedded
        already. Ours, as in :class:`skfdan.FDANClassifier`; the released code has
        bidirectional LSTMs over sequences of features.
    weights : {"DEFAULT"}, path or None, default="DEFAULT"
        Weights the backbones start from: torchvision's ImageNet weights, a file
        with a state dict, or random.
    backbone_trainable : bool or str, default=True
        False freezes the backbones: each cell goes through them once, before the
        first epoch, and the layers above are trained on what they gave, of which
        this process keeps 1 GiB for the fits to come (those of a search), and
        ``cache_dir`` everything. The name of a
        stage (ResNets: "layer1" to "layer4") freezes what comes before it. The
        statistics that images of floats are normalised with are then rounded, so
        that folds can share.
    precision : {"float32", "bfloat16"}, default="float32"
        In what the backbones compute. "bfloat16" is two to three times as fast on
        hardware that knows it, and exact to two or three digits.
    input_size : int or None, default=224
        Side in pixels to which the network resizes image-like cells; None keeps
        the cells' size.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the cross-entropy, keyed by label.
    predict_modality : {"fused", "audio", "visual", "text"}, default="fused"
        Which cells a prediction reads. ``"fused"`` fuses those that a row has;
        the others read one modality, whatever else the row has; a single array
        of images or spectrograms needs one of them. Can be changed after
        ``fit``.
    visual, audio, text : slice, list of int or list of str, default=None
        For a flat matrix X: the columns of each modality. Without them the
        whole matrix is audio, or belongs to ``predict_modality``.
    early_stopping : bool, default=False
        Stop when the UAR of a validation part of the training rows no longer
        rises, and keep the best epoch. Test data never take part.
    validation_fraction : float, default=0.1
        Share of the rows (or of ``groups``, if given to ``fit``) held out.
    n_iter_no_change : int, default=6
        Epochs without improvement to wait for. Published.
    visual_transformer, audio_transformer : transformer or None, default=None
        What decodes cells that are paths, batch by batch, for corpora that do
        not fit in memory. None is ``FaceFrames(n_frames=1, on_no_face="center")``
        and ``MelSpectrogram()``. Of a clip's frames, each epoch takes the next
        one, a prediction all. Without ``cache_dir``, every epoch decodes again;
        other than "raise", ``on_error`` reads every file once before the first.
        ``transform`` is called, so nothing is cropped at random.
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
    cache_dir : path-like or None, default=None
        Folder that keeps what frozen backbones gave, for other processes too.
        Entries are found again by the cell's content and the backbone's weights.
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
    module_ : Module
        The trained network, a :class:`skfdan.nn.MISANet`.
    history_ : skorch.history.History
        A row an epoch: ``train_loss``, its unweighted terms ``ce``, ``diff``, ``cmd``
        and ``recon``, ``feature_std`` (spread of the features over a batch, relative to
        their size; of every fourth batch), ``valid_uar`` with early stopping, ``dur``
        in seconds.
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

    Raises
    ------
    RuntimeError
        At ``fit``, if ImageNet weights are asked for and can't be had.

    References
    ----------
    .. [1] D. Hazarika, R. Zimmermann, S. Poria, "MISA: Modality-Invariant and
       -Specific Representations for Multimodal Sentiment Analysis", ACM
       Multimedia 2020.

    Examples
    --------
    Voices and faces that tell the emotion only together:

    >>> import numpy as np
    >>> from skfdan.classifiers import MISAClassifier
    >>> high, smile = np.tile([0, 0, 1, 1], 10), np.tile([0, 1, 0, 1], 10)
    >>> X_aud, X_vis = np.eye(2)[high], np.eye(2)[smile]
    >>> y = np.where(high == smile, "calm", "irony")
    >>> clf = MISAClassifier(lr=0.003, ffn_dim=64, max_epochs=40, random_state=0)
    >>> clf.fit(X_vis, X_aud, y).predict({"visual": X_vis[:2], "audio": X_aud[:2]}).tolist()
    ['calm', 'irony']
    """

    fidelity: ClassVar[str] = "partial"
    _modalities: ClassVar[tuple[str, ...]] = (*MODALITIES, TEXT)

    def __init__(
        self,
        *,
        diff_weight=0.3,
        cmd_weight=1.0,
        recon_weight=1.0,
        modality_dropout=0.3,
        hidden=128,
        n_heads=2,
        ffn_dim=2048,
        dropout=0.5,
        lr=1e-4,
        lr_schedule="cosine",
        weight_decay=0.0,
        clip_value=1.0,
        max_epochs=100,
        batch_size=32,
        backbone="resnet34",
        weights="DEFAULT",
        backbone_trainable=True,
        precision="float32",
        input_size=224,
        class_weight=None,
        predict_modality=FUSED,
        visual=None,
        audio=None,
        text=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=6,
        visual_transformer=None,
        audio_transformer=None,
        on_error="raise",
        checkpoint_dir=None,
        cache_dir=None,
        optimizer=torch.optim.Adam,
        optimizer_params=None,
        device="auto",
        random_state=None,
        callbacks=None,
        verbose=1,
    ):
        self.diff_weight = diff_weight
        self.cmd_weight = cmd_weight
        self.recon_weight = recon_weight
        self.modality_dropout = modality_dropout
        self.hidden = hidden
        self.n_heads = n_heads
        self.ffn_dim = ffn_dim
        self.dropout = dropout
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.weight_decay = weight_decay
        self.clip_value = clip_value
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.backbone = backbone
        self.weights = weights
        self.backbone_trainable = backbone_trainable
        self.precision = precision
        self.input_size = input_size
        self.class_weight = class_weight
        self.predict_modality = predict_modality
        self.visual = visual
        self.audio = audio
        self.text = text
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.visual_transformer = visual_transformer
        self.audio_transformer = audio_transformer
        self.on_error = on_error
        self.checkpoint_dir = checkpoint_dir
        self.cache_dir = cache_dir
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.device = device
        self.random_state = random_state
        self.callbacks = callbacks
        self.verbose = verbose

    _bounds: ClassVar[dict] = JointClassifier._bounds | {
        "diff_weight": (0, None),
        "cmd_weight": (0, None),
        "recon_weight": (0, None),
        "modality_dropout": (0, 1),
        "hidden": (1, None),
        "n_heads": (1, None),
        "ffn_dim": (1, None),
        "dropout": (0, 1),
    }

    def _check_params(self) -> None:
        super()._check_params()
        if self.clip_value is not None:
            check_number("clip_value", self.clip_value, 0, strict=True, other="None")

    # ------------------------------------------------------------------ training

    def _make_module(self) -> MISANet:
        return MISANet(
            n_classes=len(self.classes_),
            inputs=self._specs,
            backbone=self.backbone,
            weights=self.weights,
            backbone_trainable=self._trainable,
            precision=self.precision,
            input_size=self.input_size,
            hidden=self.hidden,
            n_heads=self.n_heads,
            ffn_dim=self.ffn_dim,
            dropout=self.dropout,
        )

    def _common_features(self, output: MISAOutput, modality: str) -> torch.Tensor:
        return output.shared[modality][output.index[modality]]

    def _loss_terms(self, output: MISAOutput, y: dict[str, torch.Tensor]):
        terms = {"ce": self._cross_entropy(FUSED, output.logits[FUSED], y[FUSED])}
        terms |= misa_losses(output)
        loss = (
            terms["ce"]
            + self.diff_weight * terms["diff"]
            + self.cmd_weight * terms["cmd"]
            + self.recon_weight * terms["recon"]
        )
        return loss, terms

    def on_grad_computed(self, net, named_parameters, **kwargs):
        """Bound the entries of the gradients, before every step."""
        super().on_grad_computed(net, named_parameters, **kwargs)
        if self.clip_value is not None:
            torch.nn.utils.clip_grad_value_([p for _, p in named_parameters], self.clip_value)
