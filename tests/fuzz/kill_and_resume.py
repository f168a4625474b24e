"""Kill processes at random moments, start them again, and look whether anything was lost.

Three activities are killed with SIGKILL: a fit with ``checkpoint_dir``, a transformer that fills
its cache, and ``save_pretrained`` that overwrites a model. Whatever the moment,

- the fit, started again until it completes, must give the weights, history and predictions of
  one that was left alone, and train no completed epoch again;
- the transformer, run again, must give what it gives without a cache, and compute nothing again
  that was complete;
- the folder of the model must load as the model that was there before or as the one that was
  being written, to the last bit.

    python tests/fuzz/kill_and_resume.py --kills 50 --seed 0

Some moments are too short to be hit at random. ``--every-step`` also kills one process after the
other right before each call that changes a folder: making, renaming, deleting, syncing.

The exit code is 1 if anything of this fails. Kills that come after the end do not count.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pickle
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import soundfile
import torch
from skorch.callbacks import Callback

from skfdan import FDANClassifier
from skfdan.persistence import load_pretrained, save_pretrained
from skfdan.preprocessing import MelSpectrogram
from skfdan.preprocessing.cache import _read

#: Imported in the midst of the first fit or save, for seconds in which kills would be wasted.
_LATER = ("torch._dynamo", "safetensors.torch", "sklearn.decomposition", "sklearn.impute")
#: Shares of the kills.
SHARES = {"fit": 0.4, "cache": 0.3, "save": 0.3}
_ATTEMPTS = 40
_FILE = "checkpoint.safetensors"


class Process:
    """A forked child at work; it sends lines, the first of which says that it has begun."""

    def __init__(self, work: Callable, *arguments):
        # The parent has imported everything and run nothing, so that a fork starts at once
        # and inherits no thread's locks.
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            code = 1
            try:
                work(lambda line: os.write(writing, f"{line}\n".encode()), *arguments)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(writing)
        self._pipe = os.fdopen(reading, "rb", buffering=0)
        self._first = self._pipe.readline()
        self.started = time.perf_counter()

    def wait(self, kill_after: float | None = None) -> tuple[bool, list[str], float]:
        """Return whether it was killed before it ended, its lines, and the seconds it took."""
        if kill_after is not None:
            time.sleep(max(0.0, kill_after - (time.perf_counter() - self.started)))
            os.kill(self.pid, signal.SIGKILL)
        lines = (self._first + self._pipe.read()).decode().split()
        _, status = os.waitpid(self.pid, 0)
        seconds = time.perf_counter() - self.started
        self._pipe.close()
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not killed and os.waitstatus_to_exitcode(status) != 0:
            raise ViolationError(f"a process failed: {os.waitstatus_to_exitcode(status)}")
        return killed, lines, seconds


class ViolationError(Exception):
    """Something was lost."""


def run(work: Callable, *arguments) -> tuple[list[str], float]:
    """Let a child do its work undisturbed."""
    _, lines, seconds = Process(work, *arguments).wait()
    return lines, seconds


# ---------------------------------------------------------------------- what is killed


def clips(n: int = 24, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = np.array(["anger", "fear", "joy"])[np.arange(n) % 3]
    code = np.searchsorted(np.unique(y), y)
    faces = rng.integers(0, 99, (n, 3, 16, 16)) + 60 * code[:, None, None, None]
    sound = rng.normal(size=(n, 16, 12)) + code[:, None, None]
    return faces.astype(np.uint8), sound, y


def classifier(**parameters) -> FDANClassifier:
    return FDANClassifier(
        backbone="cnn",
        weights=None,
        input_size=16,
        bottleneck=16,
        adaptation="daan",
        dropout=0.3,
        lr=0.003,
        momentum=0.9,
        max_epochs=20,
        batch_size=8,
        early_stopping=True,
        n_iter_no_change=20,
        validation_fraction=0.25,
        device="cpu",
        random_state=0,
        verbose=0,
    ).set_params(**parameters)


class Tell(Callback):
    """Send where the training begins, and each epoch's number."""

    only_watches = True

    def __init__(self, send):
        self.send = send

    def on_train_begin(self, net, **kwargs):
        self.send(f"from:{len(net.history_)}")

    def on_epoch_begin(self, net, **kwargs):
        self.send(f"epoch:{len(net.history_)}")


def contents(clf: FDANClassifier, X) -> dict[str, object]:
    """Return what a fit has led to, as bytes."""
    state = {f"weight {k}": v.numpy().tobytes() for k, v in clf.module_.state_dict().items()}
    bank = {f"bank {k}": v.tobytes() for k, v in clf.reference_bank_.items()}
    rows = [{k: v for k, v in row.items() if k != "dur"} for row in clf.history_.to_list()]
    proba = clf.predict_proba(X).tobytes()
    return state | bank | {"history": rows, "probabilities": proba, "classes": list(clf.classes_)}


def fit(send, folder: Path | None, result: Path) -> None:
    X_vis, X_aud, y = clips()
    send("start")
    # Partly frozen: that part is in a file of its own.
    clf = classifier(backbone_trainable="block3", checkpoint_dir=folder, callbacks=[Tell(send)])
    clf.fit(X_vis, X_aud, y)
    result.write_bytes(pickle.dumps(contents(clf, X_aud)))


def fill(send, files: list[str], cache: Path | None, result: Path) -> None:
    mel = MelSpectrogram(duration=0.5, n_mels=64, cache_dir=cache, timeout=None, verbose=0)
    send("start")
    cells = mel.fit_transform(files)
    result.write_bytes(pickle.dumps([cell.tobytes() for cell in cells[:, 0]]))


def train_two(send, models: Path) -> None:
    """Train two models of unequal size and classes."""
    X_vis, X_aud, y = clips()
    first = classifier(max_epochs=1).fit(X_vis, X_aud, y)
    second = classifier(max_epochs=2, bottleneck=24, random_state=1).fit(X_vis, X_aud, y == "joy")
    models.write_bytes(pickle.dumps([first, second]))


def save(send, models: Path, folder: Path) -> None:
    """Save one model after the other, for ever."""
    both = pickle.loads(models.read_bytes())
    if not folder.exists():
        save_pretrained(both[0], folder, overwrite=True)
    send("start")
    for i in range(10**6):
        save_pretrained(both[i % 2], folder, overwrite=True)
        send(f"saved:{i % 2}")


def load(send, models: Path, folder: Path, result: Path) -> None:
    """Say which of the two models the folder holds; 2 if neither."""
    _, X_aud, _ = clips()
    expected = [contents(model, X_aud) for model in pickle.loads(models.read_bytes())]
    found = contents(load_pretrained(folder), X_aud)
    which = [found == other for other in expected]
    result.write_bytes(pickle.dumps(which.index(True) if any(which) else 2))


# ---------------------------------------------------------------------- the activities


def kill_fits(kills: int, rng: random.Random, folder: Path) -> Counter:
    counts = Counter()
    _, seconds = run(fit, None, folder / "alone.pkl")
    expected = pickle.loads((folder / "alone.pkl").read_bytes())
    for k in range(10**6):
        if counts["kills"] >= kills:
            return counts
        place, result = folder / f"fit{k}", folder / f"fit{k}.pkl"
        begun = 0
        for _ in range(_ATTEMPTS):
            more = counts["kills"] < kills
            delay = rng.uniform(0, 0.7 * seconds) if more else None
            killed, lines, _ = Process(fit, place, result).wait(delay)
            begins = [int(line[5:]) for line in lines if line.startswith("from:")]
            epochs = [int(line[6:]) for line in lines if line.startswith("epoch:")]
            # An epoch begins when the one before is on the disk.
            if begins and begins[0] < begun - 1:
                raise ViolationError(f"epoch {begun - 1} was complete; {begins[0]} were kept")
            begun = max([begun, *epochs])
            if not killed:
                break
            counts["kills"] += 1
            counts["restarts"] += 1
            counts["before the first epoch was kept"] += not (place / _FILE).exists()
            counts["while writing"] += any(place.glob(".checkpoint.*.tmp"))
        else:
            raise ViolationError(f"a fit did not complete in {_ATTEMPTS} starts")
        found = pickle.loads(result.read_bytes())
        different = [key for key in expected if found.get(key) != expected[key]]
        if different or found.keys() != expected.keys():
            raise ViolationError(f"the fit ended otherwise: {', '.join(different[:5])}")
        if any(place.glob("*.tmp")) or any(place.glob(".*.tmp")):
            raise ViolationError("a completed fit leaves temporary files")
        check_frozen(place)
        counts["completed"] += 1
    return counts


def check_frozen(folder: Path) -> None:
    """Look that what is frozen lies in one file."""
    found = [*folder.glob("checkpoint.frozen-*")]
    if len(found) != 1:
        raise ViolationError(f"a completed fit has {len(found)} files of what is frozen")


def kill_caches(kills: int, rng: random.Random, folder: Path) -> Counter:
    counts = Counter()
    numbers = np.random.default_rng(0)
    files = []
    for i in range(36):
        files.append(str(folder / f"{i}.wav"))
        soundfile.write(files[-1], 0.1 * numbers.normal(size=8000), 16000)
    run(fill, files, None, folder / "uncached.pkl")
    expected = pickle.loads((folder / "uncached.pkl").read_bytes())
    _, seconds = run(fill, files, folder / "whole", folder / "cached.pkl")
    for k in range(10**6):
        if counts["kills"] >= kills:
            return counts
        cache, result = folder / f"cache{k}", folder / f"cache{k}.pkl"
        while counts["kills"] < kills:
            killed, _, _ = Process(fill, files, cache, result).wait(rng.uniform(0, seconds))
            if not killed:
                break
            counts["kills"] += 1
            counts["restarts"] += 1
            counts["while writing"] += any(cache.glob("*/.tmp"))
            if rng.random() < 0.5:
                break  # the other half is killed again before it may complete
        complete = {entry: entry.stat().st_mtime_ns for entry in cache.glob("*/*.npy")}
        counts["entries kept"] += len(complete)
        for entry in complete:
            if not _read(entry)[0]:
                raise ViolationError(f"the entry {entry.name} is not what was computed")
        run(fill, files, cache, result)
        if pickle.loads(result.read_bytes()) != expected:
            raise ViolationError("a cached result differs from the uncached one")
        if any(entry.stat().st_mtime_ns != t for entry, t in complete.items()):
            raise ViolationError("a complete entry was computed again")
        counts["completed"] += 1
    return counts


def kill_saves(kills: int, rng: random.Random, folder: Path) -> Counter:
    counts = Counter()
    models, place, result = folder / "two.pkl", folder / "model", folder / "which.pkl"
    run(train_two, models)
    # How long the two take, from some that are left alone for a while.
    _, lines, seconds = Process(save, models, place).wait(kill_after=1.0)
    each = seconds / max(1, len(lines) - 1)
    while counts["kills"] < kills:
        killed, _, _ = Process(save, models, place).wait(rng.uniform(0, 4 * each))
        if not killed:
            raise ViolationError("saving ended by itself")
        counts["kills"] += 1
        counts["restarts"] += 1
        counts["while writing"] += any(folder.glob(".model.*.skfdan-new"))
        counts["between the two renames"] += not place.exists()
        run(load, models, place, result)
        which = pickle.loads(result.read_bytes())
        if which == 2:
            raise ViolationError("what loads is neither model")
        counts[f"loads as model {which}"] += 1
        counts["folders left behind"] = len(list(folder.glob(".model.*")))
        for left in folder.glob(".model.*.skfdan-new"):
            for file in left.iterdir():
                file.unlink()
            left.rmdir()
    return counts


# ---------------------------------------------------------------------- every step

_STEPS = ("mkdir", "rename", "replace", "rmdir", "unlink", "fsync")


def at_step(send, step: int, work: Callable, *arguments) -> None:
    """Do the work, and be killed right before the call number ``step`` that changes a folder."""
    calls = [0]

    def killing(function):
        def call(*args, **kwargs):
            calls[0] += 1
            if calls[0] == step:
                send(f"{function.__name__}")
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in _STEPS:
        setattr(os, name, killing(getattr(os, name)))
    work(send, *arguments)


def save_twice(send, step: int, models: Path, folder: Path) -> None:
    """Save the first model, and the second in its place, until the step."""
    save_pretrained(pickle.loads(models.read_bytes())[0], folder)
    at_step(send, step, save_second, models, folder)


def save_second(send, models: Path, folder: Path) -> None:
    """Save the second model where the first one is."""
    second = pickle.loads(models.read_bytes())[1]
    send("start")
    save_pretrained(second, folder, overwrite=True)


def load_and_go_on(send, models: Path, folder: Path, results: tuple[Path, Path]) -> None:
    """Say which model the folder holds, and which after the second is saved there again."""
    load(send, models, folder, results[0])
    save_second(send, models, folder)
    load(send, models, folder, results[1])


def every_step_of_save(kills: int, rng: random.Random, folder: Path) -> Counter:
    counts = Counter()
    models, results = folder / "two.pkl", (folder / "killed.pkl", folder / "went on.pkl")
    run(train_two, models)
    for step in range(1, 1000):
        place = folder / str(step) / "model"
        killed, lines, _ = Process(save_twice, step, models, place).wait()
        run(load_and_go_on, models, place, results)
        found = [pickle.loads(result.read_bytes()) for result in results]
        if found not in ([0, 1], [1, 1]) or not (killed or found[0]):
            raise ViolationError(f"killed before {lines[-1]}, step {step}: it loads otherwise")
        if not killed:
            return counts
        counts["kills"] += 1
        counts["restarts"] += 1
        counts[f"before {lines[-1]}"] += 1
    raise ViolationError("saving does not end")


def every_step_of_fit(kills: int, rng: random.Random, folder: Path) -> Counter:
    """Kill one fit again and again, at its first step, its second, ..."""
    counts = Counter()
    run(fit, None, folder / "alone.pkl")
    expected = pickle.loads((folder / "alone.pkl").read_bytes())
    place, result = folder / "fit", folder / "fit.pkl"
    for step in range(1, 1000):
        killed, lines, _ = Process(at_step, step, fit, place, result).wait()
        if not killed:
            break
        counts["kills"] += 1
        counts["restarts"] += 1
        counts[f"before {lines[-1]}"] += 1
    if pickle.loads(result.read_bytes()) != expected:
        raise ViolationError("the fit ended otherwise")
    check_frozen(place)
    return counts


ACTIVITIES = {"fit": kill_fits, "cache": kill_caches, "save": kill_saves}
EVERY_STEP = {"fit steps": every_step_of_fit, "save steps": every_step_of_save}


def main(arguments: list[str] | None = None) -> int:
    """Kill, restart, compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every-step", action="store_true", help="kill before every change too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for module in _LATER:
        importlib.import_module(module)
    violations = 0
    print(f"{'activity':10}{'kills':>6}{'restarts':>10}  verdict")
    activities = ACTIVITIES | (EVERY_STEP if options.every_step else {})
    for position, (name, activity) in enumerate(activities.items()):
        kills = round(options.kills * SHARES.get(name, 0))
        rng = random.Random(f"{options.seed} {position}")
        with tempfile.TemporaryDirectory(prefix="skfdan-kill-") as folder:
            try:
                counts = activity(kills, rng, Path(folder))
                verdict = "nothing lost"
            except ViolationError as violation:
                violations += 1
                counts, verdict = Counter(), f"VIOLATION: {violation}"
        kills, restarts = counts.pop("kills", 0), counts.pop("restarts", 0)
        details = ", ".join(f"{n} {what}" for what, n in counts.items())
        print(f"{name:10}{kills:6}{restarts:10}  {verdict}{f' ({details})' if details else ''}")
    return int(violations > 0)


if __name__ == "__main__":
    sys.exit(main())
