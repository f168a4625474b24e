"""Small paired clips in which both modalities show the emotion."""

import numpy as np

EMOTIONS = np.array(["anger", "fear", "joy", "sadness"])
QUICK = {
    "backbone": "cnn",
    "weights": None,
    "input_size": 16,
    "bottleneck": 32,
    "lr": 0.01,
    "momentum": 0.9,
    "max_epochs": 25,
    "random_state": 0,
}


def make_clips(n=40, seed=0, emotions=EMOTIONS):
    """Faces and spectrograms in which both modalities show the emotion."""
    rng = np.random.default_rng(seed)
    code = np.arange(n) % len(emotions)
    band = np.eye(len(emotions))[code]
    faces = rng.integers(0, 80, (n, 3, 16, 16)) + np.repeat(
        170 * np.kron(band, np.ones(16 // len(emotions)))[:, None, :, None], 16, 3
    )
    sound = rng.normal(size=(n, 16, 12)) + 3 * np.repeat(
        np.kron(band, np.ones(16 // len(emotions)))[:, :, None], 12, 2
    )
    return faces.astype(np.uint8), sound.astype(np.float32), emotions[code]
