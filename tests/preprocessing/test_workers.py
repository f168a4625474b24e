"""Worker processes: what they answer, and what happens if they don't."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier

from skfdan.preprocessing import MFCC, FaceFrames, MediaError, MelSpectrogram, _workers
from skfdan.preprocessing._workers import Isolated, WorkerError


def isolated(load, seconds=60.0, warm_up=lambda: None):
    return Isolated(load, warm_up, seconds, 1)


@pytest.fixture
def no_new_worker(monkeypatch):
    """From here on a worker that is started is an error."""

    def start(self, n_jobs):
        raise AssertionError("a worker was started")

    with _workers._LOCK:
        _workers._IDLE.clear()  # ended at exit
    monkeypatch.setattr(_workers._Worker, "__init__", start)


def test_answers_come_back_as_they_are(tmp_path, monkeypatch):
    offset = np.arange(3.0)
    answer = isolated(lambda path: (offset + len(path), os.getpid(), os.getcwd()))
    values, process, _ = answer("four")
    np.testing.assert_array_equal(values, [4, 5, 6])
    assert process != os.getpid()
    # The same worker, which follows to where relative paths begin.
    monkeypatch.chdir(tmp_path)
    assert answer("a")[1:] == (process, os.fspath(tmp_path))
    assert isolated(lambda path: os.getpid())("a") == process
    large = isolated(lambda path: np.full((3, 1000, 1000), 7, np.uint8))("a")
    assert large.shape == (3, 1000, 1000)
    assert (large == 7).all()


def test_nothing_of_the_current_folder_is_imported(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*(p for p in sys.path if p), "/somewhere"])
    with _workers._LOCK:
        _workers._IDLE.clear()  # ended at exit
    path, safe = isolated(lambda path: (sys.path, sys.flags.safe_path))("a")
    assert path == sys.path
    assert safe
    assert not (tmp_path / "ran").exists()


def test_printing_and_reading_do_not_disturb():
    def chatty(path):
        print("printed", flush=True)
        os.write(1, b"written")
        return sys.stdin.read(), os.read(0, 10)

    assert isolated(chatty)("a") == ("", b"")


def test_errors_come_back_as_they_are():
    def fail(path):
        if path == "media":
            raise MediaError(path, "is odd", stage="open")
        if path == "file":
            raise PermissionError(13, "Permission denied", path)
        if path == "strange":

            class StrangeError(Exception):
                def __init__(self, a, b):
                    super().__init__(f"{a} and {b}")

            raise StrangeError(1, 2)
        raise ZeroDivisionError("by nothing")

    call = isolated(fail)
    with pytest.raises(MediaError, match="media: is odd") as caught:
        call("media")
    assert caught.value.stage == "open"
    with pytest.raises(PermissionError) as caught:
        call("file")
    assert (caught.value.errno, caught.value.filename) == (13, "file")
    with pytest.raises(ZeroDivisionError, match="by nothing") as caught:
        call("other")
    assert "in fail" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="StrangeError: 1 and 2"):
        call("strange")
    with pytest.raises(RuntimeError, match="lock"):  # what cannot be sent back
        isolated(lambda path: threading.Lock())("a")


def test_crash_is_an_error_of_the_file():
    def end(path):
        if path == "bad":
            os.kill(os.getpid(), signal.SIGSEGV)
        return "alive"

    call = isolated(end)
    with pytest.raises(MediaError, match=r"bad: the decoder crashed \(signal SIGSEGV\)") as caught:
        call("bad")
    assert caught.value.stage == "crash"
    assert call("good") == "alive"


def test_ends_of_processes_in_words():
    assert _workers._describe_end(3) == "exit code 3"
    assert _workers._describe_end(-9) == "signal SIGKILL, often a lack of memory"
    assert _workers._describe_end(-100) == "exit code -100"


def test_what_takes_too_long_is_killed_with_what_it_started(tmp_path):
    def sleep(path):
        if path == "fast":
            return time.sleep(0.2)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (tmp_path / "pids").write_text(f"{os.getpid()} {child.pid}")
        time.sleep(60)

    # Getting ready takes longer than the limit, and does not count.
    call = isolated(sleep, 1.0, warm_up=lambda: time.sleep(1.5))
    assert call("fast") is None
    start = time.monotonic()
    with pytest.raises(MediaError, match=r"slow: took longer than 1 s; .*raise timeout=") as caught:
        call("slow")
    assert time.monotonic() - start < 10
    assert caught.value.stage == "time limit"
    for pid in (tmp_path / "pids").read_text().split():
        assert_ends(int(pid))


def assert_ends(pid):
    for _ in range(200):
        try:
            # What has ended and was adopted may stay listed until it is collected.
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except OSError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")


def test_idle_workers_leave(monkeypatch):
    isolated(lambda path: 0)("a")
    with _workers._LOCK:
        for timer in _workers._REAPER:
            timer.cancel()
        _workers._REAPER.clear()
    monkeypatch.setattr(_workers, "_IDLE_SECONDS", 0.1)
    pid = isolated(lambda path: os.getpid())("a")
    assert_ends(pid)
    assert not any(worker.process.pid == pid for _, worker in _workers._IDLE)


def test_what_cannot_be_sent_is_no_error_of_a_file(tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    lock = threading.Lock()

    def find(image):
        with lock:
            return 0, 0, 5, 5

    with pytest.raises(WorkerError, match=r"cannot be sent to a worker process.*lock"):
        isolated(find)("a")
    faces = FaceFrames(detector=find, size=8, on_error="missing", timeout=9)
    with pytest.raises(WorkerError, match="cannot be sent to a worker process"):
        faces.transform([tmp_path / "a.png"])
    faces.set_params(timeout="auto")
    with pytest.warns(UserWarning, match=r"decoded without a time limit.*cannot be sent"):
        assert faces.transform([tmp_path / "a.png"])[0, 0].shape == (3, 8, 8)
    assert not len(faces.report_)


def test_workers_that_do_not_start(monkeypatch, write_wav, sweep):
    with _workers._LOCK:
        _workers._IDLE.clear()
    path = write_wav("a.wav", sweep(0.1))
    for code, words in (("import sys; sys.exit(5)", "exit code 5"), ("raise SystemExit", "code 0")):
        monkeypatch.setattr(_workers, "_CODE", code)
        with pytest.raises(WorkerError, match=rf"a worker process did not start.*{words}"):
            MelSpectrogram(timeout=60).transform([path])
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.warns(UserWarning, match="no worker process can be started"):
        assert MelSpectrogram(on_error="skip").transform([path])[0, 0].shape == (128, 251)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_same_bits_as_in_threads(n_jobs, tmp_path, write_wav, write_video, moving_frames, sweep):
    sounds = [write_wav(f"{i}.wav", sweep(0.3 + i / 10, seed=i)) for i in range(3)]
    sounds += [write_video("a.mp4", moving_frames(5), seconds=0.5), None, sweep(0.2)]
    pictures = [tmp_path / "a.mp4", None, np.zeros((20, 30, 3), np.uint8)]
    for transformer, cells in (
        (MelSpectrogram(n_jobs=n_jobs, crop="random", duration=0.2, random_state=0), sounds),
        (MFCC(n_jobs=n_jobs, cache_dir=tmp_path / "cache"), sounds),
        (FaceFrames(n_jobs=n_jobs, on_no_face="center"), pictures),
    ):
        expected = transformer.set_params(timeout=None, cache_dir=None).fit_transform(cells)
        given = transformer.set_params(timeout=60).fit_transform(cells)
        for a, b in zip(given[:, 0], expected[:, 0], strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_array_equal(a, b)
                assert (a.dtype, a.flags.c_contiguous) == (b.dtype, b.flags.c_contiguous)


def test_no_worker_where_none_is_needed(no_new_worker, tmp_path, write_wav, sweep):
    path, samples = write_wav("a.wav", sweep(0.1)), sweep(0.1)
    cached = {"cache_dir": tmp_path / "cache", "n_mels": 8}
    MelSpectrogram(timeout=None, **cached).transform([path])
    assert MelSpectrogram(timeout=5, **cached).transform([path])[0, 0] is not None
    MelSpectrogram(on_error="missing").transform([samples, None])
    MelSpectrogram().transform([path] * 99 + [samples] * 9)
    MelSpectrogram(timeout=None, on_error="skip").transform([path])
    MelSpectrogram(timeout=5).transform(np.zeros((2, 2000)))
    for made in (
        lambda: MelSpectrogram(timeout=5).transform([path]),
        lambda: MelSpectrogram(duration=0.1).transform([path] * 100),
    ):
        with pytest.raises(AssertionError, match="a worker was started"):
            made()
    with pytest.warns(UserWarning, match="no such file"):
        MelSpectrogram(on_error="missing").transform(["gone.wav"])


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "fast", True])
def test_time_limit_is_above_zero(timeout):
    with pytest.raises(ValueError, match=r'timeout=.* must be seconds above 0, "auto" or None'):
        MelSpectrogram(timeout=timeout).fit([None])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_child_leaves_the_parents_workers_alone():
    here = isolated(lambda path: os.getpid())("a")

    def child(queue):
        queue.put((len(_workers._EVERY), isolated(lambda path: os.getpid())("a")))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    known, there = queue.get(timeout=120)
    process.join()
    assert (known, process.exitcode) == (0, 0)
    assert there != here
    assert_ends(there)
    # Others of the parent's may have aged in the meantime, this one has not.
    assert isolated(lambda path: os.getpid())("a") == here


SCRIPT = """
import os, signal, sys
from pathlib import Path
from skfdan.preprocessing import FaceFrames

pids = Path(sys.argv[1]).with_name("pids")
def find(image):
    with pids.open("a") as file:
        file.write(f"{os.getpid()} ")
    return 0, 0, 5, 5

crops = FaceFrames(detector=find, size=8, timeout=60).transform([sys.argv[1]] * 3)
assert all(crop.shape == (3, 8, 8) for crop in crops[:, 0])
if sys.argv[2:]:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed", [pytest.param(False, marks=pytest.mark.long), True])
def test_script_without_a_guard_leaves_nothing_behind(killed, tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-W", "error", tmp_path / "script.py", tmp_path / "a.png", "x"][
            : 6 if killed else 5
        ],
        capture_output=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-9 if killed else 0, b"", b"")
    for pid in set((tmp_path / "pids").read_text().split()):
        assert_ends(int(pid))


@pytest.mark.slow
def test_within_the_processes_of_a_grid_search(write_wav, sweep):
    paths = [os.fspath(write_wav(f"{i}.wav", sweep(0.3, seed=i))) for i in range(8)]
    pipe = make_pipeline(
        MelSpectrogram(timeout=60, n_jobs=2, duration=0.3, hop_length=1024, verbose=0),
        FunctionTransformer(mean_levels),
        DecisionTreeClassifier(random_state=0),
    )
    search = GridSearchCV(
        pipe, {"melspectrogram__n_mels": [8, 16]}, cv=2, n_jobs=2, error_score="raise"
    )
    search.fit(pd.DataFrame({"audio": paths}), [0, 1] * 4)
    assert search.cv_results_["mean_test_score"].shape == (2,)


def mean_levels(cells):
    return np.array([cell.mean(axis=1) for cell in np.asarray(cells)[:, 0]])
