"""What the cases work on: a few rows of data, files and fitted classifiers."""

from __future__ import annotations

import copy
import os
from functools import cached_property
from pathlib import Path

import joblib
import numpy as np
import soundfile
from PIL import Image

from skfdan import FDANClassifier, make_table
from skfdan.preprocessing import MelSpectrogram

EMOTIONS = ("anger", "fear", "joy")
SMALL = {
    "backbone": "cnn",
    "weights": None,
    "input_size": 8,
    "bottleneck": 8,
    "bank_size": 8,
    "max_epochs": 1,
    "batch_size": 6,
    "verbose": 0,
    "random_state": 0,
}
SHORT = {"sample_rate": 2000, "n_fft": 64, "hop_length": 64, "n_mels": 8, "duration": 0.5}


def fdan(**params) -> FDANClassifier:
    """Return a classifier that trains in a moment."""
    return FDANClassifier(**SMALL | params)


def mel(**params) -> MelSpectrogram:
    """Return a transformer for the short sounds."""
    return MelSpectrogram(**SHORT | {"verbose": 0} | params)


class Data:
    """Data that no call may change."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        code = np.arange(12) % len(EMOTIONS)
        self.y = np.array(EMOTIONS)[code]
        self.X = (rng.normal(size=(12, 6)) + code[:, None]).astype(np.float32)
        self.faces = rng.integers(0, 255, (12, 3, 8, 8)).astype(np.uint8)
        self.sound = rng.normal(size=(12, 8, 10)).astype(np.float32)
        self.table = make_table(visual=self.faces, audio=self.sound)
        self.voices = make_table(audio=self.sound)
        self.speakers = np.repeat(np.arange(4), 3)
        self.clips = [f"clip{i:02d}" for i in range(12)]

    def digest(self) -> str:
        return joblib.hash(vars(self))


class Files:
    """Sound and pictures that no call may change, some of them broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        t = np.arange(2000) / 2000
        for name, pitch in (("a", 200), ("b", 300), ("c", 400)):
            soundfile.write(folder / f"{name}.wav", 0.3 * np.sin(2 * np.pi * pitch * t), 2000)
        soundfile.write(folder / "long.flac", np.zeros(2000 * 700, np.int16), 2000)
        soundfile.write(folder / "nan.wav", np.full(2000, np.nan), 2000, subtype="FLOAT")
        (folder / "empty.wav").touch()
        (folder / "notes.wav").write_text("These are words.\n" * 20)
        soundfile.write(folder / "cut.flac", np.zeros(2000, np.int16), 2000)
        (folder / "cut.flac").write_bytes((folder / "cut.flac").read_bytes()[:60])
        Image.fromarray(np.full((48, 48, 3), 120, np.uint8)).save(folder / "grey.png")
        Image.new("1", (9000, 9000)).save(folder / "huge.png")
        (folder / "broken.png").write_bytes((folder / "grey.png").read_bytes()[:50])

    def __call__(self, name: str) -> str:
        return str(self.folder / name)

    def digest(self) -> dict:
        return {
            str(path.relative_to(self.folder)): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in self.folder.rglob("*")
        }


class Shared:
    """Everything that is made once."""

    def __init__(self, folder: Path) -> None:
        self.data = Data()
        self._folder = folder

    @cached_property
    def files(self) -> Files:
        folder = self._folder / "media"
        folder.mkdir()
        return Files(folder)

    @cached_property
    def vectors(self) -> FDANClassifier:
        return fdan().fit(self.data.X, self.data.y)

    @cached_property
    def voices(self) -> FDANClassifier:
        return fdan().fit(self.data.voices, self.data.y)

    @cached_property
    def both(self) -> FDANClassifier:
        return fdan(predict_modality="fused").fit(self.data.table, self.data.y)

    @cached_property
    def model(self) -> Path:
        """A saved model."""
        from skfdan import save_pretrained

        return save_pretrained(self.vectors, self._folder / "model")

    @cached_property
    def model_of_voices(self) -> Path:
        """A saved model that knows what makes its spectrograms of files."""
        clf = fdan(audio_transformer=mel()).fit(self.data.voices, self.data.y)
        return clf.save_pretrained(self._folder / "voices")


class Case:
    """What one case gets: the shared data, a folder of its own, pytest's helpers."""

    def __init__(self, shared: Shared, tmp: Path, monkeypatch, request) -> None:
        self._shared = shared
        self.tmp, self.monkeypatch, self.request = tmp, monkeypatch, request
        self._lent: list[tuple] = []

    def __getattr__(self, name: str):
        data = self._shared.data
        if hasattr(data, name):
            return getattr(data, name)
        return getattr(self._shared, name)

    def fitted(self, name: str, **params) -> FDANClassifier:
        """Lend a copy of a fitted classifier, which must predict the same afterwards."""
        X = self.X if name == "vectors" else self.table
        clf = copy.deepcopy(getattr(self._shared, name))
        before = (clf.predict_proba(X), clf.class_count_, clf.n_features_in_, clf.report_)
        self._lent.append((clf, clf.get_params(), X, before))
        return clf.set_params(**params)

    def check_lent(self) -> None:
        for clf, params, X, (proba, counts, n_features, report) in self._lent:
            np.testing.assert_array_equal(clf.set_params(**params).predict_proba(X), proba)
            np.testing.assert_array_equal(clf.class_count_, counts)
            assert clf.n_features_in_ == n_features
            assert clf.report_.equals(report)

    def copy_of_model(self) -> Path:
        """Return a folder with the saved model, to be spoilt."""
        import shutil

        return Path(shutil.copytree(self.model, self.tmp / "model"))

    def written(self, name: str, content: str | bytes) -> str:
        """Return the path of a new file."""
        path = self.tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return os.fspath(path)
