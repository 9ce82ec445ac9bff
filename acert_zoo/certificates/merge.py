"""Joining certificate files of one run: every line once, byte for byte, in the order of their ids. Needs no torch.

The files are read one by one, strictly, and their lines copied as they stand: of a line only its id and its place stay
in memory, some 300 bytes, so that a million certificates join in a few hundred MiB.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from acert_zoo._files import check_output_file, locked, open_plain, read_plain, replacing
from acert_zoo.certificates.file import format_row, parse
from acert_zoo.certificates.lines import Header
from acert_zoo.certificates.shard_folder import missing_shards
from acert_zoo.errors import CertificateFileError, InvalidInputError
from acert_zoo.rounding import weakest


@dataclass(frozen=True)
class Merged:
    """What `merge_files` wrote.

    Attributes:
        header: of the file.
        files: how many files it was joined from.
        missing: where all ids are indices, how many below the largest one are not there (else 0): a shard forgotten.
    """

    path: str
    header: Header
    files: int
    missing: int


@dataclass(frozen=True)
class _Row:
    id: str
    file: int
    offset: int
    length: int


def certificate_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The files that `paths` name: files as they are, folders by their `*.jsonl` in the order of their names.

    Raises:
        CertificateFileError: a folder holds none, or not all of a run in shards.
    """
    found: list[Path] = []
    for name in paths:
        path = Path(name)
        if not path.is_dir():
            found.append(path)
            continue
        if (missing := missing_shards(path)) != 0:
            raise CertificateFileError(
                f"folder {str(path)!r} lacks {missing:,} shards of its run; the call that began it goes on"
            )
        inside = sorted(p for p in path.glob("*.jsonl") if not p.name.startswith("."))
        if not inside:
            raise CertificateFileError(f"folder {str(path)!r} holds no certificate file (*.jsonl)")
        found += inside
    return found


def merge_files(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Merged:
    """Joins complete certificate files of one run into `out`, atomically.

    The merged lines are in the order of their ids wherever every file's are: as numbers where all ids are decimal
    indices, else as paths. Otherwise they are in the order in which the files are named.

    Args:
        paths: certificate files, or folders of them.
        out: the file to write; it is replaced where it exists, as a whole.
        progress: called with (files read, files in all).

    Raises:
        CertificateFileError: a file is damaged or incomplete; two files are of different models, weights, data sets or
            settings; or an image is in two of them. Both files are named.
        InvalidInputError: no file was named, or `out` cannot be written.
    """
    files = certificate_files(paths)
    if not files:
        raise InvalidInputError("name at least one certificate file to merge")
    check_output_file(out)
    headers: list[Header] = []
    owner: dict[str, int] = {}
    rows: list[_Row] = []
    for number, path in enumerate(files):
        header, found = _read(path, number)
        if headers:
            _check_same_run(files[0], headers[0], path, header)
        headers.append(header)
        for row in found:
            if row.id in owner:
                raise CertificateFileError(
                    f"image {row.id!r:.200} is both in {str(files[owner[row.id]])!r} and in {str(path)!r}"
                )
            owner[row.id] = number
        rows += found
        if progress is not None:
            progress(number + 1, len(files))
    key = _order(rows)
    if key is not None:
        rows.sort(key=lambda row: key(row.id))
    first = min(headers, key=lambda header: header.created)
    merged = dataclasses.replace(first, n=len(rows), rounding=weakest(header.rounding for header in headers))
    with locked(Path(out), wait=False):
        try:
            with replacing(Path(out)) as file:
                file.write(format_row(merged))
                file.writelines(_contents(files, rows))
        except OSError as error:
            raise InvalidInputError(f"output file {str(out)!r} cannot be written: {error}") from error
    missing = max(map(int, owner), default=-1) + 1 - len(owner) if all(map(_is_index, owner)) else 0
    return Merged(str(out), merged, len(files), missing)


def _read(path: Path, number: int) -> tuple[Header, list[_Row]]:
    """The header of a complete file, and the place of each line in it."""
    try:
        content = read_plain(path)
    except OSError as error:
        raise CertificateFileError(f"certificate file {str(path)!r} cannot be read: {error.strerror}") from error
    file = parse(content, repr(str(path)))
    places, offset = [], 0
    for row in content.split(b"\n")[:-1]:
        places.append((offset, len(row.removesuffix(b"\r"))))
        offset += len(row) + 1
    found = [_Row(line.id, number, *place) for line, place in zip(file.lines, places[1:], strict=True)]
    return file.header, found


def _check_same_run(first: Path, header: Header, path: Path, other: Header) -> None:
    different = header.differences(other)
    if different:
        said = "; ".join(f"{name}: {getattr(header, name)!r} and {getattr(other, name)!r}" for name in different)
        raise CertificateFileError(f"{str(first)!r} and {str(path)!r} are of different runs ({said})")


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) <= 12 and name == str(int(name))


def _order(rows: Sequence[_Row]) -> Callable[[str], Any] | None:
    """The order of ids that every file keeps: numbers, or paths; None where there is no such order."""
    key: Callable[[str], Any] = int if all(_is_index(row.id) for row in rows) else _path_parts
    last: tuple[int, Any] | None = None
    for row in rows:
        value = key(row.id)
        if last is not None and last[0] == row.file and not last[1] < value:
            return None
        last = row.file, value
    return key


def _path_parts(name: str) -> tuple[str, ...]:
    return Path(name).parts


def _contents(files: Sequence[Path], rows: Iterable[_Row]) -> Iterator[bytes]:
    """The bytes of each line; one file is open at a time, and shards are contiguous, so few are opened twice."""
    opened: BinaryIO | None = None
    current = -1
    try:
        for row in rows:
            if row.file != current:
                if opened is not None:
                    opened.close()
                opened, current = open_plain(files[row.file]), row.file
            assert opened is not None
            opened.seek(row.offset)
            yield opened.read(row.length) + b"\n"
    finally:
        if opened is not None:
            opened.close()
