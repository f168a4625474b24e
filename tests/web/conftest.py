"""A few clips, and a model of voices and faces that was trained on them in seconds."""

import json

import pytest

from skfdan.cli import main
from skfdan.datasets import load_folder, make_emotion_clips

FAST = ("--quick", "--epochs", "2", "--device", "cpu", "--jobs", "1", "--protocol", "none")


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Twelve short clips, the first a wav and an mp4 of the same take."""
    root = tmp_path_factory.mktemp("web-clips")
    return make_emotion_clips(
        12, 3, emotions=["anger", "sadness"], root=root, duration=0.6, fps=5, random_state=0
    ).table


@pytest.fixture(scope="session")
def model(clips, tmp_path_factory):
    """The folder of a saved model."""
    root = tmp_path_factory.mktemp("web-models")
    manifest = root / "clips.csv"
    frame = clips.assign(emotion=["anger", "sadness"] * 6)
    frame.to_csv(manifest, index=False)
    assert len(load_folder(manifest).table) == 12
    assert main(["train", str(manifest), "--out", str(root / "model"), *FAST]) == 0
    return root / "model"


@pytest.fixture
def predicted(model, capsys):
    """What `skfdan predict --json` says of a file."""

    def call(file, *arguments):
        capsys.readouterr()
        main(["predict", str(model), str(file), "--json", *arguments])
        (line,) = json.loads(capsys.readouterr().out)
        return line

    return call
