"""Appending certificates to a file while they are found, so that a run that broke off can go on. Needs no torch."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from acert_zoo._files import check_output_file, check_path, locked, open_plain, write_atomically
from acert_zoo.certificates.file import FORMAT, format_file, format_row, read_file
from acert_zoo.certificates.lines import Header, Line
from acert_zoo.errors import CertificateFileError, InvalidInputError
from acert_zoo.rounding import weakest

_BEGINNING = f'{{"format": "{FORMAT}"'.encode()


class CertificateWriter:
    """An output file open for appending; a context manager.

    Entering checks everything before any work is done: the folder, the permission, that no other run writes the file
    (none can until the block is left), and that what it already holds belongs to the same run. A torn last line is
    dropped. `kept` are the certificates that need not be found again.

    Args:
        path: the file, new or left by an earlier call.
        header: of the present run; its `n` is set by `expect`.

    Raises:
        InvalidInputError: the folder does not exist, the file cannot be written, or another run is writing it.
        CertificateFileError: the file is damaged, is no certificate file, or holds certificates of another run.
    """

    def __init__(self, path: str | os.PathLike[str], header: Header) -> None:
        self.path, self.header = Path(check_path(path, "output file")), header
        self.kept: dict[str, Line] = {}
        self._lines: dict[str, Line] = {}
        self._weakest_possible = header.rounding
        self._torn = False
        self._file: BinaryIO | None = None
        self._exists = False
        self._open = ExitStack()  # the lock

    def _begin(self) -> None:
        """Reads what an earlier call left."""
        self._exists = self.path.exists() and self._has_header()
        if self._exists:
            try:
                file = read_file(self.path, partial=True)
            except CertificateFileError as error:
                raise CertificateFileError(
                    f"the output file exists and cannot be continued, name another one: {error}"
                ) from None
            different = file.header.differences(self.header)
            if different:
                said = "; ".join(
                    f"{f}: {getattr(file.header, f)!r} there, {getattr(self.header, f)!r} now" for f in different
                )
                raise CertificateFileError(
                    f"{str(self.path)!r} holds certificates of another run ({said}); name another file"
                )
            self.header, self._torn = file.header, file.torn
            self.kept = {line.id: line for line in file.lines}
            self._lines = dict(self.kept)

    def _has_header(self) -> bool:
        """False for an empty file and one whose very first line was torn; both are begun again."""
        with open_plain(self.path) as file:
            first = file.readline(1 << 16)
        return first.endswith(b"\n") or not (first.startswith(_BEGINNING) or _BEGINNING.startswith(first))

    def expect(self, ids: Sequence[str]) -> None:
        """Announces the images of this run; the file is complete once it also holds those. Call before `append`."""
        n = len(self.kept.keys() | set(ids))
        rounding = self.header.rounding if n == len(self.kept) else self._weakest_possible
        changed = not self._exists or self._torn or (n, rounding) != (self.header.n, self.header.rounding)
        self.header = dataclasses.replace(self.header, n=n, rounding=rounding)
        try:
            if changed:
                write_atomically(self.path, format_file(self.header, self.kept.values()))
            self._file = open(self.path, "ab")  # noqa: SIM115 (closed by __exit__)
        except OSError as error:
            raise InvalidInputError(f"output file {str(self.path)!r} cannot be written: {error}") from error

    def append(self, lines: Iterable[Line]) -> None:
        """Writes the certificates of one batch; they survive whatever happens next."""
        assert self._file is not None, "expect() opens the file"
        lines = list(lines)
        self._lines.update((line.id, line) for line in lines)
        self._file.write(b"".join(format_row(line) for line in lines))
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> None:
        """With every line there, the header says the weakest level that they have, not the weakest they might have."""
        if len(self._lines) != self.header.n or not self._lines:
            return
        level = weakest(line.rounding for line in self._lines.values())
        if level != self.header.rounding:
            self.header = dataclasses.replace(self.header, rounding=level)
            write_atomically(self.path, format_file(self.header, self._lines.values()))

    def __enter__(self) -> CertificateWriter:
        check_output_file(self.path)
        with ExitStack() as entered:
            entered.enter_context(locked(self.path, wait=False))
            self._begin()
            self._open = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        self._open.close()
