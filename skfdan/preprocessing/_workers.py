"""Decoding in processes of their own, which may crash or be stopped without harm.

A worker is a fresh interpreter that answers one request at a time over its
standard input and output. Three properties made it this and no process pool: a
worker that takes too long is killed at once and alone, nothing has to be shut
down in order (a worker that loses its parent reads the end of its input and
leaves), and scripts need no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import cloudpickle
from joblib import cpu_count

from ._source import MediaError

__all__ = ["Isolated", "WorkerError"]

# Importing everything on a slow disk, or compiling, does not count as decoding.
_START_SECONDS = 300.0
# Workers without work leave after that long.
_IDLE_SECONDS = 120.0

_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from skfdan.preprocessing._workers import _serve; _serve()"
)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

# One lock for the two sets below. The reaper is a thread that waits for idle workers to age.
_LOCK = threading.Lock()
_IDLE: list[tuple[float, _Worker]] = []
_EVERY: set[_Worker] = set()
_REAPER: list[threading.Timer] = []


class WorkerError(RuntimeError):
    """No worker can do it, whatever the file: it does not start, or cannot be told what to do."""


class _TimeLimitError(Exception):
    """A worker took too long and was killed."""


class _CrashError(Exception):
    """A worker ended in the midst of its work."""


class Isolated:
    """A function of one file, called in a worker process within a time limit.

    Parameters
    ----------
    load : callable
        Path to picklable result; sent to the workers by value where needed
        (functions of scripts, lambdas).
    warm_up : callable
        Called without arguments before the first file, outside of the limit.
    seconds : float
        Time limit for one file.
    n_jobs : int
        How many workers share the processors.
    """

    def __init__(
        self, load: Callable[[str], Any], warm_up: Callable[[], Any], seconds: float, n_jobs: int
    ) -> None:
        self.load, self.warm_up, self.seconds, self.n_jobs = load, warm_up, seconds, n_jobs
        self._task: tuple[str, bytes] | None = None

    def __call__(self, path: str | os.PathLike) -> Any:
        """Return ``load(path)``.

        Raises
        ------
        MediaError
            If it takes too long or crashes.
        WorkerError
            If there is no worker, or ``load`` cannot be sent to one.
        Exception
            What ``load`` raises.
        """
        source = os.fspath(path)
        worker = _borrow(self.n_jobs)
        try:
            name, task = self._pickled()
            if worker.task != name:
                worker.give(name, task)
            # Paths may be relative, and the folder may change.
            kind, answer = worker.ask(("do", _folder(), source, self.seconds), self.seconds)
        except _TimeLimitError:
            raise MediaError(
                source,
                f"took longer than {self.seconds:g} s; leave the file out or raise timeout=",
                stage="time limit",
            ) from None
        except _CrashError as crash:
            raise MediaError(source, f"the decoder crashed ({crash})", stage="crash") from None
        finally:
            _give_back(worker)
        if kind == "error":
            raise answer
        return answer

    def _pickled(self) -> tuple[str, bytes]:
        """Return what the workers are to do, by a name that stands for its content, and pickled."""
        if self._task is None:
            try:
                task = cloudpickle.dumps((self.load, self.warm_up))
            except Exception as error:
                raise WorkerError(
                    f"what decodes the files cannot be sent to a worker process "
                    f"({type(error).__name__}: {error})"
                ) from error
            place = json.dumps(_search_path()).encode()
            self._task = hashlib.sha256(place + task).hexdigest(), task
        return self._task


class _Worker:
    """The parent's side of one process."""

    def __init__(self, n_jobs: int) -> None:
        self.task: str | None = None
        self.usable = False
        threads = str(max(1, cpu_count() // max(1, n_jobs)))
        try:
            self.process = subprocess.Popen(
                # -P: json must not be a file of the current folder, which may be a stranger's.
                [sys.executable, "-P", "-c", _CODE, json.dumps(_search_path())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env=dict.fromkeys(_THREADS, threads) | dict(os.environ),
                # A group of its own: killed with all that a detector started,
                # and left alone by Ctrl-C, which the parent passes on.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except (OSError, ValueError, TypeError) as error:
            raise WorkerError(f"no worker process can be started ({error})") from error
        with _LOCK:
            _EVERY.add(self)
        try:
            self.usable = True
            self._exchange(None, _START_SECONDS)
        except (_TimeLimitError, _CrashError) as error:
            raise WorkerError(f"a worker process did not start ({error})") from error
        except BaseException:
            self.close()
            raise

    def give(self, name: str, task: bytes) -> None:
        """Tell the worker what it is to do with the paths to come."""
        self.task = None
        try:
            kind, answer = self.ask(("learn", _search_path(), task), _START_SECONDS)
        except (_TimeLimitError, _CrashError) as error:
            raise WorkerError(f"a worker process did not get ready ({error})") from error
        if kind == "error":
            problem = f"{type(answer).__name__}: {answer}"
            raise WorkerError(f"what decodes the files cannot be read by a worker ({problem})")
        self.task = name

    def ask(self, message: Any, seconds: float) -> tuple[str, Any]:
        """Send a message and wait for the answer; the worker is dead if there is none."""
        return self._exchange(pickle.dumps(message, protocol=5), seconds)

    def _exchange(self, message: bytes | None, seconds: float) -> tuple[str, Any]:
        lock, state = threading.Lock(), {"over": False, "late": False}

        def kill_if_late() -> None:
            with lock:
                if not state["over"]:
                    state["late"] = True
                    self._kill()

        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), kill_if_late)
        timer.daemon = True
        timer.start()
        try:
            if message is not None:
                _send(self.process.stdin, message)
            answer = _receive(self.process.stdout)
        except (EOFError, OSError):
            with lock:
                state["over"] = True
            self.close(patience=0.5)  # a process that crashes has an exit code to give
            if state["late"]:
                raise _TimeLimitError(f"it took longer than {seconds:g} s") from None
            raise _CrashError(_describe_end(self.process.returncode)) from None
        except BaseException:  # such as Ctrl-C: an answer may be on its way to nobody
            self.close()
            raise
        finally:
            timer.cancel()
            with lock:
                state["over"] = True
        if state["late"]:  # answered at the very last moment
            self.close()
        return pickle.loads(answer)

    def _kill(self) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if hasattr(os, "killpg"):
                    os.killpg(self.process.pid, signal.SIGKILL)
                else:
                    self.process.kill()

    def close(self, patience: float = 0.0) -> None:
        """End the process and collect it; it has so many seconds to end by itself."""
        self.usable = False
        with _LOCK:
            _EVERY.discard(self)
        self.process.stdin.close()  # which tells it to
        if patience:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
        self._kill()
        self.process.wait()
        self.process.stdout.close()


def _borrow(n_jobs: int) -> _Worker:
    while True:
        with _LOCK:
            worker = _IDLE.pop()[1] if _IDLE else None
        if worker is None:
            return _Worker(n_jobs)
        if worker.process.poll() is None:
            return worker
        worker.close()  # somebody else has killed it


def _give_back(worker: _Worker) -> None:
    if worker.usable:
        with _LOCK:
            _IDLE.append((time.monotonic(), worker))
            _watch()


def _watch() -> None:
    """Have idle workers ended after a while; the caller holds the lock."""
    if _IDLE and not _REAPER:
        _REAPER.append(threading.Timer(_IDLE_SECONDS, _reap))
        _REAPER[0].daemon = True
        _REAPER[0].start()


def _reap() -> None:
    with _LOCK:
        _REAPER.clear()
        now = time.monotonic()
        old = [worker for since, worker in _IDLE if now - since >= _IDLE_SECONDS / 2]
        _IDLE[:] = [(since, worker) for since, worker in _IDLE if worker not in old]
        _watch()
    for worker in old:
        worker.close(patience=2)


@atexit.register
def _end_all() -> None:
    """End all workers, idle or not: the interpreter is about to exit."""
    with _LOCK:
        workers = list(_EVERY)
        _IDLE.clear()
        for timer in _REAPER:
            timer.cancel()
    for worker in workers:
        worker.close()


def _after_fork() -> None:
    """Forget the parent's workers in a forked child, which must not speak to them."""
    global _LOCK
    _LOCK = threading.Lock()
    for worker in _EVERY:
        # The parent's end of input would not be the last one otherwise.
        worker.process.stdin.close()
        worker.process.stdout.close()
        worker.process.returncode = 0  # not this process's child
    _EVERY.clear()
    _IDLE.clear()
    _REAPER.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _describe_end(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            hint = ", often a lack of memory" if name == "SIGKILL" else ""
            return f"signal {name}{hint}"
    return f"exit code {code}"


def _search_path() -> list[str]:
    return [entry for entry in sys.path if isinstance(entry, str)]


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None


def _send(pipe: Any, message: bytes) -> None:
    for part in (struct.pack("<Q", len(message)), message):
        rest = memoryview(part)
        while rest:
            rest = rest[pipe.write(rest) :]


def _receive(pipe: Any) -> bytes:
    (length,) = struct.unpack("<Q", _read(pipe, 8))
    return _read(pipe, length)


def _read(pipe: Any, length: int) -> bytes:
    parts = []
    while length:
        part = pipe.read(min(length, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _serve() -> None:
    """Answer requests until there are no more: what a worker process runs."""
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    # Decoders and detectors may read and print; not from and to the parent.
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    _send(answers, pickle.dumps(("ready", None)))
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        # Of a thousand damaged files a hundred may crash: no core dump of each.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    load = None
    while True:
        try:
            what, *details = pickle.loads(_receive(requests))
        except EOFError:
            return
        try:
            if what == "learn":
                # The path first: what follows may have to be imported from there.
                load = None
                sys.path[:], task = details
                load, warm_up = pickle.loads(task)
                # Nothing in it is the fault of a file; what is, will show again.
                with contextlib.suppress(Exception):
                    warm_up()
                answer = ("value", None)
            else:
                answer = ("value", _do(load, *details))
        except Exception as error:
            answer = ("error", _portable(error))
        try:
            content = cloudpickle.dumps(answer, protocol=5)
        except Exception as error:
            content = pickle.dumps(("error", RuntimeError(f"{type(error).__name__}: {error}")))
        try:
            _send(answers, content)
        except BrokenPipeError:
            return


def _do(load: Callable[[str], Any], folder: str | None, path: str, seconds: float) -> Any:
    if folder is not None:
        with contextlib.suppress(OSError):
            if _folder() != folder:
                os.chdir(folder)
    # The parent kills in time; a worker whose parent was killed does so itself.
    alarm = hasattr(signal, "setitimer") and seconds < 1e6
    if alarm:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 2 * seconds + 10)
    try:
        return load(path)
    finally:
        if alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _portable(error: Exception) -> Exception:
    """Return an error that survives the way to the parent, with its traceback as a note."""
    if not isinstance(error, (MediaError, OSError)):
        error.add_note("In a worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        # Some pickle and cannot be made again, as their arguments are not kept.
        pickle.loads(cloudpickle.dumps(error))
    except Exception:
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        plain.__notes__ = getattr(error, "__notes__", [])
        return plain
    return error
