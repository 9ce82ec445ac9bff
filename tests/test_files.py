"""Files: only plain ones are read; unusable outputs are found before the work starts; links and devices survive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from acert_zoo._files import (
    check_output_file,
    is_plain_file,
    locked,
    open_plain,
    read_plain,
    read_text,
    write_atomically,
)
from acert_zoo.errors import InvalidInputError


def test_a_new_file_and_an_old_one_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "out"
    for content in (b"one", b"two"):
        check_output_file(path)
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"missing.out': the folder .* does not exist"):
        check_output_file(tmp_path / "missing" / "out")
    with pytest.raises(InvalidInputError, match="is a folder"):
        check_output_file(tmp_path)
    (tmp_path / "lost").symlink_to(tmp_path / "missing" / "out")
    with pytest.raises(InvalidInputError, match="does not exist"):
        check_output_file(tmp_path / "lost")


def test_permissions_of_file_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's answer is imitated: the superuser may write anywhere."""
    path = tmp_path / "out"
    path.write_bytes(b"")
    for forbidden in (path, tmp_path):
        monkeypatch.setattr(os, "access", lambda p, mode, forbidden=forbidden: Path(p) != forbidden)
        with pytest.raises(InvalidInputError, match="cannot be written"):
            check_output_file(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_a_pipe_or_device_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InvalidInputError, match="device or a pipe"):
        check_output_file(pipe)
    with pytest.raises(OSError, match="not a plain file"):
        write_atomically(pipe, b"content")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "out", tmp_path / "link"
    link.symlink_to(target)
    for content in (b"one", b"two"):
        check_output_file(link)
        write_atomically(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content


def test_plain_files_are_read(tmp_path: Path) -> None:
    path, link = tmp_path / "in", tmp_path / "link"
    path.write_bytes(b"\xef\xbb\xbf7\r\n")
    link.symlink_to(path)
    for name in (path, link, str(path)):
        assert is_plain_file(name)
        assert read_plain(name) == b"\xef\xbb\xbf7\r\n"
        assert read_text(name) == "7\r\n", "without the byte order mark"
    assert read_plain(path, 6) == read_plain(path)
    with pytest.raises(OSError, match="it has 6 bytes; at most 5 are read"):
        read_plain(path, 5)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_what_is_no_plain_file_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for name in (pipe, tmp_path, "/dev/zero"):
        assert not is_plain_file(name)
        with pytest.raises(OSError, match=r"not a plain file|Is a directory"):
            open_plain(name)
    for name in (tmp_path / "none", "a\0b", "\ud800", ""):
        assert not is_plain_file(name)
        with pytest.raises(OSError, match=r"No such file|not a file name"):
            open_plain(name)


@pytest.mark.parametrize("name", [5, None, b"bytes", "", "a\0b", ["x"]])
def test_what_names_no_file(name: object) -> None:
    with pytest.raises(InvalidInputError, match=r"output file .*(string or a path|not the name of a file)"):
        check_output_file(name)  # type: ignore[arg-type]


def test_a_lock_lasts_as_long_as_its_block(tmp_path: Path) -> None:
    path = tmp_path / "out"
    for _ in range(2):
        with locked(path, wait=False), pytest.raises(InvalidInputError, match="another run"), locked(path, wait=False):
            pass
    with pytest.raises(KeyError), locked(path, wait=False):
        raise KeyError
    with locked(path), locked(tmp_path / "other"):
        pass
