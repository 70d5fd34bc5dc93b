"""What a notebook is given."""

import pytest

from adnlib import InputError
from adnlib.parameters import check_parameters

CELLS = ["", "a = 1\nb = 2", "b = 3", "parameters = check_parameters(globals())"]


def test_parameters_come_from_the_notebooks_globals():
    namespace = {"In": CELLS, "a": 1, "b": 3, "other": 1}
    assert check_parameters(namespace, ["a", "b"]) == {"a": 1, "b": 3}


def test_cells_of_something_else_are_not_looked_at():
    cells = ["import os\nhome = os.getcwd()", *CELLS[1:-1], "rows = len('ab')\nrows", CELLS[-1]]
    assert check_parameters({"In": cells, "a": 1, "b": 3}, ["a", "b"]) == {"a": 1, "b": 3}


def test_a_notebook_is_run_again_from_its_first_cell():
    later = ["table = read(a)\ntable", "fig, axes = draw(table)"]
    namespace = {"In": [*CELLS, *later, *CELLS], "a": 1, "b": 3}
    assert check_parameters(namespace, ["a", "b"]) == {"a": 1, "b": 3}


@pytest.mark.parametrize("mistake", ["aa = 1", "a = '1'", "a = 1\nb = 2\nc = 3", "a = (1"])
def test_a_mistake_can_be_mended_in_a_running_notebook(mistake):
    check = CELLS[-1]
    cells = ["", mistake, check, "a = 1", check]
    assert check_parameters({"In": cells, "a": 1}, ["a"]) == {"a": 1}
    with pytest.raises(InputError, match="no parameter 'aa'"):
        check_parameters({"In": [*cells, "aa = 1", check], "a": 1}, ["a"])
    again = {"In": [*cells, check], "a": "1"}
    with pytest.raises(InputError, match="a is '1', which is no int"):
        check_parameters(again, ["a"])


def test_a_parameter_that_no_cell_has_set_is_named():
    with pytest.raises(InputError, match="b has no value: run the cell of parameters first"):
        check_parameters({"In": ["", "a = 1", CELLS[-1]], "a": 1}, ["a", "b"])


def test_a_python_program_has_no_cells():
    assert check_parameters({"a": 1, "b": "x"}, ["a", "b"]) == {"a": 1, "b": "x"}


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
