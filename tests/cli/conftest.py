"""A small corpus on disk, and models trained on it through the command line."""

import os
import subprocess
import sys

import pytest

from skfdan.cli import main
from skfdan.datasets import make_emotion_clips

FAST = ("--quick", "--epochs", "3", "--on-error", "raise", "--device", "cpu", "--jobs", "1")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A csv manifest of 24 short clips, 6 of each of 4 speakers in 2 emotions."""
    root = tmp_path_factory.mktemp("corpus")
    clips = make_emotion_clips(
        24,
        4,
        emotions=["anger", "sadness"],
        root=root / "clips",
        duration=0.5,
        frame_size=64,
        random_state=0,
    )
    frame = clips.frame.drop(columns="corpus")
    for column in ("visual", "audio"):
        frame[column] = [os.path.relpath(file, root) for file in frame[column]]
    frame["odd"] = [["a", "b", None][i % 3] for i in range(len(frame))]
    frame.to_csv(root / "clips.csv", index=False)
    return root / "clips.csv"


@pytest.fixture(scope="session")
def fast():
    """Arguments with which a training takes a second."""
    return FAST


@pytest.fixture(scope="session")
def model(corpus, tmp_path_factory):
    """A model of voices and faces, of 3 of the 4 speakers."""
    folder = tmp_path_factory.mktemp("models") / "model"
    assert main(["train", str(corpus), "--out", str(folder), *FAST]) == 0
    return folder


@pytest.fixture(scope="session")
def run():
    """Run the command in a process of its own."""

    def call(*arguments, **settings):
        return subprocess.run(
            [sys.executable, "-m", "skfdan", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            **settings,
        )

    return call
