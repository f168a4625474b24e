"""Print the tables of the FDAN, FDRL and WavFusion papers: our numbers beside the published.

For example, in a setting for two CPU cores:

    python benchmarks/run.py --corpus ravdess --root RAVDESS --faces fer2013:fer2013.csv \
        --table 4 --table questions --quick --out benchmark-output

See benchmarks/README.md. Finished work is kept in the output folder; the same command
goes on from there.
"""

from __future__ import annotations

import os

# Small networks on a machine with other work: with several threads a process, the
# processes wait for each other, and a fit takes many times as long. Before numpy and torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import shlex
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import _cells
import _corpora
import _figures
import _methods
import _plan
import _report
import _setting
import numpy as np


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="The tables of the papers on a corpus of yours.",
        epilog="Without --quick: the paper's setting (ResNet-34, ImageNet weights, 300 epochs).",
    )
    add = parser.add_argument
    add("--corpus", required=True, help=f"whose voices: {', '.join(_corpora.VOICES)}")
    add("--root", help="folder of the corpus")
    add(
        "--faces",
        action="append",
        default=[],
        metavar="CORPUS:PATH",
        help="faces of another corpus, such as fer2013:fer2013.csv; may be repeated",
    )
    add(
        "--table",
        action="append",
        help=f"which table: {', '.join(_methods.TABLES)}; may be repeated (default: 1-4)",
    )
    add(
        "--protocol",
        action="append",
        help=f"{', '.join(_plan.CHOICES)}; may be repeated (default: both, paper and disjoint)",
    )
    add("--estimators", nargs="+", metavar="NAME", help="only these rows")
    add("--folds", type=int, help="folds or draws (default: 5, quick 3)")
    add("--seeds", type=int, help="seeds per fold (default: 3, quick 2)")
    add("--backbone", help="of the FDAN-like rows (default: resnet34, quick cnn)")
    add("--weights", help="DEFAULT (ImageNet), none or a path (default: DEFAULT, quick none)")
    add("--epochs", type=int, help="training epochs (default: 300, quick 30)")
    add(
        "--speech-model",
        metavar="MODEL",
        help="of --table fdrl and wavfusion: a folder or bundle (default: WAV2VEC2_BASE)",
    )
    add(
        "--text-model",
        metavar="MODEL",
        help="of these tables: a folder or name (default: bert-base-uncased, roberta-base)",
    )
    add(
        "--face-model",
        metavar="NAME",
        help="of these tables: a network of torchvision (default: efficientnet_b0); its weights "
        "are --weights",
    )
    add("--input-size", type=int, help="side in pixels (default: 224, quick 48)")
    add("--lr", type=float, help="learning rate (default: 0.001, quick 0.01)")
    add("--momentum", type=float, help="of SGD (default: 0.99, quick 0.9)")
    add(
        "--out",
        type=Path,
        default=Path("benchmark-output"),
        help="output folder (default: benchmark-output)",
    )
    add("--cache", type=Path, help="folder of decoded files (default: OUT/cache)")
    add("--n-jobs", type=int, default=1, help="cells at the same time, one thread each")
    add(
        "--dask",
        metavar="ADDRESS",
        help="run the cells on a Dask cluster (host:port of its scheduler), or on --n-jobs local "
        "workers (local); corpus, --cache and --out must have the same paths on every worker",
    )
    add(
        "--report-only",
        action="store_true",
        help="fit nothing: write the tables of the cells that are finished",
    )
    add("--quick", action="store_true", help="a reduced setting, the same for all rows")
    return parser.parse_args(argv)


def read_setting(args: argparse.Namespace, companion: str = "") -> _setting.Setting:
    base = _setting.QUICK if args.quick else _setting.PAPER
    if companion and not args.quick:
        base = replace(base, epochs=_setting.COMPANION_EPOCHS)
    names = ("folds", "seeds", "backbone", "weights", "epochs", "input_size", "lr", "momentum")
    models = ("speech_model", "text_model", "face_model")
    for name in models:
        if getattr(args, name) is not None and not companion:
            raise ValueError(f"--{name.replace('_', '-')} is of --table fdrl and wavfusion alone.")
    names = (*names, *models)
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if str(given.get("weights")).lower() == "none":
        given["weights"] = None
    for name in ("folds", "seeds", "epochs", "input_size"):
        if given.get(name, 1) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {given[name]} must be at least 1.")
    if args.n_jobs < 1:
        raise ValueError(f"--n-jobs {args.n_jobs} must be at least 1.")
    return replace(base, **given)


def claim(out: Path, corpus: str) -> None:
    """Refuse a folder that holds the results of another corpus."""
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"--out {str(out)!r} is a file; give a folder.")
    note = out / "run.json"
    if note.exists():
        there = json.loads(note.read_text(encoding="utf-8"))["corpus"]
        if there != corpus:
            raise ValueError(
                f"--out {str(out)!r} holds results on {there}, not on {corpus}; give another "
                "folder."
            )
    _cells.write_json(note, {"corpus": corpus})


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        return run(args, sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        print(
            f"\nInterrupted. Finished cells are in {args.out / 'cells'}; "
            "the same command goes on from there.",
            file=sys.stderr,
        )
        return 130
    except (ValueError, FileNotFoundError, NotADirectoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace, argv: list[str]) -> int:
    began = time.perf_counter()
    tables = list(dict.fromkeys(args.table or ["1", "2", "3", "4"]))
    _methods.check_tables(tables)
    companion = _corpora.check_companion(tables, args.corpus, args.faces)
    sources = _corpora.check_source(args.corpus, args.root, args.faces)
    _methods.check_estimators(args.estimators)
    names = _plan.protocols_of(args.protocol, args.corpus, companion)
    setting = read_setting(args, companion)
    out = args.out if args.dask is None else args.out.absolute()
    claim(out, f"{args.corpus}, table {companion}" if companion else args.corpus)
    cache = str((args.cache or out / "cache").absolute())
    source = _corpora.Source(
        args.corpus,
        args.root,
        sources,
        setting.face_size,
        cache,
        companion,
        n_frames=3 if setting.quick else 8,
    )
    corpus = _corpora.load(source)
    print(_summary(corpus), flush=True)

    protocols = [_plan.named_protocol(corpus, name, setting.folds) for name in names]
    splits = [s for protocol in protocols for s in _plan.make_splits(corpus, protocol, out)]
    for note in (said := _fold_notes(corpus, splits)):
        print(note, flush=True)
    plans = {
        table: _plan.plan_lines(corpus, source, setting, splits, table, args.estimators)
        for table in tables
    }
    plans = {table: lines for table, lines in plans.items() if lines}
    if not plans:
        raise ValueError(
            f"None of the rows {', '.join(args.estimators or [])} is in a table asked for "
            f"({', '.join(tables)}), or Table 3 has no faces."
        )
    lines = [line for table in plans.values() for line in table]
    with ExitStack() as stack:
        n_jobs = 0 if args.report_only else _workers(args, stack)
        failed = _run_stage([c for line in lines for c in _first(line)], out, n_jobs)
        selecting = [line for line in lines if line.candidates]
        for line in selecting:
            _plan.choose(line, corpus, source, setting, splits, out, failed)
        failed |= _run_stage([c for line in selecting for c in _final(line)], out, n_jobs)

    header = _header(args, argv, setting, corpus, protocols, splits, said, lines, began)
    print()
    for i, (table, planned) in enumerate(plans.items()):
        report = _report.build(table, planned, names, args.corpus, out)
        own = _origins(planned, out)
        text = _report.markdown(table, report, [*header, *own])
        (out / f"table_{table}.md").write_text(text, encoding="utf-8")
        _report.write_csv(out / f"table_{table}.csv", report.records)
        # On the screen, what holds for all tables is said once.
        print(_report.markdown(table, report, [*([] if i else header), *own]))
    _report.write_csv(out / "results.csv", _report.result_records(out))
    _draw(lines, names, corpus.title, out)
    print(f"Written: {', '.join(sorted(p.name for p in out.iterdir() if p.is_file()))} in {out}")
    for cell, problem in failed.items():
        print(f"failed: {cell}: {problem}", file=sys.stderr)
    return 1 if failed else 0


def _workers(args: argparse.Namespace, stack: ExitStack) -> int:
    """Return how many cells to run at once; with --dask, let joblib send them to the cluster."""
    if args.dask is None:
        return args.n_jobs
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError:
        raise ValueError('--dask needs Dask: pip install "skfdan[dask]".') from None
    from joblib import parallel_config

    where = args.dask
    if where == "local":
        where = stack.enter_context(
            LocalCluster(
                n_workers=args.n_jobs, threads_per_worker=1, dashboard_address="127.0.0.1:0"
            )
        )
    try:
        client = stack.enter_context(Client(where))
    except OSError as error:
        raise ValueError(f"--dask {args.dask}: no scheduler answers there ({error}).") from None
    threads = client.nthreads()
    if not threads or max(threads.values()) > 1:
        # Two fits in one process would draw from the same generator of torch.
        raise ValueError(
            f"--dask {args.dask}: {len(threads)} workers of {max(threads.values(), default=0)} "
            "threads; start some of one thread each (dask worker --nworkers -1 --nthreads 1)."
        )
    for file in sorted(Path(__file__).resolve().parent.glob("_*.py")):
        client.upload_file(str(file), load=False)  # to workers that come later, too
    stack.enter_context(parallel_config(backend="dask"))
    return max(2, len(threads))  # one alone would run here


def _first(line: _plan.Line) -> list[_cells.Cell]:
    """What can run at once: candidates of a choice, or the cells themselves."""
    return [c for cells in (line.candidates or line.cells).values() for c in cells]


def _final(line: _plan.Line) -> list[_cells.Cell]:
    return [c for cells in line.cells.values() for c in cells]


def _run_stage(cells: list[_cells.Cell], out: Path, n_jobs: int) -> dict[str, str]:
    def report(text: str) -> None:
        print(text, flush=True)

    return _cells.run_cells(cells, out, n_jobs, report) if cells and n_jobs else {}


def _summary(corpus: _corpora.Corpus) -> str:
    heard = corpus.heard
    speakers = len(set(corpus.groups[heard])) if corpus.speakers_known else "unknown"
    if "text" in corpus.table:
        seen = corpus.table["visual"].notna().sum()
        return (
            f"{corpus.title}: {heard.sum()} utterances with voice and words of "
            f"{speakers} speakers; {seen or 'no'} faces read; "
            f"{len(corpus.classes)} emotions ({', '.join(corpus.classes)})"
        )
    faces = [
        f"{(corpus.origin == name).sum()} faces of {corpus.face_title(name)}"
        for name in dict.fromkeys(corpus.origin[~heard])
    ]
    return (
        f"{corpus.title}: {heard.sum()} voices of {speakers} speakers; "
        f"{', '.join(faces) or 'no faces'}; {len(corpus.classes)} emotions "
        f"({', '.join(corpus.classes)})"
    )


def _fold_notes(corpus: _corpora.Corpus, splits: list[_plan.Split]) -> list[str]:
    """Say what is peculiar about the folds: emotions not tested, faces left out, twins."""
    notes = []
    doubled = corpus.doubled()
    twins = {}
    for protocol in dict.fromkeys(split.protocol for split in splits):
        folds = [split for split in splits if split.protocol == protocol]
        for split in folds:
            lacking = np.setdiff1d(corpus.classes, corpus.y[split.test])
            if len(lacking):
                notes.append(
                    f"Protocol {protocol}, fold {split.fold}: no voice of {', '.join(lacking)} is "
                    f"tested, so its scores are over {len(corpus.classes) - len(lacking)} of "
                    f"{len(corpus.classes)} emotions."
                )
        for origin in dict.fromkeys(corpus.origin[~corpus.heard]):
            of_it = corpus.origin == origin
            train = [int(of_it[split.train].sum()) for split in folds]
            if min(train) < of_it.sum():
                notes.append(
                    f"Protocol {protocol}: of {of_it.sum()} faces of {corpus.face_title(origin)}, "
                    f"{', '.join(map(str, train))} train in the folds."
                )
        apart = [
            any(np.isin(rows, s.test).any() and np.isin(rows, s.train).any() for rows in doubled)
            for s in folds
        ]
        twins[protocol] = f"{sum(apart)} of {len(folds)} folds of protocol {protocol}"
    if doubled:
        notes.append(
            f"Recordings that several voices hold, byte by byte: {len(doubled)}. A twin of a test "
            f"voice trains in {' and '.join(twins.values())}."
        )
    return notes


def _origins(lines: list[_plan.Line], out: Path) -> list[str]:
    """Say if the cells of a table come from several machines or states of the code."""
    cells = [c for line in lines for c in [*_first(line), *_final(line)]]
    records = [r for r in (_cells.read_cell(c, out) for c in cells) if r]
    machines = {r["machine"] for r in records}
    versions = {json.dumps(r["versions"], sort_keys=True) for r in records}
    if max(len(machines), len(versions)) < 2:
        return []
    return [
        f"The cells of this table are not of one origin (machines: {len(machines)}, states of "
        f"skfdan and its libraries: {len(versions)}; sources is the hash of skfdan's modules): "
        "differences between its rows may come from that."
    ]


def _header(args, argv, setting, corpus, protocols, splits, said, lines, began) -> list[str]:
    _, counts = np.unique(corpus.y[corpus.heard], return_counts=True)
    cells = {c.key: c for line in lines for c in [*_first(line), *_final(line)]}
    records = [r for r in (_cells.read_cell(c, args.out) for c in cells.values()) if r]
    spent = sum(r["fit_s"] + r["predict_s"] for r in records)
    machines = dict.fromkeys(r["machine"] for r in records)
    used = dict.fromkeys(", ".join(f"{k} {v}" for k, v in r["versions"].items()) for r in records)
    folds = {p.name: [len(s.test) for s in splits if s.protocol == p.name] for p in protocols}
    companion = "text" in corpus.table
    seen = [line.faces for line in lines if len(line.faces) == 1 and not line.problem]
    return [
        _summary(corpus) + ".",
        *(
            []
            if companion
            else [
                "Faces that train in all tables but Table 3: "
                + (corpus.face_title(seen[0][0]) if seen else "none")
                + "."
            ]
        ),
        *corpus.notes,
        f"Chance: UAR {100 / len(counts):.1f} %; WAR of always the most frequent emotion "
        f"{100 * counts.max() / counts.sum():.1f} %.",
        "All numbers in percent. Ours: mean ± population standard deviation (over n, not n - 1) of "
        "the n runs, folds x seeds; the folds overlap in what they train on, so the deviation is "
        "no standard error.",
        *(
            f"Protocol {p.name}: {p.description} Folds: {len(folds[p.name])}, of "
            f"{min(folds[p.name])} to {max(folds[p.name])} test voices."
            for p in protocols
        ),
        *said,
        "Nothing was selected on test rows: the last epoch counts, there is no early stopping, and "
        "where a row chooses a parameter it does so on a part of its training rows.",
        f"Seeds per fold: {setting.seeds}. Setting of every network"
        f"{' (--quick, not the paper’s)' if setting.quick else ''}: {setting.epochs} epochs, "
        + (_companion_setting(setting, lines) if companion else _network_setting(setting)),
        "Command: `python benchmarks/run.py "
        f"{shlex.join(a for a in argv if a != '--report-only')}`",
        f"{len(records)} of {len(cells)} cells finished, {spent / 60:.1f} min of fitting and "
        f"predicting; this call took {(time.perf_counter() - began) / 60:.1f} min.",
        f"Machine: {'; '.join(machines) or '-'}. Versions: {'; '.join(used) or '-'}.",
    ]


def _network_setting(setting: _setting.Setting) -> str:
    return (
        f"input {setting.input_size} px, weights {setting.weights or 'random'}, lr {setting.lr}, "
        f"momentum {setting.momentum}, backbone {setting.backbone} where the row does not name "
        f"one, {setting.n_mels} Mel bands; methods whose optimiser is published keep it."
    )


def _companion_setting(setting: _setting.Setting, lines: list[_plan.Line]) -> str:
    """Say which frozen networks were read, as the cells name them."""
    used: dict[str, dict] = {}
    for cell in (c for line in lines for c in _final(line)):
        for modality, front_end in cell.spec["front_end"].items():
            name = front_end["model"]
            if modality == "visual":
                name += f" (weights {front_end['weights'] or 'random'})"
            used.setdefault(modality, {})[name] = None
    read = "; ".join(f"{modality} {', '.join(names)}" for modality, names in used.items())
    return (
        "optimiser and learning rate each classifier's own; embeddings of frozen networks: "
        f"{read or 'none'}."
    )


def _draw(lines: list[_plan.Line], names: list[str], corpus: str, out: Path) -> None:
    """Figures 4 and 5 of FDAN, if it is among the rows."""
    line = next((x for x in lines if x.row.method == "FDAN" and x.row.variant == "bank"), None)
    if line is None:
        return
    try:
        _figures.confusion(line, names, corpus, out / "fig4_confusion.png", out)
        _figures.features(line, names, corpus, out / "fig5_tsne.png", out)
    except ImportError as error:
        print(f"No figures: {error}. pip install matplotlib, and run the command again.")


if __name__ == "__main__":
    sys.exit(main())
