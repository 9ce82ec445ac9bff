"""One row as bytes: by hand, altered, and what is no row (whole files: test_file.py, test_file_fuzz.py)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import pytest

from acert_zoo.certificates import rows
from acert_zoo.certificates.lines import InvalidLineError
from acert_zoo.errors import CertificateFileError


@dataclass
class Item:
    a: int
    b: str = "x"


def test_a_row_by_hand() -> None:
    text = b'{"a": 1, "b": "x"'
    row = rows.encode_row(Item(1))
    assert row == text + b', "crc32": "%08x"}\n' % zlib.crc32(text)
    assert rows.decode_row(row[:-1]) == ({"a": 1, "b": "x"}, True)
    assert rows.decode_row(row[:-1].replace(b"1", b"2", 1)) == ({"a": 2, "b": "x"}, False)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"[1]", "not a JSON object"),
        (b'{"a": 1}', 'no "crc32"'),
        (b'{"a": 1, "a": 2, "crc32": "00000000"}', "a key occurs twice"),
        (b'{"a": 1e999, "crc32": "00000000"}', "no float64 number"),
        (b'{"a": NaN, "crc32": "00000000"}', "no float64 number"),
        (b"\xff", "not JSON"),
        (b" " * (rows.MAX_ROW + 1), "longer than"),
    ],
)
def test_what_is_no_row(row: bytes, message: str) -> None:
    with pytest.raises(InvalidLineError, match=message):
        rows.decode_row(row)


def test_a_row_that_nobody_would_read_is_not_written() -> None:
    with pytest.raises(CertificateFileError, match="too long"):
        rows.encode_row(Item(1, "x" * rows.MAX_ROW))


def test_a_header_names_its_format_and_its_fields() -> None:
    values = {"format": "f", "schema_version": 1, "a": 1, "b": "x"}
    assert rows.header_fields(values, Item, "f", 1) == {"a": 1, "b": "x"}
    for changes, message in [
        ({"format": "g"}, "its format is 'g'; expected 'f'"),
        ({"schema_version": 2}, "schema_version 2 is not known"),
        ({"schema_version": True}, "schema_version True is not known"),
        ({"c": 1}, "unknown keys"),
    ]:
        with pytest.raises(InvalidLineError, match=message):
            rows.header_fields(values | changes, Item, "f", 1)
    with pytest.raises(InvalidLineError, match=r"missing keys \['b'\]"):
        rows.exact_fields(Item, {"a": 1})
