"""What the pages of the API reference show.

Of a class's methods, those that this package wrote, and the few inherited ones that users
call. The rest of what torch, skorch and scikit-learn give a class is theirs to document.
"""

import re
import sys

from sphinx.pycode import ModuleAnalyzer

#: Inherited, and called by users.
INHERITED = {
    "fit_transform",
    "get_feature_names_out",
    "get_params",
    "get_support",
    "score",
    "set_output",
    "set_params",
    "transform",
}
#: Written here because a base class calls it, and not for users.
INTERNAL = {
    "extra_repr",
    "get_loss",
    "get_params_for_optimizer",
    "infer",
    "initialize",
    "on_epoch_end",
    "on_grad_computed",
    "train",
}
#: A link to ``skfdan.table.is_missing.html#skfdan.is_missing``, or to one of its members.
BACKLINK = re.compile(
    r"(?P<page>(?:\w+\.)+(?P<name>\w+))\.html#(?:\w+\.)+?(?P=name)(?P<member>[.\w]*)(?=\")"
)


def shows(name: str, member: object) -> bool:
    """Tell whether the page of a class shows one of its members.

    Parameters
    ----------
    name : str
        Name of the member.
    member : object
        The method or property; nothing else is shown.

    Returns
    -------
    bool
        True if it is shown.
    """
    if name.startswith("_") or name in INTERNAL:
        return False
    if isinstance(member, property):
        # Inherited fitted attributes too: the list of attributes links to them.
        return _is_ours(member) or name.endswith("_")
    return callable(member) and (_is_ours(member) or name in INHERITED)


def _is_ours(member: object) -> bool:
    # What scikit-learn generates (set_score_request) has no module of its own.
    module = getattr(getattr(member, "fget", member), "__module__", None)
    return str(module).startswith("skfdan.")


def _skip(app, what, name, member, skip, options) -> bool | None:
    if what in ("class", "exception") and not shows(name, member):
        return True
    return None


def _docstring(app, what, name, obj, options, lines) -> None:
    if what == "data":
        # Else autodoc shows the text of ``str`` or ``dict`` where a constant was imported.
        lines[:] = _comment(name.rpartition(".")[2], obj)
    elif what in ("method", "property") and not _is_ours(obj):
        # The first sentence of an inherited docstring: the rest links to pages not here.
        del lines[next((i for i, line in enumerate(lines) if not line.strip()), len(lines)) :]
        lines[:] = [re.sub(r":\w+:`([^`<]+?)\s*<[^`]*>`", r"\1", line) for line in lines]
        lines += ["", "Inherited; scikit-learn's documentation describes it."]


def _comment(name: str, value: object) -> list[str]:
    """Find the ``#:`` comment of a constant, in whatever module it was written."""
    for module in [m for m in sys.modules if m.split(".")[0] == "skfdan"]:
        if vars(sys.modules[module]).get(name) is value:
            comments = ModuleAnalyzer.for_module(module).find_attr_docs()
            if ("", name) in comments:
                return comments["", name]
    return []


def _mend_backlinks(app, pagename, templatename, context, doctree) -> None:
    """Let source code link to its documentation, under whatever package that stands.

    Names of one module may be documented under several (``skfdan.make_table`` and
    ``skfdan.table.is_missing``); viewcode takes the first package for all of them.
    """
    if pagename.startswith("_modules/"):
        context["body"] = BACKLINK.sub(r"\g<page>.html#\g<page>\g<member>", context["body"])


def setup(app):
    """Connect the functions to Sphinx; docstrings are shortened before numpydoc reads them."""
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-docstring", _docstring, priority=400)
    app.connect("html-page-context", _mend_backlinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
