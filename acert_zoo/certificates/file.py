"""The certificate file: JSON Lines, one header and one line per image; see docs/certificates.md. Needs no torch.

Reading is strict: unknown keys, unknown schemas, numbers out of range, duplicated images and lines whose checksum does
not fit are errors. One line as bytes: `rows.py`; what it says: `lines.py`; proved again: `verify.py`.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from acert_zoo._files import read_plain
from acert_zoo.certificates.lines import Header, InvalidLineError, Line, need
from acert_zoo.certificates.rows import decode_row, encode_row, exact_fields, header_fields
from acert_zoo.errors import CertificateFileError
from acert_zoo.rounding import weakest

FORMAT = "acert-zoo-certificates"
SCHEMA_VERSION = 1


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
                header = Header(**header_fields(values, Header, FORMAT, SCHEMA_VERSION))
            else:
                line = Line(**exact_fields(Line, values))
                need(
                    line.certifies == header.certifies,
                    "certifies",
                    line.certifies,
                    f"the header's {header.certifies!r}",
                )
                level = header.rounding
                if weakest([line.rounding, level]) != level:
                    raise InvalidLineError(f"rounding {line.rounding!r} is weaker than the header's {level!r}")
                need(line.id not in seen, "id", line.id, "one that does not occur twice")
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


def format_row(item: Header | Line) -> bytes:
    """One line of the file, its newline and checksum included."""
    if isinstance(item, Header):
        return encode_row(item, format=FORMAT, schema_version=SCHEMA_VERSION)
    return encode_row(item)


def format_file(header: Header, lines: Iterable[Line]) -> bytes:
    """A whole file."""
    return format_row(header) + b"".join(format_row(line) for line in lines)
