"""Output files: found unusable before the work starts; links and devices survive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from acert_zoo._files import check_output_file, write_atomically
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
