"""Run the notebooks NN_name.py and write what they show to NN_name.ipynb beside them.

    python examples/render.py                 # all
    python examples/render.py 01 06           # some
    python examples/render.py --check         # run nothing, say which are behind their source

The sources are Python files in percent format, which is what a person edits. A notebook is
run by this interpreter in an empty folder, so that it finds and leaves nothing, and is
refused if it fails, warns, or shows where it was run.
"""

import argparse
import base64
import io
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

EXAMPLES = Path(__file__).resolve().parent
LARGEST = 600_000  # bytes of a notebook

# One thread: the networks here are small, and a second thread costs them more than it gives.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    # Whether progress bars can be drawn as widgets is a matter of what is installed here.
    "PYTHONWARNINGS": "ignore:IProgress not found",
}

# All that a notebook says of the machine; no versions, so that a rendering changes only if
# what it shows does.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"},
}

# Notebooks that also run without real corpora, but whose rendering shows them.
REAL = {"03_other_peoples_faces": ("RAVDESS", "FER2013")}

# Paths that tell one machine from another, and addresses in memory.
PLACES = re.compile(
    r"(?<![\w<])(?:/(?:home|root|tmp|work|Users|private|var|opt|usr|mnt|srv|build)/"
    r"|[A-Z]:\\+\w)"
)
ADDRESS = re.compile(r" at 0x[0-9a-f]+(?=>)")


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels of the interpreter that runs this, whatever kernels are installed."""

    def __init__(self, **kwargs):
        # No folders to look for kernels in: ipykernel's own is what is left.
        super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **kwargs)


def find_sources(names=(), folder=EXAMPLES):
    """Return the sources of the notebooks that are named, or of all."""
    found = sorted(Path(folder).glob("[0-9][0-9]_*.py"))
    if not names:
        return found
    wanted = []
    for name in names:
        stem = Path(name).stem
        same = [source for source in found if stem in (source.stem, source.stem[:2])]
        if not same:
            raise SystemExit(f"no notebook {name}; there are: {', '.join(s.stem for s in found)}")
        wanted += same
    return wanted


def read_source(source):
    """Return a source as a notebook that has not been run."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.update(nbformat=4, nbformat_minor=5, metadata=nbformat.from_dict(METADATA))
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i:02d}"
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
    return notebook


def run(notebook, folder):
    """Run a notebook in a folder; what its cells show is put into them."""
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        kernel_manager_class=ThisInterpreter,
        # Without its word on unencrypted sockets, which stay on this machine.
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        timeout=600,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env={**os.environ, **ENVIRONMENT})
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
            shown = output.get("data", {})
            if "text/plain" in shown:
                shown["text/plain"] = ADDRESS.sub("", shown["text/plain"])
            if "image/png" in shown:
                shown["image/png"] = shrink(shown["image/png"])


def shrink(png):
    """Bring a picture (base64) to 256 colours, a third of the bytes; one with alpha stays."""
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    if "A" in picture.mode and picture.getchannel("A").getextrema()[0] < 255:
        return png
    palette = picture.convert("RGB").quantize(256, kmeans=1, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    palette.save(buffer, format="png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def cells_of(notebook):
    """Return what a source decides about a notebook: kind, text and tags of each cell."""
    return [
        (cell.cell_type, cell.source, list(cell.metadata.get("tags", ())))
        for cell in notebook.cells
    ]


def texts_of(output):
    """Return what an output says in words."""
    if output.output_type == "stream":
        return [output.text]
    if output.output_type == "error":
        return [output.ename, output.evalue, *output.traceback]
    return [
        value if isinstance(value, str) else json.dumps(value)
        for kind, value in output.data.items()
        if not kind.startswith("image/") or kind == "image/svg+xml"
    ]


def find_faults(notebook):
    """Say what a rendering must not have: cells that did not run, errors, warnings, paths."""
    faults = []
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        where = f"cell {i} ({cell.source.strip().splitlines()[0]!r})"
        if cell.execution_count is None:
            faults.append(f"{where} was not run")
        for output in cell.outputs:
            if output.output_type == "error":
                faults.append(f"{where} ends in {output.ename}: {output.evalue}")
            elif output.output_type == "stream" and output.name == "stderr":
                faults.append(f"{where} writes to stderr: {output.text.strip()[:300]}")
            for text in texts_of(output):
                if place := PLACES.search(text):
                    line = text[max(place.start() - 60, 0) : place.end() + 60]
                    faults.append(f"{where} shows where it was run: ...{line!r}...")
    size = len(nbformat.writes(notebook).encode())
    if size > LARGEST:
        faults.append(f"{size / 1e3:.0f} kB are more than {LARGEST / 1e3:.0f} kB")
    return faults


def render(source, out):
    """Run one source and write its notebook; return what is wrong with it."""
    notebook = read_source(source)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="notebook-", ignore_cleanup_errors=True) as folder:
        try:
            run(notebook, folder)
        except CellExecutionError as error:
            return [f"{error}"]
    seconds = time.perf_counter() - began
    if faults := find_faults(notebook):
        return faults
    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    target = Path(out) / f"{source.stem}.ipynb"
    target.write_text(text, encoding="utf-8")
    print(f"{target.name}: {seconds:.0f} s, {len(text.encode()) / 1e3:.0f} kB", flush=True)
    return []


def check(source):
    """Say what is wrong with the notebook beside a source, without running anything."""
    target = source.with_suffix(".ipynb")
    if not target.exists():
        return ["there is no rendering"]
    notebook = nbformat.read(target, as_version=4)
    behind = [] if cells_of(notebook) == cells_of(read_source(source)) else ["has other cells"]
    return behind + find_faults(notebook)


def main(arguments=None):
    """Render or check the notebooks; return 1 if any has a fault."""
    parser = argparse.ArgumentParser(description="Run the notebooks NN_name.py.")
    parser.add_argument("names", nargs="*", help="01 or 01_first_steps; all by default")
    parser.add_argument("--check", action="store_true", help="run nothing; compare with sources")
    parser.add_argument("--out", type=Path, default=EXAMPLES, help="where notebooks are written")
    chosen = parser.parse_args(arguments)
    failed = False
    for source in find_sources(chosen.names):
        missing = [name for name in REAL.get(source.stem, ()) if name not in os.environ]
        if missing and not chosen.check and chosen.out == EXAMPLES:
            print(f"{source.stem}: left as it is; set {' and '.join(missing)} to render it")
            continue
        faults = check(source) if chosen.check else render(source, chosen.out)
        for fault in faults:
            print(f"{source.stem}: {fault}", file=sys.stderr, flush=True)
        failed = failed or bool(faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
