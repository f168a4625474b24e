"""Toy clips laid out as SAVEE and MELD are, with real sound and video files."""

import shutil

from skfdan.datasets import make_emotion_clips

EMOTIONS = ("anger", "happiness", "sadness")
LETTERS = {"anger": "a", "happiness": "h", "sadness": "sa"}
SPEAKERS = ("DC", "JE", "JK", "KL")
PARTS = {
    "train": "train_splits",
    "dev": "dev_splits_complete",
    "test": "output_repeated_splits_test",
}
COLUMNS = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,"
    "StartTime,EndTime"
)


def make_clips(root, n_clips=24):
    """Every emotion by every speaker, twice."""
    return make_emotion_clips(
        n_clips,
        4,
        emotions=EMOTIONS,
        root=root,
        duration=0.5,
        frame_size=64,
        fps=6,
        random_state=0,
    ).frame


def make_savee(frame, root):
    """AudioData/DC/a01.wav and AudioVisualClip/DC/a1.avi."""
    numbers = {}
    for clip in frame.itertuples():
        speaker = SPEAKERS[int(clip.speaker[-2:])]
        letters = LETTERS[clip.emotion]
        number = numbers[speaker, letters] = numbers.get((speaker, letters), 0) + 1
        sound = root / "AudioData" / speaker / f"{letters}{number:02d}.wav"
        video = root / "AudioVisualClip" / speaker / f"{letters}{number}.avi"
        for source, target in ((clip.audio, sound), (clip.visual, video)):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return root


def make_meld(frame, root):
    """Three csv files and dia0_utt0.mp4 in the official folders; the emotions in turn."""
    names = {"anger": "anger", "happiness": "joy", "sadness": "sadness"}
    rows = {part: [] for part in PARTS}
    for i, clip in enumerate(frame.itertuples()):
        part = "train" if i < len(frame) // 2 else "dev" if i % 2 else "test"
        utterance = len(rows[part])
        target = root / PARTS[part] / f"dia0_utt{utterance}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip.visual, target)
        rows[part].append(
            f'{i},"Well, hello",{clip.speaker},{names[clip.emotion]},neutral,0,{utterance},4,7,'
            '"00:20:57,256","00:21:00,049"'
        )
    for part, lines in rows.items():
        text = "\n".join([COLUMNS, *lines]) + "\n"
        (root / f"{part}_sent_emo.csv").write_text(text, encoding="utf-8")
    return root


def make_folder(frame, root):
    """Videos in folders named after emotions: anger/clip.mp4."""
    for clip in frame.itertuples():
        target = root / clip.emotion / f"{clip.clip}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip.visual, target)
    return root
