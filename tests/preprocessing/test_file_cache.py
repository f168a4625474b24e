import errno
import functools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone

from skfdan import FDANClassifier
from skfdan.preprocessing import MFCC, DecodeLimits, FaceFrames, MediaError, MelSpectrogram
from skfdan.preprocessing._embedding_store import STORE
from skfdan.preprocessing.cache import FileCache, cache_key, content_identity

DETECTOR = '''
import os, time
from pathlib import Path

LOG = Path(__file__).with_name("log.txt")

def slow(image):
    """Note which picture was looked at, and take a while."""
    with LOG.open("a") as file:
        file.write(f"{int(image[0, 0, 0])} {os.getpid()}\\n")
    time.sleep(0.05)
    return 0, 0, 8, 8

def other(image):
    return 0, 0, 4, 4

def no_face(image):
    with LOG.open("a") as file:
        file.write("0 0\\n")
    return None
'''

WORKER = """
import sys, time
from pathlib import Path
import detectors
from skfdan.preprocessing import FaceFrames

folder, paths = Path(sys.argv[1]), sorted(Path(sys.argv[1]).glob("*.png"))
(folder / f"ready-{sys.argv[2]}").touch()
while not all((folder / f"ready-{i}").exists() for i in "01"):
    time.sleep(0.005)
faces = FaceFrames(detector=detectors.slow, size=8, cache_dir=folder / "cache", verbose=0)
crops = faces.transform(paths)[:, 0]
assert [int(c[0, 0, 0]) for c in crops] == list(range(40)), [int(c[0, 0, 0]) for c in crops]
"""


@pytest.fixture
def detectors(tmp_path, monkeypatch):
    (tmp_path / "detectors.py").write_text(DETECTOR)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("detectors", None)
    import detectors

    yield detectors
    sys.modules.pop("detectors")


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"{i:02}.png" for i in range(40)]
    for i, path in enumerate(paths):
        Image.new("RGB", (16, 16), (i, i, i)).save(path)
    return paths


def looked_at(detectors):
    """Return what the detector has seen since the last call."""
    if not detectors.LOG.exists():
        return []
    lines = detectors.LOG.read_text().splitlines()
    detectors.LOG.unlink()
    return [int(line.split()[0]) for line in lines]


def entries(folder):
    return sorted(Path(folder).glob("*/*.npy"))


class CountedMel(MelSpectrogram):
    """Notes every cell that is really loaded."""

    loaded: ClassVar[list] = []

    def _waveform(self, cell):
        self.loaded.append(cell)
        return super()._waveform(cell)


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(CountedMel, "loaded", [])

    def n_loaded():
        n = len(CountedMel.loaded)
        CountedMel.loaded.clear()
        return n

    return n_loaded


def test_each_file_is_decoded_once(tmp_path, write_wav, sweep, counted):
    paths = [write_wav(f"{i}.wav", sweep(0.5, seed=i)) for i in range(4)]
    mel = CountedMel(n_mels=16, cache_dir=tmp_path / "cache")
    cold = mel.fit_transform(paths)
    assert counted() == 4
    warm = mel.transform(paths)
    assert counted() == 0
    plain = CountedMel(n_mels=16).transform(paths)
    for results in (cold, warm):
        for a, b in zip(results[:, 0], plain[:, 0], strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
    counted()
    # Another order, another selection, missing cells and other rows: the same entries.
    mel.transform([paths[3], None, str(paths[0])])
    assert counted() == 0


@pytest.mark.parametrize(
    ("change", "n"),
    [
        ({"n_mels": 17}, 1),
        ({"n_fft": 512}, 1),
        ({"win_length": 512}, 1),
        ({"hop_length": 128}, 1),
        ({"fmin": 20.0}, 1),
        ({"fmax": 7000.0}, 1),
        ({"top_db": None}, 1),
        ({"duration": 2.0}, 1),
        ({"sample_rate": 8000}, 1),
        ({"trim": 60.0}, 1),
        ({"crop": "random"}, 1),
        ({"n_jobs": 2}, 0),
        ({"verbose": 0}, 0),
        ({"random_state": 3}, 0),
        ({"n_mels": np.int64(16), "duration": np.float64(4.0)}, 0),
    ],
    ids=str,
)
def test_parameters_that_matter_are_in_the_key(change, n, tmp_path, write_wav, sweep, counted):
    path = write_wav("a.wav", sweep(0.5))
    CountedMel(n_mels=16, cache_dir=tmp_path / "cache").transform([path])
    counted()
    CountedMel(**({"n_mels": 16, "cache_dir": tmp_path / "cache"} | change)).transform([path])
    assert counted() == n


def test_random_crop_caches_the_waveform(tmp_path, write_wav, sweep, counted):
    paths = [write_wav(f"{i}.wav", sweep(1.0, seed=i)) for i in range(2)]
    mel = CountedMel(duration=0.3, crop="random", n_mels=8, cache_dir=tmp_path, random_state=0)
    first = mel.fit_transform(paths)
    assert counted() == 2
    # Other crops, other features and the centre at prediction: decoded already.
    second = mel.set_params(random_state=1).fit_transform(paths)
    assert not np.array_equal(first[0, 0], second[0, 0])
    centre = mel.set_params(n_mels=16).transform(paths)
    assert counted() == 0
    np.testing.assert_array_equal(
        centre[0, 0], MelSpectrogram(duration=0.3, n_mels=16).transform(paths)[0, 0]
    )


def test_mel_and_mfcc_do_not_mix(tmp_path, write_wav, sweep):
    path = write_wav("a.wav", sweep(0.5))
    same = {"sample_rate": 16000, "duration": 1.0, "n_fft": 512, "n_mels": 40, "hop_length": 160}
    for _ in range(2):
        mel = MelSpectrogram(**same, cache_dir=tmp_path).transform([path])[0, 0]
        mfcc = MFCC(**same, n_mfcc=40, cache_dir=tmp_path).transform([path])[0, 0]
        assert not np.allclose(mel, mfcc)


def test_changed_file_is_decoded_again(tmp_path, write_wav, sweep, counted):
    path = write_wav("a.wav", sweep(0.5))
    mel = CountedMel(n_mels=16, cache_dir=tmp_path / "cache")
    before = mel.transform([path])[0, 0]
    write_wav("a.wav", sweep(0.5, seed=9))  # of the same size
    os.utime(path, ns=(1, 1))
    after = mel.transform([path])[0, 0]
    assert counted() == 2
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("seconds", [0.3, 2.0], ids=["small", "larger than both ends"])
def test_a_copy_that_keeps_size_and_time_is_decoded_again(
    seconds, tmp_path, write_wav, sweep, counted
):
    path = write_wav("a.wav", sweep(seconds))
    mel = CountedMel(n_mels=16, cache_dir=tmp_path / "cache")
    os.utime(path, ns=(1, 1))
    before = mel.transform([path])[0, 0]
    write_wav("a.wav", sweep(seconds, seed=9))  # of the same size
    os.utime(path, ns=(1, 1))
    after = mel.transform([path])[0, 0]
    assert counted() == 2
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("at", [0, 16383, 100_000 - 16384, 99_999])
def test_both_ends_are_in_the_identity(at, tmp_path):
    path, content = tmp_path / "a.bin", bytearray(100_000)
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    first, of_folder = content_identity(path), content_identity(tmp_path)
    content[at] = 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    assert content_identity(path) != first
    assert content_identity(tmp_path) != of_folder


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_the_identity_of_a_pipe_waits_for_nothing(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert content_identity(tmp_path / "pipe")


def test_arrays_are_known_by_their_content(tmp_path, sweep, counted):
    samples = sweep(0.5)
    mel = CountedMel(n_mels=16, cache_dir=tmp_path)
    mel.transform([samples, samples.copy(), samples.astype(np.float64), (samples, 8000)])
    assert counted() == 3
    changed = samples.copy()
    changed[100] += 1e-3
    mel.transform([samples, changed])
    assert counted() == 1


def test_identity_of_a_folder_is_that_of_its_files(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    first = content_identity(tmp_path)
    assert content_identity(str(tmp_path)) == first
    (tmp_path / "b.png").write_bytes(b"2")
    assert content_identity(tmp_path) != first
    with pytest.raises(FileNotFoundError):
        content_identity(tmp_path / "gone")
    with pytest.raises(TypeError, match="Python objects"):
        content_identity(np.array([None]))


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "foreign"])
def test_damaged_entry_is_computed_again(damage, tmp_path, write_wav, sweep, counted):
    path = write_wav("a.wav", sweep(0.5))
    mel = CountedMel(n_mels=16, cache_dir=tmp_path / "cache")
    whole = mel.transform([path])[0, 0]
    (entry,) = entries(tmp_path / "cache")
    content = bytearray(entry.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[200] ^= 1
    elif damage == "emptied":
        content = b""
    entry.write_bytes(content)
    if damage == "foreign":
        np.save(entry, np.zeros((16, 251), np.float32))
    counted()
    np.testing.assert_array_equal(mel.transform([path])[0, 0], whole)
    assert counted() == 1
    np.testing.assert_array_equal(mel.transform([path])[0, 0], whole)
    assert counted() == 0


def test_entries_are_npy_files(tmp_path, write_wav, sweep):
    path = write_wav("a.wav", sweep(0.5))
    mel = MelSpectrogram(cache_dir=tmp_path / "cache").transform([path])[0, 0]
    (entry,) = entries(tmp_path / "cache")
    np.testing.assert_array_equal(np.load(entry, allow_pickle=False), mel)


def test_crash_while_writing_leaves_the_cache_usable(tmp_path, monkeypatch):
    cache, key = FileCache(tmp_path), cache_key("a/1", {}, np.zeros(1))

    def crash(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            cache.fetch(key, lambda: np.ones(3))
    assert not entries(tmp_path)
    done, value = cache.fetch(key, lambda: np.ones(3), wait=False)
    assert done
    assert value.tolist() == [1, 1, 1]
    assert [p.name for p in tmp_path.rglob("*.tmp")] == []


def test_error_is_not_cached_and_frees_the_lock(tmp_path):
    cache, key = FileCache(tmp_path), cache_key("a/1", {}, np.zeros(1))

    def fail():
        raise OSError("not now")

    with pytest.raises(OSError, match="not now"):
        cache.fetch(key, fail)
    assert cache.fetch(key, lambda: np.ones(1), wait=False)[0]


def test_missing_result_is_cached(detectors, tmp_path):
    black = np.zeros((16, 16, 3), np.uint8)
    faces = FaceFrames(detector=detectors.no_face, cache_dir=tmp_path / "cache")
    for n in (1, 0):
        with pytest.warns(UserWarning, match="no face"):
            assert faces.transform([black])[0, 0] is None
        assert len(looked_at(detectors)) == n
    with pytest.raises(ValueError, match="no face"):
        faces.set_params(on_no_face="raise").transform([black])
    assert looked_at(detectors) == []
    centred = faces.set_params(on_no_face="center").transform([black])[0, 0]
    assert centred.shape == (3, 112, 112)


def test_detector_is_in_the_key(detectors, tmp_path, pictures):
    def crops(**parameters):
        faces = FaceFrames(size=8, cache_dir=tmp_path / "cache", **parameters)
        faces.transform(pictures[:1])
        return len(entries(tmp_path / "cache"))

    assert crops(detector=detectors.slow) == 1
    assert crops(detector=detectors.slow) == 1
    assert crops(detector=detectors.other) == 2
    assert crops(detector=None) == 3
    assert crops(detector=detectors.other, margin=0.2) == 4
    assert crops(detector=detectors.other, n_frames=2) == 5


class Box:
    def __init__(self, side):
        self.side = side

    def __call__(self, image):
        return 0, 0, self.side, self.side


def test_callable_objects_count_by_what_they_hold(tmp_path, pictures):
    for side, n in ((4, 1), (4, 1), (8, 2)):
        FaceFrames(detector=Box(side), cache_dir=tmp_path / "cache").transform(pictures[:1])
        assert len(entries(tmp_path / "cache")) == n


def corner(image):
    return 0, 0, 4, 4


def scaled(k):
    @functools.wraps(corner)
    def wrapper(image):
        return 0, 0, 4 * k, 4 * k

    return wrapper


def test_decorated_detectors_count_by_what_decorates_them(tmp_path, pictures):
    for k, n in ((1, 1), (1, 1), (2, 2)):
        FaceFrames(detector=scaled(k), cache_dir=tmp_path / "cache").transform(pictures[:1])
        assert len(entries(tmp_path / "cache")) == n


def test_bounds_hold_for_what_was_cached_under_others(tmp_path, pictures):
    sound = (np.zeros(8000, np.float32), 16000)
    for transformer, cell, bounds in (
        (MelSpectrogram(verbose=0), sound, {"max_rate": 8000}),
        (FaceFrames(detector=None, verbose=0), pictures[0], {"max_pixels": 10}),
    ):
        cache = tmp_path / type(transformer).__name__
        transformer.set_params(cache_dir=cache, sample_rate=4000) if cell is sound else (
            transformer.set_params(cache_dir=cache)
        )
        expected = transformer.transform([cell])[0, 0]
        # The bound on the size of files is looked at in any case.
        wide = clone(transformer).set_params(limits=DecodeLimits(max_bytes=2**40))
        np.testing.assert_array_equal(wide.transform([cell])[0, 0], expected)
        assert len(entries(cache)) == 1
        with pytest.raises(MediaError, match=next(iter(bounds))):
            clone(transformer).set_params(limits=DecodeLimits(**bounds)).transform([cell])


def test_nameless_detector_is_not_cached(tmp_path, pictures):
    def local(image):
        return None

    for detector in (lambda image: None, local):
        with pytest.raises(ValueError, match=r"cannot be cached.*cache_dir=None"):
            FaceFrames(detector=detector, cache_dir=tmp_path / "cache").transform(pictures[:1])
        FaceFrames(detector=detector, on_no_face="center").transform(pictures[:1])


def test_busy_files_are_left_for_last(tmp_path):
    """Who finds a file in work does the others first, then waits for it."""
    cache = FileCache(tmp_path)
    key = cache_key("a/1", {}, np.zeros(1))
    entered, leave = threading.Event(), threading.Event()

    def slow():
        entered.set()
        assert leave.wait(10)
        return np.arange(3)

    thread = threading.Thread(target=cache.fetch, args=(key, slow))
    thread.start()
    assert entered.wait(10)
    start = time.perf_counter()
    assert cache.fetch(key, slow, wait=False) == (False, None)
    assert time.perf_counter() - start < 1
    leave.set()
    done, value = cache.fetch(key, None)  # computed by the thread: nothing to call
    thread.join()
    assert done
    assert value.tolist() == [0, 1, 2]


def test_transformer_goes_on_with_the_others(tmp_path, sweep):
    """Row 0 is being decoded elsewhere until row 1 is done here."""
    clips = [sweep(0.1, seed=i) for i in range(2)]
    entered, leave, order = threading.Event(), threading.Event(), []

    class Ordered(MelSpectrogram):
        def _waveform(self, cell):
            order.append(0 if cell is clips[0] else 1)
            leave.set()
            return super()._waveform(cell)

    def elsewhere():
        entered.set()
        assert leave.wait(10), "row 1 waited for row 0"
        return np.zeros((8, 3), np.float32)

    mel = Ordered(n_mels=8, duration=0.1, cache_dir=tmp_path)
    recipe = mel._recipe(training=False)
    keys = [cache_key(recipe.kind, recipe.parameters, clip) for clip in clips]
    assert keys[0][:2] != keys[1][:2], "the two must not share a lock"
    thread = threading.Thread(target=FileCache(tmp_path).fetch, args=(keys[0], elsewhere))
    thread.start()
    assert entered.wait(10)
    results = mel.transform(clips)[:, 0]
    thread.join()
    assert order == [1]
    assert results[0].tolist() == np.zeros((8, 3)).tolist()  # what was computed elsewhere


@pytest.mark.parametrize("n_jobs", [None, 4])
def test_equal_rows_are_decoded_once(n_jobs, detectors, tmp_path, pictures):
    cells = [pictures[i % 3] for i in range(12)]
    faces = FaceFrames(detector=detectors.slow, size=8, cache_dir=tmp_path / "cache", n_jobs=n_jobs)
    crops = faces.transform(cells)[:, 0]
    assert [int(c[0, 0, 0]) for c in crops] == [0, 1, 2] * 4
    assert sorted(looked_at(detectors)) == [0, 1, 2]


@pytest.mark.slow
def test_two_processes_share_the_work_on_a_cold_cache(detectors, tmp_path, pictures):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(i)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    shares = [line.split()[1] for line in detectors.LOG.read_text().splitlines()]
    assert sorted(looked_at(detectors)) == list(range(40))
    assert len(set(shares)) == 2, "one process did everything"
    # And a third, this one, finds it all done.
    faces = FaceFrames(detector=detectors.slow, size=8, cache_dir=tmp_path / "cache")
    faces.transform(pictures)
    assert looked_at(detectors) == []


def test_grid_search_decodes_each_file_once(detectors, tmp_path, pictures):
    from sklearn.dummy import DummyClassifier
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    pipe = make_pipeline(
        FaceFrames(detector=detectors.slow, size=8, cache_dir=tmp_path / "cache"),
        DummyClassifier(),
    )
    search = GridSearchCV(
        pipe, {"dummyclassifier__strategy": ["prior", "uniform"]}, cv=3, error_score="raise"
    )
    search.fit(np.array(pictures, dtype=object)[:12, None], [0, 1] * 6)
    assert sorted(looked_at(detectors)) == list(range(12))


def test_a_full_disk_names_the_entry_and_leaves_nothing(tmp_path, monkeypatch):
    def full(self, content):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    key = cache_key("squares/1", {}, np.arange(3))
    with pytest.raises(OSError, match=r"cache_dir: .*No space left on device") as caught:
        FileCache(tmp_path).fetch(key, lambda: np.arange(3))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename.startswith(str(tmp_path))
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] in ([".lock"], [])


def test_what_a_frozen_backbone_left_serves_where_nobody_can_write(tmp_path, monkeypatch):
    def refused(self, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    X, y = np.random.default_rng(0).normal(size=(8, 16, 20)).astype(np.float32), np.arange(8) % 2
    clf = FDANClassifier(backbone="cnn", weights=None, input_size=16, backbone_trainable=False)
    clf.set_params(bottleneck=8, max_epochs=1, device="cpu", random_state=0, verbose=0)
    clf.set_params(cache_dir=tmp_path).fit(X, y)
    expected = clf.predict_proba(X)
    STORE.clear()
    monkeypatch.setattr("filelock.FileLock.acquire", refused)
    np.testing.assert_array_equal(clone(clf).fit(X, y).predict_proba(X), expected)
    STORE.clear()
    with pytest.raises(OSError, match="Read-only"):
        clone(clf).set_params(random_state=1).fit(X, y)


def test_a_change_between_the_ends_is_told_by_the_time(tmp_path):
    """Of a large file the ends are read alone; what an editor changes within moves the time."""
    path = tmp_path / "a.wav"
    content = bytearray(100_000)
    path.write_bytes(content)
    before = cache_key("mel/1", {}, path)
    time = path.stat().st_mtime_ns
    content[50_000] = 1
    path.write_bytes(content)
    os.utime(path, ns=(time, time + 1))
    assert cache_key("mel/1", {}, path) != before


def test_arrays_of_the_same_bytes_and_another_type_are_others():
    silence = np.zeros(8, np.float32)
    keys = {cache_key("mel/1", {}, silence.view(kind)) for kind in ("f4", "i4", "u4")}
    assert len(keys) == 3


def test_the_order_in_which_a_folder_is_listed_does_not_matter(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    expected = cache_key("faces/1", {}, tmp_path)
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda e: e.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    backwards = cache_key("faces/1", {}, tmp_path)
    monkeypatch.undo()
    assert backwards == expected


@pytest.mark.parametrize("crop", ["center", "random"])
def test_each_threshold_of_trim_is_another_entry(crop, tmp_path):
    rng = np.random.default_rng(0)
    wave = rng.normal(size=16000).astype(np.float32)
    wave[:8000] *= 0.01  # 40 dB below the rest
    lengths = []
    for trim in (60.0, 20.0):
        mel = MelSpectrogram(trim=trim, duration=None, crop=crop, cache_dir=tmp_path, verbose=0)
        lengths.append(mel.transform([wave])[0, 0].shape[-1])
    assert lengths[0] > lengths[1]
