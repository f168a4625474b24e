"""Write the models of this format's version; run once for every new version, never again.

python tests/persistence/golden/make.py
"""

import json
from pathlib import Path

import numpy as np
from sklearn.pipeline import make_pipeline

from skfdan import FDANClassifier, save_pretrained
from skfdan.classifiers import GMTCNetClassifier
from skfdan.persistence._format import VERSION
from skfdan.preprocessing import MFCC

HERE = Path(__file__).parent


def inputs():
    """Return a flat matrix, and half-second tones; they follow from no generator."""
    i = np.arange(24)
    matrix = np.sin(np.outer(i + 1.0, np.arange(6) + 0.5)).astype(np.float32)
    t = np.arange(8000) / 16000
    tones = np.sin(2 * np.pi * np.where(i % 2, 400, 1500)[:, None] * t).astype(np.float32)
    return matrix, list(tones * np.linspace(0.2, 0.8, 24, dtype=np.float32)[:, None])


def main():
    matrix, tones = inputs()
    y = np.array(["anger", "joy"] * 12)
    visual_and_audio = {"visual": slice(0, 3), "audio": slice(3, 6)}
    fdan = FDANClassifier(
        **visual_and_audio, bottleneck=4, max_epochs=3, bank_size=8, random_state=0
    ).fit(matrix, y)
    front = MFCC(n_mfcc=6, n_mels=12, n_fft=512, duration=0.5, verbose=0)
    tcn = GMTCNetClassifier(n_filters=4, n_blocks=2, max_epochs=2, random_state=0)
    pipeline = make_pipeline(front, tcn).fit(tones, y)
    folder = HERE / f"v{VERSION}"
    save_pretrained(fdan, folder / "fdan")
    save_pretrained(pipeline, folder / "pipeline")
    expected = {
        "fdan": fdan.predict_proba(matrix).tolist(),
        "pipeline": pipeline.predict_proba(tones).tolist(),
    }
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()
