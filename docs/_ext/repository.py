"""Files of the repository that the pages need, though they lie outside ``docs/``.

Notebooks are copied in, with a picture of each. Links are written as the repository has them,
so that they work where the Markdown is read as it is; here those to a file that is published
become links to its page. MyST offers every other file as a download.
"""

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
NOTEBOOKS = DOCS / "_examples"

#: Where a file of the repository is published, from ``docs/``.
PUBLISHED = {
    "README.md": "index.md",
    "CHANGES.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "running_benchmarks.md",
}
#: The path of a Markdown link, which may be followed by an anchor or a title.
LINK = re.compile(r"(?<=\]\()(?P<path>[^)\s#:]+)(?=[)#\s])")


def publish(path: str) -> str | None:
    """Tell where a file of the repository is published.

    Parameters
    ----------
    path : str
        Path from the repository's root, with slashes.

    Returns
    -------
    str or None
        Path from ``docs/``, or None for a file that is no page.
    """
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("examples/") and path.endswith(".ipynb"):
        return "_examples/" + path.removeprefix("examples/")
    return PUBLISHED.get(path)


def rewrite_links(text: str, source: str, page: str) -> str:
    """Turn links between files of the repository into links between pages.

    Parameters
    ----------
    text : str
        Markdown, or a notebook's JSON.
    source : str
        Where the text lies, from the repository's root.
    page : str
        Where it is published, from ``docs/``.

    Returns
    -------
    str
        The text with links that start at ``page``.
    """

    def rewrite(match: re.Match) -> str:
        target = os.path.normpath(PurePosixPath(source).parent / match["path"])
        published = publish(target)
        if published is None and not (ROOT / target).is_file():
            return match["path"]
        return os.path.relpath(published or f"../{target}", PurePosixPath(page).parent)

    return LINK.sub(rewrite, text)


def copy_notebooks(app=None) -> None:
    """Copy ``examples/*.ipynb`` to ``docs/_examples``, each with its last picture, for its card."""
    files = {}
    for path in (ROOT / "examples").glob("*.ipynb"):
        files[path.name] = text = path.read_bytes()
        if pictures := list(_pictures(json.loads(text))):
            files[f"{path.stem}.png"] = base64.b64decode(pictures[-1])
    NOTEBOOKS.mkdir(exist_ok=True)
    for old in NOTEBOOKS.iterdir():
        if old.name not in files:
            old.unlink()
    for name, content in files.items():
        copy = NOTEBOOKS / name
        if not copy.exists() or copy.read_bytes() != content:
            copy.write_bytes(content)


def _pictures(notebook: dict) -> Iterator[str]:
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            if picture := output.get("data", {}).get("image/png"):
                yield "".join(picture)


def _read_page(app, docname, content) -> None:
    if docname.startswith("_examples/"):
        name = docname.removeprefix("_examples/") + ".ipynb"
        content[0] = rewrite_links(content[0], f"examples/{name}", f"_examples/{name}")
    else:
        content[0] = rewrite_links(content[0], f"docs/{docname}.md", f"{docname}.md")


def _read_included(app, relative_path, parent_docname, content) -> None:
    # Pages that include a file lie in docs/ itself: MyST tells no more than their name.
    source = os.path.normpath(PurePosixPath("docs") / relative_path)
    content[0] = rewrite_links(content[0], source, f"{parent_docname}.md")


def setup(app):
    """Connect the functions to Sphinx."""
    app.connect("builder-inited", copy_notebooks)
    app.connect("source-read", _read_page)
    app.connect("include-read", _read_included)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
