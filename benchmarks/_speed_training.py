"""Speed of backbones, fits and searches."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
from _plain_skorch import plain_skorch
from _speed_losses import N_CLASSES, broadcast_lmmd
from _timing import Ratio, ratio, times_of


def backbone_ratios(options) -> list[Ratio]:
    """A ResNet-34 on 224 pixels, beside matrix products of the same arithmetic."""
    import torch

    from skfdan.nn.backbones import embed, make_backbone

    network, _ = make_backbone("resnet34", None)
    network.eval().requires_grad_(False)
    n = 16 if options.quick else 32  # the second is what classifiers take at a time
    images = torch.randn(n, 3, 224, 224)
    flops = 7.33e9 * n  # multiplications and additions of a ResNet-34
    a = torch.randn(2048, 2048)
    products = flops / (2 * 2048**3)

    def ours(precision):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision):
            embed(network, images)

    def default():
        with torch.inference_mode():
            network(images)

    sides = {"ours": lambda: ours(False), "default": default, "sgemm": lambda: a @ a}
    if has_bfloat16():
        sides["bfloat16"] = lambda: ours(True)
    times = times_of(sides, 3 if options.quick else 9, options.wall)
    found = [
        ratio(
            "ResNet-34 embedding rate / rate of sgemm",
            times["sgemm"] * products,
            times["ours"],
            0.95,
            images_per_second=float(n / np.median(times["ours"])),
            images_per_batch=float(n),
        ),
        ratio("ResNet-34, default (NCHW) / ours, float32", times["default"], times["ours"]),
    ]
    if has_bfloat16():
        name = "ResNet-34, default (NCHW, float32) / ours in bfloat16"
        found.append(ratio(name, times["default"], times["bfloat16"], 2.2))
    else:
        print("bfloat16: left out, this processor computes none itself", file=sys.stderr)
    return found


def has_bfloat16() -> bool:
    """Tell whether the processor has instructions for bfloat16, without which it is emulated."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def corpus(n_audio: int, n_visual: int, d: int = 512):
    """Return features of two modalities that know their class, as a modality table."""
    from skfdan import stack_modalities

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(N_CLASSES, d))

    def some(n):
        y = np.arange(n) % N_CLASSES
        return (rng.normal(size=(n, d)) + 0.15 * centres[y]).astype(np.float32), y

    (audio, y_a), (visual, y_v) = some(n_audio), some(n_visual)
    return stack_modalities(
        visual=(list(visual), y_v, np.arange(n_visual) % 10 + 100),
        audio=(list(audio), y_a, np.arange(n_audio) % 10),
    )


def classifier(epochs: int, **parameters):
    """Return the classifier of all measurements."""
    from skfdan import FDANClassifier

    settings = {"lr": 1e-3, "momentum": 0.9, "device": "cpu", "random_state": 0, "verbose": 0}
    return FDANClassifier(max_epochs=epochs, **settings | parameters)


def bare_loop(table, y, epochs: int):
    """Train the same network on the same features with nothing but torch."""
    import torch
    from torch.nn.functional import cross_entropy

    from skfdan.nn import FDANNet, InputSpec, lmmd

    torch.manual_seed(0)
    cells, labels = {}, {}
    for m in ("visual", "audio"):
        filled = table[m].notna().to_numpy()
        cells[m] = torch.from_numpy(np.stack(table[m][filled]))
        labels[m] = torch.from_numpy(y[filled])
    specs = {
        m: InputSpec("vector", False, x.shape[1], x.mean(0).numpy(), x.std(0).numpy())
        for m, x in cells.items()
    }
    net = FDANNet(N_CLASSES, specs)
    settings = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4, "fused": True}
    optimizer = torch.optim.SGD(net.parameters(), **settings)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    rng = np.random.RandomState(0)
    n = len(cells["audio"])
    for _ in range(epochs):
        steps = -(-n // 32)
        parts = np.array_split(rng.permutation(n), steps)
        others = rng.permutation(len(cells["visual"]))[: 32 * steps].reshape(steps, -1)
        for i, j in zip(parts, others, strict=True):
            pick = {"visual": torch.from_numpy(j), "audio": torch.from_numpy(i)}
            out = net(**{m: cells[m][k] for m, k in pick.items()})
            loss = sum(cross_entropy(out.logits[m], labels[m][k]) for m, k in pick.items())
            z = {m: out.layers[m][1] for m in pick}
            y_v, y_a = (labels[m][k] for m, k in pick.items())
            loss = loss + 1e-3 * lmmd(z["visual"], z["audio"], y_v, y_a, N_CLASSES)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        schedule.step()


def head_ratios(options) -> list[Ratio]:
    """A fit on features, beside a loop in plain torch; and its cost against size."""
    import torch

    torch.set_num_threads(1)
    # Many pairs of short fits: a busy moment spoils one of them.
    epochs = 15 if options.quick else 50
    table, y, _ = corpus(480, 1440)
    classifier(1).fit(table, y)
    bare_loop(table, y, 1)
    times = times_of(
        {
            "ours": lambda: classifier(epochs).fit(table, y),
            "bare": lambda: bare_loop(table, y, epochs),
        },
        5 if options.quick else 21,
        options.wall,
        warm=False,
    )
    found = [
        ratio("fit on features / bare PyTorch loop", times["ours"], times["bare"], 1.05, False)
    ]
    many = (1, 4) if options.quick else (1, 2, 4, 8)
    sizes = {k: corpus(120 * k, 120 * k) for k in many}
    times = times_of(
        {str(k): lambda t=t, y=y: classifier(5).fit(t, y) for k, (t, y, _) in sizes.items()},
        3,
        options.wall,
    )
    for k in many[1:]:
        name = f"fit: {120 * k} clips / {k} x 120 clips"
        found.append(ratio(name, times[str(k)], k * times["1"], 1.1, at_least=False))
    return found


GRID = {"alpha": [1e-3, 1e-4, 1e-5], "weight_decay": [1e-3, 1e-4]}


def _folds(table, y, groups):
    from sklearn.model_selection import GroupKFold

    from skfdan import AudioHoldout

    return list(AudioHoldout(GroupKFold(5), visual="all").split(table, y, groups))


def _search(kind, estimator, X, y, folds):
    """Search without a last fit."""
    settings = {"cv": folds, "refit": False, "scoring": "balanced_accuracy"}
    return kind(estimator, GRID, **settings, error_score="raise").fit(X, y)


def search_ratios(options) -> list[Ratio]:
    """Six candidates in five folds, on features; and the cost of a search against its size."""
    import torch
    from sklearn.model_selection import GridSearchCV

    from skfdan.model_selection import FDANSearchCV
    from skfdan.nn import lmmd

    torch.set_num_threads(1)
    epochs = 4 if options.quick else 10
    table, y, groups = corpus(480, 1440)
    folds = _folds(table, y, groups)
    own = classifier(epochs, inference="bypass")
    scores: dict[str, np.ndarray] = {}

    def run(side, kind, estimator, X):
        scores[side] = _search(kind, estimator, X, y, folds).cv_results_["mean_test_score"]

    def plain(side, loss):
        estimator = plain_skorch(table, epochs, loss, lr=own.lr, momentum=own.momentum)
        run(side, GridSearchCV, estimator, np.arange(len(y)))

    sides = {
        "FDANSearchCV": lambda: run("FDANSearchCV", FDANSearchCV, own, table),
        "plain skorch": lambda: plain("plain skorch", broadcast_lmmd),
    }
    if not options.quick:
        sides["plain skorch, our LMMD"] = lambda: plain("plain skorch, our LMMD", lmmd)
        sides["FDANClassifier"] = lambda: run("FDANClassifier", GridSearchCV, own, table)
    _search(FDANSearchCV, classifier(1), table, y, folds[:1])  # what is done once in a process
    times = times_of(sides, 1 if options.quick else 3, options.wall, warm=False)
    found = []
    for side in list(sides)[1:]:
        difference = float(np.abs(scores[side] - scores["FDANSearchCV"]).max())
        assert difference < 0.01, f"scores of {side} differ from ours by {difference}"
        found.append(
            ratio(
                f"GridSearchCV of {side}, 6 x 5, {epochs} epochs on features / FDANSearchCV",
                times[side],
                times["FDANSearchCV"],
                2.0 if side == "plain skorch" else None,
                largest_difference_of_scores=difference,
            )
        )
    many, sizes = (1, 4) if options.quick else (1, 2, 4, 8), {}
    for k in many:
        some, of_some, speakers = corpus(120 * k, 120 * k)
        sizes[str(k)] = partial(
            *(_search, FDANSearchCV, classifier(2), some, of_some),
            _folds(some, of_some, speakers)[:1],
        )
    times = times_of(sizes, 1 if options.quick else 3, options.wall)
    for k in many[1:]:
        name = f"search: {120 * k} clips / {k} x 120 clips"
        found.append(ratio(name, times[str(k)], k * times["1"], 1.1, at_least=False))
    return found


def pooled():
    """Return a backbone that costs nothing beside a fit, and gives as many features."""
    import torch

    pool = torch.nn.AdaptiveAvgPool2d((10, 17))
    return torch.nn.Sequential(pool, torch.nn.Flatten()), 510


def frozen_ratios(options) -> list[Ratio]:
    """A search with a frozen ResNet-34, beside one that runs it in every step.

    Neither side is run in full (the second would take a day): steps, embeddings and fits are
    timed, and multiplied by how many of them 6 candidates x 5 folds x 50 epochs on 480 voices
    and 1,440 faces have.
    """
    import torch

    from skfdan.nn.backbones import embed, make_backbone
    from skfdan.preprocessing import _embedding_store

    torch.set_num_threads(1)
    network, _ = make_backbone("resnet34", None)
    network.eval().requires_grad_(False)
    batch = torch.randn(8, 3, 224, 224)

    def rerun():  # of one step, which has 32 + 32 images
        with torch.inference_mode():
            network(batch)

    def ours(bfloat16):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            embed(network, batch)

    sides = {"rerun": rerun, "ours": lambda: ours(False)}
    if has_bfloat16():
        sides["ours, embedded in bfloat16"] = lambda: ours(True)
    forward = times_of(sides, 5 if options.quick else 9, options.wall)
    # A fit of the search's size, four folds of five. What it reads is what a backbone gave, so
    # another one that gives as many numbers, and costs little, can stand in for the ResNet-34.
    rng = np.random.default_rng(0)
    faces = list(rng.integers(0, 256, (1440, 3, 112, 112), dtype=np.uint8))
    sound = list(rng.normal(size=(384, 128, 120)).astype(np.float32))
    y_vis, y_aud = (np.arange(n) % N_CLASSES for n in (1440, 384))

    def fit(epochs):
        clf = classifier(epochs, backbone=pooled, input_size=112, backbone_trainable=False)
        return clf.fit(faces, sound, y_vis=y_vis, y_aud=y_aud)

    _embedding_store.STORE.clear()
    fit(1)  # from now on the embeddings are there, as for all fits of a search but the first
    fits = times_of(
        {"1": lambda: fit(1), "6": lambda: fit(6)}, 5 if options.quick else 9, options.wall, False
    )
    n_fits, n_steps = 30, 30 * 50 * 12  # 12 steps an epoch
    step = (np.median(fits["6"]) - np.median(fits["1"])) / (5 * 12)
    fixed = float(np.median(fits["1"])) - 12 * step
    plain = n_steps * (forward["rerun"] / 8 * 64 + step)
    found = []
    for side in list(sides)[1:]:
        whole = forward[side] / 8 * 1920 + n_fits * fixed + n_steps * step
        found.append(
            ratio(
                f"GridSearchCV, 6 x 5, frozen ResNet-34: re-run in every step / {side} "
                "(extrapolated)",
                plain,
                whole,
                300 if side == "ours" else None,
                hours_plain=float(np.median(plain) / 3600),
                minutes_ours=float(np.median(whole) / 60),
                seconds_a_fit_beside_its_steps=fixed,
                milliseconds_a_step=1e3 * float(step),
            )
        )
    return found
