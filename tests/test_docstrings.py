"""The examples in docstrings are run as they stand."""

import doctest
import importlib
import pkgutil

import pytest

import adnlib

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(adnlib.__path__, "adnlib.")
    if module.name != "adnlib.__main__"
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    module = importlib.import_module(name)
    examples = [e for test in doctest.DocTestFinder().find(module) for e in test.examples]
    assert not any(doctest.SKIP in example.options for example in examples)
    assert doctest.testmod(module).failed == 0


def test_the_detector_has_examples():
    from adnlib import AttentDifferNet

    (test,) = [t for t in doctest.DocTestFinder(recurse=False).find(AttentDifferNet) if t.examples]
    source = "".join(example.source for example in test.examples)
    for call in (".fit(", ".score(", ".explain(", ".save(", ".load("):
        assert call in source
