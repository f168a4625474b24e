"""Formulas as MathML, which browsers draw by themselves: no script, and nothing is fetched."""

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)


def _write(translator, node, as_block):
    try:
        formula = tex2mathml(node.astext(), as_block=as_block)
    except MathError as error:
        LOGGER.warning("a formula cannot be written as MathML: %s", error, location=node)
        formula = f"<code>{translator.encode(node.astext())}</code>"
    # A long one is scrolled.
    translator.body.append(f'<div class="math">{formula}</div>' if as_block else formula)
    raise nodes.SkipNode


def _visit_inline(translator, node):
    _write(translator, node, as_block=False)


def _visit_block(translator, node):
    _write(translator, node, as_block=True)


def setup(app):
    """Register the renderer; ``html_math_renderer = "mathml"`` chooses it."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
