"""The check of the links finds what is broken, and the repository's own links are whole."""

import pytest
from public_names import DOCS, load_script

ROOT = DOCS.parent
check_links = load_script(DOCS / "check_links.py")
repository = load_script(DOCS / "_ext" / "repository.py")


# ------------------------------------------------------------------------ built pages

PAGE = """<html><head><link rel="stylesheet" href="_static/a.css?v=1"></head><body>
<h1 id="top">A page</h1> <a href="#top">up</a> <a href="other.html#there">other</a>
<a href="folder/">folder</a> <img src="data:image/png;base64,AA"> <a href="#">nowhere</a>
<a href="https://scikit-learn.org/stable/">elsewhere</a>{more}</body></html>"""


@pytest.fixture
def built(tmp_path):
    """Write pages whose links are whole, and ``more`` into the first."""

    def build(more="", css=""):
        for name in ("_static", "folder"):
            (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / "_static" / "a.css").write_text(css)
        (tmp_path / "index.html").write_text(PAGE.format(more=more))
        (tmp_path / "other.html").write_text('<p id="there"></p><a href="index.html#top">b</a>')
        (tmp_path / "folder" / "index.html").write_text('<a href="../other.html">other</a>')
        return check_links.check_html(tmp_path)

    return build


def test_whole_pages_have_no_problem(built):
    problems, external = built()
    assert problems == []
    assert {a for a in external if not a.startswith("data:")} == {
        "https://scikit-learn.org/stable/"
    }


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ('<a href="gone.html">x</a>', "index.html: gone.html does not exist"),
        ('<a href="other.html#here">x</a>', "index.html: other.html#here has no anchor 'here'"),
        ('<a href="#here">x</a>', "index.html: #here has no anchor 'here'"),
        ('<img src="_images/a.png">', "index.html: _images/a.png does not exist"),
        ('<img srcset="b.png 2x, c.png">', "index.html: b.png does not exist"),
        ('<a href="_static/">x</a>', "index.html: _static/ does not exist"),
        (
            '<script src="https://cdn.example.org/a.js"></script>',
            "index.html: https://cdn.example.org/a.js is loaded from the net",
        ),
        (
            '<link rel="preload stylesheet" href="//fonts.example.org/a.css">',
            "index.html: //fonts.example.org/a.css is loaded from the net",
        ),
    ],
)
def test_a_broken_link_of_a_page_is_found(built, more, problem):
    problems, _ = built(more)
    assert problem in problems


def test_a_font_from_the_net_is_found(built):
    problems, _ = built(css="@font-face {src: url('https://fonts.example.org/a.woff2')}")
    assert problems == ["_static/a.css: loads something from the net"]


# --------------------------------------------------------------------------- Markdown

MARKDOWN = """# The `first` heading, and more

[self](#the-first-heading-and-more), [file](docs/page.md#b), [it](docs/page.md "title"),
[code](docs/code.py), [folder](docs/), [net](https://scikit-learn.org), <https://semver.org>
`[no](gone-code.md)` and ``[`no`](gone-code.md)``

```sh
echo [no](gone-fence.md)
```

[reference]: docs/page.md
"""


@pytest.fixture
def written(tmp_path):
    def write(more=""):
        (tmp_path / "docs").mkdir(exist_ok=True)
        (tmp_path / "docs" / "page.md").write_text("# A\n\n## B\n\n## B\n\n[x](../README.md)\n")
        (tmp_path / "docs" / "code.py").touch()
        (tmp_path / "README.md").write_text(MARKDOWN + more)
        files = check_links.markdown_files(tmp_path)
        assert [file.name for file in files] == ["README.md", "page.md"]
        return check_links.check_markdown(files, tmp_path)

    return write


def test_whole_markdown_has_no_problem(written):
    problems, external = written("[twice](docs/page.md#b-1)")
    assert problems == []
    assert external == {"https://scikit-learn.org", "https://semver.org"}


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("[x](docs/gone.md)", "README.md: docs/gone.md does not exist"),
        ("[`x`](gone.py)", "README.md: gone.py does not exist"),
        ("![x](gone.png)", "README.md: gone.png does not exist"),
        ("[x](docs/page.md#c)", "README.md: docs/page.md#c has no heading for 'c'"),
        ("[x](docs/page.md#b-2)", "README.md: docs/page.md#b-2 has no heading for 'b-2'"),
        ("[x](#c)", "README.md: #c has no heading for 'c'"),
        ("[x](../secret.md)", "README.md: ../secret.md leaves the repository"),
        ("\n[y]: gone.md\n", "README.md: gone.md does not exist"),
    ],
)
def test_a_broken_link_in_markdown_is_found(written, more, problem):
    assert written(more)[0] == [problem]


def test_what_is_built_is_not_read(tmp_path):
    for name in ("_build/html", "_examples"):
        (tmp_path / "docs" / name).mkdir(parents=True)
        (tmp_path / "docs" / name / "a.md").touch()
    assert check_links.markdown_files(tmp_path) == []


@pytest.mark.parametrize(
    "address",
    ["http://semver.org", "https://", "https://semver", "ftp://semver.org", "htps://semver.org"],
)
def test_an_address_that_is_no_https_page_is_found(address):
    good = ["https://semver.org", "https://docs.pytorch.org/docs/a.html#b", "mailto:a@b.org"]
    assert check_links.check_external([*good, address]) == [
        f"{address} is not a well-formed https address"
    ]


def test_the_links_of_the_repository_are_whole():
    problems, external = check_links.check_markdown(check_links.markdown_files(ROOT), ROOT)
    assert problems == []
    assert check_links.check_external(external) == []


# ------------------------------------------------- links that leave docs/ in built pages


@pytest.mark.parametrize(
    ("source", "link", "page", "becomes"),
    [
        ("docs/methods.md", "benchmarks.md#b", "methods.md", "benchmarks.md#b"),
        ("docs/methods.md", "../benchmarks/README.md", "methods.md", "running_benchmarks.md"),
        ("docs/a/b.md", "../../CHANGES.md#unreleased", "a/b.md", "../changes.md#unreleased"),
        ("docs/a/b.md", "../../examples/01_x.ipynb", "a/b.md", "../_examples/01_x.ipynb"),
        ("CHANGES.md", "docs/methods.md", "changes.md", "methods.md"),
        ("benchmarks/README.md", "../docs/benchmarks.md", "running_benchmarks.md", "benchmarks.md"),
        ("examples/01_x.ipynb", "../docs/errors.md", "_examples/01_x.ipynb", "../errors.md"),
        ("examples/01_x.ipynb", "02_y.ipynb", "_examples/01_x.ipynb", "02_y.ipynb"),
        ("examples/01_x.ipynb", "../README.md", "_examples/01_x.ipynb", "../index.md"),
        # No page: MyST offers the file itself.
        ("docs/a/b.md", "../../examples/quickstart.py", "a/b.md", "../../examples/quickstart.py"),
        ("benchmarks/README.md", "run.py", "running_benchmarks.md", "../benchmarks/run.py"),
        (
            "examples/01_x.ipynb",
            "quickstart.py",
            "_examples/01_x.ipynb",
            "../../examples/quickstart.py",
        ),
        # Neither a page nor a file: a reader's code, for instance.
        ("examples/01_x.ipynb", "x", "_examples/01_x.ipynb", "x"),
        ("docs/a.md", "https://semver.org/README.md", "a.md", "https://semver.org/README.md"),
    ],
)
def test_links_lead_to_pages(source, link, page, becomes):
    text = 'see [`it`]({}), and\n[that]({} "title")'
    assert repository.rewrite_links(text.format(link, link), source, page) == text.format(
        becomes, becomes
    )
