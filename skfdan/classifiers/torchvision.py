"""TorchvisionClassifier: VGG or ResNet, fine-tuned on voices, on faces or on both."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from skfdan.classifiers._samples import ModalitySamples
from skfdan.classifiers.base import ModalityClassifier
from skfdan.nn.backbones import BACKBONES
from skfdan.nn.fdan import FUSED, FDANOutput
from skfdan.nn.torchvision_net import TorchvisionNet
from skfdan.table import MODALITIES

__all__ = ["TorchvisionClassifier"]


class TorchvisionClassifier(ModalityClassifier):
    r"""Emotion recognition with a fine-tuned network of torchvision.

    VGG-16, VGG-19, ResNet-18, -34 or -50 with the last layer replaced, trained
    with cross-entropy: the "pre-trained models" that FDAN is compared with [1]_.
    There is no bottleneck and no adaptation. Three ways of use:

    - ``predict_modality="audio"``: Mel spectrograms; faces are not read;
    - ``predict_modality="visual"``: faces; voices are not read;
    - ``predict_modality="fused"``: late fusion. One network a modality; they are
      trained side by side and share nothing. A prediction is the average of the
      log-probabilities of the cells that a row has.

    What is known: the networks, and that they are fine-tuned from ImageNet
    weights. What is not: how the input was rendered, learning rate, weight
    decay, and whether faces took part in training. The defaults here are
    FDAN's, so that the adaptation is what makes a difference, but for the
    momentum: 0.99, which the paper names for "all experiments" along with
    FDAN's α, is unusually high for fine-tuning.

    Parameters
    ----------
    arch : str or callable, default="resnet34"
        The network of image-like cells: "resnet34", "resnet18", "resnet50",
        "vgg16", "vgg19" or "cnn" (a small one, for demos).
        Cells that are vectors go straight into the last layer. A callable
        returns a module and its number of features.
    weights : {"DEFAULT"}, path or None, default="DEFAULT"
        Weights that training starts from: torchvision's ImageNet weights (the
        paper's), a file with a state dict, or random. The new last layer is
        always random.
    backbone_trainable : bool, default=True
        False trains the last layer only. The paper fine-tunes.
    input_size : int or None, default=224
        Side in pixels to which the network resizes image-like cells; None keeps
        the cells' size. The paper is silent; 224 is what ImageNet weights know.
    lr : float, default=1e-3
        Learning rate. The paper is silent.
    lr_schedule : {"cosine", "constant"}, default="cosine"
        How the learning rate goes over the epochs of ``fit``: down to 0 along
        half a cosine, or not at all. The paper is silent. ``partial_fit`` always
        keeps it.
    momentum : float, default=0.9
        Momentum of SGD.
    weight_decay : float, default=1e-4
        Weight decay. The paper searches "decay" in 1e-3 and 1e-4.
    max_epochs : int, default=300
        Epochs; one is a pass through the audio samples, or through the visual
        ones if there are no others. From the paper, if it means these networks too.
    batch_size : int, default=32
        Samples of each modality in a step. From the paper, with the same doubt.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the cross-entropy of each modality, keyed by
        label.
    predict_modality : {"audio", "visual", "fused"}, default="audio"
        The cells that ``fit`` and predictions read. After a fit with
        ``"fused"`` it can be changed to one of both.
    visual, audio : slice, list of int or list of str, default=None
        For a flat matrix X: the columns of each modality. Without them the
        whole matrix belongs to ``predict_modality``.
    early_stopping : bool, default=False
        Stop when the UAR of a validation part of the training rows no longer
        rises, and keep the best epoch. With ``"fused"`` the voices decide.
        Test data never take part.
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
    optimizer : type, default=torch.optim.SGD
        Optimiser class. The paper is silent beyond "momentum".
    optimizer_params : dict or None, default=None
        Further arguments of the optimiser, such as ``{"nesterov": True}``.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...; ``"auto"`` takes a GPU if there
        is one.
    random_state : int, RandomState instance or None, default=None
        Seeds initial weights, batches and the dropout of the VGGs.
    callbacks : list of skorch callbacks or None, default=None
        Called during training. Those that look at ``valid_loss`` find none.
    verbose : int, default=1
        0 is silent, 1 shows a progress bar where one can be watched, 2 prints
        a line an epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    module_ : TorchvisionNet
        The trained networks.
    history_ : skorch.history.History
        A row an epoch: ``train_loss``, its terms ``ce_audio`` and ``ce_visual``,
        ``feature_std`` (spread of the features over a batch, relative to their size; of
        every fourth batch), ``valid_uar`` with early stopping, ``dur`` in seconds.
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
    ``transform`` returns what enters the new last layer. With ``"fused"`` the
    networks have no space in common but that of the classes, and it returns the
    averaged log-probabilities.

    References
    ----------
    .. [1] S. Li, Y. Ji, P. Song, H. Sun, W. Zheng, "Multi-modal Speech Emotion
       Recognition via Feature Distribution Adaptation Network", section 3.3,
       Tables 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> from skfdan.classifiers import TorchvisionClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = np.array(["anger", "joy"] * 10)
    >>> X_aud = rng.normal(size=(20, 16, 12)) + (y == "joy")[:, None, None]
    >>> clf = TorchvisionClassifier(arch="cnn", weights=None, input_size=16, lr=0.01,
    ...                             max_epochs=20, random_state=0)
    >>> clf.fit(X_aud, y).predict(X_aud[:2]).tolist()
    ['anger', 'joy']
    """

    fidelity: ClassVar[str] = "partial"

    def __init__(
        self,
        *,
        arch="resnet34",
        weights="DEFAULT",
        backbone_trainable=True,
        input_size=224,
        lr=1e-3,
        lr_schedule="cosine",
        momentum=0.9,
        weight_decay=1e-4,
        max_epochs=300,
        batch_size=32,
        class_weight=None,
        predict_modality="audio",
        visual=None,
        audio=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        visual_transformer=None,
        audio_transformer=None,
        on_error="raise",
        checkpoint_dir=None,
        optimizer=torch.optim.SGD,
        optimizer_params=None,
        device="auto",
        random_state=None,
        callbacks=None,
        verbose=1,
    ):
        self.arch = arch
        self.weights = weights
        self.backbone_trainable = backbone_trainable
        self.input_size = input_size
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.class_weight = class_weight
        self.predict_modality = predict_modality
        self.visual = visual
        self.audio = audio
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.visual_transformer = visual_transformer
        self.audio_transformer = audio_transformer
        self.on_error = on_error
        self.checkpoint_dir = checkpoint_dir
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.device = device
        self.random_state = random_state
        self.callbacks = callbacks
        self.verbose = verbose

    @property
    def _modalities(self) -> tuple[str, ...]:
        # Read before _check_params runs: a misspelt modality must not become a KeyError.
        self._check_choice("predict_modality", (*MODALITIES, FUSED))
        return MODALITIES if self.predict_modality == FUSED else (self.predict_modality,)

    @property
    def _n_features_out(self) -> int:
        if self.predict_modality == FUSED:
            return len(self.classes_)
        return self.module_.classifiers[self.predict_modality].in_features

    def _check_params(self) -> None:
        super()._check_params()
        if isinstance(self.backbone_trainable, str):
            raise ValueError(
                f"backbone_trainable={self.backbone_trainable!r}: give True or False; parts of a "
                "backbone are trained by FDANClassifier and MISAClassifier."
            )
        if not callable(self.arch):
            self._check_choice("arch", BACKBONES)

    def _is_small(self) -> bool:
        return self.arch == "cnn" or all(s.kind == "vector" for s in self._specs.values())

    def _make_module(self) -> TorchvisionNet:
        return TorchvisionNet(
            len(self.classes_),
            self._specs,
            arch=self.arch,
            weights=self.weights,
            backbone_trainable=self._trainable,
            input_size=self.input_size,
        )

    def _loss_terms(self, output: FDANOutput, y: dict[str, torch.Tensor]):
        terms = {f"ce_{m}": self._cross_entropy(m, output.logits[m], y[m]) for m in y}
        return sum(terms.values()), terms

    def _modality_output(self, modality: str, samples: ModalitySamples):
        log_proba, features = super()._modality_output(modality, samples)
        if self.predict_modality == FUSED:
            # Features of unrelated networks, perhaps of unequal width, have no average.
            features = log_proba.astype(np.float32)
        return log_proba, features
