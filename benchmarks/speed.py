"""What this package costs, beside what the same work costs done plainly.

    python benchmarks/speed.py --quick            # a few minutes
    python benchmarks/speed.py --only lmmd head   # some parts
    python benchmarks/speed.py --out speed        # speed.md and speed.json

Every ratio is of two sides that ran in turn in this process, on one thread and by CPU time
unless ``--wall`` is given. The plain sides are written here from the published formulas, and
checked to give the same values.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

# Before the libraries that read them are imported.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
# Bytecode is kept, as where people work: else each new process compiles all it imports, which
# takes longer than the imports that are measured.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

from _speed_cuda import cuda_ratios  # noqa: E402
from _speed_frontends import face_ratios, import_ratios, mel_ratios, video_ratios  # noqa: E402
from _speed_losses import lmmd_ratios  # noqa: E402
from _speed_training import (  # noqa: E402
    backbone_ratios,
    frozen_ratios,
    head_ratios,
    search_ratios,
)
from _timing import Ratio, machine, markdown  # noqa: E402

PARTS = {
    "lmmd": lmmd_ratios,
    "backbone": backbone_ratios,
    "frozen": frozen_ratios,
    "head": head_ratios,
    "search": search_ratios,
    "mel": mel_ratios,
    "video": video_ratios,
    "faces": face_ratios,
    "imports": import_ratios,
    "cuda": cuda_ratios,
}


def main(argv=None) -> int:
    """Measure, print a table, and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, in minutes")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--wall", action="store_true", help="wall time in the place of CPU time")
    parser.add_argument("--clips", type=Path, help="folder of mp4 files with faces")
    parser.add_argument("--out", type=Path, help="write OUT.md and OUT.json")
    options = parser.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    facts = machine() | {
        "command": " ".join(["python benchmarks/speed.py", *(argv or sys.argv[1:])])
    }
    ratios: list[Ratio] = []
    for part in options.only:
        print(f"{part} ...", file=sys.stderr, flush=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ratios += PARTS[part](options)
    text = markdown(ratios, facts, "wall time" if options.wall else "CPU time")
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".md").write_text(text)
        report = {"machine": facts, "ratios": [asdict(r) | {"met": r.met} for r in ratios]}
        options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    missed = [r.name for r in ratios if r.met is False]
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
