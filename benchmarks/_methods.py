"""What is compared: how each row is built, what it hears and sees, and where it stands.

To add a row: a :class:`Method` (what is fitted) if it is fitted in a new way, and
a :class:`Row` (what is printed). Rows that share a method share its fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from _setting import Setting

TABLES = ("1", "2", "3", "4", "questions", "adaptation", "fdrl", "wavfusion")
#: Losses of the table "adaptation", and the name of each there.
ADAPTATIONS = {
    "lmmd": "LMMD",
    "mmd": "MMD",
    "coral": "CORAL",
    "cmd": "CMD",
    "dann": "DANN",
    "daan": "DAAN",
}
#: A discriminator's influence grows by itself.
ADVERSARIAL = ("dann", "daan")
#: FDRL's ablations: their published names.
FDRL_ROWS = {
    "S1": "S1 w/o (L_g + L_l) + (L_p + L_d)",
    "S2": "S2 w/o Global discriminator",
    "S3": "S3 w/o Local discriminator",
    "S4": "S4 w/o fine-grained alignment component",
    "S5": "S5 w/o fine-grained disparity component",
    "S6": "S6 w/o fine-grained predictor component",
}
#: WavFusion and its ablations: their published names and parameters. Without deep layers all
#: of the speech model's are read.
WAVFUSION_ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "": ("WavFusion", {}),
    ", voice": ("A", {"modalities": ("audio",)}),
    ", words": ("T", {"modalities": ("text",)}),
    ", faces": ("V", {"modalities": ("visual",)}),
    ", voice and words": ("A+T", {"modalities": ("audio", "text")}),
    ", voice and faces": ("A+V", {"modalities": ("audio", "visual")}),
    ", no LVC": ("w/o LVC block", {"lvc": False}),
    **{
        f", λ = {value}": (f"lambda = {value}", {"margin_weight": value})
        for value in (0, 0.01, 0.1, 10)
    },
    ", concatenated": ("concat 12+0", {"fusion": "concat", "n_deep": 0}),
    **{f", {n} deep": (f"Attention {12 - n}+{n}", {"n_deep": n}) for n in (1, 2, 4)},
}
#: α that the row "α by validation" chooses from.
ALPHAS = (1e-4, 1e-3, 1e-2, 0.1)
#: Published for FDRL and WavFusion.
SPEECH_MODEL = "WAV2VEC2_BASE"
#: Parameters of FDANClassifier for the row "best setting for faces", found on other
#: data than those tested here. None leaves the row out.
BEST_FOR_FACES: dict[str, Any] | None = None


@dataclass(frozen=True)
class Method:
    """What is fitted.

    ``build(setting, cache)`` makes the estimator. ``front_end`` names what turns
    the audio paths into its cells; ``"path"`` leaves them paths. A method with
    ``modalities`` reads whole utterances, and its ``front_end`` names the embeddings
    of each (:func:`embedding`). ``variants`` maps the name of an evaluation of one fit
    to parameters set before it.
    """

    build: Callable[[Setting, str | None], Any]
    fidelity: str
    front_end: str = "mel"
    faces: bool = False
    seeded: bool = True
    variants: Mapping[str, dict[str, Any]] = field(default_factory=lambda: {"": {}})
    #: Keep features of both modalities of the first seed and fold, for the figure.
    features: bool = False
    #: Voices train without their labels.
    hide_labels: bool = False
    #: Argument of ``fit`` that takes the speakers, where whole speakers are tested: the
    #: method holds out training rows of its own.
    speakers: str | None = None
    #: Overrides among which a validation part of the training rows decides.
    grid: tuple[dict[str, Any], ...] = ()
    #: What a method of the companion tables reads of an utterance.
    modalities: tuple[str, ...] = ()
    #: It is told dialogues and speakers.
    dialogues: bool = False


@dataclass(frozen=True)
class Row:
    """What is printed: a line of one or more tables."""

    name: str
    method: str
    tables: tuple[str, ...]
    variant: str = ""
    #: Its name in FDAN's tables.
    published: str | None = None
    note: str = ""
    #: With ``--quick`` only if ``--estimators`` names it.
    slow: bool = False


# ---------------------------------------------------------------- estimators


def _fdan(**parameters):
    def build(setting: Setting, cache):
        from skfdan import FDANClassifier

        return FDANClassifier(**{**setting.network, **parameters})

    return build


def _torchvision(arch: str):
    def build(setting: Setting, cache):
        from skfdan.classifiers import TorchvisionClassifier

        if setting.weights not in (None, "DEFAULT") and arch != setting.backbone:
            raise ValueError(f"--weights {setting.weights} are those of {setting.backbone}")
        return TorchvisionClassifier(arch=arch, **setting.training)

    return build


def _gm_tcnet(setting: Setting, cache):
    from skfdan.classifiers import GMTCNetClassifier

    # Its optimiser is published (Adam, its rate and betas), so it keeps it.
    return GMTCNetClassifier(max_epochs=setting.epochs, verbose=0)


def _tf_mix(setting: Setting, cache):
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline

    from skfdan.classifiers import TFMixClassifier
    from skfdan.preprocessing import SpeechFeatures

    # The copies it adds at training are random: in the fold, of training rows only.
    features = SpeechFeatures(duration=setting.duration, cache_dir=cache, verbose=0)
    return make_pipeline(
        ColumnTransformer([("audio", features, ["audio"])]),
        # As many steps as the other networks, though an epoch goes through the copies too.
        TFMixClassifier(
            max_epochs=math.ceil(setting.epochs / (1 + len(features.augment))), verbose=0
        ),
    )


def _dsan(setting: Setting, cache):
    from skfdan import FDANClassifier

    return FDANClassifier.dsan(**setting.network)


def _misa(setting: Setting, cache):
    from skfdan.classifiers import MISAClassifier

    return MISAClassifier(
        backbone=setting.backbone,
        weights=setting.weights,
        input_size=setting.input_size,
        max_epochs=setting.epochs,
        # The test rows are voices alone.
        predict_modality="audio",
        verbose=0,
    )


def _inca(setting: Setting, cache):
    from skfdan.feature_selection import make_inca_pipeline

    return make_inca_pipeline(cache_dir=cache, verbose=0)


def mel_statistics(X) -> np.ndarray:
    """Mean and standard deviation of every Mel band over time."""
    return np.array([np.concatenate([m.mean(1), m.std(1)]) for m in X["audio"]])


def _statistics(setting: Setting, cache):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    return make_pipeline(
        FunctionTransformer(mel_statistics), StandardScaler(), LogisticRegression(max_iter=5000)
    )


def _fdrl(ablation: str | None = None):
    def build(setting: Setting, cache):
        from skfdan.classifiers import FDRLClassifier

        small = {"hidden": 64} if setting.quick else {}
        return FDRLClassifier(ablation=ablation, max_epochs=setting.epochs, verbose=0, **small)

    return build


def _misa_words(setting: Setting, cache):
    from skfdan.classifiers import MISAClassifier

    small = {"hidden": 64, "ffn_dim": 256} if setting.quick else {}
    return MISAClassifier(
        # Its cells are vectors, which no backbone reads.
        weights=None,
        predict_modality="fused",
        max_epochs=setting.epochs,
        verbose=0,
        **small,
    )


def _co_attention(setting: Setting, cache):
    from skfdan.classifiers import CoAttentionClassifier

    small = {"dim": 64} if setting.quick else {}
    return CoAttentionClassifier(max_epochs=setting.epochs, verbose=0, **small)


def _wavfusion(**parameters):
    def build(setting: Setting, cache):
        from skfdan.classifiers import WavFusionClassifier

        start = {}
        if "audio" in parameters.get("modalities", ("audio",)) and parameters.get("n_deep", 3):
            start = {"speech_model": setting.speech_model or SPEECH_MODEL}
        small = {"hidden": 32, "common_dim": 32, "n_codes": 16} if setting.quick else {}
        return WavFusionClassifier(
            **start, **small, max_epochs=setting.epochs, verbose=0, **parameters
        )

    return build


def _sdt(setting: Setting, cache):
    from skfdan.classifiers import SDTClassifier

    small = {"hidden": 64, "lr": 1e-3} if setting.quick else {}
    return SDTClassifier(max_epochs=setting.epochs, verbose=0, **small)


def embedding(name: str, modality: str, table: str, setting: Setting, cache: str | None):
    """Return the transformer of a modality that a companion table's ``front_end`` names.

    ``"mean"`` is a vector an utterance, ``"sequence"`` all frames and tokens of the last
    layers. ``"before N"`` leaves out the last N layers of the speech model, which
    WavFusion's own layers stand for: those before are the frozen ones.
    """
    from skfdan import preprocessing

    kind, _, replaced = name.partition(" ")
    common = {
        "output": "mean" if kind == "mean" else "sequence",
        "cache_dir": cache,
        "verbose": 0,
    }
    if modality == "audio":
        return preprocessing.Wav2Vec2Embedding(
            model=setting.speech_model or SPEECH_MODEL, layer=-1 - int(replaced or 0), **common
        )
    if modality == "text":
        published = "bert-base-uncased" if table == "fdrl" else "roberta-base"
        return preprocessing.TextEmbedding(model=setting.text_model or published, **common)
    return preprocessing.FrameEmbedding(
        model=setting.face_model or "efficientnet_b0",
        weights="imagenet" if setting.weights == "DEFAULT" else setting.weights,
        input_size=setting.input_size,
        random_state=0,
        **common,
    )


def front_end(name: str, setting: Setting, cache: str | None):
    """Return the transformer of audio paths, or None for paths."""
    from skfdan import preprocessing

    if name == "mel":
        return preprocessing.MelSpectrogram(
            n_mels=setting.n_mels,
            hop_length=setting.hop_length,
            duration=setting.duration,
            cache_dir=cache,
        )
    if name == "mfcc":
        return preprocessing.MFCC(cache_dir=cache)
    return None


# ---------------------------------------------------------------- registry

_BOTH = {"bank": {"inference": "bank"}, "bypass": {"inference": "bypass"}}
_SAFE = {"ramp": "dsan", "lmmd_normalize": True}

METHODS: dict[str, Method] = {
    "FDAN": Method(_fdan(), "partial", faces=True, variants=_BOTH, features=True),
    "FDAN1": Method(_fdan(n_layers=0), "partial", faces=True),
    "FDAN2": Method(_fdan(alpha=0.0), "partial", faces=True, variants=_BOTH),
    "FDAN official": Method(_fdan(variant="official"), "partial", faces=True),
    "voices": Method(_fdan(), "partial"),
    "voices, no attention": Method(_fdan(n_layers=0), "partial"),
    "shared classifier": Method(_fdan(n_layers=0, alpha=0.0), "partial", faces=True),
    "FDAN, chosen alpha": Method(
        _fdan(**_SAFE), "partial", faces=True, grid=tuple({"alpha": a} for a in ALPHAS)
    ),
    "GM-TCNet": Method(_gm_tcnet, "exact", front_end="mfcc"),
    "INCA": Method(_inca, "reconstructed", front_end="path", seeded=False),
    "TF-Mix": Method(_tf_mix, "style", front_end="path", speakers="tfmixclassifier__groups"),
    "MISA": Method(_misa, "partial", faces=True),
    "logistic regression": Method(_statistics, "", seeded=False),
    **{
        f"{family}-{depth}": Method(_torchvision(f"{family.lower()}{depth}"), "partial")
        for family, depth in (
            ("VGG", 16),
            ("VGG", 19),
            ("ResNet", 18),
            ("ResNet", 34),
            ("ResNet", 50),
        )
    },
    **{
        f"adaptation {name}": Method(
            _fdan(
                adaptation=name,
                # The weights they were published with: 0.5 for DSAN, 1 for DANN.
                alpha=1.0 if name in ADVERSARIAL else 0.5,
                ramp=None if name in ADVERSARIAL else "dsan",
                lmmd_normalize=True,
            ),
            "partial",
            faces=True,
        )
        for name in ADAPTATIONS
    },
    "adaptation None": Method(_fdan(adaptation=None), "partial", faces=True),
    "unsupervised DSAN": Method(_dsan, "partial", faces=True, hide_labels=True),
}
_VOICE_AND_WORDS = ("audio", "text")
METHODS |= {
    "FDRL": Method(_fdrl(), "partial", front_end="mean", modalities=_VOICE_AND_WORDS),
    **{
        f"FDRL {name}": Method(
            _fdrl(name), "partial", front_end="mean", modalities=_VOICE_AND_WORDS
        )
        for name in FDRL_ROWS
    },
    "MISA, voice and words": Method(
        _misa_words, "partial", front_end="mean", modalities=_VOICE_AND_WORDS
    ),
    "co-attention": Method(
        _co_attention, "partial", front_end="sequence", modalities=_VOICE_AND_WORDS
    ),
    **{
        f"WavFusion{name}": Method(
            _wavfusion(**parameters),
            "partial",
            front_end=f"before {parameters.get('n_deep', 3)}",
            modalities=parameters.get("modalities", ("audio", "text", "visual")),
        )
        for name, (_, parameters) in WAVFUSION_ROWS.items()
    },
    "SDT": Method(
        _sdt,
        "exact",
        front_end="mean",
        modalities=("text", "audio", "visual"),
        dialogues=True,
    ),
}
if BEST_FOR_FACES is not None:
    METHODS["best for faces"] = Method(_fdan(**BEST_FOR_FACES), "partial", faces=True)

_NETWORKS = ("VGG-16", "VGG-19", "ResNet-18", "ResNet-34", "ResNet-50")

ROWS: tuple[Row, ...] = (
    Row("voices only", "voices", ("questions",), note="the same network, no face in training"),
    Row(
        "voices only, no attention",
        "voices, no attention",
        ("1", "2", "questions"),
        note="FDAN's backbone and bottleneck, no face in training",
    ),
    Row(
        "shared classifier only",
        "shared classifier",
        ("questions",),
        note="faces, but neither attention nor LMMD: FDAN1 and FDAN2 at once",
    ),
    Row("FDAN, bank", "FDAN", ("questions",), variant="bank"),
    Row("FDAN, bypass", "FDAN", ("questions",), variant="bypass"),
    Row(
        "FDAN, α by validation",
        "FDAN, chosen alpha",
        ("questions",),
        note='α of the best validation UAR, with ramp="dsan" and lmmd_normalize=True; '
        "validated within the training rows of every fold",
    ),
    *(
        [Row("best setting for faces", "best for faces", ("questions",))]
        if BEST_FOR_FACES is not None
        else []
    ),
    *(
        Row(name, name, ("1", "2"), published=name, slow=name.startswith("VGG"))
        for name in _NETWORKS
    ),
    Row("INCA", "INCA", ("1",), published="INCA", note="one run a fold"),
    Row(
        "GM-TCNet",
        "GM-TCNet",
        ("1",),
        published="GM-TCNet",
        note="its published optimiser and rate",
    ),
    Row("TF-Mix", "TF-Mix", ("1",), published="TF-Mix"),
    Row(
        "MISA",
        "MISA",
        ("2",),
        note="in none of the paper's tables; trained on faces and voices in rows of their own, "
        "tested on voices alone; its published optimiser and rate",
    ),
    Row("FDAN1", "FDAN1", ("4",), published="FDAN1", note="no cross-attention"),
    Row("FDAN2", "FDAN2", ("4",), variant="bank", published="FDAN2", note="α = 0"),
    Row("FDAN", "FDAN", ("1", "2", "4"), variant="bank", published="FDAN"),
    Row("FDAN (bypass)", "FDAN", ("4",), variant="bypass", note="nothing propagated at prediction"),
    Row(
        "FDAN (official code)",
        "FDAN official",
        ("1", "2", "4", "questions"),
        note="what the released code computes, defects included",
    ),
    Row(
        "logistic regression",
        "logistic regression",
        ("1", "2", "questions"),
        note="sanity row, on means and deviations of the log-Mel bands; one run a fold",
    ),
    Row("no adaptation", "adaptation None", ("adaptation",)),
    Row("LMMD as in FDAN", "FDAN", ("adaptation",), variant="bank", note="α = 0.001, constant"),
    *(
        Row(
            shown,
            f"adaptation {name}",
            ("adaptation",),
            note="α = 1, constant: the influence of a discriminator grows by itself"
            if name in ADVERSARIAL
            else "α = 0.5, growing, as DSAN has it, with lmmd_normalize=True",
        )
        for name, shown in ADAPTATIONS.items()
    ),
    Row(
        "DSAN, unsupervised",
        "unsupervised DSAN",
        ("adaptation",),
        note="FDANClassifier.dsan: one network for both modalities; the labels of the training "
        "voices are hidden, so it is no rival of the other rows",
    ),
    Row(
        "MISA, voice and words",
        "MISA, voice and words",
        ("fdrl",),
        published="MISA",
        note="its published optimiser and rate; on means of frames and tokens",
    ),
    Row(
        "co-attention",
        "co-attention",
        ("fdrl",),
        published="BERT + Wav2vec2",
        note="CoAttentionClassifier: without embeddings of phones, syllables and words, which "
        "need a forced alignment",
    ),
    Row("FDRL", "FDRL", ("fdrl",), published="FDRL", note="frozen encoders; the paper trains them"),
    *(
        Row(f"FDRL {name}", f"FDRL {name}", ("fdrl",), published=published)
        for name, published in FDRL_ROWS.items()
    ),
    *(
        Row(
            f"WavFusion{name}",
            f"WavFusion{name}",
            ("wavfusion",),
            published=published,
        )
        for name, (published, _) in WAVFUSION_ROWS.items()
    ),
    Row(
        "SDT",
        "SDT",
        ("wavfusion",),
        published="SDT",
        note="SDTClassifier: reads whole dialogues, so its numbers are no rivals of those of "
        "single utterances (the published one stands in FDAN's Table 2); on means of the frozen "
        "encoders’ frames, not on RoBERTa fine-tuned on the corpus, openSMILE and DenseNet",
    ),
)


def rows_of(table: str, estimators: list[str] | None) -> list[Row]:
    """Return the rows of a table that are asked for."""
    if table == "3":
        rows = [replace(row, tables=("3",)) for row in ROWS if row.name == "FDAN"]
    else:
        rows = [row for row in ROWS if table in row.tables]
    if estimators:
        wanted = {plain(name) for name in estimators}
        return [row for row in rows if plain(row.name) in wanted]
    return rows


def plain(name: str) -> str:
    """Compare names without case, spaces and punctuation."""
    return "".join(c for c in name.lower() if c.isalnum())


def check_estimators(names: list[str] | None) -> None:
    """Refuse a name that no row has."""
    known = {plain(row.name): row.name for row in ROWS}
    for name in names or ():
        if plain(name) not in known:
            raise ValueError(
                f"--estimators {name!r} is unknown; choose from: "
                f"{', '.join(map(repr, known.values()))}."
            )


def check_tables(names: list[str]) -> None:
    """Refuse a table that does not exist."""
    for name in names:
        if name not in TABLES:
            raise ValueError(f"--table {name!r} is unknown; choose from {', '.join(TABLES)}.")
