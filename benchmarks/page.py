"""Write docs/benchmarks.md from benchmarks/results; run it after results have changed.

A folder of results holds what ``run.py`` wrote there, and ``findings.md``, written
by hand: what was asked, and what the numbers say.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
TABLES = ("questions", "4", "adaptation", "1", "2", "3", "fdrl", "wavfusion")
FIGURES = {
    "fig4_confusion.png": "Confusion matrices of FDAN, as the paper's Fig. 4",
    "fig5_tsne.png": "t-SNE of FDAN's features of both modalities, as the paper's Fig. 5",
}


def page(results: Path = RESULTS) -> str:
    """Return the text of the page."""
    parts = [
        "# Results",
        "Made from `benchmarks/results` by `benchmarks/page.py`. How they are computed, and how "
        "to run them on your copy of a corpus: [benchmarks/README.md](../benchmarks/README.md).",
    ]
    for folder in sorted(p for p in results.iterdir() if p.is_dir()):
        findings = (folder / "findings.md").read_text(encoding="utf-8").strip()
        # Its links are from where it lies.
        parts.append(findings.replace("](../../../docs/", "]("))
        for name in TABLES:
            table = folder / f"table_{name}.md"
            if table.exists():
                parts.append(_deeper(table.read_text(encoding="utf-8").strip()))
        for name, caption in FIGURES.items():
            if (folder / name).exists():
                path = Path(os.path.relpath(folder / name, PAGE.parent)).as_posix()
                parts.append(f"{caption}:\n\n![{caption}]({path})")
    return "\n\n".join(parts) + "\n"


def _deeper(text: str) -> str:
    """Put every heading two levels down, below that of its folder."""
    return "\n".join(f"##{line}" if line.startswith("#") else line for line in text.split("\n"))


def main() -> None:
    """Write the page, or say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail if the page is out of date")
    if parser.parse_args().check:
        if PAGE.read_text(encoding="utf-8") != page():
            raise SystemExit(f"{PAGE.name} is out of date; run python benchmarks/page.py")
    else:
        PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
