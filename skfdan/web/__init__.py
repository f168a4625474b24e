"""A page on this machine that shows what a model makes of a clip.

:func:`serve` is what ``skfdan demo --model MODEL`` runs. It needs Gradio:
``pip install "skfdan[web]"``.
"""

from skfdan.web._server import serve

__all__ = ["serve"]
