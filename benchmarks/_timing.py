"""Two sides of a ratio, timed in turn in one process."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Ratio:
    """A ratio, its bound, and what it was computed from.

    ``bound`` is a lower bound if ``at_least``, else an upper one.
    """

    name: str
    median: float
    low: float
    high: float
    bound: float | None = None
    at_least: bool = True
    detail: dict[str, float | str] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the bound; None without one."""
        if self.bound is None:
            return None
        return self.median >= self.bound if self.at_least else self.median <= self.bound


def clock(wall: bool) -> Callable[[], float]:
    """Return the clock to use: CPU time of this process, or wall time."""
    return time.perf_counter if wall else time.process_time


#: Seconds that a sample should last, so that one of a short function is no single cold call,
#: and seconds of a first call that tell that the function is none.
_SAMPLE, _LONG = 0.02, 1.0


def times_of(
    sides: dict[str, Callable[[], object]], repeats: int, wall: bool = False, warm: bool = True
) -> dict[str, np.ndarray]:
    """Time functions in turn, A B C A B C ..., so that a busy moment meets all of them.

    As in timeit, a sample of a function that is too short for one is the mean of several calls.
    """
    now = clock(wall)

    def time_calls(run: Callable[[], object], n: int) -> float:
        start = now()
        for _ in range(n):
            run()
        return (now() - start) / n

    calls = dict.fromkeys(sides, 1)
    if warm:
        for name, run in sides.items():
            if time_calls(run, 1) < _LONG:
                calls[name] = math.ceil(_SAMPLE / max(time_calls(run, 1), 1e-6))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            times[name].append(time_calls(run, calls[name]))
    return {name: np.array(t) for name, t in times.items()}


def ratio(
    name: str,
    above: np.ndarray,
    below: np.ndarray,
    bound: float | None = None,
    at_least: bool = True,
    **detail,
) -> Ratio:
    """Divide paired times; the spread is that of the pairs, from quartile to quartile."""
    pairs = np.asarray(above) / np.asarray(below)
    low, median, high = np.percentile(pairs, [25, 50, 75])
    detail = {
        "seconds above": float(np.median(above)),
        "seconds below": float(np.median(below)),
    } | (detail)
    return Ratio(name, float(median), float(low), float(high), bound, at_least, detail=detail)


def machine() -> dict[str, str]:
    """Describe the machine and the libraries."""
    import importlib.metadata as metadata

    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
        model = names[0] if names else model
    except OSError:
        pass
    libraries = ("torch", "scikit-learn", "skorch", "numpy", "librosa", "av", "scikit-image")
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "load before": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "libraries": ", ".join(f"{name} {metadata.version(name)}" for name in libraries),
    }


def markdown(ratios: list[Ratio], facts: dict[str, str], clock_name: str) -> str:
    """Write the ratios as a table."""
    lines = [
        f"One thread, {clock_name}; median of paired ratios, quartiles in brackets.",
        "",
        *(f"- {key}: {value}" for key, value in facts.items()),
        "",
        "| ratio | measured | bound | |",
        "|---|---|---|---|",
    ]
    for r in ratios:
        bound = "" if r.bound is None else f"{'≥' if r.at_least else '≤'} {r.bound:g}"
        verdict = {True: "kept", False: "**missed**", None: ""}[r.met]
        value = f"{r.median:.3g} [{r.low:.3g}, {r.high:.3g}]"
        lines.append(f"| {r.name} | {value} | {bound} | {verdict} |")
    return "\n".join(lines) + "\n"
