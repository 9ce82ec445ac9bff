"""Image files as pixels: exact conversions pass, inexact ones are refused or asked for, broken files are errors."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from acert_zoo.data.image_files import image_paths, load_images
from acert_zoo.errors import InvalidInputError

RGB_2X2 = np.array([[[0, 1, 2], [3, 4, 5]], [[128, 254, 255], [51, 102, 204]]], dtype=np.uint8)


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_a_png_becomes_its_bytes_over_255_channels_first(tmp_path: Path) -> None:
    images = load_images([save(tmp_path / "a.png", RGB_2X2)], (3, 2, 2))
    assert images.dtype == torch.float32
    assert images.shape == (1, 3, 2, 2)
    for c in range(3):
        for i in range(2):
            for j in range(2):
                assert images[0, c, i, j].item() == np.float32(RGB_2X2[i, j, c]) / np.float32(255)


def test_several_files_keep_their_order_and_none_is_an_empty_batch(tmp_path: Path) -> None:
    first = save(tmp_path / "z.png", RGB_2X2)
    second = save(tmp_path / "a.png", 255 - RGB_2X2)
    images = load_images([first, second], (3, 2, 2))
    assert images[0, 0, 0, 0] == 0
    assert images[1, 0, 0, 0] == 1
    assert load_images([], (3, 2, 2)).shape == (0, 3, 2, 2)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_conversions_that_change_no_pixel_are_made_silently(tmp_path: Path, mode: str) -> None:
    grey = np.repeat(np.array([[[0], [51]], [[204], [255]]], dtype=np.uint8), 3, axis=2)
    path = save(tmp_path / "a.png", grey, mode)
    colour = load_images([path], (3, 2, 2))
    single = load_images([path], (1, 2, 2))
    assert torch.equal(colour[:, :1], single)
    assert torch.equal((single * 255).round().flatten(), torch.tensor([0.0, 51.0, 204.0, 255.0]))


def test_jpeg_pixels_are_those_that_pillow_decodes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", np.full((8, 8, 3), 100, dtype=np.uint8), quality=95)
    with Image.open(path) as file:
        expected = np.asarray(file)
    assert torch.equal(
        (load_images([path], (3, 8, 8))[0] * 255).round().permute(1, 2, 0).byte(), torch.tensor(expected)
    )


def test_a_wrong_size_names_the_file_its_size_and_the_right_one_and_resize_scales_it(tmp_path: Path) -> None:
    path = save(tmp_path / "wide.png", np.full((4, 6, 3), 51, dtype=np.uint8))
    with pytest.raises(InvalidInputError, match=r"wide\.png.*6x4.*32x16.*--resize"):
        load_images([path], (3, 16, 32))
    scaled = load_images([path], (3, 16, 32), resize=True)
    assert scaled.shape == (1, 3, 16, 32)
    assert torch.all(scaled == torch.tensor(51.0) / 255)


def test_colour_for_a_greyscale_model_is_refused_unless_converted(tmp_path: Path) -> None:
    path = save(tmp_path / "c.png", RGB_2X2)
    with pytest.raises(InvalidInputError, match="colour"):
        load_images([path], (1, 2, 2))
    expected = torch.tensor(np.array(Image.fromarray(RGB_2X2).convert("L"))) / 255
    assert torch.equal(load_images([path], (1, 2, 2), resize=True)[0, 0], expected)


def test_transparency_is_refused_unless_converted(tmp_path: Path) -> None:
    rgba = np.dstack([RGB_2X2, np.array([[255, 254], [255, 255]], dtype=np.uint8)])
    path = save(tmp_path / "t.png", rgba)
    with pytest.raises(InvalidInputError, match="transparent"):
        load_images([path], (3, 2, 2))
    assert load_images([path], (3, 2, 2), resize=True)[0, 2, 1, 0] == 1


@pytest.mark.parametrize(
    ("name", "array", "mode"),
    [("deep.png", np.array([[0, 65535]], dtype=np.uint16), None), ("cmyk.jpg", RGB_2X2, "CMYK")],
)
def test_other_colour_modes_are_refused_by_name(tmp_path: Path, name: str, array: np.ndarray, mode: str | None) -> None:
    path = save(tmp_path / name, array, mode)
    with pytest.raises(InvalidInputError, match=r"colour mode (I;16|I|CMYK)"):
        load_images([path], (3, *array.shape[:2]))


def test_a_photo_is_taken_as_viewers_turn_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # orientation: turned by 180 degrees
    path = save(tmp_path / "turned.png", RGB_2X2, exif=exif)
    upright = load_images([save(tmp_path / "upright.png", RGB_2X2)], (3, 2, 2))
    assert torch.equal(load_images([path], (3, 2, 2)), upright.flip(2, 3))


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    )


def png_bytes() -> bytes:
    out = io.BytesIO()
    Image.fromarray(RGB_2X2).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable PNG or JPEG"),
        (b"hello", "not a readable PNG or JPEG"),
        (b"BM" + b"\0" * 100, "not a readable PNG or JPEG"),
        (png_bytes()[:-30], "cannot be read"),
        (png_claiming(100_000, 100_000), "too large"),
        (png_claiming(12_000, 10_000), "too large"),
    ],
    ids=["empty", "text", "bmp", "truncated", "bomb", "bomb-warning"],
)
def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=rf"broken\.png.*{message}"):
        load_images([path], (3, 2, 2))


def test_an_animation_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(RGB_2X2), Image.fromarray(255 - RGB_2X2)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    with pytest.raises(InvalidInputError, match="animated"):
        load_images([tmp_path / "moving.png"], (3, 2, 2))


def test_a_model_with_two_channels_takes_no_image_files() -> None:
    with pytest.raises(InvalidInputError, match="takes 2"):
        load_images([], (2, 4, 4))


def test_folders_stand_for_their_images_in_name_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.jpeg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "sub.png").mkdir()
    assert [p.name for p in image_paths([tmp_path])] == ["a.JPG", "b.png", "c.jpeg"]
    assert image_paths([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]
    with pytest.raises(InvalidInputError, match="no PNG or JPEG"):
        image_paths([tmp_path / "sub.png"])
    with pytest.raises(InvalidInputError, match=r"'.*missing\.png' does not exist"):
        image_paths([tmp_path / "missing.png"])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4))
def test_altered_files_give_pixels_in_range_or_a_typed_error(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray(png_bytes())
    for position, mask in flips:
        content[position % len(content)] ^= mask
    path = tmp_path / "altered.png"
    path.write_bytes(bytes(content))
    try:
        images = load_images([path], (3, 2, 2))
    except InvalidInputError:
        return
    assert images.min() >= 0
    assert images.max() <= 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InvalidInputError, match="plain file"):
        image_paths([tmp_path / "pipe.png"])
