"""Fitted models of every kind, as small as they go."""

import numpy as np
import pandas as pd
from classifiers.small_clips import QUICK, make_clips
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skfdan import FDANClassifier, make_table
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
from skfdan.nn.adaptation import ADAPTATIONS
from skfdan.preprocessing import (
    MFCC,
    FaceFrames,
    MelSpectrogram,
    SpeechFeatures,
    TwineShufflePattern,
)
from skfdan.table import as_cells

SOME = {"max_epochs": 2, "random_state": 0, "verbose": 0}
IMAGES = SOME | {"weights": None, "input_size": 16}
FDAN = QUICK | SOME | {"bottleneck": 8, "bank_size": 8}
SPEECH = {"sample_rate": 2000, "n_fft": 64, "n_mfcc": 4, "n_mels": 8, "verbose": 0}
FACES, SOUND, Y = make_clips(16)
TABLE = make_table(visual=FACES, audio=SOUND)
MATRIX = SOUND.reshape(len(SOUND), -1)[:, :10]

NAMED = pd.DataFrame(MATRIX, columns=[str(i) for i in range(MATRIX.shape[1])])
WORDS = make_table(audio=list(MATRIX[:, :4]), text=list(MATRIX[:, 4:]))
DIALOGUES = make_table(text=list(MATRIX)).assign(
    dialogue=np.arange(len(Y)) // 3, speaker=np.tile(["Ross", "Rachel"], len(Y))[: len(Y)]
)


def waves():
    """Tones, one pitch an emotion."""
    t = np.arange(2000) / 2000
    pitch = 100 * (1 + np.unique(Y, return_inverse=True)[1])
    return [np.sin(2 * np.pi * f * t).astype(np.float32) for f in pitch]


def fdan(**params):
    return FDANClassifier(**FDAN | params)


def prepare(**steps):
    """Both columns of a table, prepared."""
    steps = {
        "visual": FaceFrames(detector=None, size=16, verbose=0),
        "audio": MelSpectrogram(sample_rate=2000, n_fft=64, hop_length=64, n_mels=8, verbose=0),
    } | steps
    return ColumnTransformer([(m, step, [m]) for m, step in steps.items()])


#: Name: function that returns a fitted classifier, its X.
CLASSIFIERS = {
    "fdan": lambda: (fdan().fit(TABLE, Y), TABLE),
    "official": lambda: (fdan(variant="official", adaptation="dsan").fit(TABLE, Y), TABLE),
    "shared": lambda: (fdan(shared_backbone=True, shared_bottleneck=True).fit(TABLE, Y), TABLE),
    "fdan1": lambda: (fdan(n_layers=0).fit(TABLE, Y), TABLE),
    "two layers": lambda: (fdan(n_layers=2, n_heads=2, adaptation="dann").fit(TABLE, Y), TABLE),
    "frozen": lambda: (fdan(backbone_trainable=False).fit(TABLE, Y), TABLE),
    "partly frozen": lambda: (fdan(backbone_trainable="block4").fit(TABLE, Y), TABLE),
    "fused": lambda: (fdan(predict_modality="fused", inference="bypass").fit(TABLE, Y), TABLE),
    "matrix": lambda: (
        fdan(visual=[0, 1, 2], audio=slice(3, None), early_stopping=True).fit(MATRIX, Y),
        MATRIX,
    ),
    "voices": lambda: (fdan(class_weight={"joy": 2.0}).fit(make_table(audio=SOUND), Y), TABLE),
    **{
        str(name): lambda name=name: (fdan(adaptation=name).fit(TABLE, Y), TABLE)
        for name in (*ADAPTATIONS, None)
    },
    "torchvision": lambda: (
        TorchvisionClassifier(arch="cnn", predict_modality="fused", **IMAGES).fit(TABLE, Y),
        TABLE,
    ),
    "misa": lambda: (
        MISAClassifier(backbone="cnn", hidden=8, ffn_dim=8, class_weight="balanced", **IMAGES).fit(
            TABLE, Y
        ),
        TABLE,
    ),
    "fdrl": lambda: (
        FDRLClassifier(hidden=8, text=[0, 1, 2], audio=slice(3, None), **SOME).fit(MATRIX, Y),
        MATRIX,
    ),
    "without adversary": lambda: (
        FDRLClassifier(hidden=8, ablation="S2", **SOME).fit(WORDS, Y),
        WORDS,
    ),
    "columns by name": lambda: (
        MISAClassifier(
            hidden=8, ffn_dim=8, visual=["0", "1"], audio=["2"], text=slice(3, 6), **SOME
        ).fit(NAMED, Y),
        NAMED,
    ),
    "coattention": lambda: (
        CoAttentionClassifier(dim=8, text=[0, 1, 2], audio=slice(3, None), **SOME).fit(MATRIX, Y),
        MATRIX,
    ),
    "wavfusion": lambda: (
        WavFusionClassifier(
            dim=8,
            hidden=4,
            n_deep=1,
            n_codes=4,
            common_dim=4,
            text=[0, 1, 2],
            visual=[3, 4, 5],
            audio=slice(6, None),
            **SOME,
        ).fit(MATRIX, Y),
        MATRIX,
    ),
    "sdt": lambda: (
        SDTClassifier(hidden=8, text=[0, 1, 2], audio=slice(3, None), **SOME).fit(MATRIX, Y),
        MATRIX,
    ),
    "dialogues": lambda: (SDTClassifier(hidden=8, **SOME).fit(DIALOGUES, Y), DIALOGUES),
    "gmtcnet": lambda: (GMTCNetClassifier(n_filters=4, n_blocks=2, **SOME).fit(SOUND, Y), SOUND),
    "tfmix": lambda: (
        TFMixClassifier(channels=4, lstm_hidden=4, fc_width=4, validation_fraction=0.5, **SOME).fit(
            SOUND, Y
        ),
        SOUND,
    ),
}
#: Name: function that returns a fitted pipeline, its X.
PIPELINES = {
    "table": lambda: _fitted(make_pipeline(prepare(), fdan()), _clips()),
    "frames": lambda: _fitted(
        make_pipeline(prepare().set_output(transform="pandas"), fdan()), _clips()
    ),
    "voices": lambda: _fitted(
        make_pipeline(
            prepare(visual="drop", audio=MFCC(sample_rate=2000, n_fft=64, n_mels=8, n_mfcc=4)),
            GMTCNetClassifier(n_filters=4, n_blocks=2, **SOME),
        ),
        _clips(),
    ),
    "cells": lambda: _fitted(
        make_pipeline(
            SpeechFeatures(features=("mfcc", "mel"), augment=(), **SPEECH),
            TFMixClassifier(channels=4, lstm_hidden=4, fc_width=4, **SOME),
        ),
        waves(),
    ),
    "passthrough": lambda: _fitted(
        make_pipeline(
            ColumnTransformer([("faces", "passthrough", ["visual"])], remainder="drop").set_output(
                transform="pandas"
            ),
            fdan(predict_modality="visual"),
        ),
        TABLE,
    ),
    "numbers": lambda: _fitted(
        make_pipeline(
            ColumnTransformer(
                [("twine", TwineShufflePattern(sample_rate=2000, n_levels=1, verbose=0), [0])]
            ),
            StandardScaler(),
            MinMaxScaler((-1, 1)),
            fdan(),
        ),
        as_cells(waves())[:, None],
    ),
}


def _clips():
    return make_table(visual=FACES, audio=waves())


def _fitted(pipeline, X):
    return pipeline.fit(X, Y), X
