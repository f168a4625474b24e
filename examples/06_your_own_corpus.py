# %% [markdown]
# # Your own corpus: from a messy folder to a csv of predictions
#
# A folder of recordings, as folders are: some clips are broken, one is silent, one is there
# twice under two labels, some have no label at all. Here such a folder is made on
# purpose, then indexed, checked, mended, trained on although not all of it can be read, and
# used to predict the clips without labels. At the end the same is done from the command line. The
# clips are synthetic, so the scores are those of a toy.

# %%
import contextlib
import io
import shlex
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import StratifiedGroupKFold, cross_validate
from sklearn.pipeline import make_pipeline

from skfdan import SCORING, FDANClassifier, make_table, save_pretrained, summarize_table
from skfdan.cli import main
from skfdan.datasets import check_corpus, load_folder, make_emotion_clips
from skfdan.inspection import SpeakerScoresDisplay
from skfdan.preprocessing import FaceFrames, MelSpectrogram

# %% [markdown]
# ## A folder like yours
#
# Sub-folders are named after emotions, files after speakers. Files that differ only in their
# extension are one clip: its voice and its face. This cell makes the folder and spoils it; with
# clips of your own you would skip it.

# %%
root = Path("demo-output/my-clips")
shutil.rmtree(root, ignore_errors=True)
toy = make_emotion_clips(
    64, 8, emotions=["anger", "happiness", "neutral", "sadness"], random_state=0
)
words = {"anger": "angry", "happiness": "happy", "neutral": "neutral", "sadness": "sad"}
for i, clip in toy.frame.iterrows():
    if i >= 58:  # the last six were never labelled
        name = f"untold_{i}"
    elif clip.emotion == "sadness" and clip.speaker > "speaker03":
        continue  # not everybody was recorded sad
    else:
        name = f"{words[clip.emotion]}/{clip.speaker}_take{i:02d}"
    target = root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    for file in (clip.visual, clip.audio):
        shutil.copy(file, target.with_suffix(Path(file).suffix))

angry, happy, neutral, sad = (sorted((root / word).glob("*.wav")) for word in words.values())
soundfile.write(sad[0], np.zeros(32000), 16000)  # the microphone was off
angry[1].write_bytes(angry[1].read_bytes()[:20000])  # copied until the disk was full
video = happy[2].with_suffix(".mp4")
video.write_bytes(video.read_bytes()[:5000])  # likewise, and a video can't be read then
happy[4].write_bytes(b"not a sound at all")
happy[4].with_suffix(".mp4").unlink()
misfiled = root / "angry" / "speaker03_again.wav"
shutil.copy(neutral[3], misfiled)  # filed twice
(root / "notes.txt").write_text("record speaker 9 on Friday")

print(*sorted(p.relative_to(root).as_posix() for p in root.glob("*")), sep="\n")

# %% [markdown]
# ## Index it
#
# `load_folder` opens nothing; it reads names. `speaker_pattern` finds the speaker in them, and
# without speakers no split can be called speaker-independent. What is left out is in `report`,
# with the reason.

# %%
data = load_folder(root, speaker_pattern=r"(speaker\d+)")
data.report["reason"].value_counts().to_frame()

# %%
summarize_table(data)

# %% [markdown]
# Folder names have become the toolkit's names of emotions (`happy` is `happiness`), so that
# corpora can be joined. Four speakers lack an emotion.
#
# ## Check it
#
# `check_corpus` opens and decodes every file once, in worker processes that a broken file may
# crash, and changes nothing. Errors would spoil a training or a score; warnings are to be
# looked at.

# %%
check = check_corpus(data, verbose=0)
print(check)

# %% [markdown]
# The balance at the end is worth a look too: only four people were recorded sad, so a model may
# learn those four voices in the place of sadness.
#
# ## Mend it
#
# Some things no program can decide. The recording with two labels has to be listened to (say it
# was neutral), silence has no emotion, and half a recording may do or not. Here these
# three are left out. `problems` is a table, so that takes three lines. The two
# files that can't be read stay in, to see what becomes of them.

# %%
problems = check.problems
left_out = problems.loc[problems["kind"].isin(["silent", "truncated"]), "file"].tolist()
left_out.append(str(misfiled))

kept = ~data.table["audio"].isin(left_out).to_numpy()
X, y, speakers = data.table[kept], data.target[kept], data.groups[kept]
print(f"{len(X)} of {len(data.table)} clips are kept")

# %% [markdown]
# ## Train on it
#
# By default a file that can't be read stops everything, with its name. With
# `on_error="missing"` its cell counts as missing: a clip without a readable face
# still has a voice to train on; one without either is left out. A warning says so. It is caught
# here to be printed beside the rest.
#
# `class_weight="balanced"` makes the rare emotion count as much as the others.

# %%
careful = {"on_error": "missing", "cache_dir": "demo-output/cache", "verbose": 0}
prepare = ColumnTransformer(
    [
        ("visual", FaceFrames(size=64, on_no_face="center", **careful), ["visual"]),
        ("audio", MelSpectrogram(n_mels=64, duration=2.0, **careful), ["audio"]),
    ]
)
fdan = FDANClassifier(
    backbone="cnn",
    weights=None,
    input_size=64,
    lr=0.01,
    momentum=0.9,
    max_epochs=20,
    class_weight="balanced",
    on_error="missing",
    random_state=0,
    verbose=0,
)
model = make_pipeline(prepare, fdan)

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    model.fit(X, y)
for warning in told:
    print(warning.message, end="\n\n")

# %% [markdown]
# The same as tables: `report_` of each transformer says which file and why, `report_` of the
# classifier which rows did not train.

# %%
reports = {
    "faces": model[0].named_transformers_["visual"].report_,
    "voices": model[0].named_transformers_["audio"].report_,
    "rows": model[-1].report_,
}
pd.concat(reports).droplevel(1)

# %% [markdown]
# ## What to expect of it
#
# Folds of speakers, once with and once without the weights. `StratifiedGroupKFold` sees to it that
# every fold has somebody sad. UAR counts each emotion alike, so it is the score to look at
# where one is rare.

# %%
broken = problems.loc[problems["kind"] == "broken", "file"]
readable = ~X.isin(broken.tolist()).any(axis=1).to_numpy()

results, table = {}, {}
for weight in ("balanced", None):
    model.set_params(fdanclassifier__class_weight=weight)
    results[weight] = cross_validate(
        model,
        X[readable],
        y[readable],
        groups=speakers[readable],
        cv=StratifiedGroupKFold(4),
        scoring=SCORING,
        return_estimator=True,
        return_indices=True,
    )
    folds = {name: results[weight][f"test_{name}"] for name in SCORING}
    table[weight] = {name: f"{v.mean():.3f} ± {v.std():.3f}" for name, v in folds.items()}
print("mean ± sd over 4 folds of 2 unseen speakers each, seed 0; chance UAR 0.250")
pd.DataFrame(table.values(), index=[f"class_weight={weight!r}" for weight in table])

# %% [markdown]
# The ± are spreads between folds that are hard or easy for both models, so ± that overlap do not
# show that two models are alike. Compare them fold by fold or speaker by speaker, on your own
# corpus, with more clips than these. The same predictions, speaker by speaker, tell whom the model
# fails on:

# %%
predicted = np.empty_like(y[readable])
for fitted, test in zip(
    results["balanced"]["estimator"], results["balanced"]["indices"]["test"], strict=True
):
    predicted[test] = fitted.predict(X[readable].iloc[test])
_ = SpeakerScoresDisplay.from_predictions(y[readable], predicted, speakers[readable])

# %% [markdown]
# ## Predict what has no label
#
# The model is fitted on everything once more and given the loose files. A table of
# probabilities is more honest than one word a clip: it says where the model wavers.

# %%
model.set_params(fdanclassifier__class_weight="balanced")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the two broken files, known by now
    model.fit(X, y)

untold = sorted(root.glob("untold_*.wav"))
p = model.predict_proba(make_table(audio=untold))
predictions = pd.DataFrame(p, columns=model.classes_, index=[file.name for file in untold]).round(3)
predictions.insert(0, "emotion", model.classes_[p.argmax(axis=1)])
predictions.to_csv("demo-output/predictions.csv", index_label="file")
predictions

# %% [markdown]
# ## A csv file instead of folders
#
# If your labels are in a table, give `load_folder` that: the columns `audio` and/or `visual`
# (paths relative to the csv file, empty where missing), `emotion`, and `speaker`. Other columns are
# carried along. Here the rows that were kept are written so.

# %%
manifest = data.frame[kept].copy()
for column in ("visual", "audio"):
    manifest[column] = X[column].map(
        lambda path: Path(path).relative_to("demo-output").as_posix(), na_action="ignore"
    )
manifest[["speaker", "emotion", "visual", "audio"]].to_csv("demo-output/my-clips.csv", index=False)
print(Path("demo-output/my-clips.csv").read_text()[:250], "...")

again = load_folder("demo-output/my-clips.csv")
print((again.target == y).all() and (again.groups == speakers).all())

# %% [markdown]
# ## The same without writing Python
#
# `skfdan check`, `train` and `predict` do all of this in a terminal. `main` is what they call.


# %%
def terminal(line):
    """Run a command as a terminal would; only its results are shown."""
    print("$", line)
    with contextlib.redirect_stderr(io.StringIO()):
        code = main(shlex.split(line)[1:])
    print(f"(exit code {code})")


terminal("skfdan check demo-output/my-clips.csv --csv demo-output/problems.csv")

# %%
save_pretrained(model, "demo-output/my-model", corpora="Synthetic clips.", overwrite=True)
(root / "untold_99.wav").write_bytes(b"nor is this")
terminal(
    "skfdan predict demo-output/my-model --csv demo-output/my-clips/untold_62.wav "
    "demo-output/my-clips/untold_63.mp4 demo-output/my-clips/untold_99.wav"
)

# %% [markdown]
# A file that can't be read gets a line that says why; the others are predicted, and the exit code
# tells a script. To train from the terminal, too:
#
# ```sh
# skfdan train demo-output/my-clips.csv --quick --out demo-output/model --cache demo-output/cache
# ```
#
# Next: [tables and leaks](04_tables_and_leaks.ipynb), for what a check of single files can't
# see, and [other people's faces](03_other_peoples_faces.ipynb), if your clips have no video.
