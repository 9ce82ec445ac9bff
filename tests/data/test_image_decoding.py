"""Decoding one file: its samples as they are stored, upright; what has no fixed meaning is refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acert_zoo.data.image_decoding import decode
from acert_zoo.errors import InvalidInputError

RAMP = np.array([[0, 1, 255], [256, 4660, 65535]], dtype=np.uint16)


def test_eight_bits_are_an_image_and_the_size_is_width_by_height(tmp_path: Path) -> None:
    Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3)).save(tmp_path / "a.png")
    found = decode(tmp_path / "a.png")
    assert found.size == (3, 2)
    assert found.samples is None
    assert np.asarray(found.image).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_sixteen_bits_keep_their_low_bytes(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    found = decode(tmp_path / "a.png")
    assert found.size == (3, 2)
    assert found.samples is not None
    assert found.samples[..., 0].tolist() == RAMP.tolist()
    assert not found.transparent


def test_a_note_of_orientation_is_followed(tmp_path: Path) -> None:
    """Orientation 6: the camera was turned, what is stored as the left column is the top row."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.array([[0, 255], [0, 255], [0, 255]], dtype=np.uint8)).save(tmp_path / "a.png", exif=exif)
    found = decode(tmp_path / "a.png")
    assert found.size == (3, 2)
    assert np.asarray(found.image).tolist() == [[0, 0, 0], [255, 255, 255]]


def test_what_is_no_single_image_of_a_fixed_range_is_refused(tmp_path: Path) -> None:
    frames = [Image.new("L", (2, 2), value) for value in (0, 255)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(tmp_path / "float.tiff")
    (tmp_path / "text.png").write_text("no image")
    for name, message in (("moving.gif", "animated"), ("float.tiff", "colour mode F"), ("text.png", "not a readable")):
        with pytest.raises(InvalidInputError, match=f"{name}.*{message}"):
            decode(tmp_path / name)
    with pytest.raises(InvalidInputError, match="does not exist"):
        decode(tmp_path / "missing.png")
    with pytest.raises(InvalidInputError, match="is a folder"):
        decode(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InvalidInputError, match="a pipe"):
        decode(tmp_path / "pipe.png")
