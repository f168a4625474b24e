"""WavFusionClassifier: voice whose last layers read text and faces."""

from __future__ import annotations

from typing import ClassVar

import torch

from skfdan.classifiers._pretrained import PretrainedClassifier
from skfdan.nn.fdan import FUSED
from skfdan.nn.wavfusion import ORDER, WavFusionNet, WavFusionOutput, margin_term

__all__ = ["WavFusionClassifier"]


class WavFusionClassifier(PretrainedClassifier):
    r"""Gated cross-modal attention of voice to text and faces, on sequences.

    In WavFusion [1]_ the last layers of wav2vec 2.0 read, in the place of
    themselves, text and faces, and a gate weighs the two. Faces are encoded by a GRU
    with self-attention beside a learnable visual centre (A-GRU-LVC), text by a
    GRU with self-attention. A margin loss brings clips of one emotion together
    across the modalities, and keeps those of one modality and different emotions
    apart. Training minimises

    .. math:: L_{task} + \lambda L_{mar}.

    It reads sequences (T, d) of embeddings, of any length; a vector is a sequence
    of one step. Published are the frames of the ninth layer of wav2vec 2.0 base
    (``Wav2Vec2Embedding(layer=9, output="sequence")``), RoBERTa's tokens
    (``TextEmbedding``) and EfficientNet's frames (``FrameEmbedding``).

    The published layers that read text and faces are the last three of wav2vec 2.0
    itself, and those before are frozen. ``speech_model`` names the model whose last
    ``n_deep`` layers they start from: what the others make of a clip is computed once,
    by ``Wav2Vec2Embedding(model, layer=-1 - n_deep)``, and training moves the same
    weights as within wav2vec 2.0 (:class:`skfdan.nn.WavFusionWav2Vec2`). Without it
    they start from random weights.

    A row may lack any modality, in training as in prediction. Without voice, a
    learned frame asks in its place.

    Parameters
    ----------
    modalities : tuple of {"audio", "text", "visual"}, default=("audio", "text", "visual")
        What is read (Table 3); other columns are left alone, and those that the
        training does not hold are not needed. Two without audio take
        ``fusion="concat"``.
    speech_model : str, path-like or None, default=None
        The wav2vec 2.0 or HuBERT from whose last ``n_deep`` layers the voice's start, as
        :class:`skfdan.preprocessing.Wav2Vec2Embedding` takes it. Width, heads and layer
        norms are then the model's, ``dim`` does not count, and ``n_heads`` is of text and
        faces alone. Voices are not normalised. Published is the base model. Its files
        are read by ``fit`` alone; None is no model, and random weights.
    margin_weight : float, default=1.0
        λ (Table 5). Published as the best of 0, 0.01, 0.1, 1 and 10.
    margin : float, default=0.2
        How much nearer a clip must be to one of its emotion in another modality
        than to one of another emotion in its own, as a cosine. Not published.
    n_deep : int, default=3
        Layers with gated attention (Table 6). Published, of wav2vec 2.0's twelve. Without
        any, 0, the means of all modalities side by side are classified, as published.
    lvc : bool, default=True
        False leaves the learnable visual centre out (Table 4).
    fusion : {"gated", "concat"}, default="gated"
        "concat" leaves the voice to its self-attention and classifies the means of
        all modalities side by side (first row of Table 6).
    dim : int, default=256
        Width of the voice's layers; wav2vec 2.0 base has 768.
    hidden : int, default=128
        Width of the GRUs. Not published.
    n_heads : int, default=4
        Attention heads. Not published.
    common_dim : int, default=128
        Width of the space of the margin loss. Not published.
    n_codes : int, default=64
        Codewords of the learnable visual centre. Its released code has 64.
    dropout : float, default=0.1
        Dropout of attention, feed-forward parts and classifier. Not published.
    modality_dropout : float, default=0.0
        Share of the training rows with several modalities of which the fusion
        sees one alone, a random one each time. Ours, for predictions of partial rows.
    lr : float, default=3e-4
        Learning rate. Not published.
    encoder_lr : float, default=1e-4
        Learning rate of what comes from ``speech_model``. Not published.
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
        The trained network, a :class:`skfdan.nn.WavFusionNet`.
    history_ : skorch.history.History
        A row an epoch: ``train_loss``, its unweighted terms ``ce`` and ``margin``,
        ``feature_std`` (spread of the features over a batch, relative to their size; of
        every fourth batch), ``valid_uar`` with early stopping, ``dur`` in seconds.
    device_ : str
        Where it was trained, and predicts: "cpu", "cuda", ...
    report_ : DataFrame
        What ``fit`` could not use: row, file, stage and reason.
    class_count_ : ndarray of shape (n_classes,)
        Training rows of each class.
    encoder_layers_ : dict
        With a ``speech_model``, what its layers look like, under the key "audio"; see
        :class:`skfdan.nn.LayerShape`.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of str
        Column names of a flat frame.

    Raises
    ------
    ValueError
        At ``fit``, if ``modalities`` are unknown, a cell is no embedding, or
        ``speech_model`` can't be used, or not with these voices.

    References
    ----------
    .. [1] F. Li, J. Luo, W. Xia, "WavFusion: Towards wav2vec 2.0 Multimodal
       Speech Emotion Recognition", MMM 2025.

    Examples
    --------
    Sentences of unequal length; the voice tells the arousal, the words the valence:

    >>> import numpy as np
    >>> from skfdan import make_table
    >>> from skfdan.classifiers import WavFusionClassifier
    >>> loud, kind = np.tile([0, 0, 1, 1], 10), np.tile([0, 1, 0, 1], 10)
    >>> def sequences(told):
    ...     return [np.eye(2)[np.full(2 + i % 3, k)] for i, k in enumerate(told)]
    >>> X = make_table(audio=sequences(loud), text=sequences(kind))
    >>> y = np.array(["sadness", "calm", "anger", "joy"])[2 * loud + kind]
    >>> clf = WavFusionClassifier(dim=32, hidden=16, n_deep=1, lr=0.003, random_state=0)
    >>> clf.fit(X, y).predict(X[:4]).tolist()
    ['sadness', 'calm', 'anger', 'joy']
    """

    fidelity: ClassVar[str] = "partial"
    _embedded_as: ClassVar[dict[str, str]] = dict.fromkeys(ORDER, "sequence")
    _depth_param: ClassVar[str] = "n_deep"
    _whole: ClassVar[frozenset[str]] = PretrainedClassifier._whole | {
        *("dim", "n_deep", "common_dim", "n_codes")
    }

    def __init__(
        self,
        *,
        modalities=("audio", "text", "visual"),
        speech_model=None,
        margin_weight=1.0,
        margin=0.2,
        n_deep=3,
        lvc=True,
        fusion="gated",
        dim=256,
        hidden=128,
        n_heads=4,
        common_dim=128,
        n_codes=64,
        dropout=0.1,
        modality_dropout=0.0,
        lr=3e-4,
        encoder_lr=1e-4,
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
        self.speech_model = speech_model
        self.margin_weight = margin_weight
        self.margin = margin
        self.n_deep = n_deep
        self.lvc = lvc
        self.fusion = fusion
        self.dim = dim
        self.hidden = hidden
        self.n_heads = n_heads
        self.common_dim = common_dim
        self.n_codes = n_codes
        self.dropout = dropout
        self.modality_dropout = modality_dropout
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
        "margin_weight": (0, None),
        "margin": (0, 2),
        "n_deep": (0, None),
        "dim": (1, None),
        "hidden": (1, None),
        "n_heads": (1, None),
        "common_dim": (1, None),
        "n_codes": (1, None),
        "dropout": (0, 1),
        "modality_dropout": (0, 1),
    }

    def _check_params(self) -> None:
        self._check_modalities(ORDER)
        super()._check_params()
        self._check_choice("fusion", ("gated", "concat"))

    # ------------------------------------------------------------------ training

    @property
    def _n_features_out(self) -> int:
        return self.module_.rest.classifier.in_features

    def _make_module(self) -> WavFusionNet:
        return WavFusionNet(
            n_classes=len(self.classes_),
            inputs=self._specs,
            dim=self.dim,
            hidden=self.hidden,
            n_deep=self.n_deep,
            n_heads=self.n_heads,
            common_dim=self.common_dim,
            n_codes=self.n_codes,
            lvc=self.lvc,
            fusion=self.fusion,
            dropout=self.dropout,
            audio_layers=self._shapes().get("audio"),
        )

    def _trained_layers(self, modality: str) -> WavFusionNet:
        return self.module_

    def _common_features(self, output: WavFusionOutput, modality: str) -> torch.Tensor:
        # Empty in a network of one modality, of which there is nothing to compare.
        return output.common.get(modality, output.layers[FUSED][-1])

    def _loss_terms(self, output: WavFusionOutput, y: dict[str, torch.Tensor]):
        terms = {
            "ce": self._cross_entropy(FUSED, output.logits[FUSED], y[FUSED]),
            "margin": margin_term(output, y[FUSED], self.margin),
        }
        return terms["ce"] + self.margin_weight * terms["margin"], terms
