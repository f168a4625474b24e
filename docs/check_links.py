"""Check the links of the built pages and of the Markdown files, without a network.

    python docs/check_links.py [--html docs/_build/html] [--external]

In built pages, every link to a page, file or anchor must have its target, and whatever a page
loads (scripts, styles, pictures, fonts) must lie beside it. In Markdown, as read where the
repository is browsed, every relative link must lead to a file, and every anchor to a heading.
Addresses on the net must be well-formed https; ``--external`` lists them.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
#: Attributes that hold an address, and tags that load what is there.
ADDRESSES = ("href", "src", "poster", "data")
LOADING = {"img", "script", "source", "video", "audio", "iframe", "embed", "object", "image"}
LOADING_LINKS = {"stylesheet", "icon", "preload", "modulepreload"}

FENCE = re.compile(r"^ *(?P<fence>`{3,}|~{3,}).*?^ *(?P=fence)", re.M | re.S)
CODE = re.compile(r"(?P<ticks>`+)(?!`)(?:(?!\n\n).)+?(?<!`)(?P=ticks)(?!`)", re.S)
LINK = re.compile(r"\]\(\s*<?(?P<target>[^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
DEFINITION = re.compile(r"^ {0,3}\[[^\]]+\]:\s+<?(?P<target>[^\s>]+)", re.M)
AUTOLINK = re.compile(r"<(?P<target>https?:[^>\s]+)>")
HEADING = re.compile(r"^#{1,6}\s+(?P<text>.+?)\s*#*$", re.M)

#: A style sheet that loads a font, a picture or another sheet.
FETCHED = re.compile(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//")


class Link(NamedTuple):
    """An address, and whether the page loads what is there."""

    target: str
    loads: bool = False


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[Link] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        kinds = set(given.get("rel", "").split())
        loads = tag in LOADING or (tag == "link" and bool(kinds & LOADING_LINKS))
        self.links += [Link(given[name], loads) for name in ADDRESSES if given.get(name)]
        for part in given.get("srcset", "").split(","):
            if part.strip():
                self.links.append(Link(part.split()[0], True))


def check_html(folder: Path) -> tuple[list[str], set[str]]:
    """Check built pages.

    Parameters
    ----------
    folder : Path
        What Sphinx wrote.

    Returns
    -------
    problems : list of str
        A line for each link that leads nowhere.
    external : set of str
        Addresses on the net.
    """
    pages = {}
    for path in sorted(folder.rglob("*.html")):
        if "_static" in path.relative_to(folder).parts:
            continue  # templates of the theme
        page = pages[path] = _Page()
        page.feed(path.read_text(encoding="utf-8"))
    problems, external = [], set()
    for path in sorted(folder.rglob("*.css")):
        if FETCHED.search(path.read_text(encoding="utf-8")):
            problems.append(f"{path.relative_to(folder)}: loads something from the net")
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link.target)
            problem = None
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                if link.loads:
                    problem = "is loaded from the net"
                external.add(link.target)
            else:
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                problem = _missing(target, unquote(parts.fragment), pages)
            if problem:
                problems.append(f"{path.relative_to(folder)}: {link.target} {problem}")
    return problems, external


def _missing(target: Path, anchor: str, pages: dict[Path, _Page]) -> str | None:
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return "does not exist"
    if anchor and target in pages and anchor not in pages[target].anchors:
        return f"has no anchor {anchor!r}"
    return None


def check_markdown(files: Iterable[Path], root: Path) -> tuple[list[str], set[str]]:
    """Check Markdown files as they are.

    Parameters
    ----------
    files : iterable of Path
        The files.
    root : Path
        The repository; no link may leave it.

    Returns
    -------
    problems : list of str
        A line for each link that leads nowhere.
    external : set of str
        Addresses on the net.
    """
    problems, external = [], set()
    for path in files:
        for target in _targets(path.read_text(encoding="utf-8")):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                external.add(target)
                continue
            file = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            problem = None
            if not file.is_relative_to(root):
                problem = "leaves the repository"
            elif not file.exists():
                problem = "does not exist"
            elif parts.fragment and file.suffix == ".md":
                anchors = set(_slugs(file.read_text(encoding="utf-8")))
                if unquote(parts.fragment) not in anchors:
                    problem = f"has no heading for {parts.fragment!r}"
            if problem:
                problems.append(f"{path.relative_to(root)}: {target} {problem}")
    return problems, external


def _targets(text: str) -> Iterator[str]:
    text = CODE.sub("", FENCE.sub("", text))
    for pattern in (LINK, DEFINITION, AUTOLINK):
        for match in pattern.finditer(text):
            yield match["target"]


def _slugs(text: str) -> Iterator[str]:
    """Write the anchors that a Markdown file's headings get where repositories are browsed."""
    seen: dict[str, int] = {}
    for match in HEADING.finditer(FENCE.sub("", text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match["text"]).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        count = seen[slug] = seen.get(slug, -1) + 1
        yield f"{slug}-{count}" if count else slug


def check_external(addresses: Iterable[str]) -> list[str]:
    """Check that addresses are well-formed https, or of mail.

    Parameters
    ----------
    addresses : iterable of str
        Addresses.

    Returns
    -------
    list of str
        A line for each that is not.
    """
    problems = []
    for address in sorted(addresses):
        parts = urlsplit(address)
        if parts.scheme == "mailto":
            continue
        if parts.scheme != "https" or not re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc):
            problems.append(f"{address} is not a well-formed https address")
    return problems


def markdown_files(root: Path) -> list[Path]:
    """List the Markdown files that people read.

    Parameters
    ----------
    root : Path
        The repository.

    Returns
    -------
    list of Path
        Those at its top, in docs and in benchmarks, and not what was built.
    """
    found = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("benchmarks/*.md")]
    built = {root / "docs" / name for name in ("_build", "_examples")}
    return sorted(path for path in found if not built & set(path.parents))


def main() -> int:
    """Run the checks; the exit code is 1 if a link is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--html", type=Path, default=ROOT / "docs" / "_build" / "html")
    parser.add_argument("--external", action="store_true", help="list addresses on the net")
    arguments = parser.parse_args()
    if not (arguments.html / "index.html").is_file():
        parser.error(f"no built pages in {arguments.html}; run `make docs` first")
    problems, external = check_markdown(markdown_files(ROOT), ROOT)
    more, others = check_html(arguments.html.resolve())
    external |= others
    problems += more + check_external(external)
    for line in problems:
        print(line, file=sys.stderr)
    if arguments.external:
        print(*sorted(external), sep="\n")
    print(f"{len(external)} addresses on the net; {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
