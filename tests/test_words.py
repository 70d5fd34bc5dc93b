"""Words that depend on a number."""

import pytest

from adnlib.words import counted


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 test views"), (1, "1 test view"), (2, "2 test views")]
)
def test_one_alone_is_no_plural(number, told):
    assert counted(number, "test view") == told
