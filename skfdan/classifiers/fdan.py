"""FDANClassifier: the feature distribution adaptation network as a scikit-learn classifier."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from skfdan.classifiers._bank import BankMixin
from skfdan.classifiers._batches import Batches
from skfdan.classifiers._params import check_number
from skfdan.classifiers._recipes import FDANRecipes
from skfdan.classifiers._samples import Samples
from skfdan.classifiers.base import ModalityClassifier
from skfdan.nn.adaptation import ADAPTATIONS, AdaptationLoss
from skfdan.nn.fdan import FDANNet, FDANOutput
from skfdan.nn.fdan_official import OfficialFDANNet
from skfdan.nn.losses import dsan_ramp
from skfdan.table import MODALITIES

__all__ = ["ALPHA_GRID", "WEIGHT_DECAY_GRID", "FDANClassifier"]

#: The values of α that the paper searches (section 3.2).
ALPHA_GRID = (1e-3, 1e-4, 1e-5)

#: The values of "decay" that the paper searches (section 3.2), read as weight decay.
WEIGHT_DECAY_GRID = (1e-3, 1e-4)


class FDANClassifier(FDANRecipes, BankMixin, ModalityClassifier):
    r"""Speech emotion recognition with feature distribution adaptation (FDAN).

    Two backbones embed Mel spectrograms and face frames, cross-attention
    propagates information between the modalities (Eq. 2-4), one classifier
    reads both, and a local MMD aligns their class-wise distributions. Training
    minimises Eq. 9,

    .. math::

        \frac{1}{n_a}\sum_n J(f(x_{an}), y_{an}) + \frac{1}{n_v}\sum_n J(f(x_{vn}), y_{vn})
        + \alpha \sum_{i \in l} d_i(p_v, p_a).

    Faces and voices need not belong to the same clips, people or corpora. The
    fitted classifier hears only a voice, unless ``predict_modality`` says
    otherwise.

    ``adaptation`` puts another distance in the place of the local MMD; with any
    but the paper's (and None), rows may lack a label. A label is missing if it is None or
    NaN, or -1 among integers (unless -1 and one other are the only labels, or
    ``classes`` of ``partial_fit`` holds it). Such a row takes part in
    adaptation, not in J.

    Parameters
    ----------
    adaptation : {"lmmd", "dsan", "mmd", "coral", "dann", "daan", "cmd"} or None, default="lmmd"
        What brings faces (the source) and voices (the target) together on every
        adapted layer. All but the first are here to compare with.

        - ``"lmmd"``: local MMD between true labels, Eq. 8. The paper's.
        - ``"dsan"``: local MMD [2]_ in which a row without a label counts by the
          network's class probabilities. With all labels it equals ``"lmmd"``.
          Early probabilities mislead: without labels, set ``ramp="dsan"`` too.
        - ``"mmd"``, ``"coral"``, ``"cmd"``: distances that need no labels, see
          :func:`skfdan.nn.mmd`, :func:`skfdan.nn.coral`, :func:`skfdan.nn.cmd`.
        - ``"dann"``, ``"daan"``: discriminators behind a gradient reversal whose
          coefficient grows as ``ramp="dsan"`` does, see
          :class:`skfdan.nn.DANNLoss` and :class:`skfdan.nn.DAANLoss`.
        - None: nothing does.
    alpha : float, default=1e-3
        Weight α of the adaptation loss. The paper searches :data:`skfdan.classifiers.ALPHA_GRID`;
        0 is its ablation FDAN2. Other methods were published with more: 0.5 for
        ``"dsan"``, 1 for ``"dann"``, whose discriminators learn at α times
        ``lr`` here.
    weight_decay : float, default=1e-4
        Weight decay. The paper searches "decay" in :data:`skfdan.classifiers.WEIGHT_DECAY_GRID`
        without saying of what.
    lr : float, default=1e-3
        Learning rate. The paper is silent.
    lr_schedule : {"cosine", "constant"}, default="cosine"
        How the learning rate goes over the epochs of ``fit``: down to 0 along
        half a cosine, or not at all. The paper is silent; with a constant rate
        the last epoch's score varies widely between seeds. ``partial_fit``
        always keeps it.
    momentum : float, default=0.99
        Momentum of SGD. From the paper.
    max_epochs : int, default=300
        Epochs; one is a pass through the audio samples. From the paper.
    batch_size : int, default=32
        Samples of each modality in a step. From the paper.
    backbone : str or callable, default="resnet34"
        Embeds image-like cells: "resnet34" (the paper's), "resnet18",
        "resnet50", "vgg16", "vgg19" or "cnn" (a small one). Cells that are
        vectors are taken as embedded already. A callable returns a module and
        its number of features; a copy of the module is trained.
    weights : {"DEFAULT"}, path or None, default="DEFAULT"
        Weights the backbones start from: torchvision's ImageNet weights (the
        paper's), a file with a state dict, or random.
    backbone_trainable : bool or str, default=True
        False freezes the backbones: each cell goes through them once, before the
        first epoch, and the layers above are trained on what they gave, of which
        this process keeps 1 GiB for the fits to come (those of a search), and
        ``cache_dir`` everything. The name of a
        stage (ResNets: "layer1" to "layer4") freezes what comes before it. The
        statistics that images of floats are normalised with are then rounded, so
        that folds can share. The paper fine-tunes.
    precision : {"float32", "bfloat16"}, default="float32"
        In what the backbones compute. "bfloat16" is two to three times as fast on
        hardware that knows it, and exact to two or three digits.
    shared_backbone : bool, default=False
        One backbone for both modalities. The paper has one each, the released
        code one for both.
    shared_bottleneck : bool, default=False
        One bottleneck for both modalities, whose backbones must then give
        equally many features. The paper is silent, the released code has one.
        Set this and ``shared_backbone`` if *no* voice has a label: on a branch
        of its own nothing tells voices which class is which.
    input_size : int or None, default=224
        Side in pixels to which the network resizes image-like cells; None keeps
        the cells' size. The paper is silent; 224 is what ImageNet weights know.
    bottleneck : int, default=256
        Width of the bottleneck. The paper is silent; the released code has 256.
    n_layers : int, default=1
        Cross-attention layers, l of Eq. 9. The paper does not give l; 0 is its
        ablation FDAN1 (LMMD then works on the bottleneck).
    n_heads : int, default=1
        Attention heads. From the paper.
    ffn_dim : int or None, default=None
        Width of the feed-forward networks; None is twice the bottleneck. The
        paper is silent.
    dropout : float, default=0.0
        Dropout after the bottleneck and in the feed-forward networks. The paper
        is silent.
    ramp : {None, "dsan"}, default=None
        How α grows over training: not at all (the paper), or with
        :func:`skfdan.nn.dsan_ramp`. With α of 0.5 and more, features collapse
        easily without a ramp.
    lmmd_normalize : bool, default=False
        Divide features by their norm within ``"lmmd"``, ``"dsan"`` and
        ``"mmd"``, another guard for large α.
    variant : {"paper", "official"}, default="paper"
        ``"official"`` computes what the released code computes, defects
        included (see :class:`skfdan.nn.OfficialFDANNet`), to compare with only:
        ``shared_backbone``, ``shared_bottleneck``, ``n_layers``, ``n_heads``, ``ffn_dim``,
        ``dropout``, ``ramp`` and ``inference`` have no effect there; α grows with every
        step, by :func:`skfdan.nn.dsan_ramp` with ``gamma=1``, from 0 to 0.46 times
        ``alpha``. Training settings (lr, momentum, epochs) stay yours.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the cross-entropy of each modality, keyed by
        label.
    predict_modality : {"audio", "visual", "fused"}, default="audio"
        Which cells a prediction reads. ``"fused"`` averages the log-probabilities
        of those that a row has. Can be changed after ``fit``.
    inference : {"bank", "bypass"}, default="bank"
        What takes the other modality's part in the attention at prediction.
        ``"bank"``: a fixed, class-balanced sample of its training features.
        ``"bypass"``: nothing is propagated (ΔZ = 0 in Eq. 4). Either way a
        prediction depends on its own row only. The paper is silent.
    bank_size : int, default=256
        Samples in the bank, divided among the classes.
    visual, audio : slice, list of int or list of str, default=None
        For a flat matrix X: the columns of each modality. Without them the
        whole matrix belongs to ``predict_modality``.
    early_stopping : bool, default=False
        Stop when the UAR of a validation part of the training rows no longer
        rises, and keep the best epoch. Test data never take part.
    validation_fraction : float, default=0.1
        Share of the rows (or of ``groups``, if given to ``fit``) held out.
    n_iter_no_change : int, default=10
        Epochs without improvement to wait for.
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
    optimizer : type, default=torch.optim.SGD
        Optimiser class. The paper is silent beyond "momentum".
    optimizer_params : dict or None, default=None
        Further arguments of the optimiser, such as ``{"nesterov": True}``.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...; ``"auto"`` takes a GPU if there
        is one.
    random_state : int, RandomState instance or None, default=None
        Seeds initial weights, batches, dropout and the bank.
    callbacks : list of skorch callbacks or None, default=None
        Called during training. Those that predict do so in ``on_epoch_end``; those
        that look at ``valid_loss`` find none.
    verbose : int, default=1
        0 is silent, 1 shows a progress bar where one can be watched, 2 prints
        a line an epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    module_ : Module
        The trained network.
    history_ : skorch.history.History
        A row an epoch: ``train_loss``, its terms ``ce_audio``, ``ce_visual``,
        the adaptation loss under its name, such as ``lmmd`` (unweighted), and
        ``alpha`` (as used; the mean over the steps, between which it grows with
        ``variant="official"`` alone), with ``"daan"`` its factor ``mu``, ``feature_std``
        (spread of the features over a batch, relative to their size; of every fourth batch),
        ``valid_uar`` with early stopping, ``dur`` in seconds.
    reference_bank_ : dict of modality to ndarray of shape (n_layers, n_bank, bottleneck)
        Features that stand in for a modality at prediction.
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

    Notes
    -----
    ``fidelity`` is "partial": the paper gives the loss, the attention and the
    settings marked so above, but no learning rate, optimiser, l, width or rule
    of prediction; the other adaptations are the published losses on this
    network.

    References
    ----------
    .. [1] S. Li, Y. Ji, P. Song, H. Sun, W. Zheng, "Multi-modal Speech Emotion
       Recognition via Feature Distribution Adaptation Network".
    .. [2] Y. Zhu et al., "Deep Subdomain Adaptation Network for Image
       Classification", IEEE TNNLS 32(4), 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skfdan import FDANClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = np.array(["anger", "joy"] * 10)
    >>> X_aud = rng.normal(size=(20, 16, 12)) + (y == "joy")[:, None, None]
    >>> X_vis = rng.integers(0, 99, (20, 3, 16, 16)) + 99 * (y == "joy")[:, None, None, None]
    >>> clf = FDANClassifier(backbone="cnn", weights=None, input_size=16, lr=0.01, momentum=0.9,
    ...                      max_epochs=20, random_state=0)
    >>> clf.fit(X_vis.astype(np.uint8), X_aud, y).predict(X_aud[:2]).tolist()
    ['anger', 'joy']

    Voices without labels, on one network for both modalities:

    >>> X_aud = (X_vis / 99.0)[:, 0]
    >>> clf = FDANClassifier.dsan(backbone="cnn", weights=None, input_size=16, max_epochs=20,
    ...                           random_state=0)
    >>> clf = clf.fit(X_vis.astype(np.uint8), X_aud, y_vis=y, y_aud=[None] * 20)
    >>> clf.predict(X_aud[:2]).tolist()
    ['anger', 'joy']
    """

    fidelity: ClassVar[str] = "partial"

    def __init__(
        self,
        *,
        adaptation="lmmd",
        alpha=1e-3,
        weight_decay=1e-4,
        lr=1e-3,
        lr_schedule="cosine",
        momentum=0.99,
        max_epochs=300,
        batch_size=32,
        backbone="resnet34",
        weights="DEFAULT",
        backbone_trainable=True,
        precision="float32",
        shared_backbone=False,
        shared_bottleneck=False,
        input_size=224,
        bottleneck=256,
        n_layers=1,
        n_heads=1,
        ffn_dim=None,
        dropout=0.0,
        ramp=None,
        lmmd_normalize=False,
        variant="paper",
        class_weight=None,
        predict_modality="audio",
        inference="bank",
        bank_size=256,
        visual=None,
        audio=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        visual_transformer=None,
        audio_transformer=None,
        on_error="raise",
        checkpoint_dir=None,
        cache_dir=None,
        optimizer=torch.optim.SGD,
        optimizer_params=None,
        device="auto",
        random_state=None,
        callbacks=None,
        verbose=1,
    ):
        self.adaptation = adaptation
        self.alpha = alpha
        self.weight_decay = weight_decay
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.momentum = momentum
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.backbone = backbone
        self.weights = weights
        self.backbone_trainable = backbone_trainable
        self.precision = precision
        self.shared_backbone = shared_backbone
        self.shared_bottleneck = shared_bottleneck
        self.input_size = input_size
        self.bottleneck = bottleneck
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.ffn_dim = ffn_dim
        self.dropout = dropout
        self.ramp = ramp
        self.lmmd_normalize = lmmd_normalize
        self.variant = variant
        self.class_weight = class_weight
        self.predict_modality = predict_modality
        self.inference = inference
        self.bank_size = bank_size
        self.visual = visual
        self.audio = audio
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

    _bounds: ClassVar[dict] = ModalityClassifier._bounds | {
        "alpha": (0, None),
        "bottleneck": (1, None),
        "n_layers": (0, None),
        "n_heads": (1, None),
        "dropout": (0, 1),
        "bank_size": (1, None),
    }

    def _check_params(self) -> None:
        super()._check_params()
        self._check_choice("variant", ("paper", "official"))
        self._check_choice("inference", ("bank", "bypass"))
        self._check_choice("ramp", (None, "dsan"))
        self._check_choice("adaptation", (*ADAPTATIONS, None))
        if self.ffn_dim is not None:
            check_number("ffn_dim", self.ffn_dim, 1, whole=True, other="None")

    def _takes_unlabelled(self) -> bool:
        return self.adaptation not in ("lmmd", None)

    def _unlabelled_hint(self) -> str:
        return '; set adaptation="dsan" to learn from rows without a label'

    def _make_module(self) -> FDANNet | OfficialFDANNet:
        self.reference_bank_ = {}
        common = {
            "n_classes": len(self.classes_),
            "inputs": self._specs,
            "backbone": self.backbone,
            "weights": self.weights,
            "backbone_trainable": self._trainable,
            "precision": self.precision,
            "input_size": self.input_size,
            "bottleneck": self.bottleneck,
        }
        if self.variant == "official":
            return OfficialFDANNet(**common)
        network = FDANNet(
            **common,
            shared_backbone=self.shared_backbone,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            ffn_dim=self.ffn_dim,
            dropout=self.dropout,
        )
        if self.shared_bottleneck and len(network.bottlenecks) == len(MODALITIES):
            widths = {m: layers[0].in_features for m, layers in network.bottlenecks.items()}
            if len(set(widths.values())) > 1:
                raise ValueError(
                    "shared_bottleneck=True needs equally many features of both modalities; got "
                    f"{widths['visual']} visual and {widths['audio']} audio."
                )
            network.bottlenecks["audio"] = network.bottlenecks["visual"]
        return network

    def _make_criterion(self) -> AdaptationLoss | None:
        if self.adaptation is None or len(self._specs) < len(MODALITIES):
            return None
        official = self.variant == "official"
        return AdaptationLoss(
            self.adaptation,
            n_layers=1 if official else max(1, self.n_layers),
            n_features=self.bottleneck,
            n_classes=len(self.classes_),
            # Eq. 8 divides by C, the released code by the classes both batches hold.
            divide_by_all=not official,
            normalize=self.lmmd_normalize,
        )

    def _make_batches(self, samples: Samples, labels: dict[str, np.ndarray]) -> Batches:
        batches = super()._make_batches(samples, labels)
        if self.variant == "official":
            self._n_steps = self.max_epochs * batches.n_steps
        return batches

    def _done(self) -> float:
        """Return the share of the training that is done: whole epochs, or steps as released."""
        if self.variant != "official":
            return self._progress
        step = len(self.history_[-1]["batches"]) - 1
        return min(1.0, self._progress + step / self._n_steps)

    def _loss_terms(self, output: FDANOutput, y: dict[str, torch.Tensor]):
        """Eq. 9."""
        terms = {f"ce_{m}": self._cross_entropy(m, output.logits[m], y[m]) for m in y}
        loss = sum(terms.values())
        adapt = self.criterion_
        if len(y) == len(MODALITIES) and adapt is not None:
            if adapt.mu is not None:
                terms["mu"] = adapt.mu
            distance = adapt(output.adapted(), output.logits, y, self._done())
            terms |= {adapt.name: distance, "alpha": self.alpha * self._ramp()}
            loss = loss + terms["alpha"] * distance
        return loss, terms

    def on_epoch_end(self, net, **kwargs) -> None:
        """Let an adaptation loss that counts over an epoch do its sums."""
        super().on_epoch_end(net, **kwargs)
        if self.criterion_ is not None:
            self.criterion_.end_epoch()

    def _ramp(self) -> float:
        if self.variant == "official":
            return dsan_ramp(self._done(), gamma=1.0)
        return 1.0 if self.ramp is None else dsan_ramp(self._done())

    def _collapse_message(self, spread: float) -> str:
        message = super()._collapse_message(spread)
        if self.adaptation is None:
            return message
        return (
            f"{message} With alpha={self.alpha} the adaptation loss may be the cause: lower it, "
            'set ramp="dsan" or lmmd_normalize=True.'
        )
