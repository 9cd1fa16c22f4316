import pytest

from searchlib import Cases
from searchlib.errors import InvalidSettings


def test_taking_columns_keeps_their_order_and_payload():
    part = Cases(("a", "b", "c"), (1.0, 2.0, 3.0)).take([2, 0])
    assert part.ids == ("c", "a")
    assert part.payload == (3.0, 1.0)


def test_equal_ids_are_refused_by_name():
    with pytest.raises(InvalidSettings, match="'b' occurs 2 times"):
        Cases(("a", "b", "b"))


def test_a_payload_of_another_length_is_refused():
    with pytest.raises(InvalidSettings, match="3 items for 2 ids"):
        Cases((0, 1), "abc")


def test_the_digest_tells_cases_apart():
    assert Cases((0, 1)).digest == Cases.of("xy").digest != Cases((1, 0)).digest
