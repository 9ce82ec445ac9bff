"""The certificate file: JSON Lines, one header and one line per image; see docs/certificates.md. Needs no torch.

Reading is strict: unknown keys, unknown schemas, numbers out of range, duplicated images and lines whose checksum does
not fit are errors. The checksum finds damage, not forgery: what a line claims is to be believed once it was proved
again (`verify.py`).
"""

from __future__ import annotations

import codecs
import dataclasses
import json
import math
import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from acert_zoo._files import read_plain
from acert_zoo._json import parse_json
from acert_zoo.certificates.lines import Header, InvalidLineError, Line, need, show
from acert_zoo.errors import CertificateFileError
from acert_zoo.rounding import weakest

FORMAT = "acert-zoo-certificates"
SCHEMA_VERSION = 1
MAX_LINE = 1 << 16  # bytes

_SUFFIX = re.compile(rb', "crc32": "([0-9a-f]{8})"\}')
_SUFFIX_LENGTH = len(', "crc32": "00000000"}')


@dataclass(frozen=True)
class CertificateFile:
    """What a file says.

    Attributes:
        torn: the file ends in the middle of a line (a crash while writing); that line is not among `lines`.
        altered: line numbers in the file, from 1 (the header), whose checksum does not fit their content.
    """

    header: Header
    lines: tuple[Line, ...]
    torn: bool = False
    altered: tuple[int, ...] = field(default=())

    @property
    def complete(self) -> bool:
        return not self.torn and len(self.lines) == self.header.n


def read_file(path: str | os.PathLike[str], *, partial: bool = False, keep_altered: bool = False) -> CertificateFile:
    """Reads a certificate file.

    Args:
        partial: accept a file that a broken-off run left: fewer lines than announced, a torn last line.
        keep_altered: keep lines that contradict themselves, and report those with a wrong checksum in `altered`.

    Raises:
        CertificateFileError: missing, unreadable, of an unknown schema, or damaged; the message names the line.
    """
    try:
        content = read_plain(path)
    except OSError as error:
        raise CertificateFileError(f"certificate file {str(path)!r} cannot be read: {error.strerror}") from error
    return parse(content, str(path), partial=partial, keep_altered=keep_altered)


def parse(
    content: bytes, source: str = "certificate file", *, partial: bool = False, keep_altered: bool = False
) -> CertificateFile:
    """The file whose bytes are `content`; arguments and errors as `read_file`."""
    # Windows' line ends and byte order mark say nothing; inside a line they would be an error.
    rows = [row.removesuffix(b"\r") for row in content.removeprefix(codecs.BOM_UTF8).split(b"\n")]
    if b'"format"' not in rows[0]:  # damage to a header leaves the word
        raise CertificateFileError(f"{source} is not a certificate file: its first line is no header of one")
    torn = rows.pop() != b""
    if not rows:
        raise CertificateFileError(f"{source} is not a certificate file: it has no complete header line")
    if torn and not partial:
        raise CertificateFileError(f"{source} ends in the middle of line {len(rows) + 1}: it is truncated")
    altered: list[int] = []
    header, lines, seen = None, [], set()
    for number, row in enumerate(rows, start=1):
        try:
            values, intact = decode_row(row)
            if header is None:
                header = _header(values)
            else:
                line = Line(**_keys(Line, values))
                need(line.certifies == header.certifies, "certifies", line.certifies)
                level = header.rounding
                if weakest([line.rounding, level]) != level:
                    raise InvalidLineError(f"rounding {line.rounding!r} is weaker than the header's {level!r}")
                need(line.id not in seen, "id that occurs twice:", line.id)
                seen.add(line.id)
                lines.append(line)
                if not keep_altered and line.contradictions():
                    raise InvalidLineError(line.contradictions()[0])
            if not intact and not keep_altered:
                raise InvalidLineError("its checksum does not fit: the line was altered")
        except InvalidLineError as error:
            raise CertificateFileError(f"{source}, line {number}: {error}") from None
        if not intact:
            altered.append(number)
    assert header is not None
    if len(lines) > header.n or (not partial and len(lines) != header.n):
        raise CertificateFileError(
            f"{source} holds {len(lines)} certificates where its header announces {header.n}"
            + ("; certify with the same arguments continues it" if len(lines) < header.n else "")
        )
    return CertificateFile(header, tuple(lines), torn, tuple(altered))


def _header(values: dict[str, Any]) -> Header:
    if values.get("format") != FORMAT:
        raise InvalidLineError(f"not the header of a certificate file (format is {show(values.get('format'))})")
    version = values.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise InvalidLineError(f"schema_version {show(version)} is not known; this version reads {SCHEMA_VERSION}")
    return Header(**_keys(Header, {k: v for k, v in values.items() if k not in ("format", "schema_version")}))


def decode_row(row: bytes) -> tuple[dict[str, Any], bool]:
    """(JSON object without its checksum, whether the checksum fits)."""
    if len(row) > MAX_LINE:
        raise InvalidLineError(f"longer than {MAX_LINE} bytes")
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


def _keys(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    wanted = {f.name for f in dataclasses.fields(cls)}
    if values.keys() != wanted:
        missing, unknown = sorted(wanted - values.keys()), sorted(values.keys() - wanted)
        raise InvalidLineError(f"missing keys {missing[:5]}, unknown keys {[show(k) for k in unknown[:5]]}")
    return values


def format_row(item: Header | Line) -> bytes:
    """One line of the file, its newline and checksum included."""
    values = {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}
    if isinstance(item, Header):
        values = {"format": FORMAT, "schema_version": SCHEMA_VERSION, **values}
    text = json.dumps(values, allow_nan=False, ensure_ascii=True)[:-1].encode("ascii")
    row = text + b', "crc32": "%08x"}\n' % zlib.crc32(text)
    if len(row) > MAX_LINE:
        raise CertificateFileError(f"a line of {len(row)} bytes is too long for a certificate file")
    return row


def format_file(header: Header, lines: Iterable[Line]) -> bytes:
    """A whole file."""
    return format_row(header) + b"".join(format_row(line) for line in lines)
