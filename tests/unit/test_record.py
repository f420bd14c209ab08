"""Records keep the contract of a frozen dataclass."""

from __future__ import annotations

import copy
import enum
import functools
import pickle
from typing import Any, ClassVar
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gocker.record import Record


class Point(Record):
    x: int
    y: int = 7
    kind: ClassVar[str] = "point"

    @functools.cached_property
    def total(self) -> int:
        return self.x + self.y


class Named(Point):
    name: str = ""
    y: int = 8  # another default, in the old place


class Other(Record):
    x: int
    y: int = 7


class Box(Record):
    inside: Any = None


class Colour(enum.Enum):
    RED = "red"


class Left(Record):
    a: int
    b: int = 1


class Right(Record):
    c: int = 2


class Both(Right, Left):
    pass


def test_fields_are_set_by_position_by_name_and_by_default() -> None:
    for point in (Point(1, 2), Point(1, y=2), Point(x=1, y=2), Point(y=2, x=1)):
        assert (point.x, point.y) == (1, 2)
    assert Point(1).y == 7
    assert Point(x=1).y == 7


def test_fields_are_the_annotations_of_the_class_and_its_bases_in_order() -> None:
    assert list(Point.fields) == ["x", "y"]
    assert list(Named.fields) == ["x", "y", "name"]
    assert Named(1) == Named(1, 8, "")
    assert list(Record.fields) == []


def test_a_class_without_annotations_has_the_fields_of_its_base() -> None:
    class Same(Named):
        pass

    assert list(Same.fields) == ["x", "y", "name"]
    assert Same(1, name="n").y == 8


def test_a_class_of_two_bases_has_the_fields_of_both() -> None:
    both = Both(5, c=6)
    assert both.asdict() == {"a": 5, "b": 1, "c": 6}
    assert both == Both(5, 1, 6)


def test_a_base_that_is_no_record_adds_nothing() -> None:
    class Plain:
        fields: ClassVar[dict[str, int]] = {"z": 1}

    class Mixed(Plain, Point):
        w: int = 0

    assert list(Mixed.fields) == ["x", "y", "w"]


def test_class_variables_are_no_fields() -> None:
    assert "kind" not in Point.fields
    with pytest.raises(TypeError, match="Point: unknown field kind"):
        Point(1, kind="x")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "Point: missing field x"),
        ((), {"y": 1}, "Point: missing field x"),
        ((1, 2, 3), {}, "Point: too many or repeated arguments"),
        ((1,), {"x": 1}, "Point: too many or repeated arguments"),
        ((1, 2), {"y": 1}, "Point: too many or repeated arguments"),
        ((1,), {"z": 1}, "Point: unknown field z"),
        ((1, 2), {"z": 1}, "Point: unknown field z"),
        ((), {"b": 1, "a": 2}, "Point: unknown field a, b"),
    ],
)
def test_wrong_arguments_are_named(args: tuple[int, ...], kwargs: dict[str, int], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}$"):
        Point(*args, **kwargs)


def test_all_missing_fields_are_named() -> None:
    class Three(Record):
        a: int
        b: int
        c: int

    with pytest.raises(TypeError, match=r"^Three: missing field a, c$"):
        Three(b=1)  # type: ignore[call-arg]


def test_a_record_is_read_only() -> None:
    point = Point(1, 2)
    with pytest.raises(AttributeError, match=r"Point\.x is read-only"):
        point.x = 3  # type: ignore[misc]
    with pytest.raises(AttributeError, match=r"Point\.new is read-only"):
        point.new = 3
    with pytest.raises(AttributeError, match=r"Point\.x is read-only"):
        del point.x
    assert point == Point(1, 2)


def test_equality_is_by_class_and_fields() -> None:
    assert Point(1, 2) == Point(1, 2)
    assert Point(1, 2) != Point(1, 3)
    assert Point(1, 2) != Other(1, 2)
    assert Point(1, 2) != (1, 2)
    assert Point(1, 7) != Named(1, 7)


def test_the_other_side_of_a_comparison_is_asked_too() -> None:
    assert Point(1, 2) == ANY


def test_equal_records_have_equal_hashes() -> None:
    assert hash(Point(1, 2)) == hash(Point(y=2, x=1))
    assert len({Point(1, 2), Point(1, 2), Other(1, 2)}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(Box([]))


def test_repr_is_the_call_that_makes_it() -> None:
    assert repr(Named(1, name="n")) == "Named(x=1, y=8, name='n')"
    assert eval(repr(Point(1, 2))) == Point(1, 2)


def test_a_cached_property_does_not_count_as_a_field() -> None:
    point = Point(1, 2)
    assert point.total == 3
    assert point == Point(1, 2)
    assert Point(1, 2) == point
    assert point.replace(x=5).total == 7
    assert point.asdict() == {"x": 1, "y": 2}
    assert hash(point) == hash(Point(1, 2))


def test_replace_makes_a_changed_copy_of_the_same_class() -> None:
    named = Named(1, 2, "a")
    assert named.replace(y=3) == Named(1, 3, "a")
    assert named == Named(1, 2, "a")
    with pytest.raises(TypeError, match="unknown field z"):
        named.replace(z=1)


def test_asdict_goes_into_records_sequences_and_mappings() -> None:
    box = Box((Point(1), [Box(Point(2)), {"k": Point(3)}], Colour.RED, "text", None))
    assert box.asdict() == {
        "inside": [
            {"x": 1, "y": 7},
            [{"inside": {"x": 2, "y": 7}}, {"k": {"x": 3, "y": 7}}],
            Colour.RED,
            "text",
            None,
        ]
    }


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda record: pickle.loads(pickle.dumps(record))]
)
def test_a_record_can_be_copied_and_pickled(again: Any) -> None:
    assert again(Named(1, 2, "n")) == Named(1, 2, "n")


@given(st.integers(), st.integers(), st.text())
def test_every_way_to_make_a_record_gives_the_same_one(x: int, y: int, name: str) -> None:
    made = Named(x, y, name)
    assert made == Named(name=name, y=y, x=x)
    assert made == Named(0).replace(x=x, y=y, name=name)
    assert made == Named(**made.asdict())
