"""The certificate file as text: incomplete files, and lines weaker than their header."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from acert_zoo.certificates.file import format_file, parse, read_file
from acert_zoo.certificates.results import Certificates
from acert_zoo.errors import CertificateFileError
from tests.support.certificates import certificates, header


def test_incomplete_file(tmp_path: Path) -> None:
    content = format_file(header(n=2), certificates([0.5, 0.25]).lines())
    rows = content.splitlines(keepends=True)
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"".join(rows[:2]))
    with pytest.raises(CertificateFileError, match="holds 1 certificates where its header announces 2"):
        Certificates.load(path)
    assert Certificates.load(path, partial=True).radius.tolist() == [0.5]
    path.write_bytes(content[:-20])
    with pytest.raises(CertificateFileError, match="ends in the middle of line 3"):
        Certificates.load(path)
    file = read_file(path, partial=True)
    assert file.torn
    assert not file.complete
    assert len(file.lines) == 1


def test_a_line_weaker_than_the_header_is_refused() -> None:
    (line,) = certificates([0.25]).lines()
    with pytest.raises(CertificateFileError, match="line 2: rounding 'float32' is weaker than the header's"):
        parse(format_file(header(n=1), [dataclasses.replace(line, rounding="float32")]))
