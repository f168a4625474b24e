import matplotlib
import pytest
from classifiers.small_clips import QUICK, make_clips

from skfdan import FDANClassifier, make_table
from skfdan.datasets import make_emotion_clips
from skfdan.preprocessing import FaceFrames, MelSpectrogram

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _closed_figures():
    from matplotlib import pyplot as plt

    yield
    plt.close("all")


@pytest.fixture(scope="package")
def clips():
    """Cells of 40 clips and their emotions."""
    return make_clips()


@pytest.fixture(scope="package")
def table(clips):
    faces, sound, _ = clips
    return make_table(visual=faces, audio=sound)


@pytest.fixture(scope="package")
def fitted(table, clips):
    quick = QUICK | {"max_epochs": 4, "verbose": 0}
    return FDANClassifier(early_stopping=True, validation_fraction=0.2, **quick).fit(
        table, clips[2]
    )


@pytest.fixture(scope="package")
def files(tmp_path_factory):
    """Two synthetic clips on disk."""
    return make_emotion_clips(
        2,
        2,
        emotions=("anger", "sadness"),
        duration=0.8,
        frame_size=64,
        fps=5,
        root=tmp_path_factory.mktemp("files"),
        random_state=0,
    )


@pytest.fixture(scope="package")
def model(files):
    """A classifier that takes paths, and does without those that can't be read."""
    return FDANClassifier(
        visual_transformer=FaceFrames(n_frames=1, size=16, detector=None, timeout=None),
        audio_transformer=MelSpectrogram(n_mels=16, duration=0.8, timeout=None),
        on_error="missing",
        **QUICK | {"max_epochs": 1, "verbose": 0},
    ).fit(files.table, files.target)
