# %% [markdown]
# # Real voices, other people's faces
#
# FDAN needs no video of the speaker: here it learns from RAVDESS voices and
# from FER2013 photographs of other people, and is tested on the voices of
# speakers it has never heard. Two rivals get the same folds, spectrograms and
# seeds: the same network without faces, and logistic regression on log-Mel
# statistics.

# %%
import argparse
import time

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skfdan import (
    AudioHoldout,
    FDANClassifier,
    stack_modalities,
    uar_score,
    war_score,
    weighted_f1_score,
)
from skfdan.datasets import load_fer2013, load_ravdess
from skfdan.preprocessing import FaceFrames, MelSpectrogram

parser = argparse.ArgumentParser(description="FDAN on RAVDESS voices and FER2013 faces.")
parser.add_argument("--ravdess", required=True, help="folder of RAVDESS (Actor_01, ...)")
parser.add_argument("--fer2013", required=True, help="fer2013.csv, an npz file or image folders")
parser.add_argument("--quick", action="store_true", help="a reduced setting for two CPU cores")
parser.add_argument("--folds", type=int, help="speaker folds (default: 6, quick 3)")
parser.add_argument("--seeds", type=int, help="seeds per fold (default: 3, quick 2)")
parser.add_argument("--epochs", type=int, help="training epochs (default: 300, quick 30)")
parser.add_argument("--backbone", help="default: resnet34, quick cnn")
parser.add_argument("--weights", help="DEFAULT or a path (default: DEFAULT, quick random)")
parser.add_argument("--input-size", type=int, help="default: 224, quick 64")
parser.add_argument(
    "--lr", type=float, help="learning rate (default: FDANClassifier's, quick 0.01)"
)
parser.add_argument("--momentum", type=float, help="default: FDANClassifier's, quick 0.9")
parser.add_argument("--alpha", type=float, default=1e-3, help="weight of LMMD (default: 1e-3)")
parser.add_argument("--cache", help="folder to keep decoded files in")
args = parser.parse_args()

quick = {
    "folds": 3,
    "seeds": 2,
    "epochs": 30,
    "backbone": "cnn",
    "weights": None,
    "input_size": 64,
    "lr": 0.01,
    "momentum": 0.9,
}
full = {
    "folds": 6,
    "seeds": 3,
    "epochs": 300,
    "backbone": "resnet34",
    "weights": "DEFAULT",
    "input_size": 224,
    "lr": FDANClassifier().lr,
    "momentum": FDANClassifier().momentum,
}
setting = {
    name: value if getattr(args, name) is None else getattr(args, name)
    for name, value in (quick if args.quick else full).items()
}

# %% [markdown]
# ## Two corpora, one table
#
# Both corpora name their emotions alike once loaded. RAVDESS has a "calm" that
# FER2013 lacks; those voices are left out.

# %%
start = time.perf_counter()
voices = load_ravdess(args.ravdess, emotions={"calm": None})
faces = load_fer2013(args.fer2013)
mel = MelSpectrogram(n_mels=64, hop_length=512, duration=3.5, cache_dir=args.cache)
X_aud = mel.fit_transform(voices.table[["audio"]])[:, 0]
# FER2013's pictures are cropped faces already: no detector.
X_vis = FaceFrames(detector=None, size=min(setting["input_size"], 112)).fit_transform(
    faces.table[["visual"]]
)[:, 0]
table, y, groups = stack_modalities(
    visual=(X_vis, faces.target, faces.groups), audio=(X_aud, voices.target, voices.groups)
)
print(
    f"{len(X_aud)} voices of {len(set(voices.groups))} speakers, {len(X_vis)} faces, "
    f"{len(set(y))} emotions; read in {time.perf_counter() - start:.0f} s"
)

# %% [markdown]
# ## Three models, the same folds

# %%
parameters = {k: v for k, v in setting.items() if k not in ("folds", "seeds", "epochs")}
network = FDANClassifier(**parameters, max_epochs=setting["epochs"], alpha=args.alpha)


def statistics(X):
    """Mean and standard deviation of every Mel band over time."""
    return np.array([np.concatenate([m.mean(1), m.std(1)]) for m in X["audio"]])


models = {
    "FDAN, voices and faces": (network, True),
    "same network, voices only": (network, False),
    "logistic regression, log-Mel statistics": (
        make_pipeline(
            FunctionTransformer(statistics), StandardScaler(), LogisticRegression(max_iter=5000)
        ),
        False,
    ),
}
metrics = {"WAR": war_score, "UAR": uar_score, "wF1": weighted_f1_score}
scores = {name: [] for name in models}
heard = table["audio"].notna().to_numpy()
cv = AudioHoldout(GroupKFold(setting["folds"]), visual="disjoint")
for fold, (train, test) in enumerate(cv.split(table, y, groups)):
    for seed in range(setting["seeds"]):
        for name, (model, with_faces) in models.items():
            began = time.perf_counter()
            rows = train if with_faces else train[heard[train]]
            model = clone(model)
            if isinstance(model, FDANClassifier):
                model.set_params(random_state=seed)
            elif seed > 0:
                continue  # it has no random part
            predicted = model.fit(table.iloc[rows], y[rows]).predict(table.iloc[test])
            scores[name].append([score(y[test], predicted) for score in metrics.values()])
            print(
                f"fold {fold} seed {seed}: {name:40s} UAR {scores[name][-1][1]:.3f} "
                f"({time.perf_counter() - began:.0f} s)",
                flush=True,
            )

# %% [markdown]
# ## Unseen speakers

# %%
print(
    f"\n{setting['folds']} speaker-independent folds x {setting['seeds']} seeds, "
    f"{setting['backbone']}, weights {setting['weights']}, {setting['epochs']} epochs, "
    f"input {setting['input_size']}, lr {setting['lr']}, alpha {args.alpha}; fixed settings, "
    "nothing selected in this run.\nMean ± standard deviation:"
)
for name, values in scores.items():
    values = np.array(values)
    print(
        f"  {name:40s} "
        + "  ".join(
            f"{metric} {mean:.3f} ± {std:.3f}"
            for metric, mean, std in zip(metrics, values.mean(0), values.std(0), strict=True)
        )
    )
first, second = (np.array(scores[name])[:, 1] for name in list(models)[:2])
gain = first - second
print(f"  gain in UAR by faces, fold by fold: {gain.mean():+.3f} ± {gain.std():.3f}")
print(f"In all {time.perf_counter() - start:.0f} s.")
