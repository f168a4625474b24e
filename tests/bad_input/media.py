"""Files and arrays that transformers can't use."""

import time

import numpy as np

from bad_input.shared import SHORT, Case, mel
from skfdan.preprocessing import (
    MFCC,
    BackboneEmbedding,
    DecodeLimits,
    FaceFrames,
    FrameEmbedding,
    MelSpectrogram,
    SpeechFeatures,
    TextEmbedding,
    TwineShufflePattern,
    Wav2Vec2Embedding,
)
from skfdan.table import SKIP

FACES = {"n_frames": 1, "size": 16, "verbose": 0}
BACKBONE = {"backbone": "cnn", "weights": None, "input_size": 8, "verbose": 0}


def _mel(*cells, **params):
    return lambda c: mel(**params).fit_transform(
        [c.files(cell) if isinstance(cell, str) else cell for cell in cells]
    )


def _missing(c: Case):
    transformer = mel(on_error="missing", timeout=None)
    out = transformer.fit_transform([c.files("a.wav"), c.files("empty.wav")])
    assert out[0, 0].shape[0] == 8
    assert out[1, 0] is None
    report = transformer.report_
    assert report.columns.tolist() == ["row", "file", "stage", "reason"]
    assert report.iloc[0].tolist() == [
        1,
        c.files("empty.wav"),
        "open",
        "is empty (0 bytes); copy or download it again",
    ]


def _skip(c: Case):
    transformer = mel(on_error="skip", timeout=None)
    out = transformer.fit_transform([c.files("notes.wav"), c.files("a.wav")])
    assert out[0, 0] is SKIP
    assert transformer.report_["row"].tolist() == [0]


def _no_face(c: Case):
    out = FaceFrames(**FACES).fit_transform([c.files("grey.png"), None])
    assert out[0, 0] is None


def _nothing_in_filters(c: Case):
    MelSpectrogram(n_fft=64, n_mels=64, sample_rate=2000, hop_length=64).fit([None])


def _detector_wrong(c: Case):
    FaceFrames(detector=lambda picture: [1, 2, 3], **FACES).fit_transform([c.files("grey.png")])


def _sleep(picture):
    time.sleep(60)


def _too_slow(c: Case):
    FaceFrames(detector=_sleep, timeout=0.5, **FACES).fit_transform([c.files("grey.png")])


def _embed(*cells):
    return lambda c: BackboneEmbedding(**BACKBONE).fit_transform(list(cells))


def _faces_after_sound(c: Case):
    BackboneEmbedding(**BACKBONE).fit(list(c.sound)).transform(list(c.faces))


def _no_weights(c: Case):
    (c.tmp / "model").mkdir()
    (c.tmp / "model" / "config.json").write_text("{}")
    TextEmbedding(model=str(c.tmp / "model"), verbose=0).fit_transform(["I am fine."])


CASES = {
    '`MelSpectrogram` on `"a.wav"` instead of a list': lambda c: MelSpectrogram().fit("a.wav"),
    "`MelSpectrogram` on a table of two columns": lambda c: MelSpectrogram().fit(c.table),
    "`MelSpectrogram` on a file that is not there": _mel("a.wav", "none.wav"),
    "`MelSpectrogram` on a file of 0 bytes": _mel("empty.wav"),
    "`MelSpectrogram` on a text file": _mel("notes.wav"),
    "`MelSpectrogram` on a picture": _mel("grey.png"),
    "`MelSpectrogram` on a file that is cut short": _mel("cut.flac"),
    "`MelSpectrogram` on a file of NaN": _mel("nan.wav"),
    "`MelSpectrogram` on a file of hours of silence (a bomb)": _mel("long.flac"),
    "A file that takes longer than `timeout=0.5` seconds": _too_slow,
    "`MelSpectrogram` on samples beyond full scale": _mel(np.full(2000, 1e12)),
    "`MelSpectrogram` on a list of numbers": _mel(3),
    "`MelSpectrogram` on a list of things that are no sound": _mel({"a": 1}, {"a": 2}),
    '`MelSpectrogram(sample_rate="x")`': _mel("a.wav", sample_rate="x"),
    "`MelSpectrogram(n_fft=64.5)`": _mel("a.wav", n_fft=64.5),
    "`MelSpectrogram` on a cell that is no sound": _mel("a.wav", {"a": 1}),
    "`FaceFrames` on a matrix of numbers": lambda c: FaceFrames().fit(c.X),
    '`MelSpectrogram(on_error="missing")` on a broken file': _missing,
    '`MelSpectrogram(on_error="skip")` on a broken file': _skip,
    "`MelSpectrogram(on_error=True)`": _mel("a.wav", on_error=True),
    '`MelSpectrogram(timeout="long")`': _mel("a.wav", timeout="long"),
    "`MelSpectrogram(limits=600)`": _mel("a.wav", limits=600),
    "`MelSpectrogram(fmin=..., fmax=...)` out of order": _mel("a.wav", fmin=900.0, fmax=100.0),
    "`MelSpectrogram` with more filters than frequencies": _nothing_in_filters,
    "`MFCC(n_mfcc=...)` above `n_mels`": lambda c: MFCC(n_mfcc=40, n_mels=20).fit([None]),
    "`MFCC(n_mfcc=8.5)`": lambda c: MFCC(n_mfcc=8.5).fit([None]),
    '`SpeechFeatures(duration="x")`': lambda c: SpeechFeatures(duration="x").fit([None]),
    '`TwineShufflePattern(sample_rate="x")`': lambda c: TwineShufflePattern(sample_rate="x").fit(
        [None]
    ),
    '`FaceFrames(size="x")`': lambda c: FaceFrames(size="x").fit([None]),
    "`MFCC` on a file that is not there": lambda c: MFCC(**SHORT, n_mfcc=4, verbose=0).transform(
        [c.files("none.wav")]
    ),
    "`SpeechFeatures` with an unknown feature": lambda c: SpeechFeatures(
        features=("mfcc", "pitch")
    ).fit([None]),
    "`SpeechFeatures` on a file of 0 bytes": lambda c: SpeechFeatures(
        **SHORT, n_mfcc=4, augment=(), verbose=0
    ).transform([c.files("empty.wav")]),
    "`TwineShufflePattern` on rows without a voice": lambda c: TwineShufflePattern(
        sample_rate=2000, n_levels=1, verbose=0
    ).fit_transform([c.files("a.wav"), None]),
    '`TwineShufflePattern(on_error="skip")`': lambda c: TwineShufflePattern(on_error="skip").fit(
        [None]
    ),
    "`FaceFrames` on a picture without a face": _no_face,
    '`FaceFrames(on_no_face="raise")` on such a picture': lambda c: FaceFrames(
        on_no_face="raise", **FACES
    ).transform([c.files("grey.png")]),
    "`FaceFrames` on a picture that is cut short": lambda c: FaceFrames(**FACES).transform(
        [c.files("broken.png")]
    ),
    "`FaceFrames` on a picture of 81 million pixels (a bomb)": lambda c: FaceFrames(
        **FACES
    ).transform([c.files("huge.png")]),
    "`FaceFrames` on a sound file": lambda c: FaceFrames(**FACES).transform([c.files("a.wav")]),
    "`FaceFrames` on a folder without pictures": lambda c: FaceFrames(**FACES).transform(
        [str(c.tmp)]
    ),
    "`FaceFrames` on floats": lambda c: FaceFrames(**FACES).transform(
        [np.zeros((48, 48, 3)), np.zeros((48, 48, 3))]
    ),
    "`FaceFrames` with an unknown detector": lambda c: FaceFrames(detector="mtcnn").fit([None]),
    "`FaceFrames` with a detector that returns something else": _detector_wrong,
    "`FaceFrames` with an unknown `on_no_face`": lambda c: FaceFrames(on_no_face="skip").fit(
        [None]
    ),
    "`BackboneEmbedding` on paths": _embed("a.wav", "b.wav"),
    "`BackboneEmbedding` on a matrix of numbers": lambda c: BackboneEmbedding(**BACKBONE).fit(c.X),
    "`BackboneEmbedding` on waveforms or vectors": _embed(np.zeros(40, np.float32)),
    "`BackboneEmbedding` on altered copies of spectrograms": _embed(np.zeros((4, 1, 8, 10))),
    "`BackboneEmbedding` on pictures whose channels are last": _embed(np.zeros((9, 8, 3), "u1")),
    "`BackboneEmbedding` on a spectrogram with NaN": _embed(
        np.zeros((8, 9)), np.full((8, 9), np.nan)
    ),
    "`BackboneEmbedding` on faces after spectrograms": _faces_after_sound,
    '`BackboneEmbedding(frames="first")`': lambda c: BackboneEmbedding(frames="first").fit([None]),
    "`TextEmbedding` with a folder that is not there": lambda c: TextEmbedding(
        model=str(c.tmp / "none" / "bert"), verbose=0
    ).fit_transform(["I am fine."]),
    "`TextEmbedding` with a folder that lacks files": _no_weights,
    "`TextEmbedding` on a cell that is no text": lambda c: TextEmbedding(verbose=0).fit_transform(
        ["I am fine.", 3]
    ),
    '`TextEmbedding(output="first")`': lambda c: TextEmbedding(output="first").fit([None]),
    "`Wav2Vec2Embedding` with an unknown bundle": lambda c: Wav2Vec2Embedding(
        model="WAV2VEC3", verbose=0
    ).fit_transform([np.zeros(2000)]),
    "`Wav2Vec2Embedding(layer=0)`": lambda c: Wav2Vec2Embedding(layer=0).fit([None]),
    "`FrameEmbedding` on paths": lambda c: FrameEmbedding(weights=None, verbose=0).fit_transform(
        [c.files("grey.png")]
    ),
    "`FrameEmbedding` on floats": lambda c: FrameEmbedding(weights=None, verbose=0).fit_transform(
        [np.zeros((3, 8, 8))]
    ),
    "`FrameEmbedding` with an unknown network": lambda c: FrameEmbedding(
        model="lenet", weights=None, verbose=0
    ).fit_transform([np.zeros((3, 8, 8), "u1")]),
    "`DecodeLimits(max_seconds=0)`": lambda c: DecodeLimits(max_seconds=0),
}
