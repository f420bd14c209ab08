"""Limit requests and their units: examples from docker's manual, and properties."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gocker.errors import LimitError
from gocker.limits import (
    MAX_BYTES,
    LimitRequest,
    format_list,
    parse_count,
    parse_limit,
    parse_list,
    parse_size,
)

UNITS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}

# --- NAME[.KEY]=VALUE[?]


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("memory=100m", LimitRequest("memory", "", "100m")),
        ("memory.swap=1g", LimitRequest("memory", "swap", "1g")),
        ("memory.swap=1g?", LimitRequest("memory", "swap", "1g", best_effort=True)),
        ("cpuset=0-1,3", LimitRequest("cpuset", "", "0-1,3")),
        ("hugetlb.2MB=64m", LimitRequest("hugetlb", "2MB", "64m")),
        ("hugetlb.2MB.rsvd=64m", LimitRequest("hugetlb", "2MB.rsvd", "64m")),
        ("blkio.read_bps=/dev/vda:1m", LimitRequest("blkio", "read_bps", "/dev/vda:1m")),
        ("x=a=b", LimitRequest("x", "", "a=b")),
        ("x9_=??", LimitRequest("x9_", "", "?", best_effort=True)),
    ],
)
def test_a_limit_is_a_name_a_key_and_a_value(text: str, request_: LimitRequest) -> None:
    assert parse_limit(text) == request_


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "memory",
            "=1",
            ".swap=1",
            "memory.=1",
            "Memory=1",
            "1memory=1",
            "_m=1",
            "mem ory=1",
            "mémoire=1",
        ),
        *("memory.-x=1", "memory._x=1", "memory..x=1", "memory.x y=1", "memory.x.=1", "memory.é=1"),
        *("memory\n=1", "m/x=1"),
    ],
)
def test_another_shape_is_refused(text: str) -> None:
    with pytest.raises(LimitError) as caught:
        parse_limit(text)
    assert caught.value.reason == "not NAME[.KEY]=VALUE"
    assert caught.value.target == text
    assert "memory=100m" in caught.value.remedy


@pytest.mark.parametrize("text", ["memory=", "memory=?", "memory.swap="])
def test_an_empty_value_is_refused(text: str) -> None:
    with pytest.raises(LimitError, match="the value is empty"):
        parse_limit(text)


def test_the_label_is_the_name_with_its_key() -> None:
    assert parse_limit("memory=1").label == "memory"
    assert parse_limit("memory.swap=1").label == "memory.swap"


@given(
    name=st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True),
    key=st.from_regex(r"([A-Za-z0-9][A-Za-z0-9_.]{0,9}[A-Za-z0-9_])?", fullmatch=True),
    value=st.text(min_size=1),
    best_effort=st.booleans(),
)
def test_a_limit_reads_back_as_it_was_put_together(
    name: str, key: str, value: str, best_effort: bool
) -> None:
    if value.endswith("?"):
        value += "x"
    label = f"{name}.{key}" if key else name
    request = parse_limit(f"{label}={value}{'?' if best_effort else ''}")
    assert request == LimitRequest(name, key, value, best_effort)
    assert request.label == label


@given(st.text(alphabet="am.=?_1A é\n", max_size=8) | st.text())
def test_any_text_is_a_limit_or_a_limit_error(text: str) -> None:
    try:
        request = parse_limit(text)
    except LimitError:
        return
    assert f"{request.label}={request.value}" == text.removesuffix("?")


# --- sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        ("32b", 32),
        ("100m", 104857600),
        ("100M", 104857600),
        ("100mb", 104857600),
        ("100MiB", 104857600),
        ("100Mi", 104857600),
        ("100 MB", 104857600),
        (" 100m ", 104857600),
        ("1.5g", 1610612736),
        ("0.5k", 512),
        ("1.5", 1),
        ("1.9b", 1),
        ("0001k", 1024),
        ("2t", 2199023255552),
        ("9223372036854775807", MAX_BYTES),
        ("8388607t", MAX_BYTES - (1 << 40) + 1),
        ("0" * 5000 + "7k", 7168),
        ("8796093022207.99999999999999999m", MAX_BYTES),
        ("9007199254740993.0", 9007199254740993),  # 2**53 + 1 is no float
    ],
)
def test_sizes_have_binary_units(text: str, size: int) -> None:
    assert parse_size(text, "memory") == size


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "m",
            "-1",
            "+1",
            "1e5",
            "0x10",
            "1_000",
            "1,5m",
            ".5m",
            "1.m",
            "1.2.3m",
            "1. 5m",
            "1m5",
            "1\n2",
        ),
        *("inf", "nan", "１００m", "²m", "1m\0", "1\u00a0m"),
    ],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(LimitError) as caught:
        parse_size(text, "memory.swap")
    assert caught.value.target == f"memory.swap={text}"
    assert caught.value.reason == "not a size in bytes"
    assert "100m" in caught.value.remedy


def test_the_kelvin_sign_is_no_k() -> None:
    assert "\u212a".lower() == "k"
    with pytest.raises(LimitError, match="not a size"):
        parse_size("1\u212a", "memory")


@pytest.mark.parametrize("unit", ["q", "p", "bb", "ib", "bi", "i", "mm", "mbi", "kbb", "mbytes", "km"])
def test_another_unit_is_refused_by_name(unit: str) -> None:
    with pytest.raises(LimitError, match=f"unknown unit '{unit}' .use b, k, m, g or t"):
        parse_size(f"100{unit}", "memory")


@pytest.mark.parametrize(
    "text",
    [
        "9223372036854775808",
        "8388608t",
        "99999999999g",
        "9" * 30,
        "1" * 5000,
        "9" * 400 + ".5k",
        "9" * 19 + "t",
    ],
)
def test_more_than_the_kernel_can_count_is_refused(text: str) -> None:
    with pytest.raises(LimitError, match="above the kernel's maximum of 9223372036854775807 bytes"):
        parse_size(text, "memory")


@given(
    whole=st.integers(0, 1 << 63),
    fraction=st.text("0123456789", max_size=60),
    unit=st.sampled_from(sorted(UNITS)),
    upper=st.booleans(),
)
def test_a_size_is_its_exact_value_rounded_down(whole: int, fraction: str, unit: str, upper: bool) -> None:
    number = f"{whole}.{fraction}" if fraction else str(whole)
    exact = Fraction(number) * (1 << UNITS[unit])
    text = number + (unit.upper() if upper else unit)
    if int(exact) > MAX_BYTES:
        with pytest.raises(LimitError, match="above"):
            parse_size(text, "memory")
    else:
        assert parse_size(text, "memory") == int(exact)


@given(st.text(alphabet="0123456789.kmgtbi K-é\u212a\u0661", max_size=10) | st.text())
def test_any_text_is_a_size_or_a_limit_error(text: str) -> None:
    try:
        size = parse_size(text, "memory")
    except LimitError:
        return
    assert 0 <= size <= MAX_BYTES


# --- counts


@pytest.mark.parametrize(("text", "count"), [("2", 2), ("64", 64), ("0064", 64), ("-1", -1), ("-0", 0)])
def test_counts_are_whole_decimal_numbers(text: str, count: int) -> None:
    assert parse_count(text, "pids", minimum=-1, maximum=64) == count


@pytest.mark.parametrize("text", ["", "-", "+1", "--1", "1.0", "1k", " 1", "1\n", "1_0", "٣", "²", "0x1"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(LimitError, match="not a whole number") as caught:
        parse_count(text, "pids", minimum=1, maximum=10)
    assert caught.value.target == f"pids={text}"


@pytest.mark.parametrize("text", ["0", "-1", "11", "99999999999999999999", "9" * 5000, "-" + "9" * 21])
def test_a_count_out_of_bounds_is_refused_with_the_bounds(text: str) -> None:
    with pytest.raises(LimitError, match="not in 1 to 10"):
        parse_count(text, "pids", minimum=1, maximum=10)


@given(st.integers(), st.integers(), st.integers())
def test_a_count_is_itself_within_its_bounds(value: int, minimum: int, maximum: int) -> None:
    inside = minimum <= value <= maximum and len(str(abs(value))) <= 20
    try:
        assert parse_count(str(value), "pids", minimum=minimum, maximum=maximum) == value
    except LimitError:
        assert not inside
    else:
        assert inside


# --- lists


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0", {0}),
        ("0-2,5", {0, 1, 2, 5}),
        ("5,0-2", {0, 1, 2, 5}),
        ("1,1,1-1", {1}),
        ("0-3,2-5", {0, 1, 2, 3, 4, 5}),
        (" 0-1 , 3 ", {0, 1, 3}),
        ("00001-00002", {1, 2}),
        ("99999", {99999}),
    ],
)
def test_lists_are_numbers_and_ranges(text: str, numbers: set[int]) -> None:
    assert parse_list(text, "cpuset") == numbers


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "0,",
        "a",
        "-1",
        "1-",
        "1-2-3",
        "1--2",
        "0 1",
        "1 - 2",
        "100000",
        "0-100000",
        "1.5",
        "٣",
        "0:2",
        "+1",
    ],
)
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(LimitError, match="not a list such as 0-2,5") as caught:
        parse_list(text, "cpuset.mems")
    assert caught.value.target == f"cpuset.mems={text}"


def test_a_range_that_runs_backwards_is_named() -> None:
    with pytest.raises(LimitError, match="the range 3-1 runs backwards"):
        parse_list("0,3-1", "cpuset")


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        (set(), ""),
        ({3}, "3"),
        ({0, 1}, "0-1"),
        ({0, 2}, "0,2"),
        ({5, 2, 0, 1}, "0-2,5"),
        ({0, 9, 10, 11, 100}, "0,9-11,100"),
    ],
)
def test_lists_are_written_as_the_kernel_writes_them(numbers: set[int], text: str) -> None:
    assert format_list(frozenset(numbers)) == text


@given(st.frozensets(st.integers(0, 300) | st.integers(0, 99999), min_size=1, max_size=80))
def test_a_list_reads_back_as_it_was_written(numbers: frozenset[int]) -> None:
    text = format_list(numbers)
    assert parse_list(text, "cpuset") == numbers
    assert format_list(parse_list(text, "cpuset")) == text


@given(st.text(alphabet="0129-, a٣", max_size=12))
def test_any_text_is_a_list_or_a_limit_error(text: str) -> None:
    try:
        numbers = parse_list(text, "cpuset")
    except LimitError:
        return
    assert numbers
    assert all(0 <= number <= 99999 for number in numbers)
