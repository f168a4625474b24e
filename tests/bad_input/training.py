"""Fitting classifiers: input, labels, parameters, divergence, checkpoints."""

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from scipy.sparse import csr_matrix
from skorch.callbacks import EpochScoring

from bad_input.shared import Case, fdan, mel
from skfdan import make_table
from skfdan.classifiers import (
    CoAttentionClassifier,
    FDRLClassifier,
    GMTCNetClassifier,
    MISAClassifier,
    SDTClassifier,
    TFMixClassifier,
    TorchvisionClassifier,
    WavFusionClassifier,
)
from skfdan.table import as_cells

QUIET = {"max_epochs": 1, "verbose": 0, "random_state": 0}


def _fit(c: Case, X=None, y=None, **params):
    return fdan(**params).fit(c.X if X is None else X, c.y if y is None else y)


def _with(cells: np.ndarray, row: int, cell) -> np.ndarray:
    column = as_cells(cells)
    column[row] = cell
    return column


def _nan(values: np.ndarray, row: int) -> np.ndarray:
    values = values.copy()
    values[row].flat[0] = np.nan
    return values


def _diverges(c: Case):
    clf = fdan().fit(c.X, c.y).set_params(lr=1e30, max_epochs=5)
    try:
        clf.fit(c.X, c.y)
    finally:
        assert not clf.__sklearn_is_fitted__()


def _partial(c: Case, **params):
    return fdan(**params).partial_fit(c.X, c.y, classes=["anger", "fear", "joy"])


def _left_out(c: Case):
    clf = fdan(on_error="missing")
    clf.fit(make_table(audio=_with(c.sound, 3, None)), c.y)
    assert clf.report_["row"].tolist() == [3]


def _paths(c: Case, *names: str, **params):
    table = make_table(audio=[c.files(name) for name in names])
    clf = fdan(audio_transformer=mel(timeout=None), **params)
    return clf.fit(table, ["joy", "fear", "joy", "fear"][: len(names)])


def _unreadable(c: Case):
    clf = _paths(c, "a.wav", "b.wav", "empty.wav", "c.wav", on_error="missing")
    assert clf.report_["row"].tolist() == [2]


def _interrupted(c: Case, **params):
    """Leave a checkpoint."""
    return fdan(checkpoint_dir=c.tmp / "run", max_epochs=2, **params).fit(c.X, c.y)


def _other_parameters(c: Case):
    _interrupted(c)
    fdan(checkpoint_dir=c.tmp / "run", max_epochs=2, lr=0.5).fit(c.X, c.y)


def _other_data(c: Case):
    _interrupted(c)
    fdan(checkpoint_dir=c.tmp / "run", max_epochs=2).fit(c.X + 1, c.y)


def _damaged(c: Case):
    _interrupted(c)
    file = c.tmp / "run" / "checkpoint.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    _interrupted(c)


def _in_use(c: Case):
    (c.tmp / "run").mkdir()
    with FileLock(c.tmp / "run" / ".lock"):
        _interrupted(c)


def _misa(c: Case, **params):
    clf = MISAClassifier(
        **QUIET | {"backbone": "cnn", "weights": None, "hidden": 8, "ffn_dim": 8} | params
    )
    clf.fit(c.table, c.y)


def _trained_along(c: Case, cls: type, hidden_act: str = "gelu", **params):
    """Fit with the last layers of a small wav2vec 2.0."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model
    from transformers.utils import logging

    config = Wav2Vec2Config(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        hidden_act=hidden_act,
        initializer_range=1.0,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(5, 4),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )
    logging.disable_progress_bar()
    Wav2Vec2Model(config).save_pretrained(c.tmp / "model")
    logging.enable_progress_bar()
    table = make_table(audio=np.ones((4, 3)))
    cls(**QUIET | params, speech_model=str(c.tmp / "model")).fit(table, ["joy", "fear"] * 2)


def _words(c: Case, cls: type, **params):
    table = make_table(audio=np.ones((4, 3)), text=["yes", "no", "yes", "no"])
    cls(**QUIET | params).fit(table, ["joy", "fear"] * 2)


def _talk(columns: dict | None = None, **params):
    table = make_table(text=np.ones((4, 8))).assign(**columns or {})
    SDTClassifier(**QUIET | {"hidden": 8} | params).fit(table, ["joy", "fear"] * 2)


def _order(second):
    return {"dialogue": ["a", "a", "b", "b"], "order": [1, second, 2, 1]}


CASES = {
    "`CoAttentionClassifier` with one modality": lambda c: _words(
        c, CoAttentionClassifier, modalities=("audio",)
    ),
    "`CoAttentionClassifier` with an unknown `fusion`": lambda c: _words(
        c, CoAttentionClassifier, fusion="x"
    ),
    "`SDTClassifier` with an unknown modality": lambda c: _talk(modalities=("smell",)),
    "`SDTClassifier(temperature=0)`": lambda c: _talk(temperature=0),
    "`SDTClassifier(dialogue=...)` with values": lambda c: _talk(dialogue=[0, 0, 1, 1]),
    "`SDTClassifier` on a row without dialogue": lambda c: _talk(
        {"dialogue": ["a", "a", None, "b"]}
    ),
    "`SDTClassifier` on two rows in one place": lambda c: _talk(_order(1)),
    "`SDTClassifier` on an order that is no number": lambda c: _talk(_order("x")),
    "`SDTClassifier(hidden=9)`, which is no multiple of `n_heads`": lambda c: _talk(hidden=9),
    "`FDRLClassifier` with one modality": lambda c: _words(
        c, FDRLClassifier, modalities=("audio",)
    ),
    "`FDRLClassifier` on transcripts": lambda c: _words(c, FDRLClassifier),
    "`FDRLClassifier` with an unknown `ablation`": lambda c: _words(
        c, FDRLClassifier, ablation="S7"
    ),
    "`FDRLClassifier(mu=2)`": lambda c: _words(c, FDRLClassifier, mu=2),
    "`FDRLClassifier` on paths": lambda c: FDRLClassifier(**QUIET).fit(
        make_table(audio=["a.wav", "b.wav"]), ["joy", "fear"]
    ),
    "`FDRLClassifier(speech_model=...)` without `n_trainable_layers`": lambda c: _words(
        c, FDRLClassifier, speech_model="WAV2VEC2_BASE"
    ),
    "`FDRLClassifier(n_trainable_layers=2)` without a model": lambda c: _words(
        c, FDRLClassifier, n_trainable_layers=2
    ),
    "`FDRLClassifier(text_model=...)` of voice and face": lambda c: _words(
        c,
        FDRLClassifier,
        modalities=("audio", "visual"),
        text_model="roberta-base",
        n_trainable_layers=2,
    ),
    "`FDRLClassifier(n_trainable_layers=...)` with more layers than the model has": lambda c: (
        _trained_along(c, FDRLClassifier, n_trainable_layers=9)
    ),
    "`WavFusionClassifier(speech_model=...)` with a folder that is not there": lambda c: (
        WavFusionClassifier(speech_model=str(c.tmp / "none"), **QUIET).fit(
            make_table(audio=c.X), c.y
        )
    ),
    "`WavFusionClassifier(speech_model=...)` on voices of another encoder": lambda c: (
        _trained_along(c, WavFusionClassifier, n_deep=1)
    ),
    "`WavFusionClassifier(speech_model=...)` with a model of other layers": lambda c: (
        _trained_along(c, WavFusionClassifier, n_deep=1, hidden_act="relu")
    ),
    "`WavFusionClassifier` with an unknown modality": lambda c: _words(
        c, WavFusionClassifier, modalities=("audio", "smell")
    ),
    "`WavFusionClassifier` on pictures": lambda c: WavFusionClassifier(**QUIET).fit(
        make_table(visual=np.zeros((2, 3, 8, 8), "u1")), ["joy", "fear"]
    ),
    "`FDANClassifier().fit()` without X": lambda c: fdan().fit(),
    "`FDANClassifier().fit(X)` without labels": lambda c: fdan().fit(c.X),
    "`FDANClassifier` on no rows": lambda c: _fit(c, c.X[:0], c.y[:0]),
    "`FDANClassifier` on a table of no rows": lambda c: _fit(c, c.table.iloc[:0], c.y[:0]),
    "`FDANClassifier` on one class": lambda c: _fit(c, y=["joy"] * 12),
    "`FDANClassifier` with too few labels": lambda c: _fit(c, c.table, c.y[:5]),
    "`FDANClassifier` with a label missing": lambda c: _fit(c, y=["joy", None, *["fear"] * 10]),
    "`FDANClassifier` with numbers such as 0.5 as labels": lambda c: _fit(
        c, y=np.linspace(0, 1, 12)
    ),
    "`FDANClassifier` on a matrix with NaN": lambda c: _fit(c, _nan(c.X, 2)),
    "`FDANClassifier` on a table with NaN in a cell": lambda c: _fit(
        c, make_table(audio=_nan(c.sound, 7))
    ),
    "`FDANClassifier` on a sparse matrix": lambda c: _fit(c, csr_matrix(c.X)),
    "`FDANClassifier` on one row instead of a matrix": lambda c: _fit(c, c.X[0], c.y[:6]),
    "`FDANClassifier` on a frame whose columns are no modalities": lambda c: _fit(
        c, c.table.rename(columns={"visual": "face", "audio": "voice"})
    ),
    "`FDANClassifier` on a flat frame with a column of words": lambda c: _fit(
        c, pd.DataFrame({"pitch": c.X[:, 0], "sex": ["m", "f"] * (len(c.X) // 2)})
    ),
    "`MISAClassifier` on two unnamed columns": lambda c: MISAClassifier(**QUIET).fit(
        np.stack([as_cells(c.faces), as_cells(c.sound)], axis=1), c.y
    ),
    "`FDANClassifier` on unnamed columns in the order audio, visual": lambda c: _fit(
        c, np.stack([as_cells(c.sound), as_cells(c.faces)], axis=1)
    ),
    "`FDANClassifier` on a row without any cell": lambda c: _fit(
        c, make_table(audio=_with(c.sound, 3, None))
    ),
    '`FDANClassifier(on_error="missing")` on a row without any cell': _left_out,
    "`FDANClassifier` on cells of different kinds": lambda c: _fit(
        c, make_table(audio=_with(c.sound, 5, c.X[0]))
    ),
    "`FDANClassifier` on vectors of different lengths": lambda c: _fit(
        c, make_table(audio=_with(c.X, 5, c.X[0, :4]))
    ),
    "`FDANClassifier(input_size=None)` on cells of different sizes": lambda c: _fit(
        c, make_table(audio=_with(c.sound, 5, c.sound[0, :, :7])), input_size=None
    ),
    "`FDANClassifier` on faces with the channels last": lambda c: _fit(
        c, make_table(visual=np.moveaxis(c.faces, 1, -1)), predict_modality="visual"
    ),
    "`FDANClassifier` on paths beside arrays": lambda c: _fit(
        c, make_table(audio=_with(c.sound, 5, "a.wav"))
    ),
    "`FDANClassifier` on a file that is not there": lambda c: _paths(c, "a.wav", "none.wav"),
    "`FDANClassifier` on a broken file": lambda c: _paths(c, "a.wav", "empty.wav"),
    '`FDANClassifier(on_error="missing")` on a broken file': _unreadable,
    "`FDANClassifier().fit(faces, voices, y)` of different lengths": lambda c: fdan().fit(
        c.faces, c.sound[:5], c.y
    ),
    "`FDANClassifier().fit(X_aud=voices, y=y)` alone": lambda c: fdan().fit(X_aud=c.sound, y=c.y),
    "`FDANClassifier` with strings in `y_vis=` and numbers in `y_aud=`": lambda c: fdan().fit(
        c.faces, c.sound, y_vis=np.array(["joy"] * len(c.faces)), y_aud=np.arange(len(c.sound)) % 2
    ),
    "`FDANClassifier` with `y_vis=` and no `y_aud=`": lambda c: fdan().fit(
        c.faces, c.sound, y_vis=c.y
    ),
    "`FDANClassifier(lr=-1)`": lambda c: _fit(c, lr=-1),
    "`FDANClassifier(max_epochs=1.5)`": lambda c: _fit(c, max_epochs=1.5),
    '`FDANClassifier(optimizer="adam")`': lambda c: _fit(c, optimizer="adam"),
    "`FDANClassifier(optimizer_params=...)` with what the optimiser does not take": lambda c: _fit(
        c, optimizer_params={"beta": 0.9}
    ),
    "`FDANClassifier` with an optimiser that takes no `weight_decay`": lambda c: _fit(
        c, optimizer=torch.optim.Rprop
    ),
    "`FDANClassifier(backbone=...)` with a network": lambda c: _fit(
        c, backbone=torch.nn.Linear(2, 2)
    ),
    "`FDANClassifier(callbacks=[1])`": lambda c: _fit(c, callbacks=[1]),
    '`FDANClassifier(callbacks=[EpochScoring("accuracy")])`': lambda c: _fit(
        c, callbacks=[EpochScoring("accuracy")]
    ),
    "`FDANClassifier(input_size=0)`": lambda c: _fit(c, input_size=0),
    '`FDANClassifier(audio_transformer="mel")`': lambda c: _fit(c, audio_transformer="mel"),
    "`FDANClassifier(class_weight=...)` with a weight below 0": lambda c: _fit(
        c, class_weight={"joy": -1}
    ),
    '`FDANClassifier(class_weight="equal")`': lambda c: _fit(c, class_weight="equal"),
    "`fit` of a fitted `FDANClassifier` on other features, one of them NaN": lambda c: c.fitted(
        "vectors"
    ).fit(pd.DataFrame(_nan(c.X[:, :4], 2), columns=list("abcd")), c.y),
    "`fit` of a fitted `FDANClassifier` with fewer labels": lambda c: c.fitted("both").fit(
        c.X, c.y[:5]
    ),
    "`fit` of a fitted `FDANClassifier` with one speaker held out": lambda c: c.fitted(
        "both", early_stopping=True
    ).fit(c.X, np.roll(c.y, 1), groups=["ann"] * 12),
    "`FDANClassifier` with an unknown `adaptation`": lambda c: _fit(c, adaptation="mmmd"),
    "`FDANClassifier` with an unknown `backbone`": lambda c: _fit(
        c, c.table, backbone="resnet1000"
    ),
    "`FDANClassifier(backbone_trainable=...)`, or `freeze`, with a stage that the backbone "
    "lacks": lambda c: _fit(
        c, c.table, backbone="resnet18", weights=None, backbone_trainable="layer9"
    ),
    "`FDANClassifier` with a `weights` file that is not there": lambda c: _fit(
        c, c.table, backbone="resnet18", weights="none.pt"
    ),
    "`FDANClassifier` with a `device` that is not there": lambda c: _fit(c, device="cuda:99"),
    "`FDANClassifier` with an unknown `device`": lambda c: _fit(c, device="gpu"),
    "`FDANClassifier` with `class_weight` of a class that is not there": lambda c: _fit(
        c, class_weight={"envy": 2.0}
    ),
    "`FDANClassifier(audio=[...])` with a column that is not there": lambda c: _fit(
        c, audio=[3, 99]
    ),
    "`FDANClassifier(early_stopping=True)` with one speaker": lambda c: fdan(
        early_stopping=True
    ).fit(c.X, c.y, groups=["ann"] * 12),
    "`FDANClassifier(shared_bottleneck=True)` on modalities of different widths": lambda c: _fit(
        c, shared_bottleneck=True, visual=[0, 1], audio=[2, 3, 4]
    ),
    "`FDANClassifier().initialize()`": lambda c: fdan().initialize(),
    "`FDANClassifier` with a learning rate at which it diverges": _diverges,
    "`FDANClassifier().partial_fit(X, y)` with a class unseen before": lambda c: c.fitted(
        "vectors"
    ).partial_fit(c.X, ["envy"] * 12),
    "`FDANClassifier().partial_fit(X, y, classes=...)` with other classes": lambda c: c.fitted(
        "vectors"
    ).partial_fit(c.X, c.y, classes=["joy", "fear"]),
    "`FDANClassifier().partial_fit(X_vis, X_aud, y)`": lambda c: fdan().partial_fit(
        c.faces, c.sound, c.y
    ),
    '`FDANClassifier(class_weight="balanced").partial_fit(X, y)`': lambda c: _partial(
        c, class_weight="balanced"
    ),
    "`FDANClassifier(early_stopping=True).partial_fit(X, y)`": lambda c: _partial(
        c, early_stopping=True
    ),
    "`FDANClassifier(ffn_dim=0).fit(X, y)`": lambda c: _fit(c, ffn_dim=0),
    "`FDANClassifier().fit(table, y)` with a column `Visual`": lambda c: _fit(
        c, c.table.rename(columns={"visual": "Visual"})
    ),
    "`FDANClassifier().fit(X, y)` with NaN in a list of labels": lambda c: _fit(
        c, y=[float("nan"), *c.y[1:].tolist()]
    ),
    "`FDANClassifier().partial_fit(X, y)` with faces after voices": lambda c: c.fitted(
        "voices"
    ).partial_fit(make_table(visual=c.faces), c.y),
    '`FDANClassifier(adaptation="dsan").partial_fit(X, y)` without any label': lambda c: fdan(
        adaptation="dsan"
    ).partial_fit(c.X, [None] * 12),
    "`FDANClassifier(checkpoint_dir=...)` of a fit with other parameters": _other_parameters,
    "`FDANClassifier(checkpoint_dir=...)` of a fit on other data": _other_data,
    "`FDANClassifier(checkpoint_dir=...)` that another fit uses": _in_use,
    "`FDANClassifier(checkpoint_dir=...)` with a changed checkpoint": _damaged,
    "`FDANClassifier(checkpoint_dir=...)` that is a file": lambda c: _fit(
        c, checkpoint_dir=c.written("run", b"x")
    ),
    "`TorchvisionClassifier` with an unknown `arch`": lambda c: TorchvisionClassifier(
        arch="lenet", **QUIET
    ).fit(c.table, c.y),
    "`MISAClassifier(n_heads=3)`, which does not divide `hidden`": lambda c: _misa(c, n_heads=3),
    "`GMTCNetClassifier` on faces alone": lambda c: GMTCNetClassifier(**QUIET).fit(
        make_table(visual=c.faces), c.y
    ),
    "`GMTCNetClassifier` on sequences of different lengths": lambda c: GMTCNetClassifier(
        **QUIET
    ).fit(make_table(audio=_with(c.sound, 5, c.sound[0, :, :7])), c.y),
    "`GMTCNetClassifier` on paths": lambda c: GMTCNetClassifier(**QUIET).fit(
        make_table(audio=["a.wav"] * 12), c.y
    ),
    "`TFMixClassifier` with an unknown `weighting`": lambda c: TFMixClassifier(
        weighting="best", **QUIET
    ).fit(c.sound, c.y),
    "`TFMixClassifier(n_heads=5)`, which does not divide the width": lambda c: TFMixClassifier(
        n_heads=5, **QUIET
    ).fit(c.sound, c.y),
}
