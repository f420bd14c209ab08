"""What a JSON file of a caller's may be before anything in it is looked at."""

from __future__ import annotations

import time

import pytest

from gocker.errors import UsageError
from gocker.oci.document import MAX_BYTES, MAX_DEPTH, parse_document


def refusal(data: bytes) -> str:
    with pytest.raises(UsageError) as caught:
        parse_document(data, "read config.json")
    return str(caught.value)


def nested(levels: int) -> bytes:
    """An object of `levels` levels, every other one a list."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_an_object_is_read() -> None:
    data = rb'{"a": [1, -2, 1.5, true, null, "\u00e9\ud83d\ude00 \"[{\\"]}'
    assert parse_document(data, "read config.json") == {"a": [1, -2, 1.5, True, None, 'é😀 "[{\\']}


@pytest.mark.parametrize("data", [b"null", b"[]", b"1", b'"x"', b"true"])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    assert refusal(data) == f"read config.json: {data.decode()} is not an object"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"{}}", b"{'a': 1}", b'{"a": 1,}', b'{"a": 01}', b'{"a": "\n"}', b"{} // end"]
)
def test_what_is_not_json_is_refused(data: bytes) -> None:
    assert refusal(data).startswith("read config.json: not JSON: ")


@pytest.mark.parametrize(
    "data", [b'{"a": "\xff"}', b"\xef\xbb\xbf{}", "{}".encode("utf-16"), "{}".encode("utf-32")]
)
def test_what_is_not_utf_8_is_refused(data: bytes) -> None:
    assert refusal(data).startswith("read config.json: ")


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999"])
def test_a_number_that_is_none_is_refused(number: bytes) -> None:
    assert number.decode() in refusal(b'{"a": %s}' % number)


def test_a_number_of_five_thousand_digits_is_refused() -> None:
    assert "not JSON" in refusal(b'{"a": %s}' % (b"9" * 5000))


@pytest.mark.parametrize("data", [b'{"z": 1, "a": 1, "a": 1}', b'{"b": [{"a": 1, "c": 2, "\\u0061": 3}]}'])
def test_a_name_that_stands_twice_is_refused(data: bytes) -> None:
    assert refusal(data) == 'read config.json: not JSON: an object has the name "a" twice'


def test_a_nul_is_refused_wherever_it_is() -> None:
    assert refusal(rb'{"a": {"b": ["x", "y\u0000"]}}') == "read config.json a.b[1]: has a NUL character"
    assert refusal(rb'{"a": {"b\u0000": 1}}') == r'read config.json a["b\u0000"]: has a NUL character'


@pytest.mark.parametrize("text", [rb"\ud800", rb"\udfff", rb"\ude00\ud83d", rb"\udcff"])
def test_half_a_surrogate_pair_is_refused(text: bytes) -> None:
    reason = "has half a surrogate pair, which is no character"
    assert refusal(b'{"a": "%s"}' % text) == f"read config.json a: {reason}"


def test_four_mebibytes_are_read_and_no_byte_more() -> None:
    assert parse_document(b"{}" + b" " * (MAX_BYTES - 2), "read config.json") == {}
    assert (
        refusal(b"{}" + b" " * (MAX_BYTES - 1))
        == f"read config.json: {MAX_BYTES + 1} bytes, more than {MAX_BYTES}"
    )


def test_64_levels_are_read_and_no_level_more() -> None:
    parse_document(nested(MAX_DEPTH), "read config.json")
    assert "more than 64 levels deep" in refusal(nested(MAX_DEPTH + 1))


def test_brackets_in_a_text_are_no_levels() -> None:
    text = "[{" * 1000
    assert parse_document(b'{"a": "\\"%s"}' % text.encode(), "read config.json") == {"a": f'"{text}'}


@pytest.mark.parametrize(
    "data",
    [
        b"[" * MAX_BYTES,
        b'{"a":' * (MAX_BYTES // 5),
        b"[]" * (MAX_BYTES // 2),
        b'"' * MAX_BYTES,
        b'"' + b'\\"' * (MAX_BYTES // 2 - 1) + b"\\",
        b'{"a' + b"\\" * (MAX_BYTES - 3),
        b'{"a": "' + b"x" * (MAX_BYTES - 7),
    ],
    ids=["lists", "objects", "flat", "quotes", "escapes", "backslashes", "text"],
)
def test_four_hostile_mebibytes_are_refused_within_seconds(data: bytes) -> None:
    start = time.monotonic()
    refusal(data)
    assert time.monotonic() - start < 5


def test_an_error_is_one_short_line() -> None:
    text = refusal(b'{"a": 1, "%s": 2, "%s": 2}' % (b"n" * 10_000, b"n" * 10_000))
    assert len(text) < 200
    assert "\n" not in text
