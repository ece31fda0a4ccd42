"""What a file lacks is named by its place."""

import pytest

from orchestrator.shapes import NUMBER, Each, Either, Maybe, fault

SHAPE = {
    "a": NUMBER,
    "b": [NUMBER],
    "c": Maybe({"d": str}),
    "e": Each(int),
    "f": Maybe(int, absent=True),
}
GOOD = {"a": 1, "b": [1, 2.5], "c": None, "e": {"x": 1}, "more": "is no fault"}


def test_what_is_of_its_shape_has_no_fault():
    assert fault(GOOD, SHAPE) == fault({**GOOD, "c": {"d": "x"}}, SHAPE) == ""
    assert fault({**GOOD, "f": None}, SHAPE) == fault({**GOOD, "f": 1}, SHAPE) == ""
    assert fault({"problem": "x"}, Either({"problem": str}, SHAPE)) == ""
    assert fault(GOOD, Either({"problem": str}, SHAPE)) == ""


@pytest.mark.parametrize(("change", "told"), [
    ({"a": None}, "a is None"), ({"a": True}, "a is True"), ({"b": 1}, "b is no list"),
    ({"b": [1, "x"]}, "b[1] is 'x'"), ({"c": {}}, "c.d is missing"), ({"c": 5}, "c is no object"),
    ({"f": "x"}, "f is 'x'"), ({"e": []}, "e is no object"), ({"e": {"x": "y"}}, "e.x is 'y'"),
])  # fmt: skip
def test_the_first_fault_is_named(change, told):
    assert fault({**GOOD, **change}, SHAPE) == told
    assert fault({**GOOD, **change}, Either({"problem": str}, SHAPE)) == told


@pytest.mark.parametrize("value", [None, 5, [], "x"])
def test_what_is_no_object_at_all_is_told(value):
    assert fault(value, SHAPE) == "it is no object"
