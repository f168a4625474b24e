# %% [markdown]
# # Baselines side by side
#
# Every method of this package is a scikit-learn estimator on the same table of files, so that
# a fair comparison is a loop: the same clips, the same folds of unseen speakers, the same
# scores. Ten models run here on synthetic clips, in sizes that a laptop manages in a minute.
# The clips are a toy and the networks are small: the order of the methods below says nothing
# about people, and little about the methods. How to compare them is the point.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skfdan import SCORING, FDANClassifier
from skfdan.classifiers import (
    GMTCNetClassifier,
    MISAClassifier,
    TFMixClassifier,
    TorchvisionClassifier,
)
from skfdan.datasets import make_emotion_clips
from skfdan.feature_selection import make_inca_pipeline
from skfdan.inspection import ConfusionMatricesDisplay
from skfdan.preprocessing import MFCC, FaceFrames, MelSpectrogram, SpeechFeatures

plt.style.use("tableau-colorblind10")

# %% [markdown]
# ## The clips
#
# Eight speakers, four emotions, four clips of each by everyone.

# %%
clips = make_emotion_clips(
    128,
    8,
    emotions=["anger", "happiness", "neutral", "sadness"],
    root="demo-output/baselines",
    duration=1.0,
    frame_size=64,
    fps=4,
    sound_in_video=False,
    random_state=0,
)
pd.crosstab(clips.frame["speaker"], clips.frame["emotion"]).T

# %% [markdown]
# ## Front ends
#
# Each method has an input of its own: Mel spectrograms, MFCCs, hand-made features, faces. All
# start from the paths in the table. `cache_dir` keeps what was decoded, so that each file is
# decoded once a front end, whatever the number of folds and models.

# %%
cache = "demo-output/cache"
sound = {"duration": 1.0, "cache_dir": cache, "verbose": 0}
mel = MelSpectrogram(n_mels=48, **sound)
faces = FaceFrames(n_frames=1, size=48, on_no_face="center", cache_dir=cache, verbose=0)


def voice(transformer):
    """Read the voices of a modality table."""
    return ColumnTransformer([("audio", transformer, ["audio"])])


# MISA could read words too: its columns have to have names.
both = ColumnTransformer([("visual", faces, ["visual"]), ("audio", mel, ["audio"])])
both.set_output(transform="pandas")


def mel_statistics(cells):
    """Mean and standard deviation of every Mel band over time."""
    return np.array([np.r_[m.mean(axis=1), m.std(axis=1)] for m in np.ravel(cells)])


# %% [markdown]
# ## Ten models
#
# `fidelity` says how close to its publication a method can be: *exact* (every fact is public),
# *partial* (the method is, some settings are not), *reconstructed* (details had to be guessed)
# or *style* (only the idea is public). It speaks of a class with its defaults: the published
# settings where there are any, and each docstring marks what was decided here. In this notebook all
# networks are far smaller: 6 to 20 epochs, random weights, 32 pixels.
#
# FDAN and MISA learn from the faces of the training speakers too. Tested are voices alone, for
# everyone.

# %%
small = {"weights": None, "input_size": 32, "random_state": 0, "verbose": 0}
fdan = {**small, "backbone": "cnn", "lr": 0.01, "momentum": 0.9, "max_epochs": 16}
inca = make_inca_pipeline(cache_dir=cache, random_state=0, verbose=0)
inca.set_params(selection__k_min=50, selection__k_max=500, selection__step=50)
models = {
    "logistic regression": make_pipeline(
        voice(mel),
        FunctionTransformer(mel_statistics),
        StandardScaler(),
        LogisticRegression(max_iter=2000),
    ),
    "INCA": inca,
    "GM-TCNet": make_pipeline(
        voice(MFCC(**sound)),
        GMTCNetClassifier(
            n_filters=16, n_blocks=3, max_epochs=20, batch_size=32, random_state=0, verbose=0
        ),
    ),
    "TF-Mix style": make_pipeline(
        voice(SpeechFeatures(augment=(), **sound)),
        TFMixClassifier(
            channels=16,
            lstm_hidden=16,
            fc_width=32,
            lr=3e-3,
            max_epochs=15,
            random_state=0,
            verbose=0,
        ),
    ),
    "ResNet-18": make_pipeline(
        voice(mel),
        TorchvisionClassifier(arch="resnet18", lr=0.01, batch_size=16, max_epochs=6, **small),
    ),
    "MISA": make_pipeline(
        both,
        MISAClassifier(
            backbone="cnn",
            hidden=64,
            ffn_dim=128,
            lr=1e-3,
            max_epochs=16,
            predict_modality="audio",
            **small,
        ),
    ),
    "FDAN, voices only": make_pipeline(voice(mel), FDANClassifier(**fdan)),
    "FDAN": make_pipeline(both, FDANClassifier(**fdan)),
    "FDAN1 (no attention)": make_pipeline(both, FDANClassifier.fdan1(**fdan)),
    "FDAN2 (α = 0)": make_pipeline(both, FDANClassifier.fdan2(**fdan)),
}
models["FDAN"]

# %% [markdown]
# ## One loop
#
# Four folds, in each of which two speakers are tested whom no model has heard or seen. The
# folds are made once and handed to every model. No setting was chosen on these scores.

# %%
folds = list(GroupKFold(4).split(clips.table, clips.target, clips.groups))
runs = {
    name: cross_validate(
        model,
        clips.table,
        clips.target,
        cv=folds,
        scoring=SCORING,
        return_estimator=True,
        error_score="raise",
    )
    for name, model in models.items()
}
uar = pd.DataFrame({name: run["test_UAR"] for name, run in runs.items()})


# %%
def mean_sd(values, sign=""):
    """Mean ± standard deviation over the folds."""
    return f"{np.mean(values):{sign}.3f} ± {np.std(values):.3f}"


def describe(name):
    """Return a line of the table."""
    model = runs[name]["estimator"][0]
    module = getattr(model[-1], "module_", None)
    n = None if module is None else sum(weights.numel() for weights in module.parameters())
    steps = [step for _, step in model.steps if hasattr(step, "fidelity")]
    return {
        "model": name,
        "fidelity": steps[0].fidelity if steps else "",
        "weights": "" if n is None else f"{n:,}",
        **{metric: mean_sd(runs[name][f"test_{metric}"]) for metric in ("UAR", "wF1")},
        "UAR minus logistic regression": mean_sd(uar[name] - uar["logistic regression"], "+"),
    }


pd.DataFrame([describe(name) for name in models]).set_index("model")

# %% [markdown]
# WAR equals UAR here, since all emotions are equally frequent. The last column is taken fold by
# fold. Folds have hard and easy speakers in common, so that
# this spread, and not that of the scores, says whether two models differ.

# %%
order = uar.mean().sort_values().index
tags = [describe(name)["fidelity"] for name in order]
chance = 1 / len(set(clips.target))
figure, axis = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
for i, name in enumerate(order):
    axis.plot(uar[name], np.full(4, i), "o", color="C2", ms=4, zorder=1)
    axis.errorbar(
        uar[name].mean(), i, xerr=uar[name].std(ddof=0), fmt="D", color="C0", capsize=4, zorder=2
    )
axis.axvline(chance, color="C5", ls="--")
axis.text(chance + 0.01, len(order) - 1, "chance", color="C5", va="center")
axis.set_yticks(
    range(len(order)),
    [f"{name} ({tag})" if tag else name for name, tag in zip(order, tags, strict=True)],
)
axis.set(xlim=(0, 1), xlabel="UAR of unseen speakers: folds, mean ± standard deviation")
axis.grid(axis="x", alpha=0.3)

# %% [markdown]
# Most of the networks' bars overlap with each other, and on average none of the networks comes
# up to logistic regression on the mean and the deviation of each Mel band: 96 clips are little
# to train a network on. Have such a row in every table.
#
# ## Which emotions?
#
# Two models with like scores may still err in other places. Predictions of all four folds,
# each clip by the models that did not know its speaker:

# %%
predictions = {}
for name in ("logistic regression", "FDAN"):
    predictions[name] = np.empty_like(clips.target)
    for model, (_, test) in zip(runs[name]["estimator"], folds, strict=True):
        predictions[name][test] = model.predict(clips.table.iloc[test])
_ = ConfusionMatricesDisplay.from_predictions(clips.target, predictions)

# %% [markdown]
# ## On your corpus
#
# - Replace `clips` by what a loader returns (`load_ravdess`, `load_folder`, ...), and the sizes
#   by the classifiers' defaults.
# - Several seeds a fold show how much of a difference is luck; one was taken here for
#   time's sake.
# - `benchmarks/run.py` in the repository does all this on RAVDESS, SAVEE and MELD, with the
#   published numbers beside ours, and goes on where it was interrupted.
# - [The paper's tables, and what leaks](04_tables_and_leaks.ipynb) shows how scores get too
#   high; [Inside the model](07_inside_the_model.ipynb) what FDAN learns.
