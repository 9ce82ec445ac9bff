"""Rows of the package's JSON Lines files: one JSON object with a checksum at its end. Needs no torch.

The checksum finds damage, not forgery: what a row claims is to be believed once it was proved again.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import zlib
from typing import Any

from acert_zoo._json import parse_json
from acert_zoo.certificates.lines import InvalidLineError, show
from acert_zoo.errors import CertificateFileError

MAX_ROW = 1 << 16  # bytes

_SUFFIX = re.compile(rb', "crc32": "([0-9a-f]{8})"\}')
_SUFFIX_LENGTH = len(', "crc32": "00000000"}')


def encode_row(item: Any, **first: Any) -> bytes:
    """The fields of a dataclass as one row, its newline and checksum included; `first` stand before them.

    Raises:
        CertificateFileError: the row is longer than `MAX_ROW`.
    """
    values = {**first, **{f.name: getattr(item, f.name) for f in dataclasses.fields(item)}}
    text = json.dumps(values, allow_nan=False, ensure_ascii=True)[:-1].encode("ascii")
    row = text + b', "crc32": "%08x"}\n' % zlib.crc32(text)
    if len(row) > MAX_ROW:
        raise CertificateFileError(f"a line of {len(row)} bytes is too long; expected at most {MAX_ROW}")
    return row


def decode_row(row: bytes) -> tuple[dict[str, Any], bool]:
    """(JSON object without its checksum, whether the checksum fits).

    Raises:
        InvalidLineError: not one JSON object in UTF-8 with a "crc32" at its end; a key twice, numbers out of range.
    """
    if len(row) > MAX_ROW:
        raise InvalidLineError(f"longer than {MAX_ROW} bytes")
    suffix = _SUFFIX.fullmatch(row[-_SUFFIX_LENGTH:])
    try:
        values = parse_json(
            row.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_float, object_pairs_hook=_distinct
        )
    except RecursionError:
        raise InvalidLineError("nested too deeply") from None
    except InvalidLineError:
        raise
    except ValueError as error:  # not UTF-8, not JSON, an integer of thousands of digits
        raise InvalidLineError(f"not JSON: {str(error)[:200]}") from None
    if not isinstance(values, dict):
        raise InvalidLineError("not a JSON object")
    if suffix is None or "crc32" not in values:
        raise InvalidLineError('no "crc32" at the end')
    del values["crc32"]
    return values, f"{zlib.crc32(row[:-_SUFFIX_LENGTH]):08x}" == suffix[1].decode()


def header_fields(values: dict[str, Any], cls: type, file_format: str, schema_version: int) -> dict[str, Any]:
    """The arguments of header `cls` from a decoded first row.

    Raises:
        InvalidLineError: another format or schema version; keys that are missing or unknown.
    """
    if values.get("format") != file_format:
        raise InvalidLineError(f"its format is {show(values.get('format'))}; expected {file_format!r}")
    version = values.get("schema_version")
    if type(version) is not int or version != schema_version:
        raise InvalidLineError(f"schema_version {show(version)} is not known; this version reads {schema_version}")
    return exact_fields(cls, {k: v for k, v in values.items() if k not in ("format", "schema_version")})


def exact_fields(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    """`values`, if their keys are exactly the fields of dataclass `cls`; else an InvalidLineError that names them."""
    wanted = {f.name for f in dataclasses.fields(cls)}
    if values.keys() != wanted:
        missing, unknown = sorted(wanted - values.keys()), sorted(values.keys() - wanted)
        raise InvalidLineError(f"missing keys {missing[:5]}, unknown keys {[show(k) for k in unknown[:5]]}")
    return values


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        _refuse_constant(text)
    return value


def _refuse_constant(name: str) -> Any:
    raise InvalidLineError(f"{name} is no float64 number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise InvalidLineError("a key occurs twice")
    return values
