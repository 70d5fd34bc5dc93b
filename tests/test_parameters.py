"""What a notebook is given."""

import pytest

from adnlib import InputError
from adnlib.parameters import check_parameters

CELLS = ["", "a = 1\nb = 2", "b = 3", "parameters = check_parameters(globals())"]


def test_parameters_come_from_the_notebooks_globals():
    namespace = {"In": [*CELLS, "later = 1"], "a": 1, "b": 3, "later": 1}
    assert check_parameters(namespace, ["a", "b"]) == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("default", "given", "value"),
    [
        ("'demo'", 2024, "2024"),
        ("True", "false", False),
        ("False", "true", True),
        ("True", False, False),
        ("0.5", 1, 1),
        ("4", 3, 3),
        ("2 * 8", 16, 16),
    ],
)
def test_a_value_is_of_its_defaults_type_whatever_papermill_took_it_for(default, given, value):
    namespace = {"In": ["", f"a = {default}", "check_parameters()"], "a": given}
    found = check_parameters(namespace, ["a"])["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("default", "given", "wanted"),
    [("4", "2", "int"), ("4", True, "int"), ("True", "no", "bool"), ("'a'", None, "str")],
)
def test_a_value_of_another_type_is_named(default, given, wanted):
    namespace = {"In": ["", f"a = {default}", "check_parameters()"], "a": given}
    with pytest.raises(InputError, match=f"a is {given!r}, which is no {wanted}: give one like"):
        check_parameters(namespace, ["a"])


def test_a_mistyped_parameter_is_named():
    namespace = {"In": CELLS, "a": 1, "b": 3}
    with pytest.raises(InputError, match="no parameter 'b': did you mean 'bee'"):
        check_parameters(namespace, ["a", "bee"])
