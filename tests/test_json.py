"""JSON that nobody vouches for: nesting is limited, and the canonical layout does not depend on the given one."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acert_zoo._json import MAX_DEPTH, canonical_json, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_depth_by_hand() -> None:
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    with pytest.raises(ValueError, match="nested more than"):
        parse_json("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    with pytest.raises(ValueError, match="nested more than"):
        parse_json('{"a":' * 500)


@pytest.mark.parametrize("text", ['"' + "[" * 500 + '"', '["\\"' + "{" * 500 + '"]', '{"a": "]]]]", "b": [1]}'])
def test_brackets_in_strings_do_not_count(text: str) -> None:
    assert parse_json(text) == json.loads(text)


def test_closing_brackets_in_strings_hide_nothing() -> None:
    with pytest.raises(ValueError, match="nested more than"):
        parse_json('["]",' * 100_000)


def test_a_raised_recursion_limit_changes_nothing() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        with pytest.raises(ValueError, match="nested more than"):
            parse_json("[" * 1_000_000)
    finally:
        sys.setrecursionlimit(limit)


@given(VALUES)
def test_anything_else_is_parsed_as_json_does(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


@given(st.text(alphabet='[]{}"\\,:a1 ', max_size=60))
def test_what_is_no_json_is_an_error(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            parse_json(text)
    else:
        assert parse_json(text) == expected


def test_the_canonical_layout_by_hand() -> None:
    content = b'{\n "a": [\n  1,\n  2\n ],\n "b": "\\u00e9"\n}\n'
    assert canonical_json(content) == content
    other = '\ufeff{"a":[1,  2],\r\n"b":"é"}'.encode()
    assert canonical_json(other) == content
    assert canonical_json(b'{"b": 1, "a": 2}') != canonical_json(b'{"a": 2, "b": 1}'), "the order of keys stays"
    for bad in (b"", b"{", b"\xff", b'{"a": 1, "a": 1}', b"NaN", b"[" * 200 + b"]" * 200):
        with pytest.raises(ValueError, match=r"."):
            canonical_json(bad)


@given(VALUES, st.sampled_from([None, 0, 3]))
def test_the_canonical_layout_does_not_depend_on_the_given_one(value: object, indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=indent == 0).replace("\n", "\r\n")
    if "\\ud" not in json.dumps(value):  # lone surrogates have no UTF-8
        assert canonical_json(text.encode()) == canonical_json(json.dumps(value).encode())
