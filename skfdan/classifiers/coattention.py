"""CoAttentionClassifier: two modalities that attend to each other, fused early and late."""

from __future__ import annotations

from typing import ClassVar

import torch

from skfdan.classifiers.joint import JointClassifier
from skfdan.nn.coattention import FUSIONS, CoAttentionNet
from skfdan.nn.fdan import FUSED, FDANOutput
from skfdan.nn.wavfusion import ORDER

__all__ = ["CoAttentionClassifier"]


class CoAttentionClassifier(JointClassifier):
    r"""Co-attention of voice and words, with early and late fusion, on sequences.

    In [1]_ the frames of wav2vec 2.0 and the tokens of BERT attend to each other, the
    means of what comes out are classified together (early fusion), and the scores of
    this classifier are combined with those of each modality alone (late fusion).

    The publication also reads embeddings of phones, syllables and words of the sound.
    They need a forced alignment of sound and transcript, and are left out here, so this
    is no full copy of it. The encoders are not trained along. Late fusion averages the
    logits.

    It reads sequences (T, d) of embeddings, of any length; a vector is a sequence
    of one step. :class:`skfdan.preprocessing.Wav2Vec2Embedding` and
    :class:`skfdan.preprocessing.TextEmbedding` make them. Voice and words are what was
    published; other pairs of modalities work the same and are no published system.

    A row may lack a modality, in training as in prediction. The other then attends to
    itself, and the logits of the lacking one do not count.

    Parameters
    ----------
    modalities : tuple of two of {"audio", "text", "visual"}, default=("audio", "text")
        What is read; other columns are left alone.
    fusion : {"both", "early", "late"}, default="both"
        "early" classifies the attended sequences alone, "late" averages the scores of
        the modalities without co-attention.
    dim : int, default=128
        Width of the projected frames. Not published.
    n_heads : int, default=4
        Attention heads. Not published.
    dropout : float, default=0.1
        Dropout of attention, feed-forward parts and classifiers. Not published.
    modality_dropout : float, default=0.0
        Share of the training rows with both modalities of which the fusion sees
        one alone, a random one each time. Ours, for predictions of partial rows.
    lr : float, default=3e-4
        Learning rate. Not published.
    lr_schedule : {"cosine", "constant"}, default="cosine"
        How the learning rate goes over the epochs of ``fit``: down to 0 along
        half a cosine, or not at all. ``partial_fit`` always keeps it.
    weight_decay : float, default=0.01
        Weight decay; AdamW's own default.
    max_epochs : int, default=30
        Epochs; one is a pass through the audio samples. Not published.
    batch_size : int, default=32
        Audio samples in a step. Rows without audio are spread evenly over the steps, each at
        most once an epoch and as many in a step at most. Not published.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the cross-entropy, keyed by label.
    predict_modality : {"fused", "audio", "text", "visual"}, default="fused"
        Which cells a prediction reads. ``"fused"`` fuses those that a row has;
        the others read one modality, whatever else the row has. Can be changed
        after ``fit``.
    visual, audio, text : slice, list of int or list of str, default=None
        For a flat matrix X: the columns of each modality. Without them the
        whole matrix is audio, or the first of ``modalities``, as sequences of one step.
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
        Optimiser class. Not published.
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
        The trained network, a :class:`skfdan.nn.CoAttentionNet`.
    history_ : skorch.history.History
        A row an epoch: ``train_loss``, ``feature_std`` (spread of the features over a
        batch, relative to their size; of every fourth batch), ``valid_uar`` with early
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

    Raises
    ------
    ValueError
        At ``fit``, if ``modalities`` are not two different ones, or a cell is no
        embedding.

    References
    ----------
    .. [1] Z. Zhao, Y. Wang, Y. Wang, "Multi-level Fusion of Wav2vec 2.0 and BERT for
       Multimodal Emotion Recognition", Interspeech 2022. arXiv:2207.04697

    Examples
    --------
    Sentences of unequal length; the voice tells the arousal, the words the valence:

    >>> import numpy as np
    >>> from skfdan import make_table
    >>> from skfdan.classifiers import CoAttentionClassifier
    >>> loud, kind = np.tile([0, 0, 1, 1], 10), np.tile([0, 1, 0, 1], 10)
    >>> def sequences(told):
    ...     return [np.eye(2)[np.full(2 + i % 3, k)] for i, k in enumerate(told)]
    >>> X = make_table(audio=sequences(loud), text=sequences(kind))
    >>> y = np.array(["sadness", "calm", "anger", "joy"])[2 * loud + kind]
    >>> clf = CoAttentionClassifier(dim=32, lr=0.003, random_state=0)
    >>> clf.fit(X, y).predict(X[:4]).tolist()
    ['sadness', 'calm', 'anger', 'joy']
    """

    fidelity: ClassVar[str] = "partial"
    _embedded_as: ClassVar[dict[str, str]] = dict.fromkeys(ORDER, "sequence")
    _whole: ClassVar[frozenset[str]] = JointClassifier._whole | {"dim"}

    def __init__(
        self,
        *,
        modalities=("audio", "text"),
        fusion="both",
        dim=128,
        n_heads=4,
        dropout=0.1,
        modality_dropout=0.0,
        lr=3e-4,
        lr_schedule="cosine",
        weight_decay=0.01,
        max_epochs=30,
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
        self.fusion = fusion
        self.dim = dim
        self.n_heads = n_heads
        self.dropout = dropout
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
        "dim": (1, None),
        "n_heads": (1, None),
        "dropout": (0, 1),
        "modality_dropout": (0, 1),
    }

    def _check_params(self) -> None:
        self._check_modalities(ORDER, 2)
        super()._check_params()
        self._check_choice("fusion", FUSIONS)

    # ------------------------------------------------------------------ training

    @property
    def _n_features_out(self) -> int:
        net = self.module_
        return len(net.modalities) * net.dim * (2 if net.fusion == "both" else 1)

    def _make_module(self) -> CoAttentionNet:
        return CoAttentionNet(
            n_classes=len(self.classes_),
            inputs=self._specs,
            dim=self.dim,
            n_heads=self.n_heads,
            fusion=self.fusion,
            dropout=self.dropout,
        )

    def _loss_terms(self, output: FDANOutput, y: dict[str, torch.Tensor]):
        task = self._cross_entropy(FUSED, output.logits[FUSED], y[FUSED])
        return task, {"ce": task}
