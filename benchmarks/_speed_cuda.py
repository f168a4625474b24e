"""Speed on a CUDA device, by wall time: CPU time does not show what the device does.

    python benchmarks/speed.py --only cuda                # the ratios
    python benchmarks/_speed_cuda.py --scale 0.01         # seconds of 3 of the paper's 300 epochs

Without a device the first measures nothing and says so.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from _speed_losses import N_CLASSES, broadcast_lmmd
from _timing import Ratio, ratio, times_of

_BATCH = 32
_ALPHA = 1e-3
_SGD = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}


@dataclass(frozen=True)
class Task:
    """What both sides train: on which device, which network, on how many images of what size."""

    device: str = "cuda"
    backbone: str = "resnet34"
    precision: str = "bfloat16"
    size: int = 224
    n_audio: int = 640
    n_visual: int = 640

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return faces (n, 3, size, size), Mel images (n, size, size), and the labels of each."""
        rng = np.random.default_rng(0)
        shape = self.size, self.size
        faces = rng.integers(0, 256, (self.n_visual, 3, *shape), dtype=np.uint8)
        sounds = rng.normal(-40, 15, (self.n_audio, *shape)).astype(np.float32)
        return faces, sounds, *(np.arange(n) % N_CLASSES for n in (self.n_visual, self.n_audio))


def ours(task: Task, arrays, epochs: int):
    """Fit the classifier, and return it."""
    from skfdan import FDANClassifier

    faces, sounds, y_vis, y_aud = arrays
    clf = FDANClassifier(
        backbone=task.backbone,
        weights=None,
        precision=task.precision,
        input_size=task.size,
        batch_size=_BATCH,
        alpha=_ALPHA,
        max_epochs=epochs,
        device=task.device,
        random_state=0,
        verbose=0,
        **_SGD,
    )
    return clf.fit(X_vis=faces, X_aud=sounds, y_vis=y_vis, y_aud=y_aud)


def bare_loop(task: Task, arrays, epochs: int) -> tuple[list[float], list[float]]:
    """Train the same network in nothing but torch; return losses and seconds of the epochs.

    Mixed precision, channels last, and a thread that gathers the next batch in pinned memory:
    what a careful loop has. Both modalities need the same number of samples, a multiple of the
    batch size; then the batches are those of the classifier.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from skfdan.nn import FDANNet, InputSpec, lmmd
    from skfdan.nn.inputs import image_spec, some_of

    faces, sounds, *targets = arrays
    n = len(faces)
    assert n == len(sounds)
    assert n % _BATCH == 0
    cuda = task.device.startswith("cuda")
    cells = {"visual": faces, "audio": sounds[:, None]}
    labels = dict(zip(cells, targets, strict=True))
    rng = np.random.RandomState(0)
    torch.manual_seed(rng.randint(2**31 - 1))
    specs = {"visual": InputSpec("image", True), "audio": image_spec(sounds[some_of(n)])}
    specs = {m: specs[m] for m in cells}
    net = FDANNet(N_CLASSES, specs, task.backbone, None, input_size=task.size)
    net.to(task.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), fused=True, **_SGD)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

    def load(picks):
        tensors = [torch.from_numpy(a[m][i]) for m, i in picks.items() for a in (cells, labels)]
        return [t.pin_memory() for t in tensors] if cuda else tensors

    def step(faces, y_vis, sounds, y_aud):
        x, y, z = {"visual": faces, "audio": sounds}, {"visual": y_vis, "audio": y_aud}, {}
        for m in x:
            images = net.inputs[m](x[m]).contiguous(memory_format=torch.channels_last)
            low = task.precision == "bfloat16"
            with torch.autocast(images.device.type, torch.bfloat16, enabled=low):
                features = net.backbones[m](images)
            z[m] = net.bottlenecks[m](features.float())
        layers = {m: zs[-1] for m, zs in net.adapt(z).items()}
        loss = sum(cross_entropy(net.classifier(layers[m]), y[m]) for m in x)
        loss = loss + _ALPHA * lmmd(layers["visual"], layers["audio"], y_vis, y_aud, N_CLASSES)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    losses, seconds = [], []
    with ThreadPoolExecutor(1) as executor:
        for _ in range(epochs):
            start = time.perf_counter()
            order = {"audio": rng.permutation(n), "visual": rng.permutation(n)}
            plans = [{m: order[m][k : k + _BATCH] for m in cells} for k in range(0, n, _BATCH)]
            pending, found = executor.submit(load, plans[0]), []
            for following in [*plans[1:], None]:
                batch = pending.result()
                if following is not None:
                    pending = executor.submit(load, following)
                found.append(step(*(t.to(task.device, non_blocking=True) for t in batch)))
            losses.append(torch.stack(found).mean().item())  # waits for the device
            seconds.append(time.perf_counter() - start)
            schedule.step()
    return losses, seconds


def training_ratios(options, task: Task) -> list[Ratio]:
    """Images a second of the classifier's epochs, beside those of the bare loop's."""
    arrays = task.arrays()
    epochs, repeats = (3, 2) if options.quick else (6, 5)
    found: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(repeats):
        # The first epoch of each makes the device's plans and memory.
        found["ours"] += ours(task, arrays, epochs).history_[1:, "dur"]
        found["bare"] += bare_loop(task, arrays, epochs)[1][1:]
    images = task.n_audio + task.n_visual
    return [
        ratio(
            f"fine-tuning {task.backbone}, {_BATCH} + {_BATCH} images of {task.size} px, "
            f"{task.precision}: images/s of FDANClassifier / of a bare PyTorch loop",
            np.array(found["bare"]),
            np.array(found["ours"]),
            0.95,
            clock="wall",
            device=device_name(task.device),
            images_per_second=images / float(np.median(found["ours"])),
            images_per_second_bare=images / float(np.median(found["bare"])),
        )
    ]


def lmmd_ratios(options, device: str, sizes=(32, 128, 512), d: int = 256) -> list[Ratio]:
    """LMMD, forward and backward."""
    import torch

    from skfdan.nn import lmmd

    def step(loss, z, y):
        for features in z:
            features.grad = None
        loss(*z, y, y, N_CLASSES).backward()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return z[0].grad

    found = []
    for n in sizes:
        generator = torch.Generator().manual_seed(0)
        z = [
            (torch.randn(n, d, generator=generator) + shift).to(device).requires_grad_()
            for shift in (0.0, 0.3)
        ]
        y = (torch.arange(n) % N_CLASSES).to(device)
        expected = step(broadcast_lmmd, z, y)
        difference = (step(lmmd, z, y) - expected).norm() / expected.norm()
        assert difference < 1e-2, f"the gradients of the two sides differ by {difference}"
        times = times_of(
            {
                "ours": lambda z=z, y=y: step(lmmd, z, y),
                "plain": lambda z=z, y=y: step(broadcast_lmmd, z, y),
            },
            10 if options.quick else 50,
            wall=True,
        )
        name = f"LMMD forward+backward on {device}, n = {n}: broadcast / ours"
        where = {"clock": "wall", "device": device_name(device)}
        found.append(ratio(name, times["plain"], times["ours"], **where))
    return found


def cuda_ratios(options) -> list[Ratio]:
    """Training and LMMD on the first CUDA device; nothing where there is none."""
    import torch

    if not torch.cuda.is_available():
        print("cuda: nothing measured, torch finds no CUDA device", file=sys.stderr)
        return []
    return [*training_ratios(options, Task()), *lmmd_ratios(options, "cuda")]


def device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def full_fit(task: Task, scale: float = 1.0) -> dict[str, float]:
    """Time a fit in the paper's setting, or the first part of its 300 epochs.

    Parameters
    ----------
    task : Task
        Device, backbone, and how many images: RAVDESS without four actors has 1,248 voices.
    scale : float, default=1.0
        Share of the 300 epochs that is run.

    Returns
    -------
    dict
        ``epochs`` that were run, ``seconds`` that the fit took, ``seconds_an_epoch`` (the median,
        of the first epoch if there is one alone), and ``hours_of_300`` that follow from them.
    """
    import skfdan.classifiers  # noqa: F401 - which takes seconds of its own

    arrays = task.arrays()
    epochs = max(1, round(300 * scale))
    start = time.perf_counter()
    history = ours(task, arrays, epochs).history_
    seconds = time.perf_counter() - start
    durations = history[:, "dur"]
    epoch = float(np.median(durations[1:] or durations))
    whole = seconds + (300 - epochs) * epoch
    found = {"epochs": epochs, "seconds": seconds, "seconds_an_epoch": epoch}
    return found | {"hours_of_300": whole / 3600}


def main(argv=None) -> int:
    """Time a fit, and print how long it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of 300 epochs (default 1)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backbone", default="resnet34")
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    parser.add_argument("--voices", type=int, default=1248)
    parser.add_argument("--faces", type=int, default=6428)
    options = parser.parse_args(argv)
    task = Task(
        options.device,
        options.backbone,
        size=options.size,
        n_audio=options.voices,
        n_visual=options.faces,
    )
    found = full_fit(task, options.scale)
    print(device_name(task.device), *(f"{k}={v:.4g}" for k, v in found.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
