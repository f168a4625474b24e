"""The constants of the cost model in docs/user_guide/scaling.md, on this machine.

    python tests/scaling/measure_costs.py

One thread, CPU time of the process, medians; two minutes. Clips, pictures and weights are made
up: none of the times depends on what they show.
"""

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import statistics  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

from skfdan import FDANClassifier, make_table  # noqa: E402
from skfdan.datasets import make_emotion_clips  # noqa: E402
from skfdan.preprocessing import BackboneEmbedding, FaceFrames, MelSpectrogram  # noqa: E402

CPU = {"device": "cpu", "random_state": 0, "verbose": 0}
EMOTIONS = np.array(list("abcdefg"))


def milliseconds(function, repeats=3):
    """Return the median CPU time of a call, after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        began = time.process_time()
        function()
        times.append(1e3 * (time.process_time() - began))
    return statistics.median(times[1:])


def tell(what, value, unit="ms"):
    print(f"{what:55} {value:10.2f} {unit}", flush=True)


def clips(size, seconds=4.0, n=7):
    made = make_emotion_clips(
        *(n, 1), root=tempfile.mkdtemp(), duration=seconds, frame_size=size, random_state=0
    )
    return made.table


def decoding():
    sound = clips(64)[["audio"]]
    mel = MelSpectrogram(verbose=0)
    tell("sound of 4 s to a Mel spectrogram", milliseconds(lambda: mel.fit_transform(sound)) / 7)
    cell = np.asarray(mel.fit_transform(sound)[0, 0])
    tell(f"Mel cell {cell.shape}", cell.nbytes / 1e3, "kB")
    for size in (480, 720):
        video = clips(size)[["visual"]]
        for detector in ("lbp", None):
            faces = FaceFrames(detector=detector, on_no_face="center", verbose=0)
            each = milliseconds(lambda f=faces, v=video: f.fit_transform(v)) / 7
            tell(f"3 faces of 4 s, {size} x {size}, detector={detector}", each)
    cell = np.asarray(faces.fit_transform(video)[0, 0])
    tell(f"faces {cell.shape}", cell.nbytes / 1e3, "kB")
    with tempfile.TemporaryDirectory() as folder:
        mel.set_params(cache_dir=folder).fit_transform(sound)
        tell("the Mel spectrogram from the cache", milliseconds(lambda: mel.transform(sound)) / 7)
        size = sum(p.stat().st_size for p in Path(folder).rglob("*.npy"))
        tell("its file", size / 7e3, "kB")


def pictures(n, rng):
    return list(rng.integers(0, 255, (n, 3, 112, 112)).astype(np.uint8))


def embedding():
    rng = np.random.default_rng(0)
    for precision in ("float32", "bfloat16"):
        embed = BackboneEmbedding(weights=None, precision=precision, **CPU)
        embed.fit(make_table(visual=pictures(2, rng))[["visual"]])

        def new(embed=embed):
            embed.transform(make_table(visual=pictures(16, rng))[["visual"]])

        tell(f"ResNet-34 of one image, 224 px, {precision}", milliseconds(new) / 16)


def step(table, y, few, many, **params):
    """Return the time of a step: what more epochs cost, so that building does not count."""

    def fit(epochs):
        return milliseconds(
            lambda: FDANClassifier(weights=None, max_epochs=epochs, **params, **CPU).fit(table, y),
            1,
        )

    return (fit(many) - fit(few)) / (many - few)


def training():
    rng = np.random.default_rng(0)
    y = EMOTIONS[np.arange(32) % 7]
    vectors = make_table(
        visual=rng.normal(size=(32, 512)).astype("f"), audio=rng.normal(size=(32, 512)).astype("f")
    )
    tell("step of the head, 32 + 32 embeddings", step(vectors, y, 20, 400))
    mels = list(rng.normal(size=(32, 128, 251)).astype("f"))
    table = make_table(visual=pictures(32, rng), audio=mels)
    for precision in ("float32", "bfloat16"):
        tell(f"step of all, 32 + 32 images, {precision}", step(table, y, 1, 2, precision=precision))


if __name__ == "__main__":
    torch.set_num_threads(1)
    decoding()
    embedding()
    training()
