"""Docstrings say what the signatures say, in numpydoc's sections."""

import dataclasses
import inspect

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import validate
from public_names import public_callables

CALLABLES = public_callables()
# What numpydoc asks for and this package does not.
LAX = {
    "ES01",  # an extended summary: one line may say all
    "GL01",  # the text on the line after the quotes: older versions want it there
    "SA01",  # See Also
    "RT02",  # no name before the type of what is returned
    "PR06",  # "int" for "integer", which is a dtype
    "PR08",  # a capital letter first: descriptions may begin with the paper's symbols
    "RT04",  # the same
}


@pytest.mark.parametrize("name", CALLABLES)
def test_a_docstring_is_complete(name):
    # PR01, PR02 and PR03 compare the parameters with the signature. Unknown sections are
    # warnings, and so errors.
    errors = {code: text for code, text in validate(name)["errors"] if code not in LAX}
    doc = get_doc_object(CALLABLES[name])
    if name.rpartition(".")[0] in CALLABLES:
        # The example of a class shows its methods.
        errors.pop("EX01", None)
    if is_result(CALLABLES[name], doc):
        # Nobody makes one; its fields stand under "Attributes".
        errors.pop("PR01", None)
    if all(parameter.type or refers(parameter) for parameter in doc["Parameters"]):
        errors.pop("PR04", None)
    assert not errors


def is_result(value, doc) -> bool:
    """Tell whether this is a dataclass that documents its fields as attributes."""
    if not dataclasses.is_dataclass(value):
        return False
    fields = list(inspect.signature(value).parameters)
    return [attribute.name for attribute in doc["Attributes"]][: len(fields)] == fields


def refers(parameter) -> bool:
    """Tell whether a parameter's types stand where its description refers to."""
    return parameter.desc[0].startswith(("As in :", "See :"))


def test_a_wrong_docstring_is_found(monkeypatch):
    # Of a function that is complete: the test above must not pass whatever it says.
    function = CALLABLES["skfdan.unpair"]
    name = next(iter(inspect.signature(function).parameters))
    assert f"\n{name} :" in inspect.getdoc(function)
    monkeypatch.setattr(function, "__doc__", function.__doc__.replace(f"{name} :", "other :"))
    with pytest.raises(AssertionError, match="PR01"):
        test_a_docstring_is_complete("skfdan.unpair")
