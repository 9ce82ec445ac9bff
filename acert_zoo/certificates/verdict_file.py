"""The verdict file: JSON Lines, one header and one verdict an image, proofs and adversarial images with them.

Rows are those of `rows.py` (strict keys, a checksum each). What is packed and too long for a line goes
to a second file beside it, NAME.data; the line says where, how long, and its sha256. Reading believes nothing:
`verdict_check.py` proves every verdict again. See docs/decide.md. Needs no torch.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from acert_zoo._files import check_output_file, open_plain, read_plain, write_atomically
from acert_zoo.certificates.rows import decode_row, encode_row, exact_fields, header_fields
from acert_zoo.errors import CertificateFileError, InvalidInputError

FORMAT = "acert-zoo-verdicts"
SCHEMA_VERSION = 1
STATUSES = ("robust", "not robust", "undecided")
MAX_INLINE = 1 << 14  # bytes of base64
MAX_DATA = 1 << 27  # bytes of one packed proof or image


@dataclass(frozen=True, kw_only=True)
class VerdictHeader:
    """What all verdicts of a file have in common; fields as in `file.Header`. eps: as it was asked, "2/255" say."""

    package_version: str
    model: str | None
    model_version: int | None
    weights_sha256: str | None
    network_sha256: str
    eps: str
    dataset: str | None
    split: str | None
    n: int
    created: str
    norm: str = "linf"
    rounding: str = "real-sound"

    def differences(self, other: VerdictHeader) -> list[str]:
        """Names of the fields that must agree for two runs to share a file, and do not."""
        free = ("n", "created", "package_version")
        return [
            f.name
            for f in dataclasses.fields(self)
            if f.name not in free and getattr(self, f.name) != getattr(other, f.name)
        ]


@dataclass(frozen=True, kw_only=True)
class VerdictLine:
    """The verdict of one image; fields as in `complete.verdict.Verdict`.

    Attributes:
        data: a packed proof (robust) or the float32 pixels of the adversarial image (not robust), as {"base64": text},
            or {"offset": bytes, "length": bytes, "sha256": text} in the second file; None where there is none.
    """

    id: str
    pixel_sha256: str
    label: int
    prediction: int
    status: str
    method: str
    bound: float | None
    cases: int
    seconds: float
    note: str
    data: Any

    def __post_init__(self) -> None:
        for name in ("id", "pixel_sha256", "status", "method", "note"):
            value = getattr(self, name)
            if not isinstance(value, str) or len(value) > 1024:
                raise CertificateFileError(f"{name} is {value!r:.60}; expected a string of at most 1,024 characters")
        for name in ("label", "prediction", "cases"):
            if type(getattr(self, name)) is not int or not 0 <= getattr(self, name) < 2**31:
                raise CertificateFileError(
                    f"{name} is {getattr(self, name)!r:.60}; expected an integer from 0 to 2^31 - 1"
                )
        if self.status not in STATUSES:
            raise CertificateFileError(f"status is {self.status!r:.60}; expected {' or '.join(map(repr, STATUSES))}")
        if type(self.seconds) not in (int, float) or not (self.bound is None or type(self.bound) in (int, float)):
            raise CertificateFileError(f"seconds is {self.seconds!r:.40}, bound {self.bound!r:.40}; expected numbers")


@dataclass(frozen=True)
class VerdictFile:
    """Attributes:
    torn: the file ends in the middle of a line. altered: line numbers whose checksum does not fit.
    """

    path: Path
    header: VerdictHeader
    lines: tuple[VerdictLine, ...]
    torn: bool
    altered: tuple[int, ...]

    def data(self, line: VerdictLine) -> bytes | None:
        """The packed proof or image of a line.

        Raises:
            CertificateFileError: it is not there, not valid, or has another digest.
        """
        where = line.data
        if where is None:
            return None
        if isinstance(where, dict) and where.keys() == {"base64"} and isinstance(where["base64"], str):
            try:
                return base64.b64decode(where["base64"], validate=True)
            except binascii.Error as error:
                raise CertificateFileError(f"the data of {line.id!r} is no base64: {error}") from error
        if not isinstance(where, dict) or where.keys() != {"offset", "length", "sha256"}:
            raise CertificateFileError(
                f"the data of {line.id!r} is {where!r:.60}; expected base64, or offset, length and sha256"
            )
        offset, length = where["offset"], where["length"]
        if not all(type(v) is int and v >= 0 for v in (offset, length)) or length > MAX_DATA:
            raise CertificateFileError(
                f"data of {line.id!r} at {offset!r:.40} of length {length!r:.40}; expected integers"
            )
        try:
            with open_plain(data_path(self.path)) as file:
                file.seek(offset)
                content = file.read(length)
        except OSError as error:
            raise CertificateFileError(f"the data of {line.id!r} cannot be read: {error}") from error
        if hashlib.sha256(content).hexdigest() != where["sha256"]:
            raise CertificateFileError(f"the data of {line.id!r} in {str(data_path(self.path))!r} has another digest")
        return content


def data_path(path: str | os.PathLike[str]) -> Path:
    """The second file, for what is too long for a line."""
    return Path(f"{os.fspath(path)}.data")


def is_verdict_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as verdict files do (a certificate file, or anything else, does not)."""
    try:
        with open_plain(path) as file:
            return file.read(64).startswith(f'{{"format": "{FORMAT}"'.encode())
    except OSError:
        return False


def read_verdicts(path: str | os.PathLike[str], *, partial: bool = False) -> VerdictFile:
    """Reads a verdict file.

    Raises:
        CertificateFileError: missing, no verdict file, damaged, or (unless `partial`) shorter than announced.
    """
    try:
        content = read_plain(path)
    except OSError as error:
        raise CertificateFileError(f"verdict file {str(path)!r} cannot be read: {error}") from error
    parts = content.split(b"\n")
    torn = parts.pop() != b""
    header, lines, altered = None, [], []
    for number, part in enumerate(parts, start=1):
        try:
            values, intact = decode_row(part)
            if header is None:
                header = VerdictHeader(**header_fields(values, VerdictHeader, FORMAT, SCHEMA_VERSION))
            else:
                lines.append(VerdictLine(**exact_fields(VerdictLine, values)))
        except (ValueError, TypeError) as error:
            raise CertificateFileError(f"{path}, line {number}: {error}") from None
        if not intact:
            altered.append(number)
    if header is None:
        raise CertificateFileError(f"{path} is no verdict file: it has no complete header line")
    if len({line.id for line in lines}) != len(lines):
        raise CertificateFileError(f"{path}: an id occurs twice")
    if not partial and (torn or len(lines) != header.n):
        raise CertificateFileError(
            f"{path} holds {len(lines)} verdicts where its header announces {header.n}; the same command continues it"
        )
    return VerdictFile(Path(path), header, tuple(lines), torn, tuple(altered))


def _row(item: VerdictHeader | VerdictLine) -> bytes:
    if isinstance(item, VerdictHeader):
        return encode_row(item, format=FORMAT, schema_version=SCHEMA_VERSION)
    return encode_row(item)


class VerdictWriter:
    """A verdict file open for appending, new or left by an earlier run; a context manager.

    Attributes:
        kept: the verdicts that the file already holds, by id.

    Raises:
        InvalidInputError: the file cannot be written. CertificateFileError: it is damaged or of another run.
    """

    def __init__(self, path: str | os.PathLike[str], header: VerdictHeader, ids: Sequence[str]) -> None:
        check_output_file(path)
        self.path = Path(path)
        self.kept: dict[str, VerdictLine] = {}
        if self.path.exists() and self.path.stat().st_size:
            old = read_verdicts(path, partial=True)
            different = old.header.differences(header)
            if different or old.altered:
                what = f"another run ({', '.join(different)} differ)" if different else "altered lines"
                raise CertificateFileError(f"{str(path)!r} holds verdicts of {what}; name another file")
            self.kept = {line.id: line for line in old.lines}
        header = dataclasses.replace(header, n=len(self.kept.keys() | set(ids)))
        try:
            write_atomically(self.path, _row(header) + b"".join(_row(line) for line in self.kept.values()))
            self._file: BinaryIO = open(self.path, "ab")  # noqa: SIM115 (closed by __exit__)
        except OSError as error:
            raise InvalidInputError(f"output file {str(path)!r} cannot be written: {error}") from error

    def append(self, line: VerdictLine, data: bytes | None) -> VerdictLine:
        """Writes one verdict with its data, the data first; returns the line as written."""
        line = dataclasses.replace(line, data=None if data is None else self._place(data))
        self._file.write(_row(line))
        self._file.flush()
        os.fsync(self._file.fileno())
        return line

    def _place(self, data: bytes) -> dict[str, Any]:
        text = base64.b64encode(data).decode("ascii")
        if len(text) <= MAX_INLINE:
            return {"base64": text}
        if len(data) > MAX_DATA:
            raise CertificateFileError(f"a proof of {len(data):,} bytes is larger than {MAX_DATA:,}")
        with open(data_path(self.path), "ab") as file:
            offset = file.seek(0, os.SEEK_END)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return {"offset": offset, "length": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def __enter__(self) -> VerdictWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
