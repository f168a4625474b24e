"""The reference lists what is public, and nothing else."""

import re

import pytest
from public_names import DOCS, public_names, shown_members

import skfdan
import skfdan.nn

INDEX = (DOCS / "api" / "index.md").read_text(encoding="utf-8")
NAMES = public_names()


def listed_names(text: str) -> list[str]:
    """Every name that the reference lists, whether it has a page of its own or not."""
    module, names = "", []
    for line in text.splitlines():
        if match := re.fullmatch(r"\.\. currentmodule:: (\S+)", line):
            module = match[1]
        elif match := re.fullmatch(r"(?:\.\. autodata:: |   )(\w+)", line):
            names.append(f"{module}.{match[1]}")
    return names


LISTED = listed_names(INDEX)


def test_everything_public_is_listed_once():
    assert sorted(LISTED) == sorted(NAMES)


def test_a_name_that_is_missing_or_has_gone_is_seen():
    without = listed_names(INDEX.replace("   FDANClassifier\n", ""))
    assert set(LISTED) - set(without) == {"skfdan.FDANClassifier"}
    renamed = listed_names(INDEX.replace("   unpair\n", "   unpaired\n"))
    assert set(renamed) - set(LISTED) == {"skfdan.unpaired"}


def test_every_module_with_names_has_a_section():
    modules = {name.rpartition(".")[0] for name in NAMES} | {"skfdan.metrics"}
    headings = re.findall(r"^## (\S+)$", INDEX, flags=re.M)
    assert sorted(headings) == sorted(modules)
    for module in modules:
        assert f".. automodule:: {module}\n" in INDEX


@pytest.mark.parametrize("name", NAMES)
def test_what_has_a_page_is_callable_and_what_has_none_is_data(name):
    data = f".. autodata:: {name.rpartition('.')[2]}\n" in INDEX
    assert callable(NAMES[name]) != data


def test_the_page_of_a_classifier_shows_what_users_call():
    shown = shown_members(skfdan.FDANClassifier)
    for name in ("fit", "predict", "predict_proba", "score", "fdan1", "from_pretrained"):
        assert name in shown
    # skorch's own, its hooks written here, and what scikit-learn generates.
    for name in ("initialize_module", "on_batch_begin", "infer", "set_score_request"):
        assert hasattr(skfdan.FDANClassifier, name)
        assert name not in shown
    assert len(shown) < 25


def test_the_page_of_a_network_shows_what_it_adds_to_torch():
    shown = shown_members(skfdan.nn.FDANNet)
    assert {"adapt", "encode", "forward"} <= set(shown)
    for name in ("cuda", "state_dict", "train"):
        assert hasattr(skfdan.nn.FDANNet, name)
        assert name not in shown
