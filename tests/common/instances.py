"""What the common tests build of every public estimator.

A new estimator needs a row here; ``test_completeness`` fails without one.
"""

from skfdan import FDANClassifier, FDANSearchCV
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
from skfdan.feature_selection import INCASelector
from skfdan.preprocessing import (
    MFCC,
    BackboneEmbedding,
    FaceFrames,
    FrameEmbedding,
    MelSpectrogram,
    SpeechFeatures,
    TextEmbedding,
    TwineShufflePattern,
    Wav2Vec2Embedding,
)

EVERYTHING = slice(0, None)

INSTANCES = {
    "BackboneEmbedding": [BackboneEmbedding(backbone="cnn", weights=None, input_size=32)],
    "FDANClassifier": [
        # A fraction of the default's steps, at twenty times its learning rate, and narrow layers,
        # which take less time; all as it comes in AS_THEY_COME.
        FDANClassifier(bottleneck=64, lr=0.02, max_epochs=20, batch_size=64),
        # Both branches, attention and LMMD on a flat matrix, all columns in each.
        FDANClassifier(
            visual=EVERYTHING,
            audio=EVERYTHING,
            bottleneck=64,
            lr=0.02,
            max_epochs=12,
            batch_size=64,
        ),
    ],
    "FDANSearchCV": [
        FDANSearchCV(
            FDANClassifier(bottleneck=64, lr=0.02, momentum=0.9, max_epochs=10, random_state=0),
            {"alpha": [1e-3, 0]},
            cv=2,
            error_score="raise",
        ),
    ],
    "FDRLClassifier": [
        FDRLClassifier(hidden=32, lr=0.01, max_epochs=12, batch_size=64),
    ],
    "FaceFrames": [FaceFrames()],
    "CoAttentionClassifier": [
        CoAttentionClassifier(dim=32, lr=3e-3, max_epochs=12, batch_size=64),
    ],
    "FrameEmbedding": [FrameEmbedding(model="resnet18", weights=None, input_size=32)],
    "GMTCNetClassifier": [GMTCNetClassifier(n_filters=8, n_blocks=2, lr=5e-3, max_epochs=12)],
    "INCASelector": [INCASelector(), INCASelector(k_min=1, cv=3, partition_size=20)],
    "MFCC": [MFCC()],
    "MISAClassifier": [
        # A tenth of the default's epochs or less, at thirty times its learning rate.
        MISAClassifier(lr=3e-3, max_epochs=8, batch_size=64, ffn_dim=64),
    ],
    "MelSpectrogram": [MelSpectrogram()],
    "SDTClassifier": [
        SDTClassifier(hidden=32, lr=3e-3, max_epochs=12, batch_size=64),
    ],
    "SpeechFeatures": [SpeechFeatures()],
    "TFMixClassifier": [
        TFMixClassifier(
            channels=32, lstm_hidden=16, fc_width=32, lr=3e-3, max_epochs=6, batch_size=64
        ),
    ],
    "TextEmbedding": [TextEmbedding()],
    "TorchvisionClassifier": [
        # A tenth of the default's epochs, at ten times its learning rate.
        TorchvisionClassifier(lr=0.01, max_epochs=30),
    ],
    "WavFusionClassifier": [
        WavFusionClassifier(dim=32, hidden=16, n_deep=1, lr=3e-3, max_epochs=12, batch_size=64),
    ],
    "TwineShufflePattern": [TwineShufflePattern(), TwineShufflePattern(n_levels=2)],
    "Wav2Vec2Embedding": [Wav2Vec2Embedding()],
}

#: All columns in every modality, so that branches meet; run as slow tests.
ON_ALL_COLUMNS = [
    # Discriminators, whose parameters are the criterion's.
    FDANClassifier(
        visual=EVERYTHING,
        audio=EVERYTHING,
        adaptation="daan",
        bottleneck=8,
        lr=0.02,
        max_epochs=12,
    ),
    FDRLClassifier(
        audio=EVERYTHING, text=EVERYTHING, hidden=32, lr=0.01, max_epochs=12, batch_size=64
    ),
    CoAttentionClassifier(
        audio=EVERYTHING, text=EVERYTHING, dim=16, lr=0.01, max_epochs=8, batch_size=64
    ),
    MISAClassifier(
        visual=EVERYTHING,
        audio=EVERYTHING,
        lr=3e-3,
        max_epochs=8,
        batch_size=64,
        hidden=32,
        ffn_dim=64,
    ),
    SDTClassifier(
        visual=EVERYTHING,
        audio=EVERYTHING,
        text=EVERYTHING,
        hidden=16,
        dropout=0.1,
        lr=0.01,
        max_epochs=8,
        batch_size=128,
    ),
    TorchvisionClassifier(
        predict_modality="fused",
        visual=EVERYTHING,
        audio=EVERYTHING,
        lr=0.01,
        max_epochs=30,
    ),
    WavFusionClassifier(
        visual=EVERYTHING,
        audio=EVERYTHING,
        text=EVERYTHING,
        dim=16,
        hidden=8,
        n_deep=1,
        n_codes=8,
        common_dim=8,
        lr=0.01,
        max_epochs=8,
        batch_size=128,
    ),
]

#: With nothing set; the checks of these take minutes.
AS_THEY_COME = [FDANClassifier()]
