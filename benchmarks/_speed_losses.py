"""Speed of the adaptation losses."""

from __future__ import annotations

import sys
from pathlib import Path

from _timing import Ratio, ratio, times_of

N_CLASSES = 7


def broadcast_lmmd(z_v, z_a, y_v, y_a, n_classes):
    """Eq. 8 as the DSAN code does it: all (n, n, d) differences, one exponential a kernel."""
    import torch
    from torch.nn.functional import one_hot

    z = torch.cat([z_v, z_a])
    n = len(z)
    distance = ((z[None, :, :] - z[:, None, :]) ** 2).sum(2)
    bandwidth = distance.detach().sum() / (n * n - n)
    kernel = sum(torch.exp(-distance / (bandwidth * 2.0**q)) for q in range(-2, 3))
    w_v, w_a = (one_hot(y, n_classes).to(z.dtype) for y in (y_v, y_a))
    shared = (w_v.sum(0) > 0) & (w_a.sum(0) > 0)  # what one side lacks adds nothing
    w = torch.cat([w_v[:, shared] / w_v[:, shared].sum(0), -w_a[:, shared] / w_a[:, shared].sum(0)])
    return ((w @ w.T) * kernel).sum() / n_classes


def _features(n, d=256, dtype=None):
    import torch

    g = torch.Generator().manual_seed(0)
    y = torch.arange(n) % N_CLASSES
    z_v, z_a = (torch.randn(n, d, generator=g, dtype=dtype) + shift for shift in (0.0, 0.3))
    return z_v.requires_grad_(), z_a.requires_grad_(), y, y


def _step(loss, features):
    features[0].grad = features[1].grad = None
    loss(*features, N_CLASSES).backward()
    return features[0].grad


def lmmd_ratios(options) -> list[Ratio]:
    """LMMD, forward and backward."""
    import torch

    from skfdan.nn import lmmd

    exact = _features(40, 16, torch.float64)
    difference = (_step(lmmd, exact) - _step(broadcast_lmmd, exact)).abs().max()
    assert difference < 1e-10, f"the two sides differ by {difference}"
    found = []
    for n, repeats, bound, of_limit in (
        (32, 40, 6, None),
        (128, 5 if options.quick else 10, 100, None),
        (512, 1 if options.quick else 3, 180, 1.7),
        (2048, 1 if options.quick else 3, None, 1.3),
    ):
        features = _features(n)
        sides = {"ours": lambda f=features: _step(lmmd, f)}
        if bound is not None:
            sides["plain"] = lambda f=features: _step(broadcast_lmmd, f)
        times = times_of(sides, repeats, options.wall)
        if bound is not None:
            name = f"LMMD forward+backward, n = {n}: broadcast / ours"
            found.append(ratio(name, times["plain"], times["ours"], bound))
        if of_limit is not None:
            z, g = torch.cat(features[:2]).detach(), torch.randn(2 * n, 2 * n)
            times = times_of(
                {"ours": sides["ours"], "limit": lambda z=z, g=g: (z @ z.T, g @ z)},
                3 if options.quick else 7,
                options.wall,
            )
            name = f"LMMD forward+backward, n = {n}: ours / two matrix products"
            found.append(ratio(name, times["ours"], times["limit"], of_limit, at_least=False))
    peaks = {side: _peak(side) for side in ("ours", "plain")}
    found.append(
        Ratio(
            "LMMD at n = 512, peak memory: ours / broadcast",
            *[peaks["ours"] / peaks["plain"]] * 3,
            bound=0.01,
            at_least=False,
            detail={f"MiB {side}": peak / 2**20 for side, peak in peaks.items()},
        )
    )
    return found


def _peak(side: str) -> float:
    """Return the bytes that one step takes at its peak, in a process of its own."""
    import subprocess

    code = (
        f"import re, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import torch, _speed_losses as speed; from skfdan.nn import lmmd\n"
        "torch.set_num_threads(1)\n"
        "def peak():\n"
        "    status = open('/proc/self/status').read()\n"
        "    return int(re.search(r'VmHWM:\\s+(\\d+)', status)[1])\n"
        f"loss = {'lmmd' if side == 'ours' else 'speed.broadcast_lmmd'}\n"
        "speed._step(loss, speed._features(8)); f = speed._features(512)\n"
        "before = peak(); speed._step(loss, f); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # The system counts in pages: what fits into memory freed before shows as nothing.
    return max(1024.0 * int(done.stdout), 2**16)
