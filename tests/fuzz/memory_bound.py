"""Train on and predict a table of many files, and measure the memory that it takes.

The rows name some dozens of sounds and pictures again and again: half of them have both, some a
voice alone, some a face alone. A classifier that decodes path cells batch by batch must need as
much memory for 20,000 rows as for 2,000, but for the table itself.

    python tests/fuzz/memory_bound.py --rows 20000 --limit-gb 2

The exit code is 1 if the peak is above the limit. It counts the process and, with
``--workers``, the largest of the processes that it has started to decode in.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

N_FILES = 40


def write_corpus(folder: Path) -> None:
    """Write sounds of two seconds and faces of 96 pixels, in three classes."""
    rng = np.random.default_rng(0)
    t = np.arange(2 * 16000) / 16000
    for i in range(N_FILES):
        tone = np.sin(2 * np.pi * 300 * (1 + i % 3) * t)
        soundfile.write(folder / f"{i}.wav", 0.2 * tone + 0.05 * rng.normal(size=len(t)), 16000)
        pixels = rng.integers(0, 99, (96, 96, 3)) + 70 * (i % 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.{'png' if i % 2 else 'jpg'}")


def make_rows(n: int, folder: Path):
    """Return a table of path cells and its labels."""
    from skfdan import make_table

    chosen = np.random.default_rng(1).integers(N_FILES, size=n)
    voices = [str(folder / f"{i}.wav") for i in chosen]
    faces = [str(folder / f"{i}.{'png' if i % 2 else 'jpg'}") for i in chosen]
    for row in range(n):
        if row % 4 == 1:
            faces[row] = None
        elif row % 8 == 3:
            voices[row] = None
    return make_table(visual=faces, audio=voices), np.array(["anger", "fear", "joy"])[chosen % 3]


def peak_mb(who: int) -> float:
    """Return the most memory that was resident, in MB."""
    status = Path("/proc/self/status")
    if who == resource.RUSAGE_SELF and status.exists():
        # Linux hands on the maximum below to a process from whoever started it.
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(who).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def work(n: int, folder: Path, workers: bool) -> None:
    """Fit on n rows, predict them, and print what it took."""
    from skfdan import FDANClassifier
    from skfdan.preprocessing import FaceFrames, MelSpectrogram

    limit = {} if workers else {"timeout": None}
    clf = FDANClassifier(
        backbone="cnn",
        weights=None,
        input_size=48,
        max_epochs=1,
        batch_size=64,
        predict_modality="fused",
        audio_transformer=MelSpectrogram(
            duration=2.0, n_mels=128, cache_dir=folder / "cache", verbose=0, **limit
        ),
        visual_transformer=FaceFrames(
            n_frames=1,
            size=64,
            detector=None,
            cache_dir=folder / "cache",
            verbose=0,
            **limit,
        ),
        device="cpu",
        random_state=0,
        verbose=0,
    )
    table, y = make_rows(n, folder)
    found = {"rows": n, "before_mb": peak_mb(resource.RUSAGE_SELF)}
    start = time.perf_counter()
    clf.fit(table, y)
    found["fit_seconds"] = time.perf_counter() - start
    found["fit_mb"] = peak_mb(resource.RUSAGE_SELF)
    start = time.perf_counter()
    predicted = clf.predict(table)
    found["predict_seconds"] = time.perf_counter() - start
    found["self_mb"] = peak_mb(resource.RUSAGE_SELF)
    found["accuracy"] = float((predicted == y).mean())
    if workers:
        from skfdan.preprocessing._workers import _end_all

        _end_all()  # only processes that have ended are counted
    found["child_mb"] = peak_mb(resource.RUSAGE_CHILDREN)
    print(json.dumps(found))


def measure(n: int, *, folder: Path, workers: bool = False) -> dict[str, float]:
    """Do the work in a process of its own and return what it took."""
    command = [sys.executable, __file__, "--folder", str(folder), "--work", str(n)]
    done = subprocess.run(
        command + ["--workers"] * workers,
        check=False,
        capture_output=True,
        text=True,
        env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | dict(os.environ),
    )
    if done.returncode != 0:
        raise RuntimeError(f"training on {n} rows failed:\n{done.stdout}{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    found["peak_mb"] = found["self_mb"] + found["child_mb"]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure a tenth of the rows and all of them, and print both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--limit-gb", type=float, default=2.0)
    parser.add_argument(
        "--workers", action="store_true", help="decode in processes of their own, as by default"
    )
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work is not None:
        work(options.work, options.folder, options.workers)
        return 0
    print(f"{'rows':>7}{'peak MB':>9}{'self':>7}{'child':>7}{'fit s':>8}{'rows/s':>8}", end="")
    print(f"{'predict s':>11}{'rows/s':>8}{'accuracy':>10}")
    with tempfile.TemporaryDirectory(prefix="skfdan-memory-") as folder:
        write_corpus(Path(folder))
        for n in (max(1, options.rows // 10), options.rows):
            r = measure(n, folder=Path(folder), workers=options.workers)
            print(f"{n:7}{r['peak_mb']:9.0f}{r['self_mb']:7.0f}{r['child_mb']:7.0f}", end="")
            print(f"{r['fit_seconds']:8.1f}{n / r['fit_seconds']:8.0f}", end="")
            print(f"{r['predict_seconds']:11.1f}{n / r['predict_seconds']:8.0f}", end="")
            print(f"{r['accuracy']:10.2f}")
    above = r["peak_mb"] > 1024 * options.limit_gb
    print(f"The limit of {options.limit_gb:g} GB is {'EXCEEDED' if above else 'kept'}.")
    return int(above)


if __name__ == "__main__":
    sys.exit(main())
