"""Tamper with saved models in random ways: every one must be refused, cheaply.

    python tests/fuzz/tamper.py --count 200 --seed 0

What an attacker can do is done: check sums are recomputed wherever only they would have
noticed. A row of the table is a way of tampering: how often it was tried, how often the model
was refused with ModelError, and the most memory that a refusal took beyond what the process
had, in MiB.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import shutil
import struct
import sys
import tempfile
import tracemalloc
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from persistence import small_models as small
from sklearn.pipeline import make_pipeline

from skfdan.persistence import ModelError, load_pretrained, save_pretrained

MIB = 2**20
#: Beyond twice the files: a config.json of 2 MiB (the most there can be) as text and as Python
#: objects, and the working memory of the network's parts while they are described.
CONSTANT = 16 * MIB
CONFIG, WEIGHTS = "config.json", "model.safetensors"
PATHS = ("../../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "..", "C:\\Windows\\win.ini")
CLASSES = (
    "os.system",
    "subprocess.Popen",
    "eval",
    "torch.load",
    "SVC",
    "BaseEstimator",
    "builtins",
)
#: What running code would do; noted while a model is loaded.
EVENTS = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pickle.find_class"}
EVENTS |= {"socket.connect", "os.remove", "os.rename", "os.mkdir"}


def build(folder: Path) -> tuple[Path, Path]:
    """Save a pipeline of some 20 MiB, and another model."""
    pipeline = make_pipeline(
        small.prepare(), small.fdan(bottleneck=640, max_epochs=1, adaptation="dann")
    )
    X, y = small.TABLE[:8].assign(audio=small.waves()[:8]), small.Y[:8]
    save_pretrained(
        pipeline.fit(X, y), folder / "model", corpora="tones", y_true=y, y_pred=pipeline.predict(X)
    )
    other = make_pipeline(small.prepare(), small.fdan(bottleneck=16, max_epochs=1))
    save_pretrained(other.fit(X, y), folder / "other")
    return folder / "model", folder / "other"


# ---------------------------------------------------------------------- tools


def dump(config) -> bytes:
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def seal(folder: Path, config: dict) -> None:
    """Write a config with check sums that fit."""
    weights = (folder / WEIGHTS).read_bytes()
    if isinstance(config.get("weights"), dict):
        for key, value in (("sha256", hashlib.sha256(weights).hexdigest()), ("size", len(weights))):
            if key in config["weights"]:
                config["weights"][key] = value
    if "sha256" in config:
        unsigned = {k: v for k, v in config.items() if k != "sha256"}
        config["sha256"] = hashlib.sha256(dump(unsigned)).hexdigest()
    (folder / CONFIG).write_bytes(dump(config))


def read(folder: Path) -> dict:
    return json.loads((folder / CONFIG).read_text(encoding="utf-8"))


def places(value, path=()):
    """Every place below a value: its path and what is there."""
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*path, key), value[key]
            yield from places(value[key], (*path, key))


def put(config, path, value) -> None:
    for key in path[:-1]:
        config = config[key]
    config[path[-1]] = value


def pick(rng, options):
    options = list(options)
    return options[rng.integers(len(options))]


def split(folder: Path) -> tuple[dict, bytes]:
    """Return header and data of the weights."""
    raw = (folder / WEIGHTS).read_bytes()
    (n,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + n]), raw[8 + n :]


def join(folder: Path, header: dict | bytes, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data)
    seal(folder, read(folder))


def parameters(config):
    """The parameters of every estimator."""
    return [(p, v) for p, v in places(config) if len(p) > 1 and p[-2] == "params"]


# ---------------------------------------------------------------------- ways to tamper


def flip(name):
    def change(rng, folder, other):
        raw = bytearray((folder / name).read_bytes())
        raw[rng.integers(len(raw))] ^= 1 << rng.integers(8)
        (folder / name).write_bytes(raw)

    return change


def truncate(rng, folder, other):
    name = pick(rng, (CONFIG, WEIGHTS))
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw[: rng.integers(len(raw))])


def append(rng, folder, other):
    name = pick(rng, (CONFIG, WEIGHTS))
    (folder / name).write_bytes((folder / name).read_bytes() + rng.bytes(rng.integers(1, 99)))
    if rng.integers(2) and name == WEIGHTS:
        seal(folder, read(folder))


def remove_key(rng, folder, other):
    config = read(folder)
    path, _ = pick(rng, ((p, v) for p, v in places(config) if isinstance(p[-1], str)))
    where = config
    for key in path[:-1]:
        where = where[key]
    del where[path[-1]]
    seal(folder, config)


def add_key(rng, folder, other):
    config = read(folder)
    _, where = pick(rng, [((), config), *(p for p in places(config) if isinstance(p[1], dict))])
    where[pick(rng, ("extra", "@call", "__reduce__", "@omitted"))] = pick(rng, CLASSES)
    seal(folder, config)


def shape(rng, folder, other):
    header, data = split(folder)
    entry = pick(rng, (v for k, v in header.items() if k != "__metadata__" and v["shape"]))
    sizes = entry["shape"]
    way = rng.integers(4)
    if way == 0:
        sizes[rng.integers(len(sizes))] += 1
    elif way == 1:
        entry["shape"] = [1, *sizes]
    elif way == 2:
        entry["shape"] = sizes[::-1] if sizes != sizes[::-1] else [*sizes, 1]
    else:
        entry["dtype"] = "I32" if entry["dtype"] == "F32" else "F32"
    join(folder, header, data)


def huge_tensor(rng, folder, other):
    header, data = split(folder)
    entry = pick(rng, (v for k, v in header.items() if k != "__metadata__"))
    n = pick(rng, (2**33, 2**40, 2**61, 2**70, -1))
    way = rng.integers(4)
    if way == 0:
        entry["shape"] = [n]
    elif way == 1:
        entry["shape"] = [n, 0]
    elif way == 2:
        entry["data_offsets"][1] = n
    else:
        entry["shape"], entry["data_offsets"][1] = [n], entry["data_offsets"][0] + 4 * n
    join(folder, header, data)


def huge_header(rng, folder, other):
    if rng.integers(2):
        raw = (folder / WEIGHTS).read_bytes()
        n = pick(rng, (2**63, 2**40, len(raw), len(raw) - 8, 0))
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", n) + raw[8:])
        seal(folder, read(folder))
    else:
        join(folder, b'{"a":[' + b"[]," * (4 * MIB) + b"[]]}", b"")


def huge_parameter(rng, folder, other):
    config = read(folder)
    huge = {
        "bottleneck": (2**40, 2**63, 10**30),
        "n_layers": (10**9, 2, 0),
        "n_heads": (10**9, 3),
        "ffn_dim": (2**40, 1279),
        "input_size": (10**6,),
        "n_mels": (10**9,),
        "n_fft": (10**12,),
        "sample_rate": (10**12,),
        "duration": (1e12,),
        "size": (10**9,),
        "n_frames": (10**9,),
    }
    path, _ = pick(rng, (p for p in parameters(config) if p[0][-1] in huge))
    put(config, path, pick(rng, huge[path[-1]]))
    seal(folder, config)


def huge_config(rng, folder, other):
    config = read(folder)
    way = rng.integers(4)
    if way == 0:
        config["facts"]["corpora"] = [[]] * 40_000
    elif way == 1:
        config["model"]["params"]["steps"] = [{"a": 0}] * 16_000
    elif way == 2:
        config["facts"]["protocol"] = "\N{GRINNING FACE}" * (3 * MIB)
    else:
        config["facts"]["corpora"] = ["\N{GRINNING FACE}" * (MIB // 5)]
    seal(folder, config)


def huge_state(rng, folder, other):
    config = read(folder)
    wanted = {"epochs": 10**12, "n_features_in": 2**40, "n_features_in_": -1, "n_features": 2**50}
    wanted |= {"dtype": "<U9999", "epoch": False}
    path, _ = pick(rng, (p for p in places(config) if p[0][-1] in wanted))
    put(config, path, wanted[path[-1]])
    seal(folder, config)


def paths(rng, folder, other):
    config = read(folder)
    # Labels and names of steps and columns are free; what was trained on is prose.
    free = ("values", "names", "steps", "transformers", "corpora", "protocol", "label")

    def counts(path, value):
        named = [key for key in path if isinstance(key, str)]
        return isinstance(value, str) and named[-1] not in free

    path, _ = pick(rng, (p for p in places(config) if counts(*p)))
    text = pick(rng, PATHS)
    put(config, path, text)
    seal(folder, config)
    if path in (("sha256",), ("weights", "sha256")):  # sealing has mended these
        raw = json.loads((folder / CONFIG).read_text())
        put(raw, path, text)
        (folder / CONFIG).write_bytes(dump(raw))


def path_parameter(rng, folder, other):
    config = read(folder)
    path, _ = pick(rng, parameters(config))
    put(config, path, pick(rng, PATHS))
    seal(folder, config)


def wrong_type(rng, folder, other):
    config = read(folder)
    path, value = pick(
        rng, ((p, v) for p, v in places(config) if v is not None and p[-1] != "sha256")
    )
    if isinstance(value, (dict, list)):
        put(config, path, pick(rng, (7, "seven", True)))
    else:
        put(config, path, pick(rng, ({"x": 1}, [{}], {"@tuple": [{"x": "y"}]})))
    seal(folder, config)
    if path in (("weights",), ("weights", "size")):
        raw = read(folder)
        raw["weights"] = "seven"
        seal(folder, raw)


def unknown_class(rng, folder, other):
    config = read(folder)
    keys = ("class", "@optimizer", "@input", "@ndarray", "kind")
    path, _ = pick(rng, (p for p in places(config) if p[0][-1] in keys))
    put(config, path, pick(rng, CLASSES))
    seal(folder, config)


def planted_code(rng, folder, other):
    config = read(folder)
    payload = "cos\nsystem\n(S'touch /tmp/owned'\ntR."
    path, _ = pick(rng, parameters(config))
    tag = pick(rng, ("@pickle", "@object", "py/object", "@estimator", "@callable", "$ref"))
    planted = pick(
        rng, ({tag: payload}, {tag: "os.system", "args": ["true"]}, {tag: {"class": "eval"}})
    )
    put(config, path, planted)
    seal(folder, config)


def planted_tensor(rng, folder, other):
    header, data = split(folder)
    payload = b"\x80\x04cos\nsystem\n."
    name = pick(rng, ("fdanclassifier.module.__reduce__", "extra", "fdanclassifier.state.x", ""))
    header[name] = {
        "dtype": "U8",
        "shape": [len(payload)],
        "data_offsets": [len(data), len(data) + len(payload)],
    }
    join(folder, header, data + payload)


def deep(rng, folder, other):
    depth = int(pick(rng, (40, 500, 20_000, 400_000)))
    if depth < 1000:
        config = read(folder)
        value = "deep"
        for _ in range(depth):
            value = {"@tuple": [value]} if rng.integers(2) else [value]
        path, _ = pick(rng, parameters(config))
        put(config, path, value)
        seal(folder, config)
    else:
        (folder / CONFIG).write_bytes(b"[" * depth if rng.integers(2) else b'{"a":' * depth)


def other_weights(rng, folder, other):
    shutil.copyfile(other / WEIGHTS, folder / WEIGHTS)
    if rng.integers(2):
        seal(folder, read(folder))


def other_config(rng, folder, other):
    shutil.copyfile(other / CONFIG, folder / CONFIG)
    if rng.integers(2):
        seal(folder, read(folder))


def link(rng, folder, other):
    name = pick(rng, (CONFIG, WEIGHTS))
    (folder / name).unlink()
    way = rng.integers(3)
    if way == 2:
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to(folder.parent / "model" / name if way else "/dev/zero")


def missing(rng, folder, other):
    (folder / pick(rng, (CONFIG, WEIGHTS))).unlink()


def later_version(rng, folder, other):
    config = read(folder)
    config["version"] = pick(rng, (2, 99, 0, -1, 1.0, "1", True, None))
    seal(folder, config)


def not_finite(rng, folder, other):
    header, data = split(folder)
    floats = [v for k, v in header.items() if k != "__metadata__" and v["dtype"] == "F32"]
    start, stop = pick(rng, floats)["data_offsets"]
    at = start + 4 * rng.integers((stop - start) // 4)
    value = struct.pack("<f", pick(rng, (float("nan"), float("inf"), -float("inf"))))
    join(folder, header, data[:at] + value + data[at + 4 :])


WAYS = {
    "a byte of config.json flipped": flip(CONFIG),
    "a byte of model.safetensors flipped": flip(WEIGHTS),
    "truncated": truncate,
    "bytes appended": append,
    "key removed*": remove_key,
    "key added*": add_key,
    "shape or type of a tensor changed*": shape,
    "huge tensor announced*": huge_tensor,
    "huge header*": huge_header,
    "huge parameter*": huge_parameter,
    "huge config.json*": huge_config,
    "huge state*": huge_state,
    "a path in a string*": paths,
    "a path as a parameter*": path_parameter,
    "wrong type*": wrong_type,
    "unknown class*": unknown_class,
    "planted code*": planted_code,
    "planted tensor*": planted_tensor,
    "deep nesting*": deep,
    "weights of another model": other_weights,
    "config of another model": other_config,
    "link or pipe": link,
    "file missing": missing,
    "another version of the format*": later_version,
    "NaN or infinite weight*": not_finite,
}

# ---------------------------------------------------------------------- the experiment


class Memory:
    """The most memory that a block takes: resident or reserved; where /proc is not, Python's."""

    def __enter__(self):
        self._linux = os.access("/proc/self/clear_refs", os.W_OK)
        if self._linux:
            libc = ctypes.CDLL(None)
            if hasattr(libc, "mallopt"):
                # Large blocks on their own (M_MMAP_THRESHOLD), and nothing kept for later:
                # what is used again would not be seen.
                libc.mallopt(-3, MIB)
                libc.malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
            self._before = self._status()
        else:
            tracemalloc.start()
        return self

    def __exit__(self, *error):
        if not self._linux:
            self.peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return
        after, before = self._status(), self._before
        self.peak = after["VmHWM"] - before["VmRSS"]
        if after["VmPeak"] > before["VmPeak"]:
            self.peak = max(self.peak, after["VmPeak"] - before["VmSize"])

    @staticmethod
    def _status() -> dict[str, int]:
        lines = Path("/proc/self/status").read_text().splitlines()
        pairs = (line.split(":", 1) for line in lines if line.startswith("Vm"))
        return {key: 1024 * int(value.split()[0]) for key, value in pairs}


class Watch:
    """Notes what a block does that loading a model never has to."""

    current: list | None = None
    hooked = False

    def __enter__(self):
        if not Watch.hooked:
            sys.addaudithook(Watch._note)
            Watch.hooked = True
        self.seen = Watch.current = []
        return self

    def __exit__(self, *error):
        Watch.current = None

    @staticmethod
    def _note(event, args):
        if Watch.current is not None and (
            event in EVENTS or (event == "open" and "passwd" in str(args[0]))
        ):
            Watch.current.append((event, str(args)[:100]))


def tamper(model: Path, other: Path, count: int, seed: int) -> list[dict]:
    """Tamper ``count`` times, every way in turn; return one result each."""
    rng = np.random.default_rng(seed)
    load_pretrained(model)  # untouched it is fine, and everything is imported
    load_pretrained(model)
    results = []
    for i in range(count):
        way = list(WAYS)[i % len(WAYS)]
        folder = model.parent / f"tampered-{i}"
        folder.mkdir()
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(model / name, folder / name)
        WAYS[way](rng, folder, other)
        size = sum(f.stat().st_size for f in folder.iterdir() if f.is_file() and not f.is_symlink())
        outcome = "loaded"
        with Memory() as memory, Watch() as watch:
            try:
                load_pretrained(folder)
            except ModelError as error:
                outcome, message = "refused", str(error)
            except Exception as error:
                outcome, message = type(error).__name__, str(error)
            else:
                message = ""
        results.append(
            {
                "way": way,
                "outcome": outcome,
                "message": message,
                "folder": folder,
                "peak": memory.peak,
                "bound": 2 * size + CONSTANT,
                "seen": watch.seen,
            }
        )
        if outcome == "refused":
            shutil.rmtree(folder)
    return results


def table(results: list[dict]) -> str:
    lines = [f"{'way (* check sums recomputed)':38} tried refused  most MiB"]
    for way in WAYS:
        mine = [r for r in results if r["way"] == way]
        if mine:
            refused = sum(r["outcome"] == "refused" for r in mine)
            most = max(r["peak"] for r in mine) / MIB
            lines.append(f"{way:38} {len(mine):5} {refused:7} {most:9.1f}")
    return "\n".join(lines)


def failures(results: list[dict]) -> list[dict]:
    """Results that are not a cheap refusal without side effects that names the folder."""
    return [
        r
        for r in results
        if r["outcome"] != "refused"
        or r["peak"] > r["bound"]
        or r["seen"]
        or str(r["folder"]) not in r["message"]
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--messages", action="store_true", help="print every refusal")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model, other = build(Path(scratch))
        size = (model / WEIGHTS).stat().st_size / MIB
        results = tamper(model, other, args.count, args.seed)
    print(f"{args.count} tampered copies of a model of {size:.1f} MiB, seed {args.seed}")
    print(table(results))
    if args.messages:
        for r in results:
            print(f"{r['way']}: {r['message']}")
    bad = failures(results)
    for r in bad:
        print({k: str(v) for k, v in r.items()})
    print(f"{len(bad)} failures")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
