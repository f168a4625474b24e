# %% [markdown]
# # First steps: from clips on disk to an honest score
#
# Synthetic clips (a toy: wav and mp4 files of a speech-like sound and a drawn
# face) are written to disk, decoded, and given to FDAN. It learns from voices
# and faces, and is tested on voices alone, in two protocols side by side: the
# paper's, which has seen faces and other clips of the test speakers, and the
# speaker-disjoint one, which has seen nothing of them.

# %%
import argparse
import time
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import GroupKFold, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline

from skfdan import (
    AudioHoldout,
    FDANClassifier,
    make_table,
    uar_score,
    unpair,
    war_score,
    weighted_f1_score,
)
from skfdan.datasets import make_emotion_clips
from skfdan.preprocessing import FaceFrames, MelSpectrogram

matplotlib.use("Agg")
from matplotlib import pyplot as plt

parser = argparse.ArgumentParser(description="FDAN on synthetic clips, in two protocols.")
parser.add_argument("--clips", type=int, default=224, help="number of clips (default: 224)")
parser.add_argument("--speakers", type=int, default=8, help="number of speakers (default: 8)")
parser.add_argument("--epochs", type=int, default=40, help="training epochs (default: 40)")
parser.add_argument("--folds", type=int, default=4, help="splits of each protocol (default: 4)")
parser.add_argument("--out", type=Path, default=Path("demo-output"), help="output folder")
args, _ = parser.parse_known_args()
start = time.perf_counter()

# %% [markdown]
# ## Clips on disk, one row a clip

# %%
clips = make_emotion_clips(
    args.clips, args.speakers, root=args.out / "clips", random_state=0, n_jobs=2
)
print(
    f"{len(clips.table)} synthetic clips of {len(set(clips.groups))} speakers and "
    f"{len(set(clips.target))} emotions, in {args.out / 'clips'}"
)
print(clips.frame[["clip", "speaker", "emotion"]].head(3).to_string(index=False))

# %% [markdown]
# ## A pipeline from paths to emotions
#
# The transformers keep what they decoded in a cache, so that no file is decoded
# twice, whatever the number of folds and candidates.

# %%
cache = args.out / "cache"
prepare = ColumnTransformer(
    [
        ("visual", FaceFrames(size=64, on_no_face="center", cache_dir=cache), ["visual"]),
        ("audio", MelSpectrogram(n_mels=64, duration=2.0, cache_dir=cache), ["audio"]),
    ]
)
# The small network and random weights suit a toy on a laptop. For real clips
# leave them out: FDANClassifier() is the paper's two ResNet-34s.
fdan = FDANClassifier(
    backbone="cnn",
    weights=None,
    input_size=64,
    lr=0.01,
    momentum=0.9,
    max_epochs=args.epochs,
    random_state=0,
)
model = make_pipeline(prepare, fdan)

# %% [markdown]
# ## Two protocols
#
# Every modality of every clip gets a row of its own; then voices can be held
# out while faces train.

# %%
table, y, speakers = unpair(clips.table, clips.target, clips.groups)
protocols = {
    "paper (8/10 of the voices and all faces train)": AudioHoldout(
        StratifiedShuffleSplit(args.folds, test_size=0.2, random_state=0), visual="all"
    ),
    "speaker-disjoint (nothing of a test speaker seen)": AudioHoldout(
        GroupKFold(args.folds), visual="disjoint"
    ),
}
metrics = {"WAR": war_score, "UAR": uar_score, "wF1": weighted_f1_score}
decoding = time.perf_counter()
model[0].fit_transform(table)
decoding = time.perf_counter() - decoding

results, predictions, training = {}, {}, 0.0
for name, protocol in protocols.items():
    scores, true, predicted = [], [], []
    for train, test in protocol.split(table, y, speakers):
        began = time.perf_counter()
        fitted = clone(model).fit(table.iloc[train], y[train])
        training += time.perf_counter() - began
        guess = fitted.predict(table.iloc[test])
        scores.append([score(y[test], guess) for score in metrics.values()])
        true.append(y[test])
        predicted.append(guess)
    results[name] = np.array(scores)
    predictions[name] = np.concatenate(true), np.concatenate(predicted)

print(
    f"\nFDAN on voices alone; mean ± standard deviation over {args.folds} splits, "
    f"seed 0, chance UAR {1 / len(set(y)):.3f}"
)
for name, scores in results.items():
    values = "  ".join(
        f"{metric} {mean:.3f} ± {std:.3f}"
        for metric, mean, std in zip(metrics, scores.mean(0), scores.std(0), strict=True)
    )
    print(f"  {name:51s} {values}")

# %% [markdown]
# ## Confusion matrices

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
for axis, (name, (true, predicted)) in zip(axes, predictions.items(), strict=True):
    ConfusionMatrixDisplay.from_predictions(
        true,
        predicted,
        normalize="true",
        values_format=".2f",
        cmap="Blues",
        ax=axis,
        xticks_rotation=45,
        colorbar=False,
        im_kw={"vmin": 0, "vmax": 1},
    )
    axis.set_title(f"{name}\nUAR {uar_score(true, predicted):.2f}", fontsize=10)
figure.suptitle("FDAN on synthetic clips, tested on voices alone")
picture = args.out / "confusion.png"
figure.savefig(picture, dpi=120)
plt.close(figure)

# %% [markdown]
# ## One clip

# %%
# A voice from the last split's test part: neither it nor its speaker was in training.
row = test[0]
wav = table["audio"].iloc[row]
probabilities = fitted.predict_proba(make_table(audio=[wav]))[0]
best = probabilities.argmax()
print(
    f"\n{Path(wav).name}: {fitted.classes_[best]} with probability {probabilities[best]:.2f} "
    f"(acted: {y[row]})"
)
print(f"Confusion matrices: {picture}")
print(
    f"Decoding {decoding:.0f} s, training {training:.0f} s, "
    f"in all {time.perf_counter() - start:.0f} s"
)
