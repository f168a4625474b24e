"""Training as on CUDA: what a CPU can show of it, and what needs a device."""

import threading

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from classifiers.small_clips import QUICK, make_clips
from skfdan import FDANClassifier, make_table
from skfdan.classifiers import MISAClassifier, _training
from skfdan.classifiers._batches import Batches, JointBatches, read_numbers
from skfdan.classifiers._samples import ModalitySamples

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SMALL = QUICK | {"max_epochs": 3, "batch_size": 8, "device": "cpu"}
X_VIS, X_AUD, Y = make_clips(24)
TABLE = make_table(visual=X_VIS, audio=X_AUD)
VECTORS = make_table(visual=X_VIS.reshape(24, -1)[:, :9] / 255.0, audio=X_AUD[:, 0])
SOME = np.where(np.arange(24) % 3, Y, None)  # some labels lack


@pytest.fixture
def pinned(monkeypatch):
    """Take the way of CUDA on a CPU; gives what was pinned, and in which thread."""
    seen = []

    def pin_memory(tensor):
        seen.append((threading.current_thread().name, tensor.dtype, tuple(tensor.shape)))
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(_training.TrainingMixin, "_on_cuda", lambda self: True)
    return seen


def as_on_cpu(fit):
    """Fit with the CPU's own way within a test that takes the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_training.TrainingMixin, "_on_cuda", lambda self: False)
        return fit()


FITS = {
    "vectors": lambda: FDANClassifier(**SMALL).fit(VECTORS, Y),
    "images": lambda: FDANClassifier(**SMALL).fit(TABLE, Y),
    "weights": lambda: FDANClassifier(**SMALL, class_weight={Y[0]: 3.0}).fit(VECTORS, Y),
    "unlabelled": lambda: FDANClassifier(**SMALL, adaptation="dsan").fit(VECTORS, SOME),
    "daan": lambda: FDANClassifier(**SMALL, adaptation="daan").fit(VECTORS, Y),
    "frozen": lambda: FDANClassifier(**SMALL, backbone_trainable="block3").fit(TABLE, Y),
    "joint": lambda: MISAClassifier(
        backbone="cnn", input_size=16, max_epochs=3, batch_size=8, random_state=0, device="cpu"
    ).fit(TABLE, Y),
}


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("steps", [2, 50])
def test_the_way_of_cuda_gives_the_same_fit(pinned, monkeypatch, name, steps):
    monkeypatch.setattr(_training, "_UNREAD_STEPS", steps)
    expected, found = as_on_cpu(FITS[name]), FITS[name]()
    assert pinned
    for key, value in expected.module_.state_dict().items():
        # Weights with their channels last are summed up in another order.
        torch.testing.assert_close(
            found.module_.state_dict()[key], value, rtol=1e-4, atol=1e-5, msg=key
        )
    for ours, theirs in zip(found.history_, expected.history_, strict=True):
        assert list(ours) == list(theirs)
        for key in set(theirs) - {"dur", "batches"}:
            assert type(ours[key]) is type(theirs[key])
            assert ours[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-5), key
        assert ours["batches"] == []


def test_vectors_give_the_same_weights_bit_by_bit(pinned):
    expected, found = as_on_cpu(FITS["vectors"]), FITS["vectors"]()
    for key, value in expected.module_.state_dict().items():
        assert torch.equal(found.module_.state_dict()[key], value), key


def test_bytes_are_pinned_and_arrive_as_bytes(pinned):
    arrived = []

    class Watching(FDANClassifier):
        def _make_module(self):
            net = super()._make_module()
            net.inputs["visual"].register_forward_pre_hook(
                lambda _, args: arrived.append(args[0].dtype)
            )
            return net

    Watching(**SMALL).fit(TABLE, Y)
    # Faces, sounds, and the labels of both, in each of 3 x 3 steps; none in this thread.
    assert len(pinned) == 9 * 4
    assert all(thread.startswith("skfdan-batches") for thread, _, _ in pinned)
    assert [d for _, d, shape in pinned if len(shape) == 4 and shape[1] == 3] == [torch.uint8] * 9
    assert set(arrived) == {torch.uint8}


def samples_of(n=23):
    cells = {"visual": np.arange(3.0 * n)[:, None], "audio": 100 + np.arange(1.0 * n)[:, None]}
    return {m: ModalitySamples(c, np.arange(len(c)) % n) for m, c in cells.items()}


@pytest.mark.parametrize("kind", [Batches, JointBatches])
def test_batches_loaded_ahead_are_the_same_in_the_same_order(pinned, kind):
    samples = samples_of()
    for s in samples.values():
        s.rows.sort()
    labels = {m: np.arange(len(s)) for m, s in samples.items()}
    more = {"modality_dropout": 0.5} if kind is JointBatches else {}

    def epochs(**settings):
        rng = np.random.RandomState(0)
        batches = kind(samples, labels, 5, None, rng, **more, **settings)
        for _ in range(3):
            for batch, y in batches:
                tensors = [*batch.cells.values(), *y.values()]
                for part in (getattr(batch, "index", None), getattr(batch, "ignored", None)):
                    tensors += [] if part is None else part.values()
                yield [len(batch), *(t.tolist() for t in tensors)]
        yield rng.randint(2**31)

    assert list(epochs(pinned=True)) == list(epochs())


def test_the_next_batch_is_loaded_while_one_is_in_use(pinned):
    samples, loaded = samples_of(), threading.Semaphore(0)
    labels = {m: np.arange(len(s)) for m, s in samples.items()}
    batches = Batches(samples, labels, 5, None, np.random.RandomState(0), pinned=True)
    load = batches._load

    def noting(plan):
        loaded.release()
        return load(plan)

    batches._load = noting
    steps = iter(batches)
    next(steps)
    assert loaded.acquire(timeout=60)
    assert loaded.acquire(timeout=60)  # the second, before it was asked for
    steps.close()


def test_an_error_while_loading_ahead_surfaces(pinned):
    sounds = [np.zeros((16, 12 + i % 2), dtype=np.float32) for i in range(24)]
    clf = FDANClassifier(**SMALL | {"input_size": None})
    with pytest.raises(ValueError, match=r"Cells of different sizes.* can't share a batch"):
        clf.fit(make_table(audio=sounds), Y)


@pytest.mark.parametrize("steps", [2, 50])
def test_a_diverged_fit_names_the_same_batch(pinned, monkeypatch, steps):
    monkeypatch.setattr(_training, "_UNREAD_STEPS", steps)

    def message():
        clf = FDANClassifier(**SMALL | {"lr": 1e12, "batch_size": 4, "lr_schedule": "constant"})
        with pytest.raises(ValueError, match=r"the loss is (nan|inf) in epoch 1, batch ") as caught:
            clf.fit(VECTORS, Y)
        assert not hasattr(clf, "module_")
        return str(caught.value)

    assert message() == as_on_cpu(message)


class Reads(TorchDispatchMode):
    """Counts what would make the CPU wait for another device."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += func.name() in ("aten::_local_scalar_dense", "aten::nonzero")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("weights", [None, "balanced"])
def test_no_step_waits_for_a_number(pinned, weights):
    class Counting(FDANClassifier):
        def train_step(self, batch, **kwargs):
            with Reads() as reads:
                step = super().train_step(batch, **kwargs)
            counts.append(reads.n)
            return step

    def fit():
        return Counting(**SMALL, adaptation=None, class_weight=weights).fit(VECTORS, Y)

    counts = []
    fit()
    assert counts == [0] * 9
    counts.clear()
    as_on_cpu(fit)
    assert min(counts) > 0  # it would be noticed


def test_numbers_are_read_where_tensors_are():
    records = [{"a": torch.tensor(1.5), "n": 3}, {"a": torch.tensor(2), "b": 0.5}]
    read_numbers(records)
    assert records == [{"a": 1.5, "n": 3}, {"a": 2.0, "b": 0.5}]
    read_numbers([])


def test_weights_have_their_channels_last_and_can_be_saved(pinned, tmp_path):
    clf = FITS["images"]()
    kernels = [p for p in clf.module_.parameters() if p.ndim == 4]
    assert kernels
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    clf.save_pretrained(tmp_path / "model")
    loaded = FDANClassifier.from_pretrained(tmp_path / "model")
    np.testing.assert_allclose(loaded.predict_proba(TABLE), clf.predict_proba(TABLE), rtol=1e-5)


def settings():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return (
        *(cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        *(matmul.allow_tf32, torch.get_float32_matmul_precision()),
        *(torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()),
        *(torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")),
    )


def test_settings_of_the_whole_process_stay(pinned):
    before = settings()
    FDANClassifier(**SMALL | {"max_epochs": 1}, precision="bfloat16").fit(TABLE, Y)
    assert settings() == before


@needs_cuda
@pytest.mark.parametrize("name", ["vectors", "images", "weights", "unlabelled", "frozen"])
def test_cuda_trains_what_a_cpu_trains(monkeypatch, name):
    on_cpu = FITS[name]()
    monkeypatch.setitem(SMALL, "device", "cuda")
    on_cuda = FITS[name]()
    assert on_cuda.device_.startswith("cuda")
    for ours, theirs in zip(on_cuda.history_, on_cpu.history_, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=2e-2)


@needs_cuda
def test_on_cuda_bytes_arrive_and_convolutions_are_fast_ones():
    arrived, convolved = [], []

    class Watching(FDANClassifier):
        def _make_module(self):
            net = super()._make_module()
            net.inputs["visual"].register_forward_pre_hook(
                lambda _, args: arrived.append((args[0].dtype, args[0].device.type))
            )
            net.backbones["visual"][0].register_forward_hook(
                lambda _, args, out: convolved.append((out.dtype, out.stride(1)))
            )
            return net

    before = settings()
    params = SMALL | {"device": "cuda", "max_epochs": 1, "precision": "bfloat16"}
    Watching(**params).fit(TABLE, Y)
    assert set(arrived) == {(torch.uint8, "cuda")}
    assert set(convolved) == {(torch.bfloat16, 1)}
    assert settings() == before


@needs_cuda
def test_no_step_on_cuda_synchronises():
    class Strict(FDANClassifier):
        def train_step(self, batch, **kwargs):
            torch.cuda.set_sync_debug_mode("error")
            try:
                return super().train_step(batch, **kwargs)
            finally:
                torch.cuda.set_sync_debug_mode("default")

    for precision in ("float32", "bfloat16"):
        params = SMALL | {"device": "cuda", "precision": precision}
        Strict(**params, class_weight="balanced").fit(TABLE, Y)
