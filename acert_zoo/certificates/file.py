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
from acert_zoo.errors import CertificateFileError
from acert_zoo.exact_numbers import shortest_down
from acert_zoo.rounding import BoundMethod, RoundingLevel, weakest

FORMAT = "acert-zoo-certificates"
SCHEMA_VERSION = 1
MAX_LINE = 1 << 16  # bytes

_DIGEST = re.compile(r"[0-9a-f]{64}")
_RADIUS = re.compile(r"[0-9]{1,40}(\.[0-9]{1,400})?(e-?[0-9]{1,3})?")
_SUFFIX = re.compile(rb', "crc32": "([0-9a-f]{8})"\}')
_SUFFIX_LENGTH = len(', "crc32": "00000000"}')


class _Invalid(ValueError):
    """What is wrong with one line; the reader adds where."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What all lines of a file have in common.

    Attributes:
        model, model_version: registered name and version, or None for a network of one's own.
        weights_sha256: digest of the weights file, None where the network came from none.
        network_sha256: digest of the network that bounds saw (`certificates.network_sha256`).
        rounding: the weakest level of any line; while the file is incomplete, the weakest that any line may yet have.
        certifies: "label" (given labels) or "prediction" (the model's own).
        n: how many lines the complete file has.
        created: ISO 8601, UTC.
    """

    package_version: str
    model: str | None
    model_version: int | None
    weights_sha256: str | None
    network_sha256: str
    method: str
    rounding: str
    certifies: str
    dataset: str | None
    split: str | None
    n: int
    created: str
    norm: str = "linf"

    def __post_init__(self) -> None:
        for name in ("package_version", "method", "created"):
            _need_string(name, getattr(self, name))
        for name in ("model", "dataset", "split"):
            if getattr(self, name) is not None:
                _need_string(name, getattr(self, name))
        if self.model_version is not None:
            _need_integer("model_version", self.model_version)
        _need(self.weights_sha256 is None or _digest(self.weights_sha256), "weights_sha256", self.weights_sha256)
        _need(_digest(self.network_sha256), "network_sha256", self.network_sha256)
        _need(self.rounding in tuple(RoundingLevel), "rounding", self.rounding)
        _need(self.certifies in ("label", "prediction"), "certifies", self.certifies)
        _need_integer("n", self.n)
        _need(self.norm == "linf", "norm", self.norm)

    def differences(self, other: Header) -> list[str]:
        """Names of the fields that must agree for two runs to share a file, and do not."""
        free = ["n", "created", "package_version"]
        if self.method != BoundMethod.IBP:
            free.append("rounding")  # known only when the lines are there
        names = [f.name for f in dataclasses.fields(self) if f.name not in free]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


@dataclass(frozen=True, kw_only=True)
class Line:
    """The certificate of one image.

    Attributes:
        radius: decimal string; neither its exact value nor its float64 reading exceeds what was proved.
        margin: proved lower bound of the margin at that radius, in logit units; None where nothing was proved, and for
            cascades, whose radius belongs to several margins.
        route: how a cascade answered, else None.
    """

    id: str
    pixel_sha256: str
    label: int
    prediction: int
    certifies: str
    radius: str
    margin: float | None
    method: str
    rounding: str
    seconds: float
    route: Any = None

    def __post_init__(self) -> None:
        _need_string("id", self.id)
        _need(_digest(self.pixel_sha256), "pixel_sha256", self.pixel_sha256)
        _need_integer("label", self.label)
        _need_integer("prediction", self.prediction)
        _need(self.certifies in ("label", "prediction"), "certifies", self.certifies)
        _need(isinstance(self.radius, str) and len(self.radius) < 450, "radius", self.radius)
        _need(_RADIUS.fullmatch(self.radius) is not None and 0 <= float(self.radius) <= 1, "radius", self.radius)
        if self.margin is not None:
            _need_number("margin", self.margin)
        _need_string("method", self.method)
        _need(self.rounding in tuple(RoundingLevel), "rounding", self.rounding)
        _need_number("seconds", self.seconds)
        _need(self.seconds >= 0, "seconds", self.seconds)

    def contradictions(self) -> list[str]:
        """What cannot be true whatever the image is."""
        found = []
        if self.certifies == "prediction" and self.label != self.prediction:
            found.append(f"certifies the prediction {self.prediction}, but has label {self.label}")
        elif float(self.radius) > 0 and self.label != self.prediction:
            found.append(
                f"has radius {self.radius} although label {self.label} is not the prediction {self.prediction}"
            )
        if float(self.radius) > 0 and (self.route is None if self.margin is None else self.margin <= 0):
            found.append(f"has radius {self.radius} at a margin of {self.margin}")
        return found


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
            values, intact = _decode(row)
            if header is None:
                header = _header(values)
            else:
                line = Line(**_keys(Line, values))
                _need(line.certifies == header.certifies, "certifies", line.certifies)
                if weakest([line.rounding, header.rounding]) != header.rounding:
                    raise _Invalid(f"rounding {line.rounding!r} is weaker than the header's {header.rounding!r}")
                _need(line.id not in seen, "id that occurs twice:", line.id)
                seen.add(line.id)
                lines.append(line)
                if not keep_altered and line.contradictions():
                    raise _Invalid(line.contradictions()[0])
            if not intact and not keep_altered:
                raise _Invalid("its checksum does not fit: the line was altered")
        except _Invalid as error:
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
        raise _Invalid(f"not the header of a certificate file (format is {_show(values.get('format'))})")
    version = values.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise _Invalid(f"schema_version {_show(version)} is not known; this version reads {SCHEMA_VERSION}")
    return Header(**_keys(Header, {k: v for k, v in values.items() if k not in ("format", "schema_version")}))


def _decode(row: bytes) -> tuple[dict[str, Any], bool]:
    """(JSON object without its checksum, whether the checksum fits)."""
    if len(row) > MAX_LINE:
        raise _Invalid(f"longer than {MAX_LINE} bytes")
    suffix = _SUFFIX.fullmatch(row[-_SUFFIX_LENGTH:])
    try:
        values = parse_json(
            row.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_float, object_pairs_hook=_distinct
        )
    except RecursionError:
        raise _Invalid("nested too deeply") from None
    except _Invalid:
        raise
    except ValueError as error:  # not UTF-8, not JSON, an integer of thousands of digits
        raise _Invalid(f"not JSON: {str(error)[:200]}") from None
    if not isinstance(values, dict):
        raise _Invalid("not a JSON object")
    if suffix is None or "crc32" not in values:
        raise _Invalid('no "crc32" at the end')
    del values["crc32"]
    return values, f"{zlib.crc32(row[:-_SUFFIX_LENGTH]):08x}" == suffix[1].decode()


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        _refuse_constant(text)
    return value


def _refuse_constant(name: str) -> Any:
    raise _Invalid(f"{name} is no float64 number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise _Invalid("a key occurs twice")
    return values


def _keys(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    wanted = {f.name for f in dataclasses.fields(cls)}
    if values.keys() != wanted:
        missing, unknown = sorted(wanted - values.keys()), sorted(values.keys() - wanted)
        raise _Invalid(f"missing keys {missing[:5]}, unknown keys {[_show(k) for k in unknown[:5]]}")
    return values


def _need(condition: bool, name: str, value: Any) -> None:
    if not condition:
        raise _Invalid(f"{name} {_show(value)} is not valid")


def _need_string(name: str, value: Any) -> None:
    _need(isinstance(value, str) and 0 < len(value) <= 1024, name, value)


def _need_integer(name: str, value: Any) -> None:
    _need(type(value) is int and 0 <= value < 2**31, name, value)


def _need_number(name: str, value: Any) -> None:
    _need(type(value) in (int, float) and abs(value) < 2**1023 and math.isfinite(value), name, value)


def _digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _show(value: Any) -> str:
    try:
        return repr(value)[:60]
    except (ValueError, RecursionError):  # an integer too long to print, or deep nesting
        return f"a {type(value).__name__}"


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


def radius_text(radius: float) -> str:
    """The radius as a file holds it: the shortest decimal that claims no more, checked by reading it back."""
    text = shortest_down(radius)
    if float(text) > radius:
        raise AssertionError(f"{text!r} reads as more than {radius!r}")
    return text
