"""Send a corpus of mutated media files through the transformers, and see that nothing gives way.

    python tests/fuzz/media_run.py --count 2000 --seed 0 --jobs 2 --timeout 10

Every file goes through MelSpectrogram and FaceFrames with ``on_error="missing"``: first all of
them at once, as users do, then each by itself in this process, which tells its time. Nothing may
crash or hang or exceed its time; a bad file must be reported; a good one must give what its
source gives by itself; whatever is not reported must be an array as it should be. Prints a table
by kind of damage; the exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from mutated_media import make_corpus

from skfdan.preprocessing import FaceFrames, MelSpectrogram, _workers

SIZE, MELS = 32, 32
TRANSFORMERS = {
    "audio": MelSpectrogram(duration=0.5, n_mels=MELS, n_fft=512, verbose=0),
    # Few of the pictures show a face: what decodes must give something nonetheless.
    "visual": FaceFrames(on_no_face="center", size=SIZE, verbose=0),
}


def is_as_it_should_be(modality: str, cell: object) -> bool:
    if not isinstance(cell, np.ndarray):
        return False
    if modality == "audio":
        frames = 1 + 8000 // 256
        return cell.shape == (MELS, frames) and bool(np.isfinite(cell).all())
    return cell.shape in ((3, SIZE, SIZE), (3, 3, SIZE, SIZE)) and cell.dtype == np.uint8


def same(left: np.ndarray | None, right: np.ndarray | None) -> bool:
    if left is None or right is None:
        return left is right
    return left.dtype == right.dtype and np.array_equal(left, right)


def expected_of(manifest: pd.DataFrame, modality: str) -> np.ndarray:
    """Return what is expected of each file: a good picture is no good sound."""
    holds = manifest[f"for_{modality}"].to_numpy(bool)
    expected = manifest["expected"].to_numpy(object).copy()
    expected[~holds & (expected == "good")] = "bad"
    return expected


def run_modality(manifest: pd.DataFrame, modality: str, jobs: int, timeout: float):
    """Return (violations, reported, good and unchanged, seconds), the last three a file."""
    plain = TRANSFORMERS[modality]
    files, kinds = manifest["file"].tolist(), manifest["kind"].tolist()
    expected = expected_of(manifest, modality)
    wrong: list[str] = []

    def violation(i: int, what: str) -> None:
        wrong.append(f"{modality}, {kinds[i]} ({Path(files[i]).name!r}): {what}")

    sources = {}
    for i in np.flatnonzero(expected == "good"):
        source = manifest["source"].iloc[i]
        if source not in sources:
            sources[source] = None
            try:
                sources[source] = plain.transform([source])[0, 0]
            except Exception as error:
                violation(i, f"is good, but refused without care too: {error}")

    careful = type(plain)(
        **{**plain.get_params(), "on_error": "missing", "timeout": timeout, "n_jobs": jobs}
    )
    start = time.perf_counter()
    results = careful.fit_transform(files)[:, 0]
    total = time.perf_counter() - start
    report = careful.report_
    reported = np.isin(np.arange(len(files)), report["row"])
    stages = dict(zip(report["row"], report["stage"], strict=True))
    if report["row"].duplicated().any() or not report["row"].is_monotonic_increasing:
        wrong.append(f"{modality}: the report does not name each row once, in order")
    for row, file, stage, reason in report[["row", "file", "stage", "reason"]].itertuples(False):
        if file != files[row] or not (stage and reason):
            violation(row, f"its line in the report is wrong: {file!r}, {stage!r}, {reason!r}")
        if stage in ("time limit", "crash"):
            violation(row, f"ended by {stage}: {reason}")

    unchanged = np.zeros(len(files), bool)
    for i, cell in enumerate(results):
        if reported[i] != (cell is None):
            violation(i, "reported and not missing, or missing and not reported")
        if expected[i] == "bad" and not reported[i]:
            violation(i, "is bad, but was not reported")
        if cell is not None and not is_as_it_should_be(modality, cell):
            violation(i, f"gives {type(cell).__name__} of shape {np.shape(cell)}, or not finite")
        if expected[i] == "good":
            unchanged[i] = cell is not None and same(cell, sources[manifest["source"].iloc[i]])
            if not unchanged[i]:
                reason = report.loc[report["row"] == i, "reason"].tolist()
                violation(i, f"is good, but its result is not that of its source: {reason}")

    # What did not bring a worker down will not bring this process down.
    alone = type(plain)(**{**plain.get_params(), "on_error": "missing", "timeout": None})
    seconds = np.full(len(files), np.nan)
    for i, file in enumerate(files):
        if stages.get(i) in ("time limit", "crash"):
            continue
        faulthandler.dump_traceback_later(3 * timeout, exit=True)
        start = time.perf_counter()
        cell = alone.fit_transform([file])[0, 0]
        seconds[i] = time.perf_counter() - start
        faulthandler.cancel_dump_traceback_later()
        if seconds[i] > timeout:
            violation(i, f"took {seconds[i]:.1f} s of {timeout:g}")
        if not same(cell, results[i]):
            violation(i, "gives another result by itself")
    print(
        f"{modality}: {len(files)} files in {total:.1f} s with {jobs} jobs, {reported.sum()} "
        f"reported; the slowest took {np.nanmax(seconds):.2f} s by itself"
    )
    return wrong, reported, unchanged, seconds


def peak_memory() -> dict[str, float]:
    """Return the most memory of this process and of any of its children, in GB."""
    _workers._end_all()  # children count when they have ended
    unit = 1 if sys.platform == "darwin" else 1024
    who = {"this process": resource.RUSAGE_SELF, "a child": resource.RUSAGE_CHILDREN}
    peaks = {name: unit * resource.getrusage(w).ru_maxrss / 1e9 for name, w in who.items()}
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands on the maximum above to a process from whoever started it.
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        peaks["this process"] = 1024 * int(line.split()[1]) / 1e9
    return peaks


@contextlib.contextmanager
def quiet_decoders():
    """Send what decoders write to the standard error to nowhere."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def run(count: int, seed: int, jobs: int, timeout: float, memory: float) -> list[str]:
    """Make a corpus, run both transformers over it, print a table and return what is wrong."""
    with tempfile.TemporaryDirectory(prefix="skfdan-fuzz-") as folder:
        manifest = make_corpus(Path(folder) / "corpus", count, seed)
        wrong = []
        for modality in TRANSFORMERS:
            bad, reported, unchanged, seconds = run_modality(manifest, modality, jobs, timeout)
            wrong += bad
            manifest[f"{modality} reported"] = reported
            manifest[f"{modality} as source"] = unchanged
            manifest[f"{modality} slowest s"] = seconds
        print(table(manifest).to_string(float_format="{:.2f}".format))
    peak = peak_memory()
    print("peak memory:", ", ".join(f"{name} {gb:.2f} GB" for name, gb in peak.items()))
    wrong += [f"{name} took {gb:.2f} GB" for name, gb in peak.items() if gb > memory]
    return wrong


def table(manifest: pd.DataFrame) -> pd.DataFrame:
    """Sum up by kind of damage; specials by their first word."""
    kind = [
        k if e != "special" else k.split()[0]
        for k, e in zip(manifest["kind"], manifest["group"], strict=True)
    ]
    rows = manifest.assign(kind=kind).groupby("kind", sort=False)
    columns = {"files": rows.size()}
    for modality in TRANSFORMERS:
        columns[f"{modality} reported"] = rows[f"{modality} reported"].sum()
        columns[f"{modality} as source"] = rows[f"{modality} as source"].sum()
        columns[f"{modality} slowest s"] = rows[f"{modality} slowest s"].max()
    return pd.DataFrame(columns).sort_index()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run the transformers over mutated media.")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=10, help="seconds a file may take")
    parser.add_argument("--memory", type=float, default=3, help="GB a process may take")
    parser.add_argument("--stderr", action="store_true", help="show what decoders say")
    options = parser.parse_args(arguments)
    quiet = contextlib.nullcontext() if options.stderr else quiet_decoders()
    with quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrong = run(options.count, options.seed, options.jobs, options.timeout, options.memory)
    print(f"{len(wrong)} violations")
    for line in wrong:
        print(" ", line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
