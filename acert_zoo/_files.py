"""Files: read only where they are plain files, written so that a reader sees the old content or the new, and locked."""

from __future__ import annotations

import codecs
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from acert_zoo.errors import InvalidInputError

_MAX_TEXT = 64 * 2**20  # bytes of a text file: labels, configurations, lists of classes


def check_path(path: object, what: str = "file") -> str:
    """The name that `path`, a string or a path, gives to a file.

    Raises:
        InvalidInputError: anything else, or a name that no file can have.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(name := os.fspath(path), str):
        raise InvalidInputError(f"{what} {path!r:.80}: expected a string or a path")
    if not name or "\0" in name:
        raise InvalidInputError(f"{what} {name!r:.80} is not the name of a file")
    return name


def open_plain(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file for reading, if it is a plain one: a pipe would block, a device may never end.

    Raises:
        OSError: missing, not readable, no plain file (checked on what was opened, not on the name before), or a name
            that no file can have (a NUL byte).
        InvalidInputError: neither a string nor a path.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise InvalidInputError(f"a file is named by a string or a path, got {path!r:.80}")
    try:
        # Without O_NONBLOCK a named pipe blocks here, until somebody writes to it.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(path, flags)
    except ValueError as error:  # a NUL byte, a lone surrogate
        raise OSError(errno.EINVAL, f"not a file name ({error})", repr(path)) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file", os.fspath(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_plain(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """The content of a plain file of at most `limit` bytes.

    Raises:
        OSError: as `open_plain`, or the file is longer.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes; at most {limit:,} are read", os.fspath(path))
        return file.read() if limit is None else file.read(limit)


def read_text(path: str | os.PathLike[str], limit: int = _MAX_TEXT) -> str:
    """The text of a plain UTF-8 file, without the byte order mark that editors on Windows put before it.

    Raises:
        OSError: as `read_plain`. UnicodeDecodeError (a ValueError): not UTF-8.
    """
    return read_plain(path, limit).removeprefix(codecs.BOM_UTF8).decode("utf-8")


def is_plain_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is a plain file of this name; False also for names that no file can have."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def check_plain_file(path: str | os.PathLike[str], what: str = "file") -> None:
    """Whether `path` is a plain file (or a link to one): a pipe would be waited for, a device read without end.

    Raises:
        InvalidInputError: it does not exist, or is a folder, a pipe, a device, or no path at all.
    """
    name = os.fspath(path)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidInputError(f"{what} {name!r} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise InvalidInputError(f"{what} {name!r} cannot be read: {error}") from None
    if stat.S_ISDIR(mode):
        raise InvalidInputError(f"{what} {name!r} is a folder; a file is needed")
    if not stat.S_ISREG(mode):
        raise InvalidInputError(f"{what} {name!r} is a device or a pipe; a plain file is needed")


def check_output_file(path: str | os.PathLike[str]) -> None:
    """Whether a file can be written at `path`: for finding out before the work starts, not after it.

    Raises:
        InvalidInputError: its folder does not exist, it is a folder or a device, or the permission is missing.
    """
    name = check_path(path, "output file")
    real = Path(os.path.realpath(name))
    if not real.parent.is_dir():
        raise InvalidInputError(f"output file {name!r}: the folder {str(real.parent)!r} does not exist")
    if real.is_dir():
        raise InvalidInputError(f"output file {name!r} is a folder")
    if real.exists() and not real.is_file():
        raise InvalidInputError(f"output file {name!r} is a device or a pipe; a plain file is needed")
    # The folder too: content is written beside the file and renamed.
    if not os.access(real.parent, os.W_OK) or (real.exists() and not os.access(real, os.R_OK | os.W_OK)):
        raise InvalidInputError(f"output file {name!r} cannot be written")


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` by `content`; errors as `replacing`."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends: a temporary one in the same folder, fsync, rename.

    A symbolic link stays one; what it points to is replaced.

    Raises:
        OSError: the folder does not exist or cannot be written, `path` is a device, the disk is full; `path` is then
            as it was, as it is after any exception in the block.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a plain file")
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Keeps other processes and threads that lock the same `path` out of it, until the block ends or the process dies.

    The operating system holds the lock, on the empty file `.NAME.lock` beside it: whatever ends this run, it blocks no
    later one. That file stays (deleting it would let two runs lock two files of that name).

    Args:
        wait: whether to wait while another holds the lock.

    Raises:
        InvalidInputError: another run holds it (without `wait`), or its folder allows no lock.
    """
    from filelock import FileLock, Timeout

    path = Path(os.path.realpath(path))
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        raise InvalidInputError(
            f"output file {str(path)!r} is being written by another run; name another file"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise InvalidInputError(f"output file {str(path)!r} cannot be locked: {error}") from error
    try:
        yield
    finally:
        lock.release()
