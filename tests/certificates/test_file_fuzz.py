"""100,000 damaged certificate files: each is refused or means exactly what an undamaged file meant. Never a crash."""

from __future__ import annotations

import json
import random
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from acert_zoo.certificates.file import CertificateFile, format_file, format_row, parse
from acert_zoo.certificates.lines import Header, Line
from acert_zoo.errors import CertificateFileError

MUTATIONS = 100_000


def sample(n: int = 2) -> bytes:
    header = Header(
        package_version="0.1.0",
        model="m",
        model_version=1,
        weights_sha256="0" * 64,
        network_sha256="1" * 64,
        method="ibp",
        rounding="real-sound",
        certifies="label",
        dataset="cifar10",
        split="test",
        n=n,
        created="2026-01-01T00:00:00+00:00",
    )
    lines = [
        Line(
            id=str(i),
            pixel_sha256=f"{i:064x}",
            label=3,
            prediction=3 + (i == 1),
            certifies="label",
            radius="0.0" if i == 1 else f"0.00{i + 1}25",
            margin=None if i == 1 else 1e-7,
            method="ibp",
            rounding="real-sound",
            seconds=0.001,
        )
        for i in range(n)
    ]
    return format_file(header, lines)


SAMPLE = sample()
MEANT = parse(SAMPLE)
TOKENS = [
    b"NaN",
    b"Infinity",
    b"-1",
    b"1e999",
    b"9" * 5000,
    b"[" * 30_000,
    b"{",
    b"}",
    b"null",
    b"\n",
    b"\xff",
    b"\\u0000",
]
TOKENS += [b'"', b"0", b'"radius": "1.0"', b"true", b"\x00", b'{"a":' * 5000, b"\r\n", b"\\ud800", b"-0", b"1e-400"]


def outcome(content: bytes, **options: bool) -> CertificateFile | None:
    """None where the file is refused; any other exception fails the test."""
    try:
        return parse(content, **options)
    except CertificateFileError:
        return None


def mutate(rng: random.Random, content: bytes) -> bytes:
    kind, at = rng.randrange(7), rng.randrange(len(content))
    if kind == 0:
        return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
    if kind == 1:
        return content[:at]
    if kind == 2:
        return content[:at] + content[at + rng.randrange(1, 40) :]
    if kind == 3:
        return content[:at] + rng.choice(TOKENS[:4] + TOKENS[6:15] + TOKENS[16:]) + content[at:]
    rows = content.splitlines(keepends=True)
    i, j = rng.randrange(len(rows)), rng.randrange(len(rows))
    if kind == 4:  # a line twice
        return b"".join([*rows[:i], rows[j], *rows[i:]])
    if kind == 5:  # a line lost
        return b"".join(rows[:i] + rows[i + 1 :])
    digit = bytes([rng.choice(b"0123456789")])
    return content[:at] + digit + content[at + 1 :]


def test_mutated_files() -> None:
    """Refused as they stand; read tolerantly, they hold intact lines, or say which ones were altered."""
    rng = random.Random(0)
    refused = partly = told = 0
    for _ in range(MUTATIONS):
        damaged = mutate(rng, SAMPLE)
        if damaged == SAMPLE:
            continue
        if rng.random() < 0.1:
            assert outcome(damaged) is None, damaged
            refused += 1
        elif rng.random() < 0.5:
            file = outcome(damaged, partial=True)
            assert file is None or set(file.lines) <= set(MEANT.lines)
            partly += file is not None
        else:
            file = outcome(damaged, keep_altered=True)
            assert file is None or file.altered
            told += file is not None
    assert refused > 0.08 * MUTATIONS
    assert min(partly, told) > 0.01 * MUTATIONS


def resealed(row: bytes) -> bytes:
    """The line with a checksum that fits, as a forger would write it."""
    text = row[: row.rindex(b', "crc32"')]
    return text + b', "crc32": "%08x"}\n' % zlib.crc32(text)


@pytest.mark.parametrize("token", TOKENS, ids=range(len(TOKENS)))
def test_hostile_values_with_fitting_checksums(token: bytes) -> None:
    rows = SAMPLE.splitlines(keepends=True)
    for old in (b'"0.00125"', b"1e-07", b'"label": 3', b'"route": null', b'"id": "0"'):
        assert old in rows[1]
        for new in (token, b'"' + token + b'"', b'"route": ' + token):
            row = resealed(rows[1].replace(old, new))
            file = outcome(b"".join([rows[0], row, *rows[2:]]))
            if file is not None:  # only where the value is one that a line may have
                assert parse(format_row(file.header) + b"".join(map(format_row, file.lines))) == file


@pytest.mark.parametrize("version", ["2", "0", "null", '"1"', "1.0", "true", "-1"])
def test_unknown_schema_is_refused(version: str) -> None:
    rows = SAMPLE.splitlines(keepends=True)
    rows[0] = resealed(rows[0].replace(b'"schema_version": 1', f'"schema_version": {version}'.encode()))
    with pytest.raises(CertificateFileError, match="schema_version"):
        parse(b"".join(rows))


def test_other_json_lines_are_refused() -> None:
    for content in (
        b"",
        b"\n",
        b"{}\n",
        b"[]\n",
        b"1\n",
        json.dumps({"format": "x"}).encode() + b"\n",
        b"\x89PNG\r\n\x1a\n",
    ):
        with pytest.raises(CertificateFileError):
            parse(content)


@settings(max_examples=500)
@given(st.binary(max_size=400))
@example(b'{"format": "acert-zoo-certificates", "schema_version": 1}\n')
def test_any_bytes(content: bytes) -> None:
    assert outcome(content) is None
    assert outcome(content, partial=True, keep_altered=True) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=500)
@given(key=st.sampled_from(sorted(vars(MEANT.lines[0]))), value=json_values)
def test_any_value_of_any_key(key: str, value: object) -> None:
    """Well-formed lines with arbitrary values: refused, or valid."""
    values = vars(MEANT.lines[0]) | {key: value}
    text = json.dumps(values)[:-1].encode()
    rows = SAMPLE.splitlines(keepends=True)
    rows[1] = text + b', "crc32": "%08x"}\n' % zlib.crc32(text)
    file = outcome(b"".join(rows))
    if file is not None:
        assert 0 <= float(file.lines[0].radius) <= 1
        assert file.lines[0].contradictions() == []
