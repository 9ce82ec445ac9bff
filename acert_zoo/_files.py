"""Writing files so that a reader sees the old content or the new, never a part."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from acert_zoo.errors import InvalidInputError


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
    name, real = os.fspath(path), Path(os.path.realpath(path))
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
    """Replaces `path` by `content`: a temporary file in the same folder, fsync, rename.

    A symbolic link stays one; what it points to is replaced.

    Raises:
        OSError: the folder does not exist or cannot be written, `path` is a device, the disk is full; `path` is then
            as it was.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a plain file")
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
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
def locked(folder: Path) -> Iterator[None]:
    """Holds an exclusive lock on a folder, so that read-modify-write of its files by several processes is safe."""
    try:
        import fcntl
    except ImportError:  # Windows: writing stays atomic, only simultaneous writers may lose an update
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
