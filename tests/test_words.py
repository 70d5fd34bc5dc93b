"""Numbers in words."""

import pytest

from adnlib.words import counted, span


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 test views"), (1, "1 test view"), (2, "2 test views")]
)
def test_one_alone_is_no_plural(number, told):
    assert counted(number, "test view") == told


@pytest.mark.parametrize(("numbers", "told"), [([3], "3"), ([3, 3], "3"), ([3, 2, 5], "2 to 5")])
def test_a_span_of_equal_numbers_is_one(numbers, told):
    assert span(numbers) == told
