"""What a notebook is given."""

import pytest

from adnlib import InputError
from adnlib.parameters import check_parameters

CELLS = ["", "a = 1\nb = 2", "b = 3", "parameters = check_parameters(globals())"]


def test_parameters_come_from_the_notebooks_globals():
    namespace = {"In": [*CELLS, "later = 1"], "a": 1, "b": 3, "later": 1}
    assert check_parameters(namespace, ["a", "b"]) == {"a": 1, "b": 3}


def test_a_mistyped_parameter_is_named():
    namespace = {"In": CELLS, "a": 1, "b": 3}
    with pytest.raises(InputError, match="no parameter 'b': did you mean 'bee'"):
        check_parameters(namespace, ["a", "bee"])
