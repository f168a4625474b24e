# %% [markdown]
# # First steps: from a clip to a prediction
#
# Clips on disk, a pipeline that reads them, a small network, and then what you came for: the
# emotion in one sound file, one video, or both together. The clips are synthetic, a
# cartoon face and a speech-like sound, so that this runs anywhere within a minute. They
# are a toy: what a model scores on them says that the code works, and nothing about
# people.

# %%
import os

import pandas as pd
from IPython.display import Video
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GroupKFold, cross_validate
from sklearn.pipeline import make_pipeline

from skfdan import SCORING, FDANClassifier, load_pretrained, make_table, save_pretrained
from skfdan.datasets import make_emotion_clips
from skfdan.inspection import ClipDisplay, LearningCurvesDisplay
from skfdan.preprocessing import FaceFrames, MelSpectrogram

# %% [markdown]
# ## Clips on disk
#
# `make_emotion_clips` writes one wav and one mp4 a clip, in seven emotions. The loaders of
# real corpora (`load_ravdess`, `load_crema_d`, ...) return the same: a **modality table** of
# paths, a label a row, and who speaks.

# %%
clips = make_emotion_clips(n_clips=112, n_speakers=8, root="demo-output/clips", random_state=0)
pd.DataFrame(
    {
        "speaker": clips.groups,
        "emotion": clips.target,
        "visual": clips.table["visual"].map(os.path.basename),
        "audio": clips.table["audio"].map(os.path.basename),
    }
).head()

# %% [markdown]
# This is what one of them looks and sounds like:

# %%
clip = clips.frame.iloc[9]
Video(clip["visual"], embed=True, width=224)

# %% [markdown]
# ## What a network gets of it
#
# Two transformers read files: a Mel spectrogram of the sound, and faces from the video.
# `cache_dir` keeps what was decoded, so that no file is decoded twice, however often you fit.
# The dotted lines say where in the sound the faces were taken.

# %%
faces = FaceFrames(size=64, on_no_face="center", cache_dir="demo-output/cache", verbose=0)
mel = MelSpectrogram(n_mels=64, duration=2.0, cache_dir="demo-output/cache", verbose=0)

_ = ClipDisplay.from_file(clip["visual"], n_frames=4, mel=mel, faces=faces)

# %% [markdown]
# ## A pipeline from paths to emotions
#
# `FDANClassifier()` alone is the published model: two ResNet-34s from ImageNet weights, 300
# epochs, made for a GPU. The settings here are for a toy on a laptop.

# %%
fdan = FDANClassifier(
    backbone="cnn",
    weights=None,
    input_size=64,
    lr=0.01,
    momentum=0.9,
    max_epochs=20,
    random_state=0,
    verbose=0,
)
prepare = ColumnTransformer([("visual", faces, ["visual"]), ("audio", mel, ["audio"])])
model = make_pipeline(prepare, fdan)
model

# %% [markdown]
# ## Training
#
# Two of the eight speakers are kept for later: the model will not have heard or seen them.

# %%
new = pd.Series(clips.groups).isin(["speaker06", "speaker07"]).to_numpy()
model.fit(clips.table[~new], clips.target[~new])
_ = LearningCurvesDisplay.from_estimator(model, terms=["ce_audio", "ce_visual", "lmmd"])

# %% [markdown]
# Both cross-entropies fall: voices and faces are learned at once, by one classifier. LMMD
# is the distance between the faces and the voices of the same emotion, which the method
# keeps small.
#
# ## One sound file
#
# A clip by a speaker the model does not know. `make_table` takes whatever you have, here one
# path; nothing need be said about the face that is missing.

# %%
stranger = clips.frame[new].iloc[8]
print("acted:", stranger["emotion"], "by", stranger["speaker"])
print("heard:", model.predict(make_table(audio=[stranger["audio"]]))[0])

# %% [markdown]
# ## One video: voice, face, or both
#
# A video can stand in both columns: its sound is the voice, its pictures are the face.
# `predict_modality` says what a prediction reads, and may be changed after `fit`. The default
# is the voice alone, the task FDAN was made for.

# %%
video = make_table(visual=[stranger["visual"]], audio=[stranger["visual"]])
probabilities = {}
for modality in ("audio", "visual", "fused"):
    model.set_params(fdanclassifier__predict_modality=modality)
    probabilities[modality] = model.predict_proba(video)[0]
pd.DataFrame(probabilities, index=model.classes_).T.style.format("{:.3f}").highlight_max(
    axis=1, props="font-weight: bold"
)

# %% [markdown]
# The three need not agree: what sounds like one emotion may look like another. `ClipDisplay`
# draws the last of them beside the clip:

# %%
_ = ClipDisplay.from_file(stranger["visual"], model, mel=mel, faces=faces)

# %% [markdown]
# ## How good is it?
#
# One clip says little, and so does one split. Cross-validation over speakers says what to
# expect on people who are not in the training data. WAR is the accuracy, UAR the mean recall
# of the emotions; chance is 1/7 = 0.143.

# %%
model.set_params(fdanclassifier__predict_modality="audio")
scores = cross_validate(
    model, clips.table, clips.target, groups=clips.groups, cv=GroupKFold(4), scoring=SCORING
)
for name in SCORING:
    fold = scores[f"test_{name}"]
    print(f"{name}  {fold.mean():.3f} ± {fold.std():.3f}  (4 folds of 2 unseen speakers each)")

# %% [markdown]
# ## Save it, load it
#
# A saved model is a folder with JSON, weights and a model card. It holds no code, so that
# loading somebody else's model executes nothing of theirs.

# %%
folder = save_pretrained(
    model,
    "demo-output/first-model",
    corpora="Synthetic clips of speakers 00 to 05.",
    overwrite=True,
)
print(*sorted(file.name for file in folder.iterdir()))

loaded = load_pretrained(folder)
print(loaded.predict(make_table(audio=[stranger["audio"]]))[0], "again")

# %% [markdown]
# ## Next
#
# - [Paired clips and a search](02_paired_clips_and_search.ipynb): choose parameters
#   without fooling yourself.
# - [Your own corpus](06_your_own_corpus.ipynb): a folder or a csv file of your clips.
# - [Other people's faces](03_other_peoples_faces.ipynb): faces and voices that do not belong
#   together.
